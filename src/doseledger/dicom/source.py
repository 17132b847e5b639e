"""A case's raw files, from folder or zip: digest and DICOM data sets."""

from __future__ import annotations

import hashlib
import io
import lzma
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from doseledger.core.errors import BadCase

# A DICOM file has "DICM" after a preamble of 128 bytes (PS3.10, 7.1).
PREAMBLE_BYTES = 128
# What file browsers and archivers leave behind; never part of a patient.
IGNORED_NAMES = frozenset({"DICOMDIR", "Thumbs.db", "desktop.ini"})
# What a zip raises that is damaged, cut short or locked, whatever the compression of its members.
BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, RuntimeError, NotImplementedError),
)
# What pydicom raises where a file breaks the standard, at once or when a value is first asked for; OSError too, of a
# sequence that ends within an item, though nothing is read from disk.
MALFORMED = (
    *(AttributeError, EOFError, KeyError, NotImplementedError, OSError, OverflowError, TypeError, ValueError),
    *(BytesLengthException, struct.error, zlib.error),
)


@dataclass(frozen=True)
class SourceFile:
    """One data set of a case.

    Parameters
    ----------
    name
        Where it lies in the folder or zip, with `/`.
    dataset
        What the file says; element values are parsed when they are first asked for.
    """

    name: str
    dataset: pydicom.Dataset


def _is_junk(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return hidden or path.name in IGNORED_NAMES


def _without_common_folder(names: list[str]) -> dict[str, str]:
    """Names without the folders that all of them share, so that a zip of a folder equals the folder."""
    parts = [PurePosixPath(name).parts for name in names]
    shared = 0
    while parts and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return {name: "/".join(p[shared:]) for name, p in zip(names, parts, strict=True)}


def read_members(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file of a case, sorted by name; hidden files and folders are left out.

    Parameters
    ----------
    source
        A folder, or a zip.

    Raises
    ------
    BadCase
        If the zip can't be read, or there is nothing in it.
    """
    if source.is_dir():
        files = [path for path in source.rglob("*") if path.is_file()]
        names = [path.relative_to(source).as_posix() for path in files]
        short = _without_common_folder([name for name in names if not _is_junk(name)])
        for name in sorted(short, key=short.__getitem__):
            yield short[name], (source / name).read_bytes()
    else:
        try:
            with zipfile.ZipFile(source) as archive:
                listed = [info.filename for info in archive.infolist() if not info.is_dir()]
                short = _without_common_folder([name for name in listed if not _is_junk(name)])
                for name in sorted(short, key=short.__getitem__):
                    yield short[name], archive.read(name)
        except BROKEN_ZIP as error:
            raise BadCase(source.stem, f"{source.name} can't be read as a zip ({error}); pack it again") from error
    if not short:
        raise BadCase(source.stem, f"{source.name} holds no files; export the patient again")


def source_digest(source: Path) -> str:
    """Return the SHA256 of a case's raw files, in hex: the same for a folder and for any zip of it.

    Notes
    -----
    Over each file's name, length and content in the order of names; dates, permissions, compression and a common
    leading folder do not count.
    """
    digest = hashlib.sha256()
    for name, content in read_members(source):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


@contextmanager
def lenient() -> Iterator[None]:
    """Silence pydicom's warnings of values that break their type's form: readers here judge what they use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
        yield


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


def parse_dataset(content: bytes) -> pydicom.Dataset | None:
    """Return the data set of a file's content, or None where it is no DICOM.

    Notes
    -----
    Files without preamble and file meta are read too; their transfer syntax is then the one that the elements
    themselves show. SOP Class UID (0008,0016) tells such a file from any other.
    """
    has_preamble = content[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] == b"DICM"
    try:
        with lenient():
            dataset = pydicom.dcmread(io.BytesIO(content), force=not has_preamble)
            if "SOPClassUID" not in dataset:
                return None
    except (InvalidDicomError, *MALFORMED):
        return None
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def read_source(source: Path) -> tuple[list[SourceFile], list[str]]:
    """Return the data sets of a folder or zip in the order of their names, and the names of files that are no DICOM.

    Raises
    ------
    BadCase
        If the source is empty, or no file of it is DICOM.
    """
    found: list[SourceFile] = []
    strangers: list[str] = []
    for name, content in read_members(source):
        dataset = parse_dataset(content)
        if dataset is None:
            strangers.append(name)
        else:
            found.append(SourceFile(name, dataset))
    if not found:
        raise BadCase(source.stem, f"none of the {len(strangers)} files is DICOM; export the patient again")
    return found, strangers
