"""Dose and volume of structures on their native grids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import Grid, IntTriple, Triple, resample_linear
from doseledger.dicom.contours import Stack, fill
from doseledger.dicom.read_dose import Dose

# Digits kept: 1e-4 Gy is far below any dose's accuracy, and equal bytes need a fixed number.
DIGITS = 4
# The least dose of the hottest x percent is the (100 - x)th percentile (ICRU 83).
PERCENTILES = {"D98%": 2.0, "D95%": 5.0, "D50%": 50.0, "D2%": 98.0}
# Native dose voxels are divided until they are no longer than this, as planning systems do for their own DVHs: a small
# target holds a handful of voxel centres of a 5 mm grid, and their 5th percentile says little.
FINEST_MM = 1.5


def native_statistics(stack: Stack, image_grid: Grid, dose: Dose) -> dict[str, float | int]:
    """Return a structure's D98%, D95%, D50%, D2%, mean and max in Gy on the dose's own grid, and its volume in cm³.

    Parameters
    ----------
    stack
        Its contours; they are filled afresh on either grid.
    image_grid
        Grid of the image that they were drawn on: the volume is taken there, as the dose grid may cut a structure.

    Returns
    -------
    dict
        `points` counts the samples inside: native dose voxels divided to 1.5 mm or less, their dose trilinear between
        the native voxels. Where there is none, as for a structure beyond the dose grid, the doses are left out: there
        is nothing to compare with.
    """
    values = _doses_inside(stack, dose)
    volume = int(fill(stack, image_grid).sum()) * image_grid.voxel_volume_cc
    found: dict[str, float | int] = {"points": len(values), "volume_cc": round(volume, DIGITS)}
    if len(values):
        found |= {name: round(float(np.percentile(values, q)), DIGITS) for name, q in PERCENTILES.items()}
        found |= {"mean": round(float(values.mean()), DIGITS), "max": round(float(values.max()), DIGITS)}
    return found


def _doses_inside(stack: Stack, dose: Dose) -> NDArray[np.float64]:
    """Doses at the points of the divided native grid that lie inside a structure."""
    low, high = stack.box_mm()
    margin = np.asarray([max(part.slice_mm for part in stack.parts()), 0.0, 0.0])
    low, high = low - margin, high + margin
    shape = np.asarray(dose.grid.shape_zyx)
    start = np.clip(np.floor(dose.grid.mm_to_index(low)).astype(int) - 1, 0, shape)
    stop = np.clip(np.ceil(dose.grid.mm_to_index(high)).astype(int) + 2, 0, shape)
    if np.any(stop - start < 1):
        return np.empty(0)
    box = dose.grid.cropped(_integers(start), _integers(stop - start))
    z, y, x = (spacing / np.ceil(spacing / FINEST_MM) for spacing in box.spacing_mm)
    spacing: Triple = (float(z), float(y), float(x))
    fine = box.resampled(spacing)
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    values = resample_linear(dose.dose_gy[window], box, fine, 0.0)
    return values[fill(stack, fine)].astype(np.float64)


def _integers(values: NDArray[np.int_]) -> IntTriple:
    z, y, x = (int(value) for value in values)
    return z, y, x
