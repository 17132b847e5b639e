"""Boosted trees cross-fitted by patient, in one stage or two."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Floats, Indices, Singles, Tell
from doseledger.learn.data.features import dose_shares, drawn_voxels, structure_weights, voxel_features
from doseledger.learn.data.inputs import InputSpec, OpenCase
from doseledger.learn.networks.boosted import KnownFeatures, known_features, told_features
from doseledger.learn.networks.trees import FINAL, Trees, fold_name, grow_trees, second_name
from doseledger.learn.recipes.trees import LEAST_FOLDS_OF_SECOND, BoostingRecipe


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


@dataclass(frozen=True)
class Drawn:
    """Voxels drawn of a case: flat indices, features (voxel, feature), dose as a share of the main prescription.

    `weight` is how much each counts, (voxel,).
    """

    case: OpenCase
    fold: int
    index: Indices
    features: Singles
    dose: Singles
    weight: Singles


def draw_voxels(case: OpenCase, spec: InputSpec, boosting: BoostingRecipe, seed: int, fold: int = 0) -> Drawn:
    """Return voxels drawn of a case, as trees see them.

    Raises
    ------
    BadCase, NotReady
        As of `features`.
    """
    index = drawn_voxels(case, boosting.voxels_per_case, seed)
    dose = dose_shares(case, index)
    weight = structure_weights(case, index, boosting.structure_weight)
    return Drawn(case, fold, index, voxel_features(case, spec, index, boosting.context_mm), dose, weight)


def error_gy(case: OpenCase, told: Floats, dose: Singles) -> float:
    """Return the mean absolute error in Gy of what was told of voxels, as shares of the main prescription."""
    return float(np.mean(np.abs(told - dose))) * case.main_prescription_gy


@dataclass(frozen=True)
class CrossFit:
    """Cross-fitted trees.

    Parameters
    ----------
    trees
        By their names in a checkpoint.
    told
        By case id what trees that have not seen the case tell of its voxels.
    loss
        Mean square error of the trees that have seen all, on what they have seen.
    """

    trees: dict[str, Trees]
    told: dict[str, Floats]
    loss: float

    @property
    def final(self) -> tuple[Trees, ...]:
        """The trees that have seen all cases, stage by stage."""
        return tuple(self.trees[name] for name in (FINAL, second_name(FINAL)) if name in self.trees)


def grow_cross_fitted(drawn: Sequence[Drawn], spec: InputSpec, boosting: BoostingRecipe, log: Tell) -> CrossFit:
    """Return trees that have seen all cases, and for each fold those that have not seen it.

    Raises
    ------
    BadInput
        If second trees are wanted of fewer patients than they take.
    """
    folds = sorted({one.fold for one in drawn})
    trees: dict[str, Trees] = {}
    told: dict[str, Floats] = {}
    for fold in folds:
        trees[fold_name(fold)] = _grow(drawn, {fold}, boosting)
        told |= {one.case.case_id: trees[fold_name(fold)].predict(one.features) for one in drawn if one.fold == fold}
        log(f"fold {fold + 1}/{len(folds)}: {_mean_error_gy(drawn, told):.2f} Gy on voxels of cases not seen")
    trees[FINAL] = final = _grow(drawn, (), boosting)
    first = CrossFit(trees, told, _loss(final, [(one.features, one.dose, one.weight) for one in drawn]))
    return first if boosting.stages == 1 else _with_second(drawn, first, spec, boosting, log)


def _with_second(
    drawn: Sequence[Drawn], first: CrossFit, spec: InputSpec, boosting: BoostingRecipe, log: Tell
) -> CrossFit:
    """The same and second trees, which see what the first ones tell.

    Second trees that shall tell a fold must not have met it by way of the first either: what they are grown on is told
    by trees that were grown without that fold and without the case's own.
    """
    folds = sorted({one.fold for one in drawn})
    if len(folds) < LEAST_FOLDS_OF_SECOND:
        raise BadInput(
            f"second trees leave two folds out, and the training cases are of {len(folds)} patients; "
            f"give at least {LEAST_FOLDS_OF_SECOND}, or set boosting.stages to 1"
        )

    # 1. trees that have seen neither of two folds
    pairs = {frozenset(pair): _grow(drawn, pair, boosting) for pair in combinations(folds, 2)}
    # 2. each case as trees tell it that have not seen its fold, which the final second trees are grown on; and that
    # have not seen another fold besides, for the second trees that shall tell that one
    own: dict[str, Singles] = {}
    without: dict[tuple[str, int], Singles] = {}
    for one in drawn:
        known = known_features(one.case, spec, boosting)
        own[one.case.case_id] = _seen(one, known, boosting, first.trees[fold_name(one.fold)])
        for fold in set(folds) - {one.fold}:
            trees = pairs[frozenset((one.fold, fold))]
            without[one.case.case_id, fold] = _seen(one, known, boosting, trees)
    # 3. second trees of each fold, and of all
    grown, told = dict(first.trees), dict[str, Floats]()
    for fold in folds:
        seen = [(without[one.case.case_id, fold], one.dose, one.weight) for one in drawn if one.fold != fold]
        grown[second_name(fold_name(fold))] = second = _of(seen, boosting)
        told |= {name: second.predict(own[name]) for name in (o.case.case_id for o in drawn if o.fold == fold)}
        log(f"second trees, fold {fold + 1}/{len(folds)}: {_mean_error_gy(drawn, told):.2f} Gy")
    seen = [(own[one.case.case_id], one.dose, one.weight) for one in drawn]
    grown[second_name(FINAL)] = final = _of(seen, boosting)
    return CrossFit(grown, told, _loss(final, seen))


def _seen(one: Drawn, known: KnownFeatures, boosting: BoostingRecipe, first: Trees) -> Singles:
    """What second trees see of a case's drawn voxels, as first trees tell it."""
    return np.concatenate([one.features, told_features(known, boosting, first, one.index)], axis=1)


def _grow(drawn: Sequence[Drawn], left_out: Collection[int], boosting: BoostingRecipe) -> Trees:
    """First trees on all cases but those of some folds; on all where nothing else is left."""
    seen = [one for one in drawn if one.fold not in left_out] or drawn
    return _of([(one.features, one.dose, one.weight) for one in seen], boosting)


def _of(seen: Sequence[tuple[Singles, Singles, Singles]], boosting: BoostingRecipe) -> Trees:
    features, dose, weight = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    return grow_trees(features, dose, boosting, weight if boosting.structure_weight else None)


def _loss(trees: Trees, seen: Sequence[tuple[Singles, Singles, Singles]]) -> float:
    """Mean over cases of the mean square error."""
    return float(np.mean([np.mean(np.square(trees.predict(features) - dose)) for features, dose, _ in seen]))


def _mean_error_gy(drawn: Sequence[Drawn], told: dict[str, Floats]) -> float:
    errors = [error_gy(one.case, told[one.case.case_id], one.dose) for one in drawn if one.case.case_id in told]
    return float(np.mean(errors))
