"""Faults of image and dose, each a function of a case, a size and a draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform, shift

from doseledger.core.case import Case
from doseledger.core.types import Array, Floats, HuArray, Singles
from doseledger.gates.drill.draw import Change, Draw, Put

# What a voxel holds that no image or dose reaches.
AIR_HU, NO_DOSE_GY = -1000.0, 0.0
PERCENT = 100.0


def of_dose(change: Change) -> Put:
    """Return the fault that changes the dose; a case without one has none of it."""

    def put(case: Case, size: float, draw: Draw) -> Case | None:
        if case.dose_gy is None:
            return None
        return replace(case, dose_gy=change(case.dose_gy, case, size, draw).astype(np.float32))

    return put


def of_image(change: Change) -> Put:
    """Return the fault that changes the image, rounded and kept within int16."""

    def put(case: Case, size: float, draw: Draw) -> Case:
        return replace(case, ct_hu=as_hu(change(case.ct_hu.astype(np.float32), case, size, draw)))

    return put


def as_hu(values: Array) -> HuArray:
    """Return an image as a case keeps it."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(values), limits.min, limits.max).astype(np.int16)


def moved(values: Singles, case: Case, voxels: float, draw: Draw) -> Array:
    """Return a volume moved along the drawn axis, its edge going on."""
    way = [0.0, 0.0, 0.0]
    way[draw.axis] = voxels
    return shift(values, way, order=1, mode="nearest")


def scaled_up(values: Singles, case: Case, percent: float, draw: Draw) -> Array:
    """Return a dose that is too high."""
    return values * np.float32(1.0 + percent / PERCENT)


def scaled_down(values: Singles, case: Case, percent: float, draw: Draw) -> Array:
    """Return a dose that is too low."""
    return values * np.float32(1.0 - percent / PERCENT)


def in_cgy(values: Singles, case: Case, size: float, draw: Draw) -> Array:
    """Return a dose in cGy."""
    return values * np.float32(100.0)


def of_one_fraction(values: Singles, case: Case, size: float, draw: Draw) -> Array:
    """Return the dose of one fraction."""
    return values / np.float32(case.n_fractions or 1)


def low_part_lost(values: Singles, case: Case, percent: float, draw: Draw) -> Array:
    """Return a dose without its lowest part, in percent of the voxels where it is valid."""
    inside = values[case.valid_dose]
    if not inside.size:
        return values
    return np.where(values < np.percentile(inside, percent), np.float32(NO_DOSE_GY), values)


def dose_slices_lost(values: Singles, case: Case, count: float, draw: Draw) -> Array:
    """Return a dose of which some slices are 0."""
    return _filled(values, draw.slices(case, count), NO_DOSE_GY)


def image_slices_lost(values: Singles, case: Case, count: float, draw: Draw) -> Array:
    """Return an image of which some slices are air."""
    return _filled(values, draw.slices(case, count), AIR_HU)


def _filled(values: Singles, slices: slice, value: float) -> Array:
    found = np.array(values)
    found[slices] = value
    return found


def slices_repeated(values: Singles, case: Case, count: float, draw: Draw) -> Array:
    """Return a volume of which some slices are copies of the one below them."""
    part, found = draw.slices(case, count), np.array(values)
    found[part] = values[part.start - 1]
    return found


def slices_left_out(values: Singles, case: Case, count: float, draw: Draw) -> Array:
    """Return a stack that was closed over the gap: what lay above came down, and its last slice is repeated."""
    part = draw.slices(case, count)
    kept = np.delete(values, np.arange(part.start, part.stop), axis=0)
    return np.concatenate([kept, np.repeat(values[-1:], part.stop - part.start, axis=0)])


def mirrored(values: Singles, case: Case, size: float, draw: Draw) -> Array:
    """Return a volume mirrored left to right."""
    return np.ascontiguousarray(values[..., ::-1])


def noisy(values: Singles, case: Case, spread: float, draw: Draw) -> Array:
    """Return a volume with Gaussian noise where it is not without all content (air, no dose)."""
    noise = draw.rng().standard_normal(values.shape, dtype=np.float32) * np.float32(spread)
    return np.where(case.body, values + noise, values)


def noisy_dose(values: Singles, case: Case, spread: float, draw: Draw) -> Array:
    """Return a dose with Gaussian noise in the body, nowhere below 0."""
    return np.maximum(noisy(values, case, spread, draw), np.float32(NO_DOSE_GY))


def offset(values: Singles, case: Case, hu: float, draw: Draw) -> Array:
    """Return an image whose patient alone is too bright: air beside him would give the whole image away."""
    return np.where(case.body, values + np.float32(hu), values)


def scaled_from_air(values: Singles, case: Case, percent: float, draw: Draw) -> Array:
    """Return an image of another slope, air unchanged."""
    return (values - np.float32(AIR_HU)) * np.float32(1.0 + percent / PERCENT) + np.float32(AIR_HU)


def others_dose(case: Case, size: float, draw: Draw) -> Case | None:
    """Return a case with another patient's dose, laid so that the middles of their main targets coincide."""
    if draw.other is None or draw.other.dose_gy is None or case.dose_gy is None:
        return None
    laid = _laid(draw.other.dose_gy, draw.other, case, NO_DOSE_GY)
    return replace(case, dose_gy=laid.astype(np.float32))


def others_image(case: Case, size: float, draw: Draw) -> Case | None:
    """Return a case with another patient's image, laid so that the middles of their main targets coincide."""
    if draw.other is None:
        return None
    return replace(case, ct_hu=as_hu(_laid(draw.other.ct_hu.astype(np.float32), draw.other, case, AIR_HU)))


def _laid(values: Array, source: Case, case: Case, beyond: float) -> Array:
    """Another case's volume on this case's grid."""
    ratio = np.divide(case.grid.spacing_mm, source.grid.spacing_mm)
    start = _middle(source) - _middle(case) * ratio
    laid: Any = affine_transform(
        values, ratio, start, output_shape=case.grid.shape_zyx, order=1, mode="constant", cval=beyond
    )
    return np.asarray(laid)


def _middle(case: Case) -> Floats:
    name = case.main_target
    mask = case.body if name is None else case.mask(name)
    if not mask.any():
        return np.asarray(case.grid.shape_zyx) / 2.0
    return np.asarray(np.argwhere(mask).mean(axis=0))
