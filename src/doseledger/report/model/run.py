"""The report of a run as HTML and PDF."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.project.layout import ModelLayout
from doseledger.core.settings import EvaluateSettings, Settings
from doseledger.core.text.sheet import format_number
from doseledger.core.types import Tell
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.evaluate.case import gamma_criteria
from doseledger.evaluate.summary import RANKED_BY, median_case, shown_cases
from doseledger.ledger.runs.facts import RunFacts, load_facts
from doseledger.report.blocks import Picture
from doseledger.report.case_pages import CasePage, draw_case, draw_overview, load_comparison
from doseledger.report.figures.curves import plot_differences
from doseledger.report.figures.style import saved_svg, structure_colours
from doseledger.report.figures.viewer import make_viewer
from doseledger.report.model.contours import describe_closed_loop
from doseledger.report.model.delivery import describe_plans, describe_projection
from doseledger.report.model.frame import UNSEEN, common_context, training_pictures
from doseledger.report.model.segmentation import make_segmentation_report
from doseledger.report.model.spread import (
    CALIBRATED,
    NO_SPREAD,
    NOT_CALIBRATED,
    calibration_picture,
    calibration_table,
    draw_spread,
    load_spread,
)
from doseledger.report.page import ReportOutputs, write_report
from doseledger.report.tables import results

CONTENTS = (
    ("summary", "Summary"), ("accuracy", "Agreement"), ("goals", "Goals"), ("cases", "Cases"),
    ("uncertainty", "Uncertainty"), ("training", "Training"), ("data", "Data"), ("card", "Model card"),
    ("gates", "Gates and limits"), ("code", "Code"), ("record", "Record"),
)  # fmt: skip


def make_report(at: ModelLayout, settings: Settings, tell: Tell) -> None:
    """Write the report of a run: self-contained HTML, PDF, and every figure as PNG, SVG and PDF.

    Parameters
    ----------
    settings
        Resolution of figures, and what was evaluated: its first gamma criterion is drawn.

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
    if facts.is_segmentation:
        make_segmentation_report(at, facts, dpi, tell)
        return
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
    gammas = results.gamma_names(evaluate)
    context, colours = common_context(at, facts), structure_colours(facts.protocol.structure_names)
    context["tables"] |= {
        "errors": results.errors_table(facts, colours),
        "gamma": results.gamma_table(facts, gammas),
        "dvh": results.dvh_table(facts.dvh, colours),
        "goals": results.goals_table(facts.goal_results, colours),
        "cases": results.cases_table(facts, gammas),
    }
    return context | {
        "contents": CONTENTS,
        "goals_line": results.goals_sentence(facts.goal_results),
        "headline": results.headline_cards(facts, gammas),
        "headline_note": f"{UNSEEN} The plan's dose is the reference, the prediction is evaluated.",
        "goals_text": f"{facts.goals.title}. The plan and the prediction are judged by the same goals.",
        "projection": describe_projection(at.predictions, facts.case_metrics["case_id"]),
        "plans": describe_plans(at.delivery, facts.case_metrics),
        "closed_loop": describe_closed_loop(at.contours, facts.case_metrics),
        "figures": pictures,
        "case_views": pages,
        "case_goals": results.goals_of_cases_table(facts.goal_results, colours, [page.case_id for page in pages]),
        "opens_on": median_case(_ranks(facts)),
    }


def _ranks(facts: RunFacts) -> dict[str, float]:
    """The error that cases are ranked by, by case."""
    errors = facts.case_metrics.set_index("case_id")[RANKED_BY]
    return {str(name): float(value) for name, value in errors.items()}


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


def _run_pictures(facts: RunFacts, folder: Path, dpi: int) -> dict[str, Picture]:
    labels, values = results.difference_rows(facts.dvh)
    draw = partial(plot_differences, labels, values, "Prediction − plan (Gy)")
    return {
        **training_pictures(facts, folder, dpi),
        "differences": Picture(
            saved_svg(draw, folder, "dvh_differences", dpi),
            "DVH statistics in Gy, prediction − plan, one point per test case; the bar is their mean. Height within a "
            "row has no meaning.",
            "Differences of DVH statistics between prediction and plan, per structure",
        ),
    }


def _overview(at: ModelLayout, facts: RunFacts, settings: Settings) -> dict[str, Picture]:
    """Dose wash and DVH of the median test case."""
    case_id = median_case(_ranks(facts))
    comparison = load_comparison(at, case_id, _drawn_gamma(settings.evaluate))
    wash, dvh = draw_overview(comparison, facts.protocol, at.figures, settings.report.figure_dpi)
    return {"overview": wash, "overview_dvh": dvh}


def _case_pages(at: ModelLayout, facts: RunFacts, settings: Settings, tell: Tell) -> list[CasePage]:
    errors = _ranks(facts)
    colours = structure_colours(facts.protocol.structure_names)
    criteria, folder, dpi = _drawn_gamma(settings.evaluate), at.figures, settings.report.figure_dpi
    pages = []
    for title, case_id in shown_cases(errors):
        comparison = load_comparison(at, case_id, criteria)
        stem = f"{title.split()[0].lower()}_{case_id}"
        figures = draw_case(comparison, facts.protocol, facts.goals, folder, stem, dpi)
        spread_gy = load_spread(at.predictions / f"{case_id}.npz", comparison.predicted_gy.shape)
        if spread_gy is not None:
            figures = (*figures, draw_spread(comparison, spread_gy, colours, folder, stem, dpi))
        text = (
            f"MAE {format_number(errors[case_id], 2)} Gy where the plan's dose is above 10 % of the highest "
            "prescription, by which cases are ranked."
        )
        viewer = make_viewer(comparison, colours)
        pages.append(CasePage(title, case_id, text, figures, viewer, spread_gy is not None))
        tell(f"drew {case_id} ({title.lower()})")
    return pages
