"""The pieces of a page besides tables: key numbers, alarms, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Card:
    """One key number with its unit, and over which cases and voxels it is taken."""

    name: str
    value: str
    unit: str
    note: str


@dataclass(frozen=True)
class Alarm:
    """Something that a reader must see first."""

    state: Literal["good", "bad", "warn"]
    title: str
    text: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A figure in the page: data URI, caption, and the text for who can't see it."""

    uri: str
    caption: str
    alt: str
