"""The compiled search of gamma: the least γ² over the samples around each reference point."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from doseledger.evaluate.gamma_samples import CellTable, FloatArray, IndexArray, SampleBlock

# Stands for "no sample yet": finite, since the fast-math flags below promise the compiler that no NaN occurs.
UNREACHED = 1e300

# No "ninf": unlike NaN, very large values do occur. Reordering of sums costs 1e-15, and lets loops run as SIMD.
FAST = {"nnan", "nsz", "contract", "reassoc", "arcp"}


class Problem(NamedTuple):
    """Two doses on their grids, always three axes: missing leading axes have one voxel.

    `reference`, `evaluation` are flat, in C order; `axis0_mm` to `axis2_mm` the reference positions; `start_mm`,
    `stop_mm`, `spacing_mm` (3,) those of the evaluation grid; `stride` (3,) reference voxels in evaluation voxels where
    they are commensurate, else 0. `threshold_gy` is the global dose criterion; where it is 0, `local_fraction` of the
    point's own reference dose is the criterion.
    """

    reference: NDArray[Any]
    evaluation: NDArray[Any]
    axis0_mm: FloatArray
    axis1_mm: FloatArray
    axis2_mm: FloatArray
    reference_shape: IndexArray
    evaluation_shape: IndexArray
    start_mm: FloatArray
    stop_mm: FloatArray
    spacing_mm: FloatArray
    stride: IndexArray
    threshold_gy: float
    local_fraction: float


class _Probe(NamedTuple):
    """A reference point: grid index, dose and 1 / dose criterion, and where its voxel lies in the evaluation array."""

    i0: int
    i1: int
    i2: int
    dose: float
    scale: float
    origin: int


@intrinsic
def _least(_typing_context: Any, _left: Any, _right: Any) -> Any:
    """The smaller of two floats, as an instruction that the compiler turns into SIMD (numba's own min does not)."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        double = args[0].type
        function = builder.module.declare_intrinsic("llvm.minnum", [double], ir.FunctionType(double, [double, double]))
        return builder.call(function, args)

    return types.float64(types.float64, types.float64), codegen


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def search_cells(points: IndexArray, best: FloatArray, problem: Problem, table: CellTable, stop_below: float) -> None:
    """Lower `best`, the γ² of each point, by the samples of a cell table; in place.

    Parameters
    ----------
    points
        Flat indices of reference points.
    best
        (n_points,) the least γ² so far.
    problem
        The two doses, on commensurate grids.
    table
        Samples by cell, nearest first.
    stop_below
        A point is finished once its γ² is at or below this; negative for the whole minimum.
    """
    s0, s1, s2 = _steps(problem.evaluation_shape)
    low0, low1, low2 = table.cells[:, 0].min(), table.cells[:, 1].min(), table.cells[:, 2].min()
    high0, high1, high2 = table.cells[:, 0].max(), table.cells[:, 1].max(), table.cells[:, 2].max()
    warm = 0
    for n in range(len(points)):
        probe = _probe(problem, points[n], s0, s1, s2)
        interior = (
            _is_interior(probe.i0 * problem.stride[0], low0, high0, problem.evaluation_shape[0])
            and _is_interior(probe.i1 * problem.stride[1], low1, high1, problem.evaluation_shape[1])
            and _is_interior(probe.i2 * problem.stride[2], low2, high2, problem.evaluation_shape[2])
        )
        least = best[n]
        # The neighbour's best cell is tried first: a low γ² early lets most other cells be skipped.
        start = warm
        for visit in range(-1, len(table.cells)):
            cell = start if visit < 0 else visit
            if table.nearest_squared[cell] >= least:
                if visit < 0:
                    continue
                break
            found = (
                _cell_least(problem, table, probe, cell, least)
                if interior
                else _edge_least(problem, table, probe, cell, least)
            )
            if found < least:
                least = found
                warm = cell
                if least <= stop_below:
                    break
        best[n] = least


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def search_samples(
    points: IndexArray, best: FloatArray, problem: Problem, block: SampleBlock, stop_below: float
) -> None:
    """Lower `best`, the γ² of each point, one sample after the other, on grids of any two spacings; in place.

    Parameters are those of `search_cells`, with the samples ungrouped.
    """
    s0, s1, s2 = _steps(problem.evaluation_shape)
    for n in range(len(points)):
        probe = _probe(problem, points[n], s0, s1, s2)
        least = best[n]
        for k in range(len(block.distance_squared)):
            if block.distance_squared[k] >= least or least <= stop_below:
                break
            x0 = problem.axis0_mm[probe.i0] + block.offsets_mm[0, k]
            x1 = problem.axis1_mm[probe.i1] + block.offsets_mm[1, k]
            x2 = problem.axis2_mm[probe.i2] + block.offsets_mm[2, k]
            if _is_inside(problem, x0, x1, x2):
                c0, f0 = _place(problem, 0, x0)
                c1, f1 = _place(problem, 1, x1)
                c2, f2 = _place(problem, 2, x2)
                corner = c0 * s0 + c1 * s1 + c2 * s2
                difference = (
                    _trilinear(problem.evaluation, corner, (s0, s1, s2), (f0, f1, f2)) - probe.dose
                ) * probe.scale
                least = min(least, difference * difference + block.distance_squared[k])
        best[n] = least


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _cell_least(problem: Problem, table: CellTable, probe: _Probe, cell: int, least: float) -> float:
    """The least γ² of one cell that lies inside the grid with all its samples, or `least`."""
    s0, s1, s2 = _steps(problem.evaluation_shape)
    corner = probe.origin + table.cells[cell, 0] * s0 + table.cells[cell, 1] * s1 + table.cells[cell, 2] * s2
    c = _coefficients(problem.evaluation, corner, s0, s1, s2, probe)
    if c[8] * c[8] + table.nearest_squared[cell] >= least:
        return least
    start = table.starts[cell]
    count = _count(table, cell, least)
    # Slices from 0 keep the loop free of negative indices, which would stop it from running as SIMD.
    f0 = table.fractions[0, start : start + count]
    f1 = table.fractions[1, start : start + count]
    f2 = table.fractions[2, start : start + count]
    distance = table.distance_squared[start : start + count]
    for k in range(count):
        difference = (c[0] + c[1] * f2[k]) + f1[k] * (c[2] + c[3] * f2[k])
        difference += f0[k] * ((c[4] + c[5] * f2[k]) + f1[k] * (c[6] + c[7] * f2[k]))
        least = _least(least, difference * difference + distance[k])
    return least


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _edge_least(problem: Problem, table: CellTable, probe: _Probe, cell: int, least: float) -> float:
    """As `_cell_least`, where samples may fall outside the grid: each is tested as pymedphys does, in mm."""
    s0, s1, s2 = _steps(problem.evaluation_shape)
    c0, shift0 = _clamp(probe.i0 * problem.stride[0] + table.cells[cell, 0], problem.evaluation_shape[0])
    c1, shift1 = _clamp(probe.i1 * problem.stride[1] + table.cells[cell, 1], problem.evaluation_shape[1])
    c2, shift2 = _clamp(probe.i2 * problem.stride[2] + table.cells[cell, 2], problem.evaluation_shape[2])
    # More than a cell outside: not even rounding brings a sample in.
    if max(abs(shift0), abs(shift1), abs(shift2)) > 1:
        return least
    c = _coefficients(problem.evaluation, c0 * s0 + c1 * s1 + c2 * s2, s0, s1, s2, probe)
    if c[8] * c[8] + table.nearest_squared[cell] >= least:
        return least
    start = table.starts[cell]
    for k in range(start, start + _count(table, cell, least)):
        x0 = problem.axis0_mm[probe.i0] + table.offsets_mm[0, k]
        x1 = problem.axis1_mm[probe.i1] + table.offsets_mm[1, k]
        x2 = problem.axis2_mm[probe.i2] + table.offsets_mm[2, k]
        if _is_inside(problem, x0, x1, x2):
            f0 = table.fractions[0, k] + shift0
            f1 = table.fractions[1, k] + shift1
            f2 = table.fractions[2, k] + shift2
            difference = (c[0] + c[1] * f2) + f1 * (c[2] + c[3] * f2)
            difference += f0 * ((c[4] + c[5] * f2) + f1 * (c[6] + c[7] * f2))
            least = min(least, difference * difference + table.distance_squared[k])
    return least


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _count(table: CellTable, cell: int, least: float) -> int:
    """How many of a cell's samples can lie nearer than γ = sqrt(least)."""
    n_shells = table.counts.shape[1] - 1
    # One shell of margin: gamma_mm itself can be a shell more than the multiples of the step.
    shells = np.sqrt(least) * table.shells_per_gamma + 2 - table.first_shell
    return table.counts[cell, n_shells if shells >= n_shells else np.int64(max(shells, 0.0))]


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _coefficients(evaluation, corner, s0, s1, s2, probe):  # type: ignore[no-untyped-def]
    """Trilinear polynomial of (dose - reference) / criterion in a cell, and last its least absolute value."""
    e000 = (np.float64(evaluation[corner]) - probe.dose) * probe.scale
    e001 = (np.float64(evaluation[corner + s2]) - probe.dose) * probe.scale
    e010 = (np.float64(evaluation[corner + s1]) - probe.dose) * probe.scale
    e011 = (np.float64(evaluation[corner + s1 + s2]) - probe.dose) * probe.scale
    e100 = (np.float64(evaluation[corner + s0]) - probe.dose) * probe.scale
    e101 = (np.float64(evaluation[corner + s0 + s2]) - probe.dose) * probe.scale
    e110 = (np.float64(evaluation[corner + s0 + s1]) - probe.dose) * probe.scale
    e111 = (np.float64(evaluation[corner + s0 + s1 + s2]) - probe.dose) * probe.scale
    low = _least(_least(_least(e000, e001), _least(e010, e011)), _least(_least(e100, e101), _least(e110, e111)))
    less = _least(
        _least(_least(-e000, -e001), _least(-e010, -e011)), _least(_least(-e100, -e101), _least(-e110, -e111))
    )
    gap = max(low, less, 0.0)
    d001, d010, d100 = e001 - e000, e010 - e000, e100 - e000
    d011, d101, d110 = e011 - e010 - d001, e101 - e100 - d001, e110 - e100 - d010
    return e000, d001, d010, d011, d100, d101, d110, (e111 - e110) - (e101 - e100) - d011, gap


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _trilinear(evaluation, corner, steps, fractions):  # type: ignore[no-untyped-def]
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


@numba.njit(cache=True, nogil=True)
def _steps(shape: IndexArray) -> tuple[int, int, int]:
    """Flat distance between neighbours along each axis; 0 on a missing axis, so that both corners are one voxel."""
    return shape[1] * shape[2] * (shape[0] > 1), shape[2] * (shape[1] > 1), 1 * (shape[2] > 1)


@numba.njit(cache=True, nogil=True)
def _probe(problem: Problem, point: int, s0: int, s1: int, s2: int) -> _Probe:
    """The reference point of a flat index."""
    n1, n2 = problem.reference_shape[1], problem.reference_shape[2]
    i0, i1, i2 = point // (n1 * n2), (point // n2) % n1, point % n2
    dose = np.float64(problem.reference[point])
    threshold_gy = problem.threshold_gy if problem.threshold_gy > 0 else problem.local_fraction * abs(dose)
    origin = i0 * problem.stride[0] * s0 + i1 * problem.stride[1] * s1 + i2 * problem.stride[2] * s2
    return _Probe(i0, i1, i2, dose, 1.0 / threshold_gy, origin)


@numba.njit(cache=True, nogil=True)
def _is_interior(index: int, low: int, high: int, size: int) -> bool:
    """Whether all cells from index + low to index + high keep a cell's distance from the ends of the axis."""
    return size == 1 or (index + low >= 1 and index + high <= size - 3)


@numba.njit(cache=True, nogil=True)
def _is_inside(problem: Problem, x0: float, x1: float, x2: float) -> bool:
    """Whether a position in mm lies on the evaluation grid, its ends included."""
    return (
        problem.start_mm[0] <= x0 <= problem.stop_mm[0]
        and problem.start_mm[1] <= x1 <= problem.stop_mm[1]
        and problem.start_mm[2] <= x2 <= problem.stop_mm[2]
    )


@numba.njit(cache=True, nogil=True)
def _clamp(cell: int, size: int) -> tuple[int, int]:
    """The nearest cell on the grid, and how many cells further `cell` is."""
    nearest = max(0, min(cell, size - 2))
    return nearest, cell - nearest


@numba.njit(cache=True, nogil=True)
def _place(problem: Problem, axis: int, x_mm: float) -> tuple[int, float]:
    """Cell and fraction of a position on one axis of the evaluation grid."""
    position = (x_mm - problem.start_mm[axis]) / problem.spacing_mm[axis]
    cell = max(0, min(np.int64(position), problem.evaluation_shape[axis] - 2))
    return cell, position - cell
