"""Faults of a case as a whole: its sides, place, plan and patient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.grid import Grid
from doseledger.gates.data.grids import SHARED_COLUMNS
from doseledger.gates.drill import volumes
from doseledger.gates.drill.draw import Draw
from doseledger.gates.drill.structures import sides_swapped

# What a copy is disguised with.
COPY_NOISE_HU, COPY_NOISE_GY = 20.0, 0.1
# All volumes of a case, x last.
VOLUMES = ("ct_hu", "masks", "sdf_mm", "body", "valid_dose", "dose_gy")


def mirrored(case: Case, size: float, draw: Draw) -> Case:
    """Return a case mirrored left to right with all that it holds; its names stay."""
    found: dict[str, Any] = {name: getattr(case, name) for name in VOLUMES}
    return replace(
        case, **{name: np.ascontiguousarray(array[..., ::-1]) for name, array in found.items() if array is not None}
    )


def valid_dose_holed(case: Case, percent: float, draw: Draw) -> Case | None:
    """Return a case whose `valid_dose` lacks a ball about a drawn voxel, in percent of the body."""
    inside = np.argwhere(case.valid_dose)
    count = round(percent / volumes.PERCENT * int(case.body.sum()))
    if len(inside) <= count:
        return None
    centre = inside[int(draw.rng().integers(len(inside)))]
    away = (((inside - centre) * np.asarray(case.grid.spacing_mm)) ** 2).sum(axis=1)
    hole = inside[np.argpartition(away, count)[:count]]
    valid = np.array(case.valid_dose)
    valid[tuple(hole.T)] = False
    return replace(case, valid_dose=valid)


def prescription_wrong(case: Case, by_gy: float, draw: Draw) -> Case | None:
    """Return a case whose main target is prescribed more than it should be."""
    name = case.main_target
    if name is None:
        return None
    return replace(case, prescription_gy={**case.prescription_gy, name: case.prescription_gy[name] + by_gy})


def fractions_wrong(case: Case, by: float, draw: Draw) -> Case | None:
    """Return a case with more fractions than it should have."""
    return None if case.n_fractions is None else replace(case, n_fractions=case.n_fractions + int(by))


def origin_off(case: Case, by_mm: float, draw: Draw) -> Case:
    """Return a case that lies elsewhere than its raw image."""
    origin = list(case.grid.origin_mm)
    origin[draw.axis] += by_mm
    return replace(case, grid=Grid(case.grid.shape_zyx, case.grid.spacing_mm, (origin[0], origin[1], origin[2])))


def near_copy(case: Case, size: float, draw: Draw) -> Case | None:
    """Return another patient's case under this one's name, with some noise in image and dose."""
    other = draw.other
    if other is None:
        return None
    names = {name: case.meta[name] for name in ("case_id", *SHARED_COLUMNS)}
    copy = replace(other, meta={**other.meta, **names})
    noise = volumes.noisy(copy.ct_hu.astype(np.float32), copy, COPY_NOISE_HU, draw)
    copy = replace(copy, ct_hu=volumes.as_hu(noise))
    if copy.dose_gy is None:
        return copy
    return replace(copy, dose_gy=volumes.noisy_dose(copy.dose_gy, copy, COPY_NOISE_GY, draw))


def mirrored_copy(case: Case, size: float, draw: Draw) -> Case | None:
    """Return the same mirrored left to right, its structures of left and right named as they now lie."""
    copy = near_copy(case, size, draw)
    if copy is None:
        return None
    turned = mirrored(copy, size, draw)
    return sides_swapped(turned, size, draw) or turned
