"""Tables that cross stages: each column's border values are taken, and what lies beyond is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pytest

from doseledger.core import tables
from doseledger.core.errors import BadInput
from doseledger.core.tables import check_table, read_case_metrics, read_frame, rows_of_fold, with_present_digests

SHA, NAN = "0123456789abcdef" * 4, float("nan")
BAD_SHA = ["", SHA[:-1], SHA + "0", SHA.upper(), "g" * 64]
BAD_ID = ["", "-a", ".a", "a b", "../a"]
# Schema, a row at the borders, and values beyond them by column; a column that may be empty has None among its own.
ROWS: list[tuple[pa.DataFrameSchema, dict[str, Any], dict[str, list[Any]]]] = [
    (tables.RAW, {"case_id": "a", "sha256": SHA}, {"case_id": BAD_ID, "sha256": BAD_SHA}),
    (
        tables.CASES,
        {"case_id": "7._-", "pseudonym": "p", "group": "", "site": "", "source_sha256": SHA, "sha256": SHA,
         "n_warnings": 0},
        {"case_id": BAD_ID, "source_sha256": BAD_SHA, "sha256": BAD_SHA, "n_warnings": [-1, None]},
    ),
    (
        tables.SKIPPED,
        {"case_id": "a", "status": "skipped", "reason": "x"},
        {"case_id": BAD_ID, "status": ["ok", "converted"], "reason": [""]},
    ),
    (
        tables.PHYSICS,
        {"case_id": "a", "case_sha256": SHA, "sha256": "", "reason": ""},
        {"case_id": BAD_ID, "case_sha256": BAD_SHA, "sha256": [SHA[:-1], SHA + "0"]},
    ),
    (
        tables.STRUCTURES,
        {"structure": "Rectum", "required": True, "cases": 0, "found": 0, "may_be_cases": 0, "may_be": ""},
        {"cases": [-1], "found": [-1], "may_be_cases": [-1]},
    ),
    (
        tables.SPLITS,
        {"repeat": 0, "fold": 0, "case_id": "a", "pseudonym": "p", "group": "", "split": "val", "sha256": SHA},
        {"repeat": [-1], "fold": [-1], "case_id": BAD_ID, "split": ["", "hold"], "sha256": BAD_SHA},
    ),
    (
        tables.TEST_SET,
        {"pseudonym": "p", "source_sha256": "", "locked_on": "2026-01-31", "reason": "x"},
        {"source_sha256": [SHA[:-1]], "locked_on": ["2026-1-31", "26-01-31", "2026-01-311", ""], "reason": [""]},
    ),
    (
        tables.UNLOCKED,
        {"pseudonym": "p", "source_sha256": SHA, "locked_on": "2026-01-31", "reason": "x", "unlocked_on": "2026-02-01",
         "why": "y"},
        {"unlocked_on": ["2026-2-01", ""], "why": [""], "reason": [""]},
    ),
    (
        tables.CASE_METRICS,
        {"case_id": "a", "case_sha256": SHA, "checkpoint_sha256": SHA, "mae_body_gy": 0.0, "mae_PTV_gy": None,
         "gamma_3_3_global_percent": 0.0, "gamma_2_2_local_percent": 100.0, "gamma_criteria": "",
         "gamma_points_verified": 0, "gamma_largest_difference": None, "goals_evaluable": 0, "plan_goals_met": 0,
         "plan_acceptable": False, "prediction_goals_met": 0, "prediction_acceptable": True, "openkbp_dose_gy": 0.0,
         "openkbp_dvh_gy": None},
        {"mae_body_gy": [-0.1], "gamma_3_3_global_percent": [-0.1, 100.1, None], "gamma_points_verified": [-1],
         "gamma_largest_difference": [-0.1], "goals_evaluable": [-1], "plan_goals_met": [-1],
         "prediction_goals_met": [-1], "openkbp_dose_gy": [-0.1], "case_sha256": BAD_SHA, "checkpoint_sha256": BAD_SHA},
    ),
    (
        tables.SEGMENT_METRICS,
        {"case_id": "a", "case_sha256": SHA, "checkpoint_sha256": SHA, "surface_tolerance_mm": 0.1, "dice": 0.0,
         "dice_A": 1.0, "iou": None, "surface_dice_A": 1.0, "hd95_mm": 0.0, "hd95_mm_A": None,
         "volume_cc_reference_A": 0.0, "volume_cc_prediction_A": 0.0},
        {"surface_tolerance_mm": [0.0, None], "dice": [-0.1, 1.1], "hd95_mm": [-0.1],
         "volume_cc_reference_A": [-0.1, None], "case_sha256": BAD_SHA, "checkpoint_sha256": BAD_SHA},
    ),
    (
        tables.DVH_METRICS,
        {"case_id": "a", "structure": "A", "kind": "organ", "statistic": "D2%", "unit": "1", "plan": None,
         "prediction": None, "difference": None, "reason": ""},
        {"kind": ["bone"], "unit": ["mm"], "case_id": BAD_ID},
    ),
    (
        tables.GOAL_METRICS,
        {"case_id": "a", "goal": "g", "structure": "A", "unit": "cc", "limit": -1.0, "gating": True, "plan": None,
         "prediction": None, "plan_met": None, "prediction_met": True, "plan_acceptable": None,
         "prediction_acceptable": None, "plan_margin": None, "prediction_margin": None, "reason": ""},
        {"unit": ["mm"], "limit": [None], "case_id": BAD_ID},
    ),
]  # fmt: skip
KEYS = {
    "splits": ["repeat", "fold", "case_id"], "test_set": ["pseudonym", "source_sha256"], "unlocked": [],
    "structures": ["structure"], "DVH metrics": ["case_id", "structure", "statistic", "unit"],
    "goal metrics": ["case_id", "goal"],
}  # fmt: skip


@pytest.mark.parametrize(("schema", "row", "beyond"), ROWS, ids=[row[0].name for row in ROWS])
def test_a_table_takes_border_values_and_refuses_those_beyond(
    schema: pa.DataFrameSchema, row: dict[str, Any], beyond: dict[str, list[Any]]
) -> None:
    check_table(pd.DataFrame([row]), schema, "a.csv")
    for column, values in beyond.items():
        for value in values:
            with pytest.raises(BadInput, match=rf"not a {schema.name} table: {column}: "):
                check_table(pd.DataFrame([{**row, column: value}]), schema, "a.csv")
    with pytest.raises(BadInput, match="column_in_schema, found 'more'"):
        check_table(pd.DataFrame([{**row, "more": 1}]), schema, "a.csv")
    optional = {"openkbp_dose_gy", "openkbp_dvh_gy", "mae_PTV_gy", "gamma_2_2_local_percent", "dice_A", "hd95_mm_A",
                "iou", "surface_dice_A", "volume_cc_prediction_A"}  # fmt: skip
    for column in row:
        fewer = pd.DataFrame([{key: value for key, value in row.items() if key != column}])
        if column in optional:
            check_table(fewer, schema, "a.csv")
        elif not column.startswith(("mae_", "gamma_3", "dice", "hd95", "volume")):
            with pytest.raises(BadInput, match="column_in_dataframe"):
                check_table(fewer, schema, "a.csv")


@pytest.mark.parametrize(("schema", "row", "beyond"), ROWS, ids=[row[0].name for row in ROWS])
def test_two_rows_of_one_key_are_refused_and_rows_that_differ_in_it_are_not(
    schema: pa.DataFrameSchema, row: dict[str, Any], beyond: dict[str, list[Any]]
) -> None:
    keys = KEYS.get(schema.name, ["case_id"])
    twice = pd.DataFrame([row, row])
    if not keys:
        assert len(check_table(twice, schema, "a.csv")) == 2
        return
    with pytest.raises(BadInput, match="multiple_fields_uniqueness"):
        check_table(twice, schema, "a.csv")
    for key in keys:
        other = {"repeat": 1, "fold": 1, "source_sha256": SHA, "unit": "Gy"}.get(key, "other")
        assert len(check_table(pd.DataFrame([row, {**row, key: other}]), schema, "a.csv")) == 2


def test_a_patient_locked_by_name_has_the_digests_of_his_cases_now() -> None:
    locked = pd.DataFrame(
        [("a", "", "2026-01-01", "x"), ("b", "d" * 64, "2026-01-01", "x"), ("gone", "", "2026-01-01", "x")],
        columns=list(tables.TEST_SET.columns),
    )
    cases = pd.DataFrame({"pseudonym": ["a", "b", "a"], "source_sha256": ["1" * 64, "2" * 64, "3" * 64], "more": 1})
    found = with_present_digests(locked, cases)
    assert list(found.columns) == list(locked.columns)
    assert list(zip(found["pseudonym"], found["source_sha256"], strict=True)) == [
        ("b", "d" * 64), ("a", "1" * 64), ("a", "3" * 64), ("gone", ""),
    ]  # fmt: skip
    assert list(found.index) == [0, 1, 2, 3]


def test_rows_of_a_fold_are_those_of_its_repeat_and_part() -> None:
    splits = pd.DataFrame({"fold": [0, 0, 1, 0], "repeat": [0, 1, 0, 0], "split": ["val", "val", "val", "train"]})
    assert list(rows_of_fold(splits, 0, 0).index) == [0, 3]
    assert list(rows_of_fold(splits, 0, 0, "val").index) == [0]
    assert list(rows_of_fold(splits, 1, 0).index) == [2]


def test_the_kind_of_a_table_of_cases_is_told_by_its_head(tmp_path: Path) -> None:
    for schema, row, _ in ROWS:
        if schema in (tables.CASE_METRICS, tables.SEGMENT_METRICS):
            pd.DataFrame([row]).to_csv(tmp_path / "cases.csv", index=False)
            found = read_case_metrics(tmp_path / "cases.csv")
            assert list(found.columns) == list(row)
    (tmp_path / "cases.csv").write_text("dices\n1\n")
    with pytest.raises(BadInput, match="not a case metrics table"):
        read_case_metrics(tmp_path / "cases.csv")
    with pytest.raises(BadInput, match="no such table; run the stage that writes it"):
        read_frame(tmp_path / "none.csv")


def test_a_truth_that_may_be_empty_is_so_only_where_the_column_says_so(tmp_path: Path) -> None:
    schema, row, _ = ROWS[-1]
    for column, value, message in (
        ("plan_met", "", ""), ("plan_met", "yes", "plan_met: True or False, found 'yes' in row 1"),
        ("gating", "", "gating: True or False, found '' in row 1"),
    ):  # fmt: skip
        frame = pd.DataFrame([row, {**row, "goal": "h"}]).astype(object)
        frame.loc[1, column] = value
        frame.to_csv(tmp_path / "goals.csv", index=False)
        if message:
            with pytest.raises(BadInput, match=message):
                tables.read_table(tmp_path / "goals.csv", schema)
        else:
            assert pd.isna(tables.read_table(tmp_path / "goals.csv", schema).loc[1, column])
