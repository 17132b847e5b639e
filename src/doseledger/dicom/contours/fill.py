"""A stack of contours to a mask on any grid: voxel centres inside, interpolated between planes."""

from __future__ import annotations

import edt
import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import Grid
from doseledger.core.planes import TINY_MM
from doseledger.dicom.contours.raster import rasterise
from doseledger.dicom.contours.stack import Stack

# A layer nearer to a plane than this part of a slice has the plane's own shape: nothing is interpolated there.
ON_PLANE_SHARE = 0.05


def fill(stack: Stack, grid: Grid) -> NDArray[np.bool_]:
    """Return a structure's mask on any grid: voxel centre inside.

    Parameters
    ----------
    stack
        From `stack_contours` or `stack_on_own_planes`.
    grid
        Where the mask is wanted; need not be the image's.

    Returns
    -------
    ndarray
        bool (z, y, x). On the image's own slices each is exactly the even-odd fill of its contours.

    Notes
    -----
    On each plane contours are combined even-odd at the pixel centres of the *target* grid, so nothing is resampled in
    the plane. Between two planes the shape is interpolated (Raya & Udupa, IEEE Trans Med Imaging 9:32, 1990): signed
    in-plane distances of both are mixed linearly, and what is below zero is inside. Beyond the first and the last
    plane the shape holds for half a slice, as an image slice does.
    """
    mask = np.zeros(grid.shape_zyx, dtype=np.bool_)
    for part in stack.parts():
        inside = _fill_set(part, grid)
        if part.is_hole:
            mask &= ~inside
        else:
            mask |= inside
    return mask


def _fill_set(stack: Stack, grid: Grid) -> NDArray[np.bool_]:
    """Return the mask of one set of contours."""
    mask = np.zeros(grid.shape_zyx, dtype=np.bool_)
    half = stack.slice_mm / 2.0
    planes: dict[int, NDArray[np.bool_]] = {}
    distances: dict[int, NDArray[np.float32]] = {}

    def plane(index: int) -> NDArray[np.bool_]:
        if index not in planes:
            planes[index] = rasterise(stack.polygons[index], grid)
        return planes[index]

    def distance(index: int) -> NDArray[np.float32]:
        if index not in distances:
            distances[index] = _plane_distance(plane(index), grid)
        return distances[index]

    for row, z in enumerate(grid.axes_mm()[0]):
        after = int(np.searchsorted(stack.z_mm, z))
        nearest = min((i for i in (after - 1, after) if 0 <= i < len(stack.z_mm)), key=lambda i: abs(stack.z_mm[i] - z))
        off = abs(stack.z_mm[nearest] - z)
        between = 0 < after < len(stack.z_mm) and stack.joined[after - 1]
        if off <= ON_PLANE_SHARE * stack.slice_mm:
            mask[row] = plane(nearest)
        elif between:
            below, above = stack.z_mm[after - 1], stack.z_mm[after]
            share = np.float32((z - below) / (above - below))
            mask[row] = (1 - share) * distance(after - 1) + share * distance(after) < 0
        # Half-open, so that a layer midway between separate parts belongs to one of them only.
        elif off < half - TINY_MM or (off <= half + TINY_MM and stack.z_mm[nearest] < z):
            mask[row] = plane(nearest)
    return mask


def _plane_distance(inside: NDArray[np.bool_], grid: Grid) -> NDArray[np.float32]:
    """Signed in-plane distance in mm, negative inside; half a pixel in doubt on both sides alike."""
    spacing = (grid.spacing_mm[1], grid.spacing_mm[2])
    if not inside.any():
        return np.full(inside.shape, np.float32(np.inf))
    outer: NDArray[np.float32] = edt.edt(~inside, anisotropy=spacing, black_border=False, parallel=1)
    inner: NDArray[np.float32] = edt.edt(inside, anisotropy=spacing, black_border=False, parallel=1)
    half = np.float32(min(spacing) / 2)
    return np.where(inside, half - inner, outer - half).astype(np.float32)
