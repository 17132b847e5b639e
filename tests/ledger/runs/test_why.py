"""Why a stage would run, in words; the whole command is tried in tests/test_end_to_end.py."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import to_json
from doseledger.core.project.layout import Layout, Machine
from doseledger.ledger.provenance.dvc_project import StageState
from doseledger.ledger.runs import why as module
from doseledger.ledger.runs.why import (  # fmt: skip
    Rerun,
    _changes,
    _differences,
    _disk,
    _last_seconds,
    describe_plan,
    describe_reruns,
    find_reruns,
)

CODE = "reports/code/train.json"


def md5_of(value: object) -> str:
    return hashlib.md5(to_json(value).encode()).hexdigest()


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def state(recorded: dict[str, str], **changes: object) -> StageState:
    values: dict[str, object] = {"changed": {}, "settings": {}, "reaches": (), **changes}
    return StageState("train@toy", "doseledger train", recorded, **values)  # type: ignore[arg-type]


def test_code_is_compared_with_what_the_last_run_recorded_wherever_git_has_it(tmp_path: Path) -> None:
    old, between, now = {"a": "1", "b": "1"}, {"a": "2", "b": "1"}, {"a": "3", "c": "1"}
    path = tmp_path / CODE
    path.parent.mkdir(parents=True)
    git(tmp_path, "init", "--quiet")
    for content in (old, between):
        path.write_text(to_json(content))
        git(tmp_path, "add", CODE)
        git(tmp_path, "commit", "--quiet", "-m", "one")
    changes = list(_changes(tmp_path, state({CODE: md5_of(old)}), {CODE: now}))
    assert changes == ["code: a was edited", "code: b is gone", "code: c is new"]
    # What is in no commit can't be told apart, only that it is another.
    lost = state({CODE: "0" * 32}, changed={CODE: "modified"})
    assert list(_changes(tmp_path, lost, {CODE: now})) == ["code: modified; no commit holds what it was"]
    # The file on disk is old, what would be written now is what was recorded: nothing changed.
    assert list(_changes(tmp_path, state({CODE: md5_of(old)}, changed={CODE: "modified"}), {CODE: old})) == []


def test_data_and_settings_are_told_and_many_changes_are_counted(tmp_path: Path) -> None:
    data = "data/cases/toy"
    changed = state({data: "1" * 32}, changed={data: "modified"}, settings={"fold": (0, 1)})
    assert list(_changes(tmp_path, changed, {})) == [f"{data}: modified", "params.yaml: fold: 0 → 1"]
    assert list(_changes(tmp_path, state({}), {})) == ["it has not run yet"]
    path = tmp_path / CODE
    path.parent.mkdir(parents=True)
    old = {f"m{n}": "1" for n in range(9)}
    path.write_text(to_json(old))
    changes = list(_changes(tmp_path, state({CODE: md5_of(old)}), {CODE: dict.fromkeys(old, "2")}))
    assert changes[5:] == ["code: m5 was edited", "code: and 3 more"]


def test_cost_and_reason_stand_beside_each_stage() -> None:
    assert describe_reruns([]) == ["nothing would run"]
    reruns = [Rerun("train@toy", ("code: a was edited",), ("judge@toy",), 600.0), Rerun("judge@toy", (), (), None)]
    assert describe_reruns(reruns) == [
        "train@toy (last time 10 min)",
        "  code: a was edited",
        "judge@toy: a stage before it runs",
        "2 stages; the 1 of known cost took 10 min",
    ]


LOCK = """schema: '2.0'
stages:
  train@toy-m:
    cmd: doseledger train m
    outs:
    - {path: models/toy/m, md5: a.dir, size: 1500000000}
  judge@toy-m:
    cmd: doseledger judge m
    outs:
    - {path: reports/verdicts, md5: b, size: 1000}
"""
PIPELINE = """stages:
  train:
    desc: train a model; goes on where it was interrupted
    matrix: {cohort: [toy], model: [m]}
    cmd: doseledger train m
"""


def test_what_a_run_will_do_is_told_with_its_time_and_disk(tmp_path: Path) -> None:
    assert describe_plan([], tmp_path) == ["nothing to do: every stage is up to date"]
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    reruns = [Rerun("train@toy-m", ("code: a",), (), 600.0), Rerun("report@toy-m", (), (), None)]
    lines = describe_plan(reruns, tmp_path)
    assert [" ".join(line.split()) for line in lines[:4]] == [
        "Stage Last time What", "train@toy-m 10 min train a model", "report@toy-m not known",
        "2 stages; those of known cost took 10 min last time",
    ]  # fmt: skip
    assert lines[4].startswith("disk: not known before a first run")
    (tmp_path / "dvc.lock").write_text(LOCK)
    # Of the stages that would run alone: judge's out is not among them.
    assert describe_plan(reruns, tmp_path)[4].startswith("disk: the outs took 1.50 GB last time, up to twice that")


ENTRIES = [
    {"event": "began", "n": 1, "command": "split", "arguments": {}},
    {"event": "ended", "n": 2, "began": 1, "status": "done", "seconds": 9},
    {"event": "began", "n": 3, "command": "split"},
    {"event": "ended", "n": 4, "began": 3, "status": "done", "seconds": 5},
    {"event": "began", "n": 5, "command": "train", "arguments": {"model": "m", "cohort": "toy"}},
    {"event": "ended", "n": 6, "began": 5, "status": "failed", "seconds": 7},
    {"event": "began", "n": 7, "command": "train", "arguments": {"model": "m", "cohort": "toy"}},
    {"event": "ended", "n": 8, "began": 7, "status": "done", "seconds": 700},
    {"event": "ended", "n": 9, "began": 99, "status": "done", "seconds": 1},
]


def test_a_command_takes_as_long_as_when_it_last_ended_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "read_entries", lambda log: iter(ENTRIES))
    assert _last_seconds(tmp_path) == {"doseledger split": 5.0, "doseledger train m --cohort toy": 700.0}

    def fail(log: Path) -> Any:
        raise BadInput("no log")

    monkeypatch.setattr(module, "read_entries", fail)
    assert _last_seconds(tmp_path) == {}


def test_what_changed_and_what_comes_after_it_would_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    layout, machine = Layout(tmp_path, "toy"), Machine(tmp_path)
    old, now = {"a": "1"}, {"a": "2"}
    code = layout.code / "split.json"
    code.parent.mkdir(parents=True)
    code.write_text(to_json(old))
    path = code.relative_to(tmp_path).as_posix()
    states = [
        StageState("code", "doseledger code", {"src": "1"}, {"src": "modified"}, {}, ("split@toy",)),
        StageState("settings@toy", "doseledger settings", {}, {}, {}, ("split@toy",)),
        StageState("model_settings@toy-m", "doseledger settings m", {}, {}, {}, ("train@toy-m",)),
        StageState("ingest@toy", "doseledger ingest", {"data/raw": "1"}, {}, {}, ("split@toy",)),
        StageState("split@toy", "doseledger split", {path: md5_of(old)}, {}, {"fold": (0, 1)}, ("train@toy-m",)),
        StageState("train@toy-m", "doseledger train m --cohort toy", {"data/cases": "1"}, {}, {}, ()),
        StageState("below/dvc.yaml:code", "other", {"x": "1"}, {"x": "gone"}, {}, ()),
        StageState("below/dvc.yaml:more", "other", {"x": "1"}, {"x": "gone"}, {}, ()),
    ]
    monkeypatch.setattr(module, "pipeline_state", lambda root: states)
    monkeypatch.setattr(module, "code_files", lambda layout, settings: {code: now})
    monkeypatch.setattr(module, "cohort_files", lambda layout: {})
    monkeypatch.setattr(module, "model_files", lambda at, settings: {at.settings / "train.json": {"lr": (1, 2)}})
    monkeypatch.setattr(module, "read_entries", lambda log: iter(ENTRIES))
    settings: Any = SimpleNamespace(models=["m"])
    assert find_reruns(layout, settings, machine) == [
        Rerun("split@toy", ("code: a was edited", "params.yaml: fold: 0 → 1"), ("train@toy-m",), 5.0),
        Rerun("train@toy-m", (), (), 700.0),
        Rerun("below/dvc.yaml:more", ("x: gone",), (), None),
    ]
    assert module._small_files(layout, settings) == {
        path: now, (layout.model("m").settings / "train.json").relative_to(tmp_path).as_posix(): {"lr": [1, 2]},
    }  # fmt: skip


@pytest.mark.parametrize(("n", "more"), [(6, []), (7, ["settings: and 1 more"])])
def test_six_differences_are_told_and_the_others_counted(n: int, more: list[str]) -> None:
    path = "reports/settings/toy/m/train.json"
    old, new = {"same": 1, "gone": None}, {"same": 1, **{f"k{k}": {"deep": k} for k in range(n - 1)}}
    said = ["settings: gone: None → not set", *(f"settings: k{k}.deep: not set → {k}" for k in range(n - 1))]
    assert list(_differences(path, old, new)) == [*said[:6], *more]


def test_settings_files_themselves_and_data_beside_are_told_apart(tmp_path: Path) -> None:
    lost = state({"data/x": "1", CODE: "0" * 32}, changed={"data/x": "modified", "params.yaml": "modified"})
    assert list(_changes(tmp_path, lost, {CODE: {}})) == ["data/x: modified"]


def test_without_a_known_cost_no_sum_is_told(tmp_path: Path) -> None:
    reruns = [Rerun("a", (), (), None), Rerun("b", ("x",), (), None)]
    assert describe_reruns(reruns) == ["a: a stage before it runs", "b", "  x"]
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    assert describe_plan(reruns, tmp_path)[3] == "2 stages"
    two = [Rerun("a", (), (), 100.0), Rerun("b", (), (), 59.6)]
    assert describe_reruns(two)[-1] == "2 stages; the 2 of known cost took 3 min"
    assert describe_plan(two, tmp_path)[3] == "2 stages; those of known cost took 3 min last time"


def test_an_out_counts_once_and_one_of_no_known_size_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stages = {"a": ["x", 10**9], "b": ["y", None], "c": ["z", 5 * 10**9]}
    rows = {name: {"cmd": "c", "outs": [{"path": path, "md5": "1"} | ({"size": size} if size else {})]}
            for name, (path, size) in stages.items()}  # fmt: skip
    (tmp_path / "dvc.lock").write_text(to_json({"schema": "2.0", "stages": rows}))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda root: SimpleNamespace(free=2.26e9))
    told = _disk([Rerun(name, (), (), None) for name in ("a", "b", "new")], tmp_path)
    assert told == "disk: the outs took 1.00 GB last time, up to twice that with DVC's cache; 2.3 GB are free"
    told = _disk([Rerun("b", (), (), None)], tmp_path)
    assert (
        told
        == "disk: not known before a first run (the shipped cohort takes about 3 GB with DVC's cache); 2.3 GB are free"
    )
