"""The outcome of an ingest for people: case, state, reason, what to do."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap

from doseledger.core.errors import NotReady
from doseledger.core.tables import CASES, SKIPPED, STRUCTURES, read_table
from doseledger.core.text.sheet import Cell, State, Table, as_text, make_table, plural
from doseledger.ingest.found import describe_lost

STATES: dict[str, State] = {"failed": "bad", "skipped": "warn", "converted": "good"}
# More sound cases than these are one row: what needs a hand must be seen.
MOST_SOUND = 20
CLAUSE = re.compile(r"(; |\. (?=[A-Z]))")
# Columns of a terminal that a reason, and what to do, take before they go on below.
REASON_COLUMNS, ADVICE_COLUMNS = 72, 36
# What a clause begins with that tells what to do. Messages say so last.
IMPERATIVES = frozenset({
    "add", "check", "close", "compute", "copy", "delete", "draw", "export", "keep", "leave", "make", "mend", "move",
    "name", "pack", "reconstruct", "register", "remove", "rename", "resample", "run", "set", "split", "take", "use",
})  # fmt: skip


def outcome_rows(out: Path) -> list[dict[str, str]]:
    """Return case, state, reason and what to do, of each case of a folder that `ingest` wrote; trouble first.

    Raises
    ------
    BadInput
        If a table is absent or malformed.
    """
    rows = []
    for row in read_table(out / "skipped.csv", SKIPPED).sort_values(["status", "case_id"]).to_dict("records"):
        reason, advice = split_advice(str(row["reason"]))
        advice = "nothing, if that is so" if row["status"] == "skipped" else advice
        rows.append(_row(row["case_id"], row["status"], reason, advice))
    for row in read_table(out / "cases.csv", CASES).to_dict("records"):
        warned = f"{plural(int(row['n_warnings']), 'warning')} in its meta" if row["n_warnings"] else ""
        rows.append(_row(row["case_id"], "converted", warned, ""))
    return rows


def _row(case_id: object, state: object, reason: str, advice: str) -> dict[str, str]:
    return {"case": str(case_id), "state": str(state), "reason": reason, "what_to_do": advice}


def outcome_table(rows: list[dict[str, str]]) -> Table:
    """Return the rows as a table for a terminal: long texts go on below, many sound cases are one row."""
    sound = [row for row in rows if row["state"] == "converted"]
    if len(sound) > MOST_SOUND:
        rows = [row for row in rows if row["state"] != "converted"]
        rows.append(_row(f"{len(sound)} cases", "converted", "", ""))
    cells: list[tuple[str | Cell, ...]] = []
    for row in rows:
        state = Cell(row["state"], STATES[row["state"]])
        below = zip_longest(wrap(row["reason"], REASON_COLUMNS), wrap(row["what_to_do"], ADVICE_COLUMNS), fillvalue="")
        lines = list(below) or [("", "")]
        cells += [(row["case"], state, *lines[0]), *(("", "", *line) for line in lines[1:])]
    return make_table("Cases", ("Case", "State", "Reason", "What to do"), cells, empty="There are no cases.")


def split_advice(reason: str) -> tuple[str, str]:
    """Return a refusal's reason, and what it says to do.

    Examples
    --------
    >>> split_advice("RTDOSE has 1 plane, wanted at least 2; export the whole dose")
    ('RTDOSE has 1 plane, wanted at least 2', 'export the whole dose')
    """
    parts = ["", *CLAUSE.split(reason)]
    kept, told = "", []
    for link, clause in zip(parts[::2], parts[1::2], strict=True):
        if clause.split(" ", 1)[0].strip("`,").lower() in IMPERATIVES:
            told.append(clause.rstrip("."))
        else:
            kept += f"{link if kept else ''}{clause}"
    return kept.rstrip(".") or reason, "; ".join(told)


def describe_outcome(out: Path) -> str:
    """Return the table of cases, and a line for each structure that some of them lack."""
    lost = describe_lost(read_table(out / "structures.csv", STRUCTURES))
    return "\n".join([as_text(outcome_table(outcome_rows(out)), colour=False), *lost]).rstrip("\n")


def refuse_nothing(n_sound: int) -> None:
    """Do nothing if any case is there.

    Raises
    ------
    NotReady
        If there is none.
    """
    if not n_sound:
        raise NotReady("nothing was converted: not one case is sound. Mend what the table names, and run it again")
