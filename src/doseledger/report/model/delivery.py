"""The deliverable plans of a model's predicted doses, as a section of its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.text.sheet import Table, format_number, make_table, plural
from doseledger.evaluate.predictions import read_undeliverable
from doseledger.report.model.optional import optional_section

STALE = "The plans on record are of another checkpoint's doses, and are not shown; run `doseledger deliver plan` again."
DOSES = ("predicted", "delivered", "original")


def describe_plans(path: Path, case_metrics: pd.DataFrame) -> dict[str, Any] | None:
    """Return what is to be said of the plans that were made of the predicted doses; None where none were made.

    Parameters
    ----------
    path
        `deliver.json`, which only a stage writes that is off as it ships.
    case_metrics
        Of the evaluated predictions; plans of another checkpoint's doses say nothing of these.

    Raises
    ------
    BadInput
        If the file is no JSON mapping.
    """
    return optional_section(
        path, case_metrics, STALE, lambda found: (str(found.get("note", "")), (plans_table(found), cases_table(found)))
    )


def describe_projection(predictions: Path, case_ids: Iterable[str]) -> str:
    """Return how far projected doses lie from what their model told, in words; empty where none was projected.

    Raises
    ------
    BadCase
        If a prediction can't be read.
    """
    found = {name: read_undeliverable(predictions / f"{name}.npz") for name in case_ids}
    apart_gy = {name: value for name, value in found.items() if value is not None}
    if not apart_gy:
        return ""
    worst = max(apart_gy, key=lambda name: apart_gy[name])
    mean = format_number(sum(apart_gy.values()) / len(apart_gy), 2)
    return (
        f"Each dose is the nearest that the protocol's beams can give (predict.project). On average it lies {mean} Gy "
        f"from what the model told, in {worst} {format_number(apart_gy[worst], 2)} Gy. It is no plan yet."
    )


def plans_table(found: Mapping[str, Any]) -> Table:
    """Return the means over the plans of the test cases: gap, goals, monitor units, modulation."""
    gap, met = found["gap"], found["goals_met_percent"]
    worst = format_number(found["worst_gamma_3_3_percent"], 1)
    rows = [
        ("Gamma 3 %/3 mm (%), in brackets the worst case", f"{format_number(gap['gamma_3_3_percent'], 1)} ({worst})"),
        ("Gamma 3 %/2 mm (%)", format_number(gap["gamma_3_2_percent"], 1)),
        ("Gamma 2 %/2 mm (%)", format_number(gap["gamma_2_2_percent"], 1)),
        ("MAE above 10 % of the prescription (Gy)", format_number(gap["mae_above_10_percent_gy"], 2)),
        ("MAE in the body (Gy)", format_number(gap["mae_body_gy"], 2)),
        *((f"Goals met by the {who} dose (%)", format_number(met[who], 1)) for who in DOSES if who in met),
        ("Monitor units per Gy", format_number(found["mu_per_gy"], 0)),
        ("Modulation score (1 is an open field)", format_number(found["modulation_score"], 3)),
    ]
    caption = f"Plans of {plural(found['n_cases'], 'test case')}: delivered dose against the predicted one"
    failed = "; ".join(f"{name}: {why}" for name, why in sorted(found["failed"].items()))
    note = f"Without a plan: {failed}." if failed else ""
    return make_table(caption, ("Mean over the cases", "#Value"), rows, note=note)


def cases_table(found: Mapping[str, Any]) -> Table:
    """Return a row for each plan: gap, D95% as it was before all MU were scaled to the prescription, goals, MU."""
    rows = [
        (
            name,
            format_number(one["gamma_3_3_percent"], 1),
            format_number(one["gamma_2_2_percent"], 1),
            format_number(one["mae_above_10_percent_gy"], 2),
            format_number(one["d95_before_scaling_gy"], 2),
            f"{' / '.join(str(one['goals_met'][who]) for who in DOSES if who in one['goals_met'])} "
            f"of {one['goals_evaluable']}",
            format_number(one["mu_per_gy"], 0),
            format_number(one["modulation_score"], 3),
        )
        for name, one in sorted(found.get("cases", {}).items())
    ]
    columns = (
        "Case",
        "#Gamma 3 %/3 mm (%)",
        "#2 %/2 mm (%)",
        "#MAE (Gy)",
        "#D95% unscaled (Gy)",
        "#Goals met",
        "#MU/Gy",
        "#Modulation",
    )
    note = f"Goals met by the {', '.join(DOSES[:-1])} and, where there is one, the {DOSES[-1]} dose."
    return make_table("Plans case by case", columns, rows, note=note, empty="The record holds means alone.")
