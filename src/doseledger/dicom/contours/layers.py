"""A stack of contours as layers: each plane as it is drawn, and what is filled in where a slice has none."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import Grid
from doseledger.core.planes import TINY_MM, find_planes
from doseledger.dicom.contours.fill import fill
from doseledger.dicom.contours.raster import Polygon
from doseledger.dicom.contours.stack import Stack, missing_slices


class Layer(NamedTuple):
    """Closed contours, combined even-odd, and the slab that they stand for: its middle and its thickness in mm."""

    z_mm: float
    thickness_mm: float
    contours: list[Polygon]


def layers_of(stack: Stack, grid: Grid) -> list[Layer]:
    """Return the layers of a structure, without gap or overlap between planes that belong together.

    Parameters
    ----------
    stack
        From `stack_contours` or `stack_on_own_planes`.
    grid
        Only its y and x axes matter, and only where a slice has no contours of its own: the shape is interpolated on
        their pixels, as `fill` does, and comes back as one rectangle a run of pixels.

    Notes
    -----
    A layer ends midway to the next one, and half a slice beyond the first and the last plane of a shape. Planes at
    even steps so become slabs of equal thickness about them. Where sets of contours have planes of their own, layers
    are cut at the ends of all, and have the contours of each; a hole beyond the shape that it is in is none.
    """
    parts = list(stack.parts())
    sets = [_layers_of_set(part, grid) for part in parts]
    if len(sets) == 1:
        return sets[0]
    drawn = [layer for layers in sets for layer in layers]
    is_hole = np.repeat([part.is_hole for part in parts], [len(layers) for layers in sets])
    low = np.asarray([layer.z_mm - layer.thickness_mm / 2 for layer in drawn])
    high = np.asarray([layer.z_mm + layer.thickness_mm / 2 for layer in drawn])
    edges, _ = find_planes(np.concatenate([low, high]), TINY_MM)
    found = []
    for bottom, top in pairwise(edges.tolist()):
        middle = (bottom + top) / 2
        there = np.flatnonzero((low < middle) & (middle < high))
        if not is_hole[there].all():
            found.append(Layer(middle, top - bottom, [polygon for i in there for polygon in drawn[i].contours]))
    return found


def _layers_of_set(part: Stack, grid: Grid) -> list[Layer]:
    """Return the layers of one set of contours, from below."""
    missing = missing_slices(part.z_mm, part.slice_mm)
    z_mm: list[float] = []
    contours: list[list[Polygon]] = []
    starts: list[int] = []
    for i, z in enumerate(part.z_mm.tolist()):
        if i == 0 or not part.joined[i - 1]:
            starts.append(len(z_mm))
        z_mm.append(z)
        contours.append(part.polygons[i])
        if i < len(missing) and part.joined[i]:
            for between in np.linspace(z, part.z_mm[i + 1], missing[i] + 2)[1:-1].tolist():
                z_mm.append(between)
                contours.append(_rectangles(fill(part, _layer_at(grid, between))[0], grid))
    layers = []
    for first, stop in zip(starts, [*starts[1:], len(z_mm)], strict=True):
        run = np.asarray(z_mm[first:stop])
        edges = np.concatenate([[run[0] - part.slice_mm / 2], (run[:-1] + run[1:]) / 2, [run[-1] + part.slice_mm / 2]])
        for low, high, drawn in zip(edges[:-1], edges[1:], contours[first:stop], strict=True):
            layers.append(Layer(float(low + high) / 2, float(high - low), drawn))
    return layers


def _layer_at(grid: Grid, z_mm: float) -> Grid:
    """Return the plane of a grid, at another height."""
    (_, n_y, n_x), (dz, dy, dx), (_, y0, x0) = grid.shape_zyx, grid.spacing_mm, grid.origin_mm
    return Grid((1, n_y, n_x), (dz, dy, dx), (z_mm, y0, x0))


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
