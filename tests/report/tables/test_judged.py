"""Tables of verdicts, drift, drills and overlap, by rows written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from doseledger.core.text.sheet import Table
from doseledger.gates.model.judge import NOT_JUDGED
from doseledger.report.tables.comparison_tables import least_p_note, origin_table
from doseledger.report.tables.comparison_tables import verdicts_table as verdicts_of_runs
from doseledger.report.tables.data_tables import drift_cases_table, drift_features_table, expectations_table
from doseledger.report.tables.drill_tables import drill_table
from doseledger.report.tables.overlap_tables import label_cases_table, overlap_table, volumes_table
from doseledger.report.tables.verdict_tables import (
    candidate_table,
    findings_table,
    gate_alarms,
    limits_table,
    red_flags_table,
    shortcuts_table,
    verdicts_table,
)


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def fault(**changes: Any) -> dict[str, Any]:
    return {
        "title": "dose moved", "when": "after ingest", "unit": "voxels", "sizes": [0.25, 0.5, 1.0], "tried": ["a"],
        "seen_in_half": 0.5, "seen_in_all": 1.0, "gates": {"drift_far": 1.0, "dose_place": 0.5, "dose_jump": 1.0},
    } | changes  # fmt: skip


@pytest.mark.parametrize(("changes", "cells"), [
    ({}, ["0.25 to 1 voxel", "0.5 voxels", "1 voxel", "dose_place (0.5), dose_jump (1), drift_far (1)"]),
    ({"seen_in_all": None}, ["0.25 to 1 voxel", "0.5 voxels", "not up to 1 voxel",
                             "dose_place (0.5), dose_jump (1), drift_far (1)"]),
    ({"warned_in_half": 0.25, "warned_in_all": 1.0},
     ["0.25 to 1 voxel", "0.5 voxels (warning from 0.25 voxels)", "1 voxel",
      "dose_place (0.5), dose_jump (1), drift_far (1)"]),
    ({"seen_in_half": None, "seen_in_all": None, "warned_in_half": 1.0, "gates": {}},
     ["0.25 to 1 voxel", "not up to 1 voxel (warning from 1 voxel)", "not up to 1 voxel", "–"]),
    ({"unit": "", "gates": {"b": 1.0, "a": 1.0}}, ["–", "seen", "seen", "a, b"]),
    ({"unit": "", "seen_in_half": None, "warned_in_half": 1.0, "gates": {}},
     ["–", "not seen (a warning)", "seen", "–"]),
    ({"tried": [], "gates": {}}, ["0.25 to 1 voxel", "no case has it", "no case has it", "–"]),
])  # fmt: skip
def test_a_fault_is_seen_from_a_size_on_in_half_and_in_all_cases(changes: dict[str, Any], cells: list[str]) -> None:
    drill = {"faults": [fault(**changes)], "cases": ["case_0001", "case_0003"], "n_others": 7, "seed": 5}
    table = drill_table(drill)
    assert texts(table) == [["dose moved", "after ingest", *cells]]
    assert "In copies of 2 cases (case_0001, case_0003) held against 7 others, seed 5." in table.note
    states = {"no case has it": "muted"}
    assert [cell.state for cell in table.rows[0][3:5]] == [
        states.get(cell.text, "warn" if cell.text.startswith("not") else "good") for cell in table.rows[0][3:5]
    ]


def finding(gate: str, severity: str, case_id: str = "", message: str = "odd") -> dict[str, str]:
    return {"gate": gate, "severity": severity, "case_id": case_id, "message": message}


def verdict(name: str, **changes: Any) -> dict[str, Any]:
    return {"gate": name, "ok": True, "digest": "0123456789abcdef01", "findings": [], "details": {}} | changes


def limit(metric: str, found: float | None, *, ok: bool) -> dict[str, Any]:
    return {"metric": metric, "found": found, "wanted": "<= 3", "ok": ok, "source": "a test"}


def test_a_verdict_is_a_row_with_its_counts_and_the_beginning_of_its_digest() -> None:
    failed = verdict("drift", ok=False, counts={"error": 1, "warning": 2})
    table = verdicts_table([verdict("preflight"), failed, verdict("other")])
    assert [row[1:] for row in texts(table)] == [
        ["passed", "0 errors, 0 warnings", "0123456789abcdef"], ["FAILED", "1 error, 2 warnings", "0123456789abcdef"],
        ["passed", "0 errors, 0 warnings", "0123456789abcdef"],
    ]  # fmt: skip
    assert texts(table)[2][0] == "other"
    assert [row[1].state for row in table.rows] == ["good", "bad", "good"]


@pytest.mark.parametrize(("table_of", "key", "missed"), [
    (limits_table, "limits", ("MISSED", "bad")), (candidate_table, "candidate", ("not yet", "warn")),
    (shortcuts_table, "limits", ("MISSED", "bad")),
])  # fmt: skip
def test_a_limit_is_a_row_with_what_was_found(table_of: Any, key: str, missed: tuple[str, str]) -> None:
    limits = [limit("lr", 1.23456, ok=True), limit("lr", 12.345, ok=False), limit("lr", -9.99, ok=False),
              limit("lr", None, ok=False), limit("lr", 10.0, ok=True)]  # fmt: skip
    table = table_of(verdict("x", details={key: limits}))
    assert [row[1:4] for row in texts(table)] == [
        ["1.235", "≤ 3", "met"], ["12.3", "≤ 3", missed[0]], ["−9.990", "≤ 3", missed[0]], ["–", "≤ 3", missed[0]],
        ["10.0", "≤ 3", "met"],
    ]  # fmt: skip
    assert [row[3].state for row in table.rows] == ["good", missed[1], missed[1], missed[1], "good"]
    assert texts(table)[0][4] == "a test [lr]"
    assert "No limits are written down" in table_of(verdict("x")).empty
    assert "could not be judged" in table_of(verdict("x", digest=NOT_JUDGED)).empty


def test_a_base_is_told_beside_the_shortcuts_and_no_limit_stands_for_it() -> None:
    assert shortcuts_table(verdict("shortcuts")).note == ""
    note = shortcuts_table(verdict("shortcuts", details={"numbers": {"base_mae_ratio": 0.98765}})).note
    assert note.endswith(": 0.988; no limit stands for it.")


def test_red_flags_are_findings_of_the_training_alone() -> None:
    found = [finding("limit", "error"), finding("diverges", "warning"), finding("loss_vanishes", "error")]
    table = red_flags_table(verdict("metrics", findings=found))
    assert [row[:2] for row in texts(table)] == [["diverges", "warning"], ["loss_vanishes", "error"]]
    assert [row[1].state for row in table.rows] == ["warn", "bad"]
    assert "No red flag" in red_flags_table(verdict("metrics")).empty
    assert "are not known" in red_flags_table(verdict("metrics", digest=NOT_JUDGED)).empty


@pytest.mark.parametrize(("n", "note"), [(40, ""), (41, "The first 40; 1 more stand in the gates' own files.")])
def test_forty_findings_are_shown_errors_first(n: int, note: str) -> None:
    found = [finding("a", "warning", "case_0002"), *(finding("b", "error") for _ in range(n - 1))]
    table = findings_table([verdict("data", findings=found)])
    assert texts(table)[0] == ["data", "b", "cohort", "error", "odd"]
    assert len(table.rows) == 40
    assert table.note == note
    if n == 40:
        assert texts(table)[-1] == ["data", "a", "case_0002", "warning", "odd"]
        assert [table.rows[k][3].state for k in (0, -1)] == ["bad", "warn"]


def test_a_gate_that_failed_is_an_alarm_with_its_first_five_errors() -> None:
    found = [finding("a", "warning"), *(finding("b", "error", message=f"odd {k}") for k in range(6))]
    (alarm,) = gate_alarms([verdict("data"), verdict("drift", ok=False, findings=found)])
    assert (alarm.state, alarm.title, alarm.text) == ("bad", "The drift gate failed.", "6 errors:")
    assert list(alarm.lines) == [f"odd {k}" for k in range(5)]


def test_test_cases_are_listed_the_farthest_first_with_what_is_off() -> None:
    cases = [
        {"case_id": "b", "distance": 1.0, "ratio": 1.0, "features": {}, "changed": {}},
        {"case_id": "a", "distance": 1.0, "ratio": 0.333, "features": {"dose_max_gy": -2.04}, "changed": {}},
        {"case_id": "c", "distance": 3.456, "ratio": 1.01, "features": {"ct_min": 4.0}, "changed": {"n_fractions": 20}},
    ]
    table = drift_cases_table({"cases": cases})
    assert [row[:3] for row in texts(table)] == [["c", "3.46", "1.01"], ["a", "1.00", "0.33"], ["b", "1.00", "1.00"]]
    assert [row[3] for row in texts(table)] == ["CT, minimum +4.0; fractions = 20", "highest dose −2.0", ""]
    assert [row[2].state for row in table.rows] == ["warn", "", ""]


def test_features_say_where_training_and_test_differ() -> None:
    row = {"feature": "ct_min", "reference": -1000.0, "new": 12.345, "ks_p": 0.01, "psi": 0.3, "psi_limit": 0.25}
    drift = {"limits": {"alpha": 0.05}, "features": [row | {"ks_p_adjusted": 0.05}, row | {"ks_p_adjusted": 0.049}]}
    table = drift_features_table(drift)
    assert sorted((cells[3].text, cells[3].state) for cells in table.rows) == [("0.049", "bad"), ("0.05", "")]
    assert texts(table)[0][1:3] == ["−1e+03", "12.3"]
    assert [cells[4].state for cells in table.rows] == ["warn", "warn"]
    within = row | {"ks_p_adjusted": 1.0, "psi": 0.25}
    assert drift_features_table({"features": [within]}).rows[0][4].state == ""
    unknown = row | {"ks_p": None, "ks_p_adjusted": None, "psi": None}
    assert drift_features_table({"features": [unknown]}).rows == ()


def test_an_expectation_says_what_was_found_and_how_many_are_beyond() -> None:
    one = {"column": "n_fractions", "wanted": "-3 to 40", "min": 20, "max": 12345.6, "ok": False, "n_unexpected": 2,
           "severity": "warning", "reason": "a test"}  # fmt: skip
    rows = [one, one | {"column": "", "min": None, "ok": True}, one | {"severity": "error"}]
    table = expectations_table({"details": {"expectations": rows}})
    assert texts(table)[0][1:] == ["−3 to 40", "20 to 12,346", "2 beyond", "a test"]
    assert texts(table)[1] == ["cohort", "−3 to 40", "–", "met", "a test"]
    assert [cells[3].state for cells in table.rows] == ["warn", "good", "bad"]


def test_overlap_is_told_over_all_and_by_structure_with_the_worst_case() -> None:
    frame = pd.DataFrame({
        "case_id": ["a", "b", "c"], "dice": [0.9, 0.7, 0.8], "iou": [0.8, 0.6, 0.7], "hd95_mm": [2.0, 9.0, 4.0],
        "surface_dice": [None, None, None], "dice_Bladder": [0.9, None, 0.5], "iou_Bladder": [None] * 3,
        "hd95_mm_Bladder": [1.0, None, 7.0], "surface_dice_Bladder": [0.5, 0.5, 0.5],
        "volume_cc_reference_Bladder": [100.0, 200.0, 300.0], "volume_cc_prediction_Bladder": [90.0, 210.0, 330.0],
    })  # fmt: skip
    summary = {"dice_low": 0.71, "dice_high": 0.89, "volume_bias_cc_Bladder": 10.0,
               "volume_agreement_low_cc_Bladder": -5.0, "volume_agreement_high_cc_Bladder": 25.0}  # fmt: skip
    facts: Any = SimpleNamespace(case_metrics=frame, summary=summary)
    table = overlap_table(facts, 1.5, {})
    assert texts(table) == [
        ["all structures", "Dice", "3", "0.800", "0.710 to 0.890", "0.800", "0.700", "b"],
        ["all structures", "IoU", "3", "0.700", "–", "0.700", "0.600", "b"],
        ["all structures", "HD95 (mm)", "3", "5.00", "–", "4.00", "9.00", "b"],
        ["Bladder", "Dice", "2", "0.700", "–", "0.700", "0.500", "c"],
        ["Bladder", "HD95 (mm)", "2", "4.00", "–", "4.00", "7.00", "c"],
        ["Bladder", "Surface Dice", "3", "0.500", "–", "0.500", "0.500", "a"],
    ]
    assert table.note.startswith("Surface Dice at 1.5 mm;")
    assert texts(volumes_table(facts, {})) == [["Bladder", "200.00", "210.00", "+10.00", "−5.00 to +25.00"]]
    assert [row[0] for row in texts(label_cases_table(facts))] == ["b", "c", "a"]
    assert texts(label_cases_table(facts))[0][1:] == ["0.700", "0.600", "9.00", "–", "–"]


@pytest.mark.parametrize(
    ("n", "words"), [(5, "With 5 cases the least p that Wilcoxon's test can give is 0.0625"), (6, "")]
)
def test_of_five_cases_no_test_tells_runs_apart(n: int, words: str) -> None:
    assert least_p_note({"n_cases": n}).startswith(words)
    assert bool(least_p_note({"n_cases": n})) is bool(words)


def compared(**changes: Any) -> Any:
    one = {"label": "a", "run": {"model": "m", "seed": 1, "fold": 0, "repeat": 2}, "commit": "c" * 10, "dirty": False,
           "settings": {"lr": 0.1}, "cases": pd.DataFrame({"checkpoint_sha256": ["y", "x", "y"]}),
           "verdicts": {"metrics": {"ok": True}, "drift": {"ok": False, "counts": {"error": 2}}}}  # fmt: skip
    return SimpleNamespace(**(one | changes))


def test_runs_say_where_they_come_from() -> None:
    bare = compared(label="b", run={}, commit="", dirty=None)
    table = origin_table([compared(), compared(label="d", dirty=True), bare])
    rows = {row[0]: row[1:] for row in texts(table)}
    assert rows["tree when trained"] == ["clean", "DIRTY", "–"]
    assert rows["seed, fold, repeat"] == ["1, 0, 2", "1, 0, 2", "–"]
    assert rows["checkpoint (SHA256)"] == ["x, y"] * 3
    assert rows["commit"] == ["c" * 10, "c" * 10, "–"]
    assert list(rows)[:3] == ["model", "commit", "tree when trained"]


def test_gates_of_runs_stand_side_by_side() -> None:
    table = verdicts_of_runs([compared(), compared(verdicts={})])
    assert texts(table) == [["metrics", "passed", "not known"], ["drift", "FAILED, 2 errors", "not known"]]
    assert [cell.state for cell in table.rows[1][1:]] == ["bad", "muted"]
    assert "only folders of metrics" in verdicts_of_runs([compared(verdicts={})]).empty
