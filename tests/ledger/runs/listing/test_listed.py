"""Runs of every kind in every form: each table row by row, each way to find one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures.known import assert_known, shown

from doseledger.core.errors import BadInput
from doseledger.ledger.provenance.snapshot import Snapshot
from doseledger.ledger.runs.files import GATES
from doseledger.ledger.runs.listing import rows as rows_module
from doseledger.ledger.runs.listing.rows import RunRow, merge_rows, row_of_manifest, status_of
from doseledger.ledger.runs.listing.tables import (  # fmt: skip
    comparison_table,
    find_run,
    format_runs,
    known_columns,
    larger_is_better,
    runs_table,
    select_runs,
)

PASSED = dict.fromkeys(GATES, True)
KNOWN = Path(__file__).parent / "known"


def run(run_id: str, day: int, mae_gy: float | None, **values: Any) -> RunRow:
    metrics = {} if mae_gy is None else {
        "mae_above_10_percent_gy": mae_gy, "mae_above_10_percent_gy_low": mae_gy - 0.5, "n_cases": 3 + day,
        "gamma_3_3_global_percent": 90.0 + day, "dice": 0.5 + day / 100, "seconds": 10.0 * day, "kind": "dose",
    }  # fmt: skip
    row = RunRow(
        id=run_id * 10, date=f"2026-03-{day:02d}T10:11:12+00:00", cohort="phantom", model="dose_unet",
        status="complete", commit=run_id * 40, dirty=False, verdicts=dict(PASSED), metrics=metrics,
        settings={"lr": 0.001 * day, "seed": 1}, where=("main",),
    )  # fmt: skip
    return replace(row, **values)


def runs() -> list[RunRow]:
    many = {f"loss.{k}": k for k in range(8)}
    return [
        run("a", 1, 3.0, where=("workspace", "main"), note="the first"),
        run("b", 2, 2.0, where=("experiment quick",), standing="provisional"),
        run("c", 3, 1.0, dirty=True, status="failed", verdicts=PASSED | {"model": False, "data": False}),
        run("d", 4, 2.5, dirty=None, where=("commit 1234567890",), status="incomplete",
            verdicts=PASSED | {"preflight": None}),
        run("e", 5, None, status="running", verdicts={}, where=("resume state",), note="in epoch 4"),
        run("f", 6, None, status="interrupted", verdicts={}, settings={}),
        run("g", 7, None, status="queued", verdicts={"data": False}, date=""),
        run("h", 8, 0.5, model="dose_trees", settings={"lr": 0.5, **many}, commit="", where=("archive run_1",)),
        run("i", 9, 0.7, model="dose_trees", settings={"lr": 0.5, **{name: -k for name, k in many.items()}}),
        run("j", 10, 0.2, status="incomplete", dirty=True),
        run("k", 11, float("nan")),
    ]  # fmt: skip


def test_each_kind_of_run_is_a_row_with_its_state_and_what_sets_it_apart() -> None:
    elsewhere = [*runs()[:2], run("l", 12, 0.1, cohort="prostate"), run("m", 13, None, cohort="")]
    metrics = ["mae_gy", "dice", "kind"]
    tables = [runs_table(runs()), runs_table(elsewhere, metrics, caption="Of two cohorts"), runs_table([])]
    assert_known(KNOWN / "runs_table.txt", "\n\n".join(map(shown, tables)), is_passing=False)


@pytest.mark.parametrize("every_metric", [False, True])
def test_runs_side_by_side_show_each_step_from_the_first(every_metric: bool) -> None:
    rows = [*runs()[:5], replace(runs()[1], metrics={**runs()[0].metrics, "openkbp_dose_score": 1, "n_cases": 2})]
    both = [shown(comparison_table(some, every_metric=every_metric)) for some in (rows, rows[::-1])]
    assert_known(KNOWN / f"side_by_side_{every_metric}.txt", "\n\n".join(both), is_passing=False)


@pytest.mark.parametrize("form", ["table", "csv", "json", "markdown"])
def test_runs_are_written_in_each_form(form: Any) -> None:
    text = format_runs(runs(), runs_table(runs()), form, colour=True, width=170 if form == "table" else None)
    assert_known(KNOWN / f"runs_as_{form}.txt", text, is_passing=False)


@pytest.mark.parametrize(("name", "better"), [
    ("gamma_3_3_global_percent", True), ("prediction_acceptable_percent", True), ("dice_Rectum", True),
    ("gamma_largest_difference", False), ("mae_body_gy", False), ("dvh_Rectum_mean", False),
])  # fmt: skip
def test_shares_are_better_where_they_are_larger_and_errors_where_they_are_smaller(name: str, better: bool) -> None:
    assert larger_is_better(name) is better


def ids(rows: list[RunRow]) -> str:
    return "".join(row.id[0] for row in rows)


def test_runs_are_chosen_by_a_condition_and_by_words_together_and_sorted_with_those_without_a_value_last() -> None:
    rows = runs()
    assert ids(select_runs(rows)) == "abcdefghijk"
    assert ids(select_runs(rows, where="mae_gy < 2.5 and not dirty")) == "bhi"
    assert ids(select_runs(rows, where="model_ok == False")) == "c"
    assert ids(select_runs(rows, where="mae_gy < 2.5", words=["DIRTY"])) == "cj"
    assert ids(select_runs(rows, words=["dirty"], sort="mae_gy")) == "jc"
    assert ids(select_runs(rows, sort="n_cases")) == "abcdhijkefg"
    assert ids(select_runs(rows, sort="n_cases", descending=True)) == "kjihdcbaefg"
    for word, found in (
        ("aaaaaaaaaa", "a"), ("2026-03-0", "abcdefhi"), ("PHANTOM", "abcdefghijk"), ("trees", "hi"), ("queued", "g"),
        ("epoch 4", "e"), ("workspace", "a"), ("lr=0.5", "hi"), ("loss.7=-7", "i"), ("nobody", ""),
    ):  # fmt: skip
        assert ids(select_runs(rows, words=[word])) == found, word
    with pytest.raises(BadInput, match="can't be sorted by mixed"):
        select_runs([replace(rows[0], settings={"mixed": 1}), replace(rows[1], settings={"mixed": "a"})], sort="mixed")


def test_every_run_may_be_asked_for_what_a_run_has() -> None:
    assert known_columns([]) == {
        "id", "date", "cohort", "model", "status", "where", "commit", "dirty", "note", "standing", "mae_gy",
        *(f"{gate}_ok" for gate in GATES),
    }  # fmt: skip
    assert known_columns(runs()[:1]) - known_columns([]) == {*runs()[0].metrics, "lr", "seed"}


@pytest.mark.parametrize(("name", "found"), [
    ("workspace", "a"), ("quick", "b"), ("experiment quick", "b"), ("run_1", "h"), ("1234567890", "d"),
    ("commit 1234567890", "d"), ("1234", "d"), ("bbbb", "b"), ("kkkkkkkkkk", "k"),
])  # fmt: skip
def test_a_run_is_found_by_each_of_its_names(name: str, found: str) -> None:
    assert find_run(runs(), name).id[0] == found


@pytest.mark.parametrize("name", ["bbb", "123", "234567890", "quic"])
def test_three_letters_or_another_part_of_a_name_mean_no_run(name: str) -> None:
    with pytest.raises(BadInput, match="no run is called"):
        find_run(runs(), name)


def test_several_runs_of_one_name_are_told() -> None:
    with pytest.raises(BadInput, match=r"'main' may be any of aaaaaaaaaa \(dose_unet\), cccccccccc \(dose_unet\)"):
        find_run(runs(), "main")


@pytest.mark.parametrize(("verdicts", "has_metrics", "status"), [
    (PASSED, True, "complete"), (PASSED, False, "incomplete"), (PASSED | {"own": None}, True, "incomplete"),
    (PASSED | {"own": False}, True, "failed"), (PASSED | {"own": False}, False, "failed"), ({}, True, "incomplete"),
    ({"own": True}, True, "incomplete"), (PASSED | {"own": True}, True, "complete"),
])  # fmt: skip
def test_a_run_is_complete_with_metrics_and_every_gate_passed(
    verdicts: dict[str, bool | None], has_metrics: bool, status: str
) -> None:
    assert status_of(verdicts, has_metrics=has_metrics) == status


def test_a_run_found_twice_is_one_that_knows_what_either_place_knows() -> None:
    bare = run("a", 5, 3.0, commit="", dirty=None, verdicts={"data": None, "model": True}, status="incomplete")
    full = run("a", 2, 3.0, where=("main", "tag"), verdicts={"data": True, "model": False}, note="told",
               standing="passed", status="failed")  # fmt: skip
    waits, stopped = run("w", 1, None, status="queued"), run("w", 3, None, status="interrupted")
    undated = replace(bare, date="")
    assert merge_rows([waits, bare, full, stopped]) == [
        stopped,
        replace(
            bare,
            date=full.date,
            where=("main", "tag"),
            status="failed",
            verdicts={"data": True, "model": True},
            commit=full.commit,
            dirty=False,
            note="told",
            standing="passed",
        ),
        waits,
    ]
    (one,) = merge_rows([full, undated])
    assert (one.date, one.where, one.verdicts) == (full.date, ("main", "tag"), {"data": True, "model": False})
    (other,) = merge_rows([undated, replace(full, dirty=False, date="")])
    assert (other.date, other.dirty, other.status, other.commit) == ("", False, "failed", "a" * 40)
    assert merge_rows([replace(full, dirty=True), replace(bare, dirty=False)])[0].dirty is True


def test_an_archived_run_is_what_its_manifest_and_its_gates_say() -> None:
    manifest = {"id": "x" * 10, "archived_at": "2026-03-04", "cohort": "phantom", "model": "dose_unet",
                "settings": {"lr": 0.1}, "check": {"errors": ["no seed", "no lock"]}}  # fmt: skip
    verdicts = {gate: {"ok": True} for gate in GATES} | {"own": None}
    row = row_of_manifest(manifest, {"n_cases": 3}, verdicts, "run_1")
    assert row == RunRow(
        id="x" * 10, date="2026-03-04", cohort="phantom", model="dose_unet", status="incomplete",
        where=("archive run_1",), dirty=True, verdicts=PASSED | {"own": None}, settings={"lr": 0.1},
        metrics={"n_cases": 3}, note="checklist: no seed",
    )  # fmt: skip
    clean = {**manifest, "commit": "abc", "dirty": False, "check": {}, "settings": None}
    found = row_of_manifest(clean, None, {gate: {"ok": gate != "data"} for gate in GATES}, "run_2")
    assert (found.commit, found.dirty, found.note, found.settings, found.metrics) == ("abc", False, "", {}, {})
    assert (found.status, found.verdicts["data"]) == ("failed", False)
    assert row_of_manifest(clean, {"a": 1}, {gate: {"ok": True} for gate in GATES}, "r").status == "complete"


@pytest.mark.parametrize(("gate", "token", "findings", "summary", "verdict"), [
    ("data", None, None, None, None), ("data", {}, None, None, None), ("data", [], {}, {}, None),
    ("data", {"ok": True}, None, None, True), ("data", {"ok": False}, None, None, False), ("data", {"ok": 1}, {}, {},
        False),
    ("model", {"ok": True}, None, None, True), ("model", {"ok": True}, {}, {"n_cases": 3}, None),
    ("model", {"ok": True}, {"details": {"metrics": {"details": {"n_cases": 3}}}}, None, None),
    ("model", {"ok": False}, {"details": {"metrics": {"details": {"n_cases": 3}}}}, {"n_cases": 3}, False),
    ("model", {"ok": True}, {"details": {"metrics": {"details": {"limits": [{"metric": "a", "found": 1}]}}}}, None,
        None),
    ("model", {"ok": True}, {"details": {"metrics": {"digest": "not judged", "details": {"n_cases": 9}}}},
        {"n_cases": 3}, True),
])  # fmt: skip
def test_a_gates_last_word_counts_where_it_is_about_these_numbers(
    gate: str, token: Any, findings: Any, summary: Any, verdict: bool | None
) -> None:
    files: Any = SimpleNamespace(verdicts={gate: SimpleNamespace(token="token", findings="findings")})
    assert rows_module._verdict({"token": token, "findings": findings}.get, files, gate, summary) is verdict


def test_what_is_no_mapping_is_nothing_and_a_table_names_its_first_checkpoint() -> None:
    assert [rows_module._json(content) for content in (None, b"", b"{", b"[1]", b'{"a": 1}')] == [None] * 4 + [{"a": 1}]
    for content, found in (
        (None, ""),
        (b"case_id,checkpoint_sha256\n", ""),
        (b"case_id,checkpoint_sha256\na,1\nb,2\n", "1"),
    ):
        assert rows_module._checkpoint(content) == found


@pytest.mark.parametrize(("params", "names"), [
    ({}, []), ({"models": None}, []), ({"models": {"a": 1}}, []), ({"models": "ab"}, []), ({"models": ["a", 2]}, ["a",
        "2"]),
])  # fmt: skip
def test_models_are_those_that_the_settings_list(params: dict[str, Any], names: list[str]) -> None:
    snapshot: Any = SimpleNamespace(params={"cohort": "toy", **params})
    assert [(at.name, at.layout.cohort) for at in rows_module._models(snapshot)] == [(name, "toy") for name in names]


def test_a_run_is_named_by_its_weights_and_numbers_and_by_its_settings_without_any() -> None:
    files: Any = SimpleNamespace(cohort="toy", model="m")
    names = [rows_module._id(files, settings, summary, checkpoint) for settings, summary, checkpoint in (
        ({"a": 1}, {"x": 1}, "c"), ({"a": 2}, {"x": 1}, "c"), ({"a": 1}, {"x": 2}, "c"), ({"a": 1}, {"x": 1}, "d"),
        ({"a": 1}, None, "c"), ({"a": 1}, None, "d"), ({"a": 2}, None, "c"))]  # fmt: skip
    assert {len(name) for name in names} == {10}
    assert [names.index(name) for name in names] == [0, 0, 2, 3, 4, 4, 6]


RUN_JSON = "models/toy/m/run.json"
SUMMARY = "reports/metrics/toy/m/details.json"


@pytest.mark.parametrize(("files", "lock", "values"), [
    ({}, {}, None), ({}, {"stages": {"train@toy-other": {}}}, None), ({}, {"stages": None}, None), ({SUMMARY: b"{"},
        {}, None),
    ({}, {"stages": {"train@toy-m": {}}}, {}), ({RUN_JSON: b'{"a": 1}'}, {}, {}),
    ({RUN_JSON: b'{"provenance": {"git": {"commit": "abc", "dirty": false}}}'}, {}, {"commit": "abc", "dirty": False}),
    ({RUN_JSON: b'{"provenance": {"git": {"commit": null, "dirty": 1}}}'}, {}, {"dirty": True}),
    ({RUN_JSON: b'{"provenance": null}'}, {}, {}), ({SUMMARY: b'{"n_cases": 3}'}, {}, {"metrics": {"n_cases": 3}}),
    ({RUN_JSON: b'{"a": 1}', "models/toy/m/config_resolved.yaml": b"lr: 0.5\n",
        "reports/settings/toy/m/predict.json": b'{"overlap": 0.5}'}, {},
     {"settings": {"lr": 0.5, "predict.overlap": 0.5}}),
    ({SUMMARY: b'{"n_cases": 3}'}, {"stages": {"evaluate@toy-m": {"outs": [{"path": SUMMARY, "md5": "0" * 32}]}}},
     {"metrics": {"n_cases": 3}, "note": f"changed since the stage that made it: {SUMMARY}"}),
])  # fmt: skip
def test_a_run_is_what_there_is_of_it_and_nothing_where_there_is_nothing(
    files: dict[str, bytes], lock: dict[str, Any], values: dict[str, Any] | None
) -> None:
    snapshot = Snapshot({}, {"cohort": "toy", "models": ["m"]}, lock, files.get)
    rows = rows_module.rows_of_snapshot(snapshot)
    if values is None:
        assert rows == []
        return
    ((row),) = rows
    verdicts = dict.fromkeys(("data", "preflight", "model"))
    assert replace(row, id="") == RunRow("", "", "toy", "m", "incomplete", verdicts=verdicts, **values)
    asked = rows_module.paths_of_rows(snapshot)
    assert asked[:3] == [SUMMARY, "reports/metrics/toy/m/cases.csv", "reports/settings/toy/m/predict.json"]
    assert len(asked) == 9
