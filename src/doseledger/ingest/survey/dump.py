"""A dump's DICOM files by patient, each object once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import Phi
from doseledger.dicom.files.headers import DumpFile, is_dicom, read_header, read_whole, unfollowed, walk_dump
from doseledger.dicom.privacy.phi import scan_phi
from doseledger.dicom.source import SourceFile, lenient
from doseledger.dicom.values import MALFORMED, text_of

RT_MODALITIES = frozenset({"RTSTRUCT", "RTPLAN", "RTDOSE"})
# What is kept of an image: who and where it is. The rest of a header would fill the memory.
KEPT = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "PatientID", "PatientPosition", "Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "KVP",
    "ImageType", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "NumberOfFrames", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
)  # fmt: skip
EVERY = 500
# What reading an attribute may raise: a survey says it and goes on.
ODD = (BadCase, BadInput, *MALFORMED)
# An attribute's tag and keyword.
Attribute = tuple[str, str]
Attributes = frozenset[Attribute]


@dataclass(frozen=True)
class Found:
    """One DICOM file of a dump.

    Parameters
    ----------
    header
        Of an image what is kept of it, of an RT object its first groups.
    identifying
        Attributes of an image that may identify the patient; RT objects are looked at when they are read whole.
    unreadable
        The kind of error where a value of an image can't be read.
    lacks_pixels
        Whether an image ends before its pixels do.
    """

    file: DumpFile
    header: pydicom.Dataset
    identifying: Attributes = frozenset()
    unreadable: str = ""
    lacks_pixels: bool = False

    @property
    def modality(self) -> str:
        """Modality; empty where none is given."""
        return said(self.header, "Modality")

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return said(self.header, "SOPInstanceUID")


@dataclass(frozen=True)
class DumpPatient:
    """One patient's files.

    Parameters
    ----------
    patient_id
        PatientID as compared, without padding; empty where the files have none. It is private.
    items
        Each object once, in the order of the files' names.
    copies
        Further files of the same objects.
    versions
        Files that have an object's UID and other content: nobody knows which is right.
    """

    patient_id: str
    items: list[Found]
    copies: list[DumpFile]
    versions: list[Found]


@dataclass(frozen=True)
class Dump:
    """Everything in a folder.

    Parameters
    ----------
    patients
        In the order of their first file.
    strangers, broken
        Files that are no DICOM, and DICOM that can't be read.
    unfollowed
        Names of links to folders or to nothing, and of what is no file: nobody looked into them.
    """

    patients: list[DumpPatient]
    strangers: list[DumpFile] = field(default_factory=list)
    broken: list[DumpFile] = field(default_factory=list)
    unfollowed: list[str] = field(default_factory=list)

    @property
    def n_files(self) -> int:
        """How many files were looked at."""
        own = sum(len(p.items) + len(p.copies) + len(p.versions) for p in self.patients)
        return own + len(self.strangers) + len(self.broken)


def said(dataset: pydicom.Dataset, keyword: str) -> str:
    """Return an attribute as text; empty where it is absent or can't be read."""
    try:
        return text_of(dataset, keyword).replace("\\", ", ")
    except BadInput:
        return ""


def check_dump(folder: Path) -> None:
    """Do nothing if there is a folder.

    Raises
    ------
    BadInput
        If there is none.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")


def read_dump(folder: Path, phi: Phi, tell: Callable[[str], None]) -> Dump:
    """Return the DICOM files of a folder by patient; pixels are not read, nothing is changed.

    Parameters
    ----------
    folder
        A raw export, as it is.
    phi
        What counts as identifying.

    Raises
    ------
    BadInput
        If there is no such folder, or no DICOM in it.
    """
    check_dump(folder)
    found: list[Found] = []
    strangers: list[DumpFile] = []
    broken: list[DumpFile] = []
    known: dict[Attributes, Attributes] = {}
    for number, file in enumerate(walk_dump(folder), start=1):
        header, lacks_pixels = read_header(file)
        if header is None:
            (broken if is_dicom(file) else strangers).append(file)
        else:
            found.append(_take(file, header, lacks_pixels, phi, known))
        if number % EVERY == 0:
            tell(f"{number} files looked at")
    if not found:
        # Without the folder's name, which may name a patient: this goes into the audit log.
        raise BadInput(f"none of the {len(strangers) + len(broken)} files is DICOM; name the folder of an export")
    return Dump(_by_patient(found), strangers, broken, unfollowed(folder))


def _take(
    file: DumpFile,
    header: pydicom.Dataset,
    lacks_pixels: bool,
    phi: Phi,
    known: dict[frozenset[Attribute], frozenset[Attribute]],
) -> Found:
    if said(header, "Modality") in RT_MODALITIES:
        return Found(file, header)
    identifying, unreadable = find_identifying(header, phi)
    thin = pydicom.Dataset()
    for keyword in KEPT:
        element = header.get_item(keyword)
        if element is not None:
            thin[element.tag] = element
    return Found(file, thin, known.setdefault(identifying, identifying), unreadable, lacks_pixels)


def find_identifying(dataset: pydicom.Dataset, phi: Phi) -> tuple[Attributes, str]:
    """Return which attributes may identify a patient, and the kind of error where a value can't be read."""
    try:
        with lenient():
            findings = scan_phi([SourceFile("", dataset)], phi)
    except ODD as error:
        return frozenset(), type(error).__name__
    return frozenset((finding.tag, finding.keyword) for finding in findings), ""


def _by_patient(found: Iterable[Found]) -> list[DumpPatient]:
    """Files by PatientID; one without goes with the patient whose study it shares."""
    owner: dict[str, str] = {}
    for item in found:
        patient_id = said(item.header, "PatientID")
        if patient_id:
            owner.setdefault(said(item.header, "StudyInstanceUID"), patient_id)
    groups: dict[tuple[str, str], list[Found]] = {}
    for item in found:
        study = said(item.header, "StudyInstanceUID")
        patient_id = said(item.header, "PatientID") or owner.get(study, "")
        groups.setdefault((patient_id, "" if patient_id else study), []).append(item)
    return [_each_once(patient_id, items) for (patient_id, _), items in groups.items()]


def _each_once(patient_id: str, items: list[Found]) -> DumpPatient:
    """A patient's objects by UID, the first sound file of each; its other files are copies, or versions that differ.

    A file that is cut short is a copy beside a sound one of the same object.
    """
    once: dict[str, Found] = {}
    copies: list[Found] = []
    versions: list[Found] = []
    for item in items:
        uid = item.uid or item.file.name
        kept = once.setdefault(uid, item)
        if kept is item:
            continue
        if (not item.lacks_pixels and not kept.lacks_pixels and _same_content(kept, item)) or _is_cut(item):
            copies.append(item)
        elif _is_cut(kept):
            once[uid] = item
            copies.append(kept)
        else:
            versions.append(item)
    return DumpPatient(patient_id, list(once.values()), [item.file for item in copies], versions)


def _is_cut(item: Found) -> bool:
    if item.modality in RT_MODALITIES:
        with lenient():
            return read_whole(item.file) is None
    return item.lacks_pixels


def _same_content(one: Found, other: Found) -> bool:
    """Whether two files of one object are alike: RT objects to the byte, images as far as their headers say."""
    try:
        return one.file.read() == other.file.read() if one.modality in RT_MODALITIES else one.header == other.header
    except ODD:
        return False
