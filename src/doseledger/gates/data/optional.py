"""Optional structures: drawn, but read from few of the cases."""

from __future__ import annotations

from typing import Any

import pandas as pd

from doseledger.gates.limits import OptionalFoundLimits
from doseledger.gates.verdict import Finding, Severity


def judge_optional(table: pd.DataFrame, limits: OptionalFoundLimits) -> list[Finding]:
    """Return an error or a warning for each optional structure that cases have lost.

    Parameters
    ----------
    limits
        How many of the cases in which the structure, or an unclaimed ROI that may be it, is drawn must have it.

    Notes
    -----
    An error is a structure that was lost by its name in too many cases. One that few cases have, and nothing else is
    like, is a warning: nobody draws it, or its name is one that no hint knows.
    """
    findings = []
    for row in optional_rows(table):
        found, lost, cases = row["found"], row["may_be_cases"], row["cases"]
        drawn = found + lost
        few = not found >= limits.min_percent / 100.0 * (drawn if lost else cases)
        if not cases or not (lost or few):
            continue
        severity: Severity = "error" if lost and few else "warning"
        message = f"{row['structure']}: found in {found} of {cases} cases; "
        if lost:
            message += (
                f"in {lost} more an unclaimed ROI may be it: {row['may_be']} (wanted {limits.min_percent:g} % of those "
                "that draw it). Add the alias to the protocol, or rename the ROI"
            )
        else:
            message += "no unclaimed ROI of the others is like it. See whether they draw it under another name"
        numbers = {"found": found, "may_be_cases": lost, "cases": cases}
        findings.append(Finding("optional_found", "", severity, message, numbers))
    return findings


def optional_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of structures that a case may lack, as JSON values."""
    rows = table[~table["required"]].to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]
