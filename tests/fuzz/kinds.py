"""Kinds of input: a sound one, damage to it, and all that reads it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Reader = Callable[[Path, Path], Any]


@dataclass(frozen=True)
class Spoilt:
    """Damage that was done.

    Parameters
    ----------
    words
        What was done to which file.
    named
        A refusal must hold one of these.
    readers
        Names of those who read the file; empty for all.
    shows
        Whether a reader can tell: another number in a field is another patient's file, and nobody's fault.
    """

    words: str
    named: tuple[str, ...]
    readers: tuple[str, ...] = ()
    shows: bool = False


@dataclass(frozen=True)
class Told:
    """What a reading gave: arrays, and what was said of them."""

    arrays: Mapping[str, Any] = field(default_factory=dict)
    said: bool = False

    def differs(self, other: Told) -> list[str]:
        """Names of arrays that are not the other's, bit for bit."""
        names = sorted({*self.arrays, *other.arrays})
        return [name for name in names if not _same(self.arrays.get(name), other.arrays.get(name))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
    return type(one) is type(other) and bool(one == other)


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Parameters
    ----------
    make
        Writes a sound one into a folder.
    spoil
        Damages a copy of it.
    readers
        By name: each takes the copy and a folder of its own to write to.
    """

    make: Callable[[Path], None]
    spoil: Callable[[random.Random, Path], Spoilt]
    readers: Mapping[str, Reader]


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> str:
    """Change a file's content in place; in words, how its size went."""
    before = path.read_bytes()
    after = change(before)
    path.write_bytes(after)
    return f"{path.name}: {len(before)} -> {len(after)} bytes"


def silent(line: str) -> None:
    """Tell nobody."""
