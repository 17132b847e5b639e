"""Small compiled parts of the gamma search, each for itself: indices, cells, polynomials, and bounds of γ²."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from doseledger.dosimetry.gamma import exact, kernels, near

SHAPE = (4, 3, 5)
STEPS = (15, 5, 1)
UNIT = list(itertools.product((-0.5, 0.5), repeat=3))
RNG = np.random.default_rng(7)


def polynomial(terms: np.ndarray, f: tuple[float, ...]) -> float:
    """1, f2, f1, f1 f2, f0, f0 f2, f0 f1, f0 f1 f2 times their terms: f in fractions from the middle of the cell."""
    return float(
        sum(
            t * f[0] ** a * f[1] ** b * f[2] ** c
            for t, (a, b, c) in zip(terms, itertools.product((0, 1), repeat=3), strict=True)
        )
    )


def least_of_box(excess, q, sigma, half) -> tuple[float, np.ndarray]:  # type: ignore[no-untyped-def]
    """The least excess² + distance² over the box |v| ≤ half, by several local searches."""

    def squared(v: np.ndarray) -> float:
        return excess(v) ** 2 + sum(((v[i] - q[i]) * sigma[i]) ** 2 for i in range(3))

    bounds = [(-h, h) for h in half]
    starts = [np.clip(q, -np.array(half), half), *(np.array(corner) * 2 * half for corner in UNIT)]
    found = [minimize(squared, start, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-15}) for start in starts]
    best = min(found, key=lambda one: one.fun)
    return best.fun, best.x


# --- indices ------------------------------------------------------------------------------------------------------


def test_flat_indices_go_by_the_last_axis_and_a_missing_axis_has_no_step() -> None:
    for point in range(60):
        index = kernels.grid_index.py_func(point, SHAPE)
        assert index == np.unravel_index(point, SHAPE)
        assert kernels.flat_index.py_func(index, STEPS) == point
    steps = {shape: kernels.flat_steps.py_func(shape) for shape in (SHAPE, (1, 3, 5), (1, 1, 5), (4, 1, 5), (4, 3, 1))}
    assert list(steps.values()) == [STEPS, (0, 5, 1), (0, 0, 1), (5, 0, 1), (3, 1, 0)]


def test_the_criterion_is_the_threshold_or_a_fraction_of_the_points_own_dose() -> None:
    assert kernels.dose_scale.py_func(2.0, 0.03, 50.0) == 0.5
    assert kernels.dose_scale.py_func(0.0, 0.03, 50.0) == pytest.approx(1 / 1.5)
    assert kernels.dose_scale.py_func(0.0, 0.03, -50.0) == pytest.approx(1 / 1.5)


@pytest.mark.parametrize(
    ("position", "cell", "fraction"),
    [(-0.5, 0, -0.5), (0.0, 0, 0.0), (2.25, 2, 0.25), (4.0, 4, 0.0), (4.5, 4, 0.5), (5.0, 4, 1.0), (5.5, 4, 1.5)],
)
def test_a_place_is_in_the_cell_below_it_and_at_the_end_in_the_last(
    position: float, cell: int, fraction: float
) -> None:
    assert kernels._cell_fraction.py_func(position, 6) == (cell, pytest.approx(fraction))
    assert kernels._cell_fraction.py_func(0.0, 1) == (0, 0.0)


def test_a_cell_beside_the_grid_is_brought_onto_it_by_so_many_cells() -> None:
    assert kernels._onto_grid.py_func((-2, 2, 9), (5, 6, 7)) == ((0, 2, 5), (-2, 0, 4))
    assert kernels._onto_grid.py_func((7, -1, 0), (5, 6, 7)) == ((3, 0, 0), (4, -1, 0))
    assert kernels._onto_grid.py_func((3, 9, 5), (5, 6, 7)) == ((3, 4, 5), (0, 5, 0))
    assert kernels._onto_grid.py_func((0, 0, 3), (1, 1, 7)) == ((0, 0, 3), (0, 0, 0))


@pytest.mark.parametrize("axis", range(3))
def test_the_ends_of_every_axis_are_on_the_grid_and_what_lies_beyond_is_not(axis: int) -> None:
    start, stop = (1.0, 2.0, 3.0), (5.0, 7.0, 9.0)
    for value, is_inside in (
        (start[axis], True),
        (stop[axis], True),
        (start[axis] - 1e-9, False),
        (stop[axis] + 1e-9, False),
    ):
        place = [3.0, 3.0, 3.0]
        place[axis] = value
        assert kernels._is_inside.py_func(tuple(place), start, stop) is is_inside


@pytest.mark.parametrize("axis", range(3))
def test_cells_are_interior_if_they_keep_a_cell_from_both_ends(axis: int) -> None:
    size, home = (8, 9, 10), (3, 4, 5)
    low, high = [-2, -3, -4], [2, 2, 2]
    assert kernels.all_interior.py_func(home, low, high, size)
    low[axis] -= 1
    assert not kernels.all_interior.py_func(home, low, high, size)
    low[axis] += 1
    high[axis] += 1
    assert not kernels.all_interior.py_func(home, low, high, size)
    missing = tuple(1 if i == axis else n for i, n in enumerate(size))
    assert kernels.all_interior.py_func(home, low, high, missing)


def test_the_dose_between_voxels_is_trilinear() -> None:
    dose = RNG.random(SHAPE)
    for index, f in (((0, 0, 0), (0.0, 0.0, 0.0)), ((2, 1, 3), (0.3, 0.6, 0.9)), ((1, 0, 2), (0.8, 0.1, 0.4))):
        wanted = sum(
            dose[tuple(np.add(index, corner))] * np.prod([x if c else 1 - x for x, c in zip(f, corner, strict=True)])
            for corner in itertools.product((0, 1), repeat=3)
        )
        flat = kernels.flat_index.py_func(index, STEPS)
        assert kernels._trilinear.py_func(dose.ravel(), flat, STEPS, f) == pytest.approx(wanted)


# --- a cell: its polynomial and how near to the wanted dose it can come -------------------------------------------


def test_the_polynomial_of_a_cell_is_its_trilinear_difference_in_units_of_the_criterion() -> None:
    dose = RNG.random(SHAPE) * 70
    terms, _ = kernels.cell_terms(dose.ravel(), 21, STEPS, 33.0, 0.5)
    for f in (*UNIT, (0.1, -0.2, 0.4), (-0.3, 0.25, -0.15)):
        here = kernels._trilinear.py_func(dose.ravel(), 21, STEPS, tuple(x + 0.5 for x in f))
        assert polynomial(terms, f) == pytest.approx((here - 33.0) * 0.5)


@pytest.mark.parametrize("corner", range(8))
def test_the_gap_of_a_cell_is_that_of_its_nearest_corner_and_nothing_where_they_are_on_both_sides(corner: int) -> None:
    away = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.5])
    away[corner] = 2.0
    for side in (1, -1):
        _, gap = kernels.cell_terms(50.0 + side * away, 0, (4, 2, 1), 50.0, 0.5)
        assert gap == 1.0
        crossed = 50.0 + side * away
        crossed[corner] = 50.0 - side * 2.0
        assert kernels.cell_terms(crossed, 0, (4, 2, 1), 50.0, 0.5)[1] == 0.0


def terms_of(**given: float) -> np.ndarray:
    """Eight terms by name: t0, t1 and so on."""
    return np.array([given.get(f"t{i}", 0.0) for i in range(8)])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_bound_of_a_cell_is_exact_for_a_flat_dose_and_for_a_plane(sign: float) -> None:
    sigma = (2.0, 0.5, 1.0)
    # A point 1 and 0.2 cells beside the cell, in a dose that is 2 criteria off everywhere.
    flat = kernels._plane_bound.py_func(sign * terms_of(t0=2.0), (1.5, -0.7, 0.2), sigma)
    assert flat == pytest.approx(4.0 + (1.0 * 2.0) ** 2 + (0.2 * 0.5) ** 2)
    # The nearest place of a plane lies inside the cell: Δ² / (1 + Σ (slope / length)²).
    plane = sign * terms_of(t0=1.0, t4=0.3, t2=-0.2, t1=0.4)
    found = kernels._plane_bound.py_func(plane, (0.1, -0.2, 0.05), (2.0, 1.5, 1.0))
    assert found == pytest.approx((1 + 0.03 + 0.04 + 0.02) ** 2 / (1 + 0.09 / 4 + 0.04 / 2.25 + 0.16))


@pytest.mark.parametrize(("term", "stray"), [("t3", 0.1), ("t5", 0.1), ("t6", 0.1), ("t7", 0.05)])
def test_mixed_terms_take_from_the_bound_what_they_can_change_in_the_cell(term: str, stray: float) -> None:
    for size in (0.4, -0.4):
        found = kernels._plane_bound.py_func(terms_of(t0=2.0, **{term: size}), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        assert found == pytest.approx((2.0 - stray) ** 2)
    nothing = kernels._plane_bound.py_func(terms_of(t0=0.9 * stray, **{term: 0.4}), (3.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert nothing == 0.0


def test_the_bound_of_a_cell_is_never_above_what_lies_in_it() -> None:
    fractions = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 9)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    tight = []
    for _ in range(60):
        terms, q = RNG.normal(0, [3, 1, 1, 0.3, 1, 0.3, 0.3, 0.3]), RNG.uniform(-2, 2, 3)
        sigma = RNG.uniform(0.3, 2, 3)
        squared = [polynomial(terms, f) ** 2 + (((f - q) * sigma) ** 2).sum() for f in fractions]
        bound = kernels._plane_bound.py_func(terms, q, sigma)
        assert bound <= min(squared) + 1e-9
        tight.append(max(bound, 0.0) / min(squared))
    assert np.mean(tight) > 0.5


# --- the continuous search ----------------------------------------------------------------------------------------


def test_a_polynomial_about_another_point_is_the_same_polynomial() -> None:
    terms, c, v = RNG.normal(size=8), (0.2, -0.3, 0.4), (0.1, 0.25, -0.35)
    moved = np.array(exact._terms_about.py_func(terms, c))
    assert polynomial(moved, v) == pytest.approx(polynomial(terms, tuple(np.add(c, v))))
    for k in range(8):
        one = np.array(exact._terms_about.py_func(np.eye(8)[k], c))
        assert polynomial(one, v) == pytest.approx(polynomial(np.eye(8)[k], tuple(np.add(c, v)))), k


def test_the_longest_side_of_a_box_is_halved_and_the_first_of_equal_ones() -> None:
    boxes = [(3, 2, 1), (1, 3, 2), (1, 2, 3), (2, 2, 1), (1, 2, 2), (2, 1, 2), (2, 2, 2)]
    assert [exact._longest_axis.py_func((1.0, 1.0, 1.0), box) for box in boxes] == [0, 1, 2, 0, 1, 0, 0]
    assert exact._longest_axis.py_func((1.0, 4.0, 1.0), (3.0, 1.0, 2.0)) == 1
    assert exact._longest_axis.py_func((1.0, 1.0, 4.0), (3.0, 2.0, 1.0)) == 2
    assert exact._longest_axis.py_func((4.0, 1.0, 1.0), (1.0, 2.0, 3.0)) == 0


def test_a_value_is_cut_to_half_a_box() -> None:
    assert [exact._within.py_func(value, 2.0) for value in (3.0, -3.0, 1.0, -1.0)] == [2.0, -2.0, 1.0, -1.0]


@pytest.mark.parametrize(
    ("position", "reach", "size", "cells"),
    [
        (2.5, 1.0, 6, (1, 3)), (-3.0, 1.0, 6, (0, 0)), (9.0, 1.0, 6, (4, 4)), (4.9, 0.2, 6, (4, 4)),
        (0.2, 0.5, 6, (0, 0)), (3.0, 0.0, 6, (3, 3)), (0.0, 2.0, 1, (0, 0)), (2.0, 9.0, 6, (0, 4)),
    ],
)  # fmt: skip
def test_cells_within_reach_are_those_that_the_grid_has(position, reach, size, cells) -> None:
    assert exact._cell_range.py_func(position, reach, size) == cells


def test_the_nearest_place_of_a_cell_is_as_far_as_the_point_lies_beside_it() -> None:
    q, sigma = (1.5, -0.9, 0.2), (2.0, 0.5, 1.0)
    assert exact._nearest_squared.py_func(q, sigma, (5, 6, 7)) == pytest.approx(2.0**2 + 0.2**2)
    assert exact._nearest_squared.py_func(q, sigma, (1, 6, 7)) == pytest.approx(0.2**2)
    assert exact._nearest_squared.py_func(q, sigma, (5, 1, 7)) == pytest.approx(2.0**2)
    assert exact._nearest_squared.py_func((0.2, 0.3, -2.5), sigma, (2, 2, 2)) == pytest.approx(2.0**2)


def test_the_bound_of_a_box_is_the_least_of_the_convex_problem_and_its_place() -> None:
    for k in range(25):
        terms = RNG.normal(0, [2, 1, 1, 0.3, 1, 0.3, 0.3, 0.3])
        if k % 2:
            terms[[3, 5, 6, 7]] = 0.0
        q, sigma, half = RNG.uniform(-1.5, 1.5, 3), RNG.uniform(0.3, 2, 3), RNG.uniform(0.1, 0.5, 3)
        stray = abs(terms[3]) * half[1] * half[2] + abs(terms[5]) * half[0] * half[2]
        stray += abs(terms[6]) * half[0] * half[1] + abs(terms[7]) * half.prod()
        start = np.clip(q, -half, half)
        sign = 1.0 if terms[0] + terms[[4, 2, 1]] @ start > 0 else -1.0

        def excess(v, terms=terms, sign=sign, stray=stray):  # type: ignore[no-untyped-def]
            return max(sign * (terms[0] + terms[[4, 2, 1]] @ v) - stray, 0.0)

        wanted, place = least_of_box(excess, q, sigma, half)
        lower, v = exact._box_bound(tuple(terms), tuple(q), tuple(sigma), tuple(half))
        assert lower == pytest.approx(wanted, rel=1e-4, abs=1e-5), k
        assert v == pytest.approx(place, abs=0.02), k
        assert np.all(np.abs(v) <= half)


# --- the cells about a voxel --------------------------------------------------------------------------------------


def test_the_steepest_of_the_cells_comes_first_and_the_first_of_equal_ones() -> None:
    work = np.zeros(8 * near.ROWS * near.RUN)
    slopes = work.reshape(8, near.ROWS, near.RUN)[:, 0]
    slopes[:, 4] = [1, 2, 9, 3, 9, 0, 1, 2]
    slopes[:, 5] = [5, 1, 1, 1, 1, 1, 1, 4]
    slopes[:, 6] = [5, 1, 1, 1, 1, 1, 1, 6]
    assert [near._steepest_cell.py_func(work, 8, j) for j in (4, 5, 6)] == [2, 0, 7]
    assert near._steepest_cell.py_func(work, 7, 6) == 0


def test_a_bin_is_that_of_the_place_and_the_ends_take_what_lies_beyond() -> None:
    assert [near._bin.py_func(back, 4) for back in (0.3, 0.0, -0.24, -0.26, -0.5, -0.99, -2.0)] == [0, 0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize(("axis", "term"), [(0, 4), (1, 2), (2, 1)])
def test_the_first_sample_is_sought_where_the_plane_of_the_cell_comes_nearest(axis: int, term: int) -> None:
    # 1 at the voxel, falling by 2 over the cell along one axis: nearest at 2 / (1 + 2²) = 0.4 of it.
    terms, bins = np.zeros(8), (4, 7, 6)
    terms[term] = -2.0
    wanted = [0, 0, 0]
    wanted[axis] = int(0.4 * bins[axis])
    flat = ((3 * 4 + wanted[0]) * 7 + wanted[1]) * 6 + wanted[2]
    assert near._likely_bin(tuple(terms), (1.0, 1.0, 1.0), bins, 3) == flat
    # A cell half as long as the criterion: at 2 / 0.25 / (1 + 4 / 0.25) = 0.47; one of 4 criteria: at 0.115.
    for length, share in ((0.5, 8 / 17), (4.0, 0.125 / 1.25)):
        sigma = [1.0, 1.0, 1.0]
        sigma[axis] = length
        wanted[axis] = int(share * bins[axis])
        flat = ((1 * 4 + wanted[0]) * 7 + wanted[1]) * 6 + wanted[2]
        assert near._likely_bin(tuple(terms), tuple(sigma), bins, 1) == flat
