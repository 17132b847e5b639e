"""A search for settings: what may be drawn, what is chosen, how it goes on, and what it says of its best."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.project.layout import Layout
from doseledger.ledger.runs import sweep as module
from doseledger.ledger.runs.sweep import Range, Search, describe_sweep, read_range, run_trial, sweep

SPACE = [read_range("lr=1e-4:1e-2:log"), read_range("dose_unet.fit.max_epochs=2:9"), read_range("kind=a,b")]


def search(
    run: Callable[..., float], store: Path, n: int = 2, lines: list[str] | None = None, of: str = "dose_unet on phantom"
) -> list[dict[str, Any]]:
    return sweep(Search("s", SPACE, n, 1, store, of), run, (lines if lines is not None else []).append)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lr=1e-4:1e-2:log", Range("lr", 1e-4, 1e-2, True)),
        ("a.b=1:8", Range("a.b", 1, 8)),
        ("a=-1.5:2", Range("a", -1.5, 2)),
        ("a=adam,adamw", Range("a", words=("adam", "adamw"))),
    ],
)
def test_a_range_is_read(text: str, found: Range) -> None:
    assert read_range(text) == found


@pytest.mark.parametrize(
    "text", ["lr", "lr=", "lr=1", "=1:2", "lr=2:1", "lr=0:1:log", "lr=1:2:3", "lr=a:b", "lr=1:nan"]
)
def test_what_is_no_range_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(BadInput, match="wanted KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,C"):
        read_range(text)


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(NotReady, match=r'pip install "doseledger\[sweep\]"'):
        search(lambda name, values: 0.0, tmp_path)


def test_two_trials_are_run_the_best_is_first_and_the_search_goes_on(tmp_path: Path) -> None:
    tried: dict[str, Mapping[str, Any]] = {}

    def run(name: str, values: Mapping[str, Any]) -> float:
        tried[name] = values
        return 10.0 - len(tried)

    lines: list[str] = []
    found = search(run, tmp_path, lines=lines)
    assert list(tried) == ["s-0", "s-1"]
    for values in tried.values():
        assert 1e-4 <= values["lr"] <= 1e-2
        assert isinstance(values["dose_unet.fit.max_epochs"], int)
        assert values["kind"] in ("a", "b")
    assert [one["name"] for one in found] == ["s-1", "s-0"]
    assert lines[0].startswith("s-0: 9 with lr=")
    # As another process would, with the same seed: it draws other settings.
    assert [one["name"] for one in search(run, tmp_path, 1)] == ["s-2", "s-1", "s-0"]
    assert len({values["lr"] for values in tried.values()}) == 3


def test_a_search_of_another_model_or_cohort_does_not_go_on_under_the_same_name(tmp_path: Path) -> None:
    search(lambda name, values: 1.0, tmp_path, 1)
    with pytest.raises(BadInput, match="the search s is of dose_unet on phantom, not of seg_organs on phantom; give"):
        search(lambda name, values: 0.1, tmp_path, 1, of="seg_organs on phantom")


def test_a_trial_that_fails_is_told_and_the_others_go_on_unless_all_do(tmp_path: Path) -> None:
    def run(name: str, values: Mapping[str, Any]) -> float:
        if name == "s-0":
            raise NotReady("its experiment failed: no memory")
        return 1.0

    lines: list[str] = []
    assert [one["name"] for one in search(run, tmp_path / "a", 3, lines)] == ["s-1", "s-2"]
    assert lines[0] == "s-0: its experiment failed: no memory"

    def fail(name: str, values: Mapping[str, Any]) -> float:
        raise NotReady("no memory")

    with pytest.raises(NotReady, match="the first 3 trials of s all failed"):
        search(fail, tmp_path / "b", 9)


def test_a_trial_that_was_killed_counts_as_failed_once_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALIVE_S", 1)

    def killed(name: str, values: Mapping[str, Any]) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(killed, tmp_path, 1)
    time.sleep(3.5)
    assert [one["name"] for one in search(lambda name, values: 1.0, tmp_path, 1)] == ["s-1"]
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's.db'}")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


def test_the_best_is_said_to_be_chosen_on_validation_cases() -> None:
    found = [{"name": "s-1", "score": 2.0, "settings": {"lr": 0.1}}, {"name": "s-0", "score": 3.0, "settings": {}}]
    text = "\n".join(describe_sweep(found, 4, 3))
    assert "s-1 is the best of 2 trials on 4 validation cases" in text
    assert "none of the 3 test cases was predicted" in text
    assert "dvc exp apply s-1 && dvc repro" in text
    assert describe_sweep([], 4, 3) == ["no trial has a score"]


def test_a_trial_is_an_experiment_that_ends_with_training(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    status = [0]

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, status[0], "", "ERROR: failed to reproduce 'train'\n")

    def fetch(root: Path, path: str, revision: str, out: Path) -> None:
        assert (path, revision) == ("models/phantom/dose_unet/history.csv", "c" * 40)
        rows = {"epoch": [1, 2, 3], "steps": [1, 2, 3], "lr": 0.1, "train_loss": 1.0, "seconds": 1.0}
        pd.DataFrame({**rows, "val_mae_valid_dose_gy": [3.0, 2.5, None]}).to_csv(out, index=False)

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module, "fetch_file", fetch)
    monkeypatch.setattr(module, "experiment_commits", lambda root: {"s-0": "c" * 40})
    at = Layout(repository, "phantom").model("dose_unet")
    values = {"lr": 0.003, "dose_unet.loss.dvh": 0.1}
    assert run_trial(tmp_path, at, "s-0", values, message="a trial") == 2.5
    (command,) = asked
    assert command[1:9] == ["-m", "dvc", "exp", "run", "--temp", "--name", "s-0", "--message"]
    # A key that only model_base has is new in the model's block.
    assert command[10:14] == ["--set-param", "lr=0.003", "--set-param", "+dose_unet.loss.dvh=0.1"]
    assert command[-1] == "train@phantom-dose_unet"
    with pytest.raises(NotReady, match="DVC ran s-9 and kept no experiment"):
        run_trial(tmp_path, at, "s-9", values, message="a trial")
    status[0] = 1
    with pytest.raises(NotReady, match="its experiment failed: ERROR: failed to reproduce 'train'"):
        run_trial(tmp_path, at, "s-0", values, message="a trial")


def test_a_range_is_drawn_as_its_kind_asks() -> None:
    trial = SimpleNamespace(
        suggest_categorical=lambda *words: ("one of", *words), suggest_int=lambda *ends, log: ("whole", *ends, log),
        suggest_float=lambda *ends, log: ("any", *ends, log),
    )  # fmt: skip
    for text, drawn in (
        ("a=x,y", ("one of", "a", ("x", "y"))), ("a=1:8", ("whole", "a", 1, 8, False)), ("a=1:8:log", ("whole", "a",
            1, 8, True)),
        ("a=-3:8.5", ("any", "a", -3, 8.5, False)), ("a=1e-3:2:log", ("any", "a", 1e-3, 2, True)), ("a=,x,,y,",
            ("one of", "a", ("x", "y"))),
    ):  # fmt: skip
        assert read_range(text).draw(trial) == drawn, text
    with pytest.raises(BadInput, match="one value is nothing to choose among"):
        read_range("a=x,")
    for text in ("a=1:1", "a=-1:2:log", "a=1:2:lin", "a=1"):
        with pytest.raises(BadInput):
            read_range(text)


def test_trials_and_what_the_best_is_worth_are_told_line_by_line() -> None:
    found = [
        {"name": "s-1", "score": 2.03125, "settings": {"lr": 0.1, "kind": "a"}},
        {"name": "s-0", "score": 30.0, "settings": {}},
    ]
    assert describe_sweep(found, 4, 3) == [
        "s-1: 2.031, lr=0.1, kind=a",
        "s-0: 30, ",
        "s-1 is the best of 2 trials on 4 validation cases, the less the better; none of the 3 test cases was "
        "predicted. The best "
        "of many errs on these less than on others: measure it once, `dvc exp apply s-1 && dvc repro`",
    ]


def test_each_trial_draws_by_its_own_number_and_the_seed() -> None:
    def first(seed: int, number: int) -> float:
        study = optuna.create_study(sampler=module._sampler(seed, number))
        return float(study.ask().suggest_float("a", 0.0, 1.0))

    assert first(1, 0) == first(1, 0)
    assert len({first(1, 0), first(1, 1), first(2, 0)}) == 3


def test_two_of_three_failures_stop_nothing_and_equal_scores_go_by_name(tmp_path: Path) -> None:
    def run(name: str, values: Mapping[str, Any]) -> float:
        if name in ("s-0", "s-1"):
            raise NotReady("no memory")
        return 1.0

    lines: list[str] = []
    assert [one["name"] for one in search(run, tmp_path / "deep/er", 4, lines)] == ["s-2", "s-3"]
    assert lines[:2] == ["s-0: no memory", "s-1: no memory"]
    assert lines[2].startswith("s-2: 1 with lr=")


@pytest.mark.parametrize(("key", "is_there"), [
    ("lr", True), ("a.b", True), ("a.b.c", False), ("a.c", False), ("x", False), ("lr.x", False),
])  # fmt: skip
def test_a_setting_is_there_if_each_part_of_its_name_is(key: str, is_there: bool) -> None:
    assert module._is_there({"lr": 1, "a": {"b": 2}}, key) is is_there


@pytest.mark.parametrize("scores", [None, [float("nan")] * 2])
def test_a_trial_without_a_validation_score_has_none(
    scores: list[float] | None, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(root: Path, path: str, revision: str, out: Path) -> None:
        frame = pd.DataFrame({"epoch": [1, 2], "steps": [1, 2], "train_loss": 1.0})
        if scores is not None:
            frame["val_mae_valid_dose_gy"] = scores
        frame.to_csv(out, index=False)

    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(module.subprocess, "run", lambda command, **options: done)
    monkeypatch.setattr(module, "fetch_file", fetch)
    monkeypatch.setattr(module, "experiment_commits", lambda root: {"s-0": "c" * 40})
    at = Layout(repository, "phantom").model("dose_unet")
    with pytest.raises(NotReady, match="s-0: its history has no validation score"):
        run_trial(tmp_path, at, "s-0", {}, message="a trial")


def test_the_last_three_lines_of_an_experiment_that_fails_are_told(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    done = subprocess.CompletedProcess([], 1, "one\ntwo\n\n", "three\n \nfour\n")
    monkeypatch.setattr(module.subprocess, "run", lambda command, **options: asked.append((command, options)) or done)
    at = Layout(repository, "phantom").model("dose_unet")
    with pytest.raises(NotReady, match=r"^its experiment failed: two / three / four$"):
        run_trial(tmp_path, at, "s-0", {"lr": 1}, message="a trial")
    (command, options) = asked[0]
    assert command[0] == sys.executable
    assert command[9:] == ["a trial", "--set-param", "lr=1", "train@phantom-dose_unet"]
    assert options == {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
