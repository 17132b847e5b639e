"""A structure's contours slice by slice: as they are drawn, and as they are filled in where none is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import Grid
from doseledger.dicom.contours import SAME_PLANE_SHARE, Polygon, Stack, fill


def layers_of(stack: Stack, grid: Grid) -> list[tuple[float, list[Polygon]]]:
    """Return z in mm and the closed contours of each slice of a grid, combined even-odd.

    Parameters
    ----------
    stack
        From `stack_contours`.
    grid
        Its slices are the layers. Only where a slice has no contours of its own do its pixels count: the shape is
        interpolated on them, as `contours.fill` does, and comes back as one rectangle a run of pixels.
    """
    found: list[tuple[float, list[Polygon]]] = []
    for row, z in enumerate(grid.axes_mm()[0].tolist()):
        nearest = int(np.argmin(np.abs(stack.z_mm - z)))
        if abs(stack.z_mm[nearest] - z) <= SAME_PLANE_SHARE * stack.slice_mm:
            found.append((z, stack.polygons[nearest]))
        else:
            found.append((z, _rectangles(fill(stack, _slice(grid, row))[0], grid)))
    return found


def _slice(grid: Grid, row: int) -> Grid:
    return grid.cropped((row, 0, 0), (1, *grid.shape_zyx[1:]))


def _rectangles(inside: NDArray[np.bool_], grid: Grid) -> list[Polygon]:
    """Return the runs of pixels along x as rectangles in mm."""
    (_, y0, x0), (_, dy, dx) = grid.origin_mm, grid.spacing_mm
    steps = np.diff(np.pad(inside, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, stops = np.nonzero(steps == -1)
    boxes = []
    for row, start, stop in zip(rows, starts, stops, strict=True):
        left, right, low, high = (
            x0 + (start - 0.5) * dx,
            x0 + (stop - 0.5) * dx,
            y0 + (row - 0.5) * dy,
            y0 + (row + 0.5) * dy,
        )
        boxes.append(np.array([[left, low], [right, low], [right, high], [left, high]]))
    return boxes
