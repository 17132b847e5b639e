"""DICOM headers of any folder: every file at any depth and in zips, pixels unread."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pydicom
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from doseledger.core.damage import check_zip
from doseledger.core.errors import BadInput
from doseledger.dicom.files.members import IGNORED_NAMES, check_size
from doseledger.dicom.files.parse import DEFLATED, META_START, PREAMBLE_BYTES, check_deflated, parse_file
from doseledger.dicom.files.warned import lenient
from doseledger.dicom.values import MALFORMED

PIXEL_GROUP, PIXEL_TAG, UNDEFINED_LENGTH = 0x7FE0, b"\xe0\x7f\x10\x00", 0xFFFFFFFF
# So far into a file its transfer syntax stands at most.
FIRST_BYTES = 1 << 12
# What reading a file may raise.
UNREADABLE = (BadInput, *MALFORMED)
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
        return io.BytesIO(self.read()) if self.member else _Bounded(self.path)

    def read(self) -> bytes:
        """Return the file's content.

        Raises
        ------
        BadInput
            If it is too large for a patient's.
        """
        if self.member:
            check_size(_zip(self.path).getinfo(self.member).file_size, self.path)
            return _zip(self.path).read(self.member)
        check_size(self.path.stat().st_size, self.path)
        return self.path.read_bytes()


class _Bounded(io.BufferedReader):
    """A file of which no more is asked for than it has: memory for a damaged length of 4 GB would be taken first."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _zip(path: Path) -> zipfile.ZipFile:
    """The zip that is read now: its list is long, and its members are read one after the other."""
    now = path.stat()
    return _opened(path, (now.st_ino, now.st_mtime_ns, now.st_size))


@lru_cache(maxsize=1)
def _opened(path: Path, state: tuple[int, int, int]) -> zipfile.ZipFile:
    # Another file under the same name is opened anew.
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


def unfollowed(folder: Path) -> list[str]:
    """Return what `walk_dump` does not look into, sorted: links to folders or to nothing, and what is no file."""
    found = []
    for parent, folders, names in os.walk(folder):
        paths = [Path(parent, name) for name in (*folders, *names)]
        odd = [path for path in paths if not path.is_file() and (path.is_symlink() or not path.is_dir())]
        found += [path.relative_to(folder).as_posix() for path in odd]
    return sorted(found)


def _members(file: DumpFile) -> list[DumpFile] | None:
    try:
        archive = _zip(file.path)
        check_zip(archive, file.path.name)
        infos = [info for info in archive.infolist() if not info.is_dir()]
    except UNREADABLE:
        return None
    listed = sorted({info.filename for info in infos})
    kept = [name for name in listed if not _is_left_behind(name)]
    return [DumpFile(f"{file.name}/{name}", file.path, name) for name in kept]


def _is_left_behind(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in IGNORED_NAMES or path.name.startswith("._") or "__MACOSX" in path.parts


def is_dicom(file: DumpFile) -> bool:
    """Return whether a file begins as DICOM does, with a preamble or without."""
    try:
        with file.open() as stream:
            head = stream.read(META_START)
    except UNREADABLE:
        return False
    return head[PREAMBLE_BYTES:] == b"DICM" or head[:2] in FIRST_GROUPS


def read_header(file: DumpFile) -> tuple[pydicom.Dataset | None, bool]:
    """Return what stands before a file's pixels, and whether these are cut short; None where it is no DICOM.

    Of an RT object it is only what stands before its own groups.

    Notes
    -----
    The header of an image is whole: whatever could identify a patient is in it, but for what lies in the pixels.
    """
    try:
        with file.open() as stream, lenient():
            head = stream.read(META_START)
            has_preamble = head[PREAMBLE_BYTES:] == b"DICM"
            if not has_preamble and head[:2] not in FIRST_GROUPS:
                return None, False
            stream.seek(0)
            if DEFLATED in stream.read(FIRST_BYTES):
                check_deflated(file.read())
            stream.seek(0)
            dataset = read_partial(stream, stop_when=_is_bulk, force=not has_preamble)
            if "SOPClassUID" not in dataset:
                return None, False
            # A header goes to other processes, and a closed stream can't be pickled.
            dataset.buffer = None
            return dataset, _lacks_pixels(stream)
    except UNREADABLE:
        return None, False


def read_whole(file: DumpFile) -> pydicom.Dataset | None:
    """Return a data set; None where the file is no DICOM, or is cut short."""
    try:
        dataset, fault = parse_file(file.read())
    except UNREADABLE:
        return None
    return None if fault else dataset


def _is_bulk(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group >= PIXEL_GROUP or tag.group in RT_GROUPS


def _lacks_pixels(stream: BinaryIO) -> bool:
    """Whether fewer bytes follow than the element of the pixels says, at which the stream stands."""
    head = stream.read(12)
    if head[:4] != PIXEL_TAG:
        return False
    is_explicit = head[4:6] in (b"OW", b"OB")
    length = int.from_bytes(head[8:12] if is_explicit else head[4:8], "little")
    start = stream.tell() - (0 if is_explicit else 4)
    return length != UNDEFINED_LENGTH and stream.seek(0, io.SEEK_END) < start + length
