"""Outliers: cases far from all others of their cohort, each left out in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.limit import keeps
from doseledger.gates.drift.statistics import measure_left_out
from doseledger.gates.limits import OutlierLimits
from doseledger.gates.verdict import Finding

# Copies of one case are at no distance from each other.
LEAST_DISTANCE = 1e-6


def judge_outliers(inputs: pd.DataFrame, limits: OutlierLimits) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Return which cases are far from all others by what a model is given of them, and how far each is.

    Parameters
    ----------
    inputs
        A row per case (index: case_id) of `drift.case_inputs.measure_inputs`.
    limits
        From when on a case is far, and from how many cases on anyone can tell.

    Returns
    -------
    findings : list of Finding
        An error or a warning for each case that is far; a warning where there are too few cases.
    distances : list of dict
        By case: `distance`, `ratio` (per the middle distance of the others) and `features`, those that are farthest
        off with how many spreads. Empty where there are too few cases.

    Notes
    -----
    The middle distance and not the greatest: two cases with one fault would hide each other.
    """
    if len(inputs) < limits.least_cases:
        message = (
            f"{len(inputs)} cases are too few to be held against each other, wanted {limits.least_cases} at least: an "
            "image of another patient, or one that is off by a few HU, must show in the case itself"
        )
        return [Finding("outlier_few", "", "warning", message)], []
    try:
        found = measure_left_out(inputs)
    except BadInput as error:
        return [Finding("outlier_blind", "", "error", f"no case can be held against the others: {error}")], []
    distances = np.asarray([row["distance"] for row in found])
    findings = []
    for index, row in enumerate(found):
        middle = float(np.median(np.delete(distances, index)))
        row["ratio"] = ratio = row["distance"] / max(middle, LEAST_DISTANCE)
        if keeps(ratio, most=limits.warning_ratio):
            continue
        is_warning = keeps(ratio, most=limits.error_ratio)
        off = ", ".join(f"{name} by {by:+.1f} spreads" for name, by in row["features"].items())
        limit = limits.warning_ratio if is_warning else limits.error_ratio
        message = (
            f"{row['case_id']}: {ratio:.1f} times as far from all other cases as the middle one of them, wanted at "
            f"most {limit:g} ({off}); look at image and contours"
        )
        numbers = {"distance": row["distance"], "ratio": ratio}
        findings.append(Finding("outlier", row["case_id"], "warning" if is_warning else "error", message, numbers))
    return findings, found
