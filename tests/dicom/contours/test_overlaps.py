"""Contours over one another: copies counted once; holes, keyholes, walls and neighbours left what they are."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.dicom.contours import rasterise, stack_contours
from doseledger.dicom.contours.overlaps import count_once, find_overlaps

PLANE = Grid((1, 512, 512), (3.0, 0.5, 0.5), (0.0, -128.0, -128.0))
IMAGE = Grid((8, 512, 512), (3.0, 0.5, 0.5), (0.0, -128.0, -128.0))


def circle(radius: float, x: float = 0.0, y: float = 0.0, n: int = 64) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)])


def keyhole(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    return np.vstack([outer, outer[:1], hole[::-1], hole[-1:], outer[:1]])


def area_mm2(polygons: list[np.ndarray]) -> float:
    return float(rasterise(polygons, PLANE).sum()) * 0.25


RNG = np.random.default_rng(5)
COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "begun elsewhere": lambda p: np.roll(p, 7, axis=0),
    "reversed": lambda p: p[::-1],
    "rounded to 0.1 mm": lambda p: np.round(p, 1),
    "rounded to 1 mm": lambda p: np.round(p),
    "rounded, reversed and begun elsewhere": lambda p: np.roll(np.round(p[::-1], 1), 11, axis=0),
    "closed by its first point": lambda p: np.vstack([p, p[:1]]),
    "every second point": lambda p: p[::2],
    "every fourth point": lambda p: p[::4],
    "moved by 0.1 mm": lambda p: p + 0.1,
    "a little noise": lambda p: p + RNG.uniform(-0.1, 0.1, p.shape),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("radius", [4.0, 20.0, 90.0])
def test_a_near_copy_counts_once(how: str, radius: float) -> None:
    drawn = circle(radius, n=128)
    for pair in ([drawn, COPIES[how](drawn)], [COPIES[how](drawn), drawn]):
        once = count_once(pair)
        assert once.n_copies == 1
        assert area_mm2(once.polygons) == pytest.approx(area_mm2([drawn]), rel=0.01 + 0.3 / radius)


@pytest.mark.parametrize(("moved_mm", "n_copies"), [(0.80, 1), (0.97, 0)])
def test_copies_are_apart_by_a_fifth_of_what_they_hold_at_most(moved_mm: float, n_copies: int) -> None:
    # Two squares of 8 mm, d apart, differ by 2 d / (8 + d) of their union: 0.18 and 0.22.
    drawn = np.array([[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [0.0, 8.0]])
    assert count_once([drawn, drawn + np.array([moved_mm, 0.0])]).n_copies == n_copies


@pytest.mark.parametrize(("times", "is_traced_once"), [(16, True), (17, False)])
def test_a_contour_that_comes_back_sixteen_times_is_no_longer_looked_into(times: int, is_traced_once: bool) -> None:
    drawn = circle(20.0)
    once = count_once([np.vstack([drawn] * times)])
    assert len(once.polygons[0]) == (64 if is_traced_once else 64 * times)


def test_of_copies_the_same_one_stays_whatever_their_order() -> None:
    drawn = circle(20.0)
    copies = [np.round(drawn, 1), drawn, drawn[::-2], np.roll(np.round(drawn, 2), 5, axis=0)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        once = count_once([copies[i] for i in order])
        assert once.n_copies == 3
        assert area_mm2(once.polygons) == area_mm2(count_once(copies).polygons)


@pytest.mark.parametrize(
    "second",
    [
        circle(10.0), circle(19.5), circle(19.5, 0.4), circle(1.0, 60.0), circle(10.0, 30.0), circle(20.0, 41.0),
        circle(20.0, 1.0)[:3],
    ],
    ids=["hole", "thin wall", "thin wall on one side", "part apart", "neighbour", "equal part apart", "sliver"],
)  # fmt: skip
def test_holes_walls_and_other_parts_stay(second: np.ndarray) -> None:
    assert count_once([circle(20.0), second]).n_copies == 0
    assert len(count_once([circle(20.0), second]).polygons) == 2


def test_a_keyhole_stays_a_hole_and_its_copy_counts_once() -> None:
    ring = keyhole(circle(20.0), circle(12.0))
    once = count_once([ring])
    assert once.n_copies == 0
    assert once.polygons[0] is ring
    wanted = np.pi * (400 - 144)
    for copy in (ring[::-1], np.round(ring, 1)):
        twice = count_once([ring, copy])
        assert twice.n_copies == 1
        assert area_mm2(twice.polygons) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_contour_traced_over_itself_counts_once(times: int) -> None:
    drawn = circle(20.0)
    for traced in (np.vstack([drawn] * times), np.vstack([drawn, *[np.round(drawn, 1)] * (times - 1)])):
        once = count_once([traced])
        assert once.n_copies == 1
        assert area_mm2(once.polygons) == pytest.approx(area_mm2([drawn]), rel=0.01)


def test_an_outer_contour_and_its_hole_both_there_twice_are_a_ring() -> None:
    parts = [circle(20.0), circle(10.0), np.round(circle(20.0), 1), circle(10.0)[::-1]]
    once = count_once(parts)
    assert once.n_copies == 2
    assert area_mm2(once.polygons) == pytest.approx(np.pi * 300, rel=0.02)


def test_copies_are_told_with_their_planes() -> None:
    drawn = [(3.0 * k, circle(20.0)) for k in range(8)]
    copies = [(3.0 * k + 0.06, np.round(circle(20.0)[::-1], 1)) for k in (2, 5)]
    stack, notes = stack_contours(drawn + copies, IMAGE, "case_1", "PTV70")
    assert notes == ["2 contours of PTV70 are near-copies of others and count once, at z 6.0, 15.0 mm"]
    assert [len(plane) for plane in stack.polygons] == [1] * 8


def test_contours_cross_where_a_smaller_one_lies_neither_in_nor_out() -> None:
    outer = circle(20.0)
    for second in (circle(10.0, 20.0), circle(15.0, 12.0), circle(19.0, 25.0)):
        assert find_overlaps([outer, second], PLANE).is_crossing
        assert find_overlaps([second, circle(3.0), outer, circle(2.0, 60.0)], PLANE).is_crossing
    for second in (circle(10.0), circle(10.0, 30.5), circle(5.0, 60.0), circle(19.5)):
        assert not find_overlaps([outer, second], PLANE).is_crossing
    nested = [circle(r) for r in (100.0, 80.0, 60.0, 40.0, 20.0)]
    assert not find_overlaps([*nested, circle(4.0, 50.0), circle(2.0, 50.0)], PLANE).is_crossing
    assert find_overlaps([*nested, circle(8.0, 60.0)], PLANE).is_crossing


def test_many_contours_on_a_plane_take_no_quadratic_time() -> None:
    def seconds(n: int) -> float:
        drawn = [(3.0, circle(125.0 - 120.0 * i / n)) for i in range(n)]
        start = time.process_time()
        stack_contours(drawn, IMAGE, "case_1", "Shells")
        return time.process_time() - start

    seconds(10)
    # 11.6 s where each was compared with every other one.
    assert seconds(200) < 1.5


@pytest.mark.parametrize(
    ("others", "is_told"),
    [
        ([circle(20.0, 1.0)], True), ([circle(20.5)], True), (list(np.split(circle(20.0), 2)), True),
        ([circle(20.0, n=6)], False), ([circle(17.0)], False), ([circle(10.0, -5.0), circle(10.0, 15.0)], False),
    ],
    ids=["moved", "a wall of 0.5 mm", "its halves", "too coarse to be one", "a wall of 3 mm", "two holes"],
)  # fmt: skip
def test_contours_that_take_one_another_away_are_told(others: list[np.ndarray], is_told: bool) -> None:
    planes = [(3.0 * k, polygon) for k in range(8) for polygon in (circle(20.0), *others)]
    _, notes = stack_contours(planes, IMAGE, "case_1", "PTV70")
    assert any("leave less than a tenth of the largest at z 0.0, 3.0" in note for note in notes) == is_told


def test_a_shift_that_neither_copies_nor_touches_crosses() -> None:
    for second in (circle(20.0, 1.0), circle(20.0, 38.0)):
        assert find_overlaps([circle(20.0), second], PLANE).is_crossing


def rectangle(left: float, low: float, wide: float, high: float) -> np.ndarray:
    return np.array([[left, low], [left + wide, low], [left + wide, low + high], [left, low + high]])


@pytest.mark.parametrize(("moved_mm", "n_copies"), [(0.35, 0), (0.65, 1)])
def test_outlines_of_which_each_sticks_out_by_a_fifth_weave_and_are_copies(moved_mm: float, n_copies: int) -> None:
    # Two sides of a square of 40 mm lie 0.98 mm farther out, a third one farther in: 15 or 25 % of what is not shared.
    drawn, second = rectangle(0.0, 0.0, 40.0, 40.0), rectangle(moved_mm, 0.0, 40.98 - moved_mm, 40.98)
    assert count_once([drawn, second]).n_copies == n_copies


@pytest.mark.parametrize(("spike_mm", "n_copies"), [(0.6, 1), (0.72, 0)])
def test_boxes_of_copies_differ_by_a_quarter_of_the_larger_at_most(spike_mm: float, n_copies: int) -> None:
    drawn = np.vstack([np.linspace(a, b, 8, endpoint=False) for a, b in zip(
        rectangle(0, 0, 2, 2), np.roll(rectangle(0, 0, 2, 2), -1, axis=0), strict=True)])  # fmt: skip
    spiked = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [2.0 + spike_mm, 1.02], [2.0, 1.04], [2.0, 2.0], [0.0, 2.0]])
    assert count_once([drawn, spiked]).n_copies == n_copies


@pytest.mark.parametrize(("wide", "high", "shared", "is_crossing"), [
    # Of 100 pixels a tenth, of 400 twenty and of 3,600 a rounding of 0.1 mm along the border, which is 48.
    (20, 5, 2, False), (20, 5, 3, True), (20, 20, 1, False), (20, 20, 2, True), (60, 60, 0, False), (60, 60, 1, True),
    (45, 80, 0, False), (80, 45, 1, False), (80, 45, 2, True),
])  # fmt: skip
def test_contours_that_share_a_few_pixels_touch(wide: int, high: int, shared: int, is_crossing: bool) -> None:
    # In pixels of 0.5 mm whose centres lie on whole ones; so many columns are shared.
    large = rectangle(-60.25, -60.25, 60.0, 100.0)
    small = rectangle(-0.25 - 0.5 * shared, -20.25, 0.5 * wide, 0.5 * high)
    assert find_overlaps([large, small], PLANE).is_crossing is is_crossing


@pytest.mark.parametrize(("left", "is_told"), [(4, True), (5, False)])
def test_contours_that_leave_a_tenth_of_the_largest_are_a_wall(left: int, is_told: bool) -> None:
    # Of 50 columns of 20 pixels so many are left.
    large, small = rectangle(0.25, 0.25, 25.0, 10.0), rectangle(0.25, 0.25, 25.0 - 0.5 * left, 10.0)
    assert find_overlaps([large, small], PLANE).is_cancelling is is_told


@pytest.mark.parametrize(("high", "is_told"), [(19, False), (20, True)])
def test_of_fewer_than_twenty_pixels_nothing_is_told(high: int, is_told: bool) -> None:
    speck = rectangle(0.25, 0.25, 0.5, 0.5 * high)
    assert find_overlaps([speck, speck], PLANE).is_cancelling is is_told
