"""Why a stage would run, in words; the whole command is tried in tests/test_end_to_end.py."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from doseledger.core.files import to_json
from doseledger.ledger.provenance.dvc_project import StageState
from doseledger.ledger.runs.why import Rerun, _changes, describe_reruns

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
    assert list(_changes(tmp_path, lost, {CODE: now})) == [f"{CODE}: modified"]
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
    assert changes[5:] == ["code: m5 was edited", f"{CODE}: and 3 more"]


def test_cost_and_reason_stand_beside_each_stage() -> None:
    assert describe_reruns([]) == ["nothing would run"]
    reruns = [Rerun("train@toy", ("code: a was edited",), ("judge@toy",), 600.0), Rerun("judge@toy", (), (), None)]
    assert describe_reruns(reruns) == [
        "train@toy (last time 10 min)",
        "  code: a was edited",
        "judge@toy: a stage before it runs",
        "2 stages; the 1 of known cost took 10 min",
    ]
