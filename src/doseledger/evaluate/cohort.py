"""A test set's predictions -> tables and summary; whatever can't be compared honestly stops the evaluation."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.fanout import Tell, run_cases
from doseledger.core.files import sha256_of_file, write_json, write_text
from doseledger.core.tables import CASE_METRICS, DVH_METRICS, GOAL_METRICS, SPLITS, check_table, read_table
from doseledger.evaluate.case import CaseMetrics, Yardsticks, evaluate_case
from doseledger.evaluate.predictions import load_prediction
from doseledger.evaluate.refusals import refuse_seen, refuse_unfit
from doseledger.evaluate.summary import summarise

# The bootstrap and the points of gamma that are checked are drawn with this: the same data always give the same files.
DRAW_SEED = 20250101
# 1e-6 Gy and 1e-6 % are beyond any meaning, and the last bits of a sum may differ between machines.
DECIMALS = 6


@dataclass(frozen=True)
class TestSet:
    """Which cases are evaluated, and where their files lie.

    Parameters
    ----------
    cases, predictions
        Folders of `<case>.npz`.
    splits
        Table of splits.
    part
        `train`, `val` or `test` of the splits.
    fold, repeat
        Which fold and repeat; 0 where there are none.
    """

    # Pytest would take the name for a class of tests.
    __test__ = False

    cases: Path
    predictions: Path
    splits: Path
    part: str
    fold: int
    repeat: int


def evaluate_cohort(test_set: TestSet, out: Path, yardsticks: Yardsticks, *, tell: Tell) -> dict[str, Any]:
    """Return the summary of a model's predictions, after writing `cases.csv`, `dvh.csv`, `goals.csv`, `summary.json`.

    Parameters
    ----------
    test_set
        Which cases.
    out
        Folder of the four files.
    yardsticks
        Protocol, goals and settings of the evaluation.
    tell
        Called with one line a case.

    Raises
    ------
    BadInput
        If there are no cases, or naming each one that can't be compared and why: absent, stale, on another grid, not
        finite, seen in training. Nothing is written then: a mean over the cases that happened to work would flatter.
    """
    table = read_table(test_set.splits, SPLITS)
    mine = table[
        (table["split"] == test_set.part) & (table["fold"] == test_set.fold) & (table["repeat"] == test_set.repeat)
    ]
    if mine.empty:
        raise BadInput(
            f"{test_set.splits}: no {test_set.part} cases in fold {test_set.fold}, repeat {test_set.repeat}; look at "
            "the settings `fold` and `repeat`, and at splits.kind"
        )
    arguments = {
        case_id: (test_set.cases / f"{case_id}.npz", test_set.predictions / f"{case_id}.npz", sha256, yardsticks)
        for case_id, sha256 in zip(mine["case_id"], mine["sha256"], strict=True)
    }
    outcome = run_cases(evaluate_files, arguments, workers=yardsticks.settings.workers, tell=tell)
    if outcome.failed:
        raise BadInput(
            f"{len(outcome.failed)} of {len(arguments)} cases can't be evaluated, so nothing was written: "
            + "; ".join(str(error) for error in outcome.failed.values())
        )
    found = list(outcome.done.values())
    if len({metrics.row["checkpoint_sha256"] for metrics in found}) > 1:
        raise BadInput("the predictions come from different checkpoints; predict them all again with one")
    summary = summarise(found, np.random.default_rng(DRAW_SEED))
    summary = {key: round(value, DECIMALS) if isinstance(value, float) else value for key, value in summary.items()}
    _write(out / "cases.csv", [metrics.row for metrics in found], CASE_METRICS)
    _write(out / "dvh.csv", [row for metrics in found for row in metrics.dvh], DVH_METRICS)
    _write(out / "goals.csv", [row for metrics in found for row in metrics.goals], GOAL_METRICS)
    write_json(out / "summary.json", summary)
    return summary


def evaluate_files(case_path: Path, prediction_path: Path, sha256: str, yardsticks: Yardsticks) -> CaseMetrics:
    """Return what one prediction is worth.

    Parameters
    ----------
    case_path, prediction_path
        NPZ of the case and of its prediction.
    sha256
        What the case's file must be, from the splits.
    yardsticks
        What it is measured with.

    Raises
    ------
    BadCase
        If the prediction can't be compared with the case honestly.
    """
    prediction = load_prediction(prediction_path)
    case_id = prediction.case_id
    found = sha256_of_file(case_path) if case_path.is_file() else "absent"
    if found != sha256:
        raise BadCase(case_id, f"{case_path.name} is {found[:12]}, the splits say {sha256[:12]}; run ingest and split")
    if prediction.case_sha256 != found:
        raise BadCase(
            case_id, f"the prediction is of the case as it was ({prediction.case_sha256[:12]}…); predict it again"
        )
    refuse_seen(case_id, found, prediction.trained_on, prediction.selected_on)
    case = Case.load(case_path)
    refuse_unfit(case, prediction.dose_gy, prediction.grid)
    # Drawn by the case's name, so that neither its place in the cohort nor the number of workers changes the points.
    rng = np.random.default_rng([DRAW_SEED, zlib.crc32(case_id.encode())])
    metrics = evaluate_case(case, prediction.dose_gy, yardsticks, rng)
    digests = {"case_sha256": found, "checkpoint_sha256": prediction.checkpoint_sha256}
    row = {"case_id": case_id} | digests | metrics.row
    return CaseMetrics(row, metrics.dvh, metrics.goals, metrics.openkbp)


def _write(path: Path, rows: list[dict[str, Any]], schema: Any) -> None:
    frame = pd.DataFrame(rows)
    checked = check_table(frame, schema, str(path))[list(frame.columns)]
    write_text(path, checked.to_csv(index=False, lineterminator="\n", float_format=f"%.{DECIMALS}f"))
