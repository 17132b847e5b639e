"""The comparison of runs as HTML and PDF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import GoalSet, Protocol
from doseledger.core.text.sheet import format_number, plural
from doseledger.core.types import Tell
from doseledger.ledger.runs.compared_runs import ComparedRun, refuse_unlike
from doseledger.report.blocks import Alarm, Picture
from doseledger.report.case_pages import load_with_digest, name_cut, structure_curves
from doseledger.report.figures.curves import LINE_STYLES, plot_differences, plot_dvh
from doseledger.report.figures.style import saved_svg
from doseledger.report.figures.views import Comparison
from doseledger.report.page import ReportOutputs, running, write_report
from doseledger.report.tables import comparison_tables as tables

TEMPLATE = "comparison.html.j2"
CONTENTS = (
    ("summary", "Summary"), ("runs", "Runs and settings"), ("statistics", "Paired statistics"),
    ("structures", "Structures"), ("goals", "Goals"), ("cases", "Cases"),
)  # fmt: skip


@dataclass(frozen=True)
class DrawnFrom:
    """What the DVHs of a comparison are drawn from.

    Parameters
    ----------
    chosen
        Which cases; none chooses the largest gain, the middle and the largest loss of the second run.
    """

    cases: Path
    protocol: Protocol
    goals: GoalSet
    chosen: tuple[str, ...] = ()


def make_comparison(
    runs: Sequence[ComparedRun],
    outputs: ReportOutputs,
    templates: Path,
    drawn: DrawnFrom | None,
    *,
    dpi: int,
    tell: Tell,
) -> None:
    """Write the report that compares runs with the first of them: self-contained HTML, PDF, and every figure.

    Parameters
    ----------
    runs
        The baseline, then the others.
    drawn
        What DVHs are drawn from; None leaves them out.

    Raises
    ------
    BadInput
        If the runs may not be compared, naming why.
    BadCase
        If a case's predictions do not lie on its grid.

    Notes
    -----
    Equal inputs give equal bytes: no clock and no host name stand in any of the files.
    """
    refuse_unlike(runs)
    if len(runs) > len(LINE_STYLES):
        raise BadInput(f"{len(runs)} runs in one report, wanted at most {len(LINE_STYLES)}; make several reports")
    tell(f"{' against '.join(run.label for run in runs[:2])}: {len(runs[0].cases)} test cases")
    found = tables.paired_statistics(runs)
    pictures = [_differences_picture((runs[0], run), outputs.figures, dpi) for run in runs[1:]]
    pages = [] if drawn is None else _dvh_pictures(runs, drawn, outputs.figures, dpi, tell)
    write_report(templates, TEMPLATE, comparison_context(runs, found, pictures, pages), outputs, tell)


def comparison_context(
    runs: Sequence[ComparedRun],
    found: Sequence[tables.Statistics],
    pictures: Sequence[Picture],
    dvhs: Sequence[Picture],
) -> dict[str, Any]:
    """Return everything that the template prints."""
    baseline = runs[0]
    pairs = [
        {
            "label": run.label,
            "sentence": _sentence(pair, (baseline, run)),
            "note": tables.least_p_note(pair),
            "cards": tables.headline_cards(pair, (baseline, run)),
            "errors": tables.statistics_table(
                f"{run.label} against {baseline.label}", pair, (baseline, run), dvh=False
            ),
            "structures": tables.statistics_table(
                f"DVH statistics: {run.label} against {baseline.label}", pair, (baseline, run), dvh=True
            ),
            "picture": picture,
        }
        for run, pair, picture in zip(runs[1:], found, pictures, strict=True)
    ]
    failed = any(not verdict["ok"] for run in runs for verdict in run.verdicts.values())
    dirty = any(run.dirty for run in runs)
    state = (" · DIRTY" if dirty else "") + (" · GATE FAILED" if failed else "")
    return {
        "labels": [run.label for run in runs],
        "count": plural(len(baseline.cases), "test case"),
        "contents": CONTENTS,
        "alarms": _alarms(runs),
        "verdicts": tables.verdicts_table(runs),
        "origin": tables.origin_table(runs),
        "settings": tables.settings_table(runs),
        "pairs": pairs,
        "goals": tables.goals_table(runs),
        "cases": tables.cases_table(runs),
        "dvhs": dvhs,
        **running(" · ".join(run.label for run in runs), f"comparison{state}", alarm=bool(state)),
    }


def _sentence(found: tables.Statistics, runs: tuple[ComparedRun, ComparedRun]) -> str:
    """How many measures speak for which of the two."""
    verdicts = [row["better"] for row in tables.measures_of(found).values() if row["n"]]
    counts = {name: verdicts.count(name) for name in ("second", "first", "neither")}
    return (
        f"Of {plural(len(verdicts), 'measure')}, the interval of the difference speaks for {runs[1].label} in "
        f"{counts['second']}, for {runs[0].label} in {counts['first']}, for neither in {counts['neither']}."
    )


def _alarms(runs: Sequence[ComparedRun]) -> list[Alarm]:
    alarms = []
    for run in runs:
        if run.dirty:
            text = "No commit describes the code that made its model."
            alarms.append(Alarm("bad", f"{run.label} was trained on a dirty tree.", text))
        failed = [gate for gate, verdict in run.verdicts.items() if not verdict["ok"]]
        if failed:
            alarms.append(Alarm("bad", f"{run.label} failed a gate.", f"Failed: {', '.join(failed)}."))
    trained = {str(run.run["cases_sha256"]) for run in runs if run.run.get("cases_sha256")}
    if len(trained) > 1:
        text = "What differs may come from the training cases as well as from the models."
        alarms.append(Alarm("warn", "The runs were trained on different cases.", text))
    return alarms


def _differences_picture(runs: tuple[ComparedRun, ComparedRun], folder: Path, dpi: int) -> Picture:
    labels, values = tables.difference_rows(runs)
    change = f"{runs[1].label} − {runs[0].label}"
    draw = partial(plot_differences, labels, values, "Change of |prediction − plan| (Gy)")
    uri = saved_svg(draw, folder, f"errors_{_stem(runs[1].label)}", dpi)
    caption = (
        f"Change of each DVH statistic's error, {change}: one point per test case, left of 0 where {runs[1].label} is "
        "nearer to the plan; the bar is the mean. Height within a row has no meaning."
    )
    return Picture(uri, caption, f"Change of DVH errors per structure, {change}")


def _stem(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in label)


def _dvh_pictures(runs: Sequence[ComparedRun], drawn: DrawnFrom, folder: Path, dpi: int, tell: Tell) -> list[Picture]:
    """DVHs of the plan and of every run's prediction, for the chosen cases."""
    silent = [run.label for run in runs if run.predictions is None]
    if silent:
        raise BadInput(
            f"no predictions of {', '.join(silent)} are known, so no DVH can be drawn; give --predictions, or --no-dvh"
        )
    pictures = []
    for title, case_id in choose_cases(runs, drawn):
        pictures.append(_dvh_picture(runs, drawn, (title, case_id), folder, dpi))
        tell(f"drew {case_id} ({title.lower()})")
    return pictures


def choose_cases(runs: Sequence[ComparedRun], drawn: DrawnFrom) -> list[tuple[str, str]]:
    """Return (title, case) of the cases whose DVHs are drawn: those chosen, else the largest gain, middle and loss.

    Raises
    ------
    BadInput
        If a chosen case is no test case, or no case has a prediction of every run.
    """
    strangers = [case_id for case_id in drawn.chosen if case_id not in runs[0].digests]
    if strangers:
        raise BadInput(f"{', '.join(strangers)} are no test cases of these runs: {', '.join(sorted(runs[0].digests))}")
    if drawn.chosen:
        return [("Chosen case", case_id) for case_id in drawn.chosen]
    errors = tables.ranked_errors(runs)
    changes = sorted(
        (change, case_id)
        for case_id in runs[0].digests
        if all(run.predictions is not None and (run.predictions / f"{case_id}.npz").is_file() for run in runs)
        # Where one run has no error there is no gain or loss; NaN would make the order arbitrary besides.
        and math.isfinite(change := errors[1][case_id] - errors[0][case_id])
    )
    if not changes:
        raise BadInput(
            "no test case has a prediction and an error of every run, so no DVH can be drawn; predict and evaluate "
            "again"
        )
    name = runs[1].label
    # The later counts: a single case is the best that there is.
    picks = {changes[-1][1]: f"Least in favour of {name}"}
    picks[changes[0][1]] = f"Most in favour of {name}"
    picks.setdefault(changes[len(changes) // 2][1], "In the middle")
    return [(picks[case_id], case_id) for _, case_id in changes if case_id in picks]


def _dvh_picture(
    runs: Sequence[ComparedRun], drawn: DrawnFrom, pick: tuple[str, str], folder: Path, dpi: int
) -> Picture:
    title, case_id = pick
    first, *others = [_comparison(run, drawn.cases, case_id) for run in runs]
    doses = [other.predicted_gy for other in others]
    top_gy = 1.12 * max(float(dose.max()) for dose in (first.plan_gy, first.predicted_gy, *doses))
    curves = structure_curves(first, drawn.protocol, doses)
    draw = partial(plot_dvh, curves, drawn.goals.goals, top_gy, [run.label for run in runs])
    uri = saved_svg(draw, folder, f"dvh_{case_id}", dpi)
    errors = tables.ranked_errors(runs)
    numbers = ", ".join(
        f"{run.label} {format_number(error[case_id], 2)} Gy" for run, error in zip(runs, errors, strict=True)
    )
    caption = (
        f"{title}: {case_id}. Cumulative DVHs, plan solid, predictions dashed and dotted as the legend says. Mean "
        f"absolute error where the plan's dose is above 10 % of the highest prescription: {numbers}."
        f"{name_cut(first.case)}"
    )
    return Picture(uri, caption, f"Dose-volume histograms of {case_id}: plan and every run")


def _comparison(run: ComparedRun, cases: Path, case_id: str) -> Comparison:
    if run.predictions is None:
        raise BadInput(f"no predictions of {run.label} are known, so no DVH can be drawn")
    comparison, case_sha256 = load_with_digest(cases, run.predictions, case_id)
    if case_sha256 != run.digests[case_id]:
        raise BadCase(case_id, f"the prediction of {run.label} is of another file than was evaluated; predict again")
    return comparison
