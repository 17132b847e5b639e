"""The report of a run as HTML and PDF."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from doseledger.core.errors import BadInput
from doseledger.core.fanout import Tell
from doseledger.core.layout import SYNTHETIC_COHORT, ModelLayout
from doseledger.core.settings import EvaluateSettings, Settings
from doseledger.core.sheet import format_number, plural
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.evaluate.case import gamma_criteria
from doseledger.evaluate.summary import RANKED_BY, median_case, shown_cases
from doseledger.gates.model.standing import State, standing_of_run
from doseledger.ledger.provenance.baseline import settings_change
from doseledger.ledger.provenance.commit_link import commit_link
from doseledger.ledger.provenance.recorded import dvc_hashes, stage_names
from doseledger.ledger.provenance.stamp import GitState, git_state
from doseledger.ledger.registry.model_card import model_card
from doseledger.ledger.runs.facts import RunFacts, load_facts
from doseledger.report.blocks import Alarm, Picture
from doseledger.report.case_pages import CasePage, draw_case, draw_overview, load_comparison
from doseledger.report.figures.curves import plot_differences, plot_training
from doseledger.report.figures.style import data_uri, house_style, save_figure, structure_colours
from doseledger.report.figures.viewer import make_viewer
from doseledger.report.page import ReportOutputs, write_report
from doseledger.report.spread import (
    CALIBRATED,
    NO_SPREAD,
    NOT_CALIBRATED,
    calibration_picture,
    calibration_table,
    draw_spread,
    load_spread,
)
from doseledger.report.tables import results, sections, verdict_tables
from doseledger.report.tables.data_tables import optional_table

# Stages whose entries in dvc.lock are of the run before.
LATER_STAGES = ("report", "gate")
CONTENTS = (
    ("summary", "Summary"), ("accuracy", "Agreement"), ("goals", "Goals"), ("cases", "Cases"),
    ("uncertainty", "Uncertainty"), ("training", "Training"), ("data", "Data"), ("card", "Model card"),
    ("gates", "Gates and limits"), ("code", "Code"), ("record", "Record"),
)  # fmt: skip
BADGE_STATES: dict[State, Literal["good", "warn", "bad"]] = {"passed": "good", "provisional": "warn", "failed": "bad"}


def make_report(at: ModelLayout, settings: Settings, tell: Tell) -> None:
    """Write the report of a run: self-contained HTML, PDF, and every figure as PNG, SVG and PDF.

    Parameters
    ----------
    at
        Where the run's files lie and the report goes; the model was judged before.
    settings
        Resolution of figures, and what was evaluated: its first gamma criterion is drawn.
    tell
        Called with one line per step.

    Raises
    ------
    NotReady
        Naming each file that is missing, and the stage that makes it.

    Notes
    -----
    Equal inputs give equal bytes: no clock and no host name stand in any of the files.
    """
    facts, dpi = load_facts(at), settings.report.figure_dpi
    tell(f"report on {at.name}: {len(facts.case_metrics)} test cases")
    pages = _case_pages(at, facts, settings, tell)
    pictures = _run_pictures(facts, at.figures, dpi) | _overview(at, facts, settings)
    uncertainty = describe_uncertainty(facts.calibration, pages, at.figures, dpi)
    context = build_context(at, facts, settings.evaluate, pages, pictures) | {"uncertainty": uncertainty}
    outputs = ReportOutputs(at.html, at.pdf, at.figures)
    write_report(at.layout.templates, "report.html.j2", context, outputs, tell)


def _drawn_gamma(evaluate: EvaluateSettings) -> GammaCriteria:
    if not evaluate.gamma:
        raise BadInput("evaluate.gamma is empty: the report draws its first criterion, for example 3 %/3 mm")
    return gamma_criteria(evaluate.gamma[0])


def build_context(
    at: ModelLayout,
    facts: RunFacts,
    evaluate: EvaluateSettings,
    pages: list[CasePage],
    pictures: dict[str, Picture],
) -> dict[str, Any]:
    """Return everything that the template prints."""
    root, cohort = at.layout.root, at.layout.cohort
    trained, now = sections.trained_git(facts), git_state(root)
    gammas = results.gamma_names(evaluate)
    judged = facts.model_findings["details"]
    measured, shortcuts, drift = (judged[name] for name in ("metrics", "shortcuts", "drift"))
    verdicts = [facts.data_findings, facts.preflight_findings, measured, shortcuts, drift]
    predicted = sections.prediction_settings(facts, at.predictions)
    change = settings_change(root, trained.commit, at.name, sections.settings_of_run(facts, predicted))
    links = (commit_link(root, trained.commit), commit_link(root, now.commit))
    standing = standing_of_run(facts.model_findings, (facts.data_findings, facts.preflight_findings))
    colours = structure_colours(facts.protocol.structure_names)
    # Its own entry in dvc.lock, and what follows, are of the run before.
    made = [name for name in stage_names(cohort, at.name) if name.partition("@")[0] not in LATER_STAGES]
    commit = (trained.commit or "no commit")[:10]
    state = " · DIRTY" if trained.dirty else ""
    failed = {"passed": "", "provisional": " · PROVISIONAL", "failed": " · GATE FAILED"}[standing.state]
    return {
        "version": metadata.version("doseledger"),
        "cohort": cohort,
        "model": at.name,
        "protocol_title": facts.protocol.title,
        "contents": CONTENTS,
        "standing": standing,
        "badge_state": BADGE_STATES[standing.state],
        "n_cases": plural(len(facts.case_metrics), "test case"),
        "goals_line": results.goals_sentence(facts.goal_results),
        "code": trained,
        "alarms": _dirty_alarms(trained),
        "headline": results.headline_cards(facts, gammas),
        "headline_note": (
            "All numbers are of the test cases, which the model was neither trained nor selected on. The plan's dose "
            "is the reference, the prediction is evaluated."
        ),
        "lock_text": sections.lock_sentence(facts),
        "goals_text": f"{facts.goals.title}. The plan and the prediction are judged by the same goals.",
        "tables": {
            "verdicts": verdict_tables.verdicts_table(verdicts),
            "limits": verdict_tables.limits_table(measured),
            "candidate": verdict_tables.candidate_table(measured),
            "shortcuts": verdict_tables.shortcuts_table(shortcuts),
            "red_flags": verdict_tables.red_flags_table(measured),
            "settings_change": sections.settings_change_table(change),
            "counts": sections.counts_table(facts),
            "splits": sections.splits_table(facts),
            "skipped": sections.skipped_table(facts),
            "optional": optional_table(facts.data_findings),
            "findings": verdict_tables.findings_table(verdicts),
            "code": sections.code_table(facts, trained, now, links),
            "packages": sections.packages_table(facts),
            "training": sections.training_table(facts),
            "errors": results.errors_table(facts, colours),
            "gamma": results.gamma_table(facts, gammas),
            "dvh": results.dvh_table(facts.dvh, colours),
            "goals": results.goals_table(facts.goal_results, colours),
            "cases": results.cases_table(facts, gammas),
            "hashes": sections.hashes_table(dvc_hashes(at.layout.lock, made)),
        },
        "figures": pictures,
        "case_views": pages,
        "card": model_card(facts, standing, synthetic=cohort == SYNTHETIC_COHORT),
        "settings_change": change,
        "settings_text": sections.settings_text(facts, predicted),
        "running_left": f"{at.name} on {cohort}",
        "running_right": f"commit {commit}{state}{failed}",
        "running_alarm": trained.dirty or standing.state == "failed",
    }


def describe_uncertainty(calibration: dict[str, Any], pages: list[CasePage], folder: Path, dpi: int) -> dict[str, Any]:
    """Return the section on how sure the model is: a sentence, the coverage of its intervals, and their picture.

    Parameters
    ----------
    calibration
        What evaluation found of drawn doses; empty where none were drawn.
    pages
        The drawn cases; one with a spread tells that doses were drawn.
    """
    if calibration:
        picture = calibration_picture(calibration["details"], folder, dpi)
        return {"text": CALIBRATED, "table": calibration_table(calibration["summary"]), "figures": (picture,)}
    text = NOT_CALIBRATED if any(page.has_spread for page in pages) else NO_SPREAD
    return {"text": text, "table": None, "figures": ()}


def _dirty_alarms(trained: GitState) -> list[Alarm]:
    if not trained.dirty:
        return []
    text = f"{trained.note[:1].upper()}{trained.note[1:]}. No commit describes the code that made this model."
    return [Alarm("bad", "Trained on a dirty tree.", text, trained.dirty_paths[:10])]


def _run_pictures(facts: RunFacts, folder: Path, dpi: int) -> dict[str, Picture]:
    labels, values = results.difference_rows(facts.dvh)
    with house_style():
        training = save_figure(
            plot_training(facts.history, sections.best_epoch(facts.history)), folder, "training", dpi
        )
        axis_label = "Prediction − plan (Gy)"
        differences = save_figure(plot_differences(labels, values, axis_label), folder, "dvh_differences", dpi)
    return {
        "training": Picture(
            data_uri(training["svg"]), "Training: loss, validation error and learning rate by epoch.", "Training curves"
        ),
        "differences": Picture(
            data_uri(differences["svg"]),
            "DVH statistics in Gy, prediction − plan, one point per test case; the bar is their mean. Height within a "
            "row has no meaning.",
            "Differences of DVH statistics between prediction and plan, per structure",
        ),
    }


def _overview(at: ModelLayout, facts: RunFacts, settings: Settings) -> dict[str, Picture]:
    """Dose wash and DVH of the median test case."""
    errors = facts.case_metrics.set_index("case_id")[RANKED_BY]
    case_id = median_case({str(name): float(value) for name, value in errors.items()})
    comparison = load_comparison(at, case_id, _drawn_gamma(settings.evaluate))
    wash, dvh = draw_overview(comparison, facts.protocol, at.figures, settings.report.figure_dpi)
    return {"overview": wash, "overview_dvh": dvh}


def _case_pages(at: ModelLayout, facts: RunFacts, settings: Settings, tell: Tell) -> list[CasePage]:
    errors = facts.case_metrics.set_index("case_id")[RANKED_BY]
    colours = structure_colours(facts.protocol.structure_names)
    criteria, folder, dpi = _drawn_gamma(settings.evaluate), at.figures, settings.report.figure_dpi
    pages = []
    for title, case_id in shown_cases({str(name): float(value) for name, value in errors.items()}):
        comparison = load_comparison(at, case_id, criteria)
        stem = f"{title.split()[0].lower()}_{case_id}"
        figures = draw_case(comparison, facts.protocol, facts.goals, folder, stem, dpi)
        spread_gy = load_spread(at.predictions / f"{case_id}.npz", comparison.predicted_gy.shape)
        if spread_gy is not None:
            figures = (*figures, draw_spread(comparison, spread_gy, colours, folder, stem, dpi))
        text = (
            f"MAE {format_number(float(errors[case_id]), 2)} Gy where the plan's dose is above 10 % of the highest "
            f"prescription, which cases are ranked by."
        )
        goals = results.goals_table(facts.goal_results, colours, case_id=case_id)
        pages.append(CasePage(title, case_id, text, figures, make_viewer(comparison), goals, spread_gy is not None))
        tell(f"drew {case_id} ({title.lower()})")
    return pages
