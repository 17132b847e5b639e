"""The spread of drawn doses beside their error, and coverage of intervals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.damage import UNREADABLE, describe
from doseledger.core.errors import BadCase
from doseledger.core.npz import open_npz
from doseledger.core.text.sheet import MISSING, Table, format_number, make_table
from doseledger.report.blocks import Picture
from doseledger.report.figures.slices import DIFFERENCE_PART, Overlay, plot_planes
from doseledger.report.figures.style import saved_png, saved_svg
from doseledger.report.figures.uncertainty import calibration_figure
from doseledger.report.figures.views import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_SPREAD = (
    "This model gives one dose for each case and does not say how sure it is of it. The intervals in this report are "
    "of means over test cases; of a single voxel or a single patient they say nothing."
)
NOT_CALIBRATED = (
    "Doses were drawn, and their spread is shown with the cases; how far it can be trusted was not measured "
    "(doseledger evaluate)."
)
CALIBRATED = (
    "Doses were drawn for each case. An interval of the drawn doses is honest if it holds the plan's dose as often as "
    "it says; stretched ones are widened by a factor for each level, which the validation cases ask for: 80 % takes 5 "
    "of them, 95 % takes 20, and with fewer there is none."
)


def load_spread(path: Path, shape_zyx: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return the standard deviation of a prediction's drawn doses in Gy, (z, y, x); None where it has one dose only.

    Raises
    ------
    BadCase
        If it can't be read, or does not lie on the prediction's grid.
    """
    try:
        with open_npz(path) as npz:
            spread_gy = npz.get("dose_sd_gy")
    except UNREADABLE as error:
        raise BadCase(path.stem, f"its prediction can't be read ({describe(error)}); predict again") from error
    if spread_gy is not None and spread_gy.shape != shape_zyx:
        raise BadCase(path.stem, f"its spread has {spread_gy.shape} voxels, its dose {shape_zyx}; predict again")
    return spread_gy


def draw_spread(
    comparison: Comparison,
    spread_gy: NDArray[np.float32],
    colours: Mapping[str, str],
    folder: Path,
    stem: str,
    dpi: int,
) -> Picture:
    """Save the spread of a case's drawn doses beside its error, and return the picture for the page."""
    case_id = comparison.case.case_id
    uri = saved_png(partial(plot_spread, comparison, spread_gy, colours), folder, f"{stem}_spread", dpi)
    caption = (
        f"{case_id}: how sure the model is. Spread: standard deviation of the drawn doses. Beside it how far the "
        "predicted dose is from the plan, on one scale: where the error is large and the spread small, the model is "
        "wrong without saying so."
    )
    return Picture(uri, caption, f"Spread of the drawn doses of {case_id} beside the error of the predicted dose")


def plot_spread(comparison: Comparison, spread_gy: NDArray[np.float32], colours: Mapping[str, str]) -> Figure:
    """Return axial, coronal and sagittal slices: isodoses, spread in Gy, and |prediction − plan| on the same scale.

    Parameters
    ----------
    comparison, spread_gy
        The case with its prediction, and the standard deviation of the drawn doses in Gy, (z, y, x).
    colours
        Of each structure's outline, by name.
    """
    import matplotlib
    from matplotlib.colors import Normalize

    norm = Normalize(0.0, DIFFERENCE_PART * max(comparison.case.prescription_gy.values()))
    scale = matplotlib.colormaps["viridis"].with_extremes(bad="#FFFFFF")
    error_gy = np.abs(comparison.predicted_gy - comparison.plan_gy)
    return plot_planes(
        comparison,
        (
            Overlay("Spread", "Spread (Gy)", spread_gy, scale, norm, "max"),
            Overlay("|Prediction − plan|", "Error (Gy)", error_gy, scale, norm, "max"),
        ),
        colours,
    )


def calibration_table(summary: Mapping[str, Any]) -> Table:
    """Return how much intervals of drawn doses hold of the plan's dose, by level, with their own intervals."""
    rows = []
    levels = sorted({int(name.split("_")[1]) for name in summary if name.startswith("coverage_")})
    for level in levels:
        for what in ("voxels", "structures"):
            for ending, words in (("", "as drawn"), ("_stretched", "stretched")):
                name = f"coverage_{level}_{what}{ending}_percent"
                low, high = summary.get(f"{name}_low"), summary.get(f"{name}_high")
                interval = f"{format_number(low, 1)} to {format_number(high, 1)}" if low is not None else MISSING
                rows.append((what, words, level, format_number(summary.get(name), 1), interval))
    note = (
        f"Over {summary.get('n_cases', 0):g} test cases, {summary.get('n_samples', 0):g} drawn doses each; structures: "
        "their mean dose. MAE of the draws' mean: expected "
        f"{format_number(summary.get('expected_mae_gy'), 2)} Gy, found "
        f"{format_number(summary.get('mae_gy'), 2)} Gy. Stretched by {_factors(summary, 'voxels')} (voxels), "
        f"{_factors(summary, 'structures')} (structures), level by level; intervals: bootstrap over cases."
    )
    columns = ("Of", "Intervals", "#Say they hold (%)", "#Hold (%)", "#95 % interval")
    return make_table("What intervals of the drawn doses hold", columns, rows, note=note)


def _factors(summary: Mapping[str, Any], what: str) -> str:
    """By what intervals were stretched, in the order of their levels."""
    levels = sorted({int(name.split("_")[1]) for name in summary if name.startswith("coverage_")})
    return ", ".join(format_number(summary.get(f"factor_{level}_{what}"), 2) for level in levels)


def calibration_picture(details: dict[str, Any], folder: Path, dpi: int) -> Picture:
    """Save the picture of a calibration and return it for the page."""
    uri = saved_svg(partial(calibration_figure, details), folder, "calibration", dpi)
    caption = (
        "Calibration on the test cases. Intervals: what they hold against what they say, best on the grey line. "
        "Ranks: flat where the plan's dose is one among the drawn ones. Spread against error of voxels; expected "
        "against found MAE of cases."
    )
    return Picture(uri, caption, "Coverage of intervals, ranks, and spread against error")
