"""Every run is found once, wherever it is kept, and what is not known is not made up."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from doseledger.core.errors import BadInput
from doseledger.core.files import read_json, write_json, write_text
from doseledger.core.text.sheet import as_markdown, as_text
from doseledger.core.text.words import short_metric, spell_metric
from doseledger.ledger.provenance.dvc_project import QueuedExperiment, queued_experiments
from doseledger.ledger.provenance.snapshot import snapshot_of
from doseledger.ledger.runs.archive import archive_run
from doseledger.ledger.runs.check import check_run
from doseledger.ledger.runs.files import files_of_archive
from doseledger.ledger.runs.listing import index as index_module
from doseledger.ledger.runs.listing.index import gather_runs
from doseledger.ledger.runs.listing.rows import RunRow
from doseledger.ledger.runs.listing.tables import (
    comparison_table,
    differing_settings,
    find_run,
    format_runs,
    runs_table,
    select_runs,
)

WHEN = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


def commit_run(project, message: str, **settings: object) -> str:
    """A commit of the run that lies there; with settings, of one that was trained with these."""
    if settings:
        project.edit_json(project.at.run / "config_resolved.yaml", **settings)
        project.record()
    project.git("add", "-A")
    project.git("commit", "-q", "-m", message)
    return project.git("rev-parse", "HEAD")


def change_numbers(project, mae_gy: float) -> None:
    """Another run: other numbers, judged as they are."""
    files = project.files
    project.edit_json(files.summary, mae_body_gy=mae_gy, mae_above_10_percent_gy=mae_gy)
    findings = read_json(files.verdicts["model"].findings)
    findings["details"]["metrics"]["details"]["limits"][0]["found"] = mae_gy
    write_json(files.verdicts["model"].findings, findings)


def test_one_run_in_workspace_commit_tag_and_archive_is_one_row(project, tmp_path: Path) -> None:
    commit_run(project, "First run")
    project.git("tag", "v1")
    archive_run(project.files, check_run(project.files), tmp_path / "archive", when=WHEN, examples=[])
    rows = gather_runs(project.root, [tmp_path / "archive"])
    assert len(rows) == 1
    assert rows[0].where == ("workspace", "main", "v1", "archive run_20260301_123005")
    assert rows[0].status == "complete"
    assert rows[0].dirty is False
    assert rows[0].settings["lr"] == 0.002
    assert rows[0].settings["fit.max_epochs"] == 15
    assert rows[0].settings["splits.seed"] == 11


def test_runs_of_earlier_commits_are_found_with_their_own_settings_and_numbers(project) -> None:
    commit_run(project, "First run")
    change_numbers(project, 1.5)
    commit_run(project, "Second run", lr=0.0005)
    rows = gather_runs(project.root)
    assert (rows[0].note, rows[0].settings["lr"], rows[0].metrics["mae_body_gy"]) == (
        "Second run",
        0.0005,
        1.5,
    )
    assert rows[1].note == "First run"
    assert rows[1].settings["lr"] == 0.002
    assert rows[1].where[0].startswith("commit ")
    assert differing_settings(rows) == ["lr"]


def test_an_experiment_of_dvc_is_found_by_its_name(project) -> None:
    base = commit_run(project, "First run")
    change_numbers(project, 1.25)
    commit = commit_run(project, "dvc: commit experiment", lr=0.01)
    project.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/brave-rat", commit)
    project.git("update-ref", "refs/exps/exec/EXEC_BASELINE", base)
    project.git("reset", "-q", "--hard", base)
    rows = gather_runs(project.root)
    assert find_run(rows, "brave-rat").metrics["mae_body_gy"] == 1.25
    assert len(rows) == 2


def test_a_dirty_run_is_known_from_dvcs_cache_and_unknown_without_it(project) -> None:
    commit_run(project, "First run")
    shutil.rmtree(project.root / "models")
    (row,) = gather_runs(project.root)
    assert row.dirty is False
    shutil.rmtree(project.root / ".dvc")
    (row,) = gather_runs(project.root)
    assert row.dirty is None
    assert row.commit == ""


def test_a_cache_that_only_the_users_own_configuration_names_is_found(
    project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_run(project, "First run")
    shutil.rmtree(project.root / "models")
    shutil.move(project.root / ".dvc/cache", tmp_path / "home/shared")
    write_text(tmp_path / "settings/config", "[cache]\n    dir = ~/shared\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "settings"))
    (row,) = gather_runs(project.root)
    assert row.dirty is False


def test_a_configuration_of_dvc_that_nobody_can_read_is_said_so(project) -> None:
    commit_run(project, "First run")
    write_text(project.root / ".dvc/config", "[cache\n")
    with pytest.raises(BadInput, match="DVC can't read its configuration"):
        gather_runs(project.root)


def test_a_run_of_a_dirty_tree_is_red_everywhere(project) -> None:
    path = project.files.run / "run.json"
    record = read_json(path)
    record["provenance"]["git"]["dirty"] = True
    write_json(path, record)
    rows = gather_runs(project.root)
    table = runs_table(rows)
    assert "\033[31mpassed, DIRTY" in as_text(table, colour=True)
    assert "| **passed, DIRTY** |" in as_markdown(table)
    assert select_runs(rows, where="dirty") == rows


def test_a_verdict_on_other_numbers_does_not_count(project) -> None:
    project.edit_json(project.files.summary, mae_body_gy=1.0)
    (row,) = gather_runs(project.root)
    assert row.verdicts["model"] is None
    assert all(verdict for gate, verdict in row.verdicts.items() if gate != "model")
    assert row.status == "incomplete"


def test_a_row_whose_summary_was_edited_since_says_so_and_is_not_complete(project) -> None:
    (row,) = gather_runs(project.root, [])
    assert (row.status, row.note) == ("complete", "")
    summary = read_json(project.files.summary)
    # With the same numbers in the verdict, which says nothing against them.
    project.edit_json(project.files.summary, mae_body_gy=summary["mae_body_gy"] / 2)
    place = project.files.verdicts["model"].findings
    text = place.read_text().replace(repr(summary["mae_body_gy"]), repr(summary["mae_body_gy"] / 2))
    write_text(place, text)
    (row,) = gather_runs(project.root, [])
    assert (row.status, row.verdicts["model"]) == ("incomplete", None)
    assert row.note == "changed since the stage that made it: reports/metrics/phantom/dose_unet/details.json"


def test_a_failed_gate_makes_a_failed_run(project) -> None:
    project.edit_json(project.files.verdicts["preflight"].token, ok=False)
    (row,) = gather_runs(project.root)
    assert row.status == "failed"
    assert "preflight FAILED" in as_text(runs_table([row]), colour=False)


def test_a_run_that_a_gate_has_not_judged_is_not_complete(project) -> None:
    project.files.verdicts["preflight"].token.unlink()
    (row,) = gather_runs(project.root)
    assert row.verdicts["preflight"] is None
    assert row.verdicts["model"] is True
    assert row.status == "incomplete"


def test_metrics_of_an_earlier_checkpoint_are_told(project) -> None:
    project.files.best_checkpoint.write_bytes(b"another one")
    (row,) = gather_runs(project.root)
    assert row.status == "incomplete"
    assert "of an earlier checkpoint" in row.note


def test_a_table_that_is_no_text_is_of_no_checkpoint(project) -> None:
    project.files.tables["cases"].write_bytes(b"case_id\n\xb8\xff\n")
    (row,) = gather_runs(project.root)
    assert row.status == "incomplete"


@pytest.mark.parametrize("pid", ["12", -1, 2**70, 3.5])
def test_a_number_that_no_process_has_is_of_none_alive(pid: Any) -> None:
    assert not index_module.is_alive(pid, "python")


@pytest.mark.parametrize("content", ["5", "[]", '"ok"', "{"])
def test_a_verdict_of_another_form_in_an_archive_is_none(project, tmp_path: Path, content: str) -> None:
    archived = archive_run(project.files, check_run(project.files), tmp_path / "archive", when=WHEN, examples=[])
    files_of_archive(archived).verdicts["data"].token.write_text(content)
    (row,) = index_module.rows_of_archives(tmp_path / "archive")
    assert row.verdicts["data"] is None


def test_a_training_that_was_stopped_and_one_at_work_are_told_apart(project, monkeypatch: pytest.MonkeyPatch) -> None:
    states = project.root / ".doseledger/resume"
    parts = {"lr": 0.01, "seed": 3, "fold": 0, "repeat": 0, "recipe": {"fit": {"max_epochs": 9}}}
    for name, pid in (("a" * 16, 2**22 + 1), ("b" * 16, os.getpid())):
        folder = states / "dose_unet" / name
        write_json(folder / "fingerprint.json", parts)
        beat = {"pid": pid, "count": 5, "epoch": 4, "step": 40, "phase": "trains"}
        write_json(folder / "heartbeat.json", beat)
    found = {row.id: row for row in gather_runs(project.root, states=states)}
    assert found["a" * 10].status == "interrupted"
    assert found["a" * 10].settings["fit.max_epochs"] == 9
    # This process is no training, so its number is one that was used again.
    assert found["b" * 10].status == "interrupted"
    monkeypatch.setattr(index_module, "is_alive", lambda pid, program: pid == os.getpid())
    found = {row.id: row for row in gather_runs(project.root, states=states)}
    assert found["b" * 10].status == "running"
    assert found["b" * 10].note == "in epoch 4"


def test_what_was_read_of_commits_is_kept_and_used(project, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_run(project, "First run")
    store = project.root / ".doseledger/runs.json"
    first = gather_runs(project.root, store=store)
    assert list(read_json(store)["rows"]) == [project.git("rev-parse", "HEAD")]
    read: list[object] = []
    original = index_module._read_revisions
    monkeypatch.setattr(
        index_module, "_read_revisions", lambda root, revisions: read.extend(revisions) or original(root, revisions)
    )
    assert gather_runs(project.root, store=store) == first
    assert read == []
    change_numbers(project, 1.5)
    commit_run(project, "Second run")
    assert len(gather_runs(project.root, store=store)) == 2
    assert len(read) == 1


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"version": "of another code", "rows": {"x": [1]}})])
def test_a_store_of_other_code_or_cut_short_is_not_believed(project, content: str) -> None:
    commit_run(project, "First run")
    store = project.root / ".doseledger/runs.json"
    write_text(store, content)
    assert gather_runs(project.root, store=store) == gather_runs(project.root)


def test_a_commit_with_unreadable_settings_holds_no_run_and_stops_nothing(project) -> None:
    commit_run(project, "First run")
    write_text(project.root / "dvc.lock", "<<<<<<< conflict\n")
    params = (project.root / "params.yaml").read_text()
    write_text(project.root / "params.yaml", f"<<<<<<< conflict\n{params}")
    commit_run(project, "Broken")
    write_text(project.root / "params.yaml", params)
    write_text(project.root / "dvc.lock", "schema: '2.0'\n")
    store = project.root / ".doseledger/runs.json"
    assert any("First run" in row.note for row in gather_runs(project.root, store=store))
    # It is not read again each time.
    assert read_json(store)["rows"][project.git("rev-parse", "HEAD")] == []


def test_a_commit_whose_settings_named_no_models_holds_no_run_and_stops_nothing(project) -> None:
    commit_run(project, "First run")
    params = (project.root / "params.yaml").read_text()
    values = YAML(typ="safe", pure=True).load(params)
    write_json(project.root / "params.yaml", {**values, "models": {"dose_unet": {}}, "cohort": None})
    commit_run(project, "Of an early form", lr=0.5)
    write_text(project.root / "params.yaml", params)
    assert {row.note for row in gather_runs(project.root)} == {"First run"}


def test_without_a_repository_there_is_still_the_workspace(project) -> None:
    shutil.rmtree(project.root / ".git")
    (row,) = gather_runs(project.root)
    assert row.where == ("workspace",)


def test_without_git_there_is_still_the_workspace(project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project.root))
    (row,) = gather_runs(project.root)
    assert row.where == ("workspace",)


def test_a_folder_of_archives_that_is_not_there_is_told(project) -> None:
    with pytest.raises(BadInput, match="no such folder of archived runs"):
        gather_runs(project.root, [project.root / "nowhere"])


def two_runs() -> list[RunRow]:
    common = {"cohort": "phantom", "model": "dose_unet", "status": "complete", "dirty": False}
    verdicts = {"data": True, "preflight": True, "model": True}
    first = RunRow(
        id="aaaaaaaaaa", date="2026-03-01T10:00:00+00:00", where=("main",), verdicts=verdicts,
        settings={"lr": 0.001, "seed": 1}, metrics={"mae_above_10_percent_gy": 3.0, "n_cases": 3}, **common,
    )  # fmt: skip
    second = RunRow(
        id="aabbbbbbbb", date="2026-03-02T10:00:00+00:00", where=("experiment quick",), verdicts=verdicts,
        settings={"lr": 0.01, "seed": 1}, metrics={"mae_above_10_percent_gy": 2.0, "n_cases": 3}, **common,
    )  # fmt: skip
    return [first, second]


def test_a_comparison_shows_what_differs_and_the_step_from_the_first() -> None:
    table = comparison_table(two_runs())
    lines = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert lines["lr"] == ["0.001", "0.01"]
    assert "seed" not in lines
    assert lines[spell_metric("mae_above_10_percent_gy")] == ["3.000", "2.000 (−1.000)"]
    assert lines["cases"] == ["3", "3 (0)"]
    states = {row[0].text: row[2].state for row in table.rows}
    assert states[spell_metric("mae_above_10_percent_gy")] == "good"


def test_runs_are_found_by_words_and_sorted() -> None:
    rows = two_runs()
    assert [row.id for row in select_runs(rows, sort="mae_gy")] == ["aabbbbbbbb", "aaaaaaaaaa"]
    assert [row.id for row in select_runs(rows, sort="mae_gy", descending=True)] == ["aaaaaaaaaa", "aabbbbbbbb"]
    assert [row.id for row in select_runs(rows, words=["LR=0.01", "quick"])] == ["aabbbbbbbb"]
    with pytest.raises(BadInput, match="nearest: mae_gy"):
        select_runs(rows, sort="mae_g")


def test_a_run_that_is_meant_must_be_one() -> None:
    assert find_run(two_runs(), "main").id == "aaaaaaaaaa"
    assert find_run(two_runs(), "aabbb").id == "aabbbbbbbb"
    with pytest.raises(BadInput, match="no run is called 'nobody'"):
        find_run(two_runs(), "nobody")


def test_every_format_holds_the_runs() -> None:
    rows = two_runs()
    table = runs_table(rows)
    assert json.loads(format_runs(rows, table, "json", colour=False))[0]["lr"] == 0.001
    lines = format_runs(rows, table, "csv", colour=False).splitlines()
    assert lines[0].startswith("id,date,cohort,model,status,where,commit,dirty,data_ok,preflight_ok,model_ok,")
    assert len(lines) == 3
    assert "| aaaaaaaaaa |" in format_runs(rows, table, "markdown", colour=False)
    assert "\033" not in format_runs(rows, table, "table", colour=False)


def test_a_lock_is_read_without_what_stages_read_and_nothing_else_is_lost() -> None:
    text = (
        "schema: '2.0'\nstages:\n  train@a:\n    cmd: doseledger train a \n      --cases c\n    deps:\n"
        "    - path: x.py\n      hash: md5\n      md5: 1a\n      size: 3\n    - path: y.py\n      md5: 2b\n"
        "    params:\n      params.yaml:\n        lr: 1e-05\n        a.loss:\n          terms:\n          - l1\n"
        "    outs:\n    - path: models/a\n      md5: 3c.dir\n  evaluate@a:\n"
        "    cmd: b\n    deps:\n    - path: z\n      md5: 4d\n"
        "    outs:\n    - path: m.json\n      md5: 5e\n"
    )
    wanted = YAML(typ="safe", pure=True).load(text)
    for stage in wanted["stages"].values():
        del stage["deps"]
    assert snapshot_of({"dvc.lock": text.encode()}, lambda path: None, Path("/nowhere")).lock == wanted


def test_the_best_of_a_column_is_a_clean_run_that_passed() -> None:
    first, second = two_runs()
    third = replace(first, id="cccccccccc", metrics={"mae_above_10_percent_gy": 2.5})
    dirty, failed = replace(second, dirty=True), replace(second, status="failed")
    for worse in (dirty, failed):
        table = runs_table([first, third, worse], ["mae_gy"])
        at = [column.label for column in table.columns].index(short_metric("mae_above_10_percent_gy"))
        assert [row[at].state for row in table.rows] == ["", "good", ""]


def test_a_setting_that_only_one_run_recorded_differs_in_a_comparison_alone() -> None:
    first, second = two_runs()
    richer = replace(second, settings={**second.settings, "loss.dvh": 0.1})
    assert differing_settings([first, richer]) == ["lr"]
    assert differing_settings([first, richer], absent_differs=True) == ["loss.dvh", "lr"]
    lines = {row[0].text: [cell.text for cell in row[1:]] for row in comparison_table([first, richer]).rows}
    assert lines["loss.dvh"] == ["–", "0.1"]


def test_the_queue_of_dvc_is_listed_with_its_settings(project, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_run(project, "First run")
    text = (project.root / "params.yaml").read_text()
    write_text(project.root / "params.yaml", text.replace("lr: 0.002", "lr: 0.25"))
    project.git("add", "-A")
    waiting = project.git("commit-tree", project.git("write-tree"), "-m", "a stash of DVC")
    project.git("reset", "-q", "--hard")
    entry = QueuedExperiment("waits", waiting, "queued", "2026-03-03T10:00:00+00:00")
    monkeypatch.setattr(index_module, "queued_experiments", lambda root: [entry])
    row = find_run(gather_runs(project.root), "waits")
    assert (row.status, row.settings["lr"], row.metrics) == ("queued", 0.25, {})


def test_a_project_without_a_queue_has_none(project) -> None:
    assert queued_experiments(project.root) == []
