"""How far and how wide outlines are looked at, and between which values: each number from both sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.project.protocol import Protocol
from doseledger.gates.data.placement import Placement, measure_placement

Healthy = Callable[[int], Case]
Box = tuple[slice, slice, slice]
BODY: Box = (slice(4, 20), slice(10, 30), slice(14, 34))
ORGAN: Box = (slice(8, 14), slice(15, 23), slice(20, 28))


def filled(box: Box) -> np.ndarray:
    mask = np.zeros((24, 40, 48), bool)
    mask[box] = True
    return mask


def halves(low: float, high: float) -> np.ndarray:
    """Two values in turn, in a pattern that no outline follows."""
    return np.where(np.indices((24, 40, 48)).sum(axis=0) % 2, low, high)


@pytest.fixture
def place(healthy: Healthy, protocol: Protocol) -> Callable[..., dict[str, Placement]]:
    """place(ct_hu, dose_gy, body, organ): a box of a body with a box of an organ, which is its main target too."""
    case = healthy(1)

    def run(
        ct_hu: np.ndarray, dose_gy: np.ndarray | None = None, body: Box = BODY, organ: np.ndarray | None = None
    ) -> dict[str, Placement]:
        mask = filled(ORGAN) if organ is None else organ
        names = case.structure_names
        masks = np.stack([mask if name in ("PTV70", "Rectum") else np.zeros_like(mask) for name in names])
        dose = None if dose_gy is None else dose_gy.astype(np.float32)
        found = replace(
            case, ct_hu=ct_hu.astype(np.int16), body=filled(body), masks=masks, dose_gy=dose,
            present=masks.any(axis=(1, 2, 3)), prescription_gy={"PTV70": 70.0},
        )  # fmt: skip
        return measure_placement(found, protocol)

    return run


@pytest.mark.parametrize(("rows", "is_seen"), [(1, True), (2, False)])
def test_skin_is_looked_at_within_six_mm(rows: int, is_seen: bool, place: Callable[..., dict[str, Placement]]) -> None:
    # Voxels of 6 mm: one on either side. `rows` counts them outwards from the body's right side.
    image = np.where(filled(BODY), 0, -1000)
    image[BODY[0], BODY[1], BODY[2].start - rows] = -500
    assert (place(image)["skin"].fit < 0.999) is is_seen


@pytest.mark.parametrize(("by", "is_tried"), [(1, True), (2, True), (3, False), (4, True), (5, False), (8, True)])
def test_skin_is_moved_by_up_to_twelve_mm_and_by_25_and_50(
    by: int, is_tried: bool, place: Callable[..., dict[str, Placement]]
) -> None:
    image = np.where(np.roll(filled(BODY), by, axis=2), 0, -1000)
    assert (place(image)["skin"].where == f"moved by +{6 * by:.1f} mm along x") is is_tried


@pytest.mark.parametrize(("length", "is_tried"), [(18, True), (10, False)])
def test_half_of_an_outline_stays_in_the_image_where_it_is_moved(
    length: int, is_tried: bool, place: Callable[..., dict[str, Placement]]
) -> None:
    # Two voxels off the edge and moved by eight: six columns of its length leave the image.
    body = (slice(4, 20), slice(10, 30), slice(2, 2 + length))
    image = np.where(np.pad(filled(body), ((0, 0), (0, 0), (0, 8)))[:, :, 8:], 0, -1000)
    assert (place(image, body=body)["skin"].where == "moved by -48.0 mm along x") is is_tried


@pytest.mark.parametrize(("voxels", "is_told"), [(9, False), (10, True)])
def test_an_outline_of_ten_voxels_tells_something(
    voxels: int, is_told: bool, place: Callable[..., dict[str, Placement]]
) -> None:
    organ = np.zeros((24, 40, 48), bool)
    organ[10, 20, 20 : 20 + voxels] = True
    fit = place(np.where(organ, 100, 0), organ=organ)["organ"].fit
    assert math.isfinite(fit) is is_told


# What, the window, two values inside and two outside, and whether the window leaves one value on each side.
WINDOWS = [
    ("skin", (0, 500), (-1000, -2000), True),
    ("skin", (-900, -400), (-1000, -1000), False), ("skin", (-100, 0), (-1000, -1000), False),
    ("organ", (300, 900), (-200, -900), True), ("organ", (290, 900), (-200, -900), False),
    ("organ", (150, 290), (-200, -200), False), ("organ", (300, 300), (-190, -80), False),
    ("dose", (70, 77), (49, 20), True), ("dose", (65, 77), (49, 20), False), ("dose", (70, 70), (55, 20), False),
    ("dose_skin", (3.5, 70), (0, 0), True), ("dose_skin", (3.2, 70), (0, 0), False),
    ("dose_skin", (1.3, 3.4), (0, 0), False),
]  # fmt: skip


@pytest.mark.parametrize(("what", "inside", "outside", "is_flat"), WINDOWS)
def test_values_beyond_a_window_are_cut(
    what: str,
    inside: tuple[float, float],
    outside: tuple[float, float],
    is_flat: bool,
    place: Callable[..., dict[str, Placement]],
) -> None:
    mask = filled(BODY if what.endswith("skin") else ORGAN)
    values = np.where(mask, halves(*inside), halves(*outside))
    image = np.where(filled(BODY), 0, -1000) if what.startswith("dose") else values
    fit = place(image, values)[what].fit
    assert fit > 0.01
    assert (fit > 0.99999) is is_flat


@pytest.mark.parametrize(("by", "is_found"), [(0, True), (4, True), (-4, True), (5, False)])
def test_a_mirrored_dose_is_looked_for_up_to_25_mm_off(
    by: int, is_found: bool, place: Callable[..., dict[str, Placement]]
) -> None:
    # The box of the body lies in the middle: what is mirrored about another middle is off to one side.
    dose = np.roll(np.where(filled(BODY), 60.0, 0.0), by, axis=2)
    found = place(np.where(filled(BODY), 0, -1000), dose)["dose_skin"]
    assert (found.best > 0.999) is is_found
