"""What a cohort lacks is named at once, with what to do; each fault by itself, and all together."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.projects import copy_cohorts

from doseledger.core.errors import BadInput
from doseledger.core.files import read_json, read_yaml, write_json, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.settings import Settings, load_settings
from doseledger.ingest.new_cohort import make_cohort
from doseledger.ingest.pack import list_sources
from doseledger.ingest.sources import SOURCES
from doseledger.ingest.survey.proposals import with_doubts
from doseledger.ledger.provenance.cohort_files import Lack, describe_lacks, find_lacks, find_notes


@pytest.fixture
def settings(repository: Path) -> Settings:
    return load_settings(repository / "params.yaml")


@pytest.fixture
def clinic(repository: Path, tmp_path: Path) -> Layout:
    """A new cohort with one packed case that DVC knows: it lacks nothing."""
    copy_cohorts(repository, tmp_path)
    layout = Layout(tmp_path, "clinic")
    make_cohort(layout, "prostate", {})
    write_text(layout.raw / "case_0001/a.dcm", "x")
    write_text(layout.raw.with_name("clinic.dvc"), "outs: []\n")
    list_sources(SOURCES["dicom"].find(layout.raw), SOURCES["dicom"]).to_csv(layout.raw_list, index=False)
    return layout


def lacks_of(layout: Layout, settings: Settings) -> list[tuple[str, str]]:
    return [(Path(lack.where).name, lack.found) for lack in find_lacks(layout, settings)]


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Change a YAML or JSON file; JSON is YAML too."""
    value = read_json(path) if path.suffix == ".json" else read_yaml(path)
    change(value)
    write_json(path, value)


def test_a_cohort_that_has_everything_lacks_nothing(clinic: Layout, settings: Settings) -> None:
    assert find_lacks(clinic, settings) == []
    notes = find_notes(clinic, settings)
    assert notes == [
        "limits to be set from your own first results: mae_above_10_percent_gy, mae_body_gy",
        f"{clinic.params} works on phantom; `dvc exp run -S cohort=clinic` on this one",
    ]
    assert describe_lacks(clinic, [], notes).endswith("\nclinic has all that its pipeline needs")
    assert find_notes(clinic, settings.model_copy(update={"cohort": "clinic"})) == notes[:1]


def test_everything_that_a_new_cohort_lacks_is_named_at_once(
    repository: Path, tmp_path: Path, settings: Settings
) -> None:
    copy_cohorts(repository, tmp_path)
    layout = Layout(tmp_path, "clinic")
    make_cohort(layout, "prostate", {"Rectum": {"Enddarm": "why"}, "Bladder": {"Blase": "why", "Blasenwand": "why"}})
    edit(layout.goals, lambda value: value["goals"][0].update(structure="Rektum"))
    layout.test_set.unlink()
    found = lacks_of(layout, settings)
    assert [name for name, _ in found] == ["clinic", "protocol.yaml", "protocol.yaml", "goals.yaml", "test_set.csv"]
    assert found[0][1] == "no such folder of raw cases"
    assert found[1][1] == "Rectum: proposed by a survey, not confirmed: Enddarm"
    assert found[2][1] == "Bladder: proposed by a survey, not confirmed: Blase, Blasenwand"
    assert "Rektum is not a structure" in found[3][1]


def test_what_is_to_do_of_one_file_is_said_once(clinic: Layout) -> None:
    lacks = [Lack("a", "x", "do this"), Lack("a", "y", "do this"), Lack("a", "z", "do that")]
    assert describe_lacks(clinic, lacks, ["n"]) == "a\n  x\n  y\n  → do this\na\n  z\n  → do that\nnote: n"


@pytest.mark.parametrize("name", ["protocol.yaml", "goals.yaml", "suite.json", "thresholds.yaml", "test_set.csv"])
@pytest.mark.parametrize("how", ["absent", "broken"])
def test_each_file_of_a_cohort_that_is_absent_or_broken_is_named(
    clinic: Layout, settings: Settings, name: str, how: str
) -> None:
    path = clinic.folders[0] / name
    if how == "absent":
        path.unlink()
    else:
        write_text(path, "{")
    assert name in {where for where, _ in lacks_of(clinic, settings)}


def test_raw_cases_and_their_list_are_held_together(clinic: Layout, settings: Settings) -> None:
    write_text(clinic.raw / "case_0002/a.dcm", "y")
    assert lacks_of(clinic, settings) == [("clinic.csv", "1 case not listed: case_0002")]
    (clinic.raw / "case_0001/a.dcm").rename(clinic.raw / "case_0002/b.dcm")
    (clinic.raw / "case_0001").rmdir()
    assert lacks_of(clinic, settings) == [
        ("clinic.csv", "1 case not listed: case_0002"), ("clinic.csv", "1 case listed and not there: case_0001"),
    ]  # fmt: skip
    clinic.raw.with_name("clinic.dvc").unlink()
    assert ("clinic.dvc", "DVC does not know the raw cases") in lacks_of(clinic, settings)
    clinic.raw_list.unlink()
    assert lacks_of(clinic, settings)[-1][0] == "clinic.csv"


def test_a_prescription_that_the_survey_doubts_is_named_until_its_line_is_gone(
    clinic: Layout, settings: Settings
) -> None:
    text = clinic.protocol.read_text()
    write_text(clinic.protocol, with_doubts(text, ["4 of 6 have another prescription: 20 fractions (4)"]))
    (lack,) = find_lacks(clinic, settings)
    assert lack.where == str(clinic.protocol)
    assert lack.found == "a survey found: 4 of 6 have another prescription: 20 fractions (4)"
    assert "delete the line `# SURVEY:`" in lack.do
    write_text(clinic.protocol, text)
    assert find_lacks(clinic, settings) == []


def test_raw_cases_that_are_elsewhere_are_pulled(clinic: Layout, settings: Settings) -> None:
    for path in sorted(clinic.raw.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (lack,) = find_lacks(clinic, settings)
    assert lack.do == f"`dvc pull {clinic.raw.with_name('clinic.dvc')}`"


def test_what_a_suite_or_limits_expect_of_a_structure_that_the_protocol_lacks_is_named(
    clinic: Layout, settings: Settings
) -> None:
    edit(
        clinic.protocol,
        lambda value: value.update(structures=[s for s in value["structures"] if s["name"] != "Bladder"]),
    )
    found = dict(lacks_of(clinic, settings))
    assert "Bladder" in found["suite.json"]
    assert "Bladder" in found["thresholds.yaml"]
    assert "Bladder" in found["goals.yaml"]


def test_a_model_without_limits_is_named(clinic: Layout, settings: Settings) -> None:
    edit(clinic.folders[0] / "thresholds.yaml", lambda value: value["metrics"].pop("default"))
    lacks = lacks_of(clinic, settings)
    assert {name for name, _ in lacks} == {"thresholds.yaml"}
    found = [words for _, words in lacks]
    assert len(found) == len(settings.models)
    for model, words in zip(settings.models, found, strict=True):
        assert words.startswith(f"{model}: no limits under metrics.{model}")


def test_a_misspelt_cohort_is_told_with_the_nearest(clinic: Layout, settings: Settings) -> None:
    with pytest.raises(BadInput, match=r"cohort 'clinik' has no folder .*Did you mean clinic\?"):
        find_lacks(Layout(clinic.root, "clinik"), settings)


def test_the_shipped_cohorts_lack_nothing_but_patients(repository: Path, settings: Settings) -> None:
    for name in ("phantom", "prostate", "openkbp"):
        layout = Layout(repository, name)
        raw = (layout.raw, layout.raw_list, layout.raw.with_name(f"{name}.dvc"))
        assert [lack for lack in find_lacks(layout, settings) if lack.where not in map(str, raw)] == [], name


def test_files_that_no_commit_holds_are_named(clinic: Layout, settings: Settings) -> None:
    subprocess.run(["git", "-C", str(clinic.root), "init", "-q"], check=True)
    write_text(clinic.root / ".gitignore", "/data/raw/*/*\n")
    (lack,) = find_lacks(clinic, settings)
    assert lack.found.startswith("7 files of this cohort unknown to it: data/raw/clinic.csv, data/raw/clinic.dvc, ")
    assert lack.do == "`git add data/raw/clinic.csv data/raw/clinic.dvc validation/cohorts/clinic`, then commit"
    subprocess.run(["git", "-C", str(clinic.root), "add", "data", "validation"], check=True)
    assert find_lacks(clinic, settings) == []
