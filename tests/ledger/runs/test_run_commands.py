"""The commands on runs as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from doseledger.cli.app import app
from doseledger.core.errors import BadInput, GateFailed, NotReady
from doseledger.core.files import write_text


@pytest.fixture
def call(project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)

    def run(*words: str, fails: type[Exception] | None = None) -> Result:
        result = CliRunner().invoke(app, list(words))
        if fails is None:
            assert result.exit_code == 0, result.output
        else:
            assert isinstance(result.exception, fails), result.output
        return result

    return run


def test_a_run_is_checked_archived_and_checked_again(call, tmp_path: Path) -> None:
    checked = call("runs", "check", "dose_unet").output
    assert "ok    history    every epoch is in the history once" in checked
    made = json.loads(call("runs", "archive", "dose_unet", str(tmp_path / "a"), "--json").stdout)
    assert made["ok"] is True
    assert "ok    manifest" in call("runs", "check", made["folder"]).output
    (Path(made["folder"]) / "train.log").write_text("another")
    failed = call("runs", "check", made["folder"], fails=GateFailed)
    assert "train.log: found SHA256" in failed.output
    assert "is not what it should be (dose_unet: manifest)" in str(failed.exception)


def test_check_prints_json_for_scripts(call) -> None:
    verdict = json.loads(call("runs", "check", "dose_unet", "--json").stdout)
    assert verdict["ok"] is True
    assert {point["check"] for point in verdict["details"]["checks"]} >= {"files", "history", "metrics", "code"}
    assert json.loads(call("runs", "check", "--json").stdout) == {"dose_unet": verdict}


def test_recompute_asks_for_what_it_needs(call, project, tmp_path: Path) -> None:
    folder = json.loads(call("runs", "archive", "dose_unet", str(tmp_path / "a"), "--json").stdout)["folder"]
    refused = call("runs", "check", folder, "--recompute", "1", fails=BadInput)
    assert "--recompute of an archived run needs --cases" in str(refused.exception)
    cases = ("--cases", str(project.at.layout.cases))
    checked = call("runs", "check", folder, "--recompute", "1", *cases).output
    assert "ok    recomputed" in checked
    assert "ok    recomputed" in call("runs", "check", "dose_unet", "--recompute", "all").output
    refused = call("runs", "check", "dose_unet", "--recompute", "most", fails=BadInput)
    assert "wanted a number of cases, or all" in str(refused.exception)


def test_runs_are_listed_searched_and_compared(call, project) -> None:
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "First run")
    listed = json.loads(call("runs", "list", "--format", "json", "--where", "mae_gy < 100").stdout)
    assert [row["model"] for row in listed] == ["dose_unet"]
    assert "No run was found." in call("runs", "list", "--where", "mae_gy > 100").output
    assert "mae_gy" in call("runs", "list", "--columns").output.split()
    assert "| dose_unet |" in call("runs", "list", "lr=0.002", "--format", "markdown").output
    assert "No run was found." in call("runs", "list", "lr=0.002", "no such word").output
    assert "wanted two or more" in str(call("runs", "compare", "main", fails=BadInput).exception)
    assert "| lr |" not in call("runs", "compare", "main", "main", "--format", "markdown").output
    assert "wanted table" in str(call("runs", "list", "--format", "xml", fails=BadInput).exception)
    unknown = str(call("runs", "list", "--metric", "mae_bdy_gy", fails=BadInput).exception)
    assert "--metric: no run has a column 'mae_bdy_gy'; nearest: mae_body_gy" in unknown


def test_the_page_names_the_experiment_that_is_at_work(call, project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "brave-rat")
    # From anywhere inside the project.
    monkeypatch.chdir(project.root / "reports")
    call("runs", "index")
    assert "workspace, experiment brave-rat" in (project.root / "reports/runs.html").read_text()


def test_an_experiment_is_noted_filled_in_and_refused_on_a_dirty_tree(call, project) -> None:
    # The lock's own versions are what this test is not about.
    write_text(project.root / "requirements.lock", "")
    project.git("commit", "-q", "-m", "Any packages", "requirements.lock")
    new = ("experiment", "new", "one", "--model", "dose_unet", "--notes", "notes")
    call(*new, "--criterion", "mae_gy < 100")
    (note,) = (project.root / "notes").glob("*-one.md")
    run = json.loads(call("runs", "list", "--format", "json").stdout)[0]["id"]
    call("experiment", "fill", str(note), "--run", run)
    assert "| met |" in note.read_text()
    write_text(project.root / "code.py", "ANSWER = 43\n")
    refused = call("experiment", "ready", fails=NotReady)
    assert "DIRTY TREE" in str(refused.exception)


def test_the_doctor_needs_a_person_only_when_something_is_wrong(call, project) -> None:
    assert "nothing was left behind" in call("doctor").output
    write_text(project.root / ".git/index.lock", "")
    assert "need a person" in str(call("doctor", fails=GateFailed).exception)
