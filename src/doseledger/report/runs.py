"""The page of all runs, which nobody writes by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doseledger.core.files import write_text
from doseledger.core.project.layout import Layout
from doseledger.core.text.sheet import format_number, plural
from doseledger.core.text.words import spell_metric
from doseledger.ledger.runs.listing.rows import RunRow
from doseledger.ledger.runs.listing.tables import HEADLINE, larger_is_better, runs_table
from doseledger.report.blocks import Alarm, Card
from doseledger.report.page import render_page, running

TEMPLATE = "runs.html.j2"


def write_index(rows: Sequence[RunRow], page: Path, templates: Path, root: Path) -> None:
    """Write the page of all runs: one table for each cohort, and what a reader must see first.

    Raises
    ------
    BadInput
        If a template is missing.

    Notes
    -----
    It holds no clock: equal runs give equal bytes.
    """
    cohorts = sorted({row.cohort for row in rows})
    context: dict[str, Any] = {
        "count": plural(len(rows), "run"),
        "alarms": _alarms(rows),
        "cards": _cards(rows),
        "groups": [
            {
                "name": cohort or "cohort not recorded",
                "table": runs_table(
                    [row for row in rows if row.cohort == cohort], caption=f"Cohort {cohort or 'not recorded'}"
                ),
            }
            for cohort in cohorts
        ],
        "reports": _reports(rows, page, root),
        **running("Runs", ""),
    }
    write_text(page, render_page(templates, TEMPLATE, context))


def _alarms(rows: Sequence[RunRow]) -> list[Alarm]:
    dirty = [row for row in rows if row.dirty]
    failed = [row for row in rows if row.status == "failed"]
    alarms = []
    if dirty:
        text = f"{plural(len(dirty), 'run')} from a dirty tree: no commit describes the code that made them."
        alarms.append(Alarm("bad", "DIRTY TREE.", text, tuple(_names(dirty))))
    if failed:
        text = f"{plural(len(failed), 'run')} with a gate that failed."
        alarms.append(Alarm("warn", "FAILED.", text, tuple(_names(failed))))
    return alarms


def _names(rows: Sequence[RunRow]) -> list[str]:
    return [f"{row.id}: {row.model}, {', '.join(row.where)}" for row in rows[:10]]


def _cards(rows: Sequence[RunRow]) -> list[Card]:
    """The best of each cohort, among the runs that are complete and clean."""
    cards = []
    sound = [row for row in rows if row.status == "complete" and row.dirty is False]
    for cohort in sorted({row.cohort for row in sound}):
        for name in HEADLINE:
            having = [row for row in sound if row.cohort == cohort and isinstance(row.metrics.get(name), (int, float))]
            if having:
                pick = max if larger_is_better(name) else min
                best = pick(having, key=lambda row, name=name: float(row.metrics[name]))  # type: ignore[misc]
                unit = "%" if name.endswith("_percent") else "Gy"
                value = format_number(float(best.metrics[name]), 2)
                note = f"{spell_metric(name)}, cohort {cohort}: {best.model}, run {best.id}. "
                note += "Only clean runs that passed every gate."
                cards.append(Card("Best so far", value, unit, note))
    return cards


def _reports(rows: Sequence[RunRow], page: Path, root: Path) -> list[tuple[str, str]]:
    """Title and relative address of the reports in the workspace."""
    found = []
    for row in rows:
        if "workspace" in row.where:
            report = Layout(root, row.cohort).model(row.model).html
            if report.is_file():
                address = Path(os.path.relpath(report, page.parent)).as_posix()
                found.append((f"{row.model} on {row.cohort}, run {row.id}", address))
    return found
