"""Overlap measures: known answers, properties, absent structures, a second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from doseledger.evaluate.overlap import MEASURES, mean_overlap, measure_of, measure_overlap
from doseledger.evaluate.segmentation import agreement, structures_of, summarise_segmentations

SPACING = (2.0, 1.0, 1.0)


def cube(shift: int = 0, size: int = 8) -> np.ndarray:
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask[8 : 8 + size, 8 : 8 + size, 8 + shift : 8 + shift + size] = True
    return mask


def test_a_cube_moved_by_a_quarter_has_the_overlaps_and_distances_of_its_geometry() -> None:
    found = measure_overlap(cube(2), cube(), SPACING, 1.0)
    assert found["dice"] == pytest.approx(0.75)
    assert found["iou"] == pytest.approx(0.6)
    assert found["hd95_mm"] == pytest.approx(2.0)
    assert 0.5 < found["surface_dice"] < 0.9
    assert measure_overlap(cube(2), cube(), SPACING, 2.0)["surface_dice"] == pytest.approx(1.0)
    whole = measure_overlap(cube(), cube(), SPACING, 1.0)
    assert whole == {"dice": 1.0, "iou": 1.0, "hd95_mm": 0.0, "surface_dice": 1.0}


def test_distances_count_in_mm_and_overlaps_do_not() -> None:
    moved = np.roll(cube(), 2, axis=0)
    near, far = (measure_overlap(moved, cube(), (mm, 1.0, 1.0), 1.0) for mm in (1.0, 3.0))
    assert far["hd95_mm"] == pytest.approx(3 * near["hd95_mm"])
    assert far["dice"] == near["dice"]


def test_either_mask_may_be_the_reference_and_room_around_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = (ndimage.gaussian_filter(rng.random((12, 14, 16)), 2) > 0.5 for _ in range(2))
    there, back = measure_overlap(ours, theirs, SPACING, 1.0), measure_overlap(theirs, ours, SPACING, 1.0)
    assert there == pytest.approx(back)
    wide = measure_overlap(np.pad(ours, 9), np.pad(theirs, 9), SPACING, 1.0)
    assert wide == pytest.approx(there)


def test_the_hausdorff_distance_is_that_of_a_plain_computation() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = (ndimage.gaussian_filter(rng.random((14, 16, 18)), 2) > 0.5 for _ in range(2))

    def one_way(a: np.ndarray, b: np.ndarray) -> float:
        edges = [np.pad(m, 1) & ~ndimage.binary_erosion(np.pad(m, 1)) for m in (a, b)]
        far = ndimage.distance_transform_edt(~edges[1], sampling=SPACING)[edges[0]]
        return float(np.percentile(far, 95))

    wanted = max(one_way(ours, theirs), one_way(theirs, ours))
    assert measure_overlap(ours, theirs, SPACING, 1.0)["hd95_mm"] == pytest.approx(wanted, abs=1e-4)


def test_a_structure_in_neither_has_no_value_and_one_in_one_alone_has_the_worst() -> None:
    nothing = np.zeros((30, 30, 30), dtype=bool)
    assert all(math.isnan(value) for value in measure_overlap(nothing, nothing, SPACING, 1.0).values())
    for pair in ((nothing, cube()), (cube(), nothing)):
        found = measure_overlap(*pair, SPACING, 1.0)
        assert (found["dice"], found["iou"], found["surface_dice"]) == (0.0, 0.0, 0.0)
        assert found["hd95_mm"] == pytest.approx(math.hypot(60, 30, 30))
    rows = [measure_overlap(nothing, nothing, SPACING, 1.0), measure_overlap(cube(), cube(), SPACING, 1.0)]
    assert mean_overlap(rows)["dice"] == 1.0
    assert all(math.isnan(value) for value in mean_overlap(rows[:1]).values())


def test_agreement_of_volumes_is_bias_and_its_limits() -> None:
    found = agreement(np.array([2.0, 3.0, 4.0]), np.array([1.0, 3.0, 5.0]))
    assert found["volume_bias_cc"] == 0.0
    assert found["volume_agreement_high_cc"] == pytest.approx(1.96)
    assert math.isnan(agreement(np.array([2.0]), np.array([1.0]))["volume_agreement_low_cc"])


def row(case_id: str, dice: float) -> dict[str, object]:
    values = {"dice": dice, "iou": dice / 2, "hd95_mm": 1 / max(dice, 0.1), "surface_dice": dice}
    return {"case_id": case_id, **values, **{f"{name}_Heart": value for name, value in values.items()},
            "volume_cc_reference_Heart": 2.0, "volume_cc_prediction_Heart": 2.5}  # fmt: skip


def test_a_summary_is_the_mean_of_its_cases_in_any_order_and_names_the_worst() -> None:
    rows = [row(f"case_{n}", dice) for n, dice in enumerate((0.9, 0.5, 0.8, math.nan, 0.7))]
    summary = summarise_segmentations(rows, np.random.default_rng(1))
    assert summary["dice"] == pytest.approx(0.725)
    assert summary["dice_worst"] == 0.5
    assert summary["hd95_mm_Heart_worst"] == 10.0 or summary["hd95_mm_Heart_worst"] == 2.0
    assert summary["dice_low"] < 0.725 < summary["dice_high"]
    assert summary["volume_bias_cc_Heart"] == 0.5
    # What has no value is the worst that can be.
    assert summary["worst_case"] == "case_3"
    assert summarise_segmentations(rows[::-1], np.random.default_rng(1)) == summary


def test_columns_tell_their_measure_and_structures() -> None:
    assert [measure_of(name) for name in ("surface_dice_Rectum", "dice_iou", "volume_cc_reference_A")] == [
        "surface_dice", "dice", None,
    ]  # fmt: skip
    assert structures_of(row("a", 1.0)) == ["Heart"]
    assert set(MEASURES) == {"dice", "iou", "hd95_mm", "surface_dice"}
