"""Points of a gamma map: list them, compare each at its own voxel, lay them out.

Whole doses pass through memory here, each once; where plans nearly agree, that is most of the time.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from doseledger.core.types import Array, Floats, Integers, IntTriple, Mask
from doseledger.dosimetry.gamma.kernels import FAST, UNREACHED, Problem, flat_index, flat_steps, least_of
from doseledger.dosimetry.gamma.threads import call_on_parts

# Points are listed in parts of about so many: a part's list stays in the cache, and none is as long as the dose.
PART_POINTS = 100_000


class OpenPoints(NamedTuple):
    """The points that are still to be searched, and how many there were.

    `points` (n,) are flat indices, ascending. `n_counted` points are at or above the cutoff and inside the mask;
    `n_asked` of them have a dose criterion above zero: with local criteria, a point of zero dose has none.
    """

    points: Integers
    n_counted: int
    n_asked: int


class Bounds(NamedTuple):
    """Limits of γ²: what a point starts from, and at which it is finished, needing no search (negative: none is)."""

    start: float
    finished: float


def open_points(
    problem: Problem, mask: Mask, bounds: Bounds, first_cell: IntTriple | None, gamma: Floats
) -> OpenPoints:
    """The points that their own voxel does not finish.

    Parameters
    ----------
    mask
        Flat, which points are asked; of no length for all.
    first_cell
        Evaluation voxel at which the reference grid begins; None where the grids do not share their voxels: no point
        is looked at then.
    gamma
        Flat map of NaN, into which the finished points' γ is written, and the open ones' γ² so far. Of no length where
        no map is wanted.
    """
    shape = problem.reference_shape
    n_rows, step = shape[0] * shape[1], max(1, PART_POINTS // shape[2])
    parts = [(row, min(row + step, n_rows)) for row in range(0, n_rows, step)]
    found = call_on_parts(
        lambda rows: _open_rows(rows, problem, mask, bounds, first_cell, gamma), parts, n_points=len(problem.reference)
    )
    points, counted, asked = zip(*found, strict=True)
    return OpenPoints(np.concatenate(points), sum(counted), sum(asked))


@numba.njit(cache=True, nogil=True)
def _open_rows(
    rows: tuple[int, int],
    problem: Problem,
    mask: Mask,
    bounds: Bounds,
    first_cell: IntTriple | None,
    gamma: Floats,
) -> tuple[Integers, int, int]:
    """Fields of `OpenPoints` for some rows of the reference."""
    length, n_open, n_counted, n_asked = problem.reference_shape[2], 0, 0, 0
    points, asked, squared = (
        np.empty((rows[1] - rows[0]) * length, np.int64),
        np.empty(length, np.bool_),
        np.empty(length),
    )
    for row in range(rows[0], rows[1]):
        here = slice(row * length, (row + 1) * length)
        dose = problem.reference[here]
        n_here = _count_row(dose, mask[here], problem.cutoff_gy, asked)
        if n_here == 0:
            continue
        n_counted += n_here
        n_asked += n_here if problem.threshold_gy > 0 else _leave_out_zeros(dose, asked)
        squared[:] = bounds.start
        if first_cell is not None:
            _look_at_row(problem, row, first_cell, squared)
        for x in range(length):
            points[n_open] = row * length + x
            n_open += asked[x] and squared[x] > bounds.finished
        if len(gamma) > 0:
            _fill_row(gamma[here], squared, asked, bounds.finished)
    return points[:n_open].copy(), n_counted, n_asked


@numba.njit(cache=True, nogil=True)
def _count_row(dose: Array, mask: Mask, cutoff_gy: float, counted: Mask) -> int:
    """How many points of a row are at or above the cutoff and inside the mask; `counted` says which."""
    n_counted = 0
    for x in range(len(dose)):
        counted[x] = dose[x] >= cutoff_gy
        n_counted += counted[x]
    if n_counted == 0 or len(mask) == 0:
        return n_counted
    n_counted = 0
    for x in range(len(dose)):
        counted[x] &= mask[x]
        n_counted += counted[x]
    return n_counted


@numba.njit(cache=True, nogil=True)
def _leave_out_zeros(dose: Array, asked: Mask) -> int:
    """How many points of a row are still asked when those of zero dose are not."""
    n_asked = 0
    for x in range(len(dose)):
        asked[x] &= dose[x] != 0
        n_asked += asked[x]
    return n_asked


@numba.njit(cache=True, nogil=True)
def _look_at_row(problem: Problem, row: int, first_cell: IntTriple, squared: Floats) -> None:
    """Lower γ² of a row by the evaluation dose at each point itself, as far as both grids reach."""
    size, shape, stride = problem.evaluation_shape, problem.reference_shape, problem.stride
    plane = row // shape[1]
    at0, at1 = first_cell[0] + plane * stride[0], first_cell[1] + (row - plane * shape[1]) * stride[1]
    first = max(0, -(first_cell[2] // stride[2]))
    last = min(shape[2], (size[2] - 1 - first_cell[2]) // stride[2] + 1)
    if first >= last or not (0 <= at0 < size[0] and 0 <= at1 < size[1]):
        return
    dose = problem.reference[row * shape[2] + first : row * shape[2] + last]
    corner = flat_index((at0, at1, first_cell[2] + first * stride[2]), flat_steps(size))
    voxels = problem.evaluation[corner : corner + (last - first - 1) * stride[2] + 1]
    # Without a step, the loop runs as SIMD.
    if stride[2] == 1:
        _lower_by_differences(squared[first:last], dose, voxels, problem.threshold_gy, problem.local_fraction)
    else:
        strided = voxels[:: stride[2]]
        _lower_by_differences(squared[first:last], dose, strided, problem.threshold_gy, problem.local_fraction)


# As NumPy divides: a point of zero dose is not asked, and need not stop the loop.
@numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _lower_by_differences(
    squared: Floats, dose: Array, voxels: Array, threshold_gy: float, local_fraction: float
) -> None:
    """Lower γ² by differences of dose alone."""
    for x in range(len(dose)):
        here = np.float64(dose[x])
        criterion_gy = threshold_gy if threshold_gy > 0 else local_fraction * abs(here)
        difference = (np.float64(voxels[x]) - here) / criterion_gy
        squared[x] = least_of(squared[x], difference * difference)


@numba.njit(cache=True, nogil=True)
def _fill_row(gamma: Floats, squared: Floats, asked: Mask, finished: float) -> None:
    """A row of the map from γ²: the root where a point is finished, NaN where it is not asked."""
    for x in range(len(gamma)):
        found = np.sqrt(squared[x]) if squared[x] <= finished else squared[x]
        gamma[x] = found if asked[x] else np.nan


@numba.njit(cache=True, nogil=True)
def fill_points(gamma: Floats, points: Integers, squared: Floats, max_gamma: float) -> None:
    """Write γ at some points of a flat map, from their γ²: no more than `max_gamma`, NaN where nothing was reached."""
    for n in range(len(points)):
        gamma[points[n]] = min(np.sqrt(squared[n]), max_gamma) if squared[n] < UNREACHED else np.nan
