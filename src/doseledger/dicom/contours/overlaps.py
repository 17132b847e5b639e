"""Contours of one plane that lie over one another: near-copies, and crossings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from doseledger.core.grid import Grid
from doseledger.core.planes import ROUNDED_MM
from doseledger.dicom.contours.raster import Polygon, rasterise, rasterise_box

# Outlines no farther apart than this on average are one outline drawn twice: rounding to 0.1 mm moves them by 0.03 mm,
# while no wall of an organ is drawn so thin.
COPY_MM = 0.3
# Outlines that weave through one another are no wall: then each sticks out of the other by at least this part of all
# that they don't share ...
WEAVING_SHARE = 0.2
# ... and they are copies where that is at most this part of all that they hold.
MOST_APART_SHARE = 0.2
# The boxes of copies differ by no more than this, nor by more than a part of their size (roundings apart).
BOX_MM, BOX_SHARE = 1.0, 0.25
# Two contours are compared on about so many pixels along either side.
COMPARED_PIXELS = 256
# A contour that comes back to its first point this often is traced over, not joined to holes.
MOST_LOOPS = 16
# Contours that touch, or of which one lies in the other, miss that by a few pixels: by a tenth of the smaller one where
# it is small, else by as much as roundings along its border.
MOST_TOUCHING_SHARE = 0.1
# Contours that leave less than this part of the largest of them take one another away: no organ is a wall so thin.
LEAST_LEFT_SHARE = 0.1
# On fewer pixels neither is told.
LEAST_PIXELS = 20


@dataclass(frozen=True)
class Once:
    """The contours of a plane, each counted once.

    Parameters
    ----------
    n_copies
        How many were left out, or traced over themselves.
    """

    polygons: list[Polygon]
    n_copies: int


def count_once(polygons: list[Polygon]) -> Once:
    """Return the contours of a plane without near-copies, of which an even number would cancel.

    Parameters
    ----------
    polygons
        Closed contours of one plane, each (n, 2) of x, y in mm.

    Notes
    -----
    Copies are told by their areas, so it does not matter where a contour begins, in which sense it runs, how it is
    rounded and how many points it has. A hole differs from its outer contour by the wall between them, and a keyhole
    comes back to its outer contour without running along it a second time. Of copies the one with the most points
    stays, whatever their order.
    """
    traced = [_traced_once(polygon) for polygon in polygons]
    n_traced = sum(len(once) < len(polygon) for once, polygon in zip(traced, polygons, strict=True))
    kept = _without_copies(traced)
    return Once([traced[i] for i in kept], n_traced + len(traced) - len(kept))


def _traced_once(polygon: Polygon) -> Polygon:
    """Return a contour that runs along itself a second time without the repeats; any other one as it is."""
    returns = np.flatnonzero(np.hypot(*(polygon - polygon[0]).T) <= ROUNDED_MM)
    # Neighbours of the first point, and a last point that closes the contour, are no return.
    starts = returns[np.diff(returns, prepend=-1) > 1]
    starts = starts[(starts > 2) & (starts < len(polygon) - 2)]
    if not 0 < len(starts) < MOST_LOOPS:
        return polygon
    loops = np.split(polygon, starts)
    kept = _without_copies(loops)
    return polygon if len(kept) == len(loops) else np.concatenate([loops[i] for i in kept])


def _without_copies(polygons: list[Polygon]) -> list[int]:
    """Return which contours are no copy of another, in their order."""
    if len(polygons) < 2:
        return list(range(len(polygons)))
    boxes = np.asarray([np.concatenate([p.min(axis=0), p.max(axis=0)]) for p in polygons])
    near = cKDTree(boxes)
    nearest_mm, _ = near.query(boxes, k=2, p=np.inf, distance_upper_bound=BOX_MM)
    if not np.isfinite(nearest_mm[:, 1]).any():
        return list(range(len(polygons)))
    # What a contour is ranked by says nothing of where it begins, its sense, or its place among the others.
    rank = [(-len(p), *(np.sort(p, axis=0).sum(axis=0)), *box) for p, box in zip(polygons, boxes, strict=True)]
    left_out = np.zeros(len(polygons), dtype=np.bool_)
    for i in sorted(range(len(polygons)), key=rank.__getitem__):
        if left_out[i]:
            continue
        others = np.asarray(near.query_ball_point(boxes[i], BOX_MM, p=np.inf))
        slack = np.tile(np.maximum(BOX_SHARE * (boxes[i, 2:] - boxes[i, :2]), 2 * ROUNDED_MM), 2)
        for j in others[np.all(np.abs(boxes[others] - boxes[i]) <= slack, axis=1)].tolist():
            if j != i and not left_out[j] and _are_copies(polygons[i], polygons[j]):
                left_out[j] = True
    return np.flatnonzero(~left_out).tolist()


def _are_copies(first: Polygon, second: Polygon) -> bool:
    """Whether two contours hold the same area, apart from rounding."""
    both = np.concatenate([first, second])
    low, extent = both.min(axis=0), np.maximum(np.ptp(both, axis=0), ROUNDED_MM)
    dx, dy = extent / COMPARED_PIXELS
    shape = (1, COMPARED_PIXELS + 1, COMPARED_PIXELS + 1)
    grid = Grid(shape, (1.0, float(dy), float(dx)), (0.0, float(low[1]), float(low[0])))
    one, other = rasterise([first], grid), rasterise([second], grid)
    pixel_mm2 = float(dx * dy)
    all_mm2 = float(np.count_nonzero(one | other)) * pixel_mm2
    only = [float(np.count_nonzero(a & ~b)) * pixel_mm2 for a, b in ((one, other), (other, one))]
    if all_mm2 == 0.0 or sum(only) > MOST_APART_SHARE * all_mm2:
        return False
    return sum(only) <= COPY_MM * _length_mm(first) or min(only) >= WEAVING_SHARE * sum(only)


def _length_mm(polygon: Polygon) -> float:
    return float(np.hypot(*(np.roll(polygon, -1, axis=0) - polygon).T).sum())


@dataclass(frozen=True)
class Overlaps:
    """What the contours of a plane do to one another.

    Parameters
    ----------
    is_crossing
        Any two overlap in part: neither apart, nor one inside the other.
    is_cancelling
        By the even-odd rule next to nothing is left of the largest.
    """

    is_crossing: bool
    is_cancelling: bool


def find_overlaps(polygons: list[Polygon], grid: Grid) -> Overlaps:
    """Return what the contours of a plane do to one another.

    Parameters
    ----------
    polygons
        Closed contours of one plane, each (n, 2) of x, y in mm.
    grid
        On whose pixels areas are compared; only its y and x axes matter.

    Notes
    -----
    From the largest contour to the smallest each takes its pixels over. Where none cross, all pixels that it takes
    belonged to the one contour that it lies in, or to none; so no pair is ever compared.
    """
    if len(polygons) < 2:
        return Overlaps(False, False)
    drawn = [rasterise_box([polygon], grid) for polygon in polygons]
    sizes = [int(np.count_nonzero(inside)) for _, inside in drawn]
    owner: NDArray[np.int32] = np.zeros(grid.shape_zyx[1:], dtype=np.int32)
    is_odd: NDArray[np.bool_] = np.zeros(grid.shape_zyx[1:], dtype=np.bool_)
    is_crossing = False
    pixel_mm2 = grid.spacing_mm[1] * grid.spacing_mm[2]
    for i in sorted(range(len(drawn)), key=sizes.__getitem__, reverse=True):
        window, inside = drawn[i]
        there = owner[window]
        _, counts = np.unique(there[inside], return_counts=True)
        rounding = ROUNDED_MM * _length_mm(polygons[i]) / pixel_mm2
        slack = min(MOST_TOUCHING_SHARE * sizes[i], max(rounding, LEAST_PIXELS))
        is_crossing = is_crossing or bool(sizes[i] and counts.max() < sizes[i] - slack)
        there[inside] = i + 1
        is_odd[window] ^= inside
    left = int(np.count_nonzero(is_odd))
    return Overlaps(is_crossing, max(sizes) >= LEAST_PIXELS and left < LEAST_LEFT_SHARE * max(sizes))
