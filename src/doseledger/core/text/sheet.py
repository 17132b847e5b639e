"""Tables of a report: cells, columns, numbers as text; Markdown and terminal."""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from doseledger.core.text.template import cell

State = Literal["", "good", "bad", "warn", "muted", "hash"]
MISSING = "–"
# Letters of a column of text that a narrow terminal leaves.
NARROWEST = 14
RED, GREEN, YELLOW, PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[0m"
# What is said in few letters stays whole where a line is folded.
ANSI, ITEM_END = re.compile(r"\033\[\d*m"), re.compile(r"(?<=[,;:]) ")
LONGEST_ITEM, NO_BREAK = 32, "\u00a0"
COLOURS: dict[State, str] = {"bad": RED, "good": GREEN, "warn": YELLOW}


@dataclass(frozen=True)
class Cell:
    """A table's cell; its state colours it, and its text says the same in words.

    `link` is where its text leads to, `swatch` the colour of the structure that it names.
    """

    text: str
    state: State = ""
    link: str = ""
    swatch: str = ""


@dataclass(frozen=True)
class Column:
    """A table's column: its heading, with the unit, and what stands in it."""

    label: str
    kind: Literal["", "number", "hash", "long"] = ""


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
    """Return a table; a heading that begins with `#` is one of numbers, with `@` of hashes, with `=` of long names.

    Parameters
    ----------
    rows
        Cells, or plain values that become text.
    """
    kinds: dict[str, Literal["number", "hash", "long"]] = {"#": "number", "@": "hash", "=": "long"}
    heads = tuple(Column(name.lstrip("#@="), kinds.get(name[:1], "")) for name in columns)
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


def as_markdown(table: Table) -> str:
    """Return a table as Markdown; what is bad is bold, as colour is lost."""
    if not table.rows:
        return f"{table.empty}\n"
    marks = ["---:" if column.kind == "number" else "---" for column in table.columns]
    lines = [[column.label for column in table.columns], marks]
    lines += [[f"**{cell(c.text)}**" if c.state == "bad" else cell(c.text) for c in row] for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_text(table: Table, *, colour: bool, width: int | None = None) -> str:
    """Return a table in columns of even width; a column that is empty everywhere is left out.

    Parameters
    ----------
    width
        Letters of a line of the terminal: what is wider breaks within its cells, or stands as a block a row. None
        breaks nothing.
    """
    if not table.rows:
        return f"{table.empty}\n"
    kept = [at for at in range(len(table.columns)) if any(row[at].text not in ("", MISSING) for row in table.rows)]
    heads = [table.columns[at].label for at in kept]
    widths = [
        max(_width(head), *(_width(row[at].text) for row in table.rows)) for at, head in zip(kept, heads, strict=True)
    ]
    kinds = [table.columns[at].kind for at in kept]
    rows = [[Cell(head) for head in heads], *([row[at] for at in kept] for row in table.rows)]
    if width is not None and not _narrow(widths, kinds, rows, width):
        return _as_blocks(heads, rows[1:], width, colour=colour)
    lines = []
    for number, row in enumerate(rows):
        pairs = zip(row, widths, strict=True)
        broken = [_broken(item.text, size) if width is not None else [item.text] for item, size in pairs]
        for step in range(max(map(len, broken))):
            parts = [part[step] if step < len(part) else "" for part in broken]
            cells = [
                coloured(_padded(part, size, kind if number else ""), cell.state, colour=colour)
                for part, size, kind, cell in zip(parts, widths, kinds, row, strict=True)
            ]
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def folded(text: str, width: int | None) -> str:
    """Return lines that a terminal's line holds: longer ones go on below, indented, and break between short items.

    Parameters
    ----------
    width
        Letters of a line; None folds nothing. Colour takes no room.

    Examples
    --------
    >>> print(folded("Rectum: volume 108.05 cc, mean 28.18 Gy, D2% 67.31 Gy", 40))
    Rectum: volume 108.05 cc, mean 28.18 Gy,
      D2% 67.31 Gy
    """
    return "\n".join(part for line in text.split("\n") for part in _folded(line, width))


def _folded(line: str, width: int | None) -> list[str]:
    if width is None or _width(ANSI.sub("", line)) <= width:
        return [line]
    items = (item.replace(" ", NO_BREAK) if len(item) <= LONGEST_ITEM else item for item in ITEM_END.split(line))
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    found = textwrap.wrap(
        " ".join(items), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [part.replace(NO_BREAK, " ") for part in found]


def _broken(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


def _narrow(widths: list[int], kinds: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> bool:
    """Take letters from the widest columns until a line holds them all; False where words would break."""
    least = []
    for at, (kind, size) in enumerate(zip(kinds, widths, strict=True)):
        floor = min(size, NARROWEST) if kind in ("", "long") else 0
        least.append(max(floor, *(_width(word) for row in rows for word in row[at].text.split())))
    while sum(widths) + 2 * (len(widths) - 1) > width:
        spare = [size - low for size, low in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            return False
        widths[max(range(len(widths)), key=lambda at: (spare[at] > 0, widths[at]))] -= 1
    return True


def _as_blocks(heads: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, *, colour: bool) -> str:
    """Each row as lines of heading and value, for a table that no line holds."""
    blocks = []
    for row in rows:
        lines = []
        for head, found in zip(heads, row, strict=True):
            if found.text not in ("", MISSING):
                said = textwrap.fill(f"{head}: {found.text}" if head else found.text, width, subsequent_indent="  ")
                lines.append(coloured(said, found.state, colour=colour))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _padded(text: str, width: int, kind: str) -> str:
    space = " " * (width - _width(text))
    return space + text if kind == "number" else text + space


def coloured(text: str, state: State, *, colour: bool) -> str:
    """Return a text in the colour of its state for a terminal, where colour is wanted; the text says the same."""
    return f"{COLOURS[state]}{text}{PLAIN}" if colour and state in COLOURS else text
