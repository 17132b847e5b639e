"""Contours to masks on any grid: which voxel centres lie inside; holes, keyholes, several contours, gaps.

A structure is a stack of planes. On each plane its contours are combined even-odd at the pixel centres of the *target*
grid, so nothing is resampled in the plane. Between two planes the shape is interpolated (Raya & Udupa 1990): signed
in-plane distances of both are mixed linearly, and what is below zero is inside. Beyond the first and the last plane
the shape holds for half a slice, as an image slice does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import edt
import numba
import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid

Polygon = NDArray[np.float64]
# Planes nearer to a layer than this part of a slice are on it: CT and RTSTRUCT round positions differently.
SAME_PLANE_SHARE = 0.05
# Pixel coordinates are rounded to so many digits, so that a vertex meant to lie on a centre does.
SNAP_DIGITS = 4
# Contours that touch share a few pixels; those that share more of the smaller one, but not all of it, cross.
MOST_TOUCHING_SHARE = 0.1
# Contours drawn on every second to fifth slice are common; a wider gap is not filled by guesswork.
MOST_MISSING_SLICES = 4


@dataclass(frozen=True)
class Stack:
    """A structure as planes of contours.

    Parameters
    ----------
    z_mm
        Position of each plane, rising.
    polygons
        Closed contours of each plane as (n, 2) of x, y in mm.
    slice_mm
        Distance of the image's slices: how thick a plane is.
    joined
        Whether the shape goes on between plane i and plane i + 1, (plane − 1,).
    """

    z_mm: NDArray[np.float64]
    polygons: list[list[Polygon]]
    slice_mm: float
    joined: NDArray[np.bool_]


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
    if not polygons:
        return mask
    origin = np.asarray([grid.origin_mm[2], grid.origin_mm[1]])
    spacing = np.asarray([grid.spacing_mm[2], grid.spacing_mm[1]])
    points = [np.round((polygon - origin) / spacing, SNAP_DIGITS) for polygon in polygons]
    size = np.asarray(mask.shape[::-1])
    # Only the contours' own box is filled; moving by whole pixels leaves every tie a tie.
    low = np.clip(np.floor(np.min([p.min(axis=0) for p in points], axis=0)).astype(int), 0, size)
    high = np.clip(np.ceil(np.max([p.max(axis=0) for p in points], axis=0)).astype(int) + 1, low, size)
    toggles = np.zeros((high[1] - low[1], high[0] - low[0] + 1), dtype=np.uint8)
    for polygon in points:
        _toggle_crossings(polygon - low, toggles)
    mask[low[1] : high[1], low[0] : high[0]] = np.bitwise_xor.accumulate(toggles[:, :-1], axis=1)
    return mask


def _cross(first: Polygon, second: Polygon, grid: Grid) -> bool:
    """Whether two contours of a plane overlap in part: neither apart, nor one inside the other."""
    if np.any(first.max(axis=0) < second.min(axis=0)) or np.any(second.max(axis=0) < first.min(axis=0)):
        return False
    one, other = rasterise([first], grid), rasterise([second], grid)
    smaller = min(int(one.sum()), int(other.sum()))
    shared = int((one & other).sum())
    return MOST_TOUCHING_SHARE * smaller < shared < (1 - MOST_TOUCHING_SHARE) * smaller


def stack_contours(
    contours: list[tuple[float, Polygon]], image_grid: Grid, case_id: str, name: str
) -> tuple[Stack, list[str]]:
    """Return a structure's contours as planes, and what is worth a warning about them.

    Parameters
    ----------
    contours
        (z in mm, points) of each closed contour; at least one.
    image_grid
        The image that they were drawn on.
    case_id, name
        Who the errors name.

    Raises
    ------
    BadCase
        If contours lie more than half a slice beyond the image, or more slices than can be filled in honestly are
        missing between planes whose shapes overlap.

    Notes
    -----
    A gap between planes whose shapes overlap is filled by interpolation and named; between shapes that don't, the
    structure has separate parts and the gap stays empty: named too.
    """
    slice_mm = image_grid.spacing_mm[0]
    low, high = image_grid.extent_mm[0][0] - slice_mm / 2, image_grid.extent_mm[1][0] + slice_mm / 2
    found = np.asarray([z for z, _ in contours])
    beyond = int(np.sum((found < low - 0.01) | (found > high + 0.01)))
    if beyond:
        raise BadCase(
            case_id,
            f"{beyond} of {len(found)} contours of {name} lie beyond the image: z from {found.min():.1f} to "
            f"{found.max():.1f} mm, the image's slices reach from {low:.1f} to {high:.1f} mm; export the whole series",
        )
    layer = (found - image_grid.origin_mm[0]) / slice_mm
    on_slice = np.abs(layer - np.rint(layer)) <= SAME_PLANE_SHARE
    exact = np.where(on_slice, image_grid.origin_mm[0] + np.rint(layer) * slice_mm, np.round(found, 2))
    z_mm = np.unique(exact)
    polygons = [[contours[i][1] for i in np.flatnonzero(exact == z)] for z in z_mm]
    joined, notes = _join(z_mm, polygons, image_grid, case_id, name)
    crossing = [
        f"{z:.1f}"
        for z, plane in zip(z_mm, polygons, strict=True)
        if any(_cross(one, other, image_grid) for one, other in combinations(plane, 2))
    ]
    if crossing:
        notes.append(f"contours of {name} cross at z {', '.join(crossing[:5])} mm: what they share counts as outside")
    return Stack(z_mm, polygons, slice_mm, joined), notes


def _join(
    z_mm: NDArray[np.float64], polygons: list[list[Polygon]], grid: Grid, case_id: str, name: str
) -> tuple[NDArray[np.bool_], list[str]]:
    slice_mm = grid.spacing_mm[0]
    missing = np.rint(np.diff(z_mm) / slice_mm).astype(int) - 1
    joined = np.ones(len(missing), dtype=np.bool_)
    filled = 0
    notes = []
    for i in np.flatnonzero(missing > 0):
        if not np.any(rasterise(polygons[i], grid) & rasterise(polygons[i + 1], grid)):
            joined[i] = False
            notes.append(
                f"{name} has separate parts: nothing is drawn between z {z_mm[i]:.1f} and {z_mm[i + 1]:.1f} mm"
            )
        elif missing[i] > MOST_MISSING_SLICES:
            raise BadCase(
                case_id,
                f"{name} has no contour on {missing[i]} slices between z {z_mm[i]:.1f} and {z_mm[i + 1]:.1f} mm, "
                f"wanted at most {MOST_MISSING_SLICES}; draw it there, or split it into two structures",
            )
        else:
            filled += int(missing[i])
    if filled:
        notes.append(f"{name} has no contour on {filled} slices inside it; its shape was interpolated there")
    return joined, notes


def fill(stack: Stack, grid: Grid) -> NDArray[np.bool_]:
    """Return a structure's mask on any grid: voxel centre inside.

    Parameters
    ----------
    stack
        From `stack_contours`.
    grid
        Where the mask is wanted; need not be the image's.

    Returns
    -------
    ndarray
        bool (z, y, x). On the image's own slices each is exactly the even-odd fill of its contours.
    """
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
        if off <= SAME_PLANE_SHARE * stack.slice_mm:
            mask[row] = plane(nearest)
        elif between:
            below, above = stack.z_mm[after - 1], stack.z_mm[after]
            share = np.float32((z - below) / (above - below))
            mask[row] = (1 - share) * distance(after - 1) + share * distance(after) < 0
        # Half-open, so that a layer midway between separate parts belongs to one of them only.
        elif off < half or (off == half and stack.z_mm[nearest] < z):
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
