"""NPZ headers, checked against the bytes before any array is read."""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from doseledger.core.damage import check_zip, refuse_damage
from doseledger.core.errors import BadInput

SUFFIX = ".npy"
# What a header that is no literal raises besides ValueError; the last two where it is nested too deep for the parser.
UNREADABLE_HEAD = (SyntaxError, TypeError, tokenize.TokenError, MemoryError, RecursionError)
# As long as a file's name may be; it stands in messages.
MOST_NAME_CHARACTERS = 255
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class ArrayHead:
    """What an array of an NPZ says of itself.

    Parameters
    ----------
    fortran
        Whether the first axis varies fastest on disk.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    @property
    def n_bytes(self) -> int:
        """Size of its values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@contextmanager
def damage_as_bad_input(path: Path, name: str = "") -> Iterator[None]:
    """Refuse an NPZ, or one array of it, for whatever a damaged file raises.

    Raises
    ------
    BadInput
        Naming file and array.
    """
    where = f"{path}: {name}" if name else str(path)

    def refusal(reason: str) -> BadInput:
        if reason == "no such file":
            return BadInput(f"{path}: no such file")
        return BadInput(f"{where} can't be read ({reason}); it may be damaged or cut short, copy or make it again")

    with refuse_damage(refusal):
        yield


def array_heads(path: Path) -> dict[str, ArrayHead]:
    """Return the heads of an NPZ's arrays by name, in the file's order, without reading their values.

    Raises
    ------
    BadInput
        If the file is no NPZ, holds a name twice or something that is no array, an array of objects or records, a head
        that does not fit its bytes, or unpacks to far more than it holds.
    """
    with damage_as_bad_input(path):
        return _heads(path)


def _heads(path: Path) -> dict[str, ArrayHead]:
    heads: dict[str, ArrayHead] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(SUFFIX)
            if len(name) > MOST_NAME_CHARACTERS:
                raise BadInput(
                    f"{path}: an array's name has {len(name)} characters, wanted at most {MOST_NAME_CHARACTERS}; "
                    f"it begins with {name[:40]!r}; write the file again"
                )
            if not info.filename.endswith(SUFFIX) or not name:
                raise BadInput(f"{path}: {info.filename!r} is no array; an NPZ holds .npy members alone")
            if name in heads:
                raise BadInput(f"{path}: {name} is there twice; write the file again")
            with archive.open(info) as stream:
                head = read_head(stream, name, path)
                if stream.tell() + head.n_bytes != info.file_size:
                    raise BadInput(
                        f"{path}: {name} says {head.dtype} {head.shape}, which is {head.n_bytes} bytes, but "
                        f"{info.file_size - stream.tell()} follow; write the file again"
                    )
            heads[name] = head
        check_zip(archive, str(path))
    return heads


def read_head(stream: IO[bytes], name: str, path: Path) -> ArrayHead:
    """Return the head of one array; the stream then stands at its values.

    Raises
    ------
    BadInput
        If it can't be read, or the array is one of objects or records.
    """
    version = np.lib.format.read_magic(stream)
    if version not in READERS:
        raise BadInput(f"{path}: {name} has format {version} of NPY, wanted one of {', '.join(map(str, READERS))}")
    try:
        shape, fortran, dtype = READERS[version](stream)
    except UNREADABLE_HEAD as error:
        raise BadInput(f"{path}: {name} has a header that can't be read ({error!r}); write the file again") from error
    if dtype.hasobject:
        raise BadInput(
            f"{path}: {name} is an array of objects, which is a pickle: it could run code as it is read, and is never "
            "opened. Save it as numbers or text"
        )
    if dtype.names is not None or dtype.kind not in "biufcSU":
        raise BadInput(f"{path}: {name} holds {dtype}, wanted numbers or text; save each field as an array of its own")
    if min(shape, default=0) < 0:
        raise BadInput(f"{path}: {name} has the shape {shape}; write the file again")
    return ArrayHead(name, dtype, tuple(shape), bool(fortran))


@contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """Yield numpy's reader of an NPZ whose heads have all been checked, so that none asks for more than is there.

    Raises
    ------
    BadInput
        As `array_heads` for what the heads say; whatever else damage raises, here or within the block, is left to the
        caller, who knows whose file it is.
    """
    _heads(path)
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as npz:
        yield npz
