"""The metrics gate: a model's numbers on cases that it never saw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from doseledger.core.code import code_digest
from doseledger.core.errors import BadInput
from doseledger.core.files import read_json, sha256_of_file, sha256_of_json
from doseledger.core.limit import keeps
from doseledger.core.project.layout import ModelLayout
from doseledger.core.tables import SPLITS, read_case_metrics, read_table, rows_of_fold
from doseledger.evaluate.overlap import measure_of
from doseledger.evaluate.summary import DETAILS
from doseledger.gates.limits import EvaluationLimits, MetricLimit, load_thresholds
from doseledger.gates.model.training import judge_plausible, judge_training, read_history
from doseledger.gates.verdict import Finding, Verdict, make_verdict, without_explanations

# Columns of cases.csv whose mean the summary repeats under the same name.
AVERAGED = ("mae_", "gamma_", "dice", "iou", "hd95_mm", "surface_dice")
NOT_AVERAGED = frozenset({"gamma_points_verified", "gamma_largest_difference", "gamma_criteria"})
# Summary and table are written with six decimals; a mean of rounded values differs by less than this.
ROUNDING = 2e-6


def judge_metrics(at: ModelLayout, *, fold: int, repeat: int) -> Verdict:
    """Return whether a model's metrics keep their limits.

    Parameters
    ----------
    at
        Where the model's metrics, history and checkpoint and the cohort's splits and limits lie.

    Raises
    ------
    BadInput
        If a file, or the model's limits, are absent: a gate that can't see its data fails.
    """
    from doseledger.learn.training.checkpoint import read_seen

    thresholds, splits_csv = load_thresholds(at.layout), at.layout.splits
    limits, evaluation, training = thresholds.metrics_of(at.name), thresholds.evaluation, thresholds.training
    details_json, cases_csv = at.metrics / DETAILS, at.metrics / "cases.csv"
    history = read_history(at.run / "history.csv")
    summary, rows = read_json(details_json), read_case_metrics(cases_csv)
    if not isinstance(summary, dict):
        raise BadInput(f"{details_json}: wanted a mapping of metrics, found {type(summary).__name__}")
    seen = read_seen(at.checkpoint, at.layout.cohort)
    test = rows_of_fold(read_table(splits_csv, SPLITS), fold, repeat, "test")
    of_labels = "dice" in summary
    findings = judge_limits(summary, limits, at.name)
    findings += judge_summary(summary, rows)
    findings += judge_cases(rows, test, seen, sha256_of_file(at.checkpoint))
    # A cohort of doses has such limits; its segmentations have no gamma.
    findings += judge_gamma(rows, evaluation) if evaluation is not None and not of_labels else []
    findings += judge_training(history, training, at.name)
    findings += judge_plausible(rows, training, at.name)
    details = {
        "cohort": at.layout.cohort,
        "model": at.name,
        "n_cases": len(rows),
        "told": {name: _number(summary, name) for name in sorted(summary) if name in _averaged(rows)},
        "limits": [_result(summary, limit) for limit in limits],
        # Told, not judged: a small or an early model may miss these and pass.
        "candidate": [_result(summary, limit) for limit in thresholds.candidate if _is_of_labels(limit) == of_labels],
    }
    everything = [*limits, *([evaluation] if evaluation is not None else []), training]
    digest = sha256_of_json(
        {
            "tables": [sha256_of_file(table) for table in (details_json, cases_csv, splits_csv)],
            "history": history,
            "limits": without_explanations([limit.model_dump(mode="json") for limit in everything]),
            "seen": seen,
            "code": code_digest(__name__),
        }
    )
    return make_verdict("metrics", digest, findings, details)


def _is_of_labels(limit: MetricLimit) -> bool:
    """Whether a limit is of segmentations: a cohort may train these and dose models."""
    return measure_of(limit.metric) is not None


def _averaged(rows: pd.DataFrame) -> list[str]:
    """Columns of the table of cases whose mean the summary holds under the same name."""
    return [str(name) for name in rows.columns if str(name).startswith(AVERAGED) and name not in NOT_AVERAGED]


def _number(summary: Mapping[str, Any], name: str) -> float | None:
    value = summary.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and value is not None else None


def _result(summary: Mapping[str, Any], limit: MetricLimit) -> dict[str, Any]:
    value = _number(summary, limit.metric)
    return {
        "metric": limit.metric,
        "found": value,
        "wanted": f"{limit.operator} {limit.limit:g}",
        "ok": value is not None and limit.is_met(value),
        "provisional": limit.provisional,
        "source": limit.source,
    }


def judge_limits(summary: Mapping[str, Any], limits: list[MetricLimit], model: str) -> list[Finding]:
    """Return which limits a model's summary misses; a metric that is not there misses its limit."""
    findings = []
    for limit in limits:
        value = _number(summary, limit.metric)
        if value is None:
            message = f"{model}: no number for {limit.metric}, wanted {limit.operator} {limit.limit:g}; evaluate again"
            findings.append(Finding("metric_absent", "", "error", message, {"metric": limit.metric}))
        elif not limit.is_met(value):
            message = (
                f"{model}: {limit.metric} is {value:.4g}, wanted {limit.operator} {limit.limit:g} ({limit.source})"
            )
            numbers = {"metric": limit.metric, "found": value, "limit": limit.limit}
            findings.append(Finding("metric_limit", "", "error", message, numbers))
    return findings


def judge_summary(summary: Mapping[str, Any], rows: pd.DataFrame) -> list[Finding]:
    """Return where the summary is not the mean of its own table of cases."""
    findings = []
    for column in _averaged(rows):
        known = pd.to_numeric(rows[column], errors="coerce").dropna()
        said, mean = _number(summary, column), float(known.mean()) if len(known) else None
        is_same = said is mean if said is None or mean is None else keeps(abs(said - mean), most=ROUNDING)
        if not is_same:
            message = f"the summary says {column} is {said}, the mean of cases.csv is {mean}; evaluate again"
            findings.append(Finding("summary_stale", "", "error", message, {"metric": column}))
    if summary.get("n_cases") != len(rows):
        message = f"the summary is of {summary.get('n_cases')} cases, cases.csv has {len(rows)}; evaluate again"
        findings.append(Finding("summary_stale", "", "error", message))
    return findings


def judge_cases(rows: pd.DataFrame, test: pd.DataFrame, seen: Mapping[str, str], checkpoint: str) -> list[Finding]:
    """Return whether the cases evaluated are the test set, of this model, and never seen by it.

    Parameters
    ----------
    test
        The test rows of the splits.
    seen
        SHA256 by case of what the model was trained or selected on.
    """
    findings = []
    wanted = dict(zip(test["case_id"], test["sha256"], strict=True))
    found = dict(zip(rows["case_id"], rows["case_sha256"], strict=True))
    if not wanted:
        message = "the splits have no test case for this fold and repeat: there is nothing to judge a model by"
        findings.append(Finding("test_set", "", "error", message))
    for case_id in sorted(set(wanted) ^ set(found)):
        what = "a test case, but was not evaluated" if case_id in wanted else "evaluated, but is no test case"
        message = f"{case_id}: {what}; predict and evaluate again"
        findings.append(Finding("test_set", case_id, "error", message))
    for case_id in sorted(set(wanted) & set(found)):
        if wanted[case_id] != found[case_id]:
            message = f"{case_id}: changed since it was evaluated; predict and evaluate again"
            findings.append(Finding("test_set", case_id, "error", message))
    by_digest = {digest: case_id for case_id, digest in seen.items()}
    for case_id, digest in sorted(found.items()):
        if digest in by_digest or case_id in seen:
            message = (
                f"{case_id}: the model has seen it in training (as {by_digest.get(digest, case_id)}), so its score "
                "says nothing; evaluate on the test set of the very splits that it was trained with"
            )
            findings.append(Finding("tested_on_training", case_id, "error", message))
    others = sorted(set(rows.loc[rows["checkpoint_sha256"] != checkpoint, "case_id"]))
    if others:
        message = f"{', '.join(others)}: predicted with another checkpoint than the one judged; predict again"
        findings.append(Finding("checkpoint", others[0], "error", message))
    return findings


def judge_gamma(rows: pd.DataFrame, limits: EvaluationLimits) -> list[Finding]:
    """Return where gamma differs from its reference implementation by more than it may."""
    findings = []
    for row in rows.to_dict("records"):
        case_id, difference = str(row["case_id"]), float(row["gamma_largest_difference"])
        if int(row["gamma_points_verified"]) == 0:
            message = f"{case_id}: no point of gamma was checked against the reference (evaluate.verify_gamma_points)"
            findings.append(Finding("gamma_unverified", case_id, "warning", message))
        elif not keeps(difference, most=limits.gamma_max_difference):
            message = (
                f"{case_id}: gamma differs from the reference implementation by {difference:.2g}, wanted at most "
                f"{limits.gamma_max_difference:g}; report this, and don't use these pass rates"
            )
            findings.append(Finding("gamma_differs", case_id, "error", message, {"difference": difference}))
    return findings
