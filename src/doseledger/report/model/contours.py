"""Dose on predicted contours, as a section of a dose model's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.text.sheet import Table, format_number, make_table, plural
from doseledger.report.model.optional import optional_section

STALE = "The doses on predicted contours are of another checkpoint, and are not shown; run `doseledger contours` again."


def describe_closed_loop(path: Path, case_metrics: pd.DataFrame) -> dict[str, Any] | None:
    """Return what is to be said of doses on predicted contours; None where there are none.

    Parameters
    ----------
    path
        `contours.json`, which only a stage writes that is off as it ships.
    case_metrics
        Of the evaluated predictions; doses of another checkpoint say nothing of these.

    Raises
    ------
    BadInput
        If the file is no JSON mapping.
    """
    return optional_section(path, case_metrics, STALE, _tell)


def _tell(found: Mapping[str, Any]) -> tuple[str, tuple[Table, ...]]:
    text = (
        f"The dose of each test case was predicted again with {', '.join(found['structures'])} as the model "
        f"{found['contours_by']} draws them (mean Dice {format_number(found['dice'], 3)}, "
        f"{format_number(found['dice_worst'], 3)} in the worst case); all else is as drawn. Both doses are judged on "
        f"the drawn contours. {_flips(found)}"
    )
    return text, (changes_table(found), cases_table(found))


def _flips(found: Mapping[str, Any]) -> str:
    flipped = f"{found['n_flipped']} of {plural(found['n_goals'], 'goal')} flip"
    which = ", ".join(f"{goal} ({times}×)" for goal, times in found["flips"].items())
    return (
        f"{flipped}{f': {which}' if which else ''}. Whoever judges by the predicted contours alone finds "
        f"{found['n_seen_flipped']} otherwise."
    )


def changes_table(found: Mapping[str, Any]) -> Table:
    """Return how far the dose moves, in the mean and at most."""
    plan, masks = (
        found["plan_mae_body_gy"],
        {"body": "in the body", "above_10_percent": "above 10 % of the prescription"},
    )
    rows = [
        (f"MAE {where} (Gy)", *_two(found[f"mae_{mask}_gy"], found[f"mae_{mask}_gy_worst"]))
        for mask, where in masks.items()
    ]
    for target, change in found["d95_change_gy"].items():
        if change is not None:
            rows.append((f"Change of D95% of {target} (Gy)", *_two(change["mean"], change["largest"])))
    rows.append(("MAE in the body from the plan (Gy): drawn contours", format_number(plan["drawn"], 2), ""))
    rows.append(("MAE in the body from the plan (Gy): predicted contours", format_number(plan["predicted"], 2), ""))
    caption = f"Dose on contours of {found['contours_by']} against that on drawn ones"
    return make_table(caption, ("", "#Mean of the cases", "#Largest"), rows)


def cases_table(found: Mapping[str, Any]) -> Table:
    """Return a row a test case: how far its dose moves, and which goals flip."""
    rows = []
    for name, row in found["cases"].items():
        flips = [
            f"{flip['goal']}: {format_number(flip['drawn'], 2)} to {format_number(flip['predicted'], 2)}"
            for flip in row["flipped"]
        ]
        numbers = (format_number(row["dice"], 3), format_number(row["mae_body_gy"], 2))
        rows.append((name, *numbers, f"{row['n_flipped']} of {row['n_goals']}", "; ".join(flips)))
    columns = ("Case", "#Dice of the contours", "#MAE in the body (Gy)", "#Goals that flip", "From, to")
    return make_table("Dose on predicted contours, by case", columns, rows)


def _two(mean: float | None, most: float | None) -> tuple[str, str]:
    return format_number(mean, 2), format_number(most, 2)
