"""A plain tar in one or several parts: writer, reader, safe names.

A plain tar, not compressed. Its bytes depend on the content alone and on no version of a compressor; a member lies in
one piece and can be read where it is; parts joined are the archive, so `cat NAME.tar.* | tar x` needs nothing of ours;
and what is not compressed can't swell as it is unpacked.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import re
import shutil
import tarfile
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import psutil

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import CHUNK_BYTES
from doseledger.ledger.bundle.manifest import Part

# A damaged archive is narrowed down to blocks of this size.
BLOCK_BYTES = 4 << 20
MOST_PARTS = 999
# What Windows gives to devices, and characters that one of the usual file systems does not take.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def find_parts(archive: Path) -> list[Path]:
    """Return the files beside an archive that are called as its parts are, in order."""
    return sorted(archive.parent.glob(f"{glob.escape(archive.name)}.[0-9][0-9][0-9]"))


class PartWriter(io.RawIOBase):
    """A stream that is cut into files of at most `part_bytes`; their digests and those of all blocks are kept.

    Parameters
    ----------
    name
        The archive's name; parts are called NAME.001, NAME.002, …
    part_bytes
        Size of a part; None for a single file that is called NAME.
    """

    def __init__(self, folder: Path, name: str, part_bytes: int | None) -> None:
        super().__init__()
        self._folder, self._name, self._limit = folder, name, part_bytes
        self._file: IO[bytes] | None = None
        self._digest, self._block = hashlib.sha256(), hashlib.sha256()
        self._in_part = self._in_block = self._total = 0
        self.parts: list[Part] = []
        self.blocks: list[str] = []

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._total

    def write(self, data: Any, /) -> int:
        """Write bytes, in as many parts as it takes."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            if self._file is None:
                self._file = (self._folder / self._part_name()).open("xb")
            room = BLOCK_BYTES - self._in_block
            if self._limit is not None:
                room = min(room, self._limit - self._in_part)
            piece = view[done : done + room]
            self._file.write(piece)
            self._digest.update(piece)
            self._block.update(piece)
            done += len(piece)
            self._in_part += len(piece)
            self._in_block += len(piece)
            if self._in_block == BLOCK_BYTES:
                self._end_block()
            if self._in_part == self._limit:
                self._end_part()
        self._total += done
        return done

    def _part_name(self) -> str:
        if self._limit is None:
            return self._name
        if len(self.parts) == MOST_PARTS:
            raise BadInput(f"{self._name}: more than {MOST_PARTS} parts; give a larger --part-size-mb")
        return f"{self._name}.{len(self.parts) + 1:03d}"

    def _end_block(self) -> None:
        self.blocks.append(self._block.hexdigest())
        self._block, self._in_block = hashlib.sha256(), 0

    def _end_part(self) -> None:
        if self._file is not None:
            name = Path(self._file.name).name
            self._file.close()
            self.parts.append(Part(name=name, size=self._in_part, sha256=self._digest.hexdigest()))
            self._file, self._digest, self._in_part = None, hashlib.sha256(), 0

    def close(self) -> None:
        """End the last block and the last part."""
        if not self.closed:
            if self._in_block:
                self._end_block()
            self._end_part()
        super().close()


class PartReader(io.RawIOBase):
    """The parts of an archive as one stream that can be searched."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self._files = [path.open("rb") for path in paths]
        self._starts = [0]
        for path in paths:
            self._starts.append(self._starts[-1] + path.stat().st_size)
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position of the whole archive."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Read what one part still has, at most the size of the buffer."""
        view = memoryview(buffer).cast("B")
        if self._at >= self._starts[-1]:
            return 0
        index = bisect_right(self._starts, self._at) - 1
        self._files[index].seek(self._at - self._starts[index])
        wanted = min(len(view), self._starts[index + 1] - self._at)
        got = self._files[index].readinto(view[:wanted])
        self._at += got
        return int(got)

    def close(self) -> None:
        """Close every part."""
        for file in self._files:
            file.close()
        super().close()


def require_space(folder: Path, n_bytes: int) -> None:
    """Do nothing if a folder's disk has room for so much.

    Raises
    ------
    NotReady
        Saying how much there is.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise NotReady(
            f"{folder}: {n_bytes / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB free; make room or go elsewhere"
        )


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside a file or folder that is to be made; it is gone afterwards.

    Whatever a process that was killed has left there is taken away first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        owner = left.name.removesuffix(".part").rpartition(".")[2]
        # In a container a process often has the number of the one that was killed before it.
        if owner.isdigit() and (int(owner) == os.getpid() or not psutil.pid_exists(int(owner))):
            shutil.rmtree(left)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def member_head(name: str, size: int) -> tarfile.TarInfo:
    """Return the head of a member: a plain file without owner or date, so that equal content gives equal bytes."""
    head = tarfile.TarInfo(name)
    head.size, head.mode = size, 0o644
    return head


@contextmanager
def open_reader(paths: list[Path], where: str) -> Iterator[tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]]:
    """Yield an archive and its members by name.

    Raises
    ------
    BadInput
        If it is no tar or is cut short, or a member is anything but a plain file with a name that `check_names` takes.
    """
    with PartReader(paths) as raw, io.BufferedReader(raw, CHUNK_BYTES) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                members = archive.getmembers()
                for member in members:
                    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                        kind = "a link" if member.issym() or member.islnk() else "no plain file"
                        raise BadInput(f"{where}: {member.name!r} is {kind}; it is refused, nothing was written")
                check_names([member.name for member in members], where)
                yield archive, {member.name: member for member in members}
        except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
            raise BadInput(f"{where}: can't be read as a tar ({error}); copy it again") from error


def opened(archive: tarfile.TarFile, head: tarfile.TarInfo) -> io.BufferedReader:
    """Return the content of a member as a stream.

    Raises
    ------
    BadInput
        If it is no plain file.
    """
    stream = archive.extractfile(head)
    if not isinstance(stream, io.BufferedReader):
        raise BadInput(f"{head.name}: no plain file")
    return stream


def check_names(names: Iterable[str], where: str) -> None:
    """Do nothing if every name is a path below some folder, on any machine, and no two of them meet there.

    Raises
    ------
    BadInput
        Naming the path: absolute, reaching out of its folder, not portable, there twice, or equal to another but for
        the case of its letters; or a file where another path has a folder.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        fault = _fault(name)
        if fault:
            raise BadInput(f"{where}: {name!r} {fault}; it is refused, nothing was written")
        folded = _folded(name)
        if folded in seen:
            other = seen[folded]
            kind = "is there twice" if other == name else f"and {other!r} are one file where case does not count"
            raise BadInput(f"{where}: {name!r} {kind}; rename one")
        seen[folded] = name
        for parent in PurePosixPath(name).parents:
            folders.setdefault(_folded(str(parent)), name)
    for folded, name in seen.items():
        if folded in folders:
            raise BadInput(
                f"{where}: {name!r} is a file, but {folders[folded]!r} needs a folder of that name; rename one"
            )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _fault(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in parts:
        return "reaches out of its folder"
    # A file name that is no UTF-8 comes from the system with lone surrogates in it, which do not print.
    if not name.isprintable():
        return "holds a character that is no text"
    if not name or "" in parts or "." in parts:
        return "is not a plain path (an empty or '.' part)"
    if UNFIT.search(name):
        return "holds a character that not every file system takes"
    if any(part[-1] in ". " or RESERVED.fullmatch(part) for part in parts):
        return "has a part that Windows does not take as a name"
    return ""
