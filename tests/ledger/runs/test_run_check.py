"""The checklist of a run: each fault is seeded, and must be named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import write_npz
from doseledger.core.files import read_json, write_json, write_text
from doseledger.gates.verdict import Verdict
from doseledger.learn.training.checkpoint import load_checkpoint, save_checkpoint
from doseledger.ledger.runs.check import check_run
from doseledger.ledger.runs.recompute import read_tables, summary_of_tables


def messages(verdict: Verdict, check: str) -> str:
    return "\n".join(finding.message for finding in verdict.errors if finding.gate == check)


def edit_table(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    after = change(before)
    assert after != before
    write_text(path, after)


def test_a_whole_run_passes_every_point(project) -> None:
    verdict = check_run(project.files, recompute=project.recompute(None))
    assert verdict.errors == ()
    assert [point["check"] for point in verdict.details["checks"]] == [
        "files", "checkpoint", "config", "dataset", "history", "tested", "metrics", "report", "verdicts", "code",
        "recomputed", "recorded",
    ]  # fmt: skip
    assert all(point["ok"] for point in verdict.details["checks"])
    assert len(verdict.details["recomputed_cases"]) == 3


def test_every_finding_says_what_found_wanted_and_what_to_do(project) -> None:
    (project.files.run / "train.log").unlink()
    found = check_run(project.files).errors
    assert [set(finding.numbers) for finding in found] == [{"what", "found", "wanted", "do"}] * 2
    # The folder, too, is no longer the one that training left.
    assert [finding.numbers["what"] for finding in found] == ["train.log", "models/phantom/dose_unet"]


@pytest.mark.parametrize("name", ["run.json", "checkpoints/last.ckpt", "history.csv", "dataset_summary.json"])
def test_a_file_that_is_missing_is_named_and_nothing_crashes(project, name: str) -> None:
    (project.files.run / name).unlink()
    verdict = check_run(project.files, recompute=project.recompute())
    assert f"{name}: found no file" in messages(verdict, "files")


def test_a_missing_epoch_is_named(project) -> None:
    history = project.files.run / "history.csv"
    edit_table(history, lambda text: "".join(x for x in text.splitlines(True) if not x.startswith("7,")))
    assert "found epoch 7 missing, wanted each of 1 to 15 once" in messages(check_run(project.files), "history")


def test_an_epoch_that_is_there_twice_is_named(project) -> None:
    history = project.files.run / "history.csv"
    edit_table(history, lambda text: "".join(x * 2 if x.startswith("4,") else x for x in text.splitlines(True)))
    assert "epoch 4 there twice" in messages(check_run(project.files), "history")


def test_a_training_that_stopped_before_its_end_is_named(project) -> None:
    files = project.files
    last = files.run / "checkpoints/last.ckpt"
    for path in (last, files.best_checkpoint):
        save_checkpoint(path, replace(load_checkpoint(path), epoch=12))
    edit_table(files.run / "history.csv", lambda text: "".join(text.splitlines(True)[:13]))
    assert "found 12 as the last epoch, wanted 15 (fit.max_epochs)" in messages(check_run(files), "history")


def test_a_better_epoch_than_the_best_checkpoint_is_named(project) -> None:
    history = project.files.run / "history.csv"
    edit_table(history, lambda text: text.replace("3,96,0.001,0.3333333333333333,8.25", "3,96,0.001,0.33,1.25"))
    assert "best.ckpt: found epoch 15, wanted 3" in messages(check_run(project.files), "history")


def test_a_summary_that_was_edited_is_named_with_the_recomputed_number(project) -> None:
    summary = read_json(project.files.summary)
    true = summary["mae_body_gy"]
    project.edit_json(project.files.summary, mae_body_gy=round(true - 0.5, 6))
    found = messages(check_run(project.files), "metrics")
    assert f"summary.json: mae_body_gy: found {true - 0.5:.7g}, wanted {true:.7g}, recomputed from the tables" in found


@pytest.mark.parametrize("name", ["mae_body_gy_low", "gamma_3_3_global_percent_worst", "prediction_acceptable_percent"])
def test_intervals_worst_cases_and_rates_are_recomputed_too(project, name: str) -> None:
    project.edit_json(project.files.summary, **{name: 1.23})
    assert f"summary.json: {name}: found 1.23" in messages(check_run(project.files), "metrics")


def test_a_table_that_was_edited_with_its_summary_is_found_by_measuring_again(project) -> None:
    files = project.files
    worst = check_run(files, recompute=project.recompute(1)).details["recomputed_cases"][0]
    tables = files.tables["cases"].read_text().splitlines()
    at = tables[0].split(",").index("mae_body_gy")
    forged = [
        ",".join([*cells[:at], "0.100000", *cells[at + 1 :]]) if (cells := line.split(","))[0] == worst else line
        for line in tables
    ]
    write_text(files.tables["cases"], "\n".join(forged) + "\n")
    # A careful forger makes the summary anew.
    write_json(files.summary, summary_of_tables(read_tables(files.tables, read_json(files.summary))))
    assert messages(check_run(files), "metrics") == ""
    found = messages(check_run(files, recompute=project.recompute(1)), "recomputed")
    assert f"cases.csv: mae_body_gy of {worst}: found 0.1" in found
    assert "measured again" in found


def test_tables_and_summary_that_were_halved_together_are_found_by_the_hashes_in_dvc_lock(project) -> None:
    files = project.files
    assert messages(check_run(files), "recorded") == ""
    frame = pd.read_csv(files.tables["cases"], dtype=str)
    errors = [name for name in frame.columns if name.startswith("mae_")]
    frame[errors] = frame[errors].apply(lambda column: column.map(lambda text: f"{float(text) / 2:.6f}"))
    write_text(files.tables["cases"], frame.to_csv(index=False, lineterminator="\n"))
    write_json(files.summary, summary_of_tables(read_tables(files.tables, read_json(files.summary))))
    verdict = check_run(files)
    assert messages(verdict, "metrics") == ""
    found = messages(verdict, "recorded")
    assert "reports/metrics/phantom/dose_unet/cases.csv: found MD5" in found
    assert "reports/metrics/phantom/dose_unet/details.json: found MD5" in found
    assert (
        "as evaluate@phantom-dose_unet left it. Never edit what a stage wrote; make it again with `dvc repro" in found
    )


def test_a_run_of_which_dvc_recorded_nothing_is_told_and_not_failed(project) -> None:
    (project.root / "dvc.lock").unlink()
    verdict = check_run(project.files)
    assert verdict.errors == ()
    (told,) = [finding.message for finding in verdict.findings if finding.gate == "recorded"]
    assert "dvc.lock: found no record of split@phantom, check_data@phantom" in told
    assert "nobody can tell whether their files were changed since" in told


def test_a_prediction_that_was_changed_is_found_by_measuring_again(project) -> None:
    files = project.files
    worst = check_run(files, recompute=project.recompute(1)).details["recomputed_cases"][0]
    path = files.predictions / f"{worst}.npz"
    with np.load(path) as npz:
        arrays = dict(npz)
    write_npz(path, {**arrays, "dose_gy": arrays["dose_gy"] * np.float32(1.01)})
    assert "measured again" in messages(check_run(files, recompute=project.recompute(1)), "recomputed")


def test_goal_counts_that_do_not_follow_from_the_goals_are_named(project) -> None:
    goals = project.files.tables["goals"]
    edit_table(goals, lambda text: text.replace(",True,True,True,True,", ",True,False,True,True,", 1))
    assert "prediction_goals_met" in messages(check_run(project.files), "metrics")


def test_settings_that_are_not_the_checkpoints_are_named(project) -> None:
    path = project.files.run / "config_resolved.yaml"
    config = json.loads(path.read_text())
    config["lr"] = 0.5
    config["recipe"]["fit"]["max_epochs"] = 99
    write_json(path, config)
    found = messages(check_run(project.files), "config")
    assert "config_resolved.yaml: lr: found 0.5, wanted 0.002, as run.json has it" in found
    assert "fit.max_epochs was 15, is 99" in found


def test_a_case_of_another_content_than_the_splits_is_named(project) -> None:
    path = project.files.run / "dataset_summary.json"
    summary = read_json(path)
    summary["train"][0]["sha256"] = "0" * 64
    write_json(path, summary)
    found = messages(check_run(project.files), "dataset")
    assert "dataset_summary.json: train: case_0001: found 000000000000" in found
    assert "as the checkpoint has it" in found


def test_a_checkpoint_that_is_not_the_evaluated_one_is_named(project) -> None:
    best = project.files.best_checkpoint
    save_checkpoint(best, replace(load_checkpoint(best), weights={"w": load_checkpoint(best).weights["w"] + 1}))
    assert "predicted with another checkpoint" in messages(check_run(project.files), "tested")


def test_a_checkpoint_that_is_cut_short_blocks_what_needs_it_and_is_told_once(project) -> None:
    best = project.files.best_checkpoint
    best.write_bytes(best.read_bytes()[:100])
    verdict = check_run(project.files)
    assert "can't be read as a checkpoint" in messages(verdict, "checkpoint")
    blocked = {point["check"] for point in verdict.details["checks"] if point["blocked_by"] == "checkpoint"}
    assert {"config", "dataset", "history", "tested"} <= blocked
    assert sum("can't be read" in finding.message for finding in verdict.errors) == 1


def test_a_gate_that_failed_is_named_with_its_findings(project) -> None:
    place = project.files.verdicts["data"]
    finding = {"gate": "nan", "case_id": "case_0001", "severity": "error", "message": "case_0001: NaN", "numbers": {}}
    project.edit_json(place.token, ok=False)
    project.edit_json(place.findings, ok=False, findings=[finding])
    assert "found ok: false; case_0001: NaN, wanted ok: true" in messages(check_run(project.files), "verdicts")


def test_a_verdict_on_other_numbers_is_named(project) -> None:
    place = project.files.verdicts["model"]
    findings = read_json(place.findings)
    findings["details"]["metrics"]["details"]["limits"][0]["found"] = 0.5
    write_json(place.findings, findings)
    assert "wanted a verdict on this summary" in messages(check_run(project.files), "verdicts")


def test_a_report_of_another_run_is_named(project) -> None:
    write_text(project.files.html, "<html>of another run</html>\n")
    assert "no mention of cases_sha256" in messages(check_run(project.files), "report")


def test_a_dirty_tree_is_named(project) -> None:
    path = project.files.run / "run.json"
    record = read_json(path)
    record["provenance"]["git"] |= {"dirty": True, "dirty_paths": ["code.py"], "note": "1 tracked file differs"}
    write_json(path, record)
    assert "found DIRTY TREE: 1 tracked file differs (code.py)" in messages(check_run(project.files), "code")


def test_a_commit_that_the_repository_does_not_have_is_named(project) -> None:
    path = project.files.run / "run.json"
    record = read_json(path)
    record["provenance"]["git"]["commit"] = "a" * 40
    write_json(path, record)
    assert "which this repository does not have" in messages(check_run(project.files), "code")


def test_no_commit_at_all_is_named(project) -> None:
    path = project.files.run / "run.json"
    record = read_json(path)
    record["provenance"]["git"] |= {"commit": None, "note": "this is no Git working tree"}
    write_json(path, record)
    assert "no commit (this is no Git working tree)" in messages(check_run(project.files), "code")


def test_the_digest_changes_with_every_file_of_the_run(project) -> None:
    before = check_run(project.files).digest
    assert check_run(project.files).digest == before
    edit_table(project.files.run / "train.log", lambda text: text + "more\n")
    assert check_run(project.files).digest != before
