"""Tables of a model's report, by rows written out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from doseledger.core.text.sheet import Table
from doseledger.report.model.spread import calibration_table
from doseledger.report.tables.drill_tables import drill_that_holds
from doseledger.report.tables.results import goals_of_cases_table, goals_sentence, goals_table


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def goal_row(case_id: str, goal: str, plan: tuple[object, bool], prediction: tuple[object, bool]) -> dict[str, object]:
    return {
        "case_id": case_id, "goal": goal, "structure": goal.split()[0], "gating": goal.startswith("PTV"), "unit": "Gy",
        "plan": 68.0, "prediction": np.nan if prediction[0] is None else 67.456,
        "plan_met": plan[0], "plan_acceptable": plan[1],
        "prediction_met": prediction[0], "prediction_acceptable": prediction[1],
    }  # fmt: skip


MET, ACCEPTABLE, MISSED, NOT_JUDGED = (True, True), (False, True), (False, False), (None, False)
ROWS = pd.DataFrame(
    [
        goal_row("a", "PTV70 D95%", MET, MET), goal_row("b", "PTV70 D95%", MET, ACCEPTABLE),
        goal_row("c", "PTV70 D95%", MET, MET), goal_row("d", "PTV70 D95%", MISSED, MISSED),
        goal_row("e", "PTV70 D95%", MET, NOT_JUDGED),
        goal_row("a", "Rectum mean", ACCEPTABLE, MET), goal_row("b", "Rectum mean", ACCEPTABLE, MISSED),
    ]
)  # fmt: skip


def test_goals_are_counted_over_the_cases_that_were_judged_on_both_sides() -> None:
    table = goals_table(ROWS, {"PTV70": "#ff0000"})
    assert texts(table) == [
        ["PTV70 D95%", "gating", "4", "3", "2 (+1)", "3 of 4"],
        ["Rectum mean", "reported", "2", "0 (+2)", "1", "0 of 2"],
    ]
    assert [row[0].swatch for row in table.rows] == ["#ff0000", ""]
    assert [row[5].state for row in table.rows] == ["warn", "warn"]
    same = goals_table(ROWS[ROWS["case_id"] == "c"], {})
    assert same.rows[0][5].state == ""


def test_the_goals_of_single_cases_are_their_values_and_a_word_where_one_is_not_met() -> None:
    table = goals_of_cases_table(ROWS, {"PTV70": "#ff0000"}, ["b", "e", "d"])
    assert [column.label for column in table.columns][:3] == ["Goal", "b, plan", "b, prediction"]
    assert texts(table) == [
        ["PTV70 D95%", "68.00", "67.46 acceptable", "68.00", "– not judged", "68.00 missed", "67.46 missed"],
        ["Rectum mean", "68.00 acceptable", "67.46 missed", "–", "–", "–", "–"],
    ]
    assert [cell.state for cell in table.rows[0][5:]] == ["bad", "bad"]
    assert table.rows[0][0].swatch == "#ff0000"


def test_goals_keep_the_order_in_which_they_were_set() -> None:
    rows = pd.concat([ROWS[ROWS["structure"] == "Rectum"], ROWS[ROWS["structure"] == "PTV70"]])
    assert [row[0] for row in texts(goals_table(rows, {}))] == ["Rectum mean", "PTV70 D95%"]
    assert [row[0] for row in texts(goals_of_cases_table(rows, {}, ["a"]))] == ["Rectum mean", "PTV70 D95%"]


@pytest.mark.parametrize(("n", "rest"), [
    (0, ""), (1, "; in d1 0 of 1"), (3, "; in d1 0 of 1, in d2 0 of 1, in d3 0 of 1"),
    (5, "; in d1 0 of 1, in d2 0 of 1, in d3 0 of 1 and 2 more"),
])  # fmt: skip
def test_the_first_three_patients_judged_otherwise_are_named(n: int, rest: str) -> None:
    alike = [goal_row("a", "PTV70 D95%", MET, MET), goal_row("b", "PTV70 D95%", MISSED, MISSED)]
    rows = pd.DataFrame([*alike, *(goal_row(f"d{k + 1}", "PTV70 D95%", MET, MISSED) for k in range(n))])
    assert goals_sentence(rows) == f"1 of 1 goals judged alike in 2 of {2 + n} patients{rest}."


def test_a_calibration_has_a_row_for_each_level_voxels_and_structures_as_drawn_and_stretched() -> None:
    summary = {
        "coverage_80_voxels_percent": 61.04, "coverage_80_voxels_percent_low": 58.26,
        "coverage_80_voxels_percent_high": 64.0, "coverage_50_structures_stretched_percent": 49.5,
        "coverage_80_structures_percent": 70.0, "n_cases": 7, "n_samples": 5, "expected_mae_gy": 1.234,
        "mae_gy": 2.0, "factor_50_voxels": 1.5, "factor_80_voxels": 1.7, "factor_80_structures": 0.8,
    }  # fmt: skip
    table = calibration_table(summary)
    assert texts(table) == [
        ["voxels", "as drawn", "50", "–", "–"], ["voxels", "stretched", "50", "–", "–"],
        ["structures", "as drawn", "50", "–", "–"], ["structures", "stretched", "50", "49.5", "–"],
        ["voxels", "as drawn", "80", "61.0", "58.3 to 64.0"], ["voxels", "stretched", "80", "–", "–"],
        ["structures", "as drawn", "80", "70.0", "–"], ["structures", "stretched", "80", "–", "–"],
    ]  # fmt: skip
    for words in ("Over 7 test cases, 5 drawn doses each", "expected 1.23 Gy, found 2.00 Gy",
                  "Stretched by 1.50, 1.70 (voxels), –, 0.80 (structures), level by level"):  # fmt: skip
        assert words in table.note


@pytest.mark.parametrize(("drill", "words"), [
    (None, "Nobody has measured"), ({"digest": "b"}, "measured on other data, limits or code; run `doseledger drill`"),
])  # fmt: skip
def test_detection_limits_of_another_verdict_are_none(drill: dict[str, str] | None, words: str) -> None:
    found, said = drill_that_holds(drill, {"digest": "a"})
    assert words in said
    assert found == {"cases": [], "n_others": 0, "seed": 0, "faults": []}


def test_faults_that_are_not_seen_in_half_of_the_cases_are_counted() -> None:
    faults = [
        {"tried": [1], "seen_in_half": None},
        {"tried": [1], "seen_in_half": 2.0},
        {"tried": [], "seen_in_half": None},
    ]
    drill = {"digest": "a", "faults": faults, "cases": ["case_0001", "case_0002"]}
    found, said = drill_that_holds(drill, {"digest": "a"})
    assert found is drill
    assert "copies of 2 cases, one at a time. Of 3 kinds 1 are not seen in half of them" in said
