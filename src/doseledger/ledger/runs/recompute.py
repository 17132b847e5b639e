"""The metrics of a run made again from tables and predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.errors import NotReady
from doseledger.core.tables import DVH_METRICS, GOAL_METRICS, SPLITS, read_case_metrics, read_table
from doseledger.core.text.lists import first_of
from doseledger.dosimetry.openkbp_scores import ORGANS, TARGETS, PatientScore, dvh_metrics_gy
from doseledger.evaluate.case import CaseMetrics, Yardsticks
from doseledger.evaluate.cohort import evaluate_files
from doseledger.evaluate.segmentation import RANKED_BY_OVERLAP, evaluate_case_labels, summarise_segmentations
from doseledger.evaluate.summary import DRAW_SEED, RANKED_BY, summarise
from doseledger.gates.verdict import Finding
from doseledger.ledger.runs.checklist import fault

# Tables and summary are written with six decimals; what is made of rounded values differs by less than this.
ROUNDING = 2e-6
# The tables of a dose model, which its summary follows from.
TABLES = ("cases", "dvh", "goals")
AGAIN = "evaluate again (`dvc repro`); never edit a file of metrics"


@dataclass(frozen=True)
class Recompute:
    """What it takes to measure a case again.

    Parameters
    ----------
    cases, predictions
        Folders of `<case>.npz`.
    how_many
        Cases to measure again, the worst first; None for all.
    """

    cases: Path
    predictions: Path
    yardsticks: Yardsticks
    how_many: int | None


@dataclass(frozen=True)
class Tables:
    """The tables of an evaluation, and its summary."""

    cases: pd.DataFrame
    dvh: pd.DataFrame
    goals: pd.DataFrame
    summary: Mapping[str, Any]

    @property
    def of_labels(self) -> bool:
        """Whether they are of a segmentation."""
        return RANKED_BY_OVERLAP in self.cases


def read_tables(tables: Mapping[str, Path], summary: Mapping[str, Any]) -> Tables:
    """Return the tables of an evaluation.

    Raises
    ------
    BadInput
        If one is absent or not of its form.
    """
    return Tables(
        cases=read_case_metrics(tables["cases"]),
        dvh=read_table(tables["dvh"], DVH_METRICS),
        goals=read_table(tables["goals"], GOAL_METRICS),
        summary=summary,
    )


def summary_of_tables(tables: Tables) -> dict[str, Any]:
    """Return the summary as it follows from the tables, by the evaluation's own function and draws."""
    if tables.of_labels:
        return summarise_segmentations(_rows(tables.cases), np.random.default_rng(DRAW_SEED))
    dvh = {str(case_id): _rows(part) for case_id, part in tables.dvh.groupby("case_id")}
    measured = [CaseMetrics(row, dvh.get(row["case_id"], []), [], _openkbp(row)) for row in _rows(tables.cases)]
    return summarise(measured, np.random.default_rng(DRAW_SEED))


def _openkbp(row: Mapping[str, Any]) -> PatientScore | None:
    """What a row of the table of cases adds to the OpenKBP scores; None where it was not scored.

    The score is a mean over the DVH metrics of all patients. The row holds the mean of its own, and tells how many
    they are: an error is known for each structure that is there.
    """
    if "openkbp_dose_gy" not in row:
        return None
    there = {
        name: np.ones(1, bool) for name in (*ORGANS, *TARGETS) if not math.isnan(row.get(f"mae_{name}_gy", math.nan))
    }
    return PatientScore(
        dose_gy=float(row["openkbp_dose_gy"]),
        dvh_gy=dict.fromkeys(dvh_metrics_gy(np.zeros(1), there, 1.0), float(row["openkbp_dvh_gy"])),
    )


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def differs(found: Any, wanted: Any) -> bool:
    """Return whether two values of a table or summary differ by more than rounding.

    Examples
    --------
    >>> differs(1.0000001, 1.0), differs(1.1, 1.0), differs(float("nan"), None), differs("a", "a")
    (False, True, False, False)
    """
    numbers = [math.nan if value is None or value is pd.NA else value for value in (found, wanted)]
    if all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in numbers):
        first, second = (float(value) for value in numbers)
        if math.isnan(first) or math.isnan(second):
            return math.isnan(first) != math.isnan(second)
        return abs(first - second) > ROUNDING
    return bool(found != wanted)


def changed_summary(tables: Tables) -> Iterator[Finding]:
    """Yield each number of the summary that does not follow from the tables."""
    again, said = summary_of_tables(tables), tables.summary
    for name in sorted(set(again) | set(said)):
        where = f"summary.json: {name}"
        if name not in said:
            yield fault(where, "nothing", _text(again[name]), AGAIN)
        elif name not in again:
            yield fault(where, _text(said[name]), "no such number: the tables give none", AGAIN)
        elif differs(said[name], again[name]):
            yield fault(where, _text(said[name]), f"{_text(again[name])}, recomputed from the tables", AGAIN)


def changed_goal_counts(tables: Tables) -> Iterator[Finding]:
    """Yield each case whose counts of goals are not those of its rows in the table of goals."""
    for row in _rows(tables.cases) if not tables.of_labels else ():
        mine = tables.goals[tables.goals["case_id"] == row["case_id"]]
        counts = {"goals_evaluable": int(mine["plan_met"].notna().sum())}
        counts |= {f"{who}_goals_met": int(mine[f"{who}_met"].fillna(False).sum()) for who in ("plan", "prediction")}
        for name, count in counts.items():
            if int(row[name]) != count:
                where = f"cases.csv: {name} of {row['case_id']}"
                yield fault(where, str(row[name]), f"{count}, counted in goals.csv", AGAIN, str(row["case_id"]))


def cases_to_measure(tables: Tables, recompute: Recompute | None = None) -> list[str]:
    """Return which cases are measured again: the worst first, since a forger would begin there.

    Where not all are asked for, they are taken from those whose prediction is there: an archived run holds examples.

    Raises
    ------
    NotReady
        If none of them has a prediction.
    """
    ranked_by = RANKED_BY_OVERLAP if tables.of_labels else RANKED_BY
    ordered = tables.cases.sort_values([ranked_by, "case_id"], ascending=[tables.of_labels, True])
    order = ordered["case_id"].astype(str).to_list()
    if recompute is None or recompute.how_many is None:
        return order
    there = [case_id for case_id in order if (recompute.predictions / f"{case_id}.npz").is_file()]
    if not there:
        raise NotReady(f"{recompute.predictions}: no prediction of {first_of(order, 5)}; nothing can be measured again")
    return there[: recompute.how_many]


def changed_cases(tables: Tables, splits: Path, recompute: Recompute) -> Iterator[Finding]:
    """Yield each number of a case that its prediction does not give again.

    Raises
    ------
    BadCase
        If a case or its prediction is absent, or is not the one that was evaluated.
    """
    digests = read_table(splits, SPLITS).set_index("case_id")["sha256"].to_dict()
    for case_id in cases_to_measure(tables, recompute):
        name = f"{case_id}.npz"
        files = recompute.cases / name, recompute.predictions / name, str(digests.get(case_id))
        row = _rows(tables.cases[tables.cases["case_id"] == case_id])[0]
        if tables.of_labels:
            measured = evaluate_case_labels(*files, recompute.yardsticks.settings)
            yield from _changed_row("cases.csv", case_id, row, measured)
            continue
        again = evaluate_files(*files, recompute.yardsticks)
        yield from _changed_row("cases.csv", case_id, row, again.row)
        for table, kind, key in (("dvh.csv", "dvh", "statistic"), ("goals.csv", "goals", "goal")):
            frame = tables.dvh if kind == "dvh" else tables.goals
            rows = _rows(frame[frame["case_id"] == case_id])
            yield from _changed_rows(table, case_id, rows, getattr(again, kind), key)


def _changed_row(table: str, case_id: str, said: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[Finding]:
    for name, value in again.items():
        if name not in said or differs(_plain(said[name]), _plain(value)):
            where = f"{table}: {name} of {case_id}"
            yield fault(where, _text(said.get(name)), f"{_text(value)}, measured again", AGAIN, case_id)


def _changed_rows(
    table: str, case_id: str, said: list[dict[str, Any]], again: list[dict[str, Any]], key: str
) -> Iterator[Finding]:
    if len(said) != len(again):
        where = f"{table}: rows of {case_id}"
        yield fault(where, str(len(said)), f"{len(again)}, measured again", AGAIN, case_id)
        return
    for mine, measured in zip(said, again, strict=True):
        label = f"{table} ({measured['structure']} {measured[key]})"
        yield from _changed_row(label, case_id, mine, {name: measured[name] for name in ("plan", "prediction")})


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{float(value):.7g}" if isinstance(value, (float, np.floating)) else str(value)
