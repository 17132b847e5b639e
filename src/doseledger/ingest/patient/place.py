"""Image, outline, structures and dose onto a case's one grid, cropped to the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid, box_around, resample_linear
from doseledger.core.project.protocol import Crop, Protocol
from doseledger.dicom.contours import Stack, fill
from doseledger.dicom.distance import signed_distance
from doseledger.dicom.read_dose import Dose
from doseledger.dicom.read_image import AIR_HU, Image
from doseledger.ingest.body import fill_body


@dataclass(frozen=True)
class Placed:
    """What lies on the case's grid before it is cropped.

    Parameters
    ----------
    dose_gy
        Dose on it, 0 where there is none; None where the case has no dose.
    box
        The part of the grid that the case keeps.
    """

    grid: Grid
    ct_hu: NDArray[np.int16]
    body: NDArray[np.bool_]
    dose_gy: NDArray[np.float32] | None
    covered: NDArray[np.bool_]
    box: tuple[slice, slice, slice]


@dataclass(frozen=True)
class Placement:
    """A structure on the case's cropped grid.

    Parameters
    ----------
    mask
        bool (z, y, x).
    sdf_mm
        float16 (z, y, x).
    outside_percent
        Part of the structure that lies beyond the dose grid.
    """

    mask: NDArray[np.bool_]
    sdf_mm: NDArray[np.float16]
    outside_percent: float


def place(image: Image, body: Stack | None, dose: Dose | None, protocol: Protocol, case_id: str) -> Placed:
    """Return image, outline and dose on the protocol's grid; contours are filled afresh on it.

    Raises
    ------
    BadCase
        If the outline is empty.
    """
    grid = image.grid if protocol.spacing_mm == "native" else image.grid.resampled(protocol.spacing_mm)
    if grid.same_as(image.grid):
        ct_hu = image.values
    else:
        ct_hu = np.rint(resample_linear(image.values, image.grid, grid, AIR_HU)).astype(np.int16)
    outline = fill(body, grid) if body is not None else fill_body(ct_hu, case_id)
    if not outline.any():
        raise BadCase(case_id, "the outline has contours, but no voxel centre lies inside them; check the BODY ROI")
    dose_gy, covered = None, np.ones(grid.shape_zyx, dtype=np.bool_)
    if dose is not None:
        dose_gy = resample_linear(dose.dose_gy, dose.grid, grid, np.nan)
        covered = ~np.isnan(dose_gy)
        dose_gy[~covered] = 0.0
    box = tuple(slice(0, n) for n in grid.shape_zyx)
    if isinstance(protocol.crop, Crop):
        z, y, x = (int(np.ceil(protocol.crop.margin_mm / spacing)) for spacing in grid.spacing_mm)
        box = box_around(outline, (z, y, x))
    return Placed(grid, ct_hu, outline, dose_gy, covered, (box[0], box[1], box[2]))


def place_structure(stack: Stack, placed: Placed, clip_mm: float) -> Placement | None:
    """Return a structure on the cropped grid; None where no voxel centre of it lies inside.

    Notes
    -----
    The distance is taken on the full grid before cropping: a crop's edge is no surface.
    """
    mask = fill(stack, placed.grid)
    inside = mask[placed.box]
    if not inside.any():
        return None
    sdf_mm = signed_distance(mask, placed.grid, clip_mm)[placed.box]
    outside = float(100.0 * np.mean(~placed.covered[mask]))
    return Placement(np.ascontiguousarray(inside), np.ascontiguousarray(sdf_mm), round(outside, 3))
