"""A case's raw files, from folder or zip: digest and DICOM data sets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pydicom

from doseledger.core.errors import BadCase
from doseledger.core.text.lists import first_of
from doseledger.dicom.files.members import links_of, read_members, source_digest
from doseledger.dicom.files.parse import PREAMBLE_BYTES, parse_dataset, parse_file, read_file
from doseledger.dicom.files.refuse import in_file, label_of, malformed_as_bad_case, name_file
from doseledger.dicom.files.warned import lenient

__all__ = [
    "PREAMBLE_BYTES",
    "Scan",
    "SourceFile",
    "in_file",
    "label_of",
    "lenient",
    "malformed_as_bad_case",
    "parse_dataset",
    "read_file",
    "read_members",
    "read_source",
    "scan_source",
    "source_digest",
]


@dataclass(frozen=True)
class SourceFile:
    """One data set of a case.

    Parameters
    ----------
    name
        Where it lies in the folder or zip, with `/`.
    dataset
        What the file says; element values are parsed when they are first asked for. Of a file that can't be read to its
        end, what could be.
    fault
        Why it must not be used, as a clause; empty where it is sound.
    """

    name: str
    dataset: pydicom.Dataset
    fault: str = ""

    @property
    def label(self) -> str:
        """How the file is called in messages."""
        return label_of(self.dataset) or self.name


@dataclass(frozen=True)
class Scan:
    """What a case's folder or zip holds: data sets, names of files that are no DICOM, and what else is odd."""

    files: list[SourceFile]
    strangers: list[str]
    notes: list[str]


def scan_source(source: Path) -> Scan:
    """Return the data sets of a folder or zip in the order of their names, and what else is there.

    Raises
    ------
    BadCase
        If the source is empty, or no file of it is DICOM.

    Notes
    -----
    A file that is a copy of another, byte for byte, counts once. Files that can't be read to their end are there with
    their fault: whoever needs one refuses it, the others are listed.
    """
    found: list[SourceFile] = []
    strangers: list[str] = []
    seen: set[bytes] = set()
    copies = 0
    for number, (name, content) in enumerate(read_members(source), 1):
        digest = hashlib.sha256(content).digest()
        if digest in seen:
            copies += 1
            continue
        seen.add(digest)
        dataset, fault = parse_file(content)
        if dataset is None:
            strangers.append(name)
        else:
            name_file(dataset, name, number)
            found.append(SourceFile(name, dataset, fault))
    if not found:
        zips = [name for name in strangers if name.casefold().endswith(".zip")]
        what = f"name the zip itself ({first_of(zips, 1)})" if zips else "export the patient again"
        raise BadCase(source.stem, f"none of the {len(strangers)} files is DICOM; {what}")
    return Scan(found, strangers, [*links_of(source), *([_copies(copies)] if copies else [])])


def _copies(count: int) -> str:
    return f"{count} files are copies of others, byte for byte, and count once"


def read_source(source: Path) -> tuple[list[SourceFile], list[str]]:
    """Return the data sets of a folder or zip in the order of their names, and the names of files that are no DICOM.

    Raises
    ------
    BadCase
        As `scan_source` does.
    """
    scan = scan_source(source)
    return scan.files, scan.strangers
