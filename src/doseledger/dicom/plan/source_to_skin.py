"""Distance from the source to the skin along a beam's central axis."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.plan import Arc
from doseledger.core.types import Floats

# Steps along the axis; between two of them the surface is a straight line of the field.
STEP_MM = 0.5
# Nearer to the image's border than this, in voxels, the skin may lie beyond it: nobody knows where.
BORDER_VOXELS = 1.0
TINY = 1e-9


class Body(NamedTuple):
    """A patient's outline: bool, or a field negative inside in mm, (z, y, x), and its grid."""

    surface: NDArray[Any]
    grid: Grid


def source_to_skin_mm(arc: Arc, body: Body, source_axis_mm: float) -> Floats:
    """Return the distance from the source to the skin in mm at each control point, (control point,).

    Parameters
    ----------
    arc
        A beam, its angles as for a patient who lies head first and supine.
    body
        The outline, in the patient's coordinates. What is on the couch is no part of it.
    source_axis_mm
        Distance from the source to the isocentre.

    Returns
    -------
    ndarray
        NaN where the axis misses the patient, or enters at the image's border: the skin there is not in the image.

    Raises
    ------
    BadInput
        If the outline does not fit its grid.

    Notes
    -----
    Source To Surface Distance, DICOM PS3.3 C.8.8.14.6 (300A,0130): along the central axis, which runs through the
    isocentre. Angles are IEC 61217: in LPS the source lies at (sin g, -cos g, 0) from the isocentre, turned by the
    couch about the patient's anterior-posterior axis.
    """
    surface, grid = body
    if surface.shape != grid.shape_zyx:
        raise BadInput(f"an outline of {surface.shape} voxels does not fit its grid of {grid.shape_zyx}")
    field = np.where(surface, -1.0, 1.0) if surface.dtype == np.bool_ else np.asarray(surface, dtype=np.float64)
    reach_mm = float(np.linalg.norm(np.asarray(grid.shape_zyx) * grid.spacing_mm))
    # Far enough out that every part of the grid is passed, however far off the isocentre lies.
    middle = (np.asarray(grid.extent_mm[0]) + np.asarray(grid.extent_mm[1]))[::-1] / 2.0
    half_mm = reach_mm / 2.0 + float(np.linalg.norm(middle - arc.isocentre_xyz_mm))
    distances = np.arange(max(0.0, source_axis_mm - half_mm), source_axis_mm + half_mm, STEP_MM)
    gantry, couch = np.deg2rad(arc.gantry_deg), np.deg2rad(arc.couch_deg)
    to_source = np.stack([np.sin(gantry) * np.cos(couch), -np.cos(gantry), -np.sin(gantry) * np.sin(couch)], axis=-1)
    behind_mm = [_entry_mm(field, grid, arc, axis, source_axis_mm - distances) for axis in to_source]
    return source_axis_mm + np.asarray(behind_mm)


def _entry_mm(field: Floats, grid: Grid, arc: Arc, axis_xyz: Floats, before_mm: Floats) -> float:
    """Where an axis enters the patient, in mm behind the isocentre as the beam runs; NaN where that is not known."""
    points = np.asarray(arc.isocentre_xyz_mm) + before_mm[:, None] * axis_xyz
    index = grid.mm_to_index(points[:, ::-1])
    along = ndimage.map_coordinates(field, index.T, order=1, mode="constant", cval=np.nan)
    inside = np.flatnonzero(along < 0)
    if inside.size == 0:
        return float("nan")
    first = int(inside[0])
    # An axis may run along the image's outermost slice: only where it comes in from beyond is that a border.
    comes_in = np.abs(axis_xyz[::-1]) > TINY
    outermost = np.asarray(grid.shape_zyx) - 1.0 - BORDER_VOXELS
    at_border = np.any(((index[first] < BORDER_VOXELS) | (index[first] > outermost)) & comes_in)
    if first == 0 or at_border or not np.isfinite(along[first - 1]):
        return float("nan")
    share = along[first - 1] / (along[first - 1] - along[first])
    return float(-(before_mm[first - 1] + share * (before_mm[first] - before_mm[first - 1])))
