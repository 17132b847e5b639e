"""Runs as tables: text, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from doseledger.core.errors import BadInput
from doseledger.core.files import to_json
from doseledger.core.text.lists import first_of
from doseledger.core.text.sheet import MISSING, Cell, State, Table, as_markdown, as_text, format_number, make_table
from doseledger.core.text.words import short_metric, spell_metric
from doseledger.ledger.runs.files import GATES
from doseledger.ledger.runs.listing.query import parse_condition, unknown_column
from doseledger.ledger.runs.listing.rows import SHORT_NAMES, RunRow

Format = Literal["table", "csv", "json", "markdown"]
# Shown where nobody asks for others: the error that cases are ranked by, and the clinic's gamma.
HEADLINE = ("mae_above_10_percent_gy", "gamma_3_3_global_percent")
# Ends of the names of what belongs to another metric: its interval and its worst case.
PARTS_OF_A_METRIC = ("_low", "_high", "_worst")
SHOWN_SETTINGS = 6
STATUS_STATE: dict[str, State] = {"complete": "good", "failed": "bad", "running": "warn", "interrupted": "warn"}


def select_runs(
    rows: Sequence[RunRow], *, where: str = "", words: Sequence[str] = (), sort: str = "", descending: bool = False
) -> list[RunRow]:
    """Return the runs for which a condition holds and in which every word occurs, sorted.

    Parameters
    ----------
    where
        A condition (`query.parse_condition`); empty for all.
    words
        Texts that must all occur somewhere in a run: its id, place, note, or a setting as `lr=0.001`.
    sort
        Column to sort by; runs without a value in it come last. Empty keeps the newest first.
    descending
        The largest first.

    Raises
    ------
    BadInput
        If condition or column is not known.
    """
    columns = known_columns(rows)
    found = list(rows)
    if where:
        holds = parse_condition(where, columns)
        found = [row for row in found if holds(row.columns())]
    found = [row for row in found if all(_occurs(word, row) for word in words)]
    if not sort:
        return found
    if sort not in columns:
        raise BadInput(unknown_column(sort, columns))
    have = [row for row in found if row.columns().get(sort) is not None]
    try:
        have.sort(key=lambda row: row.columns()[sort], reverse=descending)
    except TypeError as error:
        raise BadInput(f"runs can't be sorted by {sort}: its values are of different kinds ({error})") from error
    return have + [row for row in found if row.columns().get(sort) is None]


def known_columns(rows: Sequence[RunRow]) -> set[str]:
    """Return the names that conditions may use: those of any run, and those that every run has."""
    always = {"id", "date", "cohort", "model", "status", "where", "commit", "dirty", "note", "standing", *SHORT_NAMES}
    return always | {f"{gate}_ok" for gate in GATES} | {name for row in rows for name in row.columns()}


def _occurs(word: str, row: RunRow) -> bool:
    texts = [row.id, row.date, row.cohort, row.model, row.status, row.commit, row.note, *row.where]
    texts += [f"{name}={value}" for name, value in row.settings.items()]
    if row.dirty:
        texts.append("dirty")
    return any(word.casefold() in text.casefold() for text in texts)


def find_run(rows: Sequence[RunRow], name: str) -> RunRow:
    """Return the run that a person means: by the beginning of its id, a tag, branch, experiment, commit or archive.

    Raises
    ------
    BadInput
        If none or several are meant.
    """
    places = {f"{kind}{name}" for kind in ("", "experiment ", "archive ", "commit ")}
    found = [row for row in rows if places & set(row.where)]
    if not found and len(name) >= 4:
        starts = (f"commit {name}",)
        found = [row for row in rows if row.id.startswith(name) or any(p.startswith(starts) for p in row.where)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadInput(f"no run is called {name!r}; `doseledger runs list` shows ids and places")
    raise BadInput(
        f"{name!r} may be any of {', '.join(f'{row.id} ({row.model})' for row in found)}; name one by its id"
    )


def differing_settings(rows: Sequence[RunRow], *, absent_differs: bool = False) -> list[str]:
    """Return the names of the settings that are not the same in all runs.

    Parameters
    ----------
    absent_differs
        Whether a setting that one run has and another has not counts: between two runs that DVC recorded it tells of
        other code, among many it only tells that one still waits in the queue, with less recorded.
    """
    having = [row.settings for row in rows if row.settings]
    found = []
    for name in sorted({name for settings in having for name in settings}):
        values = [settings[name] for settings in having if name in settings]
        is_absent = absent_differs and len(values) < len(having)
        if is_absent or any(value != values[0] for value in values):
            found.append(name)
    return found


def runs_table(rows: Sequence[RunRow], metrics: Sequence[str] = HEADLINE, *, caption: str = "Runs") -> Table:
    """Return one row a run: when, what, how it ended, how good, and what sets it apart.

    The cohort stands there only where the runs are of more than one.
    """
    metrics = [SHORT_NAMES.get(name, name) for name in metrics]
    by_model: dict[str, list[RunRow]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    # Another model has other settings by nature: what tells runs apart is told among those of one.
    apart = {model: differing_settings(its) for model, its in by_model.items()}
    best = {name: _best(rows, name) for name in metrics}
    mixed = len({row.cohort for row in rows}) > 1
    lines = [
        (
            row.id,
            row.date[:16].replace("T", " "),
            *([row.cohort or MISSING] if mixed else []),
            row.model,
            _state(row),
            *(_metric(row, name, best[name]) for name in metrics),
            _apart(row, apart[row.model]),
            ", ".join(row.where),
            row.note,
        )
        for row in rows
    ]
    cohort = ["Cohort"] if mixed else []
    heads = ("@Run", "Date", *cohort, "Model", "State", *(f"#{short_metric(name)}" for name in metrics))
    note = "; ".join(f"{short}: {spell_metric(name)}" for name in metrics if (short := short_metric(name)) != name)
    return make_table(
        caption, (*heads, "Settings that differ", "Where", "Note"), lines, note=note, empty="No run was found."
    )


def _state(row: RunRow) -> Cell:
    """How a run ended and, where it has ended, what its gates said; code that no commit describes is red."""
    gates, parts = _gates(row), [str(row.status)]
    state = STATUS_STATE.get(row.status, "muted")
    if row.status == "complete" or gates.state == "bad":
        parts, state = [gates.text], gates.state
    elif row.status == "incomplete" and gates.text != "passed":
        parts.append(gates.text)
    if row.dirty or (row.dirty is None and row.metrics):
        parts.append("DIRTY" if row.dirty else "tree unknown")
    return Cell(", ".join(parts), "bad" if row.dirty else state)


def _gates(row: RunRow) -> Cell:
    failed = [gate for gate, verdict in row.verdicts.items() if verdict is False]
    unjudged = [gate for gate in dict.fromkeys((*GATES, *row.verdicts)) if row.verdicts.get(gate) is None]
    if failed:
        return Cell(f"{', '.join(failed)} FAILED", "bad")
    if unjudged:
        return Cell(f"{', '.join(unjudged)} not judged", "muted")
    if row.standing == "provisional":
        return Cell("provisional", "warn")
    return Cell("passed", "good")


def _tree(row: RunRow) -> Cell:
    if row.dirty is None:
        return Cell("unknown", "muted")
    return Cell("DIRTY", "bad") if row.dirty else Cell("clean")


def _metric(row: RunRow, name: str, best: float | None) -> Cell:
    value = row.metrics.get(name)
    if not isinstance(value, (int, float)):
        return Cell(MISSING, "muted")
    is_best = best is not None and value == best and row.status == "complete" and not row.dirty
    return Cell(format_number(float(value), 3), "good" if is_best else "")


def larger_is_better(metric: str) -> bool:
    """Return whether more of a metric is better: pass rates and shares, not errors."""
    return metric.startswith(("gamma_", "prediction_", "dice")) and not metric.endswith("_difference")


def _best(rows: Sequence[RunRow], name: str) -> float | None:
    """The best value among sound runs of one cohort; None where there is nothing to compare."""
    sound = [row for row in rows if row.status == "complete" and not row.dirty]
    values = [float(v) for row in sound if isinstance(v := row.metrics.get(name), (int, float)) and math.isfinite(v)]
    if len(values) < 2 or len({row.cohort for row in rows if row.metrics}) > 1:
        return None
    return max(values) if larger_is_better(name) else min(values)


def _apart(row: RunRow, names: Sequence[str]) -> str:
    mine = [f"{name}={row.settings[name]}" for name in names if name in row.settings]
    return first_of(mine, SHOWN_SETTINGS, " ") or MISSING


def comparison_table(rows: Sequence[RunRow], *, every_metric: bool = False) -> Table:
    """Return runs side by side: what they are, each setting that differs, metrics with the step from the first."""
    lines: list[tuple[Any, ...]] = [
        ("date", *(row.date[:16].replace("T", " ") for row in rows)),
        ("model", *(row.model for row in rows)),
        ("cohort", *(row.cohort for row in rows)),
        ("status", *(Cell(row.status, STATUS_STATE.get(row.status, "muted")) for row in rows)),
        ("gates", *(_gates(row) for row in rows)),
        ("tree", *(_tree(row) for row in rows)),
        ("code", *(row.commit[:10] or MISSING for row in rows)),
        ("where", *(", ".join(row.where) for row in rows)),
    ]
    for name in differing_settings(rows, absent_differs=True):
        lines.append((name, *(str(row.settings.get(name, MISSING)) for row in rows)))
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    for name in names:
        if every_metric or not name.endswith(PARTS_OF_A_METRIC):
            lines.append((spell_metric(name), *_steps(rows, name)))
    note = "Settings are those that differ; behind each number stands the step from the first run."
    return make_table("Runs side by side", ("", *(row.id for row in rows)), lines, note=note)


def _steps(rows: Sequence[RunRow], name: str) -> list[Cell]:
    first = rows[0].metrics.get(name)
    cells = []
    for row in rows:
        value = row.metrics.get(name)
        if not isinstance(value, (int, float)):
            cells.append(Cell(str(value) if value is not None else MISSING, "" if value is not None else "muted"))
        elif row is rows[0] or not isinstance(first, (int, float)):
            cells.append(Cell(_number(value)))
        else:
            step = float(value) - float(first)
            better = step > 0 if larger_is_better(name) else step < 0
            # What is shown as no step is neither better nor worse.
            is_judged = round(step, _digits(value)) != 0 and name.startswith(
                ("mae_", "gamma_", "dvh_", "openkbp_", "prediction_")
            )
            state: State = ("good" if better else "bad") if is_judged else ""
            cells.append(Cell(f"{_number(value)} ({format_number(step, _digits(value), sign=True)})", state))
    return cells


def _digits(value: float) -> int:
    return 0 if isinstance(value, int) else 3


def _number(value: float) -> str:
    return format_number(float(value), _digits(value))


def format_runs(rows: Sequence[RunRow], table: Table, form: Format, *, colour: bool, width: int | None = None) -> str:
    """Return runs as text: a table for people, CSV or JSON with every column, or a Markdown table.

    Parameters
    ----------
    table
        The runs as `runs_table` or `comparison_table` lays them out; CSV and JSON hold everything of `rows`.
    colour
        Whether states are coloured, for a terminal.
    width
        Letters of a line of the terminal, as `as_text` takes them.
    """
    if form == "json":
        return to_json([{**row.columns(), "where": list(row.where)} for row in rows])
    if form == "csv":
        return _as_csv([row.columns() for row in rows])
    return as_markdown(table) if form == "markdown" else as_text(table, colour=colour, width=width)


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    first = ("id", "date", "cohort", "model", "status", "where", "commit", "dirty", *(f"{gate}_ok" for gate in GATES))
    names = [*first, *sorted({name for row in rows for name in row} - set(first))]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return buffer.getvalue()
