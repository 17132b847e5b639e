"""Dose samples of a structure of slabs, along scan lines that end at its contours.

However large the structure, its coldest and hottest point are where a trilinear dose has them, not among samples, and
the hottest part is sampled densely enough for D0.03cc.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.types import Array, Floats, Integers, Mask
from doseledger.dosimetry.dvh.slabs import Slabs, Solid, crossings, extremes, span
from doseledger.dosimetry.dvh.statistics import SampledDose, StructureDose
from doseledger.dosimetry.dvh.subvoxel import trilinear

# Lines per slab of the first, rough look at a structure's volume.
ROUGH_LINES = 64
# Inverses of the golden ratio and of the plastic number: additive recurrences of low discrepancy, as in `subvoxel`.
STEP_LINE, STEP_Z = (math.sqrt(5.0) - 1.0) / 2.0, 0.7548776662466927
# The smallest volume that clinics ask a dose of (D0.03cc), and how many points it needs: at 1 Gy/mm its dose is then
# good to 0.06 Gy, however large the structure.
SMALLEST_CC, POINTS_IN_SMALLEST = 0.03, 100
# Points of the first pass that make its hot end, which is sampled again; and the most points of that second pass.
N_HOT, MOST_POINTS = 1000, 1_000_000
# A hot end this flat needs no second look.
FLAT_GY = 0.02


def slab_dose(dose_gy: Array, grid: Grid, slabs: Slabs, n_points: int) -> SampledDose:
    """Return the dose of a structure of slabs at about `n_points` points, its coldest and hottest point among them.

    Parameters
    ----------
    dose_gy
        Dose in Gy, (z, y, x) of `grid`, interpolated trilinearly.
    n_points
        Points in the structure, about. Where they are too sparse for D0.03cc its hot end gets more, of less weight.

    Raises
    ------
    BadInput
        If the dose does not fit its grid, or is not finite in the structure.

    Notes
    -----
    A dose voxel extends half its size beyond its centre, at the grid's edges too. What lies farther out has no dose:
    its volume is returned, not guessed. A trilinear function is linear between neighbouring values along each axis, so
    on a solid of slabs its extremes lie at the grid's own points inside it, or on the slabs' rims, above, below or
    where a plane of the grid cuts them.
    """
    if dose_gy.shape != grid.shape_zyx:
        raise BadInput(f"the dose has {dose_gy.shape} voxels, its grid {grid.shape_zyx}")
    dose = np.ascontiguousarray(dose_gy)
    solid = slabs.in_voxels(grid)
    voxel_cc = grid.voxel_volume_cc
    slabs_of = zip(solid.starts[:-1], solid.starts[1:], solid.thickness, strict=True)
    volume = float(sum(thick * _area(solid.edges[a:b], ROUGH_LINES) for a, b, thick in slabs_of))
    if volume <= 0:
        return SampledDose(StructureDose(np.empty(0, dtype=np.float32), None, voxel_cc), 0.0)
    point = volume / n_points
    everywhere = np.ones((1, 1, 1), dtype=np.bool_)
    found, n_outside = _sample(dose, solid, point, everywhere, -np.inf)
    outside_cc = n_outside * point * voxel_cc
    if not np.all(np.isfinite(found)):
        raise BadInput(f"the dose is not finite at {int((~np.isfinite(found)).sum())} points of the structure")
    if len(found) == 0:
        return SampledDose(StructureDose(found, None, point * voxel_cc), outside_cc)
    found.sort()
    lowest, highest = extremes(dose, solid)
    samples = _with_hot_end(dose, solid, StructureDose(found, None, point * voxel_cc), voxel_cc, highest)
    # A sample more or less does not count in the volume, but the two ends do as minimum and maximum.
    samples.dose_gy[0], samples.dose_gy[-1] = min(lowest, found[0]), max(highest, samples.dose_gy[-1])
    return SampledDose(samples, outside_cc)


def _with_hot_end(dose: Array, solid: Solid, samples: StructureDose, voxel_cc: float, highest: float) -> StructureDose:
    """Return the samples with their hot end taken anew and denser, where the smallest volume needs it."""
    wanted_cc, first_cc = SMALLEST_CC / POINTS_IN_SMALLEST, samples.voxel_volume_cc
    found = samples.dose_gy
    # Twice as many points would change little.
    if first_cc <= 2.0 * wanted_cc or len(found) <= N_HOT:
        return samples
    level = float(found[-N_HOT])
    if highest - level < FLAT_GY:
        return samples
    hot = _hot_cells(dose, level)
    # How much of the structure lies in those cells is told by fewer points.
    near, _ = _sample(dose, solid, 8.0 * first_cc / voxel_cc, hot, -math.inf)
    point_cc = max(wanted_cc, 8.0 * first_cc * len(near) / MOST_POINTS)
    if point_cc >= first_cc:
        return samples
    denser, _ = _sample(dose, solid, point_cc / voxel_cc, hot, level)
    if len(denser) == 0:
        return samples
    cold = found[: np.searchsorted(found, level)]
    weights = np.concatenate([np.ones(len(cold)), np.full(len(denser), point_cc / first_cc)])
    return StructureDose(np.concatenate([cold, np.sort(denser)]), weights, first_cc)


@njit(cache=True)
def _hot_cells(dose: Array, level: float) -> Mask:
    """Return which cells between neighbouring voxel centres reach a dose, the halves beyond the outermost included."""
    nz, ny, nx = dose.shape
    hot = np.zeros((nz + 1, ny + 1, nx + 1), dtype=np.bool_)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if dose[z, y, x] >= level:
                    hot[z : z + 2, y : y + 2, x : x + 2] = True
    return hot


@njit(cache=True)
def _area(edges: Floats, n_lines: int) -> float:
    """Return the area within contours, about."""
    low, high = span(edges)
    found = np.empty(edges.shape[0])
    step, length = (high - low) / n_lines, 0.0
    for line in range(n_lines):
        n = crossings(edges, low + (line + 0.5) * step, found)
        for i in range(0, n - 1, 2):
            length += found[i + 1] - found[i]
    return length * step if edges.shape[0] else 0.0


@njit(cache=True)
def _sample(dose: Array, solid: Solid, point: float, hot: Mask, level: float) -> tuple[Floats, int]:
    """Return the dose of at least `level` at points that stand for `point` voxels each, and how many have no dose.

    Lines fill each slab, and points follow one another along the inside of the lines, each at a height of its own.
    Where `hot` has more than one cell, only the points in those that are hot are looked at.
    """
    found, counts = np.empty(65536), np.zeros(2, dtype=np.int64)
    shift, state = 0.5, np.array([0.0, 0.5])
    for k in range(solid.z.size):
        # 1. a slab: its contours, and the hot cells that it reaches
        edges = solid.edges[solid.starts[k] : solid.starts[k + 1]]
        thickness = solid.thickness[k]
        # 2. lines and points are as far from one another, in voxels
        step = math.sqrt(point / thickness)
        bottom = solid.z[k] - thickness / 2.0
        columns = _hot_columns(hot, bottom, bottom + thickness)
        shift = (shift + STEP_LINE) % 1.0
        low, high = span(edges)
        ends, state[0] = np.empty(edges.shape[0]), step / 2.0
        for line in range(math.ceil((high - low) / step - shift) if edges.shape[0] else 0):
            # 3. a line: where it enters and leaves the contours
            y = low + (line + shift) * step
            row = columns[_cell(y, columns.shape[0])]
            n = crossings(edges, y, ends) if np.any(row) else 0
            if n == 0:
                continue
            # 4. room for its points, then their doses
            most = counts[0] + int((ends[n - 1] - ends[0]) / step) + n
            if most > found.size:
                found = np.concatenate((found, np.empty(most)))
            line_at = (bottom, thickness, y, step, level)
            _sample_line(dose, line_at, ends[:n], state, (hot, row), (found, counts))
    return found[: counts[0]].copy(), counts[1]


# One call a line and no array made in it: counting references to arrays would cost more than the dose itself.
@njit(cache=True)
def _sample_line(
    dose: Array,
    line_at: tuple[float, float, float, float, float],
    ends: Floats,
    state: Floats,
    cells: tuple[Mask, Mask],
    into: tuple[Floats, Integers],
) -> None:
    """Append the dose along the inside of a line to `into`: doses, and the counts of points with a dose and without.

    `line_at`: bottom and thickness of the slab, y, step, and the least dose that is wanted. `state`: how far ahead the
    next point is, and its height within the slab. `cells`: which are hot, all of them and those along the line.
    """
    bottom, thickness, y, step, level = line_at
    (hot, row), (found, counts) = cells, into
    nz, ny, nx = dose.shape
    off = y < -0.5 - 1e-6 or y > ny - 0.5 + 1e-6
    everywhere, rows = hot.size == 1, _cell(y, ny + 1)
    n, n_outside, (ahead, u) = counts[0], counts[1], (state[0], state[1])
    for i in range(0, ends.size - 1, 2):
        x = ends[i] + ahead
        while x < ends[i + 1]:
            # 1. leap over columns that are not hot, to the first point of the next cell
            here = x
            if not everywhere and not row[_cell(x, nx + 1)]:
                x += step * max(math.ceil((math.floor(x) + 1.0 - x) / step), 1)
                continue
            # 2. the point's height within the slab, of low discrepancy
            x += step
            u += STEP_Z
            u -= int(u >= 1.0)
            z = bottom + u * thickness
            # 3. count what the dose grid does not reach; leave out cells that are not hot
            if off or min(z, here) < -0.5 - 1e-6 or max(z - nz, here - nx) > -0.5 + 1e-6:
                n_outside += 1
                continue
            if not everywhere and not hot[_cell(z, nz + 1), rows, _cell(here, nx + 1)]:
                continue
            # 4. keep the dose if it is high enough; NaN is kept too, for the caller to name
            value = trilinear(dose, z, y, here)
            if not value < level:
                found[n] = value
                n += 1
        # A leap may have gone farther than one step beyond the end.
        ahead = (x - ends[i + 1]) % step
    counts[0], counts[1], state[0], state[1] = n, n_outside, ahead, u


@njit(cache=True)
def _hot_columns(hot: Mask, bottom: float, top: float) -> Mask:
    """Return which cells of the plane, (y, x), have a hot one between two heights."""
    columns = np.zeros(hot.shape[1:], dtype=np.bool_)
    for layer in range(_cell(bottom, hot.shape[0]), _cell(top, hot.shape[0]) + 1):
        columns |= hot[layer]
    return columns


@njit(cache=True, inline="always")
def _cell(index: float, n: int) -> int:
    """Return which of n cells along an axis an index lies in: the first one ends at index 0, the last at n - 1."""
    return min(max(math.floor(index) + 1, 0), n - 1)
