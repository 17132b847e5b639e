"""The detection limits of a drill as a table, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doseledger.core.sheet import MISSING, Cell, Table, make_table, plural

CAPTION = "Detection limits of the data gate"
# A result without faults: an empty table.
NOT_DRILLED: dict[str, Any] = {"cases": [], "n_others": 0, "seed": 0, "faults": []}


def drill_that_holds(drill: dict[str, Any] | None, verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a drill's result if it is of the data, limits and code of the data gate's verdict; else None."""
    return drill if drill is not None and drill.get("digest") == verdict.get("digest") else None


def drill_sentence(drill: dict[str, Any] | None, verdict: Mapping[str, Any]) -> str:
    """Return what a reader should know of a drill's result before its table."""
    if drill is None:
        return "Nobody has measured from which size on the data gate sees a fault here; `doseledger drill` does."
    if drill_that_holds(drill, verdict) is None:
        return "The detection limits were measured on other data, limits or code; run `doseledger drill` again."
    unseen = [fault for fault in drill["faults"] if fault["tried"] and fault["seen_in_half"] is None]
    return (
        f"Faults of rising size were put into copies of {plural(len(drill['cases']), 'case')}, one at a time. Of "
        f"{len(drill['faults'])} kinds {len(unseen)} are not seen in half of them at any size tried."
    )


def drill_table(drill: Mapping[str, Any]) -> Table:
    """Return from which size on each fault is seen, in half of the cases and in all, and by which checks."""
    rows = [
        (
            fault["title"],
            fault["when"],
            _span(fault),
            _half(fault),
            _from(fault, fault["seen_in_all"]),
            _gates(fault),
        )
        for fault in drill["faults"]
    ]
    columns = ("Fault", "Put in", "Tried", "#Half from", "#All from", "Checks that failed, each with its least size")
    return make_table(CAPTION, columns, rows, note=drill_note(drill))


def drill_note(drill: Mapping[str, Any]) -> str:
    """Return how the limits were measured, in words."""
    return (
        f"In copies of {plural(len(drill['cases']), 'case')} ({', '.join(drill['cases'])}) held against "
        f"{drill['n_others']} others, seed {drill['seed']}. A fault put in before ingest has the DVH noted that ingest "
        "would have noted. What goes along an axis takes another one in each case. Seen: the gate fails; a size counts "
        "where all larger ones are seen too."
    )


def drill_markdown(drill: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    table = drill_table(drill)
    lines = ["| " + " | ".join(column.label for column in table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(cell.text for cell in row) + " |" for row in table.rows]
    return "\n".join([*lines, "", table.note])


def spell_size(size: float, unit: str) -> str:
    """Return a size with its unit.

    Examples
    --------
    >>> spell_size(0.25, "voxels"), spell_size(2.0, "% of the body"), spell_size(1.0, "slices")
    ('0.25 voxels', '2 % of the body', '1 slice')
    """
    return f"{size:g} {unit.removesuffix('s') if size == 1 else unit}"


def _span(fault: Mapping[str, Any]) -> str:
    sizes, unit = fault["sizes"], fault["unit"]
    return f"{sizes[0]:g} to {spell_size(sizes[-1], unit)}" if unit else MISSING


def _from(fault: Mapping[str, Any], size: float | None) -> Cell:
    if not fault["tried"]:
        return Cell("no case has it", "muted")
    if size is None:
        return Cell(f"not up to {spell_size(fault['sizes'][-1], fault['unit'])}" if fault["unit"] else "not seen", "warn")
    return Cell(spell_size(size, fault["unit"]) if fault["unit"] else "seen", "good")


def _half(fault: Mapping[str, Any]) -> Cell:
    told = fault["warned_in_half"]
    cell = _from(fault, fault["seen_in_half"])
    if told is None or (fault["seen_in_half"] is not None and fault["seen_in_half"] <= told):
        return cell
    warning = f"warning from {spell_size(told, fault['unit'])}" if fault["unit"] else "a warning"
    return Cell(f"{cell.text} ({warning})", cell.state)


def _gates(fault: Mapping[str, Any]) -> str:
    gates = sorted(fault["gates"].items(), key=lambda item: (item[1], item[0]))
    named = [f"{gate} ({size:g})" if fault["unit"] else gate for gate, size in gates]
    return ", ".join(named) or MISSING
