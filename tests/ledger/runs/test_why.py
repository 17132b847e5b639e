"""Why a stage would run, in words; the whole command is tried in tests/test_end_to_end.py."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from doseledger.core.files import to_json
from doseledger.ledger.provenance.dvc_project import StageState
from doseledger.ledger.runs.why import Rerun, _changes, describe_plan, describe_reruns

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
