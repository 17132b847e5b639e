"""Boosted trees in training: cross-fitted, scored, and kept as arrays."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.tables import SPLITS, read_table
from doseledger.core.types import Tell
from doseledger.learn.data.features import dose_shares, drawn_voxels
from doseledger.learn.data.inputs import InputSpec, OpenCase, spec_of
from doseledger.learn.families.cross_fit import CrossFit, draw_voxels, error_gy, fold_numbers, grow_cross_fitted
from doseledger.learn.networks.boosted import tell_voxels
from doseledger.learn.networks.trees import Trees, fold_name, grow_trees
from doseledger.learn.recipes.dose import ModelRecipe
from doseledger.learn.recipes.trees import BoostingRecipe, TreesRecipe
from doseledger.learn.run import DOSE_SCORES, CasesByPart, Family, TrainingRun, trained_name
from doseledger.learn.training.at_once import begin_log, write_result
from doseledger.learn.training.checkpoint import Checkpoint, make_checkpoint
from doseledger.learn.training.probe import ProbeResult
from doseledger.learn.training.run_files import write_run_files
from doseledger.learn.training.train import Places, open_cases
from doseledger.learn.watch.red_flags import RedFlagLimits

# Trees of preflight's trial: as many as its steps, on so many voxels of one case.
PROBE_VOXELS = 2000


def fit_trees(run: TrainingRun, places: Places, *, tell: Tell, red_flags: RedFlagLimits | None = None) -> None:
    """Grow a run's trees and write its run: checkpoints, history, settings, summary and log.

    The trees of the checkpoint have seen all training cases; beside them stand those of each fold, which tell the
    training cases. Nothing is chosen by the validation cases: they are scored.

    Raises
    ------
    NotReady, BadInput
        As `train`.
    """
    recipe = _recipe(run)
    began = time.perf_counter()
    cases = open_cases(run, places)
    spec = spec_of([*cases["train"], *cases["val"]], recipe.inputs)
    write_run_files(run, places.out, places.splits, spec, cases)
    log, boosting = begin_log(places, tell), recipe.boosting
    patients = read_table(places.splits, SPLITS).drop_duplicates("case_id").set_index("case_id")["pseudonym"]
    folds = fold_numbers([patients[case.case_id] for case in cases["train"]], boosting.folds, run.seed)
    drawn = [
        draw_voxels(case, spec, boosting, run.seed, fold) for case, fold in zip(cases["train"], folds, strict=True)
    ]
    n_voxels = sum(len(one.dose) for one in drawn)
    log(f"{run.model}: {boosting.n_trees} trees on {n_voxels} voxels of {len(drawn)} cases, {boosting.folds} folds")
    grown = grow_cross_fitted(drawn, spec, boosting, log)
    errors = [error_gy(one.case, grown.told[one.case.case_id], one.dose) for one in drawn]
    scores = _scores(grown, cases, spec, boosting)
    row = {"epoch": 1, "steps": boosting.n_trees, "lr": boosting.rate, "train_loss": grown.loss}
    row |= {trained_name(DOSE_SCORES[0]): float(np.mean(errors)), **scores, "seconds": time.perf_counter() - began}
    write_result(places, _checkpoint(run, spec, cases, grown.trees, folds, scores), row, log, red_flags)
    log(f"grown in {row['seconds']:.0f} s; MAE in valid_dose {scores[DOSE_SCORES[0]]:.2f} Gy in validation cases")


def probe_trees(run: TrainingRun, opened: list[OpenCase], n_steps: int) -> ProbeResult:
    """Return what so many trees, grown on a few voxels of the first training case, do to their error on them."""
    recipe = _recipe(run)
    spec = spec_of(opened, recipe.inputs)
    few = {"voxels_per_case": PROBE_VOXELS, "n_trees": n_steps, "rate": 0.3}
    drawn = draw_voxels(opened[0], spec, recipe.boosting.model_copy(update=few), run.seed)
    features, dose = drawn.features, drawn.dose
    few |= {"leaf_voxels": min(recipe.boosting.leaf_voxels, max(len(dose) // 20, 1))}
    trees = grow_trees(features, dose, recipe.boosting.model_copy(update=few))
    # What is told before any tree, and after each.
    partial = [replace(trees, first=trees.first[:count]) for count in range(n_steps + 1)]
    losses = [float(np.mean(np.abs(part.predict(features) - dose))) for part in partial]
    return ProbeResult(
        losses=losses,
        finite=bool(np.isfinite(losses).all()),
        case_ids=[opened[0].case_id],
        image_shape=features.shape,
        output_shape=dose.shape,
        n_weights=len(trees.value),
    )


def _recipe(run: TrainingRun) -> TreesRecipe:
    if not isinstance(run.recipe, TreesRecipe):
        raise BadInput(f"{run.model}: its kind is {run.recipe.kind}, wanted trees")
    return run.recipe


def _scores(grown: CrossFit, cases: CasesByPart, spec: InputSpec, boosting: BoostingRecipe) -> dict[str, float]:
    """Mean absolute error of the validation cases at voxels drawn as for training, under both names."""
    found = []
    for case in cases["val"]:
        index = drawn_voxels(case, boosting.voxels_per_case, 0)
        told = tell_voxels(case, spec, boosting, grown.final, index)
        found.append(error_gy(case, told, dose_shares(case, index)))
    return dict.fromkeys(DOSE_SCORES, float(np.mean(found)))


def _checkpoint(
    run: TrainingRun,
    spec: InputSpec,
    cases: CasesByPart,
    grown: dict[str, Trees],
    folds: list[int],
    scores: dict[str, float],
) -> Checkpoint:
    weights: dict[str, Tensor] = {
        f"{name}.{key}": torch.from_numpy(np.asarray(array))
        for name, trees in grown.items()
        for key, array in trees.arrays().items()
    }
    told_by = {case.file.sha256: fold_name(fold) for case, fold in zip(cases["train"], folds, strict=True)}
    extras = {"told_by": told_by}
    return make_checkpoint(run, spec, cases, epoch=1, scores=scores, weights=weights, extras=extras)


def make_family(recipe: ModelRecipe, base: Path | None) -> Family:
    """Return what growing trees is; they start from nothing.

    Raises
    ------
    BadInput
        If a base is named.
    """
    if base is not None:
        raise BadInput(f"bases: {recipe.kind} starts from nothing, found {base}; take it out of `bases`")
    return Family(__name__, _no_task, fit=fit_trees, probe=probe_trees)


def _no_task(run: TrainingRun, _spec: InputSpec, _cases: CasesByPart) -> Any:
    raise NotReady(f"{run.model}: trees have no steps to take; `train` grows them")
