"""Several runs as one result: seeds of a test set, folds of cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.tables import read_case_metrics
from doseledger.core.text.lists import first_of
from doseledger.core.text.sheet import Table, as_markdown, format_number, make_table
from doseledger.core.text.words import spell_metric
from doseledger.dosimetry.intervals import bootstrap_interval
from doseledger.evaluate.compare import refuse_other_criteria
from doseledger.evaluate.predictions import read_seen
from doseledger.evaluate.summary import is_measure


@dataclass(frozen=True)
class EvaluatedRun:
    """One run's evaluation.

    Parameters
    ----------
    metrics
        Folder that evaluate wrote.
    predictions
        Folder of the predictions that it judged; they say what the model has seen.
    checkpoint
        The model, where it shall say so in their place.
    name
        What it is called; empty for the folder's path.
    """

    metrics: Path
    predictions: Path | None = None
    checkpoint: Path | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.name or str(self.metrics)


def pool_runs(runs: Sequence[EvaluatedRun], rng: np.random.Generator) -> dict[str, Any]:
    """Return the pooled errors and pass rates of several runs.

    Parameters
    ----------
    runs
        At least two: with the same test cases (seeds), or with no test case in common (folds).

    Returns
    -------
    dict
        `kind` (`seeds` or `folds`), `n_runs`, `n_cases`, and by column `mean` over cases (each the mean of its runs),
        `low` and `high` (95 %, bootstrap over cases), `between_runs_sd` of the runs' means. `not_shared` lists the
        columns that only some runs have, which can't be pooled.

    Raises
    ------
    BadInput
        If the runs share some test cases and not others, two runs are of one checkpoint, a case differs between runs,
        they were evaluated with other gamma criteria, or any model that a case is scored by was trained or selected on
        it.
    """
    if len(runs) < 2:
        raise BadInput(f"{len(runs)} run is nothing to pool; give at least two")
    tables = [read_case_metrics(run.metrics / "cases.csv") for run in runs]
    models = [set(table["checkpoint_sha256"]) for table in tables]
    if sum(len(model) for model in models) > len(set.union(*models)):
        raise BadInput(
            "two of the runs are of one and the same checkpoint: that would count it twice; give each run once"
        )
    refuse_other_criteria({str(run): table for run, table in zip(runs, tables, strict=True)})
    kind = _kind([set(table["case_id"]) for table in tables])
    for run, table in zip(runs, tables, strict=True):
        # With seeds every model scores every case, so none may have been seen by any.
        judged = pd.concat(tables) if kind == "seeds" else table
        _refuse_seen(run, table, judged)
    pooled = pd.concat(tables, ignore_index=True)
    if pooled.groupby("case_id")["case_sha256"].nunique().max() > 1:
        raise BadInput("a case is not the same file in all runs; evaluate all runs on one ingest")
    found: dict[str, Any] = {"kind": kind, "n_runs": len(runs), "n_cases": int(pooled["case_id"].nunique())}
    measured = list(dict.fromkeys(name for table in tables for name in table.columns if is_measure(name)))
    shared = [name for name in measured if all(name in table for table in tables)]
    found["not_shared"] = [name for name in measured if name not in shared]
    for name in shared:
        by_case = pooled.groupby("case_id")[name].mean().to_numpy(dtype=np.float64)
        by_run = np.asarray([table[name].mean() for table in tables], dtype=np.float64)
        low, high = bootstrap_interval(by_case, rng)
        found[name] = {
            "mean": float(pd.Series(by_case).mean()),
            "low": low,
            "high": high,
            "between_runs_sd": float(by_run.std(ddof=1)),
        }
    return found


def _kind(tests: list[set[str]]) -> str:
    """Return whether test sets are one and the same, or all apart."""
    if all(test == tests[0] for test in tests):
        return "seeds"
    if sum(len(test) for test in tests) == len(set.union(*tests)):
        return "folds"
    raise BadInput(
        "the runs share some test cases and not others: neither seeds of one test set nor folds; pool runs of one split"
    )


def _refuse_seen(run: EvaluatedRun, table: pd.DataFrame, judged: pd.DataFrame) -> None:
    seen = _seen_by(run, table)
    stained = sorted(set(judged.loc[judged["case_sha256"].isin(seen), "case_id"]))
    if stained:
        raise BadInput(
            f"the model of {run} was trained or selected on {first_of(stained, 8)}, which it would be scored "
            "on; pool only runs whose test cases none of the models has seen (lock the test set)"
        )


def _seen_by(run: EvaluatedRun, table: pd.DataFrame) -> frozenset[str]:
    """SHA256 of the cases that a run's model has seen, by its predictions or by itself."""
    from doseledger.learn.training import checkpoint

    if run.predictions is not None:
        return frozenset().union(*(read_seen(run.predictions / f"{case_id}.npz") for case_id in table["case_id"]))
    if run.checkpoint is None:
        raise BadInput(f"{run}: neither predictions nor a checkpoint say what its model has seen; give either")
    found = sha256_of_file(run.checkpoint)
    if set(table["checkpoint_sha256"]) != {found}:
        raise BadInput(f"{run}: evaluated with another checkpoint than {found[:12]}…, which it holds; evaluate again")
    return frozenset(checkpoint.read_seen(run.checkpoint, "").values())


def describe_pool(found: Mapping[str, Any], draw: Callable[[Table], str] = as_markdown) -> list[str]:
    """Return pooled figures as lines, with their table in Markdown or drawn otherwise."""
    runs = "seeds on one test set" if found["kind"] == "seeds" else "folds with test sets of their own"
    lines = [f"{found['n_runs']} runs ({runs}), {found['n_cases']} cases; mean over cases with its 95 % interval", ""]
    rows = [
        (spell_metric(name), *(format_number(row[key], 3) for key in ("mean", "low", "high", "between_runs_sd")))
        for name, row in found.items()
        if isinstance(row, dict)
    ]
    columns = ("Measure", "#Mean", "#Low", "#High", "#SD between runs")
    lines += draw(make_table("", columns, rows)).splitlines()
    if found["not_shared"]:
        lines += ["", f"Not pooled, since only some runs have them: {', '.join(found['not_shared'])}."]
    return lines
