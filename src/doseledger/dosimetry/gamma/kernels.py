"""Compiled gamma search: least γ² over the samples around each reference point.

Hot code gets arrays and tuples of numbers only: an array inside a tuple costs a locked reference
count at each access.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from doseledger.core.types import Array, Floats, Integers, IntTriple, Triple
from doseledger.dosimetry.gamma.samples import CHUNK, CellTable, SampleBlock

# Stands for "no sample yet": finite, since the fast-math flags below promise the compiler that no NaN occurs.
UNREACHED = 1e300

# Fewer samples than this are searched rather than bounded: a bound costs about as much as two dozen of them.
BOUND_SAMPLES = 24

# No "ninf": unlike NaN, very large values do occur. Reordering of sums costs 1e-15, and lets loops run as SIMD.
FAST = {"nnan", "nsz", "contract", "reassoc", "arcp"}


class Problem(NamedTuple):
    """Two doses on their grids, always three axes: missing leading axes have one voxel.

    `reference`, `evaluation` are flat, in C order; `axis0_mm` to `axis2_mm` the reference positions; `start_mm`,
    `stop_mm`, `spacing_mm` those of the evaluation grid; `stride` reference voxels in evaluation voxels where they are
    commensurate, else 0. `threshold_gy` is the global dose criterion; where it is 0, `local_fraction` of the point's
    own reference dose is the criterion. Points of less reference dose than `cutoff_gy` are left out.
    """

    reference: Array
    evaluation: Array
    axis0_mm: Floats
    axis1_mm: Floats
    axis2_mm: Floats
    reference_shape: IntTriple
    evaluation_shape: IntTriple
    start_mm: Triple
    stop_mm: Triple
    spacing_mm: Triple
    stride: IntTriple
    threshold_gy: float
    local_fraction: float
    cutoff_gy: float

    @property
    def axes_mm(self) -> tuple[Floats, Floats, Floats]:
        """The reference positions along each axis in mm."""
        return self.axis0_mm, self.axis1_mm, self.axis2_mm


@intrinsic
def least_of(_typing_context: Any, _left: Any, _right: Any) -> Any:
    """The smaller of two floats, as an instruction that the compiler turns into SIMD (numba's own min does not)."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        double = args[0].type
        function = builder.module.declare_intrinsic("llvm.minnum", [double], ir.FunctionType(double, [double, double]))
        return builder.call(function, args)

    return types.float64(types.float64, types.float64), codegen


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def search_cells(  # noqa: PLR0915  one hot loop: its arrays stay in local names
    points: Integers, best: Floats, problem: Problem, table: CellTable, stop_below: float
) -> None:
    """Lower `best`, the γ² of each point, by the samples of a cell table; in place.

    Parameters
    ----------
    points
        Flat indices of reference points.
    best
        (n_points,) the least γ² so far.
    table
        Samples by cell, nearest first.
    stop_below
        A point is finished once its γ² is at or below this; negative for the whole minimum.
    """
    reference, evaluation, size = problem.reference, problem.evaluation, problem.evaluation_shape
    cells, starts, counts, nearest_squared = table.cells, table.starts, table.counts, table.nearest_squared
    samples, n_shells = table.samples, table.counts.shape[1] - 1
    steps = flat_steps(size)
    centres, sigma = table.centres, table.sigma
    low = (cells[:, 0].min(), cells[:, 1].min(), cells[:, 2].min())
    high = (cells[:, 0].max(), cells[:, 1].max(), cells[:, 2].max())
    warm = 0
    for n in range(len(points)):
        # 1. the point: its dose, 1 / its criterion, and its voxel on the evaluation grid
        least = best[n]
        index = grid_index(points[n], problem.reference_shape)
        dose = np.float64(reference[points[n]])
        scale = dose_scale(problem.threshold_gy, problem.local_fraction, dose)
        home = (index[0] * problem.stride[0], index[1] * problem.stride[1], index[2] * problem.stride[2])
        interior = all_interior(home, low, high, size)
        # 2. cells nearest first, before them the neighbour's best: a low γ² early lets most others be skipped
        start, visit = warm, -1
        while visit < len(cells) and least > stop_below:
            cell = start if visit < 0 else visit
            visit += 1
            # 3. stop when no cell that is left can be closer
            if nearest_squared[cell] >= least:
                if visit == 0:
                    continue
                break
            # 4. a cell at or beyond the end of an axis: each sample is tested in mm
            place = (home[0] + cells[cell, 0], home[1] + cells[cell, 1], home[2] + cells[cell, 2])
            if not (interior or all_interior(place, (0, 0, 0), (0, 0, 0), size)):
                least = edge_cell_least(problem, table, cell, index, (dose, scale, least))
                continue
            # 5. skip a cell whose eight corners leave too large a difference
            terms, gap = cell_terms(evaluation, flat_index(place, steps), steps, dose, scale)
            if gap * gap + nearest_squared[cell] >= least:
                continue
            # 6. only the shells within reach count; one shell of margin, as gamma_mm itself can be a shell more than
            # the multiples of the step
            shells = np.sqrt(least - gap * gap) * table.shells_per_gamma + 2 - table.first_shell
            n_samples = counts[cell, n_shells if shells >= n_shells else np.int64(max(shells, 0.0))]
            # 7. skip a cell with many samples if the plane through its middle rules it out
            if n_samples > BOUND_SAMPLES:
                q = (centres[cell, 0], centres[cell, 1], centres[cell, 2])
                if _plane_bound(terms, q, sigma) >= least:
                    continue
            # 8. all samples that are left, a chunk at a time (SIMD)
            first = starts[cell] // CHUNK
            found = chunks_least(samples, (first, first + (n_samples + CHUNK - 1) // CHUNK), terms, least)
            if found < least:
                least = found
                warm = cell
        best[n] = least


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def search_samples(points: Integers, best: Floats, problem: Problem, block: SampleBlock, stop_below: float) -> None:
    """Lower `best`, the γ² of each point, one sample after the other, on grids of any two spacings; in place.

    Parameters are those of `search_cells`, with the samples ungrouped.
    """
    reference, evaluation, size = problem.reference, problem.evaluation, problem.evaluation_shape
    axis0_mm, axis1_mm, axis2_mm = problem.axis0_mm, problem.axis1_mm, problem.axis2_mm
    offsets_mm, distance_squared = block.offsets_mm, block.distance_squared
    steps = flat_steps(size)
    for n in range(len(points)):
        index = grid_index(points[n], problem.reference_shape)
        dose = np.float64(reference[points[n]])
        scale = dose_scale(problem.threshold_gy, problem.local_fraction, dose)
        least = best[n]
        for k in range(len(distance_squared)):
            if distance_squared[k] >= least or least <= stop_below:
                break
            x0 = axis0_mm[index[0]] + offsets_mm[0, k]
            x1 = axis1_mm[index[1]] + offsets_mm[1, k]
            x2 = axis2_mm[index[2]] + offsets_mm[2, k]
            if _is_inside((x0, x1, x2), problem.start_mm, problem.stop_mm):
                c0, f0 = _cell_fraction((x0 - problem.start_mm[0]) / problem.spacing_mm[0], size[0])
                c1, f1 = _cell_fraction((x1 - problem.start_mm[1]) / problem.spacing_mm[1], size[1])
                c2, f2 = _cell_fraction((x2 - problem.start_mm[2]) / problem.spacing_mm[2], size[2])
                dose_here = _trilinear(evaluation, flat_index((c0, c1, c2), steps), steps, (f0, f1, f2))
                difference = (dose_here - dose) * scale
                least = min(least, difference * difference + distance_squared[k])
        best[n] = least


@numba.njit(cache=True, nogil=True)
def flat_steps(shape: IntTriple) -> IntTriple:
    """Flat distance between neighbours along each axis; 0 on a missing axis, so that both corners are one voxel."""
    return shape[1] * shape[2] * (shape[0] > 1), shape[2] * (shape[1] > 1), 1 * (shape[2] > 1)


@numba.njit(cache=True, nogil=True, forceinline=True)
def dose_scale(threshold_gy: float, local_fraction: float, dose: float) -> float:
    """1 / the dose criterion in Gy at a point."""
    return 1.0 / (threshold_gy if threshold_gy > 0 else local_fraction * abs(dose))


@numba.njit(cache=True, nogil=True, forceinline=True)
def grid_index(point: int, shape: IntTriple) -> IntTriple:
    """Index along the three axes of a flat index."""
    row = point // shape[2]
    plane = row // shape[1]
    return plane, row - plane * shape[1], point - row * shape[2]


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def chunks_least(samples: Floats, chunks: tuple[int, int], terms: Any, least: float) -> float:
    """The least γ² over a cell's samples from one chunk up to another, all of them inside the grid, or `least`."""
    # An unsigned index can't be negative, which would stop the loop from running as SIMD.
    start = np.uint64(chunks[0] * CHUNK)
    for k in range((chunks[1] - chunks[0]) * CHUNK):
        i = start + np.uint64(k)
        f0, f1, f2 = samples[0, i], samples[1, i], samples[2, i]
        difference = (terms[0] + terms[1] * f2) + f1 * (terms[2] + terms[3] * f2)
        difference += f0 * ((terms[4] + terms[5] * f2) + f1 * (terms[6] + terms[7] * f2))
        least = least_of(least, difference * difference + samples[3, i])
    return least


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def sample_least(samples: Floats, sample: int, terms: Any, least: float) -> float:
    """γ² of one sample, or `least`."""
    i = np.uint64(sample)
    f0, f1, f2 = samples[0, i], samples[1, i], samples[2, i]
    difference = (terms[0] + terms[1] * f2) + f1 * (terms[2] + terms[3] * f2)
    difference += f0 * ((terms[4] + terms[5] * f2) + f1 * (terms[6] + terms[7] * f2))
    return least_of(least, difference * difference + samples[3, i])


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def edge_cell_least(problem: Problem, table: CellTable, cell: int, index: IntTriple, bounds: Triple) -> float:
    """The least γ² over a cell that meets or leaves the end of an axis, or the least so far.

    `index` is that of the reference point, `bounds` its dose, 1 / its criterion and the least so far.
    """
    dose, scale, least = bounds
    size, stride, steps = problem.evaluation_shape, problem.stride, flat_steps(problem.evaluation_shape)
    cells, counts = table.cells, table.counts
    place, shift = _onto_grid(
        (
            index[0] * stride[0] + cells[cell, 0],
            index[1] * stride[1] + cells[cell, 1],
            index[2] * stride[2] + cells[cell, 2],
        ),
        size,
    )
    # More than a cell outside: not even rounding brings a sample in.
    if max(abs(shift[0]), abs(shift[1]), abs(shift[2])) > 1:
        return least
    terms, gap = cell_terms(problem.evaluation, flat_index(place, steps), steps, dose, scale)
    if gap * gap + table.nearest_squared[cell] >= least:
        return least
    n_shells = counts.shape[1] - 1
    shells = np.sqrt(least - gap * gap) * table.shells_per_gamma + 2 - table.first_shell
    n_samples = counts[cell, n_shells if shells >= n_shells else np.int64(max(shells, 0.0))]
    position_mm = (problem.axis0_mm[index[0]], problem.axis1_mm[index[1]], problem.axis2_mm[index[2]])
    mm = (position_mm, problem.start_mm, problem.stop_mm)
    return _edge_samples_least(table.samples, (table.starts[cell], n_samples), terms, least, shift, mm)


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _edge_samples_least(
    samples: Floats, span: tuple[int, int], terms: Any, least: float, shift: IntTriple, mm: tuple[Triple, ...]
) -> float:
    """As `_samples_least`, where samples may fall outside the grid: each is tested as pymedphys does, in mm."""
    position_mm, start_mm, stop_mm = mm
    for k in range(span[0], span[0] + span[1]):
        x0, x1, x2 = position_mm[0] + samples[4, k], position_mm[1] + samples[5, k], position_mm[2] + samples[6, k]
        if _is_inside((x0, x1, x2), start_mm, stop_mm):
            f0, f1, f2 = samples[0, k] + shift[0], samples[1, k] + shift[1], samples[2, k] + shift[2]
            difference = (terms[0] + terms[1] * f2) + f1 * (terms[2] + terms[3] * f2)
            difference += f0 * ((terms[4] + terms[5] * f2) + f1 * (terms[6] + terms[7] * f2))
            least = min(least, difference * difference + samples[3, k])
    return least


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def cell_terms(evaluation: Array, corner: int, steps: IntTriple, dose: float, scale: float) -> Any:
    """Trilinear polynomial of (evaluation - dose) * scale in a cell, and its least absolute value there."""
    s0, s1, s2 = steps
    e000 = (np.float64(evaluation[corner]) - dose) * scale
    e001 = (np.float64(evaluation[corner + s2]) - dose) * scale
    e010 = (np.float64(evaluation[corner + s1]) - dose) * scale
    e011 = (np.float64(evaluation[corner + s1 + s2]) - dose) * scale
    e100 = (np.float64(evaluation[corner + s0]) - dose) * scale
    e101 = (np.float64(evaluation[corner + s0 + s2]) - dose) * scale
    e110 = (np.float64(evaluation[corner + s0 + s1]) - dose) * scale
    e111 = (np.float64(evaluation[corner + s0 + s1 + s2]) - dose) * scale
    low = least_of(least_of(least_of(e000, e001), least_of(e010, e011)), least_of(e100, e101))
    low = least_of(low, least_of(e110, e111))
    less = least_of(least_of(least_of(-e000, -e001), least_of(-e010, -e011)), least_of(-e100, -e101))
    less = least_of(less, least_of(-e110, -e111))
    p00, p01, p10, p11 = e000 + e001, e010 + e011, e100 + e101, e110 + e111
    m00, m01, m10, m11 = e001 - e000, e011 - e010, e101 - e100, e111 - e110
    pp0, pm0, pp1, pm1 = p00 + p01, p01 - p00, p10 + p11, p11 - p10
    mp0, mm0, mp1, mm1 = m00 + m01, m01 - m00, m10 + m11, m11 - m10
    terms = (
        (pp0 + pp1) * 0.125, (mp0 + mp1) * 0.25, (pm0 + pm1) * 0.25, (mm0 + mm1) * 0.5,
        (pp1 - pp0) * 0.25, (mp1 - mp0) * 0.5, (pm1 - pm0) * 0.5, mm1 - mm0,
    )  # fmt: skip
    return terms, max(low, less, 0.0)


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _plane_bound(terms: Any, q: Triple, sigma: Triple) -> float:
    """Lower bound of γ² in a cell, from the plane through its middle and the most that the dose strays from it.

    For any λ ≥ 0, D² + d² ≥ 2λD - λ² + d², whose minimum over the cell is found axis by axis.
    """
    stray = (abs(terms[3]) + abs(terms[5]) + abs(terms[6])) * 0.25 + abs(terms[7]) * 0.125
    at_point = terms[0] + terms[4] * q[0] + terms[2] * q[1] + terms[1] * q[2]
    rest = abs(at_point) - stray
    if rest <= 0.0:
        return 0.0
    sign = 1.0 if at_point > 0 else -1.0
    w0, w1, w2 = 1.0 / (sigma[0] * sigma[0]), 1.0 / (sigma[1] * sigma[1]), 1.0 / (sigma[2] * sigma[2])
    g0, g1, g2 = sign * terms[4], sign * terms[2], sign * terms[1]
    multiplier = rest / (1.0 + g0 * g0 * w0 + g1 * g1 * w1 + g2 * g2 * w2)
    u0 = max(-0.5, min(0.5, q[0] - multiplier * g0 * w0))
    u1 = max(-0.5, min(0.5, q[1] - multiplier * g1 * w1))
    u2 = max(-0.5, min(0.5, q[2] - multiplier * g2 * w2))
    d0, d1, d2 = (u0 - q[0]) * sigma[0], (u1 - q[1]) * sigma[1], (u2 - q[2]) * sigma[2]
    difference = sign * terms[0] + g0 * u0 + g1 * u1 + g2 * u2 - stray
    return multiplier * (2.0 * difference - multiplier) + d0 * d0 + d1 * d1 + d2 * d2


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _trilinear(evaluation: Array, corner: int, steps: IntTriple, fractions: Triple) -> float:
    """Trilinear dose at fractions of the cell at `corner`."""
    s0, s1, s2 = steps
    f0, f1, f2 = fractions
    g0, g1, g2 = 1 - f0, 1 - f1, 1 - f2
    near = (evaluation[corner] * g2 + evaluation[corner + s2] * f2) * g1
    near += (evaluation[corner + s1] * g2 + evaluation[corner + s1 + s2] * f2) * f1
    corner += s0
    far = (evaluation[corner] * g2 + evaluation[corner + s2] * f2) * g1
    far += (evaluation[corner + s1] * g2 + evaluation[corner + s1 + s2] * f2) * f1
    return near * g0 + far * f0


@numba.njit(cache=True, nogil=True, forceinline=True)
def flat_index(index: IntTriple, steps: IntTriple) -> int:
    """Flat index of a voxel."""
    return index[0] * steps[0] + index[1] * steps[1] + index[2] * steps[2]


@numba.njit(cache=True, nogil=True, forceinline=True)
def all_interior(home: IntTriple, low: IntTriple, high: IntTriple, size: IntTriple) -> bool:
    """Whether all cells from home + low to home + high keep a cell's distance from the ends of every axis."""
    return (
        (size[0] == 1 or (home[0] + low[0] >= 1 and home[0] + high[0] <= size[0] - 3))
        and (size[1] == 1 or (home[1] + low[1] >= 1 and home[1] + high[1] <= size[1] - 3))
        and (size[2] == 1 or (home[2] + low[2] >= 1 and home[2] + high[2] <= size[2] - 3))
    )


@numba.njit(cache=True, nogil=True, forceinline=True)
def _is_inside(x_mm: Triple, start_mm: Triple, stop_mm: Triple) -> bool:
    """Whether a position in mm lies on the evaluation grid, its ends included."""
    return (
        start_mm[0] <= x_mm[0] <= stop_mm[0]
        and start_mm[1] <= x_mm[1] <= stop_mm[1]
        and start_mm[2] <= x_mm[2] <= stop_mm[2]
    )


@numba.njit(cache=True, nogil=True, forceinline=True)
def _onto_grid(cell: IntTriple, size: IntTriple) -> tuple[IntTriple, IntTriple]:
    """The nearest cell on the grid, and how many cells further `cell` is along each axis."""
    c0 = max(0, min(cell[0], size[0] - 2))
    c1 = max(0, min(cell[1], size[1] - 2))
    c2 = max(0, min(cell[2], size[2] - 2))
    return (c0, c1, c2), (cell[0] - c0, cell[1] - c1, cell[2] - c2)


@numba.njit(cache=True, nogil=True, forceinline=True)
def _cell_fraction(position: float, size: int) -> tuple[Any, float]:
    """Cell and fraction of a position in voxels on one axis."""
    cell = np.floor(max(0.0, min(position, size - 2.0)))
    return np.int64(cell), position - cell
