"""De-identified files: nothing left that the scan finds, links and intervals kept, no guess without the salt."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import Phi
from doseledger.dicom.privacy.attributes import DUMMY_ATTRIBUTES, EMPTY_ATTRIBUTES, REMOVE_ATTRIBUTES
from doseledger.dicom.privacy.deidentify import Pseudonymiser, _clean, deidentify_dataset
from doseledger.dicom.privacy.phi import scan_phi
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


# Of PS3.15 Table E.1-1, by hand: X is gone, Z is empty, D says nothing, U is another UID, K stays.
ACTIONS = {
    "X": "PatientAddress PatientAge PatientWeight PatientSize EthnicGroup Occupation MilitaryRank PregnancyStatus "
    "SmokingStatus Allergies MedicalAlerts AdditionalPatientHistory PatientComments OtherPatientIDs AdmissionID "
    "StudyDescription SeriesDescription ImageComments DerivationDescription StudyComments RequestedProcedureID "
    "PerformedProcedureStepDescription InstitutionAddress InstitutionalDepartmentName GantryID PlateID CassetteID "
    "RTPlanName RTPlanDescription PrescriptionDescription BeamDescription DoseReferenceDescription "
    "FractionGroupDescription ROIDescription ROIObservationLabel StructureSetName StructureSetDescription "
    "SetupTechniqueDescription TimezoneOffsetFromUTC DataSetTrailingPadding RequestAttributesSequence "
    "OriginalAttributesSequence ReferencedPatientSequence OtherPatientIDsSequence PatientTelephoneNumbers",
    "Z": "PatientBirthDate ReferringPhysicianName OperatorsName PhysiciansOfRecord InstitutionName StationName StudyID "
    "AccessionNumber DeviceSerialNumber PatientSex TreatmentMachineName ContrastBolusAgent "
    "RequestedProcedureDescription AcquisitionContextSequence InstitutionCodeSequence",
    "D": "RTPlanLabel StructureSetLabel ProtocolName ClinicalTrialProtocolID ClinicalTrialSubjectID "
    "ClinicalTrialSponsorName AcquisitionDeviceProcessingDescription DetectorID TreatmentSite",
    "U": "FrameOfReferenceUID StudyInstanceUID SeriesInstanceUID SOPInstanceUID ReferencedSOPInstanceUID",
    "K": "Manufacturer ManufacturerModelName Modality PatientPosition ROIName SliceThickness KVP",
}  # fmt: skip
TEXT = {"DS": "12.5", "IS": "12", "DA": "19500101", "TM": "101112", "DT": "20240101101112", "AS": "070Y", "UI": "1.2.3",
        "PN": "Doe^Jane", "US": 7, "SS": 7, "UL": 7, "SL": 7, "FL": 1.5, "FD": 1.5}  # fmt: skip


def holding(keyword):
    """A data set with an attribute that says something, a sequence with a name inside."""
    dataset, vr = Dataset(), dictionary_VR(keyword)
    if vr == "SQ":
        item = Dataset()
        item.PatientName, item.CodeMeaning = "Doe^Jane", "known only to few"
        dataset.add_new(tag_for_keyword(keyword), vr, [item])
    else:
        dataset.add_new(tag_for_keyword(keyword), vr, TEXT.get(vr, b"Jane" if vr in ("OB", "OW", "UN") else "JANE"))
    return dataset


@pytest.mark.parametrize(
    ("action", "keyword"), [(action, keyword) for action, words in ACTIONS.items() for keyword in words.split()]
)
@pytest.mark.parametrize("depth", [0, 2])
def test_each_attribute_gets_the_action_of_the_standard_at_any_depth(action, keyword, depth):
    dataset = holding(keyword)
    before = str(dataset[keyword].value)
    for _ in range(depth):
        outer = Dataset()
        outer.BeamSequence = [dataset]
        dataset = outer
    clean = _clean(dataset, NAMES)
    for _ in range(depth):
        (clean,) = clean.BeamSequence
    if action == "X":
        assert keyword not in clean
    elif action == "Z":
        assert keyword in clean
        assert not clean[keyword].value
    elif action == "D":
        assert clean[keyword].value == "ANON"
    elif action == "U":
        assert str(clean[keyword].value).startswith("2.25.")
    else:
        assert str(clean[keyword].value) == before


@pytest.mark.parametrize(
    ("listed", "action"), [(REMOVE_ATTRIBUTES, "X"), (EMPTY_ATTRIBUTES, "Z"), (DUMMY_ATTRIBUTES, "D")]
)
def test_no_listed_attribute_keeps_what_it_said(listed, action):
    kept = {"PatientID", "PatientName"}
    for tag, keyword in listed.items():
        if not keyword or keyword in kept:
            continue
        clean = _clean(holding(keyword), NAMES)
        if action == "X":
            assert tag not in clean, keyword
        elif action == "Z":
            assert not clean[tag].value, keyword
        else:
            # What has no room for a dummy is gone; of a sequence its items are cleaned.
            text = str(clean.get(tag, ""))
            assert "Jane" not in text, keyword
            assert "JANE" not in text, keyword


def test_an_identity_becomes_the_pseudonym_and_overlays_curves_private_and_unknown_ones_go():
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "123456"
    dataset.add_new(0x60003000, "OW", b"ab")
    dataset.add_new(0x60024000, "LT", "Jane")
    dataset.add_new(0x50003000, "OW", b"ab")
    dataset.add_new(0x60000010, "US", 5)
    dataset.add_new(0x300A9999, "UN", b"Jane")
    dataset.private_block(0x0013, "VENDOR", create=True).add_new(1, "LO", "Jane")
    clean = _clean(dataset, NAMES)
    assert [int(element.tag) for element in clean] == [0x00100010, 0x00100020, 0x60000010]
    assert clean.PatientName == clean.PatientID == NAMES.pseudonym
