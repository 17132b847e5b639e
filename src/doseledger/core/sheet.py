"""The pieces that a report is laid out of: tables, key numbers, alarms, pictures; and how a number is printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["", "good", "bad", "warn", "muted", "hash"]
MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """A table's cell; its state colours it, and its text says the same in words. `link` is where its text leads to."""

    text: str
    state: State = ""
    link: str = ""


@dataclass(frozen=True)
class Column:
    """A table's column: its heading, with the unit, and what stands in it."""

    label: str
    kind: Literal["", "number", "hash"] = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption; `note` explains it, `empty` is said in place of a table without rows."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    empty: str = ""

    @property
    def is_list(self) -> bool:
        """Whether it is a list of names and values, which needs no more width than they have."""
        return len(self.columns) == 2 and not self.columns[0].label


def make_table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, note: str = "", empty: str = ""
) -> Table:
    """Return a table; a heading that begins with `#` is one of numbers, with `@` one of hashes.

    Parameters
    ----------
    rows
        Cells, or plain values that become text.
    """
    kinds: dict[str, Literal["number", "hash"]] = {"#": "number", "@": "hash"}
    heads = tuple(Column(name.lstrip("#@"), kinds.get(name[:1], "")) for name in columns)
    cells = tuple(tuple(value if isinstance(value, Cell) else Cell(str(value)) for value in row) for row in rows)
    return Table(caption, heads, cells, note, empty)


def format_number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Return a number with a fixed number of decimals and a true minus sign; a dash where there is none.

    Examples
    --------
    >>> format_number(-0.5, 2), format_number(2, 1, sign=True), format_number(None, 1)
    ('−0.50', '+2.0', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    # A rounded zero has no sign.
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 case`, `3 cases`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
