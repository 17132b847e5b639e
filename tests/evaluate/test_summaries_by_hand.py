"""Summaries, comparisons and pools of a few cases, each number worked out apart from the code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Goal, GoalSet
from doseledger.dosimetry.intervals import bootstrap_interval, wilson_interval
from doseledger.dosimetry.openkbp_scores import PatientScore
from doseledger.evaluate.case import CaseMetrics, _goal_counts, _goal_rows, absolute_errors, error_masks
from doseledger.evaluate.compare import compare_models, describe_comparison, refuse_other_criteria
from doseledger.evaluate.contours import compare_case, describe_contours, summarise_contours
from doseledger.evaluate.overlap import MORE_IS_BETTER
from doseledger.evaluate.segmentation import agreement, summarise_segmentations
from doseledger.evaluate.summary import headline, median_case, shown_cases, summarise

ERRORS = [2.0, 5.0, 1.0, 4.0, 3.0, 9.0, 6.0, 8.0, 7.0, 0.5, 0.25]


def case_metrics(number: int, error: float, **changes: Any) -> CaseMetrics:
    row = {
        "case_id": f"case_{number:02d}", "mae_body_gy": error, "mae_above_10_percent_gy": 2 * error,
        "gamma_3_3_global_percent": 100.0 - error, "gamma_criteria": "x", "gamma_points_verified": 50 - number,
        "gamma_largest_difference": math.nan if number == 1 else error / 1000, "goals_evaluable": 4,
        "plan_goals_met": 4, "plan_acceptable": True, "prediction_goals_met": 3 - number % 2,
        "prediction_acceptable": number < 4,
    }  # fmt: skip
    dvh = [
        {"structure": "PTV70", "statistic": "D95%", "difference": -error},
        {"structure": "Rectum", "statistic": "mean", "difference": math.nan if number else 3.0},
    ]
    score = PatientScore(error, {("PTV70", "D_95"): error, ("Larynx", "mean"): 3 * error})
    return CaseMetrics(row | changes, dvh, [], score)


def test_a_summary_of_eleven_cases_is_written_out() -> None:
    cases = [case_metrics(number, error) for number, error in enumerate(ERRORS)]
    found = summarise(cases[::-1], np.random.default_rng(3))
    rng, errors = np.random.default_rng(3), np.array(ERRORS)
    wanted: dict[str, Any] = {"n_cases": 11}
    for name, values, worst in (
        ("mae_body_gy", errors, 9.0), ("mae_above_10_percent_gy", 2 * errors, 18.0),
        ("gamma_3_3_global_percent", 100 - errors, 91.0),
    ):  # fmt: skip
        low, high = bootstrap_interval(values, rng)
        wanted |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high, f"{name}_worst": worst}
    # Met 3 or 2 of 4 in turn; 4 of 11 acceptable.
    low, high = wilson_interval(4, 11)
    every, (plan_low, plan_high) = errors.mean(), wilson_interval(11, 11)
    wanted |= {
        "gamma_points_verified": 40, "gamma_largest_difference": 0.009, "dvh_PTV70_D95%": every, "dvh_Rectum_mean": 3.0,
        "plan_goals_met_percent": 100.0, "plan_acceptable_percent": 100.0, "plan_acceptable_percent_low": plan_low,
        "plan_acceptable_percent_high": plan_high, "prediction_goals_met_percent": 100 * (6 * 3 + 5 * 2) / 44,
        "prediction_acceptable_percent": 400 / 11, "prediction_acceptable_percent_low": low,
        "prediction_acceptable_percent_high": high, "openkbp_dose_score": every, "openkbp_dvh_score": 2 * every,
    }  # fmt: skip
    # A tenth of eleven cases is two, begun.
    assert (found.pop("worst_case"), found.pop("worst_decile")) == ("case_05", "case_05, case_07")
    assert found == pytest.approx(wanted)
    assert list(found)[:5] == ["n_cases", "mae_body_gy", "mae_body_gy_low", "mae_body_gy_high", "mae_body_gy_worst"]
    shown = headline(found)
    assert list(shown) == [
        "n_cases", "mae_body_gy", "mae_above_10_percent_gy", "plan_goals_met_percent", "prediction_goals_met_percent",
        "prediction_acceptable_percent", "openkbp_dose_score", "openkbp_dvh_score", "gamma_3_3_global_percent",
    ]  # fmt: skip


def test_numbers_that_there_are_not_are_none() -> None:
    cases = [replace(case_metrics(n, 1.0, mae_body_gy=math.nan, goals_evaluable=0), openkbp=None) for n in (1, 2)]
    found = summarise(cases, np.random.default_rng(1))
    assert [found[f"mae_body_gy{end}"] for end in ("", "_low", "_high", "_worst")] == [None] * 4
    assert (found["plan_goals_met_percent"], found["dvh_Rectum_mean"]) == (None, None)
    assert "openkbp_dose_score" not in found
    assert (found["worst_case"], found["worst_decile"], found["gamma_largest_difference"]) == (
        "case_01",
        "case_01",
        0.001,
    )
    assert headline(found).keys() == {
        "n_cases",
        "mae_above_10_percent_gy",
        "prediction_acceptable_percent",
        "gamma_3_3_global_percent",
    }


def test_shown_cases_are_those_of_the_least_middle_and_most_error() -> None:
    errors = {"c": 1.0, "a": 3.0, "b": 3.0, "d": 2.0, "e": math.nan}
    assert shown_cases(errors) == [("Best case", "c"), ("Median case", "a"), ("Worst case", "b")]
    assert shown_cases({"a": 1.0, "b": 2.0}) == [("Best case", "a"), ("Worst case", "b")]
    assert shown_cases({"a": 1.0}) == [("Best case", "a")]
    assert shown_cases({"a": math.nan}) == []
    assert (median_case(errors), median_case({"a": 1.0, "b": 2.0}), median_case({"a": 1.0, "b": 2.0, "c": 3.0})) == (
        "a",
        "b",
        "b",
    )
    with pytest.raises(BadInput, match="no test case has an error"):
        median_case({"a": math.nan})


def test_a_summary_of_segmentations_is_written_out() -> None:
    dice = [0.9, 0.5, math.nan, 0.8, *[0.85] * 7]
    rows = []
    for number, value in enumerate(dice):
        measures = {"dice": value, "iou": value / 2, "hd95_mm": 10 * value, "surface_dice": value / 4}
        rows.append({
            "case_id": f"case_{number:02d}", "surface_tolerance_mm": 2.0, **measures,
            **{f"{name}_Heart": one for name, one in measures.items()}, "volume_cc_reference_Heart": 10.0,
            "volume_cc_prediction_Heart": 10.0 + number,
        })  # fmt: skip
    found = summarise_segmentations(rows[::-1], np.random.default_rng(2))
    rng, wanted, known = np.random.default_rng(2), {"n_cases": 11}, [value for value in dice if not math.isnan(value)]
    for ending in ("", "_Heart"):
        for name, factor in (("dice", 1.0), ("iou", 0.5), ("hd95_mm", 10.0), ("surface_dice", 0.25)):
            low, high = bootstrap_interval(factor * np.array(dice), rng)
            worst = factor * (min if name in MORE_IS_BETTER else max)(known)
            column = f"{name}{ending}"
            wanted |= {
                column: factor * np.mean(known),
                f"{column}_low": low,
                f"{column}_high": high,
                f"{column}_worst": worst,
            }
    spread = np.std(np.arange(11.0), ddof=1)
    wanted |= {
        "volume_bias_cc_Heart": 5.0,
        "volume_agreement_low_cc_Heart": 5 - 1.96 * spread,
        "volume_agreement_high_cc_Heart": 5 + 1.96 * spread,
    }
    assert (found.pop("worst_case"), found.pop("worst_decile")) == ("case_02", "case_02, case_01")
    assert found == pytest.approx(wanted)
    assert agreement(np.array([3.0]), np.array([1.0]))["volume_bias_cc"] == 2.0


# --- two models ---------------------------------------------------------------------------------------------------


def write_cases(path: Path, **columns: list[float]) -> Path:
    n = len(next(iter(columns.values())))
    table = {
        "case_id": [f"case_{k}" for k in range(n)], "case_sha256": ["a" * 64] * n, "checkpoint_sha256": ["c" * 64] * n,
        **columns, "gamma_criteria": "x", "gamma_points_verified": 0, "gamma_largest_difference": math.nan,
        "goals_evaluable": 5, "plan_goals_met": 5, "plan_acceptable": True, "prediction_goals_met": 4,
        "prediction_acceptable": False,
    }  # fmt: skip
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def test_two_models_are_compared_in_every_column_and_the_table_is_written_out(tmp_path: Path) -> None:
    first = write_cases(
        tmp_path / "a.csv",
        mae_body_gy=[2.0, 4.0, 3.0, 5.0, 6.0, 8.0],
        gamma_3_3_global_percent=[90.0, 91.0, 92.0, 93.0, 94.0, 95.0],
        mae_A_gy=[1.0] * 6,
    )
    second = write_cases(
        tmp_path / "b.csv",
        mae_body_gy=[1.0, 3.0, 1.0, 4.0, 4.0, 5.0],
        gamma_3_3_global_percent=[89.0, 90.0, 90.5, 92.5, 92.0, 90.0],
        mae_B_gy=[1.0] * 6,
    )
    found = compare_models(first, second, np.random.default_rng(4))
    rng = np.random.default_rng(4)
    error = found["mae_body_gy"]
    low, high = bootstrap_interval(np.array([-1.0, -1, -2, -1, -2, -3]), rng)
    assert error == {
        "first": pytest.approx(28 / 6), "second": 3.0, "mean_difference": pytest.approx(-10 / 6), "low": low,
        "high": high, "median_difference": -1.5, "p_value": pytest.approx(0.03125, abs=0.005), "effect_size": -1.0,
        "n": 6, "better": "second", "p_adjusted": pytest.approx(2 * error["p_value"]),
    }  # fmt: skip
    gamma = found["gamma_3_3_global_percent"]
    assert (gamma["first"], gamma["second"], gamma["n"], gamma["better"]) == (92.5, pytest.approx(544 / 6), 6, "first")
    assert gamma["mean_difference"] == pytest.approx(-11 / 6)
    assert (found["n_cases"], found["only_first"], found["only_second"]) == (6, ["mae_A_gy"], ["mae_B_gy"])
    lines = describe_comparison(found, ("old", "new"))
    assert lines[0] == "6 cases; change: new − old; p of Wilcoxon's test, and with Holm's correction"
    assert lines[1] == ""
    assert lines[2] == "| Measure | old | new | Change | 95 % interval | p | p (Holm) | Better |"
    (row,) = [line for line in lines if "| 4.67 |" in line]
    assert row.endswith("| new |")
    assert "| 4.67 | 3.00 | −1.67 | " in row
    assert lines[-4:] == [
        "",
        "Not compared, since old alone has them: mae_A_gy.",
        "",
        "Not compared, since new alone has them: mae_B_gy.",
    ]
    long = describe_comparison(found, ("a" * 21, "b"))
    assert long[0] == (
        "6 cases; change: second − first; p of Wilcoxon's test, and with Holm's correction; first: "
        + "a" * 21
        + ", second: b"
    )
    assert long[2].startswith("| Measure | first | second | Change |")
    assert describe_comparison(found, ("a" * 20, "b"))[2].startswith(f"| Measure | {'a' * 20} | b |")


@pytest.mark.parametrize(
    ("change", "better"),
    [([1.0] * 4, "first"), ([-1.0] * 4, "second"), ([1.0, -1.0, 1.0, -1.0], "neither"), ([0.0] * 4, "neither")],
)
def test_the_better_one_is_told_where_the_interval_leaves_nothing_out(
    change: list[float], better: str, tmp_path: Path
) -> None:
    base = [4.0, 5.0, 6.0, 7.0]
    first = write_cases(tmp_path / "a.csv", mae_body_gy=base, gamma_3_3_global_percent=base)
    second = write_cases(
        tmp_path / "b.csv",
        mae_body_gy=np.add(base, change).tolist(),
        gamma_3_3_global_percent=np.add(base, change).tolist(),
    )
    found = compare_models(first, second, np.random.default_rng(1))
    assert found["mae_body_gy"]["better"] == better
    other = {"first": "second", "second": "first", "neither": "neither"}[better]
    assert found["gamma_3_3_global_percent"]["better"] == other


def test_segmentations_of_another_tolerance_and_a_dose_are_not_compared() -> None:
    one, other = (pd.DataFrame({"surface_tolerance_mm": [mm, mm]}) for mm in (1.0, 2.0))
    refuse_other_criteria({"a": one, "b": one})
    with pytest.raises(BadInput, match=r"surface tolerances of \[1.0, 2.0\] mm"):
        refuse_other_criteria({"a": one, "b": other})
    with pytest.raises(BadInput, match="a dose and a segmentation share no number"):
        refuse_other_criteria({"a": one, "b": pd.DataFrame({"gamma_criteria": ["x"]})})


# --- one case -----------------------------------------------------------------------------------------------------


def goal(structure: str, statistic: str, operator: str, limit: float, unit: str, **more: Any) -> Goal:
    return Goal.model_validate(
        {
            "structure": structure,
            "statistic": statistic,
            "operator": operator,
            "limit": limit,
            "unit": unit,
            "source": "x",
            **more,
        }
    )


GOALS = GoalSet(
    name="t", protocol="prostate_sib", title="t",
    goals=[
        goal("PTV70", "D95%", ">=", 66.5, "Gy", acceptable=60.0), goal("Rectum", "mean", "<=", 40.0, "Gy"),
        goal("Bowel", "D2cc", "<=", 50.0, "Gy"), goal("Bladder", "mean", "<=", 1000.0, "Gy", gating=False),
    ],
)  # fmt: skip


def test_errors_are_means_under_their_masks(make_case: Callable[..., Case]) -> None:
    case = make_case()
    dose = np.asarray(case.dose_gy)
    assert list(error_masks(case))[:3] == ["body", "valid_dose", "above_10_percent"]
    assert np.array_equal(error_masks(case)["above_10_percent"], dose > 7.0)
    native = {"shape_zyx": [6, 40, 48], "spacing_mm": [6.0, 6.0, 6.0], "origin_mm": [-16.0, -117.0, -141.0]}
    cut = replace(case, meta={**case.meta, "native_dose_grid": native})
    known = np.zeros(dose.shape, bool)
    known[9:15] = True
    assert np.array_equal(error_masks(cut)["Rectum"], case.mask("Rectum") & known)
    off = np.where(case.mask("Rectum"), 3.0, -1.0).astype(np.float32)
    found = absolute_errors(case, dose + off)
    share = case.mask("Rectum")[case.body].mean()
    assert found["mae_body_gy"] == pytest.approx(1.0 + 2.0 * share, rel=1e-4)
    assert (found["mae_Rectum_gy"], found["mae_PTV70_gy"]) == pytest.approx((3.0, 1.0), rel=1e-4)
    assert math.isnan(found["mae_Bowel_gy"])


def test_goals_are_rows_of_both_doses_and_counted(make_case: Callable[..., Case]) -> None:
    case = make_case()
    rows = _goal_rows(case, np.full(case.grid.shape_zyx, 62.0, np.float32), GOALS)
    assert [row["goal"] for row in rows] == [one.name for one in GOALS.goals]
    target = rows[0]
    assert target["plan"] == pytest.approx(np.percentile(np.asarray(case.dose_gy)[case.mask("PTV70")], 5), abs=0.01)
    wanted = {
        "case_id": "case_0001", "structure": "PTV70", "unit": "Gy", "limit": 66.5, "gating": True, "prediction": 62.0,
        "prediction_met": False, "prediction_acceptable": True, "prediction_margin": pytest.approx(-4.5), "reason": "",
    }  # fmt: skip
    assert {key: target[key] for key in wanted} == wanted
    assert rows[2]["reason"] == "Bowel is absent"
    assert _goal_counts(rows) == {
        "goals_evaluable": 3, "plan_goals_met": sum(row["plan_met"] is True for row in rows),
        "plan_acceptable": bool(rows[0]["plan_acceptable"] and rows[1]["plan_acceptable"]), "prediction_goals_met": 1,
        "prediction_acceptable": False,
    }  # fmt: skip
    kept = [{**row, "prediction_acceptable": bool(row["gating"])} for row in rows]
    assert _goal_counts(kept)["prediction_acceptable"] is True
    nobody = [{**row, "prediction_acceptable": None} for row in rows]
    assert _goal_counts(nobody)["prediction_acceptable"] is False


def test_a_dose_on_other_contours_is_compared_with_the_drawn_one(make_case: Callable[..., Case]) -> None:
    case = make_case()
    drawn = np.asarray(case.dose_gy)
    moved = drawn + np.where(case.mask("PTV70"), -10.0, 0.0).astype(np.float32)
    found = compare_case(case, case, drawn, moved, GOALS)
    n_high, n_body = ((drawn > 7.0) & case.body).sum(), case.body.sum()
    part = 10.0 * case.mask("PTV70").sum()
    assert found["mae_body_gy"] == pytest.approx(part / n_body, abs=1e-4)
    assert found["mae_above_10_percent_gy"] == pytest.approx(part / n_high, abs=1e-4)
    assert found["plan_mae_body_gy"] == {"drawn": 0.0, "predicted": found["mae_body_gy"]}
    d95 = found["d95_gy"]["PTV70"]
    assert d95["predicted"] - d95["drawn"] == pytest.approx(-10.0, abs=1e-3)
    assert (found["n_goals"], found["n_flipped"], len(found["seen_flipped"])) == (
        3,
        len(found["flipped"]),
        len(found["flipped"]),
    )
    lost = np.array(case.masks)
    lost[case.structure_names.index("Rectum")] = False
    seen = compare_case(case, replace(case, masks=lost), drawn, drawn, GOALS)
    assert seen["flipped"] == []
    assert [flip["goal"] for flip in seen["seen_flipped"]] == ["Rectum mean ≤ 40 Gy"]
    assert seen["seen_flipped"][0]["predicted"] is None
    assert seen["seen_flipped"][0]["gating"] is True


def test_a_summary_of_doses_on_contours_is_written_out() -> None:
    flip = {"goal": "g"}
    rows = [
        {"mae_body_gy": 0.2, "mae_above_10_percent_gy": 0.5, "dice": 0.9,
         "plan_mae_body_gy": {"drawn": 1.0, "predicted": 2.0},
         "d95_gy": {"PTV70": {"drawn": 70.0, "predicted": 69.0}, "PTV56": {"drawn": None, "predicted": 1.0}},
         "n_goals": 4, "n_flipped": 1, "flipped": [flip], "seen_flipped": [flip, flip]},
        {"mae_body_gy": 0.4, "mae_above_10_percent_gy": None, "dice": None,
         "plan_mae_body_gy": {"drawn": 3.0, "predicted": 5.0},
         "d95_gy": {"PTV70": {"drawn": 70.0, "predicted": 70.5}}, "n_goals": 5, "n_flipped": 2,
         "flipped": [{"goal": "a"}, flip], "seen_flipped": []},
    ]  # fmt: skip
    found = summarise_contours(rows)
    assert found == {
        "n_cases": 2, "mae_body_gy": 0.3, "mae_body_gy_worst": 0.4, "mae_above_10_percent_gy": 0.5,
        "mae_above_10_percent_gy_worst": 0.5, "dice": 0.9, "dice_worst": 0.9,
        "plan_mae_body_gy": {"drawn": 2.0, "predicted": 3.5},
        "d95_change_gy": {"PTV70": {"mean": -0.25, "largest": -1.0}, "PTV56": None}, "n_goals": 9, "n_flipped": 3,
        "n_seen_flipped": 2, "flips": {"a": 1, "g": 2},
    }  # fmt: skip
    assert describe_contours({**found, "contours_by": "seg"}) == [
        "2 test cases on contours of seg: the dose moves by 0.30 Gy in the body in the mean, 0.40 Gy in the worst case",
        "D95% of PTV70: -0.25 Gy in the mean, -1.00 at most",
        "3 of 9 goals flip on the drawn contours, 2 for whoever sees the predicted ones alone",
    ]
    worse = [{**row, "dice": dice} for row, dice in zip(rows, (0.9, 0.4), strict=True)]
    assert summarise_contours(worse)["dice_worst"] == 0.4
    nothing = summarise_contours([{**rows[1], "mae_body_gy": None}])
    assert (nothing["mae_body_gy"], nothing["mae_body_gy_worst"]) == (None, None)
