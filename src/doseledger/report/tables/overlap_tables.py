"""Results of a segmentation's report: overlap by structure, volumes, cases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from doseledger.core.text.sheet import MISSING, Cell, Table, format_number, make_table
from doseledger.evaluate.overlap import MORE_IS_BETTER
from doseledger.evaluate.segmentation import RANKED_BY_OVERLAP, structures_of
from doseledger.ledger.runs.facts import RunFacts

# Measures as they are called, and their digits.
TITLES = {"dice": ("Dice", 3), "iou": ("IoU", 3), "hd95_mm": ("HD95 (mm)", 2), "surface_dice": ("Surface Dice", 3)}


def overlap_table(facts: RunFacts, tolerance_mm: float, colours: Mapping[str, str]) -> Table:
    """Return each measure over all structures and of each, over the test cases."""
    rows = []
    for name in ("", *structures_of(facts.case_metrics.columns)):
        for measure, (title, digits) in TITLES.items():
            column = f"{measure}_{name}" if name else measure
            values = pd.to_numeric(facts.case_metrics[column], errors="coerce")
            known = values.dropna()
            if known.empty:
                continue
            at = int(np.argmin(known) if measure in MORE_IS_BETTER else np.argmax(known))
            low, high = (format_number(facts.summary.get(f"{column}_{end}"), digits) for end in ("low", "high"))
            interval = MISSING if MISSING in (low, high) else f"{low} to {high}"
            numbers = [format_number(float(value), digits) for value in (known.mean(), known.median(), known.iloc[at])]
            case_id = str(facts.case_metrics.loc[known.index[at], "case_id"])
            structure = Cell(name or "all structures", swatch=colours.get(name, ""))
            rows.append((structure, title, len(known), numbers[0], interval, numbers[1], numbers[2], case_id))
    columns = ("Structure", "Measure", "#Cases", "#Mean", "#95 % interval", "#Median", "#Worst", "Worst case")
    note = (
        f"Surface Dice at {tolerance_mm:g} mm; HD95 is the 95 % Hausdorff distance. A structure in neither label has "
        "no value; one in a single label has an overlap of 0 and the image's diagonal as its distance. Intervals are "
        "bootstraps over cases."
    )
    return make_table("Overlap of prediction and reference", columns, rows, note=note)


def volumes_table(facts: RunFacts, colours: Mapping[str, str]) -> Table:
    """Return how the volumes of structures agree."""
    rows = []
    for name in structures_of(facts.case_metrics.columns):
        drawn, found = (
            float(np.mean(facts.case_metrics[f"volume_cc_{who}_{name}"])) for who in ("reference", "prediction")
        )
        said = [
            facts.summary.get(f"volume_{key}_{name}") for key in ("bias_cc", "agreement_low_cc", "agreement_high_cc")
        ]
        bias, low, high = (format_number(value, 2, sign=True) for value in said)
        structure = Cell(name, swatch=colours.get(name, ""))
        rows.append((structure, format_number(drawn, 2), format_number(found, 2), bias, f"{low} to {high}"))
    columns = ("Structure", "#Reference (cc)", "#Prediction (cc)", "#Bias (cc)", "#Limits of agreement (cc)")
    note = "Bias is the mean of prediction − reference; the limits hold 95 % of differences (Bland and Altman 1986)."
    return make_table("Volumes", columns, rows, note=note)


def label_cases_table(facts: RunFacts) -> Table:
    """Return one row per test case and its measures, the worst first."""
    names = structures_of(facts.case_metrics.columns)
    ordered = facts.case_metrics.sort_values([RANKED_BY_OVERLAP, "case_id"], na_position="first")
    columns = ["Case", *(f"#{title}" for title, _ in TITLES.values()), *(f"#Dice {name}" for name in names)]
    wanted = [*TITLES, *(f"dice_{name}" for name in names)]
    rows = []
    for row in ordered.to_dict("records"):
        digits = [TITLES.get(name, ("", 3))[1] for name in wanted]
        cells = [format_number(_number(row[name]), n) for name, n in zip(wanted, digits, strict=True)]
        rows.append((row["case_id"], *cells))
    return make_table("Test cases, the worst first", tuple(columns), rows)


def _number(value: object) -> float | None:
    number = float(value) if isinstance(value, (int, float)) else float("nan")
    return None if np.isnan(number) else number
