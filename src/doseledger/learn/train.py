"""Train one model on one fold: from judged cases to checkpoints, resumed where an interrupted run left off."""

from __future__ import annotations

import logging
import platform
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.fanout import Tell
from doseledger.core.files import sha256_of_file, sha256_of_json, write_json, write_text
from doseledger.core.tables import SPLITS, read_table
from doseledger.learn.callbacks import Log, Recorder, copy_file
from doseledger.learn.checkpoint import Checkpoint
from doseledger.learn.inputs import InputSpec, OpenCase, case_files, open_case, spec_of
from doseledger.learn.patches import PatchDataset, WholeCases, case_loader, patch_loader
from doseledger.learn.recipe import CommonRecipe
from doseledger.learn.resume import ResumeState, code_digests, open_state
from doseledger.learn.run import CasesByPart, Task, TrainingRun


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes: folder of cases, table of splits, folder of the run, root of resume states."""

    cases: Path
    splits: Path
    out: Path
    state_root: Path


def train(run: TrainingRun, places: Places, *, fresh: bool, tell: Tell) -> None:
    """Train a model and write its run: checkpoints, history, settings, summary and log.

    Parameters
    ----------
    fresh
        Throw an interrupted run's state away instead of going on from it.
    tell
        Takes each line that train.log gets.

    Raises
    ------
    NotReady
        If a case is absent or its bytes are not those in the splits, or if the run is told to stop before its end.
    BadInput
        If settings and cases do not fit, the loss is not finite, or memory does not suffice.
    """
    cases = open_cases(run, places)
    spec = spec_of([*cases["train"], *cases["val"]], run.recipe.inputs)
    state = open_state(places.state_root, run.model, fingerprint_parts(run, places, cases), fresh=fresh)
    log = Log(places.out / "train.log", state.folder / "train.log", tell)
    if state.found:
        if (state.folder / "best.ckpt").is_file():
            copy_file(state.folder / "best.ckpt", places.out / "checkpoints" / "best.ckpt")
        log(f"resumes: {state.why}")
    else:
        # What an earlier run left in the folder must not be taken for this one's.
        shutil.rmtree(places.out / "checkpoints", ignore_errors=True)
        log(f"starts from the beginning: {state.why}")
    _write_settings(run, places, spec, cases)
    task = make_task(run, spec, cases)
    n_weights = sum(weight.numel() for weight in task.network.parameters())
    counts = f"{len(cases['train'])} training, {len(cases['val'])} validation cases"
    log(f"{run.model}: {n_weights / 1e6:.2f} million weights; {counts}")
    began = time.perf_counter()
    recorder = Recorder(places.out, state, _checkpoint_maker(run, spec, cases), log)
    _fit(run, task, recorder, state, cases)
    log(f"trained in {time.perf_counter() - began:.0f} s on {device_name()}; best epoch {recorder.best['epoch']:.0f}")
    shutil.rmtree(state.folder)


def open_cases(run: TrainingRun, places: Places) -> CasesByPart:
    """Return the training and validation cases, each compared with its SHA256 in the splits."""
    splits = read_table(places.splits, SPLITS)
    return {
        part: [open_case(file) for file in case_files(places.cases, splits, part, fold=run.fold, repeat=run.repeat)]
        for part in ("train", "val")
    }


def make_task(run: TrainingRun, spec: InputSpec, cases: CasesByPart) -> Task:
    """Return the task of the run's family, with weights drawn from the run's seed and nothing else's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return run.family.make_task(run, spec, cases)


def fingerprint_parts(run: TrainingRun, places: Places, cases: CasesByPart) -> dict[str, Any]:
    """Return all that decides the run's result, as JSON values."""
    return {
        "recipe": run.recipe.trained_part().model_dump(mode="json"),
        "lr": run.lr,
        "seed": run.seed,
        "fold": run.fold,
        "repeat": run.repeat,
        "splits": sha256_of_file(places.splits),
        "cases": {case.case_id: case.file.sha256 for part in cases.values() for case in part},
        "code": code_digests(run.family.module),
        "data_gate": run.token,
        **run.family.parts,
        "versions": {"torch": torch.__version__, "pytorch_lightning": pl.__version__},
    }


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep back what Lightning says of its own: hints on loaders and loggers that are as the recipe wants them."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls torch's tree functions by a name that torch 2.13 gives up.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def explained_memory_errors(recipe: CommonRecipe) -> Iterator[None]:
    """Say what to lower when the memory of GPU or machine does not suffice.

    Raises
    ------
    BadInput
        In place of torch's out-of-memory error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if isinstance(error, RuntimeError) and not any(m in text for m in ("out of memory", "can't allocate memory")):
            raise
        sampling = recipe.sampling
        raise BadInput(
            f"out of memory on {device_name()} with patches of {list(sampling.patch_zyx)} voxels, "
            f"{sampling.batch_size} at a time: lower sampling.batch_size (and raise fit.accumulate as much), then "
            f"sampling.patch_zyx, then the network's width; or set fit.precision to bf16-mixed ({error})"
        ) from error


def device_name() -> str:
    """Return what training runs on: the GPU's name, or the CPU and its threads."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"CPU ({torch.get_num_threads()} threads)"


def _fit(run: TrainingRun, task: Task, recorder: Recorder, state: ResumeState, cases: CasesByPart) -> None:
    recipe = run.recipe
    patches = patch_loader(PatchDataset(cases["train"], task.spec, recipe, run.seed), recipe)
    whole = case_loader(WholeCases(cases["val"], task.spec, recipe.sampling.patch_zyx), recipe.loader)
    with (
        quiet_lightning(),
        explained_memory_errors(recipe),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(run.seed)
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            precision=recipe.fit.precision,
            max_epochs=recipe.fit.max_epochs,
            check_val_every_n_epoch=recipe.fit.validate_every,
            accumulate_grad_batches=recipe.fit.accumulate,
            gradient_clip_val=recipe.optimiser.clip_norm,
            callbacks=[recorder],
            # The sampler deals patches by key; Lightning's own would replace it.
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=state.folder,
        )
        # weights_only: the state is this program's own, and no code in it is run.
        resume_from = str(state.lightning) if state.found else None
        try:
            trainer.fit(task, patches, whole, ckpt_path=resume_from, weights_only=True)
        except SIGTERMException as error:
            # A SystemExit without a code: the process would end as if all were well, with half a model as its result.
            raise NotReady(
                f"training of {run.model} was told to stop in epoch {trainer.current_epoch + 1} of "
                f"{recipe.fit.max_epochs}; what it had done is kept, start it again to go on"
            ) from error


def _checkpoint_maker(run: TrainingRun, spec: InputSpec, cases: CasesByPart) -> Any:
    spacings = [case.spacing_mm for case in cases["train"]]
    bounds = tuple(tuple(pick(axis) for axis in zip(*spacings, strict=True)) for pick in (min, max))

    def make(task: Task, epoch: int, scores: dict[str, float]) -> Checkpoint:
        return Checkpoint(
            model=run.model,
            recipe=run.recipe.trained_part(),
            settings={"lr": run.lr, "seed": run.seed, "fold": run.fold, "repeat": run.repeat},
            structure_names=spec.structure_names,
            target_names=spec.target_names,
            spacing_range_mm=(bounds[0], bounds[1]),
            trained_on={case.case_id: case.file.sha256 for case in cases["train"]},
            selected_on={case.case_id: case.file.sha256 for case in cases["val"]},
            epoch=epoch,
            scores=scores,
            weights=task.weights(),
            extras=task.extras(),
        )

    return make


def _write_settings(run: TrainingRun, places: Places, spec: InputSpec, cases: CasesByPart) -> None:
    import io

    from ruamel.yaml import YAML

    settings = {"lr": run.lr, "seed": run.seed, "fold": run.fold, "repeat": run.repeat}
    resolved = {"model": run.model, **settings, "recipe": run.recipe.trained_part().model_dump(mode="json")}
    buffer = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(resolved, buffer)
    write_text(places.out / "config_resolved.yaml", buffer.getvalue())
    summary = {
        "structure_names": list(spec.structure_names),
        "target_names": list(spec.target_names),
        "channels": spec.n_channels,
        "conditions": spec.n_conditions,
        **{part: [_describe_case(case) for case in members] for part, members in cases.items()},
    }
    write_json(places.out / "dataset_summary.json", summary)
    record = {
        "model": run.model,
        **settings,
        "recipe_sha256": sha256_of_json(run.recipe.trained_part().model_dump(mode="json")),
        "splits_sha256": sha256_of_file(places.splits),
        "cases_sha256": sha256_of_json({c.case_id: c.file.sha256 for part in cases.values() for c in part}),
        "data_gate": run.token,
        **run.family.parts,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch_lightning": pl.__version__,
            "cuda": torch.version.cuda,
        },
        "device": device_name(),
        "provenance": run.provenance,
    }
    write_json(places.out / "run.json", record)


def _describe_case(case: OpenCase) -> dict[str, Any]:
    return {
        "case_id": case.case_id,
        "sha256": case.file.sha256,
        "shape_zyx": list(case.shape_zyx),
        "spacing_mm": list(case.spacing_mm),
        "present": [name for name, there in zip(case.structure_names, case.present, strict=True) if there],
        "prescription_gy": case.prescription_gy,
        "n_fractions": case.n_fractions,
    }
