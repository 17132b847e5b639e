"""Features against a suite of expectations (Great Expectations) in JSON."""

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
from doseledger.core.text.lists import first_of
from doseledger.gates.verdict import Finding, Severity

# Great Expectations says critical, warning or info; only what is critical stops the pipeline.
SEVERITIES: dict[str, Severity] = {"critical": "error", "warning": "warning", "info": "warning"}
NEEDED = {"type", "kwargs", "severity", "meta"}
NUMBER = "number"
# How many cases a finding of the cohort names.
MOST_NAMED = 5
# Expectations whose arguments say nothing but where they look, in words; and arguments that only say where or how.
PLAIN = {
    "expect_column_values_to_be_unique": "each value once",
    "expect_compound_columns_to_be_unique": "each combination once",
    "expect_column_values_to_not_be_null": "a value",
}
NOT_WANTED = frozenset({"column", "mostly", "row_condition", "condition_parser", "ignore_row_if"})


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
        if item["severity"] not in list(SEVERITIES):
            raise BadInput(f"{where}: severity {item['severity']!r}, wanted one of {', '.join(SEVERITIES)}")
        if not isinstance(item["meta"], dict) or not item["meta"].get("notes") or not item["meta"].get("gate"):
            raise BadInput(f"{where} ({item['type']}): needs its reason in meta.notes and a name in meta.gate")
    return expectations


def is_of_one_case(expectation: Mapping[str, Any]) -> bool:
    """Return whether each case meets an expectation, or not, by its own row: no mean, share, number or uniqueness."""
    kind = str(expectation["type"])
    return "_values_" in kind and "unique" not in kind and expectation["kwargs"].get("mostly", 1) == 1


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
    """Return each expectation's outcome, of one checkpoint over one suite."""
    # Before its import: Great Expectations phones home unless told not to.
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    with warnings.catch_warnings():
        # Its own dependencies warn of Python's deprecated modules; nothing here can mend that.
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig
        from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("cohort").add_dataframe_asset("features")
        outcomes: dict[int, dict[str, Any]] = {}
        known = []
        for number, item in enumerate(expectations):
            try:
                # Results come back in another order: each carries its number.
                configuration = ExpectationConfiguration(
                    type=item["type"], kwargs=dict(item["kwargs"]), severity=item["severity"], meta={NUMBER: number}
                )
                known.append(configuration.to_domain_obj())
            except Exception as error:  # whatever the library objects to, the gate has not seen its data
                outcomes[number] = {"success": False, "exception_info": {"exception_message": str(error)}}
        if known:
            suite = context.suites.add(gx.ExpectationSuite(name="cohort", expectations=known))
            data = asset.add_batch_definition_whole_dataframe("all")
            definition = gx.ValidationDefinition(name="cohort", data=data, suite=suite)
            checkpoint = gx.Checkpoint(
                name="cohort",
                validation_definitions=[context.validation_definitions.add(definition)],
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["case_id"]},
            )
            results = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": features}).run_results
            for result in next(iter(results.values())).to_json_dict()["results"]:
                outcomes[result["expectation_config"]["meta"][NUMBER]] = result
    return [outcomes[number] for number in range(len(expectations))]


def _exception_of(outcome: Mapping[str, Any]) -> str:
    """Return why an expectation could not be judged; empty if it was."""
    info = outcome.get("exception_info") or {}
    entries = [info] if "exception_message" in info else list(info.values())
    messages = [str(entry.get("exception_message")) for entry in entries if entry.get("exception_message")]
    return "; ".join(sorted(set(messages)))


def describe_wanted(kwargs: Mapping[str, Any], kind: str = "") -> str:
    """Return what an expectation wants, in words; `kind` is its type, which tells what its arguments alone don't.

    Examples
    --------
    >>> describe_wanted({"column": "Rectum_volume_cc", "min_value": 20, "max_value": 300})
    '20 to 300'
    >>> describe_wanted({"column": "D95", "min_value": 95, "mostly": 0.9, "row_condition": "volume > 5"})
    'at least 95, in 90 % of the cases with volume > 5'
    >>> describe_wanted({"column_A": "PTV", "column_B": "CTV"}, "expect_column_pair_values_a_to_be_greater_than_b")
    'PTV above CTV'
    """
    mostly, condition = kwargs.get("mostly", 1), kwargs.get("row_condition")
    share = f", in {100 * mostly:g} % of the cases" if mostly != 1 else ""
    if condition:
        share = f"{share or ', in the cases'} with {condition}"
    return _plainly_wanted(kwargs, kind) + share


def _plainly_wanted(kwargs: Mapping[str, Any], kind: str) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if low is not None:
        return f"at least {low:g}"
    if high is not None:
        return f"at most {high:g}"
    if "value_set" in kwargs:
        return f"one of {', '.join(str(value) for value in kwargs['value_set'])}"
    if "column_A" in kwargs and "greater" in kind:
        return f"{kwargs['column_A']} {'at least' if kwargs.get('or_equal') else 'above'} {kwargs['column_B']}"
    if kind in PLAIN:
        return PLAIN[kind]
    rest = {key: value for key, value in kwargs.items() if key not in NOT_WANTED}
    return ", ".join(f"{key} {value}" for key, value in sorted(rest.items())) or "a value"


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    """Names of the columns that an expectation looks at; none where it looks at the table."""
    single = [str(kwargs[key]) for key in ("column", "column_A", "column_B") if key in kwargs]
    return [*single, *(str(name) for name in kwargs.get("column_list", []))]


def _findings_of(expectation: dict[str, Any], outcome: dict[str, Any]) -> list[Finding]:
    kwargs, meta = expectation["kwargs"], expectation["meta"]
    severity, gate, columns = SEVERITIES[expectation["severity"]], str(meta["gate"]), _columns(kwargs)
    subject = " and ".join(columns) or expectation["type"]
    trouble = _exception_of(outcome)
    if trouble:
        message = f"{subject} could not be judged ({trouble}); mend the suite or the data"
        return [Finding("suite_blind", "", "error", message, {"column": subject})]
    if outcome.get("success"):
        return []
    wanted = describe_wanted(kwargs, expectation["type"])
    why = " ".join(str(meta[key]) for key in ("notes", "advice") if meta.get(key))
    rows = outcome.get("result", {}).get("unexpected_index_list") or []
    if rows and kwargs.get("mostly", 1) != 1:
        # A share is the cohort's, and no one case is to blame.
        ids = first_of([row["case_id"] for row in rows], MOST_NAMED)
        message = f"{subject} is beyond in {len(rows)} of the cases ({ids}), wanted {wanted}. {why}"
        return [Finding(gate, "", severity, message, {"column": subject, "n_cases": len(rows)})]
    findings = []
    for row in rows:
        values = [row.get(column) for column in columns]
        found = ", ".join(f"{column} is {_shown(value)}" for column, value in zip(columns, values, strict=True))
        message = f"{row['case_id']}: {found}, wanted {wanted}. {why}"
        numbers = {"column": subject, "value": values[0] if len(values) == 1 else values}
        findings.append(Finding(gate, str(row["case_id"]), severity, message, numbers))
    if not findings:
        observed = outcome.get("result", {}).get("observed_value")
        message = f"{subject} of the cohort is {_shown(observed)}, wanted {wanted}. {why}"
        findings.append(Finding(gate, "", severity, message, {"column": subject, "value": observed}))
    return findings


def _shown(value: object) -> str:
    if value is None:
        return "absent"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _result_of(
    features: pd.DataFrame, expectation: dict[str, Any], outcome: dict[str, Any], found: list[Finding]
) -> dict[str, Any]:
    columns = _columns(expectation["kwargs"])
    one = columns[0] if len(columns) == 1 and columns[0] in features else None
    values = pd.to_numeric(features[one], errors="coerce") if one is not None else pd.Series(dtype=float)
    least, most = float(values.min()), float(values.max())
    n_cases = int(features[one].notna().sum()) if one is not None else len(features)
    return {
        "type": expectation["type"],
        "gate": expectation["meta"]["gate"],
        "column": " and ".join(columns),
        "wanted": describe_wanted(expectation["kwargs"], expectation["type"]),
        "severity": SEVERITIES[expectation["severity"]],
        "reason": expectation["meta"]["notes"],
        "n_cases": n_cases,
        "min": least if math.isfinite(least) else None,
        "max": most if math.isfinite(most) else None,
        "ok": bool(outcome.get("success")),
        "n_unexpected": len(found),
    }
