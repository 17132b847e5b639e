"""Faults of image and dose, each a change of one volume."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform, shift

from doseledger.core.types import Array, HuArray
from doseledger.gates.drill.trial import Change, Put, Trial, main_region

# Voxels that no image and no dose reaches.
AIR_HU, NO_DOSE_GY = -1000.0, 0.0
PERCENT = 100.0


def of_dose(change: Change) -> Put:
    """Return the fault that changes the dose; a case without one has none of it."""

    def put(at: Trial) -> Any:
        dose = at.case.dose_gy
        if dose is None:
            return None
        return replace(at.case, dose_gy=np.ascontiguousarray(change(dose, at), np.float32))

    return put


def of_image(change: Change) -> Put:
    """Return the fault that changes the image."""
    return lambda at: replace(at.case, ct_hu=as_hu(change(at.case.ct_hu.astype(np.float32), at)))


def as_hu(values: Array) -> HuArray:
    """Return an image as a case keeps it: rounded, within int16."""
    limits = np.iinfo(np.int16)
    return np.ascontiguousarray(np.clip(np.rint(values), limits.min, limits.max), np.int16)


def moved(values: Array, at: Trial) -> Array:
    """Return a volume moved by so many voxels, its edge going on."""
    return shift(values, at.size * np.eye(3)[at.axis], order=1, mode="nearest")


def mirrored(values: Array, at: Trial) -> Array:
    """Return a volume mirrored left to right."""
    return values[..., ::-1]


def raised(values: Array, at: Trial) -> Array:
    """Return a volume of values too large, by so many percent."""
    return values * (1.0 + at.size / PERCENT)


def noisy(values: Array, at: Trial) -> Array:
    """Return a volume with Gaussian noise in the body, of so large a standard deviation."""
    noise = at.rng().standard_normal(values.shape, dtype=np.float32)
    return np.where(at.case.body, values + at.size * noise, values)


def low_part_lost(dose_gy: Array, at: Trial) -> Array:
    """Return a dose without its lowest part, in percent of the voxels where it is valid."""
    inside = dose_gy[at.case.valid_dose]
    return np.where(dose_gy < np.percentile(inside, at.size), NO_DOSE_GY, dose_gy)


def slices_filled(value: float) -> Change:
    """Return the change that fills some slices with one value."""

    def change(values: Array, at: Trial) -> Array:
        found = np.array(values)
        found[at.slices()] = value
        return found

    return change


def slices_repeated(values: Array, at: Trial) -> Array:
    """Return a volume of which some slices are copies of the one below them."""
    part, found = at.slices(), np.array(values)
    found[part] = values[part.start - 1]
    return found


def slices_left_out(values: Array, at: Trial) -> Array:
    """Return a stack that was closed over a gap; its last slice is repeated at the end."""
    part = at.slices()
    ends = np.repeat(values[-1:], part.stop - part.start, axis=0)
    return np.concatenate([values[: part.start], values[part.stop :], ends])


def of_other(name: str, beyond: float) -> Change:
    """Return the change for another patient's volume, laid main target on main target."""

    def change(values: Array, at: Trial) -> Array:
        ratio = np.divide(at.case.grid.spacing_mm, at.other.grid.spacing_mm)
        here, there = (np.argwhere(main_region(c)).mean(axis=0) for c in (at.case, at.other))
        source = getattr(at.other, name).astype(np.float32)
        laid: Array = affine_transform(
            source, ratio, there - here * ratio, output_shape=values.shape, order=1, cval=beyond
        )
        return laid

    return change
