"""A new cohort's files: copies that stand alone, with names that a survey proposes and nobody has confirmed."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.projects import copy_cohorts

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol, load_goals, load_protocol
from doseledger.core.tables import RAW, TEST_SET, read_table
from doseledger.gates.limits import load_thresholds
from doseledger.gates.suites import read_suite
from doseledger.ingest.new_cohort import make_cohort
from doseledger.ingest.patient.roi_names import claim_names
from doseledger.ingest.survey.proposals import Proposals, find_doubts, read_doubts, read_proposals, with_proposals

SHIPPED = ("phantom", "prostate", "openkbp")
PROPOSED: Proposals = {
    "Rectum": {"Enddarm": "in 9 of 12: a name of Rectum", "REKTUM neu": "in 3 of 12:\nspelt alike"},
    "Bowel": {"Dünndarm": "in 12 of 12: a name of Bowel_Small"},
}
# Names that YAML would read as something else, were they written bare.
ODD = (
    "null",
    "true",
    "1.0",
    "0x1F",
    "- a",
    "a: b",
    "#1",
    "'x'",
    '"',
    "PTV #2",
    "{}",
    "*",
    "Blase & Darm",
    " y ",
    "é\u2028",
)


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    copy_cohorts(repository, tmp_path)
    return tmp_path


def claimed(names: list[str], protocol: Protocol) -> dict[str, str]:
    return claim_names(names, (), protocol, "case_0001").chosen


@pytest.mark.parametrize("like", SHIPPED)
def test_a_new_cohort_holds_to_what_the_other_one_does(root: Path, like: str) -> None:
    made = make_cohort(Layout(root, "clinic"), like, {})
    new, source = Layout(root, "clinic"), Layout(root, like)
    assert new.folders == [root / "validation/cohorts/clinic"]
    assert load_protocol(new.protocol) == load_protocol(source.protocol)
    assert load_goals(new.goals) == load_goals(source.goals)
    assert read_suite(new.suite) == read_suite(source.suite)
    assert load_thresholds(new) == load_thresholds(source)
    assert read_table(new.test_set, TEST_SET).empty
    assert read_table(new.raw_list, RAW).empty
    assert set(made.written) == {
        new.protocol,
        new.goals,
        new.suite,
        new.test_set,
        new.raw_list,
        new.folders[0] / "thresholds.yaml",
    }
    assert made.kept == []


def test_an_edit_to_either_cohort_is_none_to_the_other(root: Path) -> None:
    make_cohort(Layout(root, "clinic"), "prostate", {})
    before = {name: load_thresholds(Layout(root, name)) for name in ("clinic", "prostate")}
    assert before["clinic"] == before["prostate"]
    for edited, other in (("prostate", "clinic"), ("clinic", "prostate")):
        path = root / f"validation/cohorts/{edited}/thresholds.yaml"
        text = path.read_text()
        write_text(path, text.replace("limit: 6.0", "limit: 1.0"))
        assert load_thresholds(Layout(root, edited)) != before[edited]
        assert load_thresholds(Layout(root, other)) == before[other]
        write_text(path, text)


def test_the_words_of_the_limits_that_are_copied_stay_and_what_is_said_of_the_other_file_does_not(root: Path) -> None:
    make_cohort(Layout(root, "clinic"), "prostate", {})
    text = (root / "validation/cohorts/clinic/thresholds.yaml").read_text()
    assert "# What a model must reach to be a candidate for release" in text
    assert text.count("# A model that misses these is broken.") == 1
    assert "A block that is not here" not in text


def test_a_list_of_raw_cases_that_is_there_stays(root: Path) -> None:
    layout = Layout(root, "clinic")
    listed = f"case_id,sha256\ncase_0001,{'0' * 64}\n"
    write_text(layout.raw_list, listed)
    made = make_cohort(layout, "prostate", {})
    assert made.kept == [layout.raw_list]
    assert layout.raw_list.read_text() == listed


def test_names_that_are_proposed_match_nothing_until_a_person_moves_them_to_the_aliases(root: Path) -> None:
    layout = Layout(root, "clinic")
    assert make_cohort(layout, "prostate", PROPOSED).n_proposed == 3
    protocol = load_protocol(layout.protocol)
    assert protocol.proposed == {"Rectum": ["Enddarm", "REKTUM neu"], "Bowel": ["Dünndarm"]}
    assert claimed(["Enddarm"], protocol) == {}
    assert protocol.model_dump() == load_protocol(Layout(root, "prostate").protocol).model_dump()
    # As the comment says: wrong names deleted, then two lines.
    kept = [
        line
        for line in layout.protocol.read_text().splitlines()
        if not any(word in line for word in ("PROPOSED", "proposed:", "REKTUM"))
    ]
    write_text(layout.protocol, "\n".join(kept) + "\n")
    settled = load_protocol(layout.protocol)
    assert settled.proposed == {}
    assert claimed(["Enddarm", "Dünndarm", "REKTUM neu"], settled) == {"Rectum": "Enddarm", "Bowel": "Dünndarm"}


def test_a_structure_whose_proposed_names_are_all_deleted_has_its_aliases(root: Path) -> None:
    layout = Layout(root, "clinic")
    make_cohort(layout, "prostate", PROPOSED)
    kept = [
        line
        for line in layout.protocol.read_text().splitlines()
        if not any(word in line for word in ("Enddarm", "REKTUM", "Dünndarm"))
    ]
    write_text(layout.protocol, "\n".join(kept) + "\n")
    assert load_protocol(layout.protocol) == load_protocol(Layout(root, "prostate").protocol)


@pytest.mark.parametrize("name", ODD)
def test_a_proposed_name_is_the_name_of_the_roi_whatever_it_holds(root: Path, name: str) -> None:
    text = with_proposals(Layout(root, "prostate").protocol.read_text(), {"Rectum": {name: "in 1 of 1: # why"}})
    write_text(root / "p.yaml", text)
    assert load_protocol(root / "p.yaml").proposed == {"Rectum": [name]}


@pytest.mark.parametrize("like", SHIPPED)
def test_all_else_of_a_protocol_stays_to_the_letter(repository: Path, like: str) -> None:
    text = Layout(repository, like).protocol.read_text()
    first = load_protocol(Layout(repository, like).protocol).structure_names[0]
    lines = with_proposals(text, {first: {"Neu": "in 1 of 1: why"}}).splitlines()
    new = [line for line in lines if line not in text.splitlines()]
    said = [line.split("#")[0].strip() for line in new if "PROPOSED" not in line]
    # Names go on from the list of aliases, so that there must be one.
    assert said == (["proposed:", "- Neu"] if "aliases:" in text else ["aliases:", "proposed:", "- Neu"])
    assert "\n".join(line for line in lines if line not in new) == text.rstrip("\n")
    assert with_proposals(text, {}) == text


def test_a_structure_without_aliases_takes_proposed_names_too() -> None:
    text = "structures:\n  - name: A\n    kind: organ\n  - name: B\n    kind: organ\n"
    made = with_proposals(text, {"A": {"a1": "why"}})
    settled = "\n".join(line for line in made.splitlines() if "PROPOSED" not in line and "proposed:" not in line)
    from ruamel.yaml import YAML

    assert YAML(typ="safe").load(settled)["structures"][0]["aliases"] == ["a1"]


@pytest.mark.parametrize(
    ("name", "like", "told"),
    [
        ("prostate", "phantom", r"prostate is there already, .*`doseledger cohort check prostate`"),
        ("Clinic", "prostata", r"cohort 'prostata' has no folder in .*Did you mean prostate\?"),
        ("../clinic", "prostate", r"cohort '\.\./clinic': wanted letters, digits"),
        ("a b", "prostate", r"cohort 'a b': wanted letters, digits"),
        ("Prostate", "phantom", "cohort .Prostate. is .prostate. where capitals do not count"),
        ("", "prostate", r"cohort '': wanted letters, digits"),
    ],
)
def test_a_cohort_that_cannot_be_made_is_refused_and_nothing_written(
    root: Path, name: str, like: str, told: str
) -> None:
    before = sorted(root.rglob("*"))
    with pytest.raises(BadInput, match=told):
        make_cohort(Layout(root, name), like, {})
    assert sorted(root.rglob("*")) == before


def test_a_cohort_is_not_made_like_one_whose_names_are_still_proposed(root: Path) -> None:
    make_cohort(Layout(root, "clinic"), "prostate", PROPOSED)
    with pytest.raises(BadInput, match="names of Rectum, Bowel are proposed and not confirmed"):
        make_cohort(Layout(root, "clinic_b"), "clinic", {})


def test_limits_that_no_block_can_be_copied_of_are_told(root: Path) -> None:
    path = root / "validation/cohorts/prostate/thresholds.yaml"
    write_json(path, read_yaml(path))
    with pytest.raises(BadInput, match=r"prostate/thresholds\.yaml: wanted YAML with each block's key at the start"):
        make_cohort(Layout(root, "clinic"), "prostate", {})
    assert not (root / "validation/cohorts/clinic").exists()


def test_a_survey_of_another_protocol_proposes_nothing(root: Path) -> None:
    protocol = load_protocol(Layout(root, "prostate").protocol)
    row = {"structure": "Rectum", "patients": 2, "proposed": [{"roi": "Enddarm", "patients": 2, "why": "a name"}]}
    survey = {"protocol": protocol.name, "structures": [row]}
    assert read_proposals(survey, protocol) == {"Rectum": {"Enddarm": "in 2 of 2: a name"}}
    for other in ({**survey, "protocol": "head_neck"}, {"protocol": None}, {**survey, "structures": None}):
        with pytest.raises(
            BadInput, match=r"the survey was held against .*, wanted prostate_sib; survey the export again"
        ):
            read_proposals(other, protocol)


def test_what_a_survey_found_against_the_protocol_stands_in_it_until_it_is_settled(root: Path) -> None:
    source = Layout(root, "prostate")
    protocol = load_protocol(source.protocol)
    rows = [
        {"structure": "Rectum", "required": True, "patients": 6, "found": 0, "proposed": []},
        {"structure": "Bowel", "required": False, "patients": 6, "found": 0, "proposed": []},
        {"structure": "Bladder", "required": True, "patients": 6, "found": 1, "proposed": []},
    ]
    complaint = {
        "kind": "prescription", "sentence": "4 of 6 have another prescription",
        "found": [{"text": "the RTPLAN has 20 fractions,\nprostate_sib has 28", "count": 4}],
    }  # fmt: skip
    survey = {"protocol": protocol.name, "structures": rows, "complaints": [complaint, {"kind": "dose"}]}
    doubts = read_doubts(survey, protocol)
    assert doubts == [
        "4 of 6 have another prescription: the RTPLAN has 20 fractions, prostate_sib has 28 (4)",
        "Rectum: found in 0 of 6, and no ROI is like it",
    ]
    new = Layout(root, "clinic")
    make_cohort(new, "prostate", PROPOSED, doubts)
    text = new.protocol.read_text()
    assert find_doubts(text) == doubts
    assert text.index(doubts[1]) < text.index("n_fractions:")
    assert load_protocol(new.protocol).n_fractions == protocol.n_fractions
    assert find_doubts(source.protocol.read_text()) == []
