"""A structure's dose and volume on the grids that they came on: what a resampled case is later held against."""

from __future__ import annotations

import numpy as np

from doseledger.core.grid import Grid
from doseledger.dicom.contours import Stack, fill
from doseledger.dicom.read_dose import Dose

# Digits kept: 1e-4 Gy is far below any dose's accuracy, and equal bytes need a fixed number.
DIGITS = 4
# The least dose of the hottest x percent is the (100 - x)th percentile (ICRU 83).
PERCENTILES = {"D98%": 2.0, "D95%": 5.0, "D50%": 50.0, "D2%": 98.0}


def native_statistics(stack: Stack, image_grid: Grid, dose: Dose) -> dict[str, float | int]:
    """Return a structure's D98%, D95%, D50%, D2%, mean and max in Gy on the dose's own grid, and its volume in cm³.

    Parameters
    ----------
    stack
        Its contours; they are filled afresh on either grid.
    image_grid
        Grid of the image that they were drawn on: the volume is taken there, as the dose grid may cut a structure.
    dose
        The dose as it came.

    Returns
    -------
    dict
        `voxels` counts the dose voxels inside. Where there is none, as for a structure beyond the dose grid or smaller
        than its voxels, the doses are left out: there is nothing to compare with.
    """
    values = dose.dose_gy[fill(stack, dose.grid)].astype(np.float64)
    volume = int(fill(stack, image_grid).sum()) * image_grid.voxel_volume_cc
    found: dict[str, float | int] = {"voxels": len(values), "volume_cc": round(volume, DIGITS)}
    if len(values):
        found |= {name: round(float(np.percentile(values, q)), DIGITS) for name, q in PERCENTILES.items()}
        found |= {"mean": round(float(values.mean()), DIGITS), "max": round(float(values.max()), DIGITS)}
    return found
