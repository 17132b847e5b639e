"""Files of goals: what the linter says of a bad one, and a converted one that is read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import write_text
from doseledger.core.project.protocol import load_goals
from doseledger.evaluate.files.goals import convert_goal_file, goals_as_yaml, lint_goal_file


@pytest.fixture
def goals(repository: Path, tmp_path: Path) -> Path:
    path = tmp_path / "goals_chhip.yaml"
    write_text(path, (repository / "validation/cohorts/prostate" / path.name).read_text())
    return path


@pytest.fixture
def protocol(repository: Path) -> Path:
    return repository / "validation/cohorts/prostate/protocol.yaml"


def test_every_file_of_goals_that_ships_is_sound(repository: Path) -> None:
    files = sorted((repository / "validation/cohorts").glob("*/goals*.yaml"))
    assert len(files) >= 5
    found = {str(path): lint_goal_file(path, path.with_name("protocol.yaml")) for path in files}
    assert found == {str(path): [] for path in files}


def test_the_linter_tells_all_that_is_wrong_and_does_not_stop_at_the_first(goals: Path, protocol: Path) -> None:
    text = goals.read_text().replace("structure: Rectum", "structure: Rectm", 1)
    write_text(goals, text.replace("limit: 80.0", "limit: 180.0").replace("protocol: prostate_sib", "protocol: chhip"))
    found = lint_goal_file(goals, protocol)
    assert found[0] == "the goals are of protocol chhip, they are used with prostate_sib"
    assert any("Rectm is not a structure of protocol prostate_sib" in fault for fault in found)
    assert any("a volume of 180 % can't be" in fault for fault in found)


def test_a_file_that_is_no_set_of_goals_is_one_sentence(goals: Path, protocol: Path) -> None:
    write_text(goals, goals.read_text().replace("operator:", "operatr:"))
    (fault,) = lint_goal_file(goals, protocol)
    assert "operatr" in fault
    (fault,) = lint_goal_file(goals.with_name("absent.yaml"), protocol)
    assert "no such file" in fault


def test_a_converted_file_is_read_back_and_sound(goals: Path, protocol: Path) -> None:
    out = goals.with_name("chhip_20.yaml")
    kept = frozenset({"PTV70", "PTV56"})
    made = convert_goal_file(goals, out, 20, {"Rectum": 3.0}, keep=kept, from_fractions=28)
    assert load_goals(out) == made
    assert made.name == "chhip_20"
    assert made.title.endswith("from 28 fractions to 20 fractions")
    assert lint_goal_file(out, protocol) == []
    assert goals_as_yaml(made) == out.read_text()


def test_a_file_is_not_converted_onto_itself(goals: Path) -> None:
    with pytest.raises(BadInput, match="is the file that is read"):
        convert_goal_file(goals, goals, 20, {"Rectum": 3.0})
