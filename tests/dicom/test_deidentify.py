"""De-identified files: nothing left that the scan finds, links and intervals kept, no guess without the salt."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.dataset import Dataset

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.protocol import Phi
from doseledger.dicom.deidentify import Pseudonymiser, deidentify_dataset
from doseledger.dicom.phi import scan_phi
from doseledger.dicom.source import SourceFile

PHI = Phi(pseudonym="^anon_[a-z0-9]+$")
NAMES = Pseudonymiser(b"s" * 32, PHI, "123456")


@pytest.fixture
def identified(factory):
    """A patient with a name, dates, private attributes and a physician on every file."""
    patient = factory.make_patient()
    for ds in patient.all:
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Doe^Jane", "123456", "19500101"
        ds.StudyDate, ds.StudyTime, ds.InstitutionName = "20240229", "101112", "General Hospital"
        ds.ReferringPhysicianName, ds.StudyDescription, ds.OtherPatientIDs = "House^G", "Jane's pelvis", "42"
        ds.private_block(0x0013, "VENDOR", create=True).add_new(1, "LO", "Jane")
    patient.rtplan.RTPlanDate, patient.rtplan.RTPlanLabel = "20240307", "Jane"
    item = Dataset()
    item.PersonName = "House^G"
    patient.rtplan.add_new("ReferencedStructureSetSequence", "SQ", [*patient.rtplan.ReferencedStructureSetSequence])
    patient.rtplan.BeamSequence[0].add_new(0x0040A123, "PN", "House^G")
    return patient


@pytest.fixture
def clean(identified):
    return [deidentify_dataset(ds, NAMES, "case_1") for ds in identified.all]


def test_the_scan_finds_nothing_in_the_copy(identified, clean):
    before = scan_phi([SourceFile("x", ds) for ds in identified.all], PHI)
    assert len({finding.keyword for finding in before}) >= 9
    assert scan_phi([SourceFile("x", ds) for ds in clean], PHI) == []
    text = "".join(str(ds) for ds in clean)
    assert not any(word in text for word in ("Jane", "123456", "House", "General", "19500101", "20240229"))


def test_links_between_the_files_hold(identified, clean):
    *slices, structures, dose, plan = clean
    named = structures.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert {i.ReferencedSOPInstanceUID for i in named.ContourImageSequence} == {ds.SOPInstanceUID for ds in slices}
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert len({ds.FrameOfReferenceUID for ds in clean}) == 1
    assert {ds.SOPInstanceUID for ds in clean}.isdisjoint(ds.SOPInstanceUID for ds in identified.all)
    assert all(ds.SOPClassUID == old.SOPClassUID for ds, old in zip(clean, identified.all, strict=True))
    assert all(len(ds.SOPInstanceUID) <= 64 and ds.SOPInstanceUID.is_valid for ds in clean)


def test_dates_move_by_one_shift_and_their_intervals_stay(clean):
    plan = clean[-1]
    study, planned = (pydicom.valuerep.DA(str(plan[keyword].value)) for keyword in ("StudyDate", "RTPlanDate"))
    assert (planned - study).days == 7
    assert -3650 <= NAMES.shift.days <= -1
    assert plan.StudyTime == "101112"
    assert not plan.PatientBirthDate


def test_the_file_says_what_was_done(clean):
    assert clean[0].PatientIdentityRemoved == "YES"
    assert clean[0].LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in clean[0].DeidentificationMethodCodeSequence] == ["113100", "113107"]


def test_pixels_contours_and_names_of_rois_stay(identified, clean):
    assert clean[0].PixelData == identified.ct[0].PixelData
    assert [roi.ROIName for roi in clean[-3].StructureSetROISequence] == ["BODY", "PTV_70", "PTV56", "Rect"]
    before, after = (ds.ROIContourSequence[1].ContourSequence[0].ContourData for ds in (identified.rtstruct, clean[-3]))
    assert list(before) == list(after)


def test_another_salt_gives_other_names_and_the_same_salt_the_same():
    other = Pseudonymiser(b"t" * 32, PHI, "123456")
    again = Pseudonymiser(b"s" * 32, PHI, "123456")
    assert again.pseudonym == NAMES.pseudonym != other.pseudonym
    assert again.uid("1.2.3") == NAMES.uid("1.2.3") != other.uid("1.2.3")
    assert "123456" not in NAMES.pseudonym


def test_uids_of_the_standard_itself_stay():
    assert NAMES.uid("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"


def test_a_pattern_that_refuses_the_new_name_is_said_at_once():
    with pytest.raises(BadInput, match="refuses 'anon_"):
        _ = Pseudonymiser(b"s" * 32, Phi(pseudonym="^case_[0-9]+$"), "1").pseudonym


def test_burned_in_text_is_refused(identified):
    identified.ct[0].BurnedInAnnotation = "YES"
    with pytest.raises(BadCase, match="burned into the pixels"):
        deidentify_dataset(identified.ct[0], NAMES, "case_1")


def test_a_date_that_is_none_becomes_empty(identified):
    identified.ct[0].add_new("SeriesDate", "DA", "")
    identified.ct[0]["SeriesDate"]._value = "some day"
    assert deidentify_dataset(identified.ct[0], NAMES, "case_1").SeriesDate == ""
