from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol, folded, load_goals, load_protocol


@pytest.fixture
def prostate(repository: Path) -> dict[str, Any]:
    return read_yaml(repository / "validation/cohorts/phantom/protocol.yaml")


def load(values: dict[str, Any], tmp_path: Path) -> Protocol:
    write_json(tmp_path / "protocol.yaml", values)  # JSON is YAML
    return load_protocol(tmp_path / "protocol.yaml")


@pytest.mark.parametrize(
    ("cohort", "name"),
    [("phantom", "prostate_sib"), ("prostate", "prostate_sib"), ("openkbp", "head_neck_openkbp")],
)
def test_each_shipped_protocol_and_its_goals_load(repository: Path, cohort: str, name: str) -> None:
    layout = Layout(repository, cohort)
    protocol, goals = load_protocol(layout.protocol), load_goals(layout.goals)
    assert protocol.name == goals.protocol == name
    assert {goal.structure for goal in goals.goals} <= set(protocol.structure_names)
    assert all(goal.source for goal in goals.goals)


def test_the_prostate_protocol_requires_what_the_clinic_agreed(prostate: dict[str, Any], tmp_path: Path) -> None:
    protocol = load(prostate, tmp_path)
    required = {structure.name for structure in protocol.structures if structure.required}
    assert required == {"PTV70", "PTV56", "Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R"}
    assert protocol.prescription_gy == {"PTV70": 70.0, "PTV56": 56.0}
    assert protocol.n_fractions == 28


@pytest.mark.parametrize("name", ["PTV_70", "ptv70", "PTV 70", "ptv-70"])
def test_case_spaces_and_dashes_do_not_count(name: str) -> None:
    assert folded(name) == "ptv70"


@pytest.mark.parametrize("name", ["zPTV70_opt", "PTV70_ring", "PTV700", "PTV7"])
def test_a_part_of_a_name_is_not_the_name(name: str) -> None:
    assert folded(name) != "ptv70"


def test_an_alias_of_two_structures_is_refused(prostate: dict[str, Any], tmp_path: Path) -> None:
    prostate["structures"][4]["aliases"].append("rect")
    with pytest.raises(BadInput, match="alias 'rect' belongs to both Rectum and Bladder"):
        load(prostate, tmp_path)


def test_an_unknown_key_is_refused_by_name(prostate: dict[str, Any], tmp_path: Path) -> None:
    prostate["spacing"] = [1, 1, 1]
    with pytest.raises(BadInput, match="spacing: Extra inputs are not permitted"):
        load(prostate, tmp_path)


def test_a_prescription_to_an_unknown_target_is_refused(prostate: dict[str, Any], tmp_path: Path) -> None:
    prostate["prescription_gy"]["PTV99"] = 60.0
    with pytest.raises(BadInput, match="PTV99 named, but not among the structures"):
        load(prostate, tmp_path)


def test_dicom_without_a_phi_block_is_refused(prostate: dict[str, Any], tmp_path: Path) -> None:
    del prostate["phi"]
    with pytest.raises(BadInput, match="needs a phi block"):
        load(prostate, tmp_path)


def test_an_absent_protocol_is_a_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        load_protocol(tmp_path / "none.yaml")


@pytest.mark.parametrize("empty", ["", "  "])
def test_a_reason_that_says_nothing_is_refused(prostate: dict[str, Any], tmp_path: Path, empty: str) -> None:
    prostate["skip_when"]["reason"] = empty
    prostate["phi"]["allow"][0]["reason"] = empty
    with pytest.raises(
        BadInput, match=r"skip_when\.reason: String should have at least 1 .*phi\.allow\.0\.reason: String"
    ):
        load(prostate, tmp_path)


def test_a_goal_without_a_source_is_refused(repository: Path, tmp_path: Path) -> None:
    goals = read_yaml(repository / "validation/cohorts/phantom/goals.yaml")
    goals["goals"][2]["source"] = " "
    write_json(tmp_path / "goals.yaml", goals)
    with pytest.raises(BadInput, match=r"goals\.2\.source: String should have at least 1 character"):
        load_goals(tmp_path / "goals.yaml")


def test_a_source_that_nothing_reads_is_refused(prostate: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="source: Input should be 'dicom', 'openkbp' or 'nifti', found 'mha'"):
        load({**prostate, "source": "mha"}, tmp_path)
