"""A mean of models in training: its parts checked, scored and kept in one file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.tables import SPLITS, read_table
from doseledger.core.types import Floats, Tell
from doseledger.learn.data.features import dose_shares
from doseledger.learn.data.inputs import InputSpec, OpenCase, defined_voxels, spec_of
from doseledger.learn.families.bases import check_part
from doseledger.learn.families.cross_fit import error_gy
from doseledger.learn.predict.mean import mean_dose, open_part, pack_part
from doseledger.learn.predict.predictor import Predictor
from doseledger.learn.recipes.dose import ModelRecipe
from doseledger.learn.recipes.mean import MeanRecipe
from doseledger.learn.run import DOSE_SCORES, CasesByPart, Family, TrainingRun, trained_name
from doseledger.learn.training.at_once import begin_log, write_result
from doseledger.learn.training.checkpoint import make_checkpoint
from doseledger.learn.training.parent import refuse_seen_split
from doseledger.learn.training.probe import ProbeResult
from doseledger.learn.training.run_files import write_run_files
from doseledger.learn.training.train import Places, open_cases
from doseledger.learn.watch.red_flags import RedFlagLimits

Parts = Mapping[str, Predictor]


def fit_mean(
    run: TrainingRun,
    places: Places,
    *,
    tell: Tell,
    red_flags: RedFlagLimits | None = None,
    parts: Parts,
    files: Mapping[str, Path],
) -> None:
    """Score a mean of models and write its run; its checkpoint holds its parts.

    Raises
    ------
    NotReady
        As `train`.
    BadInput
        If a part does not fit the cases, was trained on others, or has seen one that it must not.
    """
    began, recipe = time.perf_counter(), _recipe(run)
    cases = open_cases(run, places)
    refuse_seen_split(run, read_table(places.splits, SPLITS))
    spec = spec_of([*cases["train"], *cases["val"]], recipe.inputs)
    for part in parts.values():
        check_part(run, spec, cases, part.checkpoint)
    write_run_files(run, places.out, places.splits, spec, cases)
    log = begin_log(places, tell)
    log(f"{run.model}: the mean of {', '.join(parts)}; {len(cases['val'])} validation cases")
    scores = dict.fromkeys(DOSE_SCORES, _error_gy(recipe, parts, cases["val"]))
    # As many training cases, by which both can be compared.
    few = np.linspace(0, len(cases["train"]) - 1, len(cases["val"])).astype(int)
    trained = _error_gy(recipe, parts, [cases["train"][number] for number in np.unique(few)])
    row = {"epoch": 1, "steps": 1, "lr": 0.0, "train_loss": trained}
    row |= {trained_name(DOSE_SCORES[0]): trained, **scores, "seconds": time.perf_counter() - began}
    kept = {"parts": {name: pack_part(files[name]) for name in parts}}
    made = make_checkpoint(run, spec, cases, epoch=1, scores=scores, weights={}, extras=kept)
    write_result(places, made, row, log, red_flags)
    log(f"MAE in valid_dose {scores[DOSE_SCORES[0]]:.2f} Gy in validation cases")


def probe_mean(run: TrainingRun, opened: list[OpenCase], _steps: int, *, parts: Parts) -> ProbeResult:
    """Return the error of one training case told by nothing, by one part, by two, and so on."""
    recipe, case = _recipe(run), opened[0]
    for part in parts.values():
        check_part(run, spec_of(opened, recipe.inputs), {"train": opened}, part.checkpoint)
    names = list(recipe.weights)
    some = [{name: recipe.weights[name] for name in names[:count]} for count in range(len(names) + 1)]
    losses = [_case_error_gy(parts, weights, case) for weights in some]
    known = [tensor for part in parts.values() for tensor in part.checkpoint.weights.values()]
    return ProbeResult(
        losses=losses,
        finite=bool(np.isfinite(losses).all()),
        case_ids=[case.case_id],
        image_shape=case.shape_zyx,
        output_shape=case.shape_zyx,
        n_weights=sum(tensor.numel() for tensor in known),
    )


def _error_gy(recipe: MeanRecipe, parts: Parts, cases: list[OpenCase]) -> float:
    return float(np.mean([_case_error_gy(parts, recipe.weights, case) for case in cases]))


def _case_error_gy(parts: Parts, weights: Mapping[str, float], case: OpenCase) -> float:
    """Mean absolute error of a case where a dose is defined; of no parts that of no dose."""
    index = np.flatnonzero(defined_voxels(case))
    told_gy = mean_dose(parts, weights, case) if weights else np.zeros(case.shape_zyx)
    told: Floats = told_gy.reshape(-1)[index] / np.float64(case.main_prescription_gy)
    return error_gy(case, told, dose_shares(case, index))


def _recipe(run: TrainingRun) -> MeanRecipe:
    if not isinstance(run.recipe, MeanRecipe):
        raise BadInput(f"{run.model}: its kind is {run.recipe.kind}, wanted mean")
    return run.recipe


def make_family(recipe: ModelRecipe, base: Path | None, files: Mapping[str, Path] | None = None) -> Family:
    """Return the family of means of models.

    Parameters
    ----------
    files
        Checkpoint of each part, by name.

    Raises
    ------
    NotReady
        If a part is not trained.
    BadInput
        If a base is named, or other parts than the recipe weighs; if a part is no dose model.
    """
    if not isinstance(recipe, MeanRecipe):
        raise BadInput(f"its kind is {recipe.kind}, wanted mean")
    if base is not None:
        raise BadInput(f"bases: a mean starts from nothing, found {base}; `part_of` names its parts")
    files = files or {}
    for name in recipe.weights:
        if name not in files:
            raise BadInput(f"a mean weighs {name}, which is no part of it; name it under part_of")
        if not files[name].is_file():
            raise NotReady(f"part {name} of a mean is not trained: no {files[name]}; run `dvc repro`")
    parts = {name: open_part(files[name], recipe.predict) for name in recipe.weights}
    line = [one for part in parts.values() for one in part.checkpoint.ancestors]
    return Family(
        module=__name__,
        make_task=_no_task,
        parts={"parts": {name: part.sha256 for name, part in parts.items()}},
        fit=partial(fit_mean, parts=parts, files=files),
        probe=partial(probe_mean, parts=parts),
        ancestors=tuple({one.sha256: one for one in line}.values()),
    )


def _no_task(run: TrainingRun, _spec: InputSpec, _cases: CasesByPart) -> Any:
    raise NotReady(f"{run.model}: a mean has no steps to take; `train` scores it")
