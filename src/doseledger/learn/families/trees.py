"""Boosted trees in training: cross-fitted, scored, and kept as arrays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import write_text
from doseledger.core.tables import SPLITS, read_table
from doseledger.core.types import Tell
from doseledger.learn.data.features import training_voxels
from doseledger.learn.data.inputs import InputSpec, OpenCase, spec_of
from doseledger.learn.networks.trees import FINAL, Trees, fold_name, grow_trees
from doseledger.learn.recipes.dose import ModelRecipe
from doseledger.learn.recipes.trees import TreesRecipe
from doseledger.learn.run import DOSE_SCORES, CasesByPart, Family, TrainingRun, trained_name
from doseledger.learn.training.callbacks import history_csv
from doseledger.learn.training.checkpoint import Checkpoint, make_checkpoint, save_checkpoint
from doseledger.learn.training.probe import ProbeResult
from doseledger.learn.training.run_files import write_run_files
from doseledger.learn.training.train import Places, open_cases
from doseledger.learn.watch.live import Live
from doseledger.learn.watch.red_flags import RedFlagLimits

# Trees of preflight's trial: as many as its steps, on so many voxels of one case.
PROBE_VOXELS = 2000


def fold_numbers(patients: Sequence[str], n_folds: int, seed: int) -> list[int]:
    """Return the fold of each training case, given its patient: patients are dealt evenly, in an order of the seed.

    Examples
    --------
    >>> fold_numbers(["a", "b", "a"], 2, seed=1)
    [0, 1, 0]
    """
    names = list(dict.fromkeys(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    folds = np.empty(len(names), dtype=int)
    folds[order] = np.arange(len(names)) % min(n_folds, len(names))
    return [int(folds[names.index(patient)]) for patient in patients]


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
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        tell(line)
        write_text(places.out / "train.log", "\n".join(lines) + "\n")

    boosting = recipe.boosting
    drawn = training_voxels(cases["train"], spec, boosting.voxels_per_case, run.seed)
    n_voxels = sum(len(dose) for _, dose in drawn)
    log(f"{run.model}: {boosting.n_trees} trees on {n_voxels} voxels of {len(drawn)} cases, {boosting.folds} folds")
    patients = read_table(places.splits, SPLITS).drop_duplicates("case_id").set_index("case_id")["pseudonym"]
    folds = fold_numbers([patients[case.case_id] for case in cases["train"]], boosting.folds, run.seed)
    grown: dict[str, Trees] = {}
    errors = []
    for number in sorted(set(folds)):
        seen = [voxels for voxels, fold in zip(drawn, folds, strict=True) if fold != number] or drawn
        grown[fold_name(number)] = trees = _grow(seen, recipe)
        for case, voxels, fold in zip(cases["train"], drawn, folds, strict=True):
            if fold == number:
                errors.append(_error_gy(trees, voxels, case))
        log(f"fold {number + 1}/{max(folds) + 1}: {np.mean(errors):.2f} Gy on voxels of cases not seen")
    grown[FINAL] = _grow(drawn, recipe)
    loss = float(np.mean([np.mean(np.square(grown[FINAL].predict(x) - dose)) for x, dose in drawn]))
    scores = _scores(grown[FINAL], cases, spec, recipe)
    row = {"epoch": 1, "steps": boosting.n_trees, "lr": boosting.rate, "train_loss": loss}
    row |= {trained_name(DOSE_SCORES[0]): float(np.mean(errors)), **scores, "seconds": time.perf_counter() - began}
    write_text(places.out / "history.csv", history_csv([row], DOSE_SCORES))
    checkpoint = _checkpoint(run, spec, cases, grown, folds, scores)
    for name in ("best", "last"):
        save_checkpoint(places.out / "checkpoints" / f"{name}.ckpt", checkpoint)
    Live(places.out, red_flags, log).epoch_ended([row], {"epoch": 1, **scores}, 1)
    log(f"grown in {row['seconds']:.0f} s; MAE in valid_dose {scores[DOSE_SCORES[0]]:.2f} Gy in validation cases")


def probe_trees(run: TrainingRun, opened: list[OpenCase], n_steps: int) -> ProbeResult:
    """Return what so many trees, grown on a few voxels of the first training case, do to their error on them."""
    recipe = _recipe(run)
    spec = spec_of(opened, recipe.inputs)
    features, dose = training_voxels(opened[:1], spec, PROBE_VOXELS, run.seed)[0]
    few = {"n_trees": n_steps, "leaf_voxels": min(recipe.boosting.leaf_voxels, max(len(dose) // 20, 1)), "rate": 0.3}
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


def _grow(drawn: list[Any], recipe: TreesRecipe) -> Trees:
    features, dose = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return grow_trees(features, dose, recipe.boosting)


def _error_gy(trees: Trees, voxels: Any, case: OpenCase) -> float:
    features, dose = voxels
    return float(np.mean(np.abs(trees.predict(features) - dose))) * case.main_prescription_gy


def _scores(trees: Trees, cases: CasesByPart, spec: InputSpec, recipe: TreesRecipe) -> dict[str, float]:
    """Mean absolute error of the validation cases at voxels drawn as for training, under both names."""
    found = []
    for case in cases["val"]:
        drawn = training_voxels([case], spec, recipe.boosting.voxels_per_case, 0)[0]
        found.append(_error_gy(trees, drawn, case))
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
