"""De-identification of a data set: pseudonym, linked UIDs, shifted dates."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID_dictionary

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import Phi
from doseledger.dicom.privacy.attributes import DUMMY_ATTRIBUTES, DUMMY_TEXT, EMPTY_ATTRIBUTES
from doseledger.dicom.privacy.phi import PRIVATE_PREFIX, kind_of_element

PREFIX = "anon_"
# Ten years: far enough to hide a date, near enough that an age or a software's year stays plausible.
MOST_SHIFT_DAYS = 3650
KEPT_IDENTITY = frozenset({"PatientName", "PatientID"})
# PS3.16 CID 7050: what was done.
METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)


@dataclass(frozen=True)
class Pseudonymiser:
    """How one patient's identifiers are replaced: the same way in each of their files, and in no other cohort.

    Parameters
    ----------
    salt
        Secret; whoever has it can test a guess at an identifier.
    """

    salt: bytes
    phi: Phi
    patient_id: str

    def digest(self, text: str) -> int:
        """Return 128 bits that stand for a text, the same for the same salt."""
        return int.from_bytes(hmac.digest(self.salt, text.encode(), "sha256")[:16], "big")

    @property
    def pseudonym(self) -> str:
        """The patient's new name and id.

        Raises
        ------
        BadInput
            If the protocol's pattern would not pass it.
        """
        name = f"{PREFIX}{self.digest(f'patient {self.patient_id}'):032x}"[: len(PREFIX) + 12]
        if not re.fullmatch(self.phi.pseudonym, name):
            raise BadInput(
                f"the protocol's phi.pseudonym {self.phi.pseudonym!r} refuses {name!r}; let it pass {PREFIX}…"
            )
        return name

    @property
    def shift(self) -> timedelta:
        """By how much the patient's dates move: whole days into the past, never none."""
        return timedelta(days=-1 - self.digest(f"dates of {self.patient_id}") % MOST_SHIFT_DAYS)

    def uid(self, uid: str) -> str:
        """Return the UID that stands for another; those of the standard itself stay.

        Notes
        -----
        `2.25.` and a UUID as a number: PS3.5 B.2.
        """
        return uid if uid in UID_dictionary else f"2.25.{self.digest(f'uid {uid}')}"


def deidentify_dataset(dataset: Dataset, names: Pseudonymiser, case_id: str) -> Dataset:
    """Return a copy of a data set that the PHI scan passes, links and intervals of time kept.

    Raises
    ------
    BadCase
        If the file says that text is burned into its pixels: that can't be removed here.

    Notes
    -----
    DICOM PS3.15 Annex E: Basic Profile, with the option that retains modified dates (E.3.6). Times of day stay. ROI
    names stay, as structures are found by them: look them through.
    """
    if dataset.get("BurnedInAnnotation") == "YES":
        raise BadCase(
            case_id, "text is burned into the pixels, which can't be removed here; export without annotations"
        )
    clean = _clean(dataset, names)
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = "doseledger: PS3.15 Basic Profile, dates shifted per patient"
    clean.DeidentificationMethodCodeSequence = [_code(*method) for method in METHODS]
    clean.LongitudinalTemporalInformationModified = "MODIFIED"
    clean.file_meta = FileMetaDataset()
    clean.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    clean.file_meta.MediaStorageSOPClassUID = clean.SOPClassUID
    clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    clean.preamble = b"\0" * 128
    return clean


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _clean(dataset: Dataset, names: Pseudonymiser) -> Dataset:
    clean = Dataset()
    allowed = {item.keyword for item in names.phi.allow}
    for element in dataset:
        tag = int(element.tag)
        keyword, kind = keyword_for_tag(tag), kind_of_element(dataset, element.tag)
        if kind == "unknown" and str(element.tag) not in allowed:
            continue
        if kind == "private":
            if f"{PRIVATE_PREFIX}{element.private_creator or element.value}" in allowed:
                clean.add(element)
        elif element.VR == "UI":
            clean.add_new(tag, "UI", _each(element.value, names.uid))
        elif kind == "date":
            clean.add_new(tag, element.VR, _each(element.value, lambda text, vr=element.VR: _shifted(text, vr, names)))
        elif keyword in KEPT_IDENTITY:
            clean.add_new(tag, element.VR, names.pseudonym)
        elif keyword in allowed or str(element.tag) in allowed or kind == "free":
            clean.add(element)
        elif kind == "name" or tag in EMPTY_ATTRIBUTES:
            clean.add_new(tag, element.VR, None if element.VR != "SQ" else [])
        elif tag in DUMMY_ATTRIBUTES and element.VR in ("LO", "SH", "LT", "ST", "UT", "CS", "AE"):
            clean.add_new(tag, element.VR, DUMMY_TEXT)
        elif kind == "sequence":
            clean.add_new(tag, "SQ", [_clean(item, names) for item in element.value])
    return clean


def _each(value: Any, function: Any) -> Any:
    if value is None or value == "":
        return value
    if isinstance(value, (list, pydicom.multival.MultiValue)):
        return [function(str(item)) for item in value]
    return function(str(value))


def _shifted(text: str, vr: str, names: Pseudonymiser) -> str:
    """A DA or DT moved by the patient's shift; a time of day as it is; what is no date becomes empty."""
    if vr == "TM":
        return text
    try:
        moved = datetime.strptime(text[:8], "%Y%m%d") + names.shift
    except (ValueError, OverflowError):
        return ""
    return f"{moved:%Y%m%d}" + (text[8:] if vr == "DT" else "")
