"""Signed distances of the phantom's shapes at points where a hand can work them out."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.phantom.shapes import Space, blend, smooth_path, tube

SPACE = Space.of_grid(Grid((11, 11, 21), (1.0, 1.0, 1.0), (-5.0, -5.0, -10.0)), (0.0, 0.0, 0.0), 0.0)


def test_a_tube_needs_two_points() -> None:
    with pytest.raises(ValueError, match="a tube needs two points, found 1"):
        tube(SPACE, [(0.0, 0.0, 0.0)], [1.0])


def test_a_tube_is_as_far_off_as_its_nearest_rod_and_narrows_evenly() -> None:
    found = tube(SPACE, [(-4.0, 0.0, 0.0), (4.0, 0.0, 0.0), (4.0, 4.0, 0.0)], [1.0, 3.0, 3.0])
    at = {(x, y): float(found[5, 5 + y, 10 + x]) for x in (-8, -4, 0, 4, 9) for y in (0, 5)}
    assert at[-4, 0] == pytest.approx(-1.0, abs=0.05)
    assert at[0, 0] == pytest.approx(-2.0, abs=0.05)
    assert at[4, 0] == pytest.approx(-3.0, abs=0.05)
    assert at[-8, 0] == pytest.approx(3.0, abs=0.05)
    assert at[9, 0] == pytest.approx(2.0, abs=0.05)
    assert at[4, 5] == pytest.approx(-2.0, abs=0.05)


@pytest.mark.parametrize(("first", "second"), [(2.0, 30.0), (-4.0, 9.0), (5.0, 5.0), (0.0, 0.0)])
def test_a_blend_is_the_nearer_shape_and_rounds_off_where_both_are_near(first: float, second: float) -> None:
    one, other = np.float32([[[first]]]), np.float32([[[second]]])
    found = float(blend(one, other, 8.0)[0, 0, 0])
    assert found == float(blend(other, one, 8.0)[0, 0, 0])
    if abs(first - second) >= 8.0:
        assert found == min(first, second)
    else:
        assert min(first, second) - 8.0 / 2 < found < min(first, second)


def test_a_smooth_path_passes_its_points() -> None:
    points = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 5.0], [10.0, 10.0, 0.0], [0.0, 12.0, 1.0]])
    path = smooth_path(points, 4)
    assert path[::4] == pytest.approx(points)
    assert len(path) == 13
