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
