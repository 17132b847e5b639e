"""Planes of a structure on an image: what must not move its mask, and what must be told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.contours import Contour, Stack, beyond_image, fill, stack_contours, stack_on_own_planes

SLICES_MM = [1.0, 1.25, 3.0]
DISC, HOLE, PART = 20.0, 8.0, 10.0


def circle(radius: float, x: float = 0.0, y: float = 0.0, n: int = 64) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)])


def image(slice_mm: float) -> Grid:
    return Grid((24, 80, 120), (slice_mm, 1.0, 1.0), (-30.0, -40.0, -40.0))


def slices(slice_mm: float, first: int = 4, last: int = 17, off_mm: float = 0.0) -> list[float]:
    return [-30.0 + slice_mm * k + off_mm for k in range(first, last + 1)]


def drawn(slice_mm: float, part_off_mm: float = 0.0, hole_off_mm: float = 0.0) -> list[Contour]:
    """A disc with a hole, and a part apart: one that a wrong plane loses, fills or shortens."""
    contours = [(z, circle(DISC)) for z in slices(slice_mm)]
    contours += [(z + hole_off_mm, circle(HOLE, 2.0)) for z in slices(slice_mm, 6, 15)]
    return contours + [(z + part_off_mm, circle(PART, 50.0)) for z in slices(slice_mm, 5, 14)]


def stack(contours: list[Contour], slice_mm: float) -> Stack:
    return stack_contours(contours, image(slice_mm), "case_1", "PTV70")[0]


def mask(contours: list[Contour], slice_mm: float) -> np.ndarray:
    return fill(stack(contours, slice_mm), image(slice_mm))


def volume_cc(contours: list[Contour], slice_mm: float) -> float:
    return float(mask(contours, slice_mm).sum()) * image(slice_mm).voxel_volume_cc


RNG = np.random.default_rng(3)


def jittered(contours: list[Contour]) -> list[Contour]:
    return [(z + float(RNG.uniform(-0.12, 0.12)), points) for z, points in contours]


def shuffled(contours: list[Contour]) -> list[Contour]:
    return [contours[i] for i in RNG.permutation(len(contours))]


def halved(contours: list[Contour]) -> list[Contour]:
    """Each contour as two that share an edge."""
    found = []
    for z, points in contours:
        n = len(points) // 2
        found += [(z, points[: n + 1]), (z, np.vstack([points[n:], points[:1]]))]
    return found


CHANGES: dict[str, Callable[[list[Contour]], list[Contour]]] = {
    "z jittered": jittered,
    "z rounded to 0.1 mm": lambda contours: [(round(z + 1e-9, 1), points) for z, points in contours],
    "reordered": shuffled,
    "run the other way": lambda contours: [(z, points[::-1]) for z, points in contours],
    "begun elsewhere": lambda contours: [(z, np.roll(points, 9, axis=0)) for z, points in contours],
    "cut in halves": halved,
    "some there twice": lambda contours: contours + [(z + 0.01, np.round(p[::-1], 1)) for z, p in contours[3:6]],
    "all there twice": lambda contours: contours + [(z - 0.02, np.roll(p, 5, axis=0)) for z, p in contours],
}


@pytest.mark.parametrize("slice_mm", SLICES_MM)
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_file_may_say_otherwise_moves_no_voxel(change: str, slice_mm: float) -> None:
    contours = drawn(slice_mm)
    np.testing.assert_array_equal(mask(CHANGES[change](contours), slice_mm), mask(contours, slice_mm))


@pytest.mark.parametrize("slice_mm", SLICES_MM)
@pytest.mark.parametrize("off_mm", [0.01, -0.06, 0.1, 0.2])
def test_a_part_or_a_hole_a_little_off_its_slices_is_neither_lost_nor_filled(off_mm: float, slice_mm: float) -> None:
    whole = mask(drawn(slice_mm), slice_mm)
    np.testing.assert_array_equal(mask(drawn(slice_mm, part_off_mm=off_mm), slice_mm), whole)
    np.testing.assert_array_equal(mask(drawn(slice_mm, hole_off_mm=off_mm), slice_mm), whole)


@pytest.mark.parametrize("slice_mm", SLICES_MM)
@pytest.mark.parametrize("share", [0.5, -0.5, 0.4])
def test_a_part_drawn_between_the_slices_keeps_its_volume_and_leaves_the_others(share: float, slice_mm: float) -> None:
    contours = drawn(slice_mm, part_off_mm=share * slice_mm)
    found, whole = mask(contours, slice_mm), mask(drawn(slice_mm), slice_mm)
    np.testing.assert_array_equal(found[:, :, :65], whole[:, :, :65])
    assert found[:, :, 65:].sum() == whole[:, :, 65:].sum()
    assert len(list(stack(contours, slice_mm).parts())) == 2


@pytest.mark.parametrize("slice_mm", SLICES_MM)
@pytest.mark.parametrize("share", [0.4, 0.5, -0.5])
def test_a_hole_drawn_between_the_slices_is_taken_away_whole(share: float, slice_mm: float) -> None:
    contours = drawn(slice_mm, hole_off_mm=share * slice_mm)
    assert mask(contours, slice_mm).sum() == mask(drawn(slice_mm), slice_mm).sum()
    assert [part.is_hole for part in stack(contours, slice_mm).parts()] == [False, True]


@pytest.mark.parametrize("slice_mm", SLICES_MM)
@pytest.mark.parametrize("digits", [1, 6])
def test_a_structure_half_a_slice_off_the_image_has_its_number_of_slices(slice_mm: float, digits: int) -> None:
    for last in range(8, 16):
        contours = [(round(z, digits), circle(DISC)) for z in slices(slice_mm, 4, last, slice_mm / 2)]
        assert mask(contours, slice_mm).any(axis=(1, 2)).sum() == len(contours)


def test_a_structure_drawn_on_finer_slices_ends_half_of_these_beyond_its_contours() -> None:
    # 30 planes of 1 mm on an image of 3 mm: from -15.5 to 14.5 mm.
    for start in (-15.0, -14.0, -13.3):
        contours = [(start + k, circle(DISC)) for k in range(30)]
        z = image(3.0).axes_mm()[0][mask(contours, 3.0).any(axis=(1, 2))]
        assert start - 0.5 - 1e-6 <= z.min()
        assert z.max() <= start + 29.5 + 1e-6
        assert len(z) in (10, 11)


def test_contours_beyond_the_tolerance_are_told() -> None:
    # A wall of the hole's own size: not to be told from the outer contour, as a hole would be.
    contours = [(z, circle(DISC)) for z in slices(3.0)] + [(z + 0.6, circle(19.0)) for z in slices(3.0)]
    _, notes = stack_contours(contours, image(3.0), "case_1", "PTV70")
    assert "PTV70 has contours off its slices of 3 mm, at z -18.0, -15.0, -12.0, -9.0, -6.0 and 9 more mm" in notes[0]
    assert stack_contours(drawn(3.0, hole_off_mm=0.2), image(3.0), "case_1", "PTV70")[1] == []


@pytest.mark.parametrize(
    ("z_mm", "is_beyond"), [(40.5, False), (40.59, False), (40.61, True), (-31.5, False), (-31.7, True)]
)
def test_half_a_slice_beyond_the_image_is_within_it_to_a_rounding(z_mm: float, is_beyond: bool) -> None:
    assert beyond_image(np.array([z_mm]), image(3.0)).tolist() == [is_beyond]


@pytest.mark.parametrize(("apart_mm", "is_taken"), [(10.0, True), (10.1, False), (29.0, False)])
def test_planes_lie_ten_mm_apart_at_most(apart_mm: float, is_taken: bool) -> None:
    contours = [(-20.0 + apart_mm * k, circle(DISC)) for k in range(3)]
    if is_taken:
        assert stack_on_own_planes(contours, image(3.0), "case_1", "PTV70")[0].slice_mm == 10.0
        return
    words = rf"case_1: contours are {apart_mm:.1f} mm apart, wanted at most 10 mm: what lies between can't be told"
    with pytest.raises(BadCase, match=words):
        stack_on_own_planes(contours, image(3.0), "case_1", "PTV70")


@pytest.mark.parametrize(("n_gaps", "n_more"), [(5, 0), (6, 1), (7, 2)])
def test_five_gaps_between_parts_are_named_and_the_others_counted(n_gaps: int, n_more: int) -> None:
    contours = [(2.0 * k + 60.0 * i, circle(4.0, 9.0 * (-1) ** i)) for i in range(n_gaps + 1) for k in range(3)]
    notes = stack_on_own_planes(contours, image(2.0), "case_1", "PTV70")[1]
    more = [f"PTV70 has {n_more} more gaps between separate parts"] * bool(n_more)
    assert notes[5:] == more
    assert notes[:2] == [
        "PTV70 has separate parts: nothing is drawn between z 4.0 and 60.0 mm",
        "PTV70 has separate parts: nothing is drawn between z 64.0 and 120.0 mm",
    ]


def test_more_contours_on_a_plane_than_anybody_draws_are_refused() -> None:
    speck = circle(0.2, n=3)
    contours = [(-18.0, speck + 0.5 * np.array(divmod(i, 80))) for i in range(5001)]
    with pytest.raises(BadCase, match="PTV70 has 5001 contours on a plane, wanted at most 5000"):
        stack(contours, 3.0)
    assert len(stack(contours[:-1], 3.0).polygons[0]) == 5000
    many = [(0.3 * k, speck) for k in range(5001)]
    with pytest.raises(BadCase, match="PTV70 has contours on 5001 planes, wanted at most 5000"):
        stack_on_own_planes(many, image(3.0), "case_1", "PTV70")
