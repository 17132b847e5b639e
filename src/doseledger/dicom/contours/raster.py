"""Closed contours to pixels: even-odd at the pixel centres of any grid."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import Grid

Polygon = NDArray[np.float64]
Window = tuple[slice, slice]
# Pixel coordinates are rounded to so many digits, so that a vertex meant to lie on a centre does.
SNAP_DIGITS = 4


@numba.njit(cache=True)
def _toggle_crossings(points: NDArray[np.float64], toggles: NDArray[np.uint8]) -> None:  # pragma: no cover - compiled
    """Toggle, on each row that an edge crosses, the first pixel centre at or right of the crossing.

    Half-open in both directions: an edge owns its lower end, a crossing owns the centre that it hits. So neighbours
    that share an edge share no pixel, and leave none out.
    """
    n_rows, n_columns = toggles.shape[0], toggles.shape[1] - 1
    n = points.shape[0]
    for i in range(n):
        x0, y0 = points[i]
        x1, y1 = points[(i + 1) % n]
        if y0 == y1:
            continue
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first = max(0, int(np.ceil(y0)))
        last = min(n_rows - 1, int(np.ceil(y1)) - 1)
        slope = (x1 - x0) / (y1 - y0)
        for row in range(first, last + 1):
            crossing = x0 + (row - y0) * slope
            column = int(np.ceil(min(max(crossing, 0.0), float(n_columns))))
            toggles[row, column] ^= 1


def rasterise(polygons: list[Polygon], grid: Grid) -> NDArray[np.bool_]:
    """Return which pixel centres of a grid's (y, x) plane lie inside closed contours combined even-odd.

    Parameters
    ----------
    polygons
        Contours as (n, 2) of x, y in mm; holes are contours inside others, or joined to them by a keyhole.
    grid
        Only its y and x axes matter.

    Returns
    -------
    ndarray
        bool (y, x).

    Notes
    -----
    Even-odd is what DICOM PS3.3 C.8.8.6.3 asks of CLOSEDPLANAR_XOR. For several CLOSED_PLANAR contours on a plane
    the standard names no rule; systems write separate parts (even-odd and union agree) and holes (a union would fill
    them), so even-odd holds for both. A keyhole's two coincident edges cancel.
    """
    mask = np.zeros(grid.shape_zyx[1:], dtype=np.bool_)
    if polygons:
        window, inside = rasterise_box(polygons, grid)
        mask[window] = inside
    return mask


def rasterise_box(polygons: list[Polygon], grid: Grid) -> tuple[Window, NDArray[np.bool_]]:
    """Return the part of a grid's (y, x) plane that holds some contours, and which of its pixel centres they hold.

    Parameters
    ----------
    polygons
        At least one contour, as for `rasterise`.
    grid
        Only its y and x axes matter.
    """
    origin = np.asarray([grid.origin_mm[2], grid.origin_mm[1]])
    spacing = np.asarray([grid.spacing_mm[2], grid.spacing_mm[1]])
    points = [np.round((polygon - origin) / spacing, SNAP_DIGITS) for polygon in polygons]
    size = np.asarray(grid.shape_zyx[:0:-1])
    # Only the contours' own box is filled; moving by whole pixels leaves every tie a tie.
    low = np.clip(np.floor(np.min([p.min(axis=0) for p in points], axis=0)).astype(int), 0, size)
    high = np.clip(np.ceil(np.max([p.max(axis=0) for p in points], axis=0)).astype(int) + 1, low, size)
    toggles = np.zeros((high[1] - low[1], high[0] - low[0] + 1), dtype=np.uint8)
    for polygon in points:
        _toggle_crossings(polygon - low, toggles)
    inside = np.bitwise_xor.accumulate(toggles[:, :-1], axis=1).astype(np.bool_)
    return (slice(low[1], high[1]), slice(low[0], high[0])), inside
