"""Tables of the comparison report: settings, paired statistics, goals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.text.sheet import MISSING, Cell, Table, format_number, make_table, plural
from doseledger.core.text.words import spell_mask
from doseledger.dosimetry.intervals import CONFIDENCE, holm
from doseledger.evaluate.compare import compare_models
from doseledger.evaluate.summary import DRAW_SEED, RANKED_BY
from doseledger.ledger.runs.compared_runs import ComparedRun, differing_settings
from doseledger.report.blocks import Card
from doseledger.report.tables.results import HEADLINE_MASKS, MAE_COLUMN, goal_states

Statistics = dict[str, Any]
SIGNIFICANT = 1 - CONFIDENCE
DVH = "dvh_"


def paired_statistics(runs: Sequence[ComparedRun]) -> list[Statistics]:
    """Return what `cohort.comparison.compare_models` says of each run against the first, one of each further run.

    `p_adjusted` is made anew over all measures of all pairs: the more that is looked at, the more is found by chance.
    """
    found = [compare_models(runs[0].metrics, run.metrics, np.random.default_rng(DRAW_SEED)) for run in runs[1:]]
    rows = [row for pair in found for row in measures_of(pair).values()]
    for row, p_adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_adjusted"] = p_adjusted
    return found


def measures_of(found: Statistics) -> dict[str, Statistics]:
    """Return the statistics of a pair by measure."""
    return {name: row for name, row in found.items() if isinstance(row, dict)}


def spell_measure(name: str, statistics: Mapping[str, str]) -> tuple[str, int]:
    """Return what a measure is called, with its unit, and how many decimals it is printed with.

    Parameters
    ----------
    name
        A column of `compare_models`.
    statistics
        Names of the DVH statistics, by column.

    Examples
    --------
    >>> spell_measure("mae_body_gy", {}), spell_measure("gamma_3_3_global_percent", {})
    (('MAE, body (Gy)', 2), ('gamma 3 %/3 mm global (%)', 1))
    """
    match = MAE_COLUMN.fullmatch(name)
    if match:
        return f"MAE, {spell_mask(match['mask'])} (Gy)", 2
    if name.startswith("gamma_"):
        percent, mm, *scope = name.removeprefix("gamma_").removesuffix("_percent").split("_")
        return f"gamma {percent} %/{mm} mm {' '.join(scope)} (%)", 1
    return statistics.get(name, name.replace("_", " ")), 2


def dvh_statistics(run: ComparedRun) -> dict[str, str]:
    """Return the name of each DVH statistic with its unit, by the column of `compare_models`, in the table's order."""
    table = run.dvh.drop_duplicates(["structure", "statistic"])
    return {
        f"{DVH}{row.structure}_{row.statistic}": f"{row.structure} {row.statistic} ({row.unit})"
        for row in table.itertuples()
    }


def statistics_table(caption: str, found: Statistics, runs: tuple[ComparedRun, ComparedRun], *, dvh: bool) -> Table:
    """Return the paired statistics of one run against the baseline: of errors and pass rates, or of DVH statistics.

    Parameters
    ----------
    dvh
        Which of the two.
    """
    statistics, measures = dvh_statistics(runs[0]), measures_of(found)
    rows = []
    for name in statistics if dvh else runs[0].measures:
        row = measures.get(name)
        if row is None or not row["n"]:
            continue
        label, digits = spell_measure(name, statistics)
        interval = f"{format_number(row['low'], digits)} to {format_number(row['high'], digits)}"
        rows.append(
            (
                label,
                row["n"],
                format_number(row["first"], digits),
                format_number(row["second"], digits),
                format_number(row["mean_difference"], digits, sign=True),
                interval if math.isfinite(row["low"]) else MISSING,
                format_number(row["p_value"], 3),
                format_number(row["p_adjusted"], 3),
                format_number(row["effect_size"], 2, sign=True),
                _better(row, runs),
            )
        )
    columns = (
        "Mean |prediction − plan|" if dvh else "Measure", "#Cases", f"#{runs[0].label}", f"#{runs[1].label}",
        "#Difference", "#95 % interval", "#p", "#p (Holm)", "#Effect", "Better",
    )  # fmt: skip
    note = (
        f"Difference: {runs[1].label} − {runs[0].label}, case by case; its interval is a bootstrap over cases. p: "
        "Wilcoxon's signed ranks, two-sided, then after Holm over all measures of this report. Effect: rank-biserial, "
        "−1 to 1. Better: where the interval leaves 0 out."
    )
    return make_table(caption, columns, rows, note=note, empty="The runs share no such measure.")


def _better(row: Statistics, runs: tuple[ComparedRun, ComparedRun]) -> Cell:
    if row["better"] == "neither":
        return Cell("neither", "muted")
    return Cell(runs[1].label, "good") if row["better"] == "second" else Cell(runs[0].label, "warn")


def least_p_note(found: Statistics) -> str:
    """Return a sentence where there are too few cases for the test to ever say that runs differ; empty otherwise."""
    count = int(found["n_cases"])
    least = 2.0 ** (1 - count)
    if least <= SIGNIFICANT:
        return ""
    return (
        f"With {plural(count, 'case')} the least p that Wilcoxon's test can give is {least:.3g}: it can't tell these "
        "runs apart, however far apart they are. Read the differences as a description of these cases."
    )


def headline_cards(found: Statistics, runs: tuple[ComparedRun, ComparedRun]) -> list[Card]:
    """Return the differences that matter most, with their intervals: errors under the named masks, and gamma."""
    wanted = [f"mae_{mask}_gy" for mask in HEADLINE_MASKS] + [n for n in runs[0].measures if n.startswith("gamma_")]
    cards = []
    for name in wanted:
        row = found.get(name)
        if not isinstance(row, dict):
            continue
        label, digits = spell_measure(name, {})
        unit = "%" if name.startswith("gamma_") else "Gy"
        first, second = (format_number(row[which], digits) for which in ("first", "second"))
        note = f"{runs[0].label} {first}, {runs[1].label} {second} {unit}"
        if math.isfinite(row["low"]):
            low, high = (format_number(row[which], digits) for which in ("low", "high"))
            note += f"; 95 % interval {low} to {high} {unit}"
        note += f"; better: {_better(row, runs).text}"
        title = f"Difference of {label.rsplit(' (', 1)[0]}"
        cards.append(Card(title, format_number(row["mean_difference"], digits, sign=True), unit, note))
    return cards


def settings_table(runs: Sequence[ComparedRun]) -> Table:
    """Return the settings that are not the same in all runs."""
    silent = [run.label for run in runs if not run.settings]
    rows = [
        (name, *(MISSING if value is None else str(value) for value in values))
        for name, values in differing_settings(runs).items()
    ]
    note = f"Not recorded where only metrics were given: {', '.join(silent)}." if silent else ""
    empty = "No setting differs between the runs that record theirs."
    return make_table("Settings that differ", ("Setting", *(run.label for run in runs)), rows, note=note, empty=empty)


def origin_table(runs: Sequence[ComparedRun]) -> Table:
    """Return which code, data and weights each run comes from; what differs from the baseline stands out."""
    rows = []
    for title, values in (
        ("model", [str(run.run.get("model", MISSING)) for run in runs]),
        ("commit", [run.commit or MISSING for run in runs]),
        ("training cases (SHA256)", [str(run.run.get("cases_sha256", MISSING)) for run in runs]),
        ("splits (SHA256)", [str(run.run.get("splits_sha256", MISSING)) for run in runs]),
        ("seed, fold, repeat", [_seeds(run) for run in runs]),
        ("checkpoint (SHA256)", [", ".join(sorted(set(run.cases["checkpoint_sha256"]))) for run in runs]),
    ):
        state: Any = "" if title in ("model", "seed, fold, repeat") else "hash"
        rows.append((title, *(Cell(value, state) for value in values)))
    trees = [
        Cell(MISSING) if not run.run else Cell("DIRTY", "bad") if run.dirty else Cell("clean", "good") for run in runs
    ]
    rows.insert(2, ("tree when trained", *trees))
    return make_table("Where each run comes from", ("What", *(run.label for run in runs)), rows)


def _seeds(run: ComparedRun) -> str:
    return ", ".join(str(run.run.get(name, MISSING)) for name in ("seed", "fold", "repeat")) if run.run else MISSING


def verdicts_table(runs: Sequence[ComparedRun]) -> Table:
    """Return what each gate said of each run."""
    gates = list(dict.fromkeys(gate for run in runs for gate in run.verdicts))
    rows = [(gate, *(_verdict(run, gate) for run in runs)) for gate in gates]
    empty = "No verdicts are known: only folders of metrics were given."
    return make_table("Gates", ("Gate", *(run.label for run in runs)), rows, empty=empty)


def _verdict(run: ComparedRun, gate: str) -> Cell:
    found = run.verdicts.get(gate)
    if found is None:
        return Cell("not known", "muted")
    if found["ok"]:
        return Cell("passed", "good")
    return Cell(f"FAILED, {plural(int(found['counts']['error']), 'error')}", "bad")


def goals_table(runs: Sequence[ComparedRun]) -> Table:
    """Return how many cases meet each clinical goal by the plan and by each run's prediction."""
    rows = []
    for goal, part in runs[0].goals.groupby("goal", sort=False):
        counts = [goal_states(part, "plan")]
        counts += [goal_states(run.goals[run.goals["goal"] == goal], "prediction") for run in runs]
        judged = sum(state != "not judged" for state in counts[0])
        kind = "gating" if bool(part["gating"].iloc[0]) else "reported"
        rows.append((goal, kind, judged, *(states.count("met") for states in counts)))
    columns = ("=Goal", "Kind", "#Cases", "#Met by plan", *(f"#Met by {run.label}" for run in runs))
    return make_table("Clinical goals over the test cases", columns, rows, empty="No clinical goals were evaluated.")


def cases_table(runs: Sequence[ComparedRun]) -> Table:
    """Return the error that cases are ranked by of every run and case, the largest gain of the second run first."""
    errors = ranked_errors(runs)
    order = sorted(runs[0].digests, key=lambda case_id: (_change(errors, case_id), case_id))
    rows = []
    for case_id in order:
        values = [run[case_id] for run in errors]
        changes = [format_number(value - values[0], 2, sign=True) for value in values[1:]]
        rows.append((case_id, *(format_number(value, 2) for value in values), *changes))
    columns = (
        "Case", *(f"#{run.label} (Gy)" for run in runs), *(f"#{run.label} − {runs[0].label} (Gy)" for run in runs[1:])
    )  # fmt: skip
    label, _ = spell_measure(RANKED_BY, {})
    return make_table(label.removesuffix(" (Gy)"), columns, rows, note="The largest gain over the baseline first.")


def ranked_errors(runs: Sequence[ComparedRun]) -> list[dict[str, float]]:
    """Return the error that cases are ranked by, {case: Gy} of each run."""
    return [
        {str(name): float(value) for name, value in zip(run.cases["case_id"], run.cases[RANKED_BY], strict=True)}
        for run in runs
    ]


def _change(errors: Sequence[Mapping[str, float]], case_id: str) -> float:
    change = errors[1][case_id] - errors[0][case_id]
    return change if math.isfinite(change) else math.inf


def difference_rows(runs: tuple[ComparedRun, ComparedRun]) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Return labels, and per case by how much the DVH error of the second run is larger, of statistics in Gy."""
    keys = ["structure", "statistic"]
    tables = [run.dvh[run.dvh["unit"] == "Gy"].set_index([*keys, "case_id"])["difference"].abs() for run in runs]
    change = (tables[1] - tables[0]).reindex(tables[0].index).reset_index()
    labels, values = [], []
    for (structure, statistic), part in change.groupby(keys, sort=False):
        if part["difference"].notna().any():
            labels.append(f"{structure} {statistic}")
            values.append(part["difference"].to_numpy(dtype=np.float64))
    return labels, values
