"""Pages on single cases: slices, DVHs, goals of best, median and worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.project.layout import ModelLayout
from doseledger.core.project.protocol import GoalSet, Protocol
from doseledger.core.types import GyArray
from doseledger.dosimetry.dvh.curves import dvh_curves
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.evaluate.cohort import read_gamma
from doseledger.evaluate.predictions import load_prediction
from doseledger.report.blocks import Picture
from doseledger.report.figures.curves import StructureCurves, plot_dvh
from doseledger.report.figures.overview import plot_overview, plot_overview_dvh
from doseledger.report.figures.slices import plot_slices
from doseledger.report.figures.style import saved_png, saved_svg, structure_colours
from doseledger.report.figures.viewer import Viewer
from doseledger.report.figures.views import Comparison

# Width of a dose bin of a drawn DVH in Gy: finer than a pixel.
DVH_BIN_GY = 0.05


# Where no gamma is drawn.
NO_GAMMA = GammaCriteria(3.0, 3.0, 10.0, False, 10, 2.0)


@dataclass(frozen=True)
class CasePage:
    """One case in the report."""

    title: str
    case_id: str
    text: str
    figures: tuple[Picture, ...]
    viewer: Viewer
    has_spread: bool = False


def load_comparison(at: ModelLayout, case_id: str, criteria: GammaCriteria) -> Comparison:
    """Return a case with its prediction and the gamma map that was scored.

    Raises
    ------
    BadCase
        If one of them is absent, they don't lie on one grid, or the case has no dose.
    """
    comparison, _ = load_with_digest(at.layout.cases, at.predictions, case_id)
    gamma = read_gamma(at.gamma / f"{case_id}.npz", comparison.case.grid.shape_zyx)
    return replace(comparison, criteria=criteria, gamma=gamma)


def load_with_digest(cases: Path, predictions: Path, case_id: str) -> tuple[Comparison, str]:
    """Return a case with its prediction, no gamma, and the SHA256 of the file that the prediction was made for.

    Raises
    ------
    BadCase
        As `load_comparison`.
    """
    case = Case.load(cases / f"{case_id}.npz")
    prediction = load_prediction(predictions / f"{case_id}.npz")
    if not prediction.grid.same_as(case.grid):
        raise BadCase(case_id, f"predicted on {prediction.grid}, the case lies on {case.grid}; run predict again")
    no_gamma = np.full(case.grid.shape_zyx, np.nan, dtype=np.float32)
    return Comparison(case, prediction.dose_gy, NO_GAMMA, no_gamma), prediction.case_sha256


def draw_case(
    comparison: Comparison, protocol: Protocol, goals: GoalSet, folder: Path, stem: str, dpi: int
) -> tuple[Picture, ...]:
    """Save slices and DVHs of a case under `folder` and return them as pictures for the page."""
    case = comparison.case
    criterion = comparison.criteria
    slices = partial(plot_slices, comparison, structure_colours(protocol.structure_names))
    top_gy = 1.12 * max(float(comparison.plan_gy.max()), float(comparison.predicted_gy.max()))
    dvh = partial(plot_dvh, structure_curves(comparison, protocol), goals.goals, top_gy)
    kind = "local" if criterion.local else "global"
    return (
        Picture(
            saved_png(slices, folder, f"{stem}_slices", dpi),
            f"{case.case_id}: slices through the centre of the target of the highest prescription, cut to where there "
            "is dose. Patient's left is on the right of axial and coronal slices. Isodoses: plan solid, prediction "
            "dashed. Difference: red where the prediction is hotter. Gamma "
            f"{criterion.gamma_percent:g} %/{criterion.gamma_mm:g} mm, {kind}, in every voxel above "
            f"{criterion.cutoff_percent:g} % of the plan's maximum, as it is scored; orange to brown "
            "fails. Outlines have the colours of the DVH below.",
            f"Axial, coronal and sagittal slices of {case.case_id} with isodoses, dose difference and gamma",
        ),
        Picture(
            saved_svg(dvh, folder, f"{stem}_dvh", dpi),
            f"{case.case_id}: cumulative DVHs, plan solid, prediction dashed. Triangles mark clinical goals: a curve "
            f"should pass below ▼ and above ▲.{name_cut(case)}",
            f"Dose-volume histograms of {case.case_id} for every structure, plan against prediction",
        ),
    )


def cut_structures(case: Case) -> list[str]:
    """Return the structures that lie beyond the plan's dose grid by more than 0.1 %."""
    return [name for name in case.present_names if case.lacks_dose(name)]


def name_cut(case: Case) -> str:
    """Return the sentence of a caption that says whose DVH is not drawn; empty where all are."""
    cut = ", ".join(cut_structures(case))
    return f" Without {cut}: no dose is known in part of it, which lies beyond the plan's dose grid." if cut else ""


def draw_overview(comparison: Comparison, protocol: Protocol, folder: Path, dpi: int) -> tuple[Picture, Picture]:
    """Save the case of the first screen under `folder`; return its dose wash and its DVH as pictures for the page."""
    case_id = comparison.case.case_id
    top_gy = 1.05 * max(float(comparison.plan_gy.max()), float(comparison.predicted_gy.max()))
    wash = partial(plot_overview, comparison, structure_colours(protocol.structure_names))
    dvh = partial(plot_overview_dvh, structure_curves(comparison, protocol), top_gy)
    return (
        Picture(
            saved_png(wash, folder, f"overview_{case_id}_dose", dpi),
            f"{case_id}, the median of the test cases by mean absolute error: axial slice through the centre of the "
            "target of the highest prescription. The wash begins at 20 % of that prescription.",
            f"Dose wash of plan and prediction and their difference on the axial slice of {case_id}, with contours",
        ),
        Picture(
            saved_svg(dvh, folder, f"overview_{case_id}_dvh", dpi),
            "Its DVHs, in the colours of the contours: plan solid, prediction dashed.",
            f"Dose-volume histograms of {case_id}: plan solid, prediction dashed",
        ),
    )


def structure_curves(
    comparison: Comparison, protocol: Protocol, others: Sequence[NDArray[np.float32]] = ()
) -> list[StructureCurves]:
    """Return the DVHs of every structure that is present, of plan and prediction, and of other predictions in Gy.

    One that the plan's dose grid cuts has none: `cut_structures` names it.
    """
    return curves_of_doses(comparison.case, comparison.plan_gy, (comparison.predicted_gy, *others), protocol)


def curves_of_doses(
    case: Case, plan_gy: GyArray, doses_gy: Sequence[GyArray], protocol: Protocol
) -> list[StructureCurves]:
    """Return the DVHs as `structure_curves`, of a first dose in Gy, drawn solid, and of at least one other."""
    cut, known = cut_structures(case), case.reach
    indices = [i for i, name in enumerate(case.structure_names) if case.present[i] and name not in cut]
    masks = case.masks[indices][:, *known]
    volume_cc = case.grid.voxel_volume_cc
    plan = dvh_curves(plan_gy[known], masks, volume_cc, DVH_BIN_GY)
    colours = structure_colours(protocol.structure_names)
    predicted = [dvh_curves(dose_gy[known], masks, volume_cc, DVH_BIN_GY) for dose_gy in doses_gy]
    return [
        StructureCurves(
            name=case.structure_names[index],
            is_target=case.structure_names[index] in protocol.target_names,
            colour=colours[case.structure_names[index]],
            plan_gy=p.edges_gy,
            plan_percent=p.cumulative_percent,
            predicted_gy=of[0].edges_gy,
            predicted_percent=of[0].cumulative_percent,
            others=tuple((q.edges_gy, q.cumulative_percent) for q in of[1:]),
        )
        for index, p, of in zip(indices, plan, zip(*predicted, strict=True), strict=True)
    ]
