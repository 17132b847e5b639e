"""The report of a segmentation model as HTML and PDF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from doseledger.core.case import Case
from doseledger.core.project.layout import ModelLayout
from doseledger.core.text.sheet import format_number, plural
from doseledger.core.types import Floats, Tell
from doseledger.evaluate.overlap import masks_of
from doseledger.evaluate.predictions import load_labels
from doseledger.evaluate.segmentation import RANKED_BY_OVERLAP, structures_of
from doseledger.evaluate.summary import shown_cases
from doseledger.ledger.runs.facts import RunFacts
from doseledger.report.blocks import Card, Picture
from doseledger.report.figures.curves import plot_differences
from doseledger.report.figures.outlines import Outlines, plot_agreement, plot_outlines
from doseledger.report.figures.style import saved_png, saved_svg, structure_colours
from doseledger.report.model.frame import UNSEEN, common_context, training_pictures
from doseledger.report.page import ReportOutputs, write_report
from doseledger.report.tables import overlap_tables

TEMPLATE = "segmentation.html.j2"
CONTENTS = (
    ("summary", "Summary"), ("accuracy", "Overlap"), ("cases", "Cases"), ("training", "Training"), ("data", "Data"),
    ("card", "Model card"), ("gates", "Gates and limits"), ("code", "Code"), ("record", "Record"),
)  # fmt: skip
# Titles of cases that are drawn besides the best, the median and the worst.
RUNNERS_UP = ("Second worst case", "Third worst case")
UNITS = {
    "dice": ("Dice", "", 3),
    "hd95_mm": ("95 % Hausdorff distance", "mm", 2),
    "surface_dice": ("Surface Dice", "", 3),
}


@dataclass(frozen=True)
class LabelPage:
    """One case in the report: its title, its numbers in words, and its outlines."""

    title: str
    case_id: str
    text: str
    figure: Picture


def make_segmentation_report(at: ModelLayout, facts: RunFacts, dpi: int, tell: Tell) -> None:
    """Write the report of a segmentation: HTML, PDF, and every figure as PNG, SVG and PDF."""
    context = common_context(at, facts)
    tolerance_mm = float(facts.case_metrics["surface_tolerance_mm"].iloc[0])
    colours = structure_colours(facts.protocol.structure_names)
    views = _case_pages(at, facts, colours, dpi, tell)
    context["tables"] |= {
        "overlap": overlap_tables.overlap_table(facts, tolerance_mm, colours),
        "volumes": overlap_tables.volumes_table(facts, colours),
        "cases": overlap_tables.label_cases_table(facts),
    }
    context |= {
        "contents": CONTENTS,
        "headline": headline_cards(facts, tolerance_mm),
        "headline_note": UNSEEN,
        "figures": {**training_pictures(facts, at.figures, dpi), **_pictures(facts, at.figures, dpi)},
        "case_views": views,
        "overview": next((view.figure for view in views if "median" in view.title.lower()), None),
    }
    outputs = ReportOutputs(at.html, at.pdf, at.figures)
    write_report(at.layout.templates, TEMPLATE, context, outputs, tell)


def headline_cards(facts: RunFacts, tolerance_mm: float) -> list[Card]:
    """Return the key numbers, each with its interval and its worst case."""
    count, cards = plural(len(facts.case_metrics), "test case"), []
    for name, (title, unit, digits) in UNITS.items():
        low, high, worst = (
            format_number(facts.summary.get(f"{name}_{end}"), digits) for end in ("low", "high", "worst")
        )
        note = f"mean over structures, then {count} (95 % interval {low} to {high}); worst case {worst}"
        if name == "surface_dice":
            note = f"surfaces within {tolerance_mm:g} mm; {note}"
        cards.append(Card(title, format_number(facts.summary.get(name), digits), unit, note))
    return cards


def _pictures(facts: RunFacts, folder: Path, dpi: int) -> dict[str, Picture]:
    rows, names = facts.case_metrics, structures_of(facts.case_metrics.columns)
    errors = [1.0 - rows[f"dice_{name}"].to_numpy(dtype=np.float64) for name in names]

    def volumes_cc(who: str, name: str) -> Floats:
        return rows[f"volume_cc_{who}_{name}"].to_numpy(dtype=np.float64)

    pairs = {name: (volumes_cc("reference", name), volumes_cc("prediction", name)) for name in names}
    return {
        "dice": Picture(
            saved_svg(partial(plot_differences, names, errors, "1 − Dice"), folder, "dice", dpi),
            "1 − Dice of each structure, one point per test case; the bar is their mean.",
            "Overlap errors per structure",
        ),
        "volumes": Picture(
            saved_svg(partial(plot_agreement, pairs), folder, "volumes", dpi),
            "Volumes, prediction − reference against the mean of both (Bland and Altman); lines are the mean "
            "difference and the limits that hold 95 % of differences.",
            "Agreement of volumes per structure",
        ),
    }


def _case_pages(at: ModelLayout, facts: RunFacts, colours: Mapping[str, str], dpi: int, tell: Tell) -> list[LabelPage]:
    values = facts.case_metrics.set_index("case_id")[RANKED_BY_OVERLAP]
    errors = {str(name): 1.0 - float(value) for name, value in values.items()}
    chosen = shown_cases(errors)
    worst = sorted(errors, key=lambda name: (-errors[name], name))[1 : len(RUNNERS_UP) + 1]
    known = {case_id for _, case_id in chosen}
    chosen += [(title, name) for title, name in zip(RUNNERS_UP, worst, strict=False) if name not in known]
    pages = []
    for title, case_id in chosen:
        figure = draw_labels(at, case_id, colours, at.figures, dpi)
        text = f"Mean Dice of its structures {format_number(1.0 - errors[case_id], 3)}, by which cases are ranked."
        pages.append(LabelPage(title, case_id, text, figure))
        tell(f"drew {case_id} ({title.lower()})")
    return pages


def draw_labels(at: ModelLayout, case_id: str, colours: Mapping[str, str], folder: Path, dpi: int) -> Picture:
    """Save a case's slices with outlines under `folder` and return them as a picture for the page."""
    case = Case.load(at.layout.cases / f"{case_id}.npz")
    found = load_labels(at.predictions / f"{case_id}.npz")
    masks = masks_of(found.labels, len(found.structure_names))
    outlines = [Outlines(name, case.mask(name), mask) for name, mask in zip(found.structure_names, masks, strict=True)]
    uri = saved_png(partial(plot_outlines, case, outlines, colours), folder, f"case_{case_id}", dpi)
    caption = (
        f"{case_id}: slices through the structures' middle. Reference solid, prediction dashed. Patient's left is on "
        "the right of axial and coronal slices."
    )
    return Picture(uri, caption, f"Axial, coronal and sagittal slices of {case_id} with outlines")
