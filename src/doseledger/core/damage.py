"""Exceptions of damaged files, and bounds on unpacking."""

from __future__ import annotations

import csv
import lzma
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from doseledger.core.errors import BadInput, DoseledgerError, cut

# The one list, for every reader: cut short, bytes flipped, headers that lie, nested too deep, locked, another encoding.
# RuntimeError covers RecursionError and NotImplementedError, ValueError those of JSON, Unicode and pandas, LookupError
# unknown encodings, ArithmeticError overflows. MemoryError is not among them: sizes are compared before memory is asked
# for. Only what reads or parses belongs inside: of anything else the same errors tell a fault of our own.
DAMAGED: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError, pickle.UnpicklingError),
    csv.Error,
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError),
)
# The same, and what readers of ours refuse of it.
UNREADABLE: tuple[type[Exception], ...] = (BadInput, *DAMAGED)
# Images deflate to a third or so, masks alone to a hundredth: a whole archive that grows by more, and is large, was
# made to fill the memory (deflate reaches 1032).
MOST_GROWTH = 100
ALWAYS_ALLOWED_BYTES = 1 << 28
# PKWARE's APPNOTE 4.3: a member is a header of 30 bytes, name, extra field, content, and a descriptor of at most 24.
HEADER_BYTES, LENGTHS_AT, MOST_DESCRIPTOR_BYTES = 30, 26, 24
# So much of an error's text, or of a wrong value, is shown.
MOST_SHOWN = 200


def describe(error: BaseException) -> str:
    """Return what an error says, on one line and cut to a sensible length."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, KeyError):
        return f"no {error}"
    return shorten(" ".join(str(error).split()) or type(error).__name__)


def shorten(text: str) -> str:
    """Return a text as a message shows it, at most `MOST_SHOWN` letters."""
    return cut(text, MOST_SHOWN)


@contextmanager
def refuse_damage(refusal: Callable[[str], DoseledgerError]) -> Iterator[None]:
    """Raise what `refusal` makes of the reason, in place of anything that a damaged file raises.

    Parameters
    ----------
    refusal
        Takes what is wrong with the file, as a clause, and returns the error that names it.
    """
    try:
        yield
    except DAMAGED as error:
        raise refusal(describe(error)) from error


def refuse_bomb(unpacked_bytes: int, packed_bytes: int, where: str) -> None:
    """Refuse an archive that says it unpacks to far more than anything of ours does, before it is unpacked.

    Raises
    ------
    BadInput
        Naming the archive and both sizes.
    """
    if unpacked_bytes > max(ALWAYS_ALLOWED_BYTES, MOST_GROWTH * packed_bytes):
        raise BadInput(
            f"{where}: {packed_bytes} bytes would unpack to {unpacked_bytes}, more than {MOST_GROWTH} times as many; "
            "it looks made to fill the memory, pack it again"
        )


def check_zip(archive: zipfile.ZipFile, where: str) -> None:
    """Refuse a zip that says it unpacks to far more than it holds, or holds what its list of members does not name.

    Raises
    ------
    BadInput
        Naming the zip.

    Notes
    -----
    One wrong byte of the list can take members out of it, and nothing else of a zip says that they were there.
    """
    members = sorted(archive.infolist(), key=lambda info: info.header_offset)
    refuse_bomb(sum(info.file_size for info in members), Path(str(archive.filename)).stat().st_size, where)
    starts = [*(info.header_offset for info in members), archive.start_dir]
    for info, following in zip(members, starts[1:], strict=True):
        unnamed = following - _end_of(archive, info)
        if unnamed > MOST_DESCRIPTOR_BYTES:
            raise BadInput(
                f"{where}: its list of members leaves out {unnamed} bytes that it holds, a member may be lost; copy or "
                "pack it again"
            )


def _end_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    stream = archive.fp
    if stream is None:
        raise ValueError("the zip is closed")
    stream.seek(info.header_offset + LENGTHS_AT)
    return info.header_offset + HEADER_BYTES + sum(struct.unpack("<HH", stream.read(4))) + info.compress_size
