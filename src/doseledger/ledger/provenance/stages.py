"""Code and settings that each stage of the pipeline rests on.

Both are written as small files, one a stage, on which DVC's stages depend; a stage's command makes them anew and
refuses when they are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doseledger.core.code import reached_code
from doseledger.core.errors import NotReady
from doseledger.core.files import all_or_none, read_json, sha256_of_file, write_json
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.settings import Settings
from doseledger.gates.digests import DATA_JUDGE
from doseledger.gates.limits import DEFAULT, borrowed_limits, load_thresholds
from doseledger.gates.run_digest import TRAINER
from doseledger.gates.suites import read_suite
from doseledger.gates.verdict import without_explanations
from doseledger.learn.kinds import KINDS, recipe_of
from doseledger.learn.recipes.dose import FROM_NOTHING, ModelRecipe

# Where a stage begins, for all models alike.
STAGES: dict[str, tuple[str, ...]] = {
    "phantom": ("doseledger.phantom.cohort",),
    "ingest": ("doseledger.ingest.cohort",),
    "split": ("doseledger.ingest.splits",),
    "physics": ("doseledger.ingest.physics",),
    "check_data": (DATA_JUDGE, "doseledger.report.gate_pages"),
    "evaluate": ("doseledger.evaluate.cohort", "doseledger.evaluate.segmentation", "doseledger.evaluate.calibration"),
    "drift": ("doseledger.gates.drift.judge", "doseledger.report.gate_pages"),
    "deliver": ("doseledger.deliver.cohort",),
    "judge": ("doseledger.gates.model.judge",),
    "report": ("doseledger.report.model.run",),
    "report_data": ("doseledger.report.data",),
    "gate": ("doseledger.gates.verdict",),
}
# Where a stage begins besides, for a model of its kind.
MODEL_STAGES: dict[str, tuple[str, ...]] = {
    "preflight": ("doseledger.gates.model.preflight", TRAINER),
    "train": (TRAINER,),
    "predict": ("doseledger.learn.predict.predictor", "doseledger.ingest.physics"),
    "shortcuts": ("doseledger.evaluate.shortcuts.measure",),
    "contours": ("doseledger.evaluate.contours",),
}
TRAINED = ("preflight", "train")
# Which of the cohort's settings a stage depends on, and whose settings of a model, where not its own.
NEEDS = {
    "phantom": ("goals",),
    "ingest": ("protocol",),
    "physics": ("protocol",),
    "check_data": ("protocol", "data"),
    "evaluate": ("protocol", "goals"),
    "contours": ("protocol", "goals"),
    "deliver": ("protocol", "goals"),
    "drift": ("protocol", "drift"),
    "report": ("explained",),
    "report_data": ("explained",),
}
NEEDS_OF_MODEL = {"shortcuts": "predict", "contours": "predict"}


def code_of(stage: str, kind: str | None = None) -> dict[str, str]:
    """Return the hash of every module that a stage reaches, by name.

    Parameters
    ----------
    kind
        Of the model, where the stage is a model's own.
    """
    if stage in STAGES:
        return reached_code(*STAGES[stage])
    row = KINDS[str(kind)]
    return reached_code(*MODEL_STAGES[stage], row.family if stage in TRAINED else row.predictor)


def code_files(layout: Layout, settings: Settings) -> dict[Path, dict[str, str]]:
    """Return what `doseledger code` writes: hashes of code by file."""
    files = {layout.code / f"{stage}.json": code_of(stage) for stage in STAGES}
    for model in settings.models:
        for stage in MODEL_STAGES:
            kind = str(settings.model(model)["kind"])
            files[layout.model(model).code / f"{stage}.json"] = code_of(stage, kind)
    return files


def stale_code(layout: Layout, settings: Settings) -> list[Path]:
    """Return the files of code that say something else than the code; none where the pipeline has not run yet."""
    if not layout.code.is_dir():
        return []
    wanted = code_files(layout, settings)
    there = set(layout.code.rglob("*.json"))
    return sorted(path for path in {*wanted, *there} if path not in there or read_json(path) != wanted.get(path))


def cohort_files(layout: Layout) -> dict[Path, Any]:
    """Return a cohort's protocol, goals and limits, resolved, by file.

    Comments, and words that explain a limit, are left out of what stages depend on; the report depends on them too.
    """
    folder = layout.settings
    explained = {
        "protocol": load_protocol(layout.protocol),
        "goals": load_goals(layout.goals),
        "limits": load_thresholds(layout),
    }
    plain = {name: block.model_dump(mode="json") for name, block in explained.items()}
    data = {"limits": plain["limits"]["data"], "suite": read_suite(layout.suite)}
    return {
        # Its words are written into the table of skipped cases.
        folder / "protocol.json": plain["protocol"],
        folder / "goals.json": without_explanations(plain["goals"]),
        folder / "data.json": without_explanations(data),
        folder / "drift.json": without_explanations(plain["limits"]["drift"]),
        folder / "explained.json": plain,
    }


def model_files(at: ModelLayout, settings: Settings) -> dict[Path, Any]:
    """Return a model's settings and limits, resolved, by file."""
    limits = load_thresholds(at.layout).model_dump(mode="json")
    recipe, trained = recipe_of(settings, at.name), trained_settings(settings, at.name)
    begun = {key: value for key, value in trained["recipe"].items() if key != "fit"}
    judged = {name: limits[name] for name in ("training", "evaluation", "candidate", "badge")}
    judged["borrowed"] = borrowed_limits(at.layout)
    for name in ("metrics", "shortcuts"):
        judged[name] = limits[name].get(at.name, limits[name].get(DEFAULT))
    preflight = {**trained, "recipe": begun, "limits": [limits["preflight"], judged]}
    return {
        at.settings / "preflight.json": without_explanations(preflight),
        at.settings / "train.json": trained,
        at.settings / "predict.json": recipe.model_dump(mode="json")["predict"],
        at.settings / "judge.json": without_explanations(judged),
        at.start / "start.json": {"starts_from": settings.bases.get(at.name), **_begins_with(recipe)},
    }


def _begins_with(recipe: ModelRecipe) -> dict[str, str]:
    """The version or model whose weights a training begins with; a version's bytes never change."""
    name = getattr(recipe, "init_from", FROM_NOTHING)
    return {} if name == FROM_NOTHING else {"init_from": name}


def base_files(at: ModelLayout, settings: Settings, only: str | None = None) -> dict[Path, Any]:
    """Return the checkpoints that a model starts from, by file; nothing where it starts from nothing.

    Parameters
    ----------
    only
        The one part of a mean that is asked for; the others may not be trained yet.

    Raises
    ------
    NotReady
        If one is not trained.
    """
    files = {}
    for path, model in starts_of(at, settings).items():
        if only is not None and path != part_file(at, only):
            continue
        checkpoint = at.layout.model(model).checkpoint
        if not checkpoint.is_file():
            raise NotReady(f"{at.name} starts from {model}, which is not trained: no {checkpoint}; run `dvc repro`")
        files[path] = {"model": model, "sha256": sha256_of_file(checkpoint)}
    return files


def starts_of(at: ModelLayout, settings: Settings) -> dict[Path, str]:
    """Return the models that a model starts from, by the file that says which checkpoint of each."""
    starts = {part_file(at, part): part for part in settings.parts_of(at.name)}
    if at.name in settings.bases:
        starts[at.start / "base.json"] = settings.bases[at.name]
    return starts


def part_file(at: ModelLayout, part: str) -> Path:
    """Return the file that says which checkpoint of a part a mean is made of."""
    return at.start / f"part_{part}.json"


def trained_settings(settings: Settings, model: str) -> dict[str, Any]:
    """Return all settings that decide a model's weights, as JSON values: rate, seeds, processes and recipe."""
    return {
        "model": model,
        "lr": settings.lr,
        "seed": settings.seed,
        "fold": settings.fold,
        "repeat": settings.repeat,
        "devices": settings.train.devices,
        "nodes": settings.train.nodes,
        "recipe": recipe_of(settings, model).trained_part().model_dump(mode="json"),
    }


def write_files(files: Mapping[Path, Any]) -> None:
    """Write JSON files."""
    with all_or_none():
        for path, value in files.items():
            write_json(path, value)


def require_stage(layout: Layout, settings: Settings, stage: str, model: str | None = None) -> None:
    """Do nothing if the files of code and settings that a stage depends on say what holds now.

    Raises
    ------
    NotReady
        If one is absent or says something else: DVC would record a result of other code or settings, so that
        `dvc repro --single-item` and a stale file are no way round.
    """
    resolved = cohort_files(layout)
    needed = {layout.settings / f"{name}.json" for name in NEEDS.get(stage, ())}
    if model is None or stage in STAGES:
        wanted: dict[Path, Any] = {layout.code / f"{stage}.json": code_of(stage)}
    else:
        kind = str(settings.model(model)["kind"])
        wanted = {layout.model(model).code / f"{stage}.json": code_of(stage, kind)}
    if model is not None:
        at = layout.model(model)
        needed.add(at.settings / f"{NEEDS_OF_MODEL.get(stage, stage)}.json")
        resolved |= model_files(at, settings)
        if stage in TRAINED:
            wanted |= base_files(at, settings)
            needed.add(at.start / "start.json")
    wanted |= {path: value for path, value in resolved.items() if path in needed}
    for path, value in wanted.items():
        if not path.is_file():
            raise NotReady(f"no {path}; run `dvc repro`, whose first stages write what others depend on")
        if read_json(path) != value:
            raise NotReady(
                f"{path} is not what code and settings say now; run `dvc repro` (`dvc repro --force code` where the "
                "package was updated), else a result is recorded under what it was not made with"
            )
