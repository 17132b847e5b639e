"""A raw export surveyed as it is: who, what, which names, what ingest would refuse; nothing changed, nobody named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fixtures.dump import GERMAN, DumpedPatient, fill_dump
from pydicom import Dataset, dcmread

from doseledger.core.errors import BadInput
from doseledger.core.files import to_json
from doseledger.core.pool.cluster import local
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.ingest.survey.cohort import Survey, describe_survey, survey_dump
from doseledger.ingest.survey.record import leftover_rows, write_survey

WHOLE = {"PTV70": 70.0, "PTV56": 56.0}


@pytest.fixture(scope="module")
def protocol(repository: Path) -> Protocol:
    return load_protocol(repository / "validation" / "cohorts" / "prostate" / "protocol.yaml")


@pytest.fixture
def look(protocol: Protocol, tmp_path: Path) -> Callable[..., Survey]:
    """Survey patients, each in a folder of its own."""

    def run(*patients: DumpedPatient, pictures: bool = False, held: bool = True) -> Survey:
        for patient in patients:
            patient.save(tmp_path / "dump" / f"p{patient.number}")
        held_against = protocol if held else None
        return survey_dump(tmp_path / "dump", held_against, pictures=pictures, tell=lambda line: None)

    return run


def digest(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kinds(survey: Survey) -> dict[str, list[str]]:
    return {row["sentence"]: [item["text"] for item in row["found"]] for row in survey.complaints()}


@pytest.fixture(scope="module")
def mixed(protocol: Protocol, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Survey, dict[str, str]]:
    """Ten patients in five languages at differing depths, what the survey says of them, and the files before it."""
    dump = fill_dump(tmp_path_factory.mktemp("mixed") / "dump", 10)
    before = digest(dump)
    return dump, survey_dump(dump, protocol, pictures=True, tell=lambda line: None), before


def test_a_dump_is_not_changed(mixed):
    dump, _, before = mixed
    assert digest(dump) == before


def test_another_process_says_the_same_to_the_last_comma(mixed, protocol):
    dump, survey, _ = mixed
    # Sets come in another order there.
    elsewhere = survey_dump(dump, protocol, pictures=True, scale=local(1), tell=lambda line: None)
    assert to_json(elsewhere.as_json()) == to_json(survey.as_json())


def test_every_patient_is_found_at_any_depth_and_complaints_are_grouped(mixed):
    _, survey, _ = mixed
    said = kinds(survey)
    assert survey.states == {"converts": 0, "converts once de-identified": 2, "skipped": 0, "fails": 8}
    assert "10 of 10 hold identifying attributes" in said
    assert "PatientName" in said["10 of 10 hold identifying attributes"]
    assert said["8 of 10 have no ROI for Femur_L"] == [
        f'may be "{name}" (a name of Femur_Head)'
        for name in ("Tête fémorale G", "Heupkop links", "Hüftkopf li", "Cabeza femoral izq")
    ]


def test_aliases_are_proposed_with_counts_and_the_standard_name(mixed):
    _, survey, _ = mixed
    aliases = survey.as_json()["proposed_aliases"]
    assert sorted(aliases["Femur_R"]) == ["Cabeza femoral dcha", "Heupkop rechts", "Hüftkopf re", "Tête fémorale D"]
    assert sorted(aliases["Bowel"]) == ["Dünndarm", "Grêle"]
    structures = {row["structure"]: row for row in survey.structures()}
    assert (structures["Femur_L"]["found"], structures["Femur_L"]["patients"]) == (2, 10)
    assert structures["PTV70"]["standard_name"] == "PTV_7000"
    rois = {row["roi"]: row for row in survey.rois()}
    assert rois["Hüftkopf re"]["standard_name"] == "Femur_Head_R"
    assert rois["Hüftkopf re"]["side_by_place"] == {"R": 2}
    assert rois["BODY"]["claimed_by"] == ["the outline"]


def test_volumes_are_areas_times_plane_distance(mixed):
    _, survey, _ = mixed
    roi = next(row for row in survey.rois() if row["roi"] == "PTV70")
    # 13 planes of 3 mm of a polygon of 36 corners in a circle of 25 mm.
    assert roi["volume_cc"]["median"] == pytest.approx(18 * np.sin(np.pi / 18) * 2.5**2 * 3.9, rel=1e-3)


def test_plans_doses_and_series_say_what_they_are(mixed):
    _, survey, _ = mixed
    first = survey.patients[0]
    assert [(p["label"], p["approval"], p["chosen"]) for p in first.objects["plans"]] == [
        ("SIB", "approved", True), ("SIB v2", "unapproved", False),
    ]  # fmt: skip
    plan = first.objects["plans"][0]
    assert (plan["date"], plan["fractions"], plan["prescription_gy"]) == ("20240301", 28, [70.0, 56.0])
    assert (plan["technique"], plan["planning_system"], plan["beams"]) == ("arc", "Maker Model 1", 2)
    assert [s["looks_like"] for s in first.objects["series"]] == ["", "cone beam"]
    per_beam = [d["sums"] for p in survey.patients for d in p.objects["doses"] if d["sums"].startswith("beam")]
    assert sorted(set(per_beam)) == ["beam 1", "beam 2"]
    assert first.why == '"SIB" before "SIB v2" (unapproved)'


def test_the_slice_shows_the_target_and_its_outlines_in_the_right_place(mixed):
    _, survey, _ = mixed
    picture = survey.patients[0].mid_slice
    assert picture is not None
    assert picture.z_mm == 48.0
    outlines = dict(picture.outlines)
    # Pixels of 3.75 mm: the left femur lies at x = +72 mm, the targets at 0.
    middle = outlines["PTV70"].mean(axis=0)
    assert outlines["Femur_L"].mean(axis=0) - middle == pytest.approx([72 / 3.75, 0.0], abs=0.01)
    column, row = np.rint(middle).astype(int)
    assert picture.grey[row, column] > 90
    assert picture.grey[0, 0] == 0


def test_nothing_that_names_a_patient_is_in_the_open_files(mixed, tmp_path):
    _, survey, _ = mixed
    write_survey(survey, tmp_path / "out")
    private = {"key.csv", "files.csv"}
    for path in (tmp_path / "out").iterdir():
        mode = path.stat().st_mode & 0o777
        assert (mode == 0o600) == (path.name in private), path.name
        if path.name not in private:
            text = path.read_text()
            assert not any(word in text for word in ("Doe", "Jane", "4711", "00000000", "1950")), path.name
    assert "4711" in (tmp_path / "out" / "key.csv").read_text()
    assert (tmp_path / "out" / ".gitignore").read_text() == "*\n"
    record = json.loads((tmp_path / "out" / "survey.json").read_text())
    assert record["states"]["fails"] == 8


def test_what_a_terminal_shows_is_short(mixed):
    _, survey, _ = mixed
    lines = describe_survey(survey).splitlines()
    assert lines[0].startswith("10 patients in ")
    assert "  Rectum: Enddarm, Recto, Endeldarm" in lines or any(line.startswith("  Rectum: ") for line in lines)
    assert len(lines) < 20


def test_zips_copies_stray_and_broken_files_are_counted_and_refuse_nothing(look, tmp_path):
    folder = DumpedPatient(1).save(tmp_path / "dump" / "zipped")
    with zipfile.ZipFile(tmp_path / "dump" / "export.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"deep/{path.name}")
    shutil.rmtree(folder)
    second = DumpedPatient(2).save(tmp_path / "dump" / "p2")
    shutil.copytree(second, tmp_path / "dump" / "cache" / ".hidden")
    (tmp_path / "dump" / "movie.avi").write_bytes(b"\x08\x00nonsense" * 20)
    (tmp_path / "dump" / "letter.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "dump" / "bad.zip").write_bytes(b"PK\x03\x04")
    whole = (second / "CT00001").read_bytes()
    (tmp_path / "dump" / "cut.dcm").write_bytes(whole[:150])
    survey = look()
    assert [patient.state for patient in survey.patients] == ["converts once de-identified"] * 2
    assert survey.n_copies == len(list(second.iterdir()))
    assert (survey.n_strangers, survey.n_broken) == (2, 2)


@pytest.mark.parametrize("name", ["CT00004", "RTSTRUCT00030", "RTPLAN00031", "RTDOSE00032"])
def test_a_file_of_the_case_that_is_cut_short_is_said(look, tmp_path, name):
    path = DumpedPatient(1).save(tmp_path / "dump" / "p1") / name
    path.write_bytes(path.read_bytes()[:-500])
    assert kinds(look())["1 of 1 has files that are cut short or malformed"] == [
        f"1 {name[:-5]}; copy or export them again"
    ]


def test_a_dump_without_dicom_says_so(look, tmp_path):
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "a.txt").write_text("x")
    with pytest.raises(BadInput, match="none of the 1 files is DICOM"):
        look()
    with pytest.raises(BadInput, match="no such folder"):
        survey_dump(tmp_path / "none", None, pictures=False, tell=lambda line: None)


def test_a_long_dump_says_every_500_files_how_far_it_is(tmp_path, protocol):
    for number in range(1001):
        (tmp_path / f"{number:04d}.txt").write_text("no DICOM")
    told: list[str] = []
    with pytest.raises(BadInput, match="none of the 1001 files is DICOM"):
        survey_dump(tmp_path, protocol, pictures=False, tell=told.append)
    assert told == ["500 files looked at", "1000 files looked at"]


def test_a_pseudonym_is_the_cases_name_and_no_number_takes_it(look):
    survey = look(DumpedPatient(1), DumpedPatient(2, name="case_0001", patient_id="case_0001"), DumpedPatient(3))
    assert [patient.case_id for patient in survey.patients] == ["case_0002", "case_0001", "case_0003"]


def test_padding_of_a_patient_id_makes_no_second_patient(look, tmp_path):
    patient = DumpedPatient(1)
    objects = patient.objects()
    objects[-1].PatientID = " 4712 "
    folder = tmp_path / "dump" / "p1"
    folder.mkdir(parents=True)
    for number, ds in enumerate(objects):
        ds.save_as(folder / str(number), enforce_file_format=True)
    assert len(look().patients) == 1


def test_a_file_without_patient_id_goes_with_its_study(look, tmp_path):
    objects = DumpedPatient(1).objects()
    del objects[3].PatientID
    folder = tmp_path / "dump" / "p1"
    folder.mkdir(parents=True)
    for number, ds in enumerate(objects):
        ds.save_as(folder / str(number), enforce_file_format=True)
    survey = look()
    assert len(survey.patients) == 1
    assert survey.patients[0].objects["series"][0]["images"] == 30


@pytest.mark.parametrize(
    ("bend", "sentence", "found"),
    [
        (lambda o: o.pop(5), "1 of 1 has an image that is no even stack", "1 slices of the usual 3 mm are missing"),
        (lambda o: o.pop(-1), "1 of 1 lacks RTDOSE", ""),
        (lambda o: setattr(o[-1], "DoseUnits", "RELATIVE"), "1 of 1 has a dose that can't be used", "DoseUnits is REL"),
        (lambda o: setattr(o[-1], "FrameOfReferenceUID", "1.2.3"), "1 of 1 has objects in another frame of reference",
         "RTDOSE in another"),
        (lambda o: setattr(o[-2].FractionGroupSequence[0], "NumberOfFractionsPlanned", 20),
         "1 of 1 has another prescription", "the RTPLAN has 20 fractions"),
        (lambda o: setattr(o[-3].StructureSetROISequence[3], "ROIName", "Prost."), "1 of 1 has no ROI for Prostate",
         'may be "Prost." (a name of Prostate)'),
        (lambda o: setattr(o[-3].ROIContourSequence[4], "ContourSequence", []), "1 of 1 has no ROI for Rectum",
         '"Rectum" has no contours'),
        (lambda o: setattr(o[-3].StructureSetROISequence[2], "ROIName", "PTV LN"), "1 of 1 has no ROI for PTV56",
         'may be "PTV LN" (the plan prescribes it 56 Gy)'),
        (lambda o: setattr(o[-3].ROIContourSequence[4].ContourSequence[0], "ContourData", [1, 2, 3, 4]),
         "1 of 1 has contours that can't be used", "ContourData of Rectum is not a list"),
        (lambda o: setattr(o[-3].StructureSetROISequence[4], "ROIName", "RECT"), "", ""),
        (lambda o: setattr(o[-3].StructureSetROISequence[4], "ROIName", "bladder"),
         "1 of 1 has ROIs that can't be told apart", 'two ROIs are called "bladder" and "Bladder"'),
        (lambda o: setattr(o[-1], "PixelSpacing", [2.0, 2.0]), "1 of 1 has a target beyond the dose grid", "PTV70"),
        (lambda o: setattr(o[4], "RescaleSlope", None), "1 of 1 has images whose values can't be used",
         "RescaleSlope is empty, wanted a number; export it again (1 of 30 files)"),
        (lambda o: [delattr(item, "RescaleIntercept") for item in o[:30]],
         "1 of 1 has images whose values can't be used", "RescaleIntercept is missing, wanted a number"),
        (lambda o: setattr(o[-1], "DoseGridScaling", None), "1 of 1 has a dose that can't be used",
         "DoseGridScaling of the RTDOSE is empty, wanted a number"),
        (lambda o: delattr(o[-1], "NumberOfFrames"), "1 of 1 has a dose that can't be used",
         "NumberOfFrames is missing, though GridFrameOffsetVector has"),
        (lambda o: setattr(o[-2].FractionGroupSequence[0], "NumberOfFractionsPlanned", None),
         "1 of 1 has another prescription", "the RTPLAN has no NumberOfFractionsPlanned"),
    ],
)  # fmt: skip
def test_what_ingest_would_refuse_is_said_beside_the_rest(look, tmp_path, bend, sentence, found):
    objects = DumpedPatient(1).objects()
    bend(objects)
    folder = tmp_path / "dump" / "p1"
    folder.mkdir(parents=True)
    for number, ds in enumerate(objects):
        ds.save_as(folder / f"{number:04d}", enforce_file_format=True)
    said = kinds(look())
    assert "1 of 1 holds identifying attributes" in said
    others = [name for name in said if name != "1 of 1 holds identifying attributes"]
    if not sentence:
        assert others == []
        return
    assert sentence in others
    assert any(found in text for text in said[sentence]) or not found


def test_a_patient_without_boost_is_outside_the_protocol_only_if_the_plan_agrees(look):
    one = [("One", "20240301", "APPROVED", {"PTV70": 70.0}, "PLAN")]
    survey = look(
        DumpedPatient(1, names={"PTV56": None}, plans=one),
        DumpedPatient(2, names={"PTV56": None}),
        DumpedPatient(3, names={"PTV56": "PTV Becken"}, plans=one),
    )
    assert [patient.state for patient in survey.patients] == ["skipped", "fails", "fails"]
    assert survey.patients[2].hints["PTV56"].roi == "PTV Becken"


def test_a_structure_on_the_other_side_than_its_name_says_is_counted(look):
    survey = look(DumpedPatient(1, names={"Femur_L": "Femur_R", "Femur_R": "Femur_L"}))
    rois = {row["roi"]: row for row in survey.rois()}
    assert (rois["Femur_L"]["sides_differ"], rois["Bladder"]["sides_differ"]) == (1, 0)


@pytest.mark.parametrize("where", ["before", "zz_after"])
@pytest.mark.parametrize("name", ["CT00004", "RTSTRUCT00030", "RTPLAN00031", "RTDOSE00032"])
def test_a_copy_that_is_cut_short_beside_the_whole_file_is_a_copy(look, tmp_path, name, where):
    path = DumpedPatient(1).save(tmp_path / "dump" / "p1") / name
    other = tmp_path / "dump" / where / "cut"
    other.parent.mkdir()
    other.write_bytes(path.read_bytes()[:-500])
    survey = look()
    assert survey.patients[0].state == "converts once de-identified"
    assert survey.n_copies == 1
    assert [file.name for _, file in survey.patients[0].files if file.name.endswith(name)] == [f"p1/{name}"]


def test_a_broken_object_that_the_case_does_not_need_is_listed_and_refuses_nothing(look, tmp_path):
    patient = DumpedPatient(1)
    folder = patient.save(tmp_path / "dump" / "p1")
    for number, item in enumerate((patient.structures(), patient.doses(0)[0])):
        item.SOPInstanceUID = f"1.2.3.{number}"
        item.save_as(folder / f"other{number}", enforce_file_format=True)
        path = folder / f"other{number}"
        path.write_bytes(path.read_bytes()[:-500])
    [found] = look().patients
    assert found.state == "converts once de-identified"
    assert sorted(why for _, why in found.leftovers) == [
        "RTDOSE that can't be read whole", "RTSTRUCT that can't be read whole",
    ]  # fmt: skip


def test_links_to_folders_and_to_nothing_are_listed_and_not_looked_into(look, tmp_path):
    elsewhere = DumpedPatient(2).save(tmp_path / "elsewhere")
    DumpedPatient(1).save(tmp_path / "dump" / "p1")
    (tmp_path / "dump" / "linked").symlink_to(elsewhere, target_is_directory=True)
    (tmp_path / "dump" / "p1" / "loop").symlink_to(tmp_path / "dump", target_is_directory=True)
    (tmp_path / "dump" / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "dump" / "pipe")
    survey = look()
    assert len(survey.patients) == 1
    assert survey.unfollowed == ["gone", "linked", "p1/loop", "pipe"]
    assert "4 links to folders or to nothing: not looked into" in describe_survey(survey)
    assert {row["file"] for row in leftover_rows(survey)} == set(survey.unfollowed)


def test_versions_of_one_object_that_differ_are_said(look, tmp_path):
    patient = DumpedPatient(1)
    changed = patient.plan(0)
    changed.RTPlanLabel = "changed later"
    patient.save(tmp_path / "dump" / "p1")
    changed.save_as(tmp_path / "dump" / "zz", enforce_file_format=True)
    assert "1 of 1 has one object in versions that differ" in kinds(look())


def test_two_courses_under_one_patient_id_are_worth_a_look_and_refuse_nothing(look):
    survey = look(DumpedPatient(1, patient_id="7"), DumpedPatient(2, patient_id="7", plans=[
        ("Second", "20250101", "APPROVED", WHOLE, "PLAN"),
    ]))  # fmt: skip
    assert "1 of 1 holds several courses under one PatientID" in kinds(survey)
    assert survey.patients[0].state == "converts once de-identified"
    assert survey.patients[0].why == '"Second" before "SIB" (older)'


def test_without_a_protocol_files_and_links_are_looked_at(look):
    survey = look(DumpedPatient(1, names=dict(GERMAN)), held=False)
    assert survey.structures() == []
    assert survey.as_json()["protocol"] is None
    assert set(kinds(survey)) == {"1 of 1 holds identifying attributes"}
    assert {row["standard_name"] for row in survey.rois()} >= {"Femur_Head_L", "Rectum", "External", "PTV_7000"}


def test_an_odd_patient_never_stops_the_survey(look, tmp_path):
    objects = DumpedPatient(1).objects()
    del objects[-3].StructureSetROISequence[2].ROINumber
    objects[-2].FractionGroupSequence = []
    objects[3].PixelSpacing = None
    folder = tmp_path / "dump" / "p1"
    folder.mkdir(parents=True)
    for number, ds in enumerate(objects):
        ds.save_as(folder / f"{number:04d}", enforce_file_format=True)
    survey = look(DumpedPatient(2))
    assert [patient.state for patient in survey.patients] == ["fails", "converts once de-identified"]


def within(item: Dataset) -> Iterator[Dataset]:
    """A data set and all items in it."""
    yield item
    for element in item:
        for inner in element.value if element.VR == "SQ" else ():
            yield from within(inner)


@pytest.mark.parametrize("keyword", [
    "ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence", "RTReferencedSeriesSequence",
    "ContourImageSequence",
])  # fmt: skip
def test_a_structure_set_whose_links_can_not_be_read_fails_its_patient_alone(look, tmp_path, keyword):
    folder = DumpedPatient(1).save(tmp_path / "dump" / "p1")
    for path in folder.iterdir():
        ds = dcmread(path)
        if ds.Modality == "RTSTRUCT":
            holder = next(item for item in within(ds) if keyword in item)
            del holder[keyword]
            holder.add_new(keyword, "LO", "odd")
            ds.save_as(path, enforce_file_format=True)
    survey = look(DumpedPatient(2))
    assert [patient.state for patient in survey.patients] == ["fails", "converts once de-identified"]
