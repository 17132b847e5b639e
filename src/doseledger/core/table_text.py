"""A report's table as text: in columns for a terminal, or as Markdown."""

from __future__ import annotations

import unicodedata

from doseledger.core.sheet import MISSING, State, Table
from doseledger.core.template import cell

RED, GREEN, YELLOW, PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[0m"
COLOURS: dict[State, str] = {"bad": RED, "good": GREEN, "warn": YELLOW}


def as_markdown(table: Table) -> str:
    """Return a table as Markdown; what is bad is bold, as colour is lost."""
    if not table.rows:
        return f"{table.empty}\n"
    marks = ["---:" if column.kind == "number" else "---" for column in table.columns]
    lines = [[column.label for column in table.columns], marks]
    lines += [[f"**{cell(c.text)}**" if c.state == "bad" else cell(c.text) for c in row] for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_text(table: Table, *, colour: bool) -> str:
    """Return a table in columns of even width; a column that is empty everywhere is left out."""
    if not table.rows:
        return f"{table.empty}\n"
    kept = [at for at in range(len(table.columns)) if any(row[at].text not in ("", MISSING) for row in table.rows)]
    heads = [table.columns[at].label for at in kept]
    widths = [
        max(_width(head), *(_width(row[at].text) for row in table.rows)) for at, head in zip(kept, heads, strict=True)
    ]
    lines = ["  ".join(_padded(head, width, "") for head, width in zip(heads, widths, strict=True)).rstrip()]
    for row in table.rows:
        cells = [
            _coloured(_padded(row[at].text, width, table.columns[at].kind), row[at].state, colour=colour)
            for at, width in zip(kept, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _padded(text: str, width: int, kind: str) -> str:
    space = " " * (width - _width(text))
    return space + text if kind == "number" else text + space


def _coloured(text: str, state: State, *, colour: bool) -> str:
    return f"{COLOURS[state]}{text}{PLAIN}" if colour and state in COLOURS else text
