"""The report's results: errors under named masks, gamma, DVH statistics, clinical goals and the table of cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.ledger.blocks import Card, Cell, State, Table, format_number, make_table, plural

MAE_COLUMN = re.compile(r"mae_(?P<mask>.+)_gy")
# As evaluate.metrics.gamma_column names them.
GAMMA_COLUMN = re.compile(
    r"gamma_(?P<percent>[\d.]+)percent_(?P<mm>[\d.]+)mm_(?P<kind>global|local)_cutoff(?P<cutoff>[\d.]+)_percent"
)
# Cases are ranked by the error where there is dose: the body is mostly cold, and its size alone moves its mean.
RANKING_COLUMN = "mae_above_10_percent_gy"
# Errors that are not of a structure.
REGIONS = {
    "above_10_percent": "dose above 10 % of the highest prescription",
    "body": "body",
    "valid_dose": "valid dose",
}
HEADLINE_MASKS = ("above_10_percent", "body")
DVH_COLUMNS = ("case_id", "structure", "statistic", "unit", "plan", "prediction")
GOAL_COLUMNS = (
    "case_id", "goal", "unit", "gating", "plan", "prediction", "plan_met", "prediction_met", "plan_acceptable",
    "prediction_acceptable",
)  # fmt: skip


def require_columns(frame: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    BadInput
        Naming the columns, and what to do.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise BadInput(
            f"{where} lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}; evaluate again"
        )


def mae_masks(case_metrics: pd.DataFrame) -> dict[str, str]:
    """Return {column: mask} of the errors in the table of cases."""
    found = {str(name): MAE_COLUMN.fullmatch(str(name)) for name in case_metrics.columns}
    return {name: match["mask"] for name, match in found.items() if match}


def spell_mask(mask: str) -> str:
    """Return how a mask is called in the report; a structure keeps its name."""
    return REGIONS.get(mask, mask)


def headline_cards(case_metrics: pd.DataFrame, goal_results: pd.DataFrame) -> list[Card]:
    """Return the key numbers: error, gamma and clinical goals, each with its mask or criterion and number of cases."""
    cards = []
    for column, mask in mae_masks(case_metrics).items():
        if mask in HEADLINE_MASKS:
            values = _numbers(case_metrics[column])
            cases = plural(len(values), "test case")
            note = f"mean of {cases}; mask: {spell_mask(mask)}; worst case {format_number(_worst(values), 2)} Gy"
            cards.append(Card("Mean absolute error", format_number(_mean(values), 2), "Gy", note))
    for column in gamma_columns(case_metrics):
        values = _numbers(case_metrics[column])
        note = f"mean of {plural(len(values), 'test case')}; lowest {format_number(_least(values), 1)} %"
        cards.append(Card(f"Gamma {spell_criterion(column)}", format_number(_mean(values), 1), "%", note))
    met, planned = ([as_bool(value) for value in goal_results[f"{who}_met"].dropna()] for who in ("prediction", "plan"))
    note = f"over all test cases; the plans meet {sum(planned)} of {len(planned)}"
    cards.append(Card("Clinical goals met by prediction", str(sum(met)), f"of {len(met)}", note))
    return cards


def gamma_columns(case_metrics: pd.DataFrame) -> list[str]:
    """Return the columns of gamma pass rates."""
    return [str(name) for name in case_metrics.columns if GAMMA_COLUMN.fullmatch(str(name))]


def spell_criterion(column: str) -> str:
    """Return a gamma criterion as the field writes it.

    Examples
    --------
    >>> spell_criterion("gamma_3percent_3mm_global_cutoff10_percent")
    '3 %/3 mm global, cutoff 10 %'
    """
    match = GAMMA_COLUMN.fullmatch(column)
    if match is None:
        return column
    return f"{match['percent']} %/{match['mm']} mm {match['kind']}, cutoff {match['cutoff']} %"


def errors_table(case_metrics: pd.DataFrame) -> Table:
    """Return the mean absolute error under each mask, over the test cases."""
    rows = []
    for column, mask in mae_masks(case_metrics).items():
        values = _numbers(case_metrics[column])
        worst = _case_at(case_metrics, int(np.nanargmax(case_metrics[column]))) if len(values) else ""
        numbers = [format_number(v, 2) for v in (_mean(values), _median(values), _least(values), _worst(values))]
        rows.append((spell_mask(mask), len(values), *numbers, worst))
    columns = ("Mask", "#Cases", "#Mean (Gy)", "#Median (Gy)", "#Least (Gy)", "#Worst (Gy)", "Worst case")
    note = "Mean over the mask's voxels of |prediction − plan|, then over cases. An absent structure has no error."
    return make_table("Mean absolute error by mask", columns, rows, note=note)


def gamma_table(case_metrics: pd.DataFrame) -> Table:
    """Return the gamma pass rate of each criterion, over the test cases."""
    rows = []
    for column in gamma_columns(case_metrics):
        values = _numbers(case_metrics[column])
        worst = _case_at(case_metrics, int(np.nanargmin(case_metrics[column]))) if len(values) else ""
        numbers = [format_number(v, 1) for v in (_mean(values), _median(values), _least(values), _worst(values))]
        rows.append((spell_criterion(column), len(values), *numbers, worst))
    columns = ("Criterion", "#Cases", "#Mean (%)", "#Median (%)", "#Lowest (%)", "#Highest (%)", "Lowest case")
    return make_table("Gamma pass rate (γ ≤ 1)", columns, rows, empty="Gamma was not evaluated.")


def dvh_table(dvh: pd.DataFrame) -> Table:
    """Return each DVH statistic of plan and prediction, as means over the cases that have the structure."""
    require_columns(dvh, DVH_COLUMNS, "dvh.csv")
    rows = []
    for (structure, statistic, unit), part in dvh.groupby(["structure", "statistic", "unit"], sort=False):
        difference = _numbers(part["prediction"] - part["plan"])
        rows.append(
            (
                structure,
                f"{statistic} ({unit})",
                len(difference),
                format_number(_mean(_numbers(part["plan"])), 1),
                format_number(_mean(_numbers(part["prediction"])), 1),
                format_number(_mean(difference), 2, sign=True),
                format_number(_mean(np.abs(difference)), 2),
                format_number(_worst(np.abs(difference)), 2),
            )
        )
    columns = (
        "Structure", "Statistic", "#Cases", "#Plan", "#Prediction", "#Difference", "#Mean |diff.|", "#Worst |diff.|",
    )  # fmt: skip
    note = "Means over cases; the difference is prediction − plan."
    return make_table("DVH statistics", columns, rows, note=note)


def difference_rows(dvh: pd.DataFrame) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Return labels and differences (prediction − plan) per case of the DVH statistics in Gy."""
    labels, values = [], []
    in_gy = dvh[dvh["unit"] == "Gy"]
    for (structure, statistic), part in in_gy.groupby(["structure", "statistic"], sort=False):
        labels.append(f"{structure} {statistic}")
        values.append((part["prediction"] - part["plan"]).to_numpy(dtype=np.float64))
    return labels, values


def goals_table(goal_results: pd.DataFrame, *, case_id: str | None = None) -> Table:
    """Return how often plan and prediction meet each clinical goal; of one case, the values and verdicts."""
    require_columns(goal_results, GOAL_COLUMNS, "goals.csv")
    if case_id is not None:
        return _goals_of_case(goal_results[goal_results["case_id"] == case_id])
    rows = []
    for goal, part in goal_results.groupby("goal", sort=False):
        verdicts = [_states(part, who) for who in ("plan", "prediction")]
        judged = [pair for pair in zip(*verdicts, strict=True) if "not judged" not in pair]
        agree = sum(plan == predicted for plan, predicted in judged)
        counts = [sum(pair[who] == state for pair in judged) for who in (0, 1) for state in ("met", "acceptable")]
        rows.append(
            (
                goal,
                "gating" if bool(part["gating"].iloc[0]) else "reported",
                len(judged),
                _met_of(counts[0], counts[1]),
                _met_of(counts[2], counts[3]),
                Cell(f"{agree} of {len(judged)}", "" if agree == len(judged) else "warn"),
            )
        )
    columns = ("Goal", "Kind", "#Cases", "#Met by plan", "#Met by prediction", "#Same verdict")
    note = (
        "In brackets: missed, but within the acceptable limit. Where the verdicts differ, a planner who trusted the "
        "prediction would have been misled."
    )
    return make_table("Clinical goals over the test cases", columns, rows, note=note)


def _met_of(met: int, acceptable: int) -> str:
    return f"{met} (+{acceptable})" if acceptable else str(met)


def _states(part: pd.DataFrame, who: str) -> list[str]:
    """What became of a goal on each row: met, acceptable, missed or not judged."""
    states = []
    for met, acceptable in zip(part[f"{who}_met"], part[f"{who}_acceptable"], strict=True):
        if pd.isna(met):
            states.append("not judged")
        else:
            states.append("met" if as_bool(met) else "acceptable" if as_bool(acceptable) else "missed")
    return states


def as_bool(value: Any) -> bool:
    """Return a truth value that a CSV may hold as text; a column with gaps is read as such."""
    return str(value).lower() == "true"


STATE_OF: dict[str, State] = {"met": "good", "acceptable": "warn", "missed": "bad", "not judged": "muted"}


def _goals_of_case(part: pd.DataFrame) -> Table:
    verdicts = [[Cell(state, STATE_OF[state]) for state in _states(part, who)] for who in ("plan", "prediction")]
    rows = []
    for row, plan, predicted in zip(part.to_dict("records"), *verdicts, strict=True):
        values = [f"{format_number(row[name], 2)} {row['unit']}" for name in ("plan", "prediction")]
        rows.append((row["goal"], values[0], plan, values[1], predicted))
    columns = ("Goal", "#Plan", "Plan", "#Prediction", "Prediction")
    return make_table("Clinical goals of this case", columns, rows, empty="No goal was evaluated on this case.")


def cases_table(case_metrics: pd.DataFrame, goal_results: pd.DataFrame) -> Table:
    """Return one row per test case: its errors by mask, gamma, and goals missed by the prediction; the worst first."""
    masks = {column: mask for column, mask in mae_masks(case_metrics).items() if mask in HEADLINE_MASKS}
    gammas = gamma_columns(case_metrics)
    missed = {
        str(case_id): _states(part, "prediction").count("missed") for case_id, part in goal_results.groupby("case_id")
    }
    rows = []
    ordered = case_metrics.sort_values([RANKING_COLUMN, "case_id"], ascending=[False, True])
    for row in ordered.to_dict("records"):
        count = missed.get(row["case_id"], 0)
        state: State = "warn" if count else ""
        rows.append(
            (
                row["case_id"],
                *(format_number(row[column], 2) for column in masks),
                *(format_number(row[column], 1) for column in gammas),
                Cell(str(count), state),
            )
        )
    columns = (
        "Case",
        *(f"#MAE, {spell_mask(mask)} (Gy)" for mask in masks.values()),
        *(f"#Gamma {spell_criterion(column)} (%)" for column in gammas),
        "#Goals missed by prediction",
    )
    return make_table("Test cases, the worst first", columns, rows)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return values[np.isfinite(values)]


def _case_at(case_metrics: pd.DataFrame, row: int) -> str:
    return str(case_metrics["case_id"].iloc[row])


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _least(values: NDArray[np.float64]) -> float | None:
    return float(values.min()) if len(values) else None


def _worst(values: NDArray[np.float64]) -> float | None:
    return float(values.max()) if len(values) else None
