"""Metrics of a case: named masks, statistics, goals and gamma; and each thing that is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.settings import EvaluateSettings, GammaSettings
from doseledger.core.tables import DVH_METRICS, GOAL_METRICS, check_table
from doseledger.evaluate import case as metrics
from doseledger.evaluate.case import CaseMetrics, Yardsticks
from doseledger.evaluate.refusals import refuse_seen, refuse_unfit
from doseledger.evaluate.summary import summarise

GAMMA = GammaSettings(
    gamma_percent=3.0, gamma_mm=3.0, cutoff_percent=10.0, local=False, interp_fraction=4, max_gamma=2.0
)


@pytest.fixture
def yardsticks(repository: Path) -> Yardsticks:
    return Yardsticks(
        protocol=load_protocol(repository / "validation/cohorts/phantom/protocol.yaml"),
        goals=load_goals(repository / "validation/cohorts/phantom/goals.yaml"),
        settings=EvaluateSettings(
            gamma=[GAMMA],
            surface_tolerance_mm=1.0,
            verify_gamma_points=0,
            dvh_statistics={"target": ["D95%", "CI"], "organ": ["mean", "D2cc"]},
        ),
    )


@pytest.fixture
def case(make_case: Callable[..., Case]) -> Case:
    return make_case()


def evaluate_case(case: Case, prediction_gy: np.ndarray, yardsticks: Yardsticks) -> CaseMetrics:
    return metrics.evaluate_case(case, prediction_gy, yardsticks, np.random.default_rng(1))


def dose_of(case: Case) -> np.ndarray:
    assert case.dose_gy is not None
    return case.dose_gy


def test_the_plan_itself_is_a_perfect_prediction(case: Case, yardsticks: Yardsticks) -> None:
    found = evaluate_case(case, dose_of(case).copy(), yardsticks)
    assert found.row["gamma_3_3_global_percent"] == 100.0
    assert found.row["mae_body_gy"] == 0.0
    assert all(row["difference"] == 0 or row["reason"] for row in found.dvh)
    assert found.row["plan_goals_met"] == found.row["prediction_goals_met"]
    assert all(row["plan_met"] == row["prediction_met"] for row in found.goals)


def test_each_error_is_the_mean_under_the_mask_that_names_it(case: Case, yardsticks: Yardsticks) -> None:
    prediction = dose_of(case).copy()
    prediction[case.mask("PTV70")] += 2.0
    row = evaluate_case(case, prediction, yardsticks).row
    n_changed = int(case.mask("PTV70").sum())
    assert row["mae_PTV70_gy"] == pytest.approx(2.0, abs=1e-5)
    assert row["mae_body_gy"] == pytest.approx(2.0 * n_changed / case.body.sum(), rel=1e-5)
    assert row["mae_above_10_percent_gy"] == pytest.approx(2.0 * n_changed / (dose_of(case) > 7.0).sum(), rel=1e-5)
    assert row["mae_body_gy"] < row["mae_above_10_percent_gy"] < row["mae_PTV70_gy"]
    assert math.isnan(row["mae_Bowel_gy"])


def test_dvh_rows_have_plan_prediction_and_their_difference(case: Case, yardsticks: Yardsticks) -> None:
    rows = evaluate_case(case, dose_of(case) + np.float32(1.0), yardsticks).dvh
    check_table(pd.DataFrame(rows), DVH_METRICS, "dvh")
    by_name = {(row["structure"], row["statistic"]): row for row in rows}
    assert by_name["Rectum", "mean"]["difference"] == pytest.approx(1.0, abs=1e-4)
    assert by_name["PTV70", "D95%"]["plan"] == pytest.approx(np.percentile(dose_of(case)[case.mask("PTV70")], 5))
    assert by_name["PTV70", "CI"]["unit"] == "1"
    assert math.isnan(by_name["Bowel", "mean"]["plan"])
    assert "absent" in by_name["Bowel", "mean"]["reason"]


def test_goals_are_judged_for_plan_and_prediction(case: Case, yardsticks: Yardsticks) -> None:
    found = evaluate_case(case, dose_of(case) * np.float32(0.5), yardsticks)
    check_table(pd.DataFrame(found.goals), GOAL_METRICS, "goals")
    target = next(row for row in found.goals if row["structure"] == "PTV70" and row["gating"])
    assert target["prediction_met"] is False
    assert not found.row["prediction_acceptable"]
    absent = [row for row in found.goals if row["structure"] == "Bowel"]
    assert all(row["plan_met"] is None for row in absent)
    assert found.row["goals_evaluable"] == len(found.goals) - len(absent)


def test_a_shifted_prediction_fails_gamma_where_the_dose_is_steep(case: Case, yardsticks: Yardsticks) -> None:
    shifted = np.roll(dose_of(case), 2, axis=2)
    found = evaluate_case(case, shifted, yardsticks)
    assert 1.0 < found.row["gamma_3_3_global_percent"] < 90.0


def test_two_gamma_criteria_of_one_name_are_refused(case: Case, yardsticks: Yardsticks) -> None:
    twice = yardsticks.settings.model_copy(update={"gamma": [GAMMA, GAMMA.model_copy(update={"cutoff_percent": 20.0})]})
    with pytest.raises(BadInput, match="two criteria of the name gamma_3_3_global_percent"):
        evaluate_case(case, dose_of(case), replace(yardsticks, settings=twice))


def test_a_structure_named_like_a_mask_is_refused(case: Case, yardsticks: Yardsticks) -> None:
    names = tuple("body" if name == "Bowel" else name for name in case.structure_names)
    with pytest.raises(BadInput, match="a structure is called body"):
        evaluate_case(replace(case, structure_names=names), dose_of(case), yardsticks)


def test_a_prediction_on_another_grid_is_refused(case: Case) -> None:
    grid = case.grid
    moved = Grid(grid.shape_zyx, grid.spacing_mm, (grid.origin_mm[0] + 1.0, *grid.origin_mm[1:]))
    with pytest.raises(BadCase, match="case_0001: the prediction lies on another grid"):
        refuse_unfit(case, dose_of(case), moved)
    with pytest.raises(BadCase, match="lies on another grid"):
        refuse_unfit(case, dose_of(case)[1:], grid.cropped((1, 0, 0), dose_of(case)[1:].shape))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite in 1 voxels"), (-0.5, "goes down to -0.500 Gy")])
def test_a_prediction_that_is_no_dose_is_refused(
    value: float, message: str, case: Case, yardsticks: Yardsticks
) -> None:
    prediction = dose_of(case).copy()
    prediction[0, 0, 0] = value
    with pytest.raises(BadCase, match=message):
        evaluate_case(case, prediction, yardsticks)


def test_a_case_without_a_plan_is_refused(case: Case, yardsticks: Yardsticks) -> None:
    with pytest.raises(BadCase, match="no plan dose or no prescription"):
        evaluate_case(replace(case, dose_gy=None), dose_of(case), yardsticks)


def test_a_case_that_the_model_has_seen_is_refused() -> None:
    with pytest.raises(BadCase, match="the model was trained on this case"):
        refuse_seen("case_0001", "a" * 64, ["a" * 64], [])
    with pytest.raises(BadCase, match="the model was selected on this case"):
        refuse_seen("case_0001", "a" * 64, [], {"a" * 64})
    refuse_seen("case_0001", "a" * 64, ["b" * 64], ["c" * 64])


def test_the_summary_has_means_intervals_and_names_the_worst(
    make_case: Callable[..., Case], yardsticks: Yardsticks
) -> None:
    cases = []
    for number in range(1, 5):
        made = make_case(f"case_{number:04d}", seed=number)
        cases.append(evaluate_case(made, dose_of(made) + np.float32(number), yardsticks))
    found = summarise(cases[::-1], np.random.default_rng(1))
    assert found == summarise(cases, np.random.default_rng(1))
    assert found["n_cases"] == 4
    assert found["mae_body_gy"] == pytest.approx(2.5, abs=1e-4)
    assert 1.0 < found["mae_body_gy_low"] < 2.5 < found["mae_body_gy_high"] < 4.0
    assert found["mae_body_gy_worst"] == pytest.approx(4.0, abs=1e-4)
    assert found["gamma_3_3_global_percent_worst"] <= found["gamma_3_3_global_percent"]
    assert found["worst_case"] == found["worst_decile"] == "case_0004"
    assert found["dvh_Rectum_mean"] == pytest.approx(2.5, abs=1e-4)
    assert found["mae_Bowel_gy"] is None
    assert (found["gamma_points_verified"], found["gamma_largest_difference"]) == (0, None)
    assert found["prediction_acceptable_percent_low"] <= found["prediction_acceptable_percent"]


def test_no_cases_and_cases_measured_otherwise_have_no_summary(case: Case, yardsticks: Yardsticks) -> None:
    with pytest.raises(BadInput, match="no test cases"):
        summarise([], np.random.default_rng(1))
    one = evaluate_case(case, dose_of(case), yardsticks)
    other = replace(one, row={"case_id": "case_0002", "mae_body_gy": 1.0})
    with pytest.raises(BadInput, match="case_0002 were measured otherwise than case_0001"):
        summarise([one, other], np.random.default_rng(1))
