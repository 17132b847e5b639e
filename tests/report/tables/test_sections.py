"""Tables on cohort, splits, code and training, by rows written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from doseledger.core.text.sheet import Table
from doseledger.ledger.provenance.stamp import GitState
from doseledger.report.tables.sections import (
    best_epoch,
    code_table,
    counts_table,
    hashes_table,
    lock_sentence,
    packages_table,
    skipped_table,
    splits_table,
    trained_git,
    training_table,
)

CLEAN = GitState("c" * 40, "main", False, (), "")


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def facts(**changes: Any) -> Any:
    cases = pd.DataFrame({
        "case_id": ["a", "b", "c"], "pseudonym": ["p", "p", "q"], "group": ["unknown", "two", "one"],
        "n_warnings": [0, 1, 2],
    })  # fmt: skip
    skipped = pd.DataFrame({
        "case_id": ["z", "y", "x"], "status": ["skipped", "failed", "failed"], "reason": ["r1", "r2", "r3"],
    })  # fmt: skip
    splits = pd.DataFrame({
        "case_id": ["a", "b", "c", "a"], "pseudonym": ["p", "p", "q", "p"], "split": ["train", "train", "test", "test"],
        "fold": [1, 1, 1, 0], "repeat": [0, 0, 0, 0],
    })  # fmt: skip
    lock = pd.DataFrame({"locked_on": ["2025-03-02", "2025-03-01"], "reason": ["b", "a"]})
    return SimpleNamespace(**({
        "cases": cases, "skipped": skipped, "splits": splits, "test_set": lock, "run": {"fold": 1, "repeat": 0},
    } | changes))  # fmt: skip


def test_cases_patients_groups_and_what_was_left_out_are_counted() -> None:
    table = counts_table(facts())
    assert [row[1] for row in texts(table)] == ["3", "2", "one, two", "2", "1", "2"]
    assert table.rows[-1][1].state == "bad"
    sound = facts(skipped=pd.DataFrame({"status": []}))
    assert counts_table(sound).rows[-1][1].state == ""
    assert texts(skipped_table(facts())) == [["x", "failed", "r3"], ["y", "failed", "r2"], ["z", "skipped", "r1"]]
    assert [row[1].state for row in skipped_table(facts()).rows] == ["bad", "bad", "warn"]


def test_splits_are_those_of_the_runs_fold_by_patient() -> None:
    table = splits_table(facts())
    assert texts(table) == [["train", "1", "2", "50.0", "a, b"], ["val", "0", "0", "0.0", ""],
                            ["test", "1", "1", "50.0", "c"]]  # fmt: skip
    assert "repeat 0, fold 1" in table.note


@pytest.mark.parametrize(("n", "words"), [(12, "c11"), (13, "13 cases, in the table of splits")])
def test_twelve_cases_of_a_part_are_named(n: int, words: str) -> None:
    names = [f"c{k:02d}" for k in range(n)]
    rows = pd.DataFrame({"case_id": names, "pseudonym": names, "split": "train", "fold": 1, "repeat": 0})
    assert texts(splits_table(facts(splits=rows)))[0][4].endswith(words)


def test_a_lock_says_since_when_and_why() -> None:
    assert lock_sentence(facts()) == "The test set is locked since 2025-03-01 to 2025-03-02: 2 cases (a; b)."
    one = facts().test_set.iloc[:1]
    assert lock_sentence(facts(test_set=one)) == "The test set is locked since 2025-03-02: 1 case (b)."
    assert lock_sentence(facts(test_set=one.iloc[:0])).startswith("The test set is unlocked")


PROVENANCE = {"command": ["dvc", "repro"], "cuda": "12.4", "gpus": ["A", "B"], "platform": "Linux", "lock_sha256": "f0"}


@pytest.mark.parametrize(("run", "expected"), [
    ({"provenance": PROVENANCE, "device": "cuda", "ancestors": [{"name": "x", "sha256": "1" * 64},
                                                                  {"name": "y", "sha256": "2" * 64}]},
     {"command": "dvc repro", "CUDA": "12.4", "GPUs": "A, B", "platform": "Linux", "lock of packages (SHA256)": "f0",
      "weights begun with": f"x (SHA256 {'1' * 12}…), begun with y (SHA256 {'2' * 12}…)", "device": "cuda"}),
    ({"versions": {"cuda": "11"}, "provenance": {"gpus": []}, "base": {"model": "dose_trees", "sha256": "3" * 64}},
     {"CUDA": "11", "GPUs": "none", "stands on the dose of": f"dose_trees (SHA256 {'3' * 12}…)"}),
    ({"parts": {"x": "1" * 64, "y": "2" * 64}},
     {"stands on the dose of": f"x (SHA256 {'1' * 12}…), y (SHA256 {'2' * 12}…)"}),
    ({}, {"command": "not recorded", "CUDA": "none", "GPUs": "none", "platform": "not recorded",
          "weights begun with": "no other model", "stands on the dose of": "no other model",
          "cases (SHA256 of all)": "not recorded"}),
])  # fmt: skip
def test_code_command_and_machine_are_told_as_they_were_recorded(run: dict[str, Any], expected: dict[str, str]) -> None:
    table = code_table(facts(run=run), CLEAN, CLEAN, ("https://a", ""))
    rows = dict(texts(table))
    assert rows | expected == rows
    assert table.rows[0][1].link == "https://a"
    assert (rows["tree when trained"], rows["tree when reported"]) == ("clean", "clean")


def test_a_tree_that_was_not_clean_stands_out() -> None:
    dirty = GitState(None, None, True, ("a.py",), "1 file differs")
    rows = code_table(facts(run={}), dirty, dirty).rows
    assert [(row[1].text, row[1].state) for row in rows[:5]] == [
        ("none", "bad"), ("dirty: 1 file differs", "bad"), ("none (detached)", ""), ("none", "hash"),
        ("dirty: 1 file differs", "bad"),
    ]  # fmt: skip
    assert trained_git(facts(run={})).dirty
    record = {"commit": "c", "branch": "b", "dirty": 0, "dirty_paths": ["x"], "note": "n"}
    assert trained_git(facts(run={"provenance": {"git": record}})) == GitState("c", "b", False, ("x",), "n")


def test_a_package_has_one_version_however_it_is_written() -> None:
    run = {"provenance": {"python": "3.11", "packages": {"pytorch_lightning": "2.5", "numpy": ""}},
           "versions": {"pytorch-lightning": "2.6", "torch": "2.13"}}  # fmt: skip
    assert texts(packages_table(facts(run=run))) == [
        ["python", "3.11"],
        ["pytorch-lightning", "2.6"],
        ["torch", "2.13"],
    ]


def test_the_best_epoch_is_the_one_with_the_least_first_score() -> None:
    history = pd.DataFrame({
        "epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "val_mae": [5.0, 4.0, None], "val_other": [1.0, 2.0, 0.5],
        "steps": [10, 20, 30], "seconds": [1.4, 1.0, 1.2],
    })  # fmt: skip
    assert best_epoch(history) == 2
    assert best_epoch(history[["epoch", "train_loss"]]) is None
    assert best_epoch(history.assign(val_mae=None)) is None
    table = training_table(facts(history=history, dataset={"train": ["a", "b"], "val": ["c"]}))
    rows = texts(table)
    assert rows[:3] == [["epochs", "3"], ["optimiser steps", "30"], ["seconds", "4"]]
    assert [row[1] for row in rows[3:5]] == ["2", "1"]
    assert rows[5] == ["best epoch", "2"]
    assert [row[1] for row in rows[6:]] == ["2", "4", "2"]
    assert rows[6][0] == "training loss, at the best epoch"


def test_files_of_stages_are_listed_but_code() -> None:
    table = hashes_table({"train": {"deps": {"src/a.py": "1", "data/b": "2"}, "outs": {"models/c": "3"}}})
    assert texts(table) == [["train", "read", "data/b", "2"], ["train", "wrote", "models/c", "3"]]
