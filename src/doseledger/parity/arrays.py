"""Any NPZ, read as data and never as code: what arrays it holds, and their values in blocks of bounded memory.

A pickle inside an NPZ runs whatever its maker wished as it is read. An array of objects is one, so it is refused by its
header, before a byte of its content is looked at.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.core.npz import SUFFIX, ArrayHead, array_heads, damage_as_bad_input, read_head

__all__ = ["ArrayHead", "array_heads", "iterate_blocks", "read_member"]

# How much of an array is held at once while it is checked.
BLOCK_BYTES = 1 << 24


def iterate_blocks(path: Path, name: str, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, NDArray[Any]]]:
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
    with damage_as_bad_input(path, name), zipfile.ZipFile(path) as archive:
        if f"{name}{SUFFIX}" not in archive.namelist():
            raise BadInput(f"{path}: no array {name}")
        with archive.open(f"{name}{SUFFIX}") as stream:
            head = read_head(stream, name, path)
            if not head.shape or (head.fortran and len(head.shape) > 1):
                order: Literal["F", "C"] = "F" if head.fortran else "C"
                yield 0, _from_bytes(stream, head, head.n_bytes).reshape(head.shape, order=order)
                return
            row_bytes = math.prod(head.shape[1:]) * head.dtype.itemsize
            rows = max(1, block_bytes // row_bytes) if row_bytes else max(1, head.shape[0])
            for start in range(0, head.shape[0], rows):
                n = min(rows, head.shape[0] - start)
                yield start, _from_bytes(stream, head, n * row_bytes).reshape(n, *head.shape[1:])


def _from_bytes(stream: IO[bytes], head: ArrayHead, wanted: int) -> NDArray[Any]:
    content = stream.read(wanted)
    if len(content) != wanted:
        raise EOFError(f"{wanted - len(content)} bytes are missing")
    return np.frombuffer(content, dtype=head.dtype)


def read_member(path: Path, name: str) -> NDArray[Any]:
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
