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
from doseledger.evaluate.case import _goal_counts, absolute_errors
from doseledger.evaluate.refusals import refuse_unfit
from doseledger.evaluate.shortcuts.ablation import mean_change_gy, prescription_gain


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
