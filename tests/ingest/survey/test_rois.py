"""Volumes of contours for a survey: known areas, holes, and any number of contours on a plane."""

from __future__ import annotations

import time

import numpy as np
import pytest

from doseledger.ingest.survey.rois import volume_cc

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def square(side_mm: float, at_xy: tuple[float, float] = (0.0, 0.0), n_edges: int = 4) -> np.ndarray:
    """A square about a point, its edges cut into equal parts."""
    turn = np.arange(n_edges) / (n_edges / 4)
    along, edge = turn % 1.0, turn.astype(int)
    here, there = CORNERS[edge], CORNERS[(edge + 1) % 4]
    return (here + along[:, None] * (there - here) - 0.5) * side_mm + at_xy


@pytest.mark.parametrize(("sides_mm", "area_mm2"), [
    ([10.0], 100.0), ([20.0, 10.0], 300.0), ([20.0, 10.0, 4.0], 316.0), ([4.0, 20.0, 10.0], 316.0),
    (list(range(2, 42, 2)), float(sum((-1) ** k * (40 - 2 * k) ** 2 for k in range(20)))),
])  # fmt: skip
def test_loops_within_loops_are_holes_and_islands_in_any_order(sides_mm: list[float], area_mm2: float) -> None:
    assert volume_cc([(0.0, square(side)) for side in sides_mm], 5.0) == pytest.approx(area_mm2 * 5.0 / 1000.0)


def test_a_small_loop_beside_a_large_one_is_no_hole() -> None:
    beside = [(0.0, square(20.0)), (0.0, square(4.0, (15.0, 0.0)))]
    assert volume_cc(beside, 5.0) == pytest.approx((400.0 + 16.0) * 5.0 / 1000.0)


def test_two_thousand_loops_on_a_plane_take_no_time() -> None:
    rng = np.random.default_rng(1)
    loops = [(0.0, square(1.0 + 0.001 * k, tuple(rng.uniform(-40, 40, 2)), 40)) for k in range(2000)]
    started = time.process_time()
    assert volume_cc(loops, 3.0) is not None
    assert time.process_time() - started < 5.0


def test_a_volume_that_nobody_can_tell_in_time_is_none() -> None:
    nested = [(0.0, square(1000.0 - 0.1 * k, n_edges=4000)) for k in range(300)]
    assert volume_cc([*nested, *[(0.0, square(0.01 + 1e-6 * k)) for k in range(200)]], 3.0) is None
