"""A structure as slabs on a dose: contours of one plane each, extruded to their neighbours.

Nothing is put on a grid: a slab keeps its area and its rim to the last digit, however large the structure is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.core.grid import Grid
from doseledger.core.planes import TINY_MM
from doseledger.dosimetry.dvh.subvoxel import trilinear

Floats = NDArray[np.float64]


class Solid(NamedTuple):
    """Slabs in indices of a dose grid: z and thickness of each, edges as x, y, x, y, and where each slab's begin."""

    z: Floats
    thickness: Floats
    edges: Floats
    starts: NDArray[np.intp]


@dataclass(frozen=True)
class Slabs:
    """A structure as slabs.

    Parameters
    ----------
    z_mm
        Middle of each slab, (slab,).
    thickness_mm
        Of each slab, (slab,).
    edges_mm
        Edges of the contours as x, y of their two ends, (edge, 4), one slab after another; inside is even-odd.
    starts
        First edge of each slab, and the number of edges, (slab + 1,).
    """

    z_mm: Floats
    thickness_mm: Floats
    edges_mm: Floats
    starts: NDArray[np.intp]

    def in_voxels(self, grid: Grid) -> Solid:
        """Return the slabs in indices of a grid."""
        origin, spacing = np.asarray(grid.origin_mm), np.asarray(grid.spacing_mm)
        plane = [2, 1, 2, 1]
        edges = np.ascontiguousarray((self.edges_mm - origin[plane]) / spacing[plane])
        z = (self.z_mm - origin[0]) / spacing[0]
        return Solid(z, self.thickness_mm / spacing[0], edges, self.starts)

    def cut(self, axis: int, position_mm: float) -> Slabs:
        """Return the structure's cut with a plane, as a sheet of it 1 mm thick: its volume in mm³ is the area in mm².

        Parameters
        ----------
        axis
            The one that the plane is normal to: 0, 1, 2 for z, y, x.
        position_mm
            Of the plane on that axis.
        """
        slabs = [self.edges_mm[a:b] for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]
        if axis == 0:
            # The nearest alone: between two slabs neither both nor none, whatever their heights were rounded to.
            beyond = np.abs(self.z_mm - position_mm) - self.thickness_mm / 2.0
            nearest = int(np.argmin(beyond)) if len(beyond) else 0
            met = slabs[nearest : nearest + 1] if np.any(beyond <= TINY_MM) else []
            starts = np.cumsum([0, *(len(edges) for edges in met)])
            edges_mm = np.concatenate(met) if met else np.empty((0, 4))
            return Slabs(np.full(len(met), position_mm), np.ones(len(met)), edges_mm, starts.astype(np.intp))
        # Edges as along, across: the cut of a slab is one rectangle for each run within its contours.
        order = [0, 1, 2, 3] if axis == 1 else [1, 0, 3, 2]
        layers = []
        for z, edges in zip(self.z_mm.tolist(), slabs, strict=True):
            found = np.empty(len(edges))
            n = crossings(np.ascontiguousarray(edges[:, order]), position_mm, found)
            layers.append((z, [_sheet(found[i : i + 2], position_mm, axis) for i in range(0, n - 1, 2)]))
        return make_slabs(layers, self.thickness_mm)


def make_slabs(layers: list[tuple[float, list[Floats]]], thickness_mm: float | Floats) -> Slabs:
    """Return slabs of closed contours.

    Parameters
    ----------
    layers
        Of each slab its middle z in mm and its contours, each (n, 2) of x, y in mm.
    thickness_mm
        Of every slab, or of each, (slab,).
    """
    edges = [[np.hstack([points, np.roll(points, -1, axis=0)]) for points in contours] for _, contours in layers]
    joined = [np.concatenate(parts) if parts else np.empty((0, 4)) for parts in edges]
    starts = np.cumsum([0, *(len(part) for part in joined)])
    flat = np.concatenate(joined) if joined else np.empty((0, 4))
    z_mm = np.array([z for z, _ in layers], dtype=np.float64)
    thick_mm = np.array(np.broadcast_to(thickness_mm, z_mm.shape), dtype=np.float64)
    return Slabs(z_mm, thick_mm, flat, starts.astype(np.intp))


def _sheet(ends: Floats, position_mm: float, axis: int) -> Floats:
    """Return a rectangle of x, y in mm: from one end to the other along the plane, half a mm to either side of it."""
    (first, last), low, high = ends, position_mm - 0.5, position_mm + 0.5
    box = np.array([[first, low], [last, low], [last, high], [first, high]])
    return box if axis == 1 else box[:, ::-1]


@njit(cache=True)
def crossings(edges: Floats, y: float, found: Floats) -> int:
    """Write, rising, where a line along x crosses contours; return how often. An edge owns its lower end."""
    n = 0
    for e in range(edges.shape[0]):
        x0, y0, x1, y1 = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        if (y0 <= y) == (y1 <= y):
            continue
        x = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        place = n
        while place > 0 and found[place - 1] > x:
            found[place] = found[place - 1]
            place -= 1
        found[place] = x
        n += 1
    return n


@njit(cache=True)
def span(edges: Floats) -> tuple[float, float]:
    """Return the lowest and the highest y of contours."""
    low, high = np.inf, -np.inf
    for e in range(edges.shape[0]):
        low, high = min(low, edges[e, 1]), max(high, edges[e, 1])
    return low, high


@njit(cache=True)
def extremes(dose: NDArray[Any], solid: Solid) -> tuple[float, float]:
    """Return the least and the highest dose in a solid: infinite and minus infinite where the dose reaches none of it.

    Parameters
    ----------
    dose
        (z, y, x), interpolated trilinearly and held constant for half a voxel beyond the outermost centres.
    solid
        In indices of that grid.

    Notes
    -----
    A trilinear function is linear along each axis between neighbouring values. So on slabs its extremes lie above or
    below the grid's own points inside, or on the rim: where an edge begins or crosses from one cell to the next.
    Between those, along an edge askew to the axes, it is quadratic: half a cell is looked at as well.
    """
    nz, ny, nx = dose.shape
    ends = np.array([np.inf, -np.inf])
    for k in range(solid.z.size):
        bottom = max(solid.z[k] - solid.thickness[k] / 2.0, -0.5)
        top = min(solid.z[k] + solid.thickness[k] / 2.0, nz - 0.5)
        edges = solid.edges[solid.starts[k] : solid.starts[k + 1]]
        if edges.shape[0] == 0 or bottom > top:
            continue
        # Where dose changes its slope along z, and the two faces.
        inner = np.arange(math.floor(bottom) + 1.0, math.ceil(top))
        heights = np.concatenate((np.array([bottom, top]), inner))
        for e in range(edges.shape[0]):
            _look_along(dose, heights, edges[e], ends)
        low, high = span(edges)
        found = np.empty(edges.shape[0])
        for y in range(max(math.ceil(low), 0), min(math.floor(high), ny - 1) + 1):
            n = crossings(edges, float(y), found)
            for i in range(0, n - 1, 2):
                for x in range(max(math.ceil(found[i]), 0), min(math.floor(found[i + 1]), nx - 1) + 1):
                    _look_at_point(dose, heights, y, x, ends)
    return ends[0], ends[1]


@njit(cache=True)
def _look_along(dose: NDArray[Any], heights: Floats, edge: Floats, ends: Floats) -> None:
    """Widen `ends` by the dose along an edge: its start, each half cell, and where it crosses from cell to cell."""
    dx, dy = edge[2] - edge[0], edge[3] - edge[1]
    n = math.ceil(2.0 * max(abs(dx), abs(dy)))
    for j in range(max(n, 1)):
        _look(dose, heights, edge[1] + dy * j / max(n, 1), edge[0] + dx * j / max(n, 1), ends)
    for axis in range(2):
        first, second = min(edge[axis], edge[axis + 2]), max(edge[axis], edge[axis + 2])
        for line in range(math.ceil(first), math.ceil(second)):
            t = (line - edge[axis]) / (edge[axis + 2] - edge[axis])
            _look(dose, heights, edge[1] + dy * t, edge[0] + dx * t, ends)


@njit(cache=True)
def _look(dose: NDArray[Any], heights: Floats, y: float, x: float, ends: Floats) -> None:
    """Widen `ends` by the dose at heights above a point of the plane, if the dose reaches it."""
    if min(y, x) < -0.5 - 1e-6 or max(y - dose.shape[1], x - dose.shape[2]) > -0.5 + 1e-6:
        return
    for z in heights:
        value = trilinear(dose, z, y, x)
        ends[0], ends[1] = min(ends[0], value), max(ends[1], value)


@njit(cache=True)
def _look_at_point(dose: NDArray[Any], heights: Floats, y: int, x: int, ends: Floats) -> None:
    """Widen `ends` by the dose at heights above a point of the grid: its own planes' values as they stand."""
    for h in range(heights.size):
        z = min(max(heights[h], 0.0), dose.shape[0] - 1.0)
        below = int(z)
        first = float(dose[below, y, x])
        second = float(dose[min(below + 1, dose.shape[0] - 1), y, x]) if h < 2 else first
        # Most faces lie between values that are neither colder nor hotter than what is known.
        if min(first, second) < ends[0] or max(first, second) > ends[1]:
            value = first + (z - below) * (second - first)
            ends[0], ends[1] = min(ends[0], value), max(ends[1], value)
