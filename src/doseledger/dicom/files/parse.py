"""DICOM files to data sets, and what speaks against using one."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from doseledger.core.damage import ALWAYS_ALLOWED_BYTES, MOST_GROWTH
from doseledger.core.errors import BadInput
from doseledger.dicom.files.members import check_size
from doseledger.dicom.files.refuse import kind_of
from doseledger.dicom.files.warned import lenient
from doseledger.dicom.values import MALFORMED

# A DICOM file has "DICM" after a preamble of 128 bytes (PS3.10, 7.1), then elements of group 2, the first of which says
# how long they are in 12 bytes.
PREAMBLE_BYTES = 128
META_START = PREAMBLE_BYTES + 4
DEFLATED = b"1.2.840.10008.1.2.1.99"
UNDEFINED_LENGTH = 0xFFFFFFFF
# What a file is said to be when the rest of it can't be read: identity, modality, series (groups 8, 10 and 20).
LAST_GROUP_OF_HEADER = 0x0020


def parse_dataset(content: bytes) -> pydicom.Dataset | None:
    """Return the data set of a file's content, or None where it is no DICOM, or breaks off so that it can't be read.

    Notes
    -----
    Files without preamble and file meta are read too; their transfer syntax is then the one that the elements
    themselves show. SOP Class UID (0008,0016) tells such a file from any other.
    """
    try:
        return _parsed(content)
    except MALFORMED:
        return None


def parse_file(content: bytes) -> tuple[pydicom.Dataset | None, str]:
    """Return the data set of a file's content, None where it is no DICOM; and why it must not be used, or nothing.

    Notes
    -----
    Of a file that can't be read to its end the header is returned, so that one can tell what it was.
    """
    try:
        dataset = _parsed(content)
        return dataset, "" if dataset is None else _cut_short(dataset, content)
    except MALFORMED as error:
        return _header(content), f"can't be read to its end ({type(error).__name__}); copy or export it again"


def read_file(path: Path, modality: str, wanted: str = "") -> pydicom.Dataset:
    """Return the data set of one file that is given by itself.

    Parameters
    ----------
    modality
        Which one it must be of.
    wanted
        What should be given, in words.

    Raises
    ------
    BadInput
        If the file can't be read, is cut short, or is of another kind.
    """
    wanted = f"; give {wanted}" if wanted else f", wanted {modality}; give that file"
    try:
        check_size(path.stat().st_size, path)
        dataset, fault = parse_file(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error}){wanted}") from error
    found = "no DICOM" if dataset is None else kind_of(dataset)
    if dataset is None or found != modality:
        raise BadInput(f"{path} is {found}{wanted}")
    if fault:
        raise BadInput(f"{path} {fault}")
    dataset.file_label = path.name
    return dataset


def _parsed(content: bytes) -> pydicom.Dataset | None:
    has_preamble = _has_preamble(content)
    check_deflated(content)
    with lenient():
        try:
            dataset = pydicom.dcmread(io.BytesIO(content), force=not has_preamble)
        except MALFORMED:
            if has_preamble:
                raise
            return None
        if "SOPClassUID" not in dataset:
            return None
    return _with_syntax(dataset)


def _has_preamble(content: bytes) -> bool:
    return content[PREAMBLE_BYTES:META_START] == b"DICM"


def _with_syntax(dataset: pydicom.Dataset) -> pydicom.Dataset:
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _header(content: bytes) -> pydicom.Dataset | None:
    """What a broken file says of itself before its bulk, if it says what it is."""

    def is_bulk(tag: BaseTag, vr: str | None, length: int) -> bool:
        return tag >> 16 > LAST_GROUP_OF_HEADER

    try:
        check_deflated(content)
        with lenient():
            dataset = read_partial(io.BytesIO(content), stop_when=is_bulk, force=not _has_preamble(content))
            return _with_syntax(dataset) if "SOPClassUID" in dataset else None
    except MALFORMED:
        return None


def check_deflated(content: bytes) -> None:
    """Refuse a deflated data set that unpacks to far more than it holds; pydicom would unpack it whole.

    Raises
    ------
    ValueError
        Saying to how much, at least.
    """
    head = content[META_START : META_START + 12]
    if not _has_preamble(content) or len(head) < 12:
        return
    start = META_START + 12 + int.from_bytes(head[8:12], "little")
    if DEFLATED not in content[META_START:start]:
        return
    most = max(ALWAYS_ALLOWED_BYTES, MOST_GROWTH * len(content))
    if len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[start:], most + 1)) > most:
        raise ValueError(f"unpacks to more than {most} bytes")


def _cut_short(dataset: pydicom.Dataset, content: bytes) -> str:
    """Why a file is taken for one that was cut short; empty where it ends with its last element."""
    last = 0
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if not isinstance(element, RawDataElement) or element.length == UNDEFINED_LENGTH:
            last = max(last, len(content))
            continue
        there = len(element.value or b"")
        if there < element.length:
            name = f"{keyword_for_tag(tag) or 'its last attribute'} {Tag(tag)}"
            return f"is cut short: {name} has {there} of {element.length} bytes; copy or export it again"
        last = max(last, element.value_tell + element.length)
    rest = content[last:]
    # A tail too short for an element is the beginning of one; zeros fill up blocks of tapes.
    if rest.strip(b"\0") and not _is_deflated(dataset):
        return f"is cut short: {len(rest)} bytes follow its last whole attribute; copy or export it again"
    return ""


def _is_deflated(dataset: pydicom.Dataset) -> bool:
    return str(dataset.file_meta.TransferSyntaxUID).encode() == DEFLATED
