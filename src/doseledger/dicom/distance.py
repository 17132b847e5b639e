"""A mask to its signed distance in mm: exact to the faces of its voxels, at any spacing."""

from __future__ import annotations

import edt
import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import Grid, box_around


def signed_distance(mask: NDArray[np.bool_], grid: Grid, clip_mm: float) -> NDArray[np.float16]:
    """Return the distance of every voxel centre to a structure's surface in mm, negative inside, clipped.

    Parameters
    ----------
    mask
        bool (z, y, x) on `grid`.
    grid
        Its spacing may differ along each axis.
    clip_mm
        Farther than this, inside or out, is this; an empty mask is this everywhere.

    Returns
    -------
    ndarray
        float16 (z, y, x).

    Notes
    -----
    The surface is that of the voxels: the faces between inside and outside, not the voxel centres, so a distance
    transform's jump of one voxel at the surface (half a voxel of bias on either side) does not arise. The transform
    runs on a grid of half the spacing, where centres are the even points and each face is a square of odd ones; the
    nearest point of a face to a centre is then itself a point of that grid, which makes the result exact for the
    voxelised surface. Against a smooth surface the error is that of the voxels' staircase.
    The surface at the grid's own edge is unknown and counts as none.
    """
    result = np.full(mask.shape, clip_mm, dtype=np.float16)
    if not mask.any():
        return result
    margin = [int(np.ceil(clip_mm / spacing)) + 1 for spacing in grid.spacing_mm]
    box = box_around(mask, (margin[0], margin[1], margin[2]))
    part = mask[box]
    surface = _faces(part)
    if not surface.any():
        return np.full(mask.shape, -clip_mm, dtype=np.float16)
    half_spacing = tuple(spacing / 2.0 for spacing in grid.spacing_mm)
    distance = edt.edt(~surface, anisotropy=half_spacing, black_border=False, parallel=1)[::2, ::2, ::2]
    np.minimum(distance, clip_mm, out=distance)
    result[box] = np.where(part, -distance, distance)
    return result


def _faces(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Points of the doubled grid that lie on a face between inside and outside."""
    faces = np.zeros([2 * n - 1 for n in mask.shape], dtype=np.bool_)
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        differs = mask[tuple(ahead)] != mask[tuple(behind)]
        points = np.zeros_like(faces)
        points[tuple(slice(1, None, 2) if other == axis else slice(None, None, 2) for other in range(3))] = differs
        for other in range(3):
            if other != axis:
                points = _widened(points, other)
        faces |= points
    return faces


def _widened(points: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Points and their two neighbours along an axis."""
    wide = points.copy()
    ahead, behind = [slice(None)] * 3, [slice(None)] * 3
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    wide[tuple(ahead)] |= points[tuple(behind)]
    wide[tuple(behind)] |= points[tuple(ahead)]
    return wide
