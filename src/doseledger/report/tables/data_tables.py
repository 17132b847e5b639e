"""Tables of the data report: prescription, features, expectations, drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.project.protocol import Protocol
from doseledger.core.text.sheet import MISSING, Cell, Table, format_number, make_table
from doseledger.core.text.words import in_words, spell_feature
from doseledger.report.gate_pages import most_changed
from doseledger.report.tables.sections import PARTS

# Features that the drift table shows; all stand in the gate's own page.
SHOWN_FEATURES = 20
NOT_COMPARED = (
    "No feature was compared: a side has fewer than five cases. Medians of both sides stand in the gate's own page."
)


def prescription_table(protocol: Protocol) -> Table:
    """Return the dose that each target is prescribed, in all and per fraction."""
    fractions = protocol.n_fractions
    rows = [
        (name, f"{dose:g}", fractions or MISSING, format_number(dose / fractions if fractions else None, 2))
        for name, dose in protocol.prescription_gy.items()
    ]
    columns = ("Target", "#Dose (Gy)", "#Fractions", "#Per fraction (Gy)")
    return make_table("Prescription", columns, rows, note=f"Protocol: {protocol.title}.")


def optional_table(verdict: Mapping[str, Any]) -> Table:
    """Return in how many cases each optional structure was found, and which unclaimed ROIs may be it in others."""
    rows = [
        (row["structure"], row["found"], row["cases"], Cell(str(row["may_be_cases"]), "warn" if row["may_be"] else ""),
         row["may_be"] or MISSING)
        for row in verdict.get("details", {}).get("optional", [])
    ]  # fmt: skip
    columns = ("Structure", "#Found in", "#Of", "#May be there in", "Unclaimed ROIs that may be it (cases)")
    return make_table("Optional structures", columns, rows)


def features_table(features: pd.DataFrame, parts: pd.Series) -> Table:
    """Return each feature's median and range over all cases, and its median in each part."""
    part_of = parts.reindex(features.index)
    rows = []
    for name in features.columns:
        values = features[name].dropna().to_numpy(dtype=np.float64)
        span = f"{_short(values.min())} to {_short(values.max())}" if len(values) else MISSING
        medians = [features.loc[part_of == part, name].dropna() for part in PARTS]
        rows.append(
            (
                spell_feature(str(name)),
                len(values),
                _short(np.median(values)) if len(values) else MISSING,
                span,
                *(_short(part.median()) if len(part) else MISSING for part in medians),
            )
        )
    columns = ("=Feature", "#Cases", "#Median", "#Range", *(f"#{part}" for part in PARTS))
    note = "Medians by part on the right. A case without the structure does not count."
    return make_table("Features of the cases", columns, rows, note=note)


def _short(value: float) -> str:
    number = float(value)
    return f"{number:,.0f}" if abs(number) >= 1e4 else f"{number:.4g}".replace("-", "−")


def expectations_table(verdict: Mapping[str, Any]) -> Table:
    """Return what the data gate expects of a healthy cohort, what it found, and why."""
    rows = []
    for row in verdict.get("details", {}).get("expectations", []):
        found = MISSING if row.get("min") is None else f"{_short(row['min'])} to {_short(row['max'])}"
        bad = Cell(f"{row['n_unexpected']} beyond", "bad" if row["severity"] == "error" else "warn")
        rows.append(
            (
                _columns(row["column"]),
                in_words(row["wanted"]).replace("-", "−"),
                found,
                Cell("met", "good") if row["ok"] else bad,
                row["reason"],
            )
        )
    columns = ("=Feature", "Wanted", "#Found", "Result", "=Why")
    return make_table("Expectations", columns, rows, empty="The data gate holds this cohort to no expectations.")


def _columns(names: str) -> str:
    """What an expectation is about: a column, several, or none."""
    return spell_feature(names) if names.isidentifier() else in_words(names) or "cohort"


def drift_cases_table(drift: Mapping[str, Any]) -> Table:
    """Return how far each test case is from the training cases, the farthest first."""
    rows = []
    for case in sorted(drift.get("cases", []), key=lambda row: (-row["distance"], row["case_id"])):
        off = ", ".join(f"{_unitless(name)} {format_number(by, 1, sign=True)}" for name, by in case["features"].items())
        changed = ", ".join(f"{spell_feature(name)} = {value:g}" for name, value in case["changed"].items())
        ratio = Cell(format_number(case["ratio"], 2), "warn" if case["ratio"] > 1 else "")
        rows.append(
            (case["case_id"], format_number(case["distance"], 2), ratio, "; ".join(filter(None, (off, changed))))
        )
    columns = ("Case", "#Distance", "#Of the farthest", "=What is off, in spreads of the training cases")
    note = (
        "Distance from the training cases (1 is typical), and that per the farthest training case's from the rest: "
        "above 1 a case is beyond all of them."
    )
    return make_table("Test cases, the farthest first", columns, rows, note=note, empty="No test case was looked at.")


def _unitless(name: str) -> str:
    return spell_feature(name).partition(" (")[0]


def drift_features_table(drift: Mapping[str, Any]) -> Table:
    """Return the features that differ most between training and test cases."""
    alpha = drift.get("limits", {}).get("alpha", 0.0)
    # JSON has no NaN: null stands for a number that there is not.
    features = [{k: np.nan if v is None else v for k, v in row.items()} for row in drift.get("features", [])]
    rows = [
        (
            spell_feature(str(row["feature"])),
            _number(row["reference"]),
            _number(row["new"]),
            Cell(_number(row["ks_p_adjusted"]), "bad" if row["ks_p_adjusted"] < alpha else ""),
            Cell(_number(row["psi"]), "warn" if row["psi"] > row["psi_limit"] else ""),
            _number(row["psi_limit"]),
        )
        for row in most_changed(features)[:SHOWN_FEATURES]
    ]
    if all(np.isnan(row["ks_p"]) and np.isnan(row["psi"]) for row in features):
        rows = []
    columns = ("Feature", "#Median, training", "#Median, test", "#KS p (Holm)", "#PSI", "#PSI limit")
    more = len(features) - len(rows)
    note = "Kolmogorov-Smirnov test and population stability index; – where a side has fewer than five cases."
    note += f" The first {len(rows)}; {more} more stand in the gate's own page." if more > 0 else ""
    return make_table("Features, the most changed first", columns, rows, note=note, empty=NOT_COMPARED)


def _number(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.3g}".replace("-", "−")


def hashes_table(cases: pd.DataFrame, parts: pd.Series) -> Table:
    """Return who each case is, in which part it is, and the hash of its file."""
    rows = [
        (row.case_id, row.pseudonym, row.group, row.site, parts.get(row.case_id, "in none"), row.sha256)
        for row in cases.sort_values("case_id").itertuples()
    ]
    columns = ("Case", "Patient", "Group", "Site", "Part", "@SHA256 of the file")
    return make_table("Cases", columns, rows, note="What cases.csv says; every file was compared with its hash.")
