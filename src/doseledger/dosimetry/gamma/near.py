"""Compiled gamma search of the eight cells about a voxel.

Most points of a good plan have their least γ there. Where the two grids share their voxels, the
dose at the point itself and the slope of the cells about it tell at which distances a lower γ can
lie: mostly a shell or two, often none.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from doseledger.core.types import Array, Floats, Integers, IntTriple, Triple
from doseledger.dosimetry.gamma.kernels import (
    FAST,
    Problem,
    all_interior,
    chunks_least,
    dose_scale,
    edge_cell_least,
    flat_index,
    flat_steps,
    grid_index,
    least_of,
    sample_least,
)
from doseledger.dosimetry.gamma.samples import CHUNK, NearTable

# Points of one row whose slopes are computed together, as SIMD.
RUN = 32

# Numbers kept for each point and cell: slope squared, gap squared, and the eight terms of the trilinear polynomial.
ROWS = 10

# Margin, in shells, of the range of distances that can hold a lower γ: far more than rounding, far less than a shell.
SHELL_MARGIN = 1e-6


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def search_near(  # noqa: PLR0915  one hot loop: its arrays stay in local names
    points: Integers, best: Floats, problem: Problem, near: NearTable, stop_below: float
) -> None:
    """Lower `best`, the γ² of each point, by the samples in the eight cells about its own voxel; in place.

    Parameters
    ----------
    points
        Flat indices of reference points, ascending; each is a voxel of the evaluation grid or lies beside the grid.
    best
        (n_points,) the least γ² so far.
    stop_below
        A point is finished once its γ² is at or below this; negative for the whole minimum.

    Notes
    -----
    With Δ the difference at the voxel in units of the criterion, and G a bound of how fast it can fall in a cell per
    unit of d / gamma_mm, γ² at distance d is at least (Δ - G d)² + d². That is below the best so far only for d in an
    interval, and nowhere if Δ² / (1 + G²) is not. G² adds up the squares of the steepest edges along each axis, since
    the path from the voxel to any place in its cell can run along the axes. One sample near the place where γ would be
    least in a plane comes first, and makes the interval short.
    """
    reference, evaluation, size = problem.reference, problem.evaluation, problem.evaluation_shape
    shape, stride, steps = problem.reference_shape, problem.stride, flat_steps(size)
    table, guess, bins, first_cell = near.table, near.guess, near.bins, near.first_cell
    cells, starts, counts, samples = table.cells, table.starts, table.counts, near.samples
    distances, shells_per_gamma, sigma = table.distances, table.shells_per_gamma, table.sigma
    work = np.empty(len(cells) * ROWS * RUN)
    last = len(distances) - 1
    differences, scales = np.empty(RUN), np.empty((2, RUN))
    n = 0
    while n < len(points):
        index = grid_index(points[n], shape)
        home = (index[0] * stride[0], index[1] * stride[1], index[2] * stride[2])
        voxel = (first_cell[0] + home[0], first_cell[1] + home[1], first_cell[2] + home[2])
        # 1. a voxel at the end of an axis: its cells one by one, each sample tested in mm
        if not all_interior(voxel, (-1, -1, -1), (0, 0, 0), size):
            dose = np.float64(reference[points[n]])
            scale = dose_scale(problem.threshold_gy, problem.local_fraction, dose)
            least = best[n]
            for cell in range(len(cells)):
                if least > stop_below:
                    least = edge_cell_least(problem, table, cell, index, (dose, scale, least))
            best[n] = least
            n += 1
            continue
        # 2. a run of neighbours: as far as the next gap, the end of the row, or the edge of the evaluation grid
        limit = min(RUN, len(points) - n, shape[2] - index[2], (size[2] - 3 - voxel[2]) // stride[2] + 1)
        length = 1
        while length < limit and points[n + length] == points[n] + length:
            length += 1
        # 3. the differences at the voxels themselves, with the sign that makes each positive
        corner = flat_index(voxel, steps)
        for j in range(length):
            dose = np.float64(reference[points[n] + j])
            scale = dose_scale(problem.threshold_gy, problem.local_fraction, dose)
            difference = np.float64(evaluation[corner + j * stride[2]]) - dose
            differences[j] = abs(difference) * scale
            scale = -scale if difference < 0 else scale
            scales[0, j] = scale
            scales[1, j] = dose * scale
        # 4. slope, gap and polynomial of each of the eight cells, for the whole run at once (SIMD)
        for cell in range(len(cells)):
            toward = (
                steps[0] if cells[cell, 0] == first_cell[0] else -steps[0],
                steps[1] if cells[cell, 1] == first_cell[1] else -steps[1],
                steps[2] if cells[cell, 2] == first_cell[2] else -steps[2],
            )
            _lay_out_cell(evaluation, (corner, length, stride[2], cell), toward, sigma, scales, work)
        for j in range(length):
            least = best[n + j]
            squared = differences[j] * differences[j]
            # 5. the steepest cell first: a low γ² early lets most of the others be skipped
            start, visit = _steepest_cell(work, len(cells), j), -1
            while visit < len(cells) and least > stop_below:
                cell = start if visit < 0 else visit
                visit += 1
                i = cell * ROWS * RUN + j
                # 6. skip a cell that is too flat, or whose corners leave too large a difference
                slope_squared = work[i]
                if least * (1.0 + slope_squared) <= squared:
                    continue
                work[i] = 0.0
                if work[i + RUN] >= least:
                    continue
                terms = (
                    work[i + 2 * RUN], work[i + 3 * RUN], work[i + 4 * RUN], work[i + 5 * RUN],
                    work[i + 6 * RUN], work[i + 7 * RUN], work[i + 8 * RUN], work[i + 9 * RUN],
                )  # fmt: skip
                # 7. one sample near the likely minimum makes the interval of step 8 short
                sample = guess[_likely_bin(terms, sigma, bins, cell)]
                least = sample_least(samples, sample, terms, least)
                room = least * (1.0 + slope_squared) - squared
                if room <= 0.0 or least <= stop_below:
                    continue
                # 8. the interval of shells that can hold a lower γ; beyond the distance at which the difference can be
                # zero, the distance alone counts
                crosses = least * slope_squared > squared
                part = 1.0 / (1.0 + slope_squared)
                half, middle = np.sqrt(room) * part, np.sqrt(slope_squared * squared) * part
                high = np.sqrt(least) if crosses else middle + half
                lowest = (middle - half) * shells_per_gamma - SHELL_MARGIN
                highest = high * shells_per_gamma + SHELL_MARGIN
                first_shell = np.int64(np.ceil(max(lowest, 0.0)))
                last_shell = np.int64(min(highest, last))
                # gamma_mm itself can be a shell more than the multiples of the step.
                if last_shell < last and distances[last_shell + 1] * shells_per_gamma <= highest:
                    last_shell += 1
                if first_shell > last_shell:
                    continue
                # 9. the samples of those shells, a chunk at a time (SIMD)
                start = starts[cell]
                span = (start + counts[cell, first_shell], start + counts[cell, last_shell + 1])
                if span[0] == span[1]:
                    continue
                least = chunks_least(samples, (span[0] // CHUNK, -(-span[1] // CHUNK)), terms, least)
            best[n + j] = least
        n += length


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _lay_out_cell(
    evaluation: Array,
    run: tuple[int, int, int, int],
    toward: IntTriple,
    sigma: Triple,
    scales: Floats,
    work: Floats,
) -> None:
    """Write slope, gap and terms of one cell about each voxel of a run into `work`.

    `run` is the first voxel, the number of voxels, the step between them and the cell; `toward` leads from a voxel to
    its neighbours in the cell; `scales` turns a dose into its difference, with the sign that makes the voxel's own
    positive. One flat array and unsigned indices let the loop run as SIMD.
    """
    corner, length, stride, cell = run
    w0, w1, w2 = 1.0 / (sigma[0] * sigma[0]), 1.0 / (sigma[1] * sigma[1]), 1.0 / (sigma[2] * sigma[2])
    t0, t1, t2 = toward
    c000, c001 = np.uint64(corner), np.uint64(corner + t2)
    c010, c011 = np.uint64(corner + t1), np.uint64(corner + t1 + t2)
    c100, c101 = np.uint64(corner + t0), np.uint64(corner + t0 + t2)
    c110, c111 = np.uint64(corner + t0 + t1), np.uint64(corner + t0 + t1 + t2)
    first = np.uint64(cell * ROWS * RUN)
    for j in range(length):
        i = np.uint64(j * stride)
        k = np.uint64(j)
        o = first + k
        scale, offset = scales[0, k], scales[1, k]
        e000, e001 = evaluation[c000 + i] * scale - offset, evaluation[c001 + i] * scale - offset
        e010, e011 = evaluation[c010 + i] * scale - offset, evaluation[c011 + i] * scale - offset
        e100, e101 = evaluation[c100 + i] * scale - offset, evaluation[c101 + i] * scale - offset
        e110, e111 = evaluation[c110 + i] * scale - offset, evaluation[c111 + i] * scale - offset
        m00, m01, m10, m11 = e001 - e000, e011 - e010, e101 - e100, e111 - e110
        # Falls, as negative numbers.
        f0 = least_of(e100 - e000, 0.0)
        f1 = least_of(least_of(e010 - e000, e110 - e100), 0.0)
        f2 = least_of(least_of(least_of(m00, m01), least_of(m10, m11)), 0.0)
        work[o] = f0 * f0 * w0 + f1 * f1 * w1 + f2 * f2 * w2
        low = least_of(
            least_of(least_of(e000, e001), least_of(e010, e011)), least_of(least_of(e100, e101), least_of(e110, e111))
        )
        # The voxel's own difference is above zero.
        low = -least_of(-low, 0.0)
        work[o + np.uint64(RUN)] = low * low
        p00, p01, p10, p11 = e000 + e001, e010 + e011, e100 + e101, e110 + e111
        pp0, pm0, pp1, pm1 = p00 + p01, p01 - p00, p10 + p11, p11 - p10
        mp0, mm0, mp1, mm1 = m00 + m01, m01 - m00, m10 + m11, m11 - m10
        work[o + np.uint64(2 * RUN)] = (pp0 + pp1) * 0.125
        work[o + np.uint64(3 * RUN)] = (mp0 + mp1) * 0.25
        work[o + np.uint64(4 * RUN)] = (pm0 + pm1) * 0.25
        work[o + np.uint64(5 * RUN)] = (mm0 + mm1) * 0.5
        work[o + np.uint64(6 * RUN)] = (pp1 - pp0) * 0.25
        work[o + np.uint64(7 * RUN)] = (mp1 - mp0) * 0.5
        work[o + np.uint64(8 * RUN)] = (pm1 - pm0) * 0.5
        work[o + np.uint64(9 * RUN)] = mm1 - mm0


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _steepest_cell(work: Floats, n_cells: int, j: int) -> int:
    """The cell with the largest slope about the run's point `j`."""
    top = 0
    for cell in range(1, n_cells):
        if work[cell * ROWS * RUN + j] > work[top * ROWS * RUN + j]:
            top = cell
    return top


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _likely_bin(terms: Any, sigma: Triple, bins: IntTriple, cell: int) -> int:
    """Bin of the place in the cell where γ would be least if the dose there were a plane."""
    w0, w1, w2 = 1.0 / (sigma[0] * sigma[0]), 1.0 / (sigma[1] * sigma[1]), 1.0 / (sigma[2] * sigma[2])
    g0, g1, g2 = terms[4], terms[2], terms[1]
    at_point = terms[0] - 0.5 * (g0 + g1 + g2)
    multiplier = at_point / (1.0 + g0 * g0 * w0 + g1 * g1 * w1 + g2 * g2 * w2)
    b0 = _bin(multiplier * g0 * w0, bins[0])
    b1 = _bin(multiplier * g1 * w1, bins[1])
    b2 = _bin(multiplier * g2 * w2, bins[2])
    return ((cell * bins[0] + b0) * bins[1] + b1) * bins[2] + b2


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _bin(back: float, bins: int) -> Any:
    """Bin along one axis of a place in a cell, given how far it lies behind the voxel."""
    return np.int64(max(0.0, min(-back * bins, bins - 1.0)))
