"""The summary of a test set: numbers, intervals, worst cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.dosimetry.intervals import bootstrap_interval, wilson_interval
from doseledger.dosimetry.openkbp_scores import combine_scores
from doseledger.evaluate.case import CaseMetrics
from doseledger.evaluate.overlap import measure_of

# The few numbers that DVC and the editor show, and all of them.
SUMMARY, DETAILS = "summary.json", "details.json"
HEADLINE = (
    "n_cases", "mae_body_gy", "mae_above_10_percent_gy", "plan_goals_met_percent", "prediction_goals_met_percent",
    "prediction_acceptable_percent", "openkbp_dose_score", "openkbp_dvh_score",
)  # fmt: skip
# Bootstraps, and the points of gamma that are verified, are drawn with this: equal data give equal files.
DRAW_SEED = 20250101
# The error that cases are ranked by.
RANKED_BY = "mae_above_10_percent_gy"
WORST_PART = 0.10


def summarise(cases: Sequence[CaseMetrics], rng: np.random.Generator) -> dict[str, Any]:
    """Return flat, JSON-ready figures of a test set.

    Returns
    -------
    dict
        For every error and pass rate of the rows, e.g. `mae_body_gy`: the mean over cases under its own name, the ends
        of its 95 % interval as `…_low` and `…_high`, and the worst value as `…_worst`. `dvh_<structure>_<statistic>`
        is the mean absolute difference of that statistic between prediction and plan, in its unit. Further the rates
        of acceptable cases and of goals met, in percent, the OpenKBP scores where there are some, and the names of the
        worst case and of the worst decile by `mae_above_10_percent_gy`. None stands for a number that there is not.

    Raises
    ------
    BadInput
        If there are no cases, or they were not measured alike.
    """
    if not cases:
        raise BadInput("no test cases to summarise; the split has none")
    columns = list(cases[0].row)
    strangers = sorted(case.row["case_id"] for case in cases if list(case.row) != columns)
    if strangers:
        raise BadInput(f"{', '.join(strangers)} were measured otherwise than {cases[0].row['case_id']}; evaluate again")
    ordered = sorted(cases, key=lambda case: str(case.row["case_id"]))
    summary: dict[str, Any] = {"n_cases": len(ordered)}
    for column in columns:
        if is_measure(column):
            values = np.asarray([case.row[column] for case in ordered], dtype=np.float64)
            # A high pass rate is good, a high error bad.
            worst = np.nanmin if column.startswith("gamma_") else np.nanmax
            summary[column] = _mean(values)
            summary[f"{column}_low"], summary[f"{column}_high"] = bootstrap_interval(values, rng)
            summary[f"{column}_worst"] = math.nan if np.isnan(values).all() else float(worst(values))
    # The weakest link: how few points were checked on a case, and how far the worst of all was off.
    summary["gamma_points_verified"] = min(case.row["gamma_points_verified"] for case in ordered)
    summary["gamma_largest_difference"] = float(
        np.fmax.reduce([case.row["gamma_largest_difference"] for case in ordered])
    )
    summary |= _dvh_differences(ordered) | _rates(ordered) | _worst_cases(ordered)
    scores = [case.openkbp for case in ordered if case.openkbp is not None]
    if scores:
        total = combine_scores(scores)
        summary |= {"openkbp_dose_score": total.dose_score_gy, "openkbp_dvh_score": total.dvh_score_gy}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in summary.items()}


def headline(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few numbers of a test set that are shown first: errors, goals met, and each gamma's pass rate."""
    gammas = [name for name in details if name.startswith("gamma_") and name.endswith("_percent")]
    return {name: details[name] for name in (*HEADLINE, *gammas) if details.get(name) is not None}


def shown_cases(errors: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return (title, case) of the best, the median and the worst case by an error; fewer where there are fewer cases.

    Parameters
    ----------
    errors
        Error by case id; a case without one (NaN) is left out.

    Notes
    -----
    Equal errors are ordered by case id; of an even number of cases the median is the worse of the middle two.
    """
    order = _ordered(errors)
    if not order:
        return []
    picks = [("Best case", order[0]), ("Median case", order[len(order) // 2]), ("Worst case", order[-1])]
    chosen: dict[str, str] = {}
    for title, (_, case_id) in (picks[0], picks[2], picks[1]):
        chosen.setdefault(case_id, title)
    return [(title, case_id) for title, (_, case_id) in picks if chosen.get(case_id) == title]


def median_case(errors: Mapping[str, float]) -> str:
    """Return the case of the middle error, of two the worse, by error by case id.

    Raises
    ------
    BadInput
        If no case has an error.
    """
    order = _ordered(errors)
    if not order:
        raise BadInput("no test case has an error to be ranked by; evaluate again")
    return order[len(order) // 2][1]


def _ordered(errors: Mapping[str, float]) -> list[tuple[float, str]]:
    return sorted((float(value), case_id) for case_id, value in errors.items() if not math.isnan(value))


def is_measure(column: str) -> bool:
    """Return whether a column of the table of cases is an error, a pass rate or an overlap, which has a mean.

    Examples
    --------
    >>> [is_measure(name) for name in ("mae_body_gy", "gamma_3_3_global_percent", "gamma_points_verified", "case_id")]
    [True, True, False, False]
    """
    rate = column.startswith("gamma_") and column.endswith("_percent")
    return rate or column.startswith(("mae_", "openkbp_")) or measure_of(column) is not None


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _dvh_differences(cases: Sequence[CaseMetrics]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for case in cases:
        for row in case.dvh:
            found.setdefault(f"dvh_{row['structure']}_{row['statistic']}", []).append(abs(row["difference"]))
    return {name: _mean(np.asarray(values)) for name, values in found.items()}


def _rates(cases: Sequence[CaseMetrics]) -> dict[str, float]:
    rates: dict[str, float] = {}
    n_goals = sum(case.row["goals_evaluable"] for case in cases)
    for who in ("plan", "prediction"):
        n_met = sum(case.row[f"{who}_goals_met"] for case in cases)
        rates[f"{who}_goals_met_percent"] = 100.0 * n_met / n_goals if n_goals else math.nan
        n_acceptable = sum(bool(case.row[f"{who}_acceptable"]) for case in cases)
        low, high = wilson_interval(n_acceptable, len(cases))
        rates[f"{who}_acceptable_percent"] = 100.0 * n_acceptable / len(cases)
        rates[f"{who}_acceptable_percent_low"], rates[f"{who}_acceptable_percent_high"] = low, high
    return rates


def _worst_cases(cases: Sequence[CaseMetrics]) -> dict[str, str]:
    ranked = sorted(cases, key=lambda case: -case.row[RANKED_BY])
    n_worst = max(1, math.ceil(WORST_PART * len(ranked)))
    names = [str(case.row["case_id"]) for case in ranked[:n_worst]]
    return {"worst_case": names[0], "worst_decile": ", ".join(names)}
