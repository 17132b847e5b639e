"""Training of one model on one fold, resumed where it was interrupted."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from doseledger.core.code import reached_code
from doseledger.core.errors import NotReady
from doseledger.core.files import sha256_of_file
from doseledger.core.tables import SPLITS, read_table
from doseledger.core.types import Tell
from doseledger.learn.data.inputs import OpenCase, case_files, open_case
from doseledger.learn.data.patches import case_loader, patch_loader
from doseledger.learn.run import CasesByPart, Task, TrainingRun
from doseledger.learn.training.callbacks import Alive, CaseGroups, Log, Recorder, copy_file
from doseledger.learn.training.checkpoint import Checkpoint, make_checkpoint
from doseledger.learn.training.finite import refuse_wrong_gradients
from doseledger.learn.training.keeping import NOTHING_MORE, Kept, StateKeeper, StepSeeds, require_whole
from doseledger.learn.training.measured import measured_cases
from doseledger.learn.training.memory import explained_memory_errors
from doseledger.learn.training.parent import refuse_seen_split, require_fit
from doseledger.learn.training.ranks import (
    BEGINNING,
    Team,
    share_cases,
    share_patches,
    team_of,
    trainer_options,
)
from doseledger.learn.training.resume import ResumeState, join_state, open_state
from doseledger.learn.training.run_files import device_name, resolved_settings, write_run_files
from doseledger.learn.training.told import told_cases
from doseledger.learn.watch.heartbeat import Pulse, stacks_on_request
from doseledger.learn.watch.live import Live
from doseledger.learn.watch.loggers import Record, open_logger
from doseledger.learn.watch.red_flags import RedFlagLimits

TALKATIVE = (
    "pytorch_lightning.utilities.rank_zero",
    "lightning_fabric.utilities.rank_zero",
    "lightning_fabric.utilities.distributed",
)


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes.

    Folder of cases, table of splits, folder of the run, root of resume states, and folder of the cases' physics maps,
    which is looked into only by a model that asks for them.
    """

    cases: Path
    splits: Path
    out: Path
    state_root: Path
    physics: Path | None = None


def train(
    run: TrainingRun,
    places: Places,
    *,
    fresh: bool,
    tell: Tell,
    red_flags: RedFlagLimits | None = None,
    kept: Kept = NOTHING_MORE,
) -> None:
    """Train a model and write its run: checkpoints, history, settings, summary and log.

    Parameters
    ----------
    fresh
        Throw an interrupted run's state away instead of going on from it.
    red_flags
        Limits of the signs that are told as it trains; None tells of none.
    kept
        What is kept besides the run's own files, and how often.

    Raises
    ------
    NotReady
        If a case is absent or its bytes are not those in the splits, or if the run is told to stop before its end.
    BadInput
        If settings and cases do not fit, gradients are not finite or would be wrong, or memory does not suffice.
    """
    if run.family.fit is not None:
        run.family.fit(run, places, tell=tell, red_flags=red_flags)
        return
    refuse_wrong_gradients(run.network_recipe, "cuda" if torch.cuda.is_available() else "cpu")
    team = team_of(run.devices, run.nodes)
    cases = open_cases(run, places)
    refuse_seen_split(run, read_table(places.splits, SPLITS))
    parts = fingerprint_parts(run, places, cases)
    if team.is_main:
        state = open_state(places.state_root, run.model, parts, fresh=fresh, twins=team.size == 1)
    else:
        state = join_state(places.state_root, run.model, parts, fresh=fresh)
    pulse = Pulse(state.folder, main=team.is_main)
    with ExitStack() as stack:
        stack.callback(state.release)
        stack.enter_context(pulse.refusals())
        stack.enter_context(stacks_on_request(state.folder))
        log: Tell = _unheard
        if team.is_main:
            log = _start_log(places, state, tell)
        cases = told_cases(run.family, cases, state.folder / f"told{team.rank}", log)
        spec = run.family.reader.spec_of([*cases["train"], *cases["val"]], run.recipe.inputs)
        if team.is_main:
            write_run_files(run, places.out, places.splits, spec, cases)
        live = Live(places.out, red_flags, log)
        if team.is_main:
            # Beside the resume states, not among them: it outlives the run.
            record = Record(
                places.state_root.parent / kept.logger,
                places.out / "checkpoints" / "best.ckpt",
                run.model,
                state.folder.name,
                resolved_settings(run),
            )
            live.sink = stack.enter_context(open_logger(kept.logger, record))
        task = make_task(run, spec, cases)
        validated, trained = ([case.case_id for case in part] for part in (cases["val"], measured_cases(run, cases)))
        groups = CaseGroups(validated, trained, run.family.scores)
        log(_describe(run, task, team, cases, groups))
        began = time.perf_counter()
        recorder = Recorder(places.out, state, _checkpoint_maker(run, spec, cases), live, team, groups)
        keeper = StateKeeper(state, kept.every_steps, team)
        _fit(run, task, [Alive(pulse), StepSeeds(run.seed, team), recorder, keeper], state, cases, team)
        seconds, epoch = time.perf_counter() - began, recorder.best["epoch"]
        log(f"trained in {seconds:.0f} s on {device_name()}; best epoch {epoch:.0f}")
        if team.is_main:
            shutil.rmtree(state.folder)


def _unheard(line: str) -> None:
    """Of several processes one speaks."""


def _start_log(places: Places, state: ResumeState, tell: Tell) -> Log:
    log = Log(places.out / "train.log", state.folder / "train.log", tell)
    if state.found:
        if (state.folder / "best.ckpt").is_file():
            copy_file(state.folder / "best.ckpt", places.out / "checkpoints" / "best.ckpt")
        log(f"resumes: {state.why}")
    else:
        # What an earlier run left in the folder must not be taken for this one's.
        shutil.rmtree(places.out / "checkpoints", ignore_errors=True)
        log(f"starts from the beginning: {state.why}")
    return log


def _describe(run: TrainingRun, task: Task, team: Team, cases: CasesByPart, groups: CaseGroups) -> str:
    n_weights = sum(weight.numel() for weight in task.network.parameters())
    begun = f", begun with those of {run.parent.name}" if run.parent else ""
    text = (
        f"{run.model}: {n_weights / 1e6:.2f} million weights{begun}; {len(cases['train'])} training cases "
        f"({len(groups.trained)} measured with each validation), {len(cases['val'])} validation cases"
    )
    if team.size == 1:
        return text
    size, accumulate = run.network_recipe.sampling.batch_size, run.network_recipe.fit.accumulate
    batch = team.size * size * accumulate
    return f"{text}; {team.size} processes with {size} patches each make a batch of {batch}, at the same lr"


def open_cases(run: TrainingRun, places: Places) -> CasesByPart:
    """Return the training and validation cases, each compared with its SHA256 in the splits."""
    splits = read_table(places.splits, SPLITS)
    physics = places.physics if run.recipe.physics else None

    def opened(part: str) -> list[OpenCase]:
        files = case_files(places.cases, splits, part, fold=run.fold, repeat=run.repeat, physics=physics)
        return [open_case(file) for file in files]

    return {part: opened(part) for part in ("train", "val")}


def make_task(run: TrainingRun, spec: Any, cases: CasesByPart) -> Task:
    """Return the task of the run's family, with its parent's weights, or drawn from the run's seed and nothing else's.

    Raises
    ------
    BadInput
        If its parent's weights don't fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        task = run.family.make_task(run, spec, cases)
    if run.parent is not None:
        require_fit(run, task.weights())
        task.begin_from(run.parent.weights, run.parent.extras)
    return task


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
        "physics": {c.case_id: sha256_of_file(c.physics.path) for part in cases.values() for c in part if c.physics},
        "code": reached_code(__name__, run.family.module),
        "data_gate": run.token,
        **run.family.parts,
        **({"init_from": [line.sha256 for line in run.ancestors]} if run.ancestors else {}),
        "processes": run.devices * run.nodes,
        "versions": {"torch": torch.__version__, "pytorch_lightning": pl.__version__},
    }


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep back what Lightning says of its own: hints on loaders and loggers that are as the recipe wants them."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls torch's tree functions by a name that torch 2.13 gives up.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            # On a cluster's machine one process is a training too, started by hand or by a test.
            warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
            # What is behind an interrupted run is left out by the sampler.
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
            # Torch 2.13 renames what older ones know by this name alone.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.* is deprecated", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _fit(
    run: TrainingRun, task: Task, callbacks: list[pl.Callback], state: ResumeState, cases: CasesByPart, team: Team
) -> None:
    recipe, reader = run.network_recipe, run.family.reader
    start = require_whole(state.lightning) if state.found else BEGINNING
    loader = patch_loader(reader.patches(cases["train"], task.spec, recipe, run.seed), recipe)
    patches = share_patches(loader, team, start)
    validated = share_cases([*cases["val"], *measured_cases(run, cases)], team)
    whole = case_loader(reader.whole(validated, task.spec, recipe), recipe.loader)
    with (
        quiet_lightning(),
        explained_memory_errors(recipe),
        torch.random.fork_rng(devices=[]),
    ):
        trainer = pl.Trainer(
            accelerator="auto",
            **trainer_options(run.devices, run.nodes),
            precision=recipe.fit.precision,
            max_epochs=recipe.fit.max_epochs,
            check_val_every_n_epoch=recipe.fit.validate_every,
            accumulate_grad_batches=recipe.fit.accumulate,
            gradient_clip_val=recipe.optimiser.clip_norm,
            callbacks=callbacks,
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


def _checkpoint_maker(run: TrainingRun, spec: Any, cases: CasesByPart) -> Any:
    def make(task: Task, epoch: int, scores: dict[str, float]) -> Checkpoint:
        weights, extras = task.weights(), task.extras()
        return make_checkpoint(run, spec, cases, epoch=epoch, scores=scores, weights=weights, extras=extras)

    return make
