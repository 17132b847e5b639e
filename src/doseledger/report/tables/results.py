"""Results of the report: errors by mask, gamma, DVH statistics, goals, cases."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.core.settings import EvaluateSettings
from doseledger.core.text.lists import first_of
from doseledger.core.text.sheet import MISSING, Cell, State, Table, format_number, make_table, plural
from doseledger.core.text.words import spell_mask, spell_metric
from doseledger.dosimetry.intervals import bootstrap_interval
from doseledger.evaluate.case import gamma_column, gamma_name
from doseledger.evaluate.summary import DRAW_SEED, RANKED_BY, headline
from doseledger.ledger.runs.facts import RunFacts
from doseledger.report.blocks import Card

MAE_COLUMN = re.compile(r"mae_(?P<mask>.+)_gy")
# Errors that stand in the summary and in the table of cases.
ERROR_TITLES = {"above_10_percent": "Mean absolute error above 10 %", "body": "Mean absolute error in the body"}
HEADLINE_MASKS = tuple(ERROR_TITLES)
# Patients whose goals are judged otherwise that one sentence names.
SHOWN_OTHERS = 3


def mae_masks(case_metrics: pd.DataFrame) -> dict[str, str]:
    """Return {column: mask} of the errors in the table of cases."""
    found = {str(name): MAE_COLUMN.fullmatch(str(name)) for name in case_metrics.columns}
    return {name: match["mask"] for name, match in found.items() if match}


def gamma_names(settings: EvaluateSettings) -> dict[str, str]:
    """Return {column: criterion} of the gamma pass rates, each as the field writes it, with its cutoff."""
    return {gamma_column(gamma): gamma_name(gamma) for gamma in settings.gamma}


def headline_cards(facts: RunFacts, gammas: dict[str, str]) -> list[Card]:
    """Return the key numbers: error, gamma, acceptable cases; each with its mask or criterion and its interval."""
    summary, count = facts.summary, plural(len(facts.case_metrics), "test case")
    cards = []
    for mask in HEADLINE_MASKS:
        column = f"mae_{mask}_gy"
        # The title of the other says it already.
        masked = f"{spell_mask(mask)}. " if mask == "above_10_percent" else ""
        note = f"{masked}Mean of {count}{_interval_words(summary, column, 2)}; worst case "
        note += f"{format_number(summary.get(f'{column}_worst'), 2)} Gy"
        cards.append(Card(ERROR_TITLES[mask], format_number(summary.get(column), 2), "Gy", note))
    for column, criterion in gammas.items():
        note = f"{criterion}. Mean of {count}{_interval_words(summary, column, 1)}; lowest case "
        note += f"{format_number(summary.get(f'{column}_worst'), 1)} %"
        cards.append(Card("Gamma pass rate", format_number(summary.get(column), 1), "%", note))
    name = "prediction_acceptable_percent"
    planned = format_number(summary.get("plan_acceptable_percent"), 0)
    note = f"all gating goals at least acceptable by prediction{_interval_words(summary, name, 0)}; by plan {planned} %"
    cards.append(Card("Acceptable cases", format_number(summary.get(name), 0), "%", note))
    for kind, title in (("dose", "OpenKBP dose score"), ("dvh", "OpenKBP DVH score")):
        score = summary.get(f"openkbp_{kind}_score")
        if score is not None:
            note = f"as the challenge defines it, {count}{_score_interval(facts, f'openkbp_{kind}_gy')}"
            cards.append(Card(title, format_number(score, 3), "Gy", note))
    return cards


def _score_interval(facts: RunFacts, column: str) -> str:
    """In words, the interval of the mean over cases of a score's values; a DVH score weighs structures, not cases."""
    if column not in facts.case_metrics:
        return ""
    values = _numbers(facts.case_metrics[column])
    interval = _ends(*bootstrap_interval(values, np.random.default_rng(DRAW_SEED)), 3)
    return f" (95 % interval of the mean over cases {interval})" if interval != MISSING else ""


def _interval_words(summary: dict[str, Any], column: str, digits: int) -> str:
    interval = _interval(summary, column, digits)
    return f" (95 % interval {interval})" if interval != MISSING else ""


def _interval(summary: dict[str, Any], column: str, digits: int) -> str:
    return _ends(summary.get(f"{column}_low"), summary.get(f"{column}_high"), digits)


def _ends(low: float | None, high: float | None, digits: int) -> str:
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{format_number(low, digits)} to {format_number(high, digits)}"


def summary_table(details: Mapping[str, Any]) -> Table:
    """Return the first numbers of a test set for people: mean over cases, 95 % interval, worst case."""

    def shown(name: str) -> str:
        return MISSING if details.get(name) is None else f"{details[name]:.4g}"

    ends = ("", "_low", "_high", "_worst")
    rows = [
        (spell_metric(name), *(shown(f"{name}{end}") for end in ends))
        for name in headline(details)
        if name != "n_cases"
    ]
    caption = plural(details["n_cases"], "test case")
    columns = (caption, "#Mean", "#95 % from", "#To", "#Worst")
    return make_table(caption, columns, rows, empty="Nothing was measured.")


def errors_table(facts: RunFacts, colours: Mapping[str, str]) -> Table:
    """Return the mean absolute error under each mask, over the test cases; a structure bears its colour."""
    rows = []
    for column, mask in mae_masks(facts.case_metrics).items():
        values = _numbers(facts.case_metrics[column])
        name = Cell(spell_mask(mask), swatch=colours.get(mask, ""))
        rows.append((name, *_spread(facts, column, values, 2, worst_is_high=True)))
    columns = ("=Mask", "#Cases", "#Mean (Gy)", "#95 % interval", "#Median (Gy)", "#Worst (Gy)", "Worst case")
    note = (
        "Mean over the mask's voxels of |prediction − plan|, then over cases. Intervals are bootstraps over patients. "
        "An absent structure has no error."
    )
    return make_table("Mean absolute error by mask", columns, rows, note=note)


def gamma_table(facts: RunFacts, gammas: dict[str, str]) -> Table:
    """Return the gamma pass rate of each criterion, over the test cases, and how far it was checked."""
    rows = []
    for column, criterion in gammas.items():
        if column not in facts.case_metrics:
            raise BadInput(
                f"cases.csv has no {column}, which evaluate.gamma asks for; the settings changed since, evaluate again"
            )
        values = _numbers(facts.case_metrics[column])
        rows.append((criterion, *_spread(facts, column, values, 1, worst_is_high=False)))
    columns = ("=Criterion", "#Cases", "#Mean (%)", "#95 % interval", "#Median (%)", "#Lowest (%)", "Lowest case")
    points = int(facts.case_metrics["gamma_points_verified"].sum())
    largest = _worst(_numbers(facts.case_metrics["gamma_largest_difference"]))
    note = "A point passes at γ ≤ 1; the plan is the reference, and the cutoff is of its maximum."
    if points and largest is not None:
        note += f" {points} random points were computed again with pymedphys: {_difference(largest)}."
    return make_table("Gamma pass rate", columns, rows, note=note, empty="Gamma was not evaluated.")


def _difference(largest: float) -> str:
    return f"largest difference {largest:.1e}" if largest else "no difference"


def _spread(
    facts: RunFacts, column: str, values: NDArray[np.float64], digits: int, *, worst_is_high: bool
) -> tuple[Any, ...]:
    """Cases, mean, interval, median, worst value and whose it is."""
    if not len(values):
        return (0, MISSING, MISSING, MISSING, MISSING, "")
    pick = np.nanargmax if worst_is_high else np.nanargmin
    row = int(pick(facts.case_metrics[column].to_numpy(dtype=np.float64)))
    worst = float(facts.case_metrics[column].iloc[row])
    numbers = [format_number(value, digits) for value in (_mean(values), _median(values), worst)]
    interval = _interval(facts.summary, column, digits)
    return (len(values), numbers[0], interval, numbers[1], numbers[2], str(facts.case_metrics["case_id"].iloc[row]))


def dvh_table(dvh: pd.DataFrame, colours: Mapping[str, str]) -> Table:
    """Return each DVH statistic of plan and prediction, as means over the cases that have the structure."""
    rows = []
    rng = np.random.default_rng(DRAW_SEED)
    for (structure, statistic, unit), part in dvh.groupby(["structure", "statistic", "unit"], sort=False):
        difference = _numbers(part["difference"])
        if not len(difference):
            continue
        rows.append(
            (
                Cell(str(structure), swatch=colours.get(str(structure), "")),
                f"{statistic} ({unit})",
                len(difference),
                format_number(_mean(_numbers(part["plan"])), 1),
                format_number(_mean(_numbers(part["prediction"])), 1),
                format_number(_mean(difference), 2, sign=True),
                _ends(*bootstrap_interval(difference, rng), 2),
                format_number(_mean(np.abs(difference)), 2),
                format_number(_worst(np.abs(difference)), 2),
            )
        )
    columns = (
        "Structure", "Statistic", "#Cases", "#Plan", "#Prediction", "#Difference", "#95 % interval", "#Mean |diff.|",
        "#Worst |diff.|",
    )  # fmt: skip
    note = (
        "Means over the cases that have the structure; the difference is prediction − plan, its interval a bootstrap "
        "over cases."
    )
    return make_table("DVH statistics", columns, rows, note=note)


def difference_rows(dvh: pd.DataFrame) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Return labels and differences (prediction − plan) per case of the DVH statistics in Gy."""
    labels, values = [], []
    in_gy = dvh[dvh["unit"] == "Gy"]
    for (structure, statistic), part in in_gy.groupby(["structure", "statistic"], sort=False):
        if part["difference"].notna().any():
            labels.append(f"{structure} {statistic}")
            values.append(part["difference"].to_numpy(dtype=np.float64))
    return labels, values


def goals_sentence(goal_results: pd.DataFrame) -> str:
    """Return in how many patients plan and prediction are judged alike by the clinical goals, as one sentence.

    Examples
    --------
    >>> rows = pd.DataFrame({"case_id": ["a", "b"], "plan_met": [True, True], "prediction_met": [True, False],
    ...     "plan_acceptable": [True, True], "prediction_acceptable": [True, False]})
    >>> goals_sentence(rows)
    '1 of 1 goals judged alike in 1 of 2 patients; in b 0 of 1.'
    """
    alike: dict[str, tuple[int, int]] = {}
    for case_id, part in goal_results.groupby("case_id"):
        pairs = zip(goal_states(part, "plan"), goal_states(part, "prediction"), strict=True)
        judged = [pair for pair in pairs if "not judged" not in pair]
        alike[str(case_id)] = (sum(plan == predicted for plan, predicted in judged), len(judged))
    if not any(judged for _, judged in alike.values()):
        return "No clinical goal could be judged."
    others = {case_id: found for case_id, found in alike.items() if found[0] != found[1]}
    counts = {judged for _, judged in alike.values()}
    goals = f"{max(counts)} of {max(counts)} goals" if len(counts) == 1 else "All goals"
    shown = [f"{case_id} {same} of {judged}" for case_id, (same, judged) in others.items()]
    rest = f"; in {first_of(shown, SHOWN_OTHERS, ', in ')}" if others else ""
    return f"{goals} judged alike in {len(alike) - len(others)} of {plural(len(alike), 'patient')}{rest}."


def goals_table(goal_results: pd.DataFrame, colours: Mapping[str, str]) -> Table:
    """Return how often plan and prediction meet each clinical goal."""
    rows = []
    for goal, part in goal_results.groupby("goal", sort=False):
        verdicts = [goal_states(part, who) for who in ("plan", "prediction")]
        judged = [pair for pair in zip(*verdicts, strict=True) if "not judged" not in pair]
        agree = sum(plan == predicted for plan, predicted in judged)
        counts = [sum(pair[who] == state for pair in judged) for who in (0, 1) for state in ("met", "acceptable")]
        rows.append(
            (
                Cell(str(goal), swatch=colours.get(str(part["structure"].iloc[0]), "")),
                "gating" if bool(part["gating"].iloc[0]) else "reported",
                len(judged),
                _met_of(counts[0], counts[1]),
                _met_of(counts[2], counts[3]),
                Cell(f"{agree} of {len(judged)}", "" if agree == len(judged) else "warn"),
            )
        )
    columns = ("=Goal", "Kind", "#Cases", "#Met by plan", "#Met by prediction", "#Same verdict")
    note = (
        "In brackets: missed, but within the acceptable limit. Where the verdicts differ, a planner who trusted the "
        "prediction would have been misled."
    )
    return make_table("Clinical goals over the test cases", columns, rows, note=note)


def _met_of(met: int, acceptable: int) -> str:
    return f"{met} (+{acceptable})" if acceptable else str(met)


def goal_states(part: pd.DataFrame, who: str) -> list[str]:
    """Return what became of a goal on each row, by `plan` or `prediction`: met, acceptable, missed or not judged."""
    states = []
    for met, acceptable in zip(part[f"{who}_met"], part[f"{who}_acceptable"], strict=True):
        if pd.isna(met):
            states.append("not judged")
        else:
            states.append("met" if met else "acceptable" if acceptable else "missed")
    return states


STATE_OF: dict[str, State] = {"met": "good", "acceptable": "warn", "missed": "bad", "not judged": "muted"}


def goals_of_cases_table(goal_results: pd.DataFrame, colours: Mapping[str, str], cases: Sequence[str]) -> Table:
    """Return what plan and prediction of single cases give for each goal; what is not met says so."""
    columns: list[str] = ["=Goal"]
    rows: dict[str, dict[str, Any]] = {}
    for case_id in cases:
        columns += [f"#{case_id}, plan", f"#{case_id}, prediction"]
        part = goal_results[goal_results["case_id"] == case_id]
        states = {who: goal_states(part, who) for who in ("plan", "prediction")}
        for at, row in enumerate(part.to_dict("records")):
            name = Cell(str(row["goal"]), swatch=colours.get(str(row["structure"]), ""))
            cells = [_judged_value(row[who], states[who][at]) for who in states]
            rows.setdefault(row["goal"], {"": name})[case_id] = cells
    absent = [Cell(MISSING, "muted")] * 2
    lines = [(row[""], *(cell for case_id in cases for cell in row.get(case_id, absent))) for row in rows.values()]
    note = "In the unit of the goal. A value without a word meets it; acceptable: missed, but within the wider limit."
    return make_table("Clinical goals of the drawn cases", columns, lines, note=note)


def _judged_value(value: float, state: str) -> Cell:
    word = "" if state == "met" else f" {state}"
    return Cell(f"{format_number(value, 2)}{word}", STATE_OF[state])


def cases_table(facts: RunFacts, gammas: dict[str, str]) -> Table:
    """Return one row per test case: its errors by mask, gamma, and goals missed by the prediction; the worst first."""
    goals = facts.goal_results
    missed = {
        str(case_id): goal_states(part, "prediction").count("missed") for case_id, part in goals.groupby("case_id")
    }
    rows = []
    ordered = facts.case_metrics.sort_values([RANKED_BY, "case_id"], ascending=[False, True])
    for row in ordered.to_dict("records"):
        count = missed.get(str(row["case_id"]), 0)
        state: State = "warn" if count else ""
        acceptable = Cell("yes", "good") if row["prediction_acceptable"] else Cell("no", "bad")
        rows.append(
            (
                row["case_id"],
                *(format_number(row[f"mae_{mask}_gy"], 2) for mask in HEADLINE_MASKS),
                *(format_number(row[column], 1) for column in gammas),
                Cell(str(count), state),
                acceptable,
            )
        )
    columns = (
        "Case",
        *(f"#MAE, {spell_mask(mask)} (Gy)" for mask in HEADLINE_MASKS),
        *(f"#Gamma {criterion} (%)" for criterion in gammas.values()),
        "#Goals missed by prediction",
        "Acceptable",
    )
    return make_table("Test cases, the worst first", columns, rows)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return values[np.isfinite(values)]


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _worst(values: NDArray[np.float64]) -> float | None:
    return float(values.max()) if len(values) else None
