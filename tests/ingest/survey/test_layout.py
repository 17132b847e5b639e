"""A dump laid out one folder a case: the treated plan by a rule that is shown, the rest listed with its reason."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.dump import GERMAN, SPANISH, DumpedPatient

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.dicom.source import read_source
from doseledger.ingest.cohort import IngestRun, ingest
from doseledger.ingest.privacy.deidentify import deidentify
from doseledger.ingest.survey.cohort import survey_dump
from doseledger.ingest.survey.layout import Layout, sort_dump

WHOLE = {"PTV70": 70.0, "PTV56": 56.0}
Plan = tuple[str, str, str, dict[str, float], str]


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def protocol(repository: Path) -> Protocol:
    return load_protocol(repository / "validation" / "cohorts" / "prostate" / "protocol.yaml")


@pytest.fixture
def lay_out(protocol: Protocol, tmp_path: Path) -> Callable[..., Layout]:
    """Save patients, six slices each, and lay them out."""

    def run(*patients: DumpedPatient) -> Layout:
        for patient in patients:
            patient.save(tmp_path / "dump" / f"p{patient.number}")
        return sort_dump(tmp_path / "dump", tmp_path / "out", protocol, lambda line: None)

    return run


def small(number: int, *plans: Plan, **changes: object) -> DumpedPatient:
    return DumpedPatient(number, n_slices=12, plans=list(plans), **changes)  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def label_of(folder: Path) -> str:
    plans = [file.dataset for file in read_source(folder)[0] if file.dataset.Modality == "RTPLAN"]
    assert len(plans) == 1
    return str(plans[0].RTPlanLabel)


A: Plan = ("A", "20240301", "APPROVED", WHOLE, "PLAN")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (("B", "20240401", "UNAPPROVED", WHOLE, "PLAN"), "unapproved"),
        (("B", "20240401", "REJECTED", WHOLE, "PLAN"), "rejected"),
        (("B", "20240201", "APPROVED", WHOLE, "PLAN"), "older"),
        (("B", "20240401", "APPROVED", WHOLE, ""), "no dose"),
        (("B", "20240301", "APPROVED", WHOLE, "BEAM"), "dose in parts"),
        (("B", "20240401", "APPROVED", {"PTV70": 20.0}, "PLAN"), "other fractions or doses than the protocol"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_treated_plan_is_chosen_by_a_rule_that_is_shown(lay_out, tmp_path, other, why, turned):
    made = lay_out(small(1, *((other, A) if turned else (A, other))))
    assert made.choices == {"case_0001": f'"A" before "B" ({why})'}
    assert label_of(tmp_path / "out" / "case_0001") == "A"
    assert rows(tmp_path / "out" / "choices.csv")[0]["rule"].startswith("Of several plans: one that treats")


def test_a_verification_plan_is_never_the_treated_one(lay_out, tmp_path):
    patient = small(1, A, ("QA", "20240501", "APPROVED", WHOLE, "PLAN"))
    objects = patient.objects()
    next(ds for ds in objects if ds.get("RTPlanLabel") == "QA").PlanIntent = "VERIFICATION"
    folder = tmp_path / "dump" / "p1"
    folder.mkdir(parents=True)
    for number, ds in enumerate(objects):
        ds.save_as(folder / f"{number:03d}", enforce_file_format=True)
    assert lay_out().choices == {"case_0001": '"A" before "QA" (verification plan)'}


def test_each_case_has_its_files_and_every_other_file_is_listed_with_a_reason(lay_out, tmp_path):
    other = ("B", "20240401", "UNAPPROVED", WHOLE, "PLAN")
    made = lay_out(small(1, A, other, n_cone_beam=3), small(2, ("C", "", "", WHOLE, "BEAM")))
    assert made.laid_out == ["case_0001", "case_0002"]
    names = sorted(path.name for path in (tmp_path / "out" / "case_0001").iterdir())
    assert names == [f"CT_{k:04d}.dcm" for k in range(1, 13)] + [
        "RTDOSE_0001.dcm", "RTPLAN_0001.dcm", "RTSTRUCT_0001.dcm",
    ]  # fmt: skip
    assert len(list((tmp_path / "out" / "case_0002").glob("RTDOSE*"))) == 2
    left = rows(tmp_path / "out" / "leftovers.csv")
    assert [row["why"] for row in left if row["case_id"] == "case_0001"] == [
        *["CT images that the structure set is not drawn on (cone beam)"] * 3,
        "another plan than the chosen one", "dose of another plan, or in parts beside the whole",
    ]  # fmt: skip
    assert made.n_left == len(left) == 5
    assert [row["patient_id"] for row in rows(tmp_path / "out" / "key.csv")] == ["4712", "4713"]


def test_the_dump_and_what_is_copied_of_it_are_the_same_bytes(lay_out, tmp_path):
    def digests(folder: Path) -> set[str]:
        return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}

    small(1, A).save(tmp_path / "dump" / "p1")
    before = digests(tmp_path / "dump")
    lay_out()
    assert digests(tmp_path / "dump") == before == digests(tmp_path / "out" / "case_0001")


@pytest.mark.parametrize(
    ("patient", "why"),
    [
        (small(1, A, ("B", "20240301", "APPROVED", WHOLE, "PLAN")), 'plans that nothing tells apart ("A", "B"'),
        (small(1, ("A", "20240301", "APPROVED", WHOLE, "")), "lacks RTDOSE"),
    ],
)
def test_what_no_rule_decides_has_no_folder_and_all_its_files_are_listed(lay_out, tmp_path, patient, why):
    made = lay_out(patient, small(2, A))
    assert made.laid_out == ["case_0002"]
    assert why in made.undecided["case_0001"]
    assert not (tmp_path / "out" / "case_0001").exists()
    files = {row["file"] for row in rows(tmp_path / "out" / "leftovers.csv") if row["case_id"] == "case_0001"}
    assert files == {f"p1/{path.name}" for path in (tmp_path / "dump" / "p1").iterdir()}


def test_doses_of_some_beams_alone_are_laid_out_for_ingest_to_refuse(lay_out, tmp_path):
    folder = small(1, ("A", "", "", WHOLE, "BEAM")).save(tmp_path / "dump" / "p1")
    sorted(folder.glob("RTDOSE*"))[0].unlink()
    assert lay_out().laid_out == ["case_0001"]


def test_the_dump_is_never_written_to_and_no_folder_is_filled_twice(lay_out, protocol, tmp_path):
    small(1, A).save(tmp_path / "dump" / "p1")
    for inside in (tmp_path / "dump", tmp_path / "dump" / "new"):
        with pytest.raises(BadInput, match="lies in the dump, which is never changed"):
            sort_dump(tmp_path / "dump", inside, protocol, lambda line: None)
    lay_out()
    with pytest.raises(BadInput, match="holds something already; name a new folder"):
        lay_out()


def test_a_dump_becomes_cases_with_the_surveys_aliases_and_no_other_edit(protocol, tmp_path):
    """From raw export to NPZ: survey, sort, deidentify, ingest; two languages, a second plan, a cone-beam series."""
    second = ("SIB v2", "20240401", "UNAPPROVED", WHOLE, "PLAN")
    for patient in (
        DumpedPatient(1, names=dict(GERMAN), plans=[A, second], n_cone_beam=3),
        DumpedPatient(2, names=dict(SPANISH)),
    ):
        patient.save(tmp_path / "dump" / f"p{patient.number}")
    survey = survey_dump(tmp_path / "dump", protocol, pictures=False, tell=quiet)
    assert survey.states["fails"] == 2
    sort_dump(tmp_path / "dump", tmp_path / "raw", protocol, quiet)
    assert deidentify(tmp_path / "raw", tmp_path / "clean", protocol, b"0" * 32, quiet) == ["case_0001", "case_0002"]
    value = protocol.model_dump()
    for structure in value["structures"]:
        structure["aliases"] += survey.proposed_aliases().get(structure["name"], [])
    wide = Protocol.model_validate({**value, "spacing_mm": [6.0, 7.5, 7.5]})
    count = ingest(tmp_path / "clean", tmp_path / "cases", wide, IngestRun(), quiet)
    assert (count.converted, count.skipped, count.failed) == (2, 0, 0)
    again = survey_dump(tmp_path / "clean", wide, pictures=False, tell=quiet)
    assert again.states["converts"] == 2
