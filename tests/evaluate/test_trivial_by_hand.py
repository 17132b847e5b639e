"""Spoiled inputs, trivial models and label templates on cases of a few voxels, each number worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case, map_member
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.evaluate.shortcuts import ablation, trivial
from doseledger.evaluate.shortcuts.labels import LabelTemplate, blank_dice, mean_dice, placed
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.predict.predictor import Predictor

GRID = Grid((4, 6, 10), (3.0, 2.0, 5.0), (10.0, -5.0, 2.0))
NAMES = ("PTV70", "PTV56", "Rectum", "Bladder")
RNG = np.random.default_rng(1)


def box(z: slice, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[z, y, x] = True
    return mask


BODY = box(slice(0, 4), slice(1, 6), slice(0, 9))
HIGH = box(slice(1, 3), slice(2, 4), slice(3, 5))
LOW = box(slice(1, 3), slice(2, 5), slice(2, 6))
RECTUM, BLADDER = box(slice(1, 3), slice(4, 6), slice(3, 5)), box(slice(0, 1), slice(2, 4), slice(6, 8))


@pytest.fixture
def case(make_case: Callable[..., Case]) -> Case:
    """Two targets, one in the other, and two organs; distances of whole mm up to 50."""
    masks = np.stack([HIGH, LOW, RECTUM, BLADDER])
    sdf = np.where(masks, -3.0, 8.0 + np.arange(4)[:, None, None, None])
    sdf[:, 3, 5, 9] = 50.0
    sdf[2][HIGH], sdf[3][HIGH] = 4.0, 6.0
    return replace(
        make_case(), grid=GRID, structure_names=NAMES, masks=masks, sdf_mm=sdf.astype(np.float16), body=BODY,
        valid_dose=BODY & box(slice(0, 4), slice(0, 6), slice(1, 10)), present=np.ones(4, bool),
        ct_hu=np.arange(240, dtype=np.int16).reshape(GRID.shape_zyx),
        dose_gy=dose_of(HIGH, 70.0) + dose_of(LOW & ~HIGH, 56.0), full_shape_zyx=(9, 9, 20), crop_start_zyx=(2, 1, 5),
    )  # fmt: skip


def dose_of(mask: np.ndarray, gy: float) -> np.ndarray:
    return np.where(mask, gy, 0.0).astype(np.float32)


def same(one: Case, other: Case, *but: str) -> None:
    """Everything of two cases is alike but some fields."""
    for name in (
        "ct_hu",
        "masks",
        "sdf_mm",
        "present",
        "body",
        "valid_dose",
        "dose_gy",
        "grid",
        "prescription_gy",
        "crop_start_zyx",
    ):
        assert np.array_equal(getattr(one, name), getattr(other, name)) is (name not in but), name


# --- alterations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "start", "size"),
    [
        # The middle of PTV70 is at (1.5, 2.5, 3.5), which is voxel (2, 2, 4): half a window before it, and inside.
        ((2, 3, 4), (1, 1, 2), (2, 3, 4)), ((1, 1, 1), (2, 2, 4), (1, 1, 1)), ((4, 5, 9), (0, 0, 0), (4, 5, 9)),
        ((2, 6, 10), (1, 0, 0), (2, 6, 10)), ((9, 9, 9), (0, 0, 0), (4, 6, 9)), ((2, 2, 20), (1, 1, 0), (2, 2, 10)),
    ],
)  # fmt: skip
def test_a_window_lies_about_the_target_and_inside_the_case(case: Case, shape: Any, start: Any, size: Any) -> None:
    window = ablation.cut_window(case, shape)
    cut = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    assert (window.grid.shape_zyx, window.grid.spacing_mm) == (size, GRID.spacing_mm)
    assert window.grid.origin_mm == pytest.approx(GRID.index_to_mm(np.array(start)).tolist())
    assert window.crop_start_zyx == tuple(np.add((2, 1, 5), start))
    assert window.full_shape_zyx == (9, 9, 20)
    for name in ("ct_hu", "body", "valid_dose", "dose_gy"):
        assert np.array_equal(getattr(window, name), getattr(case, name)[cut]), name
    for name in ("masks", "sdf_mm"):
        assert np.array_equal(getattr(window, name), getattr(case, name)[(slice(None), *cut)]), name
    assert ablation.cut_window(replace(case, dose_gy=None), shape).dose_gy is None


def test_a_shuffled_image_has_the_same_values_in_the_body_elsewhere(case: Case) -> None:
    found = ablation.with_shuffled_image(case, np.random.default_rng(1))
    same(found, case, "ct_hu")
    assert np.array_equal(found.ct_hu[~BODY], case.ct_hu[~BODY])
    assert np.array_equal(np.sort(found.ct_hu[BODY]), case.ct_hu[BODY])
    assert (found.ct_hu[BODY] != case.ct_hu[BODY]).mean() > 0.9


def test_prescriptions_are_raised_by_a_tenth_and_swapped(case: Case) -> None:
    raised = ablation.with_raised_prescription(case, RNG)
    same(raised, case, "prescription_gy")
    assert raised.prescription_gy == pytest.approx({"PTV70": 77.0, "PTV56": 61.6})
    swapped = ablation.with_swapped_prescriptions(case, RNG)
    assert swapped is not None
    same(swapped, case, "prescription_gy")
    assert swapped.prescription_gy == {"PTV70": 56.0, "PTV56": 70.0}


def test_the_highest_and_the_lowest_target_change_places(case: Case) -> None:
    three = replace(
        case,
        prescription_gy={"PTV56": 56.0, "Rectum": 60.0, "PTV70": 70.0},
        present=np.array([True, False, True, True]),
    )
    found = ablation.with_swapped_targets(three, RNG)
    assert found is not None
    order = [1, 0, 2, 3]
    same(found, three, "masks", "sdf_mm", "present")
    assert np.array_equal(found.masks, three.masks[order])
    assert np.array_equal(found.sdf_mm, three.sdf_mm[order])
    assert found.present.tolist() == [False, True, True, True]
    empty = np.array(case.masks)
    empty[1] = False
    for one in (
        replace(case, prescription_gy={"PTV70": 70.0}),
        replace(case, masks=empty),
        replace(case, prescription_gy={"PTV70": 60.0, "PTV56": 60.0}),
    ):
        assert ablation.with_swapped_targets(one, RNG) is None
        assert ablation.with_swapped_prescriptions(one, RNG) is None
        assert math.isnan(ablation.swap_share(one, dose_of(HIGH, 1.0), dose_of(LOW, 1.0)))


def test_a_structure_that_is_left_out_is_absent_in_every_array(case: Case) -> None:
    found = ablation.without_structure(case, "Rectum")
    same(found, case, "masks", "sdf_mm", "present")
    assert not found.mask("Rectum").any()
    assert (found.sdf_mm[2] == 50.0).all()
    assert found.present.tolist() == [True, True, False, True]
    assert np.array_equal(found.masks[[0, 1, 3]], case.masks[[0, 1, 3]])
    without = ablation.without_main_target(case, RNG)
    assert without.present.tolist() == [False, True, True, True]
    assert without.prescription_gy == case.prescription_gy


def test_the_organ_that_comes_nearest_to_the_target_is_left_out(case: Case) -> None:
    def gone(one: Case) -> list[str]:
        found = ablation.without_nearest_organ(one, RNG)
        return [] if found is None else [name for name in one.present_names if name not in found.present_names]

    assert gone(case) == ["Rectum"]
    near = np.array(case.sdf_mm)
    near[3][HIGH] = 2.0
    assert gone(replace(case, sdf_mm=near)) == ["Bladder"]
    # What lies within the target by more than half is a part of it, and no neighbour.
    masks = np.array(case.masks)
    masks[2] = HIGH & box(slice(1, 2), slice(0, 6), slice(0, 10))
    assert gone(replace(case, masks=masks)) == ["Bladder"]
    masks[2] = masks[2] | box(slice(3, 4), slice(2, 4), slice(3, 5))
    assert gone(replace(case, masks=masks)) == ["Rectum"]
    assert gone(replace(case, present=np.array([True, True, False, False]))) == []


def test_targets_move_to_the_left_by_15_mm_and_organs_stay(case: Case) -> None:
    found = ablation.with_moved_targets(case, RNG)
    same(found, case, "masks", "sdf_mm")
    # Voxels of 5 mm: by three.
    for index, mask in ((0, HIGH), (1, LOW)):
        assert np.array_equal(found.masks[index], np.roll(mask, 3, axis=2))
        assert (found.sdf_mm[index][..., :3] == 50.0).all()
        assert np.array_equal(found.sdf_mm[index][..., 3:], case.sdf_mm[index][..., :-3])
    assert np.array_equal(found.masks[2:], case.masks[2:])
    assert [
        ablation._shift_voxels(replace(case, grid=replace(GRID, spacing_mm=(1.0, 1.0, mm)))) for mm in (5.0, 4.0, 40.0)
    ] == [3, 4, 1]


# --- how a dose answers -------------------------------------------------------------------------------------------


def test_answers_of_a_dose_are_shares_of_what_physics_says(case: Case) -> None:
    before = dose_of(HIGH, 70.0) + dose_of(LOW & ~HIGH, 56.0)
    assert ablation.mean_change_gy(case, before, before + np.where(HIGH, -9.0, 0.0)) == pytest.approx(9.0 * 8 / 180)
    # Mean of both targets 60.7: twice what a tenth would give.
    assert ablation.prescription_gain(case, before, 1.2 * before) == pytest.approx(2.0)
    assert ablation.prescription_gain(case, np.zeros_like(before), np.full_like(before, 1e-3)) == pytest.approx(
        0.0, abs=1e-6
    )
    assert math.isnan(ablation.swap_share(replace(case, masks=case.masks[[1, 0, 2, 3]]), before, before))
    # 7 of 14 Gy more in the lower target alone.
    rise = before + dose_of(LOW & ~HIGH, 7.0) - dose_of(HIGH, 50.0)
    assert ablation.swap_share(case, before, rise) == pytest.approx(0.5)
    # PTV56 covers PTV70, so its dose may fall by 14 Gy; alone it may fall by half of 70 Gy.
    fall = before - dose_of(HIGH, 7.0)
    assert ablation.drop_share(case, before, fall) == pytest.approx(0.5)
    assert ablation.drop_share(replace(case, prescription_gy={"PTV70": 70.0}), before, fall) == pytest.approx(0.2)
    masks = np.array(case.masks)
    masks[1] = HIGH & box(slice(1, 2), slice(0, 6), slice(0, 10))
    assert ablation.drop_share(replace(case, masks=masks), before, fall) == pytest.approx(0.2)
    masks[1, 2, 2, 3] = True
    assert ablation.drop_share(replace(case, masks=masks), before, fall) == pytest.approx(0.5)
    assert ablation.organ_change_gy(case, before, fall) == pytest.approx(7.0)
    assert ablation.organ_change_gy(case, before, before + 3.0) == pytest.approx(3.0)


def test_the_centre_of_the_high_dose_moves_with_the_targets(case: Case) -> None:
    line = np.zeros(GRID.shape_zyx, np.float32)
    before, after = line.copy(), line.copy()
    # Above 35 Gy: 30 in column 3 and 10 in column 5, so 3.5; then 10 and 30 in columns 4 and 8, so 7.
    before[1, 2, [3, 5, 9]], after[1, 2, [4, 8, 0]] = [65.0, 45.0, 35.0], [45.0, 65.0, 34.0]
    assert ablation.move_share(case, before, after) == pytest.approx(3.5 / 3)
    assert ablation.move_share(case, line, after) == 0.0
    assert ablation.move_share(case, before, line + 35.0) == 0.0


def test_answers_are_asked_in_the_order_of_the_table_and_none_counts_as_nan(case: Case) -> None:
    seen: list[Case] = []

    def predict(one: Case) -> np.ndarray:
        seen.append(one)
        return np.where(one.body, 10.0 * len(seen), 0.0).astype(np.float32)

    found = ablation.ablate_case(
        replace(case, prescription_gy={"PTV70": 70.0}), predict, (4, 6, 8), np.random.default_rng(1)
    )
    assert list(found) == [alteration.name for alteration in ablation.ALTERATIONS]
    assert {one.grid.shape_zyx for one in seen} == {(4, 6, 8)}
    # One before, then five alterations: two need a second target.
    assert len(seen) == 6
    assert found["ct_shuffle_change_gy"] == pytest.approx(10.0)
    assert found["organ_drop_change_gy"] == pytest.approx(50.0)
    assert [name for name, value in found.items() if math.isnan(value)] == [
        "prescription_swap_share",
        "target_swap_share",
    ]
    names = [alteration.name for alteration in ablation.ALTERATIONS]
    rows = {
        "a": dict.fromkeys(names, 1.0),
        "b": dict.fromkeys(names, 4.0) | {names[0]: math.nan},
        "c": dict.fromkeys(names, math.inf),
    }
    means = ablation.mean_answers(rows)
    assert means == {name: 1.0 if name == names[0] else 2.5 for name in names}
    assert all(math.isnan(value) for value in ablation.mean_answers({}).values())


# --- trivial models -----------------------------------------------------------------------------------------------


def test_voxels_are_drawn_from_where_a_dose_is_defined_and_know_their_place(case: Case) -> None:
    inside = np.flatnonzero(case.body & case.valid_dose)
    found = trivial.draw_voxels(case, 1000, np.random.default_rng(1))
    assert np.array_equal(found.index, inside)
    some = trivial.draw_voxels(case, 30, np.random.default_rng(1))
    assert len(some.index) == 30
    assert np.all(np.diff(some.index) > 0)
    assert set(some.index) <= set(inside)
    at = np.column_stack(np.unravel_index(some.index, GRID.shape_zyx))
    assert some.offset_mm == pytest.approx((at - [1.5, 2.5, 3.5]) * [3.0, 2.0, 5.0])
    assert np.array_equal(some.distances_mm, case.sdf_mm.reshape(4, -1)[:, some.index].T)
    assert np.array_equal(some.dose_gy, np.asarray(case.dose_gy).ravel()[some.index])
    assert (some.case_id, some.prescription_gy) == ("case_0001", 70.0)
    for change, message in (
        ({"dose_gy": None}, "no plan dose or no prescription"),
        ({"prescription_gy": {}}, "no plan dose or no prescription"),
        ({"valid_dose": np.zeros_like(BODY)}, "not one voxel of the body has a dose"),
    ):  # fmt: skip
        with pytest.raises(BadCase, match=message):
            trivial.draw_voxels(replace(case, **change), 10, RNG)


def test_a_template_is_the_mean_dose_about_the_targets_centre_and_holds_its_edge(case: Case) -> None:
    ramp = np.broadcast_to(7.0 * np.arange(10, dtype=np.float32), GRID.shape_zyx)
    masks = np.array(case.masks)
    masks[0] = box(slice(1, 3), slice(2, 4), slice(4, 5))
    case = replace(case, masks=masks)
    fit = trivial.TemplateFit()
    fit.add(replace(case, dose_gy=np.array(ramp)))
    fit.add(replace(case, dose_gy=np.array(ramp) + 14.0))
    template = fit.result()
    assert template.dose.shape == (73, 73, 105)
    # The lattice's middle, (36, 36, 52), is the target's centre in column 4.
    assert template.dose[36, 36, 52:57] == pytest.approx([(7 * x + 7) / 70 for x in (4, 5, 6, 7, 8)])
    assert template.dose[36, 36, 58:].max() == 0.0
    voxels = trivial.Voxels(
        "c",
        np.arange(3),
        np.array([[0.0, 0.0, 2.5], [0.0, 0.0, 400.0], [0.0, 0.0, 0.0]]),
        np.zeros((3, 4)),
        np.zeros(3),
        60.0,
    )
    found = template.predict(voxels)
    assert found == pytest.approx(
        [
            30.0 * (template.dose[36, 36, 52] + template.dose[36, 36, 53]),
            60.0 * template.dose[36, 36, 104],
            60.0 * template.dose[36, 36, 52],
        ]
    )
    with pytest.raises(BadInput, match="no training case to take a mean dose of"):
        trivial.TemplateFit().result()
    with pytest.raises(BadCase, match="no plan dose or no prescription"):
        fit.add(replace(case, dose_gy=None))


def test_errors_are_compared_everywhere_and_above_a_tenth_of_the_prescription() -> None:
    dose = np.array([0.0, 7.0, 7.1, 70.0])
    voxels = trivial.Voxels("case_9", np.arange(4), np.zeros((4, 3)), np.zeros((4, 1)), dose, 70.0)
    found = trivial.compare_doses(voxels, {"model": dose + np.array([1.0, -2.0, 3.0, -6.0]), "prior": dose})
    assert found == {
        "case_id": "case_9", "model_mae_gy": 3.0, "model_mae_above_10_percent_gy": 4.5, "prior_mae_gy": 0.0,
        "prior_mae_above_10_percent_gy": 0.0,
    }  # fmt: skip
    low = trivial.compare_doses(replace(voxels, dose_gy=dose / 100.0), {"model": dose})
    assert math.isnan(low["model_mae_above_10_percent_gy"])


def test_a_model_is_held_against_each_rival_that_all_cases_have() -> None:
    first = {"model_mae_gy": 1.0, "model_mae_above_10_percent_gy": 2.0, "prior_mae_gy": 4.0,
             "prior_mae_above_10_percent_gy": 0.0, "template_mae_gy": 2.0,
             "template_mae_above_10_percent_gy": 8.0, "base_mae_gy": 3.0}  # fmt: skip
    second = first | {"model_mae_gy": 3.0, "template_mae_above_10_percent_gy": math.nan}
    del second["base_mae_gy"]
    assert trivial.mae_ratios([first, second]) == {
        "template_mae_ratio": 1.0, "template_mae_ratio_above_10_percent": 0.25, "prior_mae_ratio": 0.5,
        "prior_mae_ratio_above_10_percent": math.inf,
    }  # fmt: skip


# --- labels -------------------------------------------------------------------------------------------------------


def test_an_array_is_cut_or_widened_about_its_middle() -> None:
    line = np.arange(1.0, 8.0).reshape(1, 1, 7)
    assert placed(line, (1, 1, 3)).ravel().tolist() == [3, 4, 5]
    assert placed(line, (1, 1, 4)).ravel().tolist() == [2, 3, 4, 5]
    assert placed(line, (1, 1, 9)).ravel().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert placed(line, (1, 1, 10)).ravel().tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 0]
    many = np.arange(120.0).reshape(2, 3, 4, 5)
    found = placed(many, (1, 6, 5))
    assert found.shape == (2, 1, 6, 5)
    assert np.array_equal(found[:, 0, 1:5], many[:, 1])
    assert not found[:, 0, [0, 5]].any()


def test_a_template_says_what_half_of_the_training_cases_have_there(case: Case) -> None:
    template = LabelTemplate(("Rectum", "Bladder"))
    with pytest.raises(BadCase, match="no training case to lay on it"):
        template.labels_on(case)
    template.add(case)
    other = np.array(case.masks)
    other[2], other[3] = False, RECTUM & box(slice(1, 2), slice(0, 6), slice(0, 10))
    template.add(replace(case, masks=other))
    assert template.n_cases == 2
    labels = template.labels_on(case)
    # Half of the cases have either: of two that are as frequent the first.
    assert np.array_equal(labels == 1, RECTUM)
    assert np.array_equal(labels == 2, BLADDER)
    template.add(replace(case, masks=other))
    again = template.labels_on(case)
    assert np.array_equal(again == 2, other[3])
    assert not (again == 1).any()


def test_dice_is_the_mean_over_what_either_has(case: Case) -> None:
    labels = np.zeros(GRID.shape_zyx, np.uint8)
    labels[RECTUM & box(slice(1, 2), slice(0, 6), slice(0, 10))] = 1
    names = ("Rectum", "Bladder")
    # 2 * 4 / (4 + 8) of the rectum, nothing of the bladder.
    assert mean_dice(labels, case, names) == pytest.approx((2 / 3 + 0.0) / 2)
    masks = np.array(case.masks)
    masks[3] = False
    assert mean_dice(labels, replace(case, masks=masks), names) == pytest.approx(2 / 3)
    assert math.isnan(mean_dice(np.zeros_like(labels), replace(case, masks=np.zeros_like(masks)), names))


def test_a_blank_image_is_the_bodys_median_everywhere(case: Case) -> None:
    seen: list[np.ndarray] = []

    def segment(one: OpenCase) -> dict[str, Any]:
        seen.append(np.array(map_member(one.file.path, "ct_hu")))
        return {"labels": np.where(RECTUM, 1, 0).astype(np.uint8), "structure_names": np.asarray(["Rectum"])}

    checkpoint: Any = SimpleNamespace(model="seg", beams=None, trained_on={}, selected_on={})
    assert blank_dice(Predictor(checkpoint, "d" * 64, {}, segment), case) == 1.0
    assert np.unique(seen[0]).tolist() == [int(np.median(case.ct_hu[BODY]))]
