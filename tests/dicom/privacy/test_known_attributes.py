"""One attribute of each kind: whether it may identify a patient, and what a clean copy holds in its place."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Phi
from doseledger.dicom.privacy.deidentify import MOST_SHIFT_DAYS, Pseudonymiser, deidentify_dataset
from doseledger.dicom.privacy.phi import scan_phi
from doseledger.dicom.source import SourceFile

ALLOWED = ("PatientSex", "private:KEEP", "(0019,0002)", "(0006,0010)", "StationName")
PHI = Phi(pseudonym="^anon_[a-z0-9]+$", allow=[{"keyword": name, "reason": "is needed"} for name in ALLOWED])
NAMES = Pseudonymiser(b"s" * 32, PHI, "123456")
GONE = "is not there"
UID = "2.25.169358345785573489650189909424148538621"


# Attribute, type, value; whether the scan finds it; its value in the clean copy.
ATTRIBUTES: list[tuple[str, str, object, bool, object]] = [
    ("PatientName", "PN", "Doe^Jane", True, NAMES.pseudonym),
    ("PatientID", "LO", "123456", True, NAMES.pseudonym),
    ("PatientSex", "CS", "F", False, "F"),
    ("PatientBirthDate", "DA", "19500131", True, ""),
    ("PatientAge", "AS", "074Y", True, GONE),
    ("OtherPatientIDs", "LO", "anon_7", False, GONE),
    ("ReferringPhysicianName", "PN", "anon_7^^", False, ""),
    ("OperatorsName", "PN", ["anon_1", "House^G"], True, ""),
    ("PerformingPhysicianName", "PN", "^^", False, ""),
    ("InstitutionName", "LO", "General", True, ""),
    ("StationName", "SH", "CT3", False, "CT3"),
    ("ProtocolName", "LO", "Jane's", True, "ANON"),
    ("RTPlanLabel", "SH", "ANON", False, "ANON"),
    ("StructureSetLabel", "SH", "STRUCTURES", False, "ANON"),
    ("StudyDate", "DA", "20240229", True, "SHIFTED 20240229"),
    ("StudyTime", "TM", "101112", True, "101112"),
    ("AcquisitionDateTime", "DT", "20240229101112.5", True, "SHIFTED 20240229 101112.5"),
    ("SeriesDate", "DA", "", False, ""),
    ("ContentDate", "DA", "20240231", True, ""),
    ("DateOfLastCalibration", "DA", ["20240101", "20240201"], True, ["SHIFTED 20240101", "SHIFTED 20240201"]),
    ("StudyInstanceUID", "UI", "1.2.3", False, UID),
    ("SOPClassUID", "UI", "1.2.840.10008.5.1.4.1.1.2", False, "1.2.840.10008.5.1.4.1.1.2"),
    ("ContentSequence", "SQ", [], False, GONE),
    ("InstitutionCodeSequence", "SQ", [Dataset()], True, []),
    ("Rows", "US", 7, False, 7),
    ("StudyDescription", "LO", "pelvis", True, GONE),
    ("StudyComments", "LT", "  ", False, GONE),
    ("CurveData", "OW", b"\0\1", True, GONE),
    ("BurnedInAnnotation", "CS", "NO", False, "NO"),
    ("RecognizableVisualFeatures", "CS", "YES", True, "YES"),
    ("(0006,0010)", "LO", "kept", False, "kept"),
    ("(0006,0012)", "LO", "unknown", True, GONE),
    ("(0028,9999)", "LO", "unknown", True, GONE),
    ("(6002,3000)", "OW", b"\0\1", True, GONE),
    ("(6002,0010)", "US", 5, False, 5),
    ("(6020,3000)", "OW", b"\0\1", False, b"\0\1"),
    ("(5004,0110)", "US", 5, True, GONE),
    ("(0013,0010)", "LO", "KEEP", False, "KEEP"),
    ("(0013,1001)", "LO", "private", False, "private"),
    ("(0015,0010)", "LO", "VENDOR", True, GONE),
    ("(0015,1001)", "LO", "private", True, GONE),
    ("(0015,1002)", "LO", "", False, GONE),
    ("(0017,1001)", "LO", "without creator", True, GONE),
]  # fmt: skip


def tag_of(name: str) -> Tag:
    if name.startswith("("):
        return Tag(int(name[1:5], 16), int(name[6:10], 16))
    return Tag(tag_for_keyword(name) or 0x50003000)


@pytest.fixture
def dataset() -> Dataset:
    ds = Dataset()
    for name, vr, value, _, _ in ATTRIBUTES:
        ds.add_new(tag_of(name), vr, value)
    ds.SOPInstanceUID = "1.2.3.4"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def test_what_identifies_is_found_and_nothing_else(dataset: Dataset) -> None:
    found = {finding.tag for finding in scan_phi([SourceFile("a.dcm", dataset)], PHI)}
    assert found == {str(tag_of(name)) for name, _, _, is_found, _ in ATTRIBUTES if is_found}


def plain(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, (int, bytes)):
        return value
    if isinstance(value, str):
        return str(value)
    items = list(value) if hasattr(value, "__iter__") and not hasattr(value, "components") else None
    return str(value) if items is None else [plain(item) for item in items]


def shifted(value: object) -> object:
    """A value in which `SHIFTED 20240229` stands for that day as the patient's dates were moved."""
    if isinstance(value, list):
        return [shifted(item) for item in value]
    if not isinstance(value, str) or not value.startswith("SHIFTED "):
        return value
    _, date, *rest = value.split(" ")
    return f"{datetime.strptime(date, '%Y%m%d') + NAMES.shift:%Y%m%d}{''.join(rest)}"


def test_a_clean_copy_holds_these_values_and_no_others(dataset: Dataset) -> None:
    clean = deidentify_dataset(dataset, NAMES, "case_1")
    for name, _, _, _, wanted in ATTRIBUTES:
        tag = tag_of(name)
        found = plain(clean[tag].value) if tag in clean else GONE
        assert (name, found) == (name, shifted(wanted))
    added = {
        "SOPInstanceUID", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
        "LongitudinalTemporalInformationModified",
    }  # fmt: skip
    known = {tag_of(name) for name, *_ in ATTRIBUTES}
    assert {element.keyword for element in clean if element.tag not in known} == added
    assert [(c.CodeValue, c.CodingSchemeDesignator) for c in clean.DeidentificationMethodCodeSequence] == [
        ("113100", "DCM"), ("113107", "DCM"),
    ]  # fmt: skip
    meta = clean.file_meta
    assert (clean.PatientIdentityRemoved, clean.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (clean.SOPClassUID, clean.SOPInstanceUID)
    assert (clean.preamble, meta.TransferSyntaxUID) == (b"\0" * 128, ExplicitVRLittleEndian)


def test_pseudonym_shift_and_uids_follow_from_salt_and_patient_alone() -> None:
    assert NAMES.pseudonym == "anon_ce5e4e8383d7"
    assert NAMES.shift == timedelta(days=-1421)
    assert NAMES.uid("1.2.3") == UID
    shifts = {Pseudonymiser(b"s", PHI, str(n)).shift.days for n in range(400)}
    assert -MOST_SHIFT_DAYS <= min(shifts) < -3500
    assert -200 < max(shifts) <= -1
    with pytest.raises(BadInput, match=r"refuses 'anon_ce5e4e8383d7'; let it pass anon_…"):
        _ = Pseudonymiser(b"s" * 32, Phi(pseudonym="x"), "123456").pseudonym
