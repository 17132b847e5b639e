"""Contours as layers: as drawn to the last digit, interpolated where none is, empty between parts."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.contours import Contour, Layer, layers_of, rasterise, stack_on_own_planes
from doseledger.dicom.contours.interleave import _alternating

GRID = Grid((1, 120, 120), (1.0, 0.25, 0.25), (0.0, -15.0, -15.0))


def square(half_mm: float, x_mm: float = 0.0) -> np.ndarray:
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half_mm + [x_mm, 0.0]


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def layers(drawn: list[Contour]) -> tuple[list[Layer], list[str]]:
    stack, notes = stack_on_own_planes(drawn, GRID, "case_0001", "Rectum")
    return layers_of(stack, GRID), notes


def test_planes_at_even_steps_are_slabs_about_their_contours_as_drawn() -> None:
    drawn = [(0.0, square(4.03)), (3.0, square(5.02)), (6.0, square(5.0))]
    found, notes = layers(drawn)
    assert [layer.contours[0] is polygon for layer, (_, polygon) in zip(found, drawn, strict=True)] == [True] * 3
    assert [layer.z_mm for layer in found] == pytest.approx([0.0, 3.0, 6.0])
    assert [layer.thickness_mm for layer in found] == pytest.approx([3.0] * 3)
    assert notes == []


def test_rounded_planes_are_put_at_even_steps() -> None:
    found, notes = layers([(round(1.25 * k + 1e-9, 1), square(4.0)) for k in range(20)])
    assert [layer.thickness_mm for layer in found] == pytest.approx([1.25] * 20, rel=0.002)
    assert notes == []


def test_uneven_planes_reach_half_way_to_one_another() -> None:
    found, _ = layers([(z, square(4.0)) for z in (0.0, 3.0, 6.0, 11.0, 16.0)])
    # The gaps of 5 mm lack a slice of 3 mm each, which is filled in midway.
    assert sum(layer.thickness_mm for layer in found) == pytest.approx(16.0 + 3.0)
    bottoms = [layer.z_mm - layer.thickness_mm / 2 for layer in found]
    tops = [layer.z_mm + layer.thickness_mm / 2 for layer in found]
    assert bottoms[1:] == pytest.approx(tops[:-1])


def test_a_slice_without_contours_is_filled_in_between() -> None:
    found, notes = layers([(0.0, square(4.0)), (6.0, square(8.0)), (9.0, square(8.0)), (12.0, square(8.0))])
    assert "Rectum has no contour on 1 slices inside it" in notes[0]
    assert found[1].z_mm == pytest.approx(3.0)
    assert sum(area(run) for run in found[1].contours) == pytest.approx(12.0**2, rel=0.05)


def test_nothing_is_filled_in_between_parts_apart() -> None:
    found, notes = layers([(z, square(2.0, x)) for z, x in ((0, -8), (3, -8), (9, 8), (12, 8))])
    assert [layer.z_mm for layer in found] == pytest.approx([0.0, 3.0, 9.0, 12.0])
    assert [layer.thickness_mm for layer in found] == pytest.approx([3.0] * 4)
    assert "nothing is drawn between z 3.0 and 9.0 mm" in notes[0]


def volume_mm3(found: list[Layer]) -> float:
    """Volume of layers whose contours are apart or nested, by the even-odd rule on fine pixels."""
    fine = Grid((1, 600, 600), (1.0, 0.05, 0.05), (0.0, -15.0, -15.0))
    return sum(layer.thickness_mm * rasterise(layer.contours, fine).sum() * 0.0025 for layer in found)


@pytest.mark.parametrize("off_mm", [0.6, 1.0, 1.5, -0.8])
def test_parts_on_planes_between_one_another_keep_their_volumes(off_mm: float) -> None:
    first = [(3.0 * k, square(4.0, -8.0)) for k in range(6)]
    second = [(3.0 * k + off_mm, square(2.0, 8.0)) for k in range(5)]
    found, notes = layers(second + first)
    assert volume_mm3(found) == pytest.approx(64.0 * 18.0 + 16.0 * 15.0, rel=0.001)
    bottoms = [layer.z_mm - layer.thickness_mm / 2 for layer in found]
    assert np.all(np.diff(bottoms) > 0)
    assert notes == []


@pytest.mark.parametrize("off_mm", [0.6, 1.0, 1.5, -0.8])
def test_a_hole_on_planes_between_is_taken_away_and_no_farther_than_its_shape(off_mm: float) -> None:
    outer = [(3.0 * k, square(8.0)) for k in range(8)]
    found, notes = layers(outer + [(3.0 * k + off_mm, square(4.0)) for k in range(2, 6)])
    assert volume_mm3(found) == pytest.approx(256.0 * 24.0 - 64.0 * 12.0, rel=0.001)
    assert notes == []
    # From end to end, the hole sticks out by so much.
    through, _ = layers(outer + [(3.0 * k + off_mm, square(4.0)) for k in range(8)])
    assert volume_mm3(through) == pytest.approx((256.0 - 64.0) * 24.0 + 64.0 * abs(off_mm), rel=0.001)


def test_a_lens_and_a_thin_oblique_strand_have_no_holes() -> None:
    for drawn in (
        [(3.0 * k, square(half)) for k, half in enumerate((4.0, 9.0, 4.0))],
        [(3.0 * k, square(half)) for k, half in enumerate((2.0, 6.0, 9.0, 9.5, 9.0, 6.0, 2.0))],
        [(3.0 * k, square(1.0, 3.0 * k - 9.0)) for k in range(7)],
    ):
        found, notes = layers(drawn)
        assert volume_mm3(found) == pytest.approx(sum(3.0 * area(polygon) for _, polygon in drawn), rel=0.001)
        assert notes == []


def test_one_plane_has_no_thickness_and_planes_far_apart_have_none_that_is_known() -> None:
    with pytest.raises(BadCase, match="all contours lie on one slice: how thick it is can't be told"):
        layers([(3.0, square(4.0)), (3.04, square(1.0, 9.0))])
    stack, _ = stack_on_own_planes([(3.0, square(4.0))], GRID, "case_0001", "Wire", lone_mm=2.0)
    assert [layer.thickness_mm for layer in layers_of(stack, GRID)] == [2.0]
    layers([(z, square(4.0)) for z in (0.0, 9.9)])
    with pytest.raises(BadCase, match=r"contours are 10\.1 mm apart, wanted at most 10 mm"):
        layers([(z, square(4.0)) for z in (0.0, 10.1)])


def planes_of(*rows: range) -> np.ndarray:
    """A shape of whole rows a plane, of 1,000 pixels each."""
    shapes = np.zeros((len(rows), 20, 1000), bool)
    for shape, held in zip(shapes, rows, strict=True):
        shape[list(held)] = True
    return shapes


@pytest.mark.parametrize(("inner", "is_hole"), [(11, True), (12, False)])
def test_holes_have_two_fifths_less_in_common_with_the_planes_beside(inner: int, is_hole: bool) -> None:
    found = _alternating(planes_of(*[range(20), range(inner)] * 3))
    assert found.tolist() == [False, is_hole] * 3


@pytest.mark.parametrize(("beyond", "is_hole"), [(1, True), (2, False)])
def test_nine_tenths_of_a_hole_lie_within_the_planes_about_it(beyond: int, is_hole: bool) -> None:
    # Ten rows, of which so many lie beside the eighteen of the other planes: a tenth, or two.
    found = _alternating(planes_of(*[range(18), range(8 + beyond, 18 + beyond)] * 3))
    assert found.tolist() == [False, is_hole] * 3


@pytest.mark.parametrize(("n_planes", "is_hole"), [(3, False), (4, True)])
def test_shapes_alternate_twice_before_any_is_a_hole(n_planes: int, is_hole: bool) -> None:
    found = _alternating(planes_of(*([range(20), range(4)] * 3)[:n_planes]))
    assert found.tolist() == ([False, is_hole] * 3)[:n_planes]


@pytest.mark.parametrize("n_missing", [4, 5])
def test_four_slices_are_filled_in_and_no_more(n_missing: int) -> None:
    drawn = [(z, square(4.0)) for z in (0.0, 2.0, 4.0, 4.0 + 2.0 * (n_missing + 1))]
    if n_missing == 4:
        assert "has no contour on 4 slices inside it" in layers(drawn)[1][0]
        return
    with pytest.raises(BadCase, match=r"no contour on 5 slices between z 4\.0 and 16\.0 mm, wanted at most 4"):
        layers(drawn)
