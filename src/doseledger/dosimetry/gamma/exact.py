"""Continuous gamma over the trilinear dose, certified by branch and bound."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from doseledger.core.types import Floats, Integers, IntTriple, Triple
from doseledger.dosimetry.gamma.kernels import (
    FAST,
    Problem,
    cell_terms,
    dose_scale,
    flat_index,
    flat_steps,
    grid_index,
)

# Depth of the search within a cell: each level halves one side, so that 64 levels are far below rounding.
MAX_DEPTH = 64

# Newton steps to the best multiplier of a bound: the function is piecewise linear with a few pieces.
NEWTON_STEPS = 8


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def refine_points(points: Integers, best: Floats, problem: Problem, gamma_mm: float, tolerance: float) -> None:
    """Lower `best`, an upper bound of each point's γ², until its root is within `tolerance` of the continuous minimum.

    Parameters
    ----------
    points
        Flat indices of reference points.
    best
        (n_points,) γ² reached so far, or the largest of interest; lowered in place.
    problem
        The two doses on any two grids.
    gamma_mm
        Distance criterion in mm.
    tolerance
        In units of γ.

    Notes
    -----
    In a box about c, the trilinear dose strays from its tangent plane at c by at most the sizes of its mixed
    derivatives there. Distance and distance from the plane make a convex problem, whose Lagrangian dual gives a lower
    bound and whose minimiser, put into the true dose, an upper one. A box whose lower bound is within the tolerance of
    the best value is done; others are halved.
    """
    reference, evaluation, size = problem.reference, problem.evaluation, problem.evaluation_shape
    axis0_mm, axis1_mm, axis2_mm = problem.axis0_mm, problem.axis1_mm, problem.axis2_mm
    spacing_mm, start_mm, steps = problem.spacing_mm, problem.start_mm, flat_steps(problem.evaluation_shape)
    sigma = (spacing_mm[0] / gamma_mm, spacing_mm[1] / gamma_mm, spacing_mm[2] / gamma_mm)
    stack = np.empty((MAX_DEPTH + 2, 6))
    for n in range(len(points)):
        index = grid_index(points[n], problem.reference_shape)
        dose = np.float64(reference[points[n]])
        scale = dose_scale(problem.threshold_gy, problem.local_fraction, dose)
        p = (
            (axis0_mm[index[0]] - start_mm[0]) / spacing_mm[0],
            (axis1_mm[index[1]] - start_mm[1]) / spacing_mm[1],
            (axis2_mm[index[2]] - start_mm[2]) / spacing_mm[2],
        )
        least = best[n]
        reach = np.sqrt(least)
        first0, last0 = _cell_range(p[0], reach / sigma[0], size[0])
        first1, last1 = _cell_range(p[1], reach / sigma[1], size[1])
        first2, last2 = _cell_range(p[2], reach / sigma[2], size[2])
        for c0 in range(first0, last0 + 1):
            for c1 in range(first1, last1 + 1):
                for c2 in range(first2, last2 + 1):
                    q = (p[0] - c0 - 0.5, p[1] - c1 - 0.5, p[2] - c2 - 0.5)
                    wanted = max(np.sqrt(least) - tolerance, 0.0) ** 2
                    nearest = _nearest_squared(q, sigma, size)
                    if nearest >= wanted:
                        continue
                    terms, gap = cell_terms(evaluation, flat_index((c0, c1, c2), steps), steps, dose, scale)
                    if gap * gap + nearest < wanted:
                        least = _refine_cell(terms, q, sigma, size, (least, tolerance), stack)
        best[n] = least


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _refine_cell(
    terms: Any, q: Triple, sigma: Triple, size: IntTriple, bounds: tuple[float, float], stack: Floats
) -> float:
    """The least γ² of one cell to within a tolerance, or the least so far (`bounds` holds both); `stack` is scratch."""
    least, tolerance = bounds
    stack[0, :3] = 0.0
    for axis in range(3):
        # A missing axis has no extent.
        stack[0, 3 + axis] = 0.5 if size[axis] > 1 else 0.0
    if size[0] == 1:
        q = (0.0, q[1], q[2])
    if size[1] == 1:
        q = (q[0], 0.0, q[2])
    wanted = max(np.sqrt(least) - tolerance, 0.0) ** 2
    depth = 1
    while depth > 0:
        depth -= 1
        centre = (stack[depth, 0], stack[depth, 1], stack[depth, 2])
        half = (stack[depth, 3], stack[depth, 4], stack[depth, 5])
        local = _terms_about(terms, centre)
        here = (q[0] - centre[0], q[1] - centre[1], q[2] - centre[2])
        lower, v = _box_bound(local, here, sigma, half)
        if lower >= wanted:
            continue
        difference = (local[0] + local[4] * v[0]) + v[1] * (local[2] + local[6] * v[0])
        difference += v[2] * ((local[1] + local[5] * v[0]) + v[1] * (local[3] + local[7] * v[0]))
        d0, d1, d2 = (v[0] - here[0]) * sigma[0], (v[1] - here[1]) * sigma[1], (v[2] - here[2]) * sigma[2]
        upper = difference * difference + d0 * d0 + d1 * d1 + d2 * d2
        if upper < least:
            least = upper
            wanted = max(np.sqrt(least) - tolerance, 0.0) ** 2
        if lower >= wanted or depth >= MAX_DEPTH:
            continue
        axis = _longest_axis(sigma, half)
        for side in range(2):
            stack[depth, :3] = centre
            stack[depth, 3:] = half
            stack[depth, 3 + axis] *= 0.5
            stack[depth, axis] += stack[depth, 3 + axis] * (2 * side - 1)
            depth += 1
    return least


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _terms_about(terms: Any, c: Triple) -> Any:
    """The trilinear polynomial written about another point."""
    g2 = terms[1] + terms[3] * c[1] + terms[5] * c[0] + terms[7] * c[0] * c[1]
    g1 = terms[2] + terms[3] * c[2] + terms[6] * c[0] + terms[7] * c[0] * c[2]
    g0 = terms[4] + terms[5] * c[2] + terms[6] * c[1] + terms[7] * c[1] * c[2]
    value = (terms[0] + terms[1] * c[2]) + c[1] * (terms[2] + terms[3] * c[2]) + c[0] * g0
    h12, h02, h01 = terms[3] + terms[7] * c[0], terms[5] + terms[7] * c[1], terms[6] + terms[7] * c[2]
    return value, g2, g1, h12, g0, h02, h01, terms[7]


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _box_bound(terms: Any, q: Triple, sigma: Triple, half: Triple) -> tuple[float, Triple]:
    """Lower bound of γ² in the box |v| ≤ half, and the place where the convex problem has its minimum."""
    stray = abs(terms[3]) * half[1] * half[2] + abs(terms[5]) * half[0] * half[2] + abs(terms[6]) * half[0] * half[1]
    stray += abs(terms[7]) * half[0] * half[1] * half[2]
    v = (_within(q[0], half[0]), _within(q[1], half[1]), _within(q[2], half[2]))
    plane = terms[0] + terms[4] * v[0] + terms[2] * v[1] + terms[1] * v[2]
    sign = 1.0 if plane > 0 else -1.0
    g = (sign * terms[4], sign * terms[2], sign * terms[1])
    w = (1.0 / (sigma[0] * sigma[0]), 1.0 / (sigma[1] * sigma[1]), 1.0 / (sigma[2] * sigma[2]))
    lower, multiplier, low, high = 0.0, 0.0, 0.0, 1e300
    for _ in range(NEWTON_STEPS):
        v = (
            _within(q[0] - multiplier * g[0] * w[0], half[0]),
            _within(q[1] - multiplier * g[1] * w[1], half[1]),
            _within(q[2] - multiplier * g[2] * w[2], half[2]),
        )
        d0, d1, d2 = (v[0] - q[0]) * sigma[0], (v[1] - q[1]) * sigma[1], (v[2] - q[2]) * sigma[2]
        difference = sign * terms[0] + g[0] * v[0] + g[1] * v[1] + g[2] * v[2] - stray
        lower = max(lower, multiplier * (2.0 * difference - multiplier) + d0 * d0 + d1 * d1 + d2 * d2)
        slope = 1.0
        for axis in range(3):
            if abs(v[axis]) < half[axis]:
                slope += g[axis] * g[axis] * w[axis]
        # The excess falls as the multiplier grows: Newton's step, or the middle where it would leave the bracket.
        excess = difference - multiplier
        if excess > 0:
            low = multiplier
            high = min(high, difference)
        else:
            high = multiplier
        if high <= low or abs(excess) <= 1e-12 * slope:
            break
        multiplier += excess / slope
        if multiplier <= low or multiplier >= high:
            multiplier = 0.5 * (low + high)
    return lower, v


@numba.njit(cache=True, nogil=True, fastmath=FAST, forceinline=True)
def _longest_axis(sigma: Triple, half: Triple) -> int:
    """The axis along which the box is longest."""
    s0, s1, s2 = sigma[0] * half[0], sigma[1] * half[1], sigma[2] * half[2]
    if s0 >= s1 and s0 >= s2:
        return 0
    return 1 if s1 >= s2 else 2


@numba.njit(cache=True, nogil=True, forceinline=True)
def _within(value: float, half: float) -> float:
    """The value cut to ± half."""
    return max(-half, min(half, value))


@numba.njit(cache=True, nogil=True, forceinline=True)
def _cell_range(position: float, reach: float, size: int) -> tuple[Any, Any]:
    """First and last cell of an axis within reach of a position, all in voxels."""
    highest = np.float64(max(size - 2, 0))
    first = min(max(np.floor(position - reach), 0.0), highest)
    last = min(max(np.floor(position + reach), 0.0), highest)
    return np.int64(first), np.int64(last)


@numba.njit(cache=True, nogil=True, forceinline=True)
def _nearest_squared(q: Triple, sigma: Triple, size: IntTriple) -> float:
    """The least (d / gamma_mm)² from the point to its cell; q is the point from the middle of the cell."""
    total = 0.0
    for axis in range(3):
        if size[axis] > 1:
            beyond = max(abs(q[axis]) - 0.5, 0.0) * sigma[axis]
            total += beyond * beyond
    return total
