"""Contours whose planes lie between one another's: parts and holes off their slices, told apart by shape."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doseledger.core.grid import Grid
from doseledger.core.planes import ROUNDED_MM
from doseledger.dicom.contours.raster import Polygon, rasterise_box

Indices = NDArray[np.intp]
# Planes nearer than this part of a step are no slices of one scan.
CROWDED_SHARE = 0.75
# Shapes are compared on about so many pixels along the longer side.
COMPARED_PIXELS = 128
# Two planes alternate with two others where each has so much more in common with the next but one than with the next:
# holes and outer contours do, slices of one shape don't.
LEAST_ALTERNATION = 0.4
# So much of a hole lies within the planes about it.
LEAST_WITHIN = 0.9


class Split(NamedTuple):
    """Which contours belong together: those of each part, and those of holes that have planes of their own."""

    parts: list[Indices]
    holes: Indices


def split_interleaved(polygons: list[Polygon], exact_mm: NDArray[np.float64]) -> Split:
    """Return the contours of each set that has planes of its own, between another one's; else all of them as one.

    Parameters
    ----------
    polygons
        Closed contours of a structure, each (n, 2) of x, y in mm.
    exact_mm
        The plane of each, (n,).

    Notes
    -----
    A part beside the others has its own planes where planes of all parts lie closer than those of any. A hole, which
    lies in another contour's shadow, is told by shapes that alternate: at least twice, as any lens has one slice in
    the middle that differs from two equal ones about it.
    """
    everything, nothing = np.arange(len(polygons)), np.empty(0, dtype=np.intp)
    planes_mm, plane_of = np.unique(exact_mm, return_inverse=True)
    if len(planes_mm) < 3:
        return Split([everything], nothing)
    shapes, part_of = _shadows(polygons, plane_of, len(planes_mm))
    parts = [np.flatnonzero(part_of == number) for number in np.unique(part_of)]
    own = [np.diff(np.unique(exact_mm[part])) for part in parts]
    least = min((float(one.min()) for one in own if len(one)), default=0.0)
    if np.diff(planes_mm).min() < CROWDED_SHARE * least:
        return Split(parts, nothing)
    is_hole = _alternating(shapes)[plane_of]
    return Split([np.flatnonzero(~is_hole)], np.flatnonzero(is_hole))


def _shadows(polygons: list[Polygon], plane_of: Indices, n_planes: int) -> tuple[NDArray[np.bool_], Indices]:
    """Return each plane's shape on coarse pixels, (plane, y, x), and each contour's part: shadows along z apart."""
    points = np.concatenate(polygons)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    pixel = max(float(extent.max()) / COMPARED_PIXELS, ROUNDED_MM)
    columns, rows = (int(np.ceil(side / pixel)) + 2 for side in extent)
    grid = Grid((1, rows, columns), (1.0, pixel, pixel), (0.0, float(low[1]), float(low[0])))
    shapes = np.zeros((n_planes, rows, columns), dtype=np.bool_)
    shadow = np.zeros((rows, columns), dtype=np.bool_)
    # Even a contour smaller than a pixel throws a shadow: that of its points.
    column, row = np.rint((points - low) / pixel).astype(np.intp).T
    shadow[row, column] = True
    for polygon, plane in zip(polygons, plane_of.tolist(), strict=True):
        window, inside = rasterise_box([polygon], grid)
        shadow[window] |= inside
        shapes[(plane, *window)] ^= inside
    labels, _ = ndimage.label(shadow, structure=np.ones((3, 3)))
    starts = np.cumsum([0, *(len(polygon) for polygon in polygons[:-1])])
    return shapes, labels[row[starts], column[starts]].astype(np.intp)


def _alternating(shapes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which planes hold holes alone: smaller shapes within those of the planes about them."""
    next_one, next_but_one = _likeness(shapes, 1), _likeness(shapes, 2)
    # Plane i + 2 has less in common with its neighbour than with the plane before that.
    turns = next_but_one - next_one[1:] > LEAST_ALTERNATION
    area = np.count_nonzero(shapes, axis=(1, 2))
    is_hole = np.zeros(len(shapes), dtype=np.bool_)
    labels, n_runs = ndimage.label(turns)
    for number in range(1, n_runs + 1):
        run = np.flatnonzero(labels == number)
        if len(run) < 2:
            continue
        planes = np.arange(run[0], run[-1] + 3)
        inner, outer = sorted((planes[::2], planes[1::2]), key=lambda lane: float(np.median(area[lane])))
        within = np.count_nonzero(np.any(shapes[inner], axis=0) & np.any(shapes[outer], axis=0))
        is_hole[inner] = within >= LEAST_WITHIN * np.count_nonzero(np.any(shapes[inner], axis=0))
    return is_hole


def _likeness(shapes: NDArray[np.bool_], apart: int) -> NDArray[np.float64]:
    """Return what planes so far apart have in common, of all that both hold; 0 where they hold nothing."""
    pairs = zip(shapes[:-apart], shapes[apart:], strict=True)
    counts = [(np.count_nonzero(a & b), np.count_nonzero(a | b)) for a, b in pairs]
    return np.asarray([both / either if either else 0.0 for both, either in counts])
