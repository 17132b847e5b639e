"""Rows of features against a suite of expectations (Great Expectations), read from JSON that a physicist edits."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.files import read_json
from doseledger.gates.verdict import Finding, Severity

# Great Expectations says critical, warning or info; only what is critical stops the pipeline.
SEVERITIES: dict[str, Severity] = {"critical": "error", "warning": "warning", "info": "warning"}
NEEDED = {"type", "kwargs", "severity", "meta"}


def read_suite(path: Path) -> list[dict[str, Any]]:
    """Return the expectations of a suite after checking their form.

    Raises
    ------
    BadInput
        If the file is no suite, or an expectation has no reason (`meta.notes`), check name (`meta.gate`) or severity.
    """
    suite = read_json(path)
    expectations = suite.get("expectations") if isinstance(suite, dict) else None
    if not isinstance(expectations, list) or not expectations:
        raise BadInput(f"{path}: wanted a suite with a list of expectations")
    for number, item in enumerate(expectations):
        where = f"{path}: expectation {number}"
        if not isinstance(item, dict) or set(item) != NEEDED:
            raise BadInput(f"{where}: wanted {', '.join(sorted(NEEDED))}, found {item!r}")
        if item["severity"] not in SEVERITIES:
            raise BadInput(f"{where}: severity {item['severity']!r}, wanted one of {', '.join(SEVERITIES)}")
        if not item["meta"].get("notes") or not item["meta"].get("gate"):
            raise BadInput(f"{where} ({item['type']}): needs its reason in meta.notes and a name in meta.gate")
    return expectations


def judge_features(
    features: pd.DataFrame, expectations: list[dict[str, Any]]
) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Return the findings of a suite, and the result of each expectation for the report.

    Parameters
    ----------
    features
        One row per case with a `case_id` (see gates/features.py).
    expectations
        As `read_suite` gives them.

    Returns
    -------
    findings : list of Finding
        One per case and expectation that failed; one per expectation that could not be judged.
    results : list of dict
        Name, column, wanted, found range and number of unexpected cases of each expectation.

    Notes
    -----
    Great Expectations turns its overall `success` off on a mere warning, and reports a column that is not there as an
    exception with an empty list of cases; so each expectation is read by itself.
    """
    findings: list[Finding] = []
    results = []
    for expectation, outcome in zip(expectations, _validate(features, expectations), strict=True):
        found = _findings_of(expectation, outcome)
        findings += found
        results.append(_result_of(features, expectation, outcome, found))
    return findings, results


def _validate(features: pd.DataFrame, expectations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Before its import: Great Expectations phones home unless told not to.
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    with warnings.catch_warnings():
        # Its own dependencies warn of Python's deprecated modules; nothing here can mend that.
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("cohort").add_dataframe_asset("features")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": features})
        # One by one: validated together they come back in another order, and without a name to match them by.
        wanted = {"result_format": "COMPLETE", "unexpected_index_column_names": ["case_id"]}
        return [_validate_one(batch, gx, item, wanted) for item in expectations]


def _validate_one(batch: Any, gx: Any, item: dict[str, Any], result_format: dict[str, Any]) -> dict[str, Any]:
    try:
        suite = gx.ExpectationSuite(name="one", expectations=[{"type": item["type"], "kwargs": dict(item["kwargs"])}])
        outcome: dict[str, Any] = batch.validate(suite, result_format=result_format).to_json_dict()["results"][0]
    except Exception as error:  # whatever the library objects to, the gate has not seen its data
        return {"success": False, "result": {}, "exception_info": {"exception_message": str(error)}}
    return outcome


def _exception_of(outcome: Mapping[str, Any]) -> str:
    """Return why an expectation could not be judged; empty if it was."""
    info = outcome.get("exception_info") or {}
    entries = [info] if "exception_message" in info else list(info.values())
    messages = [str(entry.get("exception_message")) for entry in entries if entry.get("exception_message")]
    return "; ".join(sorted(set(messages)))


def describe_wanted(kwargs: Mapping[str, Any]) -> str:
    """Return what an expectation wants, in words.

    Examples
    --------
    >>> describe_wanted({"column": "Rectum_volume_cc", "min_value": 20, "max_value": 300})
    '20 to 300'
    """
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if low is not None:
        return f"at least {low:g}"
    if high is not None:
        return f"at most {high:g}"
    rest = {key: value for key, value in kwargs.items() if key != "column"}
    return ", ".join(f"{key} {value}" for key, value in sorted(rest.items())) or "a value"


def _findings_of(expectation: dict[str, Any], outcome: dict[str, Any]) -> list[Finding]:
    kwargs, meta = expectation["kwargs"], expectation["meta"]
    severity, gate, column = SEVERITIES[expectation["severity"]], str(meta["gate"]), str(kwargs.get("column", ""))
    trouble = _exception_of(outcome)
    if trouble:
        message = f"{column or expectation['type']} could not be judged ({trouble}); mend the suite or the data"
        return [Finding("suite_blind", "", "error", message, {"column": column})]
    if outcome.get("success"):
        return []
    wanted = describe_wanted(kwargs)
    why = " ".join(str(meta[key]) for key in ("notes", "advice") if meta.get(key))
    rows = outcome.get("result", {}).get("unexpected_index_list") or []
    findings = []
    for row in rows:
        value = row.get(column)
        shown = f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
        message = f"{row['case_id']}: {column} is {shown}, wanted {wanted}. {why}"
        findings.append(Finding(gate, str(row["case_id"]), severity, message, {"column": column, "value": value}))
    if not findings:
        observed = outcome.get("result", {}).get("observed_value")
        message = f"{column or expectation['type']} of the cohort is {observed}, wanted {wanted}. {why}"
        findings.append(Finding(gate, "", severity, message, {"column": column, "value": observed}))
    return findings


def _result_of(
    features: pd.DataFrame, expectation: dict[str, Any], outcome: dict[str, Any], found: list[Finding]
) -> dict[str, Any]:
    column = str(expectation["kwargs"].get("column", ""))
    values = pd.to_numeric(features[column], errors="coerce") if column in features else pd.Series(dtype=float)
    least, most = float(values.min()), float(values.max())
    return {
        "type": expectation["type"],
        "gate": expectation["meta"]["gate"],
        "column": column,
        "wanted": describe_wanted(expectation["kwargs"]),
        "severity": SEVERITIES[expectation["severity"]],
        "reason": expectation["meta"]["notes"],
        "n_cases": int(values.notna().sum()),
        "min": least if math.isfinite(least) else None,
        "max": most if math.isfinite(most) else None,
        "ok": bool(outcome.get("success")),
        "n_unexpected": len(found),
    }
