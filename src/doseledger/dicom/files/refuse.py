"""Refusals of DICOM files: by file and attribute, never by value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pydicom
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.tag import Tag

from doseledger.core.errors import BadCase, BadInput, SkippedCase
from doseledger.dicom.values import MALFORMED, text_of

# Words that name no person. A file's name of other words may, and is not repeated in anything that is kept.
PLAIN_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        ct mr mri pt pet us rs rd rp re rt rtstruct rtss rtst rtdose rtplan rtimage struct structure structures set sets
        dose doses plan plans beam plane image images img im ima i slice series study scan file part frame frames dcm
        dicom dic anon case phantom copy bad empty broken cut no number other odd stray a b c d x raw clean
        """,
    )
)
UID_LIKE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def label_of(dataset: pydicom.Dataset) -> str:
    """Return how a data set's file is called in messages; empty where it came from none."""
    return str(getattr(dataset, "file_label", ""))


def name_file(dataset: pydicom.Dataset, name: str, number: int = 1) -> None:
    """Let messages call a data set by its file's name, or by kind and number where the name may name a person."""
    words = re.findall(r"[A-Za-z]+", UID_LIKE.sub("", name))
    plain = name.isascii() and all(word.lower() in PLAIN_WORDS for word in words)
    # An attribute of the object, no element: it is never written.
    dataset.file_label = name if plain else f"{kind_of(dataset)} file no. {number}"


def kind_of(dataset: pydicom.Dataset) -> str:
    """Return a data set's Modality (0008,0060); DICOM where it has none that could be one."""
    try:
        kind = text_of(dataset, "Modality")
    except BadInput:
        kind = ""
    return kind if re.fullmatch(r"[A-Z]{2,16}", kind) else "DICOM"


@contextmanager
def malformed_as_bad_case(case_id: str) -> Iterator[None]:
    """Take what pydicom raises of a file that breaks the standard for the case's fault.

    Only what reads or makes data sets in memory belongs inside: of anything else the same errors tell a fault of our
    own, or of the disk.

    Raises
    ------
    BadCase
        Naming the kind of error alone: its text may hold a value.
    """
    try:
        yield
    except MALFORMED as error:
        raise BadCase(case_id, f"malformed DICOM ({type(error).__name__}); export the patient again") from error


@contextmanager
def in_file(dataset: pydicom.Dataset, case_id: str) -> Iterator[None]:
    """Let whatever is wrong with a data set be said with its file's name, and with the attribute's.

    Raises
    ------
    BadCase
        What was refused, with the file's name before it; for what pydicom raises, the attribute that can't be read.
    """
    try:
        yield
    except SkippedCase:
        raise
    except BadCase as error:
        raise BadCase(case_id, _with_label(dataset, error.reason)) from error
    except BadInput as error:
        raise BadCase(case_id, _with_label(dataset, str(error))) from error
    except MALFORMED as error:
        reason = f"{_what_breaks(dataset, error)}; export it again"
        raise BadCase(case_id, _with_label(dataset, reason)) from error


def _with_label(dataset: pydicom.Dataset, reason: str) -> str:
    label = label_of(dataset)
    return reason if not label or reason.startswith(f"{label}: ") else f"{label}: {reason}"


def _what_breaks(dataset: pydicom.Dataset, error: BaseException) -> str:
    """The attribute behind an error, without any value."""
    if isinstance(error, AttributeError) and error.name and tag_for_keyword(error.name) is not None:
        return f"{error.name} is missing"
    place = _first_unreadable(dataset)
    return f"{place or 'a value'} can't be read ({type(error).__name__})"


def _first_unreadable(dataset: pydicom.Dataset) -> str:
    try:
        for tag in list(dataset.keys()):
            try:
                value = dataset[tag].value
            except MALFORMED:
                return f"{keyword_for_tag(tag) or 'attribute'} {Tag(tag)}"
            if isinstance(value, pydicom.sequence.Sequence):
                found = next(filter(None, map(_first_unreadable, value)), "")
                if found:
                    return found
    except RecursionError:
        return "a sequence nested too deep"
    return ""
