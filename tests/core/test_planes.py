"""Positions of planes: one plane within the tolerance, two beyond it, steps that rounding does not move."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.planes import common_step_mm, even_planes, find_planes, same_plane_mm


@pytest.mark.parametrize(("apart_mm", "n_planes"), [(0.0, 1), (0.01, 1), (0.06, 1), (0.25, 1), (0.26, 2), (3.0, 2)])
def test_positions_within_a_quarter_of_a_millimetre_are_one_plane(apart_mm: float, n_planes: int) -> None:
    for start in (0.0, -1234.567, 87.3):
        planes_mm, plane_of = find_planes(np.array([start + apart_mm, start, start]))
        assert len(planes_mm) == n_planes
        assert plane_of.tolist() == ([0, 0, 0] if n_planes == 1 else [1, 0, 0])


@pytest.mark.parametrize(("step_mm", "within_mm"), [(5.0, 0.25), (1.0, 0.25), (0.8, 0.2), (0.4, 0.1)])
def test_on_thin_slices_the_tolerance_is_a_quarter_of_their_distance(step_mm: float, within_mm: float) -> None:
    assert same_plane_mm(step_mm) == pytest.approx(within_mm)


def test_slices_finer_than_the_tolerance_stay_apart() -> None:
    planes_mm, _ = find_planes(np.arange(20) * 0.2)
    np.testing.assert_allclose(planes_mm, np.arange(20) * 0.2)


def test_the_order_of_positions_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    position = np.repeat(np.arange(12) * 1.25, 3) + rng.uniform(-0.1, 0.1, 36)
    planes_mm, plane_of = find_planes(position)
    turned = rng.permutation(36)
    again_mm, again_of = find_planes(position[turned])
    np.testing.assert_array_equal(planes_mm, again_mm)
    np.testing.assert_array_equal(plane_of[turned], again_of)
    assert len(planes_mm) == 12


@pytest.mark.parametrize("step_mm", [0.5, 0.625, 1.0, 1.25, 2.0, 2.5, 3.0, 5.0])
def test_rounding_to_a_tenth_of_a_millimetre_moves_no_step(step_mm: float) -> None:
    for start in (0.0, 0.03, -88.765):
        planes_mm = np.round(start + step_mm * np.arange(24), 1)
        step = common_step_mm(planes_mm)
        assert step is not None
        even = even_planes(planes_mm, step)
        assert even is not None
        assert even[1] == pytest.approx(step_mm, rel=0.005)
        np.testing.assert_allclose(even[0], start + step_mm * np.arange(24), atol=0.06)


def test_missing_planes_leave_their_places_empty_and_uneven_planes_are_none() -> None:
    even = even_planes(np.array([0.0, 3.0, 9.0, 12.0]), 3.0)
    assert even is not None
    np.testing.assert_allclose(even[0], [0.0, 3.0, 9.0, 12.0])
    assert even_planes(np.array([0.0, 3.0, 8.0, 13.0]), 3.0) is None
    assert even_planes(np.array([0.0, 1.0, 3.0, 4.0]), 3.0) is None
    assert even_planes(np.array([7.0]), 3.0) is None
    assert common_step_mm(np.array([7.0])) is None
    assert common_step_mm(np.array([0.0, 3.0, 9.0])) == pytest.approx(3.0)


def test_a_plane_lies_at_the_median_of_its_positions() -> None:
    planes_mm, plane_of = find_planes(np.array([5.2, 0.0, 0.2, 5.0, 0.1, 9.0, 5.1, 5.05]))
    np.testing.assert_allclose(planes_mm, [0.1, 5.075, 9.0])
    assert plane_of.tolist() == [1, 0, 0, 1, 0, 2, 1, 1]
    assert plane_of.dtype == np.intp


@pytest.mark.parametrize(
    ("position_mm", "within_mm", "wanted_mm"),
    [
        # A run of 0.5 mm may be rounding of one plane; a longer one is planes of its own, told at a quarter of a step.
        ([0.0, 0.25, 0.5], 0.25, [0.25]),
        ([0.0, 0.25, 0.51], 0.25, [0.125, 0.51]),
        ([0.0, 0.24, 0.49, 0.51], 0.25, [0.0, 0.24, 0.5]),
        ([0.0, 0.24, 0.48, 0.72], 0.25, [0.0, 0.24, 0.48, 0.72]),
        ([0.0, 0.04, 0.24, 0.28, 0.48, 0.52], 0.25, [0.02, 0.26, 0.5]),
        ([0.0, 0.07, 0.31, 0.38, 0.62], 0.25, [0.0, 0.07, 0.31, 0.38, 0.62]),
        ([0.0, 0.2, 0.4, 9.0, 9.1], 0.1, [0.0, 0.2, 0.4, 9.05]),
        ([7.0], 0.25, [7.0]),
    ],
)
def test_a_run_of_positions_longer_than_rounding_is_planes_of_their_own(
    position_mm: list[float], within_mm: float, wanted_mm: list[float]
) -> None:
    found_mm, plane_of = find_planes(np.array(position_mm), within_mm)
    assert len(found_mm) == len(wanted_mm), found_mm
    np.testing.assert_allclose(found_mm, wanted_mm, atol=1e-9)
    assert sorted(set(plane_of.tolist())) == list(range(len(wanted_mm)))


@pytest.mark.parametrize(
    ("planes_mm", "step_mm"),
    [
        ([0.0, 5.0, 8.0, 13.0, 16.0], 3.0),
        ([0.0, 5.0, 8.0, 13.0, 18.0, 21.0], 5.0),
        ([0.0, 1.3, 2.5, 3.8, 5.0, 11.0], 1.25),
        # On thin slices a quarter of the step is told apart, and not 0.1 mm.
        ([0.0, 0.2, 0.4, 0.7, 1.0], 0.2),
        ([0.0, 0.2, 0.4, 0.64, 0.88], 0.22),
        ([0.0, 2.0, 4.1, 6.0, 8.05], 2.0125),
    ],
)
def test_the_commonest_step_is_the_mean_of_those_that_rounding_makes_differ(
    planes_mm: list[float], step_mm: float
) -> None:
    assert common_step_mm(np.array(planes_mm)) == pytest.approx(step_mm, abs=1e-9)


def test_even_planes_lie_on_the_line_of_least_squares() -> None:
    planes_mm = np.array([10.0, 13.1, 16.0, 22.0, 25.2])
    found = even_planes(planes_mm, 3.0)
    assert found is not None
    step_mm, start_mm = np.polyfit([0, 1, 2, 4, 5], planes_mm, 1)
    assert found[1] == pytest.approx(step_mm)
    np.testing.assert_allclose(found[0], start_mm + step_mm * np.array([0, 1, 2, 4, 5]))


@pytest.mark.parametrize(("step_mm", "is_even"), [(3.24, True), (3.26, False), (2.76, True), (2.74, False)])
def test_the_step_of_even_planes_is_the_one_that_was_given_within_the_tolerance(step_mm: float, is_even: bool) -> None:
    assert (even_planes(np.array([0.0, 3.0]), step_mm) is not None) is is_even
    assert (even_planes(np.array([0.0, 3.0, 6.0]), step_mm) is not None) is is_even


def test_two_planes_of_one_place_are_not_even() -> None:
    assert even_planes(np.array([0.0, 1.4, 4.4]), 3.0) is None
    assert even_planes(np.array([0.0, 1.4]), 3.0) is None
