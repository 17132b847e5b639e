"""`cohort init` and `cohort check` as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fixtures.dump import fill_dump
from fixtures.projects import copy_cohorts
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.cli.audited import this_machine
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.project.protocol import load_protocol
from doseledger.ledger.audit.log import read_entries


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_dump(tmp_path_factory.mktemp("export") / "Doe_Jane", 2, 8)


@pytest.fixture
def cohorts(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of cohorts of the project at work."""
    layout = copy_cohorts(repository, tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(repository / name, tmp_path / name)
    shutil.copytree(repository / "reports/templates", layout.templates)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return layout.cohorts


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_names_are_proposed_of_a_raw_export_or_of_its_survey_alike_and_the_log_names_nobody(
    cohorts: Path, dump: Path, tmp_path: Path
) -> None:
    run("survey", dump, "--cohort", "prostate", "--out", tmp_path / "found", "--no-pictures")
    told = run("cohort", "init", "one", "--from", "prostate", "--raw", dump)
    made = json.loads(run("cohort", "init", "two", "--from", "prostate", "--raw", tmp_path / "found", "--json"))
    proposed = [load_protocol(cohorts / name / "protocol.yaml").proposed for name in ("one", "two")]
    assert proposed[0] == proposed[1]
    assert proposed[0] == {"Rectum": ["Enddarm"]}
    assert made["proposed"] == 1
    assert "\n1 name proposed in validation/cohorts/one/protocol.yaml: confirm or delete each\n" in told
    assert told.endswith("next: doseledger cohort check one\n")
    log = this_machine().audit_log.read_text()
    assert not any(word in log for word in ("Jane", "Doe", str(dump), str(tmp_path / "found")))
    assert [entry["command"] for entry in read_entries(this_machine().audit_log)][-2:] == ["cohort init"] * 2


def test_a_check_lists_what_is_missing_and_ends_with_1(cohorts: Path) -> None:
    run("cohort", "init", "clinic", "--from", "prostate")
    result = CliRunner().invoke(app, ["cohort", "check", "clinic"])
    assert isinstance(result.exception, NotReady)
    assert str(result.exception) == "clinic lacks 1 thing, listed above"
    assert result.stdout.startswith("data/raw/clinic\n  no such folder of raw cases\n  → `doseledger raw pack CLEAN")
    value = json.loads(CliRunner().invoke(app, ["cohort", "check", "clinic", "--json"]).stdout)
    assert value["ready"] is False
    assert [lack["where"] for lack in value["lacks"]] == ["data/raw/clinic"]


@pytest.mark.parametrize("words", [["check", "prostat"], ["init", "clinic", "--from", "Prostate"]])
def test_a_misspelt_cohort_is_told_with_the_nearest(cohorts: Path, words: list[str]) -> None:
    with pytest.raises(BadInput, match=r"Did you mean prostate\?"):
        run("cohort", *words)
    assert not (cohorts / "clinic").exists()


def test_the_first_stage_of_the_pipeline_tells_a_misspelt_cohort(cohorts: Path, tmp_path: Path) -> None:
    # DVC alone would say that files are missing.
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("cohort: phantom", "cohort: phantm"))
    with pytest.raises(BadInput, match=r"Did you mean phantom\?"):
        run("code")
