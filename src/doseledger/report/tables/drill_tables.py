"""The detection limits of a drill as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doseledger.core.text.sheet import MISSING, Cell, Table, make_table, plural

Result = Mapping[str, Any]
NOTHING: Result = {"cases": [], "n_others": 0, "seed": 0, "faults": []}


def drill_that_holds(drill: Result | None, verdict: Result) -> tuple[Result, str]:
    """Return a drill's result and what to say of it; an empty one if it is not of this verdict.

    The verdict is the data gate's: its digest is of data, limits and code.
    """
    if drill is None:
        by = "`doseledger drill` does."
        return NOTHING, f"Nobody has measured from which size on the gates see a fault here; {by}"
    if drill.get("digest") != verdict.get("digest"):
        other = "The detection limits were measured on other data, limits or code"
        return NOTHING, f"{other}; run `doseledger drill` again."
    faults, cases = drill["faults"], plural(len(drill["cases"]), "case")
    unseen = sum(bool(fault["tried"]) and fault["seen_in_half"] is None for fault in faults)
    return drill, (
        f"Faults of rising size were put into copies of {cases}, one at a time. Of {len(faults)} "
        f"kinds {unseen} are not seen in half of them at any size tried."
    )


def drill_table(drill: Result) -> Table:
    """Return from which size on each fault is seen, and by which checks."""
    rows = [
        (
            fault["title"],
            fault["when"],
            _span(fault),
            _limit(fault, "half"),
            _limit(fault, "all"),
            _gates(fault),
        )
        for fault in drill["faults"]
    ]
    checks = "Checks that failed, with their least size"
    columns = ("Fault", "Put in", "Tried", "#Half from", "#All from", checks)
    note = (
        f"In copies of {plural(len(drill['cases']), 'case')} ({', '.join(drill['cases'])}) held "
        f"against {drill['n_others']} others, seed {drill['seed']}. With a fault put in before "
        "ingest the DVH is noted that ingest would have noted. A way along an axis takes another "
        "one in each case. Seen: a gate fails (checks named drift_… are the drift gate's, were the "
        "case new; the others the data gate's). A size counts where all larger ones are seen too."
    )
    return make_table("Detection limits of the gates", columns, rows, note=note)


def _spell(size: float, fault: Mapping[str, Any]) -> str:
    """A size with its unit: `1 slice`, `0.25 voxels`."""
    unit = str(fault["unit"])
    return f"{size:g} {unit.removesuffix('s') if size == 1 else unit}" if unit else "seen"


def _span(fault: Result) -> str:
    if not fault["unit"]:
        return MISSING
    return f"{fault['sizes'][0]:g} to {_spell(fault['sizes'][-1], fault)}"


def _limit(fault: Result, share: str) -> Cell:
    size, told = fault[f"seen_in_{share}"], fault.get(f"warned_in_{share}")
    if not fault["tried"]:
        return Cell("no case has it", "muted")
    text = _spell(fault["sizes"][-1] if size is None else size, fault)
    if size is None:
        text = f"not up to {text}" if fault["unit"] else "not seen"
    if told is not None and (size is None or told < size):
        text += f" (warning from {_spell(told, fault)})" if fault["unit"] else " (a warning)"
    return Cell(text, "warn" if size is None else "good")


def _gates(fault: Result) -> str:
    gates = sorted(fault["gates"].items(), key=lambda item: (item[1], item[0]))
    named = [f"{gate} ({size:g})" if fault["unit"] else gate for gate, size in gates]
    return ", ".join(named) or MISSING
