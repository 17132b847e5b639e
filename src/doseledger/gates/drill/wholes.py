"""Faults of a case as a whole: its sides, place, plan and patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from doseledger.core.case import Case
from doseledger.gates.data.grids import SHARED_COLUMNS
from doseledger.gates.drill import volumes
from doseledger.gates.drill.structures import sides_swapped
from doseledger.gates.drill.trial import Trial

# A disguise of copies.
COPY_NOISE_HU, COPY_NOISE_GY = 20.0, 0.1
VOLUMES = ("ct_hu", "masks", "sdf_mm", "body", "valid_dose", "dose_gy")


def mirrored(at: Trial) -> Case:
    """Return a case mirrored left to right with all that it holds; its names stay."""
    found = {name: getattr(at.case, name) for name in VOLUMES}
    turned = {name: a[..., ::-1].copy() for name, a in found.items() if a is not None}
    return replace(at.case, **turned)


def valid_dose_holed(at: Trial) -> Case:
    """Return a case whose `valid_dose` lacks a ball about a drawn voxel, in percent of the body."""
    valid, inside = np.array(at.case.valid_dose), np.argwhere(at.case.valid_dose)
    count = round(at.size / volumes.PERCENT * int(at.case.body.sum()))
    centre = inside[int(at.rng().integers(len(inside)))]
    away_mm = np.linalg.norm((inside - centre) * np.asarray(at.case.grid.spacing_mm), axis=1)
    valid[tuple(inside[np.argsort(away_mm, kind="stable")[:count]].T)] = False
    return replace(at.case, valid_dose=valid)


def prescription_wrong(at: Trial) -> Case | None:
    """Return a case whose main target is prescribed more than it should be."""
    more = {name: at.case.prescription_gy[name] + at.size for name in at.target()}
    return replace(at.case, prescription_gy={**at.case.prescription_gy, **more}) if more else None


def fractions_wrong(at: Trial) -> Case | None:
    """Return a case with more fractions than it should have."""
    number = at.case.n_fractions
    return None if number is None else replace(at.case, n_fractions=number + int(at.size))


def origin_off(at: Trial) -> Case:
    """Return a case that lies elsewhere than its raw image."""
    z, y, x = np.asarray(at.case.grid.origin_mm) + at.size * np.eye(3)[at.axis]
    return replace(at.case, grid=replace(at.case.grid, origin_mm=(float(z), float(y), float(x))))


def near_copy(at: Trial) -> Case:
    """Return another patient's case under this one's name, with noise in image and dose."""
    names = {name: at.case.meta[name] for name in ("case_id", *SHARED_COLUMNS)}
    copy = replace(at.other, meta={**at.other.meta, **names})
    at = replace(at, case=copy, size=COPY_NOISE_HU)
    copy = replace(copy, ct_hu=volumes.as_hu(volumes.noisy(copy.ct_hu.astype(np.float32), at)))
    if copy.dose_gy is None:
        return copy
    dose_gy = volumes.noisy(copy.dose_gy, replace(at, size=COPY_NOISE_GY))
    return replace(copy, dose_gy=np.maximum(dose_gy, volumes.NO_DOSE_GY).astype(np.float32))


def mirrored_copy(at: Trial) -> Case:
    """Return the same mirrored left to right, its sides named as they now lie."""
    turned = mirrored(replace(at, case=near_copy(at)))
    return sides_swapped(replace(at, case=turned)) or turned
