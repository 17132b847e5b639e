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
