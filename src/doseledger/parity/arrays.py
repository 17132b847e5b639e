"""Safe reading of any NPZ: heads without values, values in bounded blocks.

A pickle inside an NPZ runs whatever its maker wished as it is read. An array of objects is one, so it is refused by its
header, before a byte of its content is looked at.
"""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array

SUFFIX = ".npy"
# How much of an array is held at once while it is checked.
BLOCK_BYTES = 1 << 24
# What a damaged archive or member raises as it is read, whatever its compression.
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(ValueError, EOFError, OSError, RuntimeError, NotImplementedError),
)
# What a header that is no literal raises besides ValueError; the last two where it is nested too deep for the parser.
UNREADABLE_HEAD = (SyntaxError, TypeError, tokenize.TokenError, MemoryError, RecursionError)
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class ArrayHead:
    """What an array of an NPZ says of itself.

    Parameters
    ----------
    name
        Its key.
    dtype
        Type of its values.
    shape
        Size along each axis.
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
def _as_bad_input(path: Path, name: str = "") -> Iterator[None]:
    where = f"{path}: {name}" if name else str(path)
    try:
        yield
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except DAMAGED as error:
        raise BadInput(f"{where} can't be read ({error}); it may be damaged or cut short, copy or make it again") from (
            error
        )


def array_heads(path: Path) -> dict[str, ArrayHead]:
    """Return the heads of an NPZ's arrays by name, in the file's order, without reading their values.

    Raises
    ------
    BadInput
        If the file is no NPZ, holds a name twice or something that is no array, or an array of objects or records.
    """
    heads: dict[str, ArrayHead] = {}
    with _as_bad_input(path), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(SUFFIX)
            if not info.filename.endswith(SUFFIX) or not name:
                raise BadInput(f"{path}: {info.filename!r} is no array; an NPZ holds .npy members alone")
            if name in heads:
                raise BadInput(f"{path}: {name} is there twice; write the file again")
            with archive.open(info) as stream:
                head = _read_head(stream, name, path)
                if stream.tell() + head.n_bytes != info.file_size:
                    raise BadInput(
                        f"{path}: {name} says {head.dtype} {head.shape}, which is {head.n_bytes} bytes, but "
                        f"{info.file_size - stream.tell()} follow; write the file again"
                    )
            heads[name] = head
    return heads


def _read_head(stream: IO[bytes], name: str, path: Path) -> ArrayHead:
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


def iterate_blocks(path: Path, name: str, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, Array]]:
    """Yield an array in blocks of whole rows: the index of a block's first row, and the block.

    Parameters
    ----------
    path, name
        An NPZ, stored or deflated, and the key of the array.
    block_bytes
        About how much is held at once; a single row may be larger. An array in Fortran order is held whole.

    Raises
    ------
    BadInput
        If the array is absent or damaged (its checksum is tested), or holds objects.
    """
    with _as_bad_input(path, name), zipfile.ZipFile(path) as archive:
        if f"{name}{SUFFIX}" not in archive.namelist():
            raise BadInput(f"{path}: no array {name}")
        with archive.open(f"{name}{SUFFIX}") as stream:
            head = _read_head(stream, name, path)
            if not head.shape or (head.fortran and len(head.shape) > 1):
                order: Literal["F", "C"] = "F" if head.fortran else "C"
                yield 0, _from_bytes(stream, head, head.n_bytes).reshape(head.shape, order=order)
                return
            row_bytes = math.prod(head.shape[1:]) * head.dtype.itemsize
            rows = max(1, block_bytes // row_bytes) if row_bytes else max(1, head.shape[0])
            for start in range(0, head.shape[0], rows):
                n = min(rows, head.shape[0] - start)
                yield start, _from_bytes(stream, head, n * row_bytes).reshape(n, *head.shape[1:])


def _from_bytes(stream: IO[bytes], head: ArrayHead, wanted: int) -> Array:
    content = stream.read(wanted)
    if len(content) != wanted:
        raise EOFError(f"{wanted - len(content)} bytes are missing")
    return np.frombuffer(content, dtype=head.dtype)


def read_member(path: Path, name: str) -> Array:
    """Return one array of an NPZ whole.

    Raises
    ------
    BadInput
        If it is absent or damaged, or holds objects.
    """
    blocks = [block for _, block in iterate_blocks(path, name, block_bytes=np.iinfo(np.int64).max)]
    if not blocks:
        head = array_heads(path)[name]
        return np.empty(head.shape, head.dtype)
    return blocks[0]
