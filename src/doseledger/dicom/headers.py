"""DICOM headers of any folder: every file at any depth and in zips, pixels unread."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from doseledger.dicom.source import BROKEN_ZIP, IGNORED_NAMES, MALFORMED, PREAMBLE_BYTES, lenient

PIXEL_GROUP = 0x7FE0
# What makes plans and structure sets long; no image has an attribute of these groups.
RT_GROUPS = frozenset({0x3002, 0x3004, 0x3006, 0x3008, 0x300A, 0x300C, 0x300E})
# The first group of a file without preamble, in either byte order: PS3.10 7.1, or a data set alone.
FIRST_GROUPS = frozenset({b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02"})


@dataclass(frozen=True)
class DumpFile:
    """A file of a dump.

    Parameters
    ----------
    name
        Where it lies in the dump, with `/`; of a member, that of its zip comes first.
    path
        The file, or the zip that holds it.
    member
        Its name within the zip; empty for a file.
    """

    name: str
    path: Path
    member: str = ""

    def open(self) -> BinaryIO:
        """Return the file's content, to be closed by the caller."""
        return io.BytesIO(self.read()) if self.member else self.path.open("rb")

    def read(self) -> bytes:
        """Return the file's content."""
        return _zip(self.path).read(self.member) if self.member else self.path.read_bytes()


@lru_cache(maxsize=1)
def _zip(path: Path) -> zipfile.ZipFile:
    """The zip that is read now: its list is long, and its members are read one after the other."""
    return zipfile.ZipFile(path)


def walk_dump(folder: Path) -> Iterator[DumpFile]:
    """Yield every file below a folder, and every member of the zips there, sorted by name; nothing is changed.

    Notes
    -----
    What file browsers and archivers leave behind is left out. A zip that can't be opened is one file.
    """
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            file = DumpFile(path.relative_to(folder).as_posix(), path)
            if _is_left_behind(file.name) or not path.is_file():
                continue
            members = _members(file) if path.suffix.lower() == ".zip" else None
            yield from [file] if members is None else members


def _members(file: DumpFile) -> list[DumpFile] | None:
    try:
        listed = sorted(info.filename for info in _zip(file.path).infolist() if not info.is_dir())
    except BROKEN_ZIP:
        return None
    kept = [name for name in listed if not _is_left_behind(name)]
    return [DumpFile(f"{file.name}/{name}", file.path, name) for name in kept]


def _is_left_behind(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in IGNORED_NAMES or path.name.startswith("._") or "__MACOSX" in path.parts


def is_dicom(file: DumpFile) -> bool:
    """Return whether a file begins as DICOM does, with a preamble or without."""
    try:
        with file.open() as stream:
            head = stream.read(PREAMBLE_BYTES + 4)
    except BROKEN_ZIP:
        return False
    return head[PREAMBLE_BYTES:] == b"DICM" or head[:2] in FIRST_GROUPS


def read_header(file: DumpFile) -> pydicom.Dataset | None:
    """Return what stands before a file's pixels, and of an RT object only what stands before its own groups.

    None where the file is no DICOM, or is cut short before that.

    Notes
    -----
    The header of an image is whole: whatever could identify a patient is in it, but for what lies in the pixels.
    """
    return _read(file, _at_pixels_or_rt)


def read_whole(file: DumpFile) -> pydicom.Dataset | None:
    """Return a data set without its pixels; None where the file is no DICOM, or is cut short."""
    return _read(file, _at_pixels)


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group >= PIXEL_GROUP


def _at_pixels_or_rt(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group >= PIXEL_GROUP or tag.group in RT_GROUPS


def _read(file: DumpFile, stop: Callable[[BaseTag, str | None, int], bool]) -> pydicom.Dataset | None:
    try:
        with file.open() as stream, lenient():
            head = stream.read(PREAMBLE_BYTES + 4)
            has_preamble = head[PREAMBLE_BYTES:] == b"DICM"
            if not has_preamble and head[:2] not in FIRST_GROUPS:
                return None
            stream.seek(0)
            dataset = read_partial(stream, stop_when=stop, force=not has_preamble)
            return dataset if "SOPClassUID" in dataset else None
    except (InvalidDicomError, *MALFORMED, *BROKEN_ZIP):
        return None
