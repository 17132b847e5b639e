"""Cells of a CSV that text alone would get wrong: truth values and gaps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.tables import CASES, GOAL_METRICS, read_frame, read_table, write_table

GOAL = {
    "case_id": "case_1", "goal": "Rectum V65Gy ≤ 15 %", "structure": "Rectum", "unit": "%", "limit": 15.0,
    "gating": False, "plan": 11.0, "prediction": None, "plan_met": True, "prediction_met": None,
    "plan_acceptable": False, "prediction_acceptable": None, "plan_margin": 4.0, "prediction_margin": None,
    "reason": "",
}  # fmt: skip


def test_false_is_read_as_false_and_a_gap_as_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "goals.csv"
    pd.DataFrame([GOAL]).to_csv(path, index=False)
    row = read_table(path, GOAL_METRICS).iloc[0]
    assert not row["gating"]
    assert row["plan_met"]
    assert not row["plan_acceptable"]
    assert pd.isna(row["prediction_met"])
    assert pd.isna(row["prediction"])


def test_a_truth_value_in_other_words_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "goals.csv"
    pd.DataFrame([{**GOAL, "gating": "maybe"}]).to_csv(path, index=False)
    with pytest.raises(BadInput, match="gating: True or False, found 'maybe' in row 0"):
        read_table(path, GOAL_METRICS)


def test_a_case_called_007_keeps_its_zeros(tmp_path: Path) -> None:
    case = {
        "case_id": "007", "pseudonym": "0012", "group": "A", "site": "A", "source_sha256": "a" * 64,
        "sha256": "b" * 64, "n_warnings": 0,
    }  # fmt: skip
    write_table(tmp_path / "cases.csv", pd.DataFrame([case]), CASES)
    assert read_table(tmp_path / "cases.csv", CASES)["case_id"].tolist() == ["007"]


def test_rows_with_more_cells_than_the_head_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "goals.csv"
    pd.DataFrame([GOAL]).to_csv(path, index=False)
    path.write_text(path.read_text().replace("case_id,goal", "case_id", 1))
    for read in (read_frame, partial(read_table, schema=GOAL_METRICS)):
        with pytest.raises(BadInput, match=r"goals\.csv: .*its rows have more cells than its head"):
            read(path)
