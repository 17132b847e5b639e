"""`survey` and `sort` as they are typed: files beside the dump, a page that needs nothing, no name in the log."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from fixtures.dump import fill_dump
from fixtures.known import assert_known
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.cli.audited import this_machine
from doseledger.core.errors import BadInput
from doseledger.ledger.audit.log import read_entries


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_dump(tmp_path_factory.mktemp("export") / "Doe_Jane", 3, 12)


@pytest.fixture
def arguments(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Name the protocol; the project at work is settings and templates alone."""
    project = tmp_path / "project"
    shutil.copytree(repository / "reports" / "templates", project / "reports" / "templates")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(repository / name, project / name)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.chdir(project)
    return ["--protocol", str(repository / "validation" / "cohorts" / "prostate" / "protocol.yaml")]


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_survey_lies_beside_the_dump_and_the_log_names_nobody(dump, arguments, tmp_path):
    told = run("survey", dump, *arguments)
    assert "3 of 3 hold identifying attributes" in told
    out = dump.with_name("Doe_Jane_survey")
    page = (out / "survey.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)
    known = Path(__file__).parent / "known"
    assert_known(known / "survey.json", (out / "survey.json").read_text())
    assert_known(known / "survey_told.txt", told)
    # Letters of a picture's code may spell anything.
    words = re.sub(r"data:image/jpeg;base64,[^\"]+", "", page)
    assert "http" not in words
    for text in (words, (out / "survey.json").read_text()):
        assert not any(word in text for word in ("Jane", "Doe", "4711"))
    log = this_machine().audit_log.read_text()
    assert not any(word in log for word in ("Jane", "Doe", "4711", str(tmp_path / "export")))
    assert [entry["command"] for entry in read_entries(this_machine().audit_log)] == ["survey", "survey"]


def test_a_survey_as_json_is_one_value_and_runs_anew_over_the_old_one(dump, arguments, tmp_path):
    for _ in range(2):
        value = json.loads(run("survey", dump, *arguments, "--out", tmp_path / "s", "--no-pictures", "--json"))
    assert value["proposed_aliases"]["Rectum"] == ["Enddarm"]
    with pytest.raises(BadInput, match="lies in the dump"):
        run("survey", dump, *arguments, "--out", dump / "x")


def test_sort_tells_its_rule_where_it_chose(dump, arguments, tmp_path):
    told = run("sort", dump, tmp_path / "cases", *arguments)
    assert told.startswith("Of several plans: one that treats")
    assert 'case_0001: "SIB" before "SIB v2" (unapproved)' in told
    assert "3 cases laid out" in told
    assert_known(Path(__file__).parent / "known" / "sort_told.txt", told)
    assert "Jane" not in this_machine().audit_log.read_text()


def test_outside_a_project_a_survey_looks_at_files_and_links(dump, monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    value = json.loads(run("survey", dump, "--out", tmp_path / "s", "--no-pictures", "--json"))
    assert value["protocol"] is None
    assert not (tmp_path / "s" / "survey.html").exists()
    assert value["states"]["converts once de-identified"] == 3
