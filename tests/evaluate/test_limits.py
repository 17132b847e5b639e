"""What is measured over no voxel or is no number is refused; where nothing was judged nothing is acceptable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.evaluate.case import CaseMetrics, _goal_counts, absolute_errors, error_masks
from doseledger.evaluate.files.dvh import _nothing_measured
from doseledger.evaluate.refusals import refuse_unfit
from doseledger.evaluate.segmentation import agreement
from doseledger.evaluate.shortcuts.ablation import (
    _shift_voxels,
    drop_share,
    mean_change_gy,
    move_share,
    prescription_gain,
    with_raised_prescription,
)
from doseledger.evaluate.shortcuts.labels import LabelTemplate
from doseledger.evaluate.summary import _worst_cases


@pytest.fixture
def case(make_case: Callable[..., Case]) -> Case:
    return make_case()


def dose_of(case: Case) -> np.ndarray:
    assert case.dose_gy is not None
    return case.dose_gy


@pytest.mark.parametrize("name", ["body", "valid_dose"])
def test_an_error_over_no_voxel_is_refused_and_not_left_out_of_the_mean(name: str, case: Case) -> None:
    empty = replace(case, **{name: np.zeros_like(case.body)})
    with pytest.raises(BadCase, match=f"case_0001: {name} has no voxel, so no error can be measured"):
        absolute_errors(empty, dose_of(case))


def test_a_plan_without_dose_has_no_error_above_a_tenth(case: Case) -> None:
    cold = replace(case, dose_gy=np.full_like(dose_of(case), 6.9))
    with pytest.raises(BadCase, match="above_10_percent has no voxel"):
        absolute_errors(cold, dose_of(case))
    warm = replace(case, dose_gy=np.full_like(dose_of(case), 7.1))
    assert absolute_errors(warm, dose_of(warm))["mae_above_10_percent_gy"] == 0.0


def test_an_absent_structure_has_no_error(case: Case) -> None:
    found = absolute_errors(case, dose_of(case))
    assert math.isnan(found["mae_Bowel_gy"])
    assert found["mae_body_gy"] == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_plan_or_a_prediction_with_what_is_no_number_is_refused(value: float, case: Case) -> None:
    spoilt = dose_of(case).copy()
    spoilt[3, 4, 5] = value
    with pytest.raises(BadCase, match="the plan's dose or prescription is not finite"):
        refuse_unfit(replace(case, dose_gy=spoilt), dose_of(case), case.grid)
    with pytest.raises(BadCase, match="the plan's dose or prescription is not finite"):
        refuse_unfit(replace(case, prescription_gy={"PTV70": value}), dose_of(case), case.grid)
    with pytest.raises(BadCase, match="the prediction is not finite in 1 voxels"):
        refuse_unfit(case, spoilt, case.grid)


def row(acceptable: bool | None, gating: bool = True) -> dict[str, Any]:
    return {
        "gating": gating, "plan_met": acceptable, "prediction_met": acceptable, "plan_acceptable": acceptable,
        "prediction_acceptable": acceptable,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "acceptable"),
    [
        ([row(True), row(None)], True), ([row(True), row(False)], False), ([row(None), row(None)], False),
        ([row(True, gating=False)], False), ([], False),
    ],
)  # fmt: skip
def test_a_prediction_is_acceptable_only_where_a_gating_goal_was_judged(
    rows: list[dict[str, Any]], acceptable: bool
) -> None:
    assert _goal_counts(rows)["prediction_acceptable"] is acceptable


def test_an_answer_over_no_voxel_is_none(case: Case) -> None:
    nothing = replace(case, body=np.zeros_like(case.body), masks=np.zeros_like(case.masks))
    assert math.isnan(mean_change_gy(nothing, dose_of(case), dose_of(case)))
    assert math.isnan(prescription_gain(nothing, dose_of(case), dose_of(case)))


@pytest.mark.parametrize(("dose_gy", "is_above"), [(7.001, True), (6.999, False), (7.6, True), (2.4, False)])
def test_a_voxel_above_a_tenth_of_the_prescription_counts(dose_gy: float, is_above: bool, case: Case) -> None:
    dose = np.full_like(dose_of(case), dose_gy)
    assert error_masks(replace(case, dose_gy=dose))["above_10_percent"].all() == is_above


@pytest.mark.parametrize(("n_cases", "n_worst"), [(1, 1), (10, 1), (11, 2), (20, 2), (21, 3)])
def test_the_worst_tenth_of_the_cases_is_named(n_cases: int, n_worst: int) -> None:
    rows = [{"case_id": f"c{k:02d}", "mae_above_10_percent_gy": float(k)} for k in range(n_cases)]
    named = _worst_cases([CaseMetrics(row, [], [], None) for row in rows])
    assert len(named["worst_decile"].split(", ")) == n_worst
    assert named["worst_case"] == f"c{n_cases - 1:02d}"


def test_95_percent_of_differences_lie_within_1_96_spreads() -> None:
    found = agreement(np.array([10.0, 14.0, 12.0]), np.array([10.0, 10.0, 10.0]))
    assert found["volume_bias_cc"] == pytest.approx(2.0)
    assert found["volume_agreement_low_cc"] == pytest.approx(2.0 - 1.96 * 2.0)
    assert found["volume_agreement_high_cc"] == pytest.approx(2.0 + 1.96 * 2.0)


@pytest.mark.parametrize(("n_there", "is_said"), [(4, True), (5, True), (3, False), (0, False)])
def test_the_template_of_labels_says_what_half_of_the_cases_have(n_there: int, is_said: bool, case: Case) -> None:
    template = LabelTemplate(("Rectum",))
    empty = replace(case, masks=np.zeros_like(case.masks))
    for number in range(8):
        template.add(case if number < n_there else empty)
    assert (template.labels_on(case) > 0).any() == is_said


def test_the_prescription_is_raised_by_a_tenth_and_the_targets_go_15_mm(case: Case) -> None:
    raised = with_raised_prescription(case, np.random.default_rng(1))
    assert raised.prescription_gy == pytest.approx({"PTV70": 77.0, "PTV56": 61.6})
    fine = replace(case, grid=replace(case.grid, spacing_mm=(6.0, 6.0, 1.0)))
    assert _shift_voxels(fine) == 15
    assert _shift_voxels(replace(case, grid=replace(case.grid, spacing_mm=(6.0, 6.0, 40.0)))) == 1


@pytest.mark.parametrize(("share", "is_left"), [(0.4, 35.0), (0.49, 35.0), (0.51, 56.0), (1.0, 56.0)])
def test_a_target_that_covers_half_of_another_is_what_its_dose_should_fall_to(
    share: float, is_left: float, case: Case
) -> None:
    inside = case.mask("PTV70")
    masks = case.masks.copy()
    masks[case.structure_names.index("PTV56")] = False
    voxels = np.argwhere(inside)
    masks[case.structure_names.index("PTV56")][tuple(voxels[: round(share * len(voxels))].T)] = True
    dose = dose_of(case)
    fallen = drop_share(replace(case, masks=masks), dose, dose - (70.0 - is_left))
    assert fallen == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("gy", "share"), [(34.9, 0.0), (35.1, 2.0)])
def test_the_high_dose_begins_at_half_of_the_highest_prescription(gy: float, share: float, case: Case) -> None:
    # Four voxels of 6 mm, of the two by which targets are moved.
    before, after = np.zeros((2, *case.grid.shape_zyx), np.float32)
    before[10, 20, 20] = after[10, 20, 24] = gy
    assert move_share(case, before, after) == pytest.approx(share)


@pytest.mark.parametrize(("n", "more"), [(5, ""), (6, "; and 1 more"), (20, "; and 15 more")])
def test_five_reasons_are_told(n: int, more: str) -> None:
    text = _nothing_measured({f"r{k}": {"reason": "no contour"} for k in range(n)}, "a", "b", None)
    assert text.count("no contour") == 5
    assert text.endswith(f"no contour{more}")
