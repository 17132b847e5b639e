"""Scan for attributes that may identify a patient; values are never shown.

Not findings, with the reason: UIDs (they keep the objects of a case linked, and whether one was replaced can't be seen;
`deidentify` replaces them), ROI Name (structures are found by it; what no structure claims is listed in meta), and
dates where the file says that they were shifted or removed (Longitudinal Temporal Information Modified, PS3.15 E.3.6).
Nor are the fixed sentences that our own objects carry (`phi_attributes.OWN_TEXT`).
Pixels are not looked at beyond what the file itself says of burned-in text and recognisable faces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import pydicom
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.tag import BaseTag, Tag

from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Phi
from doseledger.core.text.lists import first_of
from doseledger.dicom.privacy.attributes import (
    CURVE_GROUPS,
    DATE_VRS,
    DUMMY_TEXT,
    LISTED,
    NAME_VRS,
    OVERLAY_ELEMENTS,
    OVERLAY_GROUPS,
    OWN_TEXT,
    PSEUDONYM_KEYWORDS,
)
from doseledger.dicom.source import SourceFile, lenient
from doseledger.dicom.values import MALFORMED, PADDING

Kind = Literal["date", "name", "listed", "private", "sequence", "unknown", "free"]
# `phi.allow` names a vendor's private block by its creator.
PRIVATE_PREFIX = "private:"
DECLARED_YES = ("BurnedInAnnotation", "RecognizableVisualFeatures")
# How many attributes a refusal spells out.
MOST_SHOWN = 8


@dataclass(frozen=True, order=True)
class PhiFinding:
    """An attribute that may identify a patient.

    Parameters
    ----------
    tag
        As `(gggg,eeee)`.
    keyword
        DICOM keyword; `private` for a vendor's own attribute, empty where the standard gives none.
    file
        The file within the case, as `SourceFile.label` calls it.
    """

    tag: str
    keyword: str
    file: str


@lru_cache(maxsize=4096)
def classify(tag: int) -> Kind:
    """Return what an attribute is to the confidentiality profile, going by its tag."""
    group, element = tag >> 16, tag & 0xFFFF
    if group % 2:
        return "private"
    if tag in LISTED or group in CURVE_GROUPS or (group in OVERLAY_GROUPS and element in OVERLAY_ELEMENTS):
        return "listed"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        # Whatever no dictionary knows may hold anything; but (gggg,0000) is the length of a group.
        return "unknown" if element else "free"
    if vr in DATE_VRS:
        return "date"
    if vr in NAME_VRS:
        return "name"
    return "sequence" if vr == "SQ" else "free"


def scan_phi(files: Iterable[SourceFile], phi: Phi) -> list[PhiFinding]:
    """Return every attribute that may identify a patient, sorted by tag and file.

    Notes
    -----
    DICOM PS3.15 Annex E, Basic Application Level Confidentiality Profile. Empty values pass; so do names and ids that
    are pseudonyms, and keywords in `phi.allow` (`private:CREATOR` for a vendor's block, `(gggg,eeee)` for an attribute
    that no dictionary knows).
    """
    allowed = frozenset(item.keyword for item in phi.allow)
    pattern = re.compile(phi.pseudonym)
    findings: set[PhiFinding] = set()
    for file in files:
        top = file.dataset
        dates_pass = top.get("LongitudinalTemporalInformationModified") in ("MODIFIED", "REMOVED")
        for dataset in _walk(top):
            for tag in list(dataset.keys()):
                kind = kind_of_element(dataset, tag)
                if kind in ("free", "sequence") or (kind == "date" and dates_pass):
                    continue
                keyword = "private" if kind == "private" else keyword_for_tag(tag)
                named = {keyword, str(Tag(tag))} & allowed if kind == "unknown" else {keyword} & allowed
                if not named and not _passes(dataset, tag, kind, pattern, allowed):
                    findings.add(PhiFinding(str(Tag(tag)), keyword, file.label))
        for keyword in DECLARED_YES:
            if top.get(keyword) == "YES" and keyword not in allowed:
                findings.add(PhiFinding(str(top[keyword].tag), keyword, file.label))
    return sorted(findings)


def kind_of_element(dataset: pydicom.Dataset, tag: BaseTag) -> Kind:
    """Return what an element is, by its tag; by its written type too where the tag says nothing that identifies."""
    kind = classify(int(tag))
    if kind != "free":
        return kind
    written = getattr(dataset.get_item(tag), "VR", None)
    by_type: dict[str, Kind] = {**dict.fromkeys(NAME_VRS, "name"), **dict.fromkeys(DATE_VRS, "date"), "SQ": "sequence"}
    return by_type.get(str(written), "free")


def _walk(dataset: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """The data set, and those in its sequences to any depth, without parsing any other element."""
    yield dataset
    for tag in list(dataset.keys()):
        if kind_of_element(dataset, tag) == "sequence":
            for item in dataset[tag].value or []:
                yield from _walk(item)


def _passes(
    dataset: pydicom.Dataset, tag: BaseTag, kind: Kind, pattern: re.Pattern[str], allowed: frozenset[str]
) -> bool:
    if kind == "private":
        return _private_passes(dataset, tag, allowed)
    value = dataset[tag].value
    if _is_empty(value) or value == DUMMY_TEXT or (isinstance(value, str) and OWN_TEXT.fullmatch(value)):
        return True
    if kind == "name" or keyword_for_tag(tag) in PSEUDONYM_KEYWORDS:
        values = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
        return all(_is_empty(item) or pattern.fullmatch(str(item).strip(PADDING).rstrip("^ ")) for item in values)
    return False


def _private_passes(dataset: pydicom.Dataset, tag: BaseTag, allowed: frozenset[str]) -> bool:
    element = dataset[tag]
    if _is_empty(element.value):
        return True
    # (gggg,00bb) names the creator of the block (gggg,bb00) to (gggg,bbFF): PS3.5 7.8.1.
    creator_tag = tag if tag.is_private_creator else Tag(tag.group, tag.element >> 8)
    creator = str(dataset[creator_tag].value).strip() if creator_tag in dataset else ""
    return f"{PRIVATE_PREFIX}{creator}" in allowed


def _is_empty(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, (bytes, str)):
        return not value.strip(b"\0 " if isinstance(value, bytes) else "\0 ")  # type: ignore[arg-type]
    if isinstance(value, (pydicom.sequence.Sequence, pydicom.multival.MultiValue, list)):
        return len(value) == 0 or (not isinstance(value, pydicom.sequence.Sequence) and all(map(_is_empty, value)))
    return not str(value).strip("^ ")


def refuse_phi(files: list[SourceFile], phi: Phi | None, case_id: str) -> None:
    """Refuse a case in which something may identify the patient.

    Raises
    ------
    BadCase
        Naming attributes and files, never values; also if a value can't be read.
    """
    if phi is None:
        return
    findings: list[PhiFinding] = []
    for file in files:
        try:
            with lenient():
                findings += scan_phi([file], phi)
        except MALFORMED as error:
            # The error's text holds the value: neither it nor where it was raised is passed on.
            raise BadCase(
                case_id,
                f"holds a value that can't be read ({type(error).__name__}) in {file.label}, so nobody knows whom it "
                "names; export it again, or leave it out",
            ) from None
    if not findings:
        return
    by_attribute: dict[tuple[str, str], list[str]] = {}
    for finding in sorted(findings):
        by_attribute.setdefault((finding.tag, finding.keyword), []).append(finding.file)
    shown = [f"{word or 'attribute'} {tag} in {first_of(names, 1)}" for (tag, word), names in by_attribute.items()]
    raise BadCase(
        case_id,
        f"may identify the patient: {first_of(shown, MOST_SHOWN, '; ')}. Run `doseledger raw deidentify`, or name "
        "the keyword with a reason in the protocol's phi.allow",
    )
