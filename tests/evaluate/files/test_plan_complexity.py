"""Complexity of plan files: of a clinic's, of our own, and of what is no plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.errors import BadInput
from doseledger.evaluate.files.plan_complexity import complexity_of_file, complexity_of_files, describe_complexity
from doseledger.planning.machine.linac import load_machine


@pytest.fixture(scope="module")
def plans(shared_data: Path) -> Path:
    return shared_data / "dicom" / "rtplans"


def test_an_arc_of_another_system_has_its_numbers(plans: Path) -> None:
    found = complexity_of_file(plans / "TinyVMAT_TinyFS_TinyVMAT.dcm", load_machine())
    assert len(found) == 1
    assert 0 < found[0]["modulation_score"] <= 1
    assert found[0]["mu"] == pytest.approx(sum(beam["mu"] for beam in found[0]["beams"]))
    for beam in found[0]["beams"]:
        assert len(beam["gantry_deg_s"]) == beam["n_control_points"] - 1
        assert max(beam["gantry_deg_s"]) <= 6.0 + 1e-9
    assert "modulation score" in describe_complexity(found[0])[0]


def test_each_fraction_group_is_a_plan_and_one_odd_file_refuses_no_other(plans: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("no plan")
    files = [letter, plans / "multi_fraction_groups_rtplan.dcm", plans / "original_rtplan.dcm"]
    found, failed = complexity_of_files(files, load_machine())
    assert [plan["fraction_group"] for plan in found if plan["file"].startswith("multi")] == [1, 2]
    assert any(plan["file"].startswith("original") for plan in found)
    assert len(failed) == 1
    assert "letter.txt" in failed[0]


def test_the_command_prints_what_it_can_and_fails_with_the_rest(plans: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("no plan")
    good = str(plans / "TinyVMAT_TinyFS_TinyVMAT.dcm")
    done = CliRunner().invoke(app, ["plan", "complexity", good, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["limits_of"] == "Generic120"
    mixed = CliRunner().invoke(app, ["plan", "complexity", good, str(letter)])
    assert isinstance(mixed.exception, BadInput)
    assert "modulation score" in mixed.stdout
