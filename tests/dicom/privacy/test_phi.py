"""What identifies a patient is found wherever it hides, and its value is never repeated."""

from __future__ import annotations

import traceback

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Phi
from doseledger.dicom.privacy.attributes import LISTED
from doseledger.dicom.privacy.phi import classify, refuse_phi, scan_phi
from doseledger.dicom.source import SourceFile

PHI = Phi(pseudonym="^anon_[a-z0-9]+$", allow=[{"keyword": "PatientSex", "reason": "identifies nobody"}])


def scan(dataset, phi=PHI):
    return scan_phi([SourceFile("CT/1.dcm", dataset)], phi)


@pytest.fixture
def clean(factory):
    return factory.make_patient().ct[0]


def test_a_clean_file_has_no_finding(clean):
    clean.PatientSex = "M"
    assert scan(clean) == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Doe^Jane"),
        ("PatientID", "123456"),
        ("PatientBirthDate", "19500101"),
        ("PatientAddress", "1 Main Street"),
        ("StudyDate", "20240131"),
        ("AcquisitionTime", "101112"),
        ("InstitutionName", "General Hospital"),
        ("StationName", "CT3"),
        ("ReferringPhysicianName", "House^Gregory"),
        ("OperatorsName", "Doe^John"),
        ("StudyDescription", "pelvis of Jane"),
        ("SeriesDescription", "Jane"),
        ("PatientComments", "called her mother"),
        ("DeviceSerialNumber", "4711"),
        ("AccessionNumber", "A1"),
        ("OtherPatientIDs", ["anon_1", "123456"]),
        ("EthnicGroup", "x"),
        ("PatientAge", "070Y"),
        ("RTPlanLabel", "Jane"),
    ],
)
def test_each_kind_of_identifier_is_found_by_tag_and_file(clean, keyword, value):
    setattr(clean, keyword, value)
    (finding,) = scan(clean)
    assert finding.keyword == keyword
    assert finding.file == "CT/1.dcm"
    assert finding.tag == str(clean[keyword].tag)
    with pytest.raises(BadCase, match=keyword) as error:
        refuse_phi([SourceFile("CT/1.dcm", clean)], PHI, "case_1")
    shown = str(error.value)
    assert not any(str(part) in shown for part in ("Jane", "Doe", "123456", "19500101", "General", "4711", "mother"))


def as_in_a_file(tag, vr, value):
    """A data set with an element as a file holds it, not yet parsed."""
    dataset = Dataset()
    dataset[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    return dataset


@pytest.mark.parametrize(
    ("tag", "vr", "error"),
    [(0x00101020, "FD", "BytesLengthException"), (0x00404035, "SQ", "OSError")],
    ids=["a name for a number", "a name for a sequence"],
)
def test_a_value_that_cant_be_read_is_refused_and_told_by_its_file_alone(clean, tag, vr, error):
    files = [SourceFile("good.dcm", clean), SourceFile("bad.dcm", as_in_a_file(tag, vr, b"Anna"))]
    with pytest.raises(BadCase, match=rf"holds a value that can't be read \({error}\) in bad.dcm") as refused:
        refuse_phi(files, PHI, "case_1")
    assert "Anna" not in "".join(traceback.format_exception(refused.value))


def test_a_value_of_another_form_is_a_finding_and_no_warning_repeats_it():
    bad = as_in_a_file(0x0016008E, "IS", b"Anna")
    with pytest.raises(BadCase, match=r"\(0016,008E\) in bad.dcm") as refused:
        refuse_phi([SourceFile("bad.dcm", bad)], PHI, "case_1")
    assert "Anna" not in str(refused.value)


@pytest.mark.parametrize("value", ["", None, "anon_12", "anon_12^^"])
def test_empty_names_and_pseudonyms_pass(clean, value):
    clean.PatientName = value
    assert scan(clean) == []


def test_a_pseudonym_with_more_behind_it_does_not_pass(clean):
    clean.PatientID = "anon_12 Jane Doe"
    assert [finding.keyword for finding in scan(clean)] == ["PatientID"]


def test_a_name_deep_in_a_sequence_is_found(factory):
    plan = factory.make_rtplan(28, [])
    inner, outer = Dataset(), Dataset()
    inner.ReviewerName = "Doe^Jane"
    outer.add_new("ReferencedSeriesSequence", "SQ", [inner])
    plan.add_new("ReferencedStructureSetSequence", "SQ", [outer])
    assert [finding.keyword for finding in scan(plan)] == ["ReviewerName"]


def test_private_attributes_are_findings_unless_their_creator_is_allowed(clean):
    block = clean.private_block(0x0013, "CTP", create=True)
    block.add_new(0x10, "LO", "Jane")
    assert {finding.keyword for finding in scan(clean)} == {"private"}
    allowed = PHI.model_copy(update={"allow": [*PHI.allow, {"keyword": "private:CTP", "reason": "read"}]})
    assert scan(clean, Phi.model_validate({"pseudonym": PHI.pseudonym, "allow": allowed.allow})) == []


def test_burned_in_text_overlays_and_faces_are_findings(clean):
    clean.BurnedInAnnotation, clean.RecognizableVisualFeatures = "YES", "YES"
    clean.add_new(0x60003000, "OW", b"\x01\x00")
    found = {finding.tag for finding in scan(clean)}
    assert found == {"(0028,0301)", "(0028,0302)", "(6000,3000)"}


def test_dates_pass_where_the_file_says_that_they_were_shifted(clean):
    clean.StudyDate = "20240131"
    assert [finding.keyword for finding in scan(clean)] == ["StudyDate"]
    clean.LongitudinalTemporalInformationModified = "MODIFIED"
    assert scan(clean) == []
    clean.PatientBirthDate = "19500101"
    assert [finding.keyword for finding in scan(clean)] == ["PatientBirthDate"]


def test_a_keyword_is_allowed_only_with_a_reason():
    with pytest.raises(ValueError, match="reason"):
        Phi.model_validate({"pseudonym": "^x$", "allow": [{"keyword": "StudyDate"}]})


def test_the_table_of_the_standard_is_whole_enough():
    assert len(LISTED) > 350
    assert classify(0x00100010) == "name"
    assert classify(0x00080020) == "date"
    assert classify(0x00080080) == "listed"
    assert classify(0x00091001) == "private"
    assert classify(0x00080018) == "free"
    assert classify(0x30060026) == "free"


def test_a_refusal_counts_files_instead_of_listing_a_whole_series(factory):
    patient = factory.make_patient()
    for item in patient.ct:
        item.InstitutionName = "General Hospital"
    files = [SourceFile(f"CT_{i}.dcm", ds) for i, ds in enumerate(patient.all)]
    with pytest.raises(BadCase, match=r"InstitutionName \(0008,0080\) in CT_0.dcm and 19 more\."):
        refuse_phi(files, PHI, "case_1")


def test_an_attribute_that_no_dictionary_knows_is_a_finding_until_its_tag_is_allowed(clean):
    clean[0x00189999] = RawDataElement(Tag(0x00189999), "LO", 8, b"Doe Jane", 0, False, True)
    (finding,) = scan(clean)
    assert (finding.tag, finding.keyword) == ("(0018,9999)", "")
    allowed = Phi(pseudonym=PHI.pseudonym, allow=[{"keyword": "(0018,9999)", "reason": "says nothing"}])
    assert scan(clean, allowed) == []


def test_a_group_length_is_none(clean):
    clean[0x00180000] = RawDataElement(Tag(0x00180000), "UL", 4, b"\x04\0\0\0", 0, False, True)
    assert scan(clean) == []


@pytest.mark.parametrize(("vr", "value"), [("PN", b"Doe^Jane"), ("DA", b"20240131")])
def test_a_name_written_where_the_standard_has_none_is_found_by_its_type(clean, vr, value):
    clean[0x00180060] = RawDataElement(Tag(0x00180060), vr, 8, value, 0, False, True)
    assert [finding.keyword for finding in scan(clean)] == ["KVP"]


def test_spaces_around_a_pseudonym_are_padding(clean):
    clean.PatientID = " anon_12 "
    assert scan(clean) == []


def test_a_files_name_is_not_repeated_where_it_may_name_somebody(factory, tmp_path):
    from doseledger.dicom.source import read_source

    patient = factory.make_patient()
    patient.ct[0].PatientComments = "called"
    (tmp_path / "anon_1").mkdir()
    patient.ct[0].save_as(tmp_path / "anon_1" / "Doe_Jane.dcm", enforce_file_format=True)
    with pytest.raises(BadCase, match=r"PatientComments \(0010,4000\) in CT file no. 1") as refused:
        refuse_phi(read_source(tmp_path / "anon_1")[0], PHI, "anon_1")
    assert "Jane" not in str(refused.value)
