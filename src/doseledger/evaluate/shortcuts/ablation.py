"""Spoiled inputs: the dose of a trained network must answer as physics says.

Each alteration makes a case of a case, in memory and whole, so that the network reads it by its own road, whatever kind
of network it is. What is altered is cut to one window of the size of a training patch, about the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.grid import IntTriple
from doseledger.evaluate.shortcuts.trivial import main_target, target_centre_mm

Dose = NDArray[np.float32]
Predict = Callable[[Case], Dose]
# A rise that a clinic might prescribe, small enough to lie near what a network has seen.
PRESCRIPTION_FACTOR = 1.10
# Far enough to be seen on a grid of 2 to 4 mm, near enough that the targets stay inside the body.
SHIFT_MM = 15.0
# The centre of the high dose is that of what lies above this share of the prescription.
HIGH_SHARE = 0.5
# A target holds another one's place where it covers at least this share of it.
COVERING = 0.5


@dataclass(frozen=True)
class Alteration:
    """One spoiled input.

    Parameters
    ----------
    name
        Of the number that `measure` gives, e.g. `prescription_gain`.
    alter
        Makes the altered case; None where the case has nothing to alter (a single target can't be swapped).
    measure
        How the dose answered, from the case, the dose before and the dose after.
    """

    name: str
    alter: Callable[[Case, np.random.Generator], Case | None]
    measure: Callable[[Case, Dose, Dose], float]


def ablate_case(case: Case, predict: Predict, shape_zyx: IntTriple, rng: np.random.Generator) -> dict[str, float]:
    """Return how the predicted dose of a case answers to each alteration, by name; NaN where a case has no such input.

    Parameters
    ----------
    case
        A case that the network has not seen.
    predict
        The network: dose in Gy (z, y, x) of a case, on its grid.
    shape_zyx
        Window about the target that is cut out and altered: the size of a training patch.
    rng
        Shuffles the image.
    """
    window = cut_window(case, shape_zyx)
    before = predict(window)
    answers = {}
    for alteration in ALTERATIONS:
        altered = alteration.alter(window, rng)
        after = None if altered is None else predict(altered)
        answers[alteration.name] = np.nan if after is None else float(alteration.measure(window, before, after))
    return answers


def cut_window(case: Case, shape_zyx: IntTriple) -> Case:
    """Return the part of a case about its main target, of the given size or the case's own where that is smaller."""
    shape = np.minimum(shape_zyx, case.grid.shape_zyx)
    centre = np.rint(case.grid.mm_to_index(target_centre_mm(case))).astype(int)
    start = np.clip(centre - shape // 2, 0, np.asarray(case.grid.shape_zyx) - shape)
    box = tuple(slice(int(a), int(a + n)) for a, n in zip(start, shape, strict=True))
    origin = (int(start[0]), int(start[1]), int(start[2]))
    full = np.asarray(case.crop_start_zyx) + start
    return replace(
        case,
        grid=case.grid.cropped(origin, (int(shape[0]), int(shape[1]), int(shape[2]))),
        ct_hu=case.ct_hu[box],
        masks=case.masks[(slice(None), *box)],
        sdf_mm=case.sdf_mm[(slice(None), *box)],
        body=case.body[box],
        valid_dose=case.valid_dose[box],
        dose_gy=None if case.dose_gy is None else case.dose_gy[box],
        crop_start_zyx=(int(full[0]), int(full[1]), int(full[2])),
    )


def with_shuffled_image(case: Case, rng: np.random.Generator) -> Case:
    """Return the case with the image's values in the body dealt out anew: same tissue, no anatomy."""
    ct_hu = case.ct_hu.copy()
    ct_hu[case.body] = rng.permutation(ct_hu[case.body])
    return replace(case, ct_hu=ct_hu)


def with_raised_prescription(case: Case, rng: np.random.Generator) -> Case:
    """Return the case with each prescription raised by the same factor."""
    return replace(case, prescription_gy={n: d * PRESCRIPTION_FACTOR for n, d in case.prescription_gy.items()})


def with_swapped_targets(case: Case, rng: np.random.Generator) -> Case | None:
    """Return the case with the shapes of the highest and the lowest target in each other's place."""
    pair = _highest_and_lowest(case)
    if pair is None:
        return None
    first, second = (case.structure_names.index(name) for name in pair)
    order = list(range(len(case.structure_names)))
    order[first], order[second] = second, first
    return replace(case, masks=case.masks[order], sdf_mm=case.sdf_mm[order], present=case.present[order])


def with_swapped_prescriptions(case: Case, rng: np.random.Generator) -> Case | None:
    """Return the case with the prescriptions of the highest and the lowest target in each other's place."""
    pair = _highest_and_lowest(case)
    if pair is None:
        return None
    high, low = pair
    swapped = {high: case.prescription_gy[low], low: case.prescription_gy[high]}
    return replace(case, prescription_gy=case.prescription_gy | swapped)


def without_main_target(case: Case, rng: np.random.Generator) -> Case:
    """Return the case without its highest target, as if nobody had drawn it; its prescription stays."""
    return without_structure(case, main_target(case))


def without_nearest_organ(case: Case, rng: np.random.Generator) -> Case | None:
    """Return the case without the organ that comes nearest to the main target, the targets themselves aside."""
    target = case.mask(main_target(case))
    nearest = {
        name: float(case.sdf_mm[case.structure_names.index(name)][target].min())
        for name in case.present_names
        # What lies within a target (a CTV) is no neighbour of it.
        if name not in case.prescription_gy and not (case.mask(name) & target).sum() > COVERING * case.mask(name).sum()
    }
    return without_structure(case, min(nearest, key=lambda name: nearest[name])) if nearest else None


def without_structure(case: Case, name: str) -> Case:
    """Return the case with a structure absent: no voxel, a distance as far as can be said, and its flag off."""
    index = case.structure_names.index(name)
    masks, sdf_mm, present = case.masks.copy(), case.sdf_mm.copy(), case.present.copy()
    masks[index], sdf_mm[index], present[index] = False, _clip_mm(case), False
    return replace(case, masks=masks, sdf_mm=sdf_mm, present=present)


def with_moved_targets(case: Case, rng: np.random.Generator) -> Case:
    """Return the case with all its targets moved to the patient's left; image and organs stay."""
    voxels = _shift_voxels(case)
    masks, sdf_mm = case.masks.copy(), case.sdf_mm.copy()
    for name in case.prescription_gy:
        index = case.structure_names.index(name)
        masks[index], sdf_mm[index] = False, _clip_mm(case)
        masks[index][..., voxels:] = case.masks[index][..., :-voxels]
        sdf_mm[index][..., voxels:] = case.sdf_mm[index][..., :-voxels]
    return replace(case, masks=masks, sdf_mm=sdf_mm)


def mean_change_gy(case: Case, before: Dose, after: Dose) -> float:
    """Return the mean absolute change of dose in the body, in Gy."""
    return _mean_rise(case.body, np.zeros_like(before), np.abs(after - before))


def prescription_gain(case: Case, before: Dose, after: Dose) -> float:
    """Return the relative rise of the targets' mean dose per relative rise of the prescription: physics says 1."""
    inside = np.logical_or.reduce([case.mask(name) for name in case.prescription_gy])
    nothing = np.zeros_like(before)
    was, now = (_mean_rise(inside, nothing, dose) for dose in (before, after))
    return (now / max(was, 1e-3) - 1.0) / (PRESCRIPTION_FACTOR - 1.0)


def swap_share(case: Case, before: Dose, after: Dose) -> float:
    """Return the rise of dose in the lowest target outside the highest one, per difference of their prescriptions."""
    pair = _highest_and_lowest(case)
    if pair is None:
        return float("nan")
    only_low = case.mask(pair[1]) & ~case.mask(pair[0])
    step_gy = case.prescription_gy[pair[0]] - case.prescription_gy[pair[1]]
    return _mean_rise(only_low, before, after) / step_gy


def drop_share(case: Case, before: Dose, after: Dose) -> float:
    """Return the fall of dose in the main target, per fall that its absence should bring: physics says 1.

    Where another target covers it, the dose should fall to that one's prescription, else by half of its own at least.
    """
    name = main_target(case)
    inside = case.mask(name)
    others = [
        case.prescription_gy[other]
        for other in case.prescription_gy
        if other != name and (case.mask(other) & inside).sum() > COVERING * inside.sum()
    ]
    left_gy = max(others) if others else case.prescription_gy[name] / 2.0
    return -_mean_rise(inside, before, after) / (case.prescription_gy[name] - left_gy)


def move_share(case: Case, before: Dose, after: Dose) -> float:
    """Return how far the centre of the high dose has moved, per way that the targets were moved: physics says 1."""
    level_gy = HIGH_SHARE * max(case.prescription_gy.values())
    voxels = _shift_voxels(case)
    centres = []
    for dose in (before, after):
        weight = np.maximum(dose - level_gy, 0.0).sum(axis=(0, 1), dtype=np.float64)
        if weight.sum() <= 0:
            return 0.0
        centres.append(float((weight * np.arange(len(weight))).sum() / weight.sum()))
    return (centres[1] - centres[0]) / voxels


def organ_change_gy(case: Case, before: Dose, after: Dose) -> float:
    """Return the absolute change of the main target's mean dose in Gy: an organ not drawn must not take it away."""
    return abs(_mean_rise(case.mask(main_target(case)), before, after))


ALTERATIONS = (
    Alteration("ct_shuffle_change_gy", with_shuffled_image, mean_change_gy),
    Alteration("prescription_gain", with_raised_prescription, prescription_gain),
    Alteration("prescription_swap_share", with_swapped_prescriptions, swap_share),
    Alteration("target_swap_share", with_swapped_targets, swap_share),
    Alteration("target_drop_share", without_main_target, drop_share),
    Alteration("target_move_share", with_moved_targets, move_share),
    Alteration("organ_drop_change_gy", without_nearest_organ, organ_change_gy),
)


def mean_answers(answers: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each answer over cases; NaN where no case gave one."""
    found = {}
    for alteration in ALTERATIONS:
        known = [row[alteration.name] for row in answers.values() if np.isfinite(row[alteration.name])]
        found[alteration.name] = float(np.mean(known)) if known else float("nan")
    return found


def _mean_rise(mask: NDArray[np.bool_], before: Dose, after: Dose) -> float:
    if not mask.any():
        return float("nan")
    return float((after - before)[mask].mean(dtype=np.float64))


def _highest_and_lowest(case: Case) -> tuple[str, str] | None:
    """Return the targets of the highest and the lowest prescription; None where there are not two that differ."""
    there = [name for name in case.prescription_gy if case.mask(name).any()]
    ordered = sorted(there, key=lambda name: case.prescription_gy[name])
    if len(ordered) < 2 or case.prescription_gy[ordered[0]] == case.prescription_gy[ordered[-1]]:
        return None
    return ordered[-1], ordered[0]


def _shift_voxels(case: Case) -> int:
    """By how many voxels along x the targets are moved."""
    return max(1, round(SHIFT_MM / case.grid.spacing_mm[2]))


def _clip_mm(case: Case) -> np.float16:
    """The farthest distance that the case's maps can say."""
    return np.float16(case.sdf_mm.max())
