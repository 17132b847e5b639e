"""Metrics of a test set: tables and summary of its predictions."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.case import Case, write_npz
from doseledger.core.damage import refuse_damage
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import all_or_none, atomic_path, write_json, write_text
from doseledger.core.npz import open_npz
from doseledger.core.pool.cluster import HERE, Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.settings import EvaluateSettings
from doseledger.core.tables import (
    CASE_METRICS,
    DVH_METRICS,
    GOAL_METRICS,
    SPLITS,
    check_table,
    read_table,
    rows_of_fold,
)
from doseledger.core.types import Tell
from doseledger.dosimetry.gamma.map import PASS_GAMMA, gamma_map
from doseledger.evaluate.case import CaseMetrics, Yardsticks, dose_pair, evaluate_case, gamma_criteria
from doseledger.evaluate.predictions import load_prediction
from doseledger.evaluate.refusals import load_unseen, refuse_unfit
from doseledger.evaluate.summary import DETAILS, DRAW_SEED, RANKED_BY, SUMMARY, headline, shown_cases, summarise

# 1e-6 Gy and 1e-6 % are beyond any meaning, and the last bits of a sum may differ between machines.
DECIMALS = 6

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class TestSet:
    """Which cases are evaluated, and where their files lie.

    Parameters
    ----------
    cases, predictions
        Folders of `<case>.npz`.
    part
        `train`, `val` or `test` of the splits.
    """

    # Pytest would take the name for a class of tests.
    __test__ = False

    cases: Path
    predictions: Path
    splits: Path
    part: str
    fold: int
    repeat: int


def evaluate_cohort(
    test_set: TestSet,
    out: Path,
    yardsticks: Yardsticks,
    *,
    gamma_out: Path | None = None,
    scale: Scale = HERE,
    tell: Tell,
) -> dict[str, Any]:
    """Return all numbers of a model's predictions, after writing tables, `details.json` and the short `summary.json`.

    Parameters
    ----------
    test_set
        Which cases.
    out
        Folder of `cases.csv`, `dvh.csv`, `goals.csv`, `details.json` and `summary.json`.
    yardsticks
        Protocol, goals and settings of the evaluation.
    gamma_out
        Folder that gets the gamma map of each case that the report shows; None writes none.
    scale
        Where cases are measured.
    tell
        Called with one line a case.

    Raises
    ------
    BadInput
        If there are no cases, or naming each one that can't be compared and why: absent, stale, on another grid, not
        finite, seen in training. Nothing is written then: a mean over the cases that happened to work would flatter.
    """
    found = measure_cases(evaluate_files, test_set, yardsticks, scale, tell)
    if len({metrics.row["checkpoint_sha256"] for metrics in found}) > 1:
        raise BadInput("the predictions come from different checkpoints; predict them all again with one")
    summary = summarise(found, np.random.default_rng(DRAW_SEED))
    details = {key: round(value, DECIMALS) if isinstance(value, float) else value for key, value in summary.items()}
    with all_or_none():
        write_rows(out / "cases.csv", [metrics.row for metrics in found], CASE_METRICS)
        write_rows(out / "dvh.csv", [row for metrics in found for row in metrics.dvh], DVH_METRICS)
        write_rows(out / "goals.csv", [row for metrics in found for row in metrics.goals], GOAL_METRICS)
        write_json(out / DETAILS, details)
        write_json(out / SUMMARY, headline(details))
        if gamma_out is not None:
            errors = {str(metrics.row["case_id"]): float(metrics.row[RANKED_BY]) for metrics in found}
            for _, case_id in shown_cases(errors):
                paths = test_set.cases / f"{case_id}.npz", test_set.predictions / f"{case_id}.npz"
                write_gamma(gamma_out / f"{case_id}.npz", *paths, yardsticks.settings)
    return details


def measure_cases(
    measure: Callable[..., Measured], test_set: TestSet, yardsticks: Any, scale: Scale, tell: Tell
) -> list[Measured]:
    """Return what each case of a test set measures, in order.

    Parameters
    ----------
    measure
        Takes a case's file, its prediction's, the case's SHA256 by the splits, and the yardsticks.

    Raises
    ------
    BadInput
        As `evaluate_cohort`.
    """
    mine = rows_of_fold(read_table(test_set.splits, SPLITS), test_set.fold, test_set.repeat, test_set.part)
    if mine.empty:
        raise BadInput(
            f"{test_set.splits}: no {test_set.part} cases in fold {test_set.fold}, repeat {test_set.repeat}; look at "
            "the settings `fold` and `repeat`, and at splits.kind"
        )
    arguments = {
        case_id: (test_set.cases / f"{case_id}.npz", test_set.predictions / f"{case_id}.npz", sha256, yardsticks)
        for case_id, sha256 in zip(mine["case_id"], mine["sha256"], strict=True)
    }
    outcome = over_cases(measure, arguments, scale, tell=tell)
    if outcome.failed:
        raise BadInput(
            f"{len(outcome.failed)} of {len(arguments)} cases can't be evaluated, so nothing was written: "
            + "; ".join(str(error) for error in outcome.failed.values())
        )
    return list(outcome.done.values())


def write_gamma(path: Path, case_path: Path, prediction_path: Path, settings: EvaluateSettings) -> None:
    """Write the map of the first gamma criterion of a case that was evaluated: what its pass rate was taken of.

    Raises
    ------
    BadInput
        If the settings name no criterion.
    """
    if not settings.gamma:
        raise BadInput("evaluate.gamma is empty: the report draws its first criterion, for example 3 %/3 mm")
    case, prediction = Case.load(case_path), load_prediction(prediction_path)
    gamma = gamma_map(dose_pair(case, prediction.dose_gy), gamma_criteria(settings.gamma[0]))
    single = gamma.astype(np.float32)
    # A point that fails by less than single precision tells would pass: the map's pass rate is the one in cases.csv.
    single[(gamma > PASS_GAMMA) & (single <= PASS_GAMMA)] = np.nextafter(np.float32(PASS_GAMMA), np.float32(np.inf))
    with atomic_path(path) as part:
        write_npz(part, {"gamma": single})


def read_gamma(path: Path, shape_zyx: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return the gamma map of a case (z, y, x) as it was scored; NaN below the cutoff.

    Raises
    ------
    BadCase
        If there is none, it is damaged, or it is of another grid.
    """
    if not path.is_file():
        raise BadCase(path.stem, f"no gamma map {path.name}; run evaluate")

    def refusal(reason: str) -> BadCase:
        return BadCase(path.stem, f"its gamma map can't be read ({reason}); evaluate again")

    with refuse_damage(refusal), open_npz(path) as npz:
        gamma: NDArray[np.float32] = npz["gamma"]
    if gamma.shape != shape_zyx:
        raise BadCase(path.stem, f"its gamma map has {gamma.shape} voxels, the case {shape_zyx}; evaluate again")
    return gamma


def evaluate_files(case_path: Path, prediction_path: Path, sha256: str, yardsticks: Yardsticks) -> CaseMetrics:
    """Return what one prediction is worth.

    Parameters
    ----------
    sha256
        What the case's file must be, from the splits.

    Raises
    ------
    BadCase
        If the prediction can't be compared with the case honestly.
    """
    prediction = load_prediction(prediction_path)
    case_id = prediction.case_id
    case = load_unseen(case_path, sha256, prediction)
    refuse_unfit(case, prediction.dose_gy, prediction.grid)
    # Drawn by the case's name, so that neither its place in the cohort nor the pool changes the points.
    rng = np.random.default_rng([DRAW_SEED, zlib.crc32(case_id.encode())])
    metrics = evaluate_case(case, prediction.dose_gy, yardsticks, rng)
    digests = {"case_sha256": sha256, "checkpoint_sha256": prediction.checkpoint_sha256}
    row = {"case_id": case_id} | digests | metrics.row
    return CaseMetrics(row, metrics.dvh, metrics.goals, metrics.openkbp)


def write_rows(path: Path, rows: list[dict[str, Any]], schema: Any) -> None:
    """Write rows as CSV after checking them against a schema, columns in the rows' order."""
    frame = pd.DataFrame(rows)
    checked = check_table(frame, schema, str(path))[list(frame.columns)]
    write_text(path, checked.to_csv(index=False, lineterminator="\n", float_format=f"%.{DECIMALS}f"))
