"""Contours slice by slice: as drawn to the last digit, interpolated where none is, empty between parts."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.dicom.contour_layers import layers_of
from doseledger.dicom.contours import stack_contours

GRID = Grid((5, 120, 120), (3.0, 0.25, 0.25), (0.0, -15.0, -15.0))


def square(half_mm: float, x_mm: float = 0.0) -> np.ndarray:
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_mm + [x_mm, 0.0]


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def test_a_slice_with_contours_has_them_as_drawn() -> None:
    drawn = [(0.0, square(4.03)), (3.01, square(5.02))]
    layers = layers_of(stack_contours(drawn, GRID, "case_0001", "Rectum")[0], GRID)
    assert [z for z, _ in layers] == [0.0, 3.0, 6.0, 9.0, 12.0]
    assert [polygons[0] is drawn[i][1] for i, (_, polygons) in enumerate(layers[:2])] == [True, True]
    assert [polygons for _, polygons in layers[2:]] == [[], [], []]


def test_a_slice_without_contours_is_filled_in_between() -> None:
    stack, notes = stack_contours([(0.0, square(4.0)), (6.0, square(8.0))], GRID, "case_0001", "Rectum")
    between = layers_of(stack, GRID)[1][1]
    assert "interpolated there" in notes[0]
    assert sum(area(run) for run in between) == pytest.approx(12.0**2, rel=0.05)


def test_nothing_is_filled_in_between_parts_apart() -> None:
    stack, _ = stack_contours([(0.0, square(2.0, -8.0)), (6.0, square(2.0, 8.0))], GRID, "case_0001", "Nodes")
    assert layers_of(stack, GRID)[1][1] == []
