"""Image and dose from slice to slice: steps that no anatomy makes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.limit import keeps
from doseledger.gates.features import AIR_HU
from doseledger.gates.limits import ImageLimits
from doseledger.gates.verdict import Finding, Severity

# Metal and the depth of air vary from slice to slice without anything being wrong.
CUT_HU = (-1000.0, 500.0)
# A slice that shows less of the patient, the crown of a head, says nothing of its neighbours.
LEAST_AREA_CM2 = 20.0
# Slices of an image without noise are alike to the last HU.
LEAST_JUMP_HU = 1.0
# Neighbouring slices have 1 to 44 % of the body's HU in common, and at most 6 % of the doses (225 patients); one that
# stands there twice all of them. Images without noise have most in common in most slices, and tell nothing.
MOST_SAME_PERCENT, MOST_USUAL_PERCENT = 90.0, 50.0
# Far from all fields the dose is 0 everywhere.
LEAST_DOSE_GY = 0.1


@dataclass(frozen=True)
class Slices:
    """How far the worst slice is from its neighbours.

    Parameters
    ----------
    jump_ratio
        Mean over the body's voxels of a slice of |HU − mean of both neighbours| (at either end half of |HU − that of
        the only neighbour|), per that of the middle one of the case's slices.
    air_percent
        Share of the body's voxels of a slice below −500 HU.
    dose_jump_gy
        The same difference of the dose where it is valid, in Gy; NaN where there is none.
    same_percent, same_dose_percent
        Share of the body's voxels of a slice with the very value of the slice above; NaN where there are none.
    where
        Slice of each, by name.
    """

    jump_ratio: float
    air_percent: float
    dose_jump_gy: float
    same_percent: float
    same_dose_percent: float
    where: dict[str, int]


def measure_slices(case: Case) -> Slices:
    """Return how far the worst slices of image and dose are from their neighbours; NaN where there is none to see."""
    area_cm2 = case.grid.spacing_mm[1] * case.grid.spacing_mm[2] / 100.0
    image = np.clip(case.ct_hu, *CUT_HU).astype(np.float32)
    counts, thin = case.body.sum(axis=(1, 2)), ((case.ct_hu < AIR_HU) & case.body).sum(axis=(1, 2))
    air = np.where(counts * area_cm2 >= LEAST_AREA_CM2, 100.0 * (thin / np.maximum(counts, 1)), 0.0)
    steps = _jumps(image, case.body, area_cm2)
    known = steps[np.isfinite(steps)]
    middle_hu = max(float(np.median(known)), LEAST_JUMP_HU) if len(known) else math.nan
    jumps = {"jump_ratio": steps / middle_hu, "air_percent": air}
    jumps["same_percent"] = _same(case.ct_hu, case.body, area_cm2)
    if case.dose_gy is not None and case.valid_dose.any():
        jumps["dose_jump_gy"] = _jumps(case.dose_gy, case.valid_dose, area_cm2)
        given = case.valid_dose & (case.dose_gy > LEAST_DOSE_GY)
        jumps["same_dose_percent"] = _same(case.dose_gy, given, area_cm2)
    where = {name: int(np.argmax(np.nan_to_num(values, nan=-1.0))) for name, values in jumps.items()}
    worst = {name: float(values[where[name]]) for name, values in jumps.items()}
    return Slices(
        worst["jump_ratio"],
        worst["air_percent"],
        worst.get("dose_jump_gy", math.nan),
        worst["same_percent"],
        worst.get("same_dose_percent", math.nan),
        where,
    )


def judge_slices(case: Case, found: Slices, limits: ImageLimits) -> list[Finding]:
    """Return which slices of image or dose do not go with their neighbours.

    Parameters
    ----------
    found
        What `measure_slices` says of it.
    """
    jump, is_grave = limits.slice_jump, not keeps(found.jump_ratio, most=limits.slice_jump.error)
    off = "off the mean of its neighbours"
    wanted: list[tuple[str, str, float, float, str, Severity]] = [
        ("slice_jump", "jump_ratio", found.jump_ratio, jump.error if is_grave else jump.warning,
         f"times as far {off} as the middle slice", "error" if is_grave else "warning"),
        ("slice_air", "air_percent", found.air_percent, limits.most_slice_air_percent, "% air in the body", "error"),
    ]  # fmt: skip
    if "dose_jump_gy" in found.where:
        wanted.append(("dose_jump", "dose_jump_gy", found.dose_jump_gy, limits.most_dose_jump_gy, f"Gy {off}", "error"))
    for name, what in (("same_percent", "the image"), ("same_dose_percent", "the dose")):
        value = getattr(found, name)
        if not math.isnan(value):
            same = f"% of {what} as in the next slice"
            wanted.append(("slice_repeat", name, value, MOST_SAME_PERCENT, same, "error"))
    findings = []
    for gate, name, value, limit, what, severity in wanted:
        if not keeps(value, most=limit):
            message = (
                f"{case.case_id}: slice {found.where[name]} is {value:.3g} {what}, wanted at most {limit:g}; is a "
                "slice missing, empty, there twice or another patient's? Look at it, and export the series again"
            )
            numbers = {"slice": found.where[name], name: value, "limit": limit}
            findings.append(Finding(gate, case.case_id, severity, message, numbers))
    return findings


def _jumps(values: NDArray[np.float32], mask: NDArray[np.bool_], area_cm2: float) -> NDArray[np.float64]:
    """Return each slice's distance from its neighbours within the mask that they share, (z,); NaN where it is small."""
    found = np.full(len(values), np.nan)
    large = mask.sum(axis=(1, 2)) * area_cm2 >= LEAST_AREA_CM2
    for z in np.flatnonzero(large):
        beside = [k for k in (z - 1, z + 1) if 0 <= k < len(mask) and large[k]]
        shared = np.logical_and.reduce([mask[k] for k in (z, *beside)])
        if beside and np.count_nonzero(shared) * area_cm2 >= LEAST_AREA_CM2:
            near = values[beside[0]] if len(beside) == 1 else (values[beside[0]] + values[beside[1]]) / np.float32(2.0)
            # On a steady slope one neighbour is a whole step away, the mean of two none.
            found[z] = float(np.abs(values[z] - near)[shared].mean(dtype=np.float64)) * len(beside) / 2.0
    return found


def _same(values: NDArray[Any], mask: NDArray[np.bool_], area_cm2: float) -> NDArray[np.float64]:
    """Return which percent of each slice's values the next slice has too, (z,); NaN where they share few voxels."""
    found = np.full(len(values), np.nan)
    for z in range(len(values) - 1):
        shared = mask[z] & mask[z + 1]
        count = np.count_nonzero(shared)
        if count * area_cm2 >= LEAST_AREA_CM2:
            found[z] = 100.0 * (np.count_nonzero((values[z] == values[z + 1]) & shared) / count)
    known = found[np.isfinite(found)]
    return found if len(known) and np.median(known) <= MOST_USUAL_PERCENT else np.full(len(values), np.nan)
