"""Slices of a case: isodoses on the image, difference, gamma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.types import Box
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.report.figures.style import WIDTH_IN, new_figure
from doseledger.report.figures.views import PLANES, Comparison, View, box_of_interest, isocentre_index, isodose_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

# Soft-tissue window, in HU.
WINDOW_HU = (-160.0, 240.0)
# The difference's scale ends at this part of the highest prescription, so that cases can be compared by eye.
DIFFERENCE_PART = 0.10
# From the highest isodose down; with four targets or more the outermost begin anew, and their place tells them apart.
ISODOSE_COLOURS = ("#D55E00", "#E69F00", "#F0E442", "#009E73", "#56B4E9", "#CC79A7")
SCALE_BAR_MM = 50.0
DASHED = (0, (3, 1.5))
# Height of the three rows of slices together, so that a case fits a page with its caption.
TALLEST_IN = 6.0


@dataclass(frozen=True)
class Overlay:
    """A map that stands beside the isodoses: title, label of its scale with the unit, values (z, y, x), colours."""

    title: str
    label: str
    volume: NDArray[Any]
    colormap: Colormap
    norm: Normalize
    extend: str


def plot_slices(comparison: Comparison, colours: Mapping[str, str]) -> Figure:
    """Return axial, coronal and sagittal slices through the isocentre: isodoses, difference in Gy, gamma.

    Parameters
    ----------
    colours
        Of each structure's outline, by name.
    """
    from matplotlib.colors import Normalize

    limit_gy = DIFFERENCE_PART * max(comparison.case.prescription_gy.values())
    change = comparison.predicted_gy - comparison.plan_gy
    difference = Overlay(
        "Prediction − plan", "Difference (Gy)", change, difference_colormap(), Normalize(-limit_gy, limit_gy), "both"
    )
    gamma = Overlay(
        _gamma_title(comparison.criteria), "Gamma (passes ≤ 1)", comparison.gamma, gamma_colormap(),
        Normalize(0.0, 2.0), "neither",
    )  # fmt: skip
    return plot_planes(comparison, (difference, gamma), colours)


def plot_planes(comparison: Comparison, overlays: tuple[Overlay, Overlay], colours: Mapping[str, str]) -> Figure:
    """Return axial, coronal and sagittal slices through the isocentre: isodoses on the image, and two maps."""
    case = comparison.case
    index = isocentre_index(case)
    box = box_of_interest(case, comparison.plan_gy, comparison.predicted_gy)
    figure, grid, foot = _layout(case, box)
    for row, plane in enumerate(PLANES):
        view = View(case.grid, plane, index, box)
        _draw_isodoses(grid[row][0], view, comparison)
        for column, overlay in enumerate(overlays, start=1):
            _draw_map(grid[row][column], view, case, overlay, colours)
        grid[row][0].set_ylabel(view.position)
    titles = ("Isodoses on CT", *(overlay.title for overlay in overlays))
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title)
    _draw_foot(foot, case, overlays)
    return figure


def _gamma_title(criteria: GammaCriteria) -> str:
    scope = ", local" if criteria.local else ""
    return f"Gamma {criteria.gamma_percent:g} %/{criteria.gamma_mm:g} mm{scope}"


def difference_colormap() -> Colormap:
    """Return blue where the prediction is colder than the plan, red where it is hotter."""
    import matplotlib

    return matplotlib.colormaps["RdBu_r"].with_extremes(bad="#FFFFFF")


def gamma_colormap() -> Colormap:
    """Blues where gamma passes, oranges to brown where it fails: the step lies at 1, the middle of the scale."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [(0.0, "#F7FBFF"), (0.5, "#6BAED6"), (0.5, "#FDAE6B"), (1.0, "#7F2704")]
    return LinearSegmentedColormap.from_list("gamma", stops).with_extremes(bad="#FFFFFF")


def coloured(levels: Sequence[tuple[float, str]]) -> list[tuple[float, str, str]]:
    """Return isodoses in Gy and their labels with a colour each; the levels come the highest first."""
    return [(dose_gy, label, colour) for (dose_gy, label), colour in zip(levels, cycle(ISODOSE_COLOURS), strict=False)]


def _draw_isodoses(axis: Axes, view: View, comparison: Comparison) -> None:
    case = comparison.case
    view.show(axis, view.cut(case.ct_hu), cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
    levels = coloured(isodose_levels(case))
    for dose, style in ((comparison.plan_gy, "solid"), (comparison.predicted_gy, DASHED)):
        picture = view.cut(dose)
        inside = [(level, colour) for level, _, colour in reversed(levels) if level < picture.max()]
        if inside:
            axis.contour(
                view.columns_mm, view.rows_mm, picture,
                levels=[level for level, _ in inside], colors=[colour for _, colour in inside],
                linestyles=[style], linewidths=1.2,
            )  # fmt: skip
    dress(axis, view, "#FFFFFF")


def _draw_map(axis: Axes, view: View, case: Case, overlay: Overlay, colours: Mapping[str, str]) -> None:
    body = view.cut(case.body)
    picture = np.ma.masked_invalid(np.where(body, view.cut(overlay.volume), np.nan))
    view.show(axis, picture, cmap=overlay.colormap, norm=overlay.norm)
    view.outline(axis, case.body, "#888888", 0.8)
    for name in case.present_names:
        if name in colours:
            view.outline(axis, case.mask(name), colours[name], 1.1)
    dress(axis, view, "#222222")


def dress(axis: Axes, view: View, ink: str) -> None:
    """Direction letters and a scale bar in `ink`, haloed; no ticks."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="#000000" if ink == "#FFFFFF" else "#FFFFFF")]
    left, right, top, bottom = view.plane.letters
    places = (
        (left, (0.02, 0.5), "left", "center"), (right, (0.98, 0.5), "right", "center"),
        (top, (0.5, 0.98), "center", "top"), (bottom, (0.5, 0.02), "center", "bottom"),
    )  # fmt: skip
    for letter, (x, y), horizontal, vertical in places:
        place: dict[str, Any] = {"transform": axis.transAxes, "ha": horizontal, "va": vertical}
        axis.text(x, y, letter, color=ink, path_effects=halo, **place)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color("#BBBBBB")
    x0, x1, y0, y1 = view.extent
    start, level = x0 + 0.03 * (x1 - x0), y0 + 0.06 * (y1 - y0)
    ends = [start, start + SCALE_BAR_MM]
    axis.plot(ends, [level, level], color=ink, linewidth=2.2, solid_capstyle="butt", path_effects=halo)


def _layout(case: Case, box: Box) -> tuple[Figure, list[list[Axes]], list[Axes]]:
    """Axes of 3 planes × 3 columns at one scale in mm, and three more below them for legend and colour bars."""
    size_mm = [(part.stop - part.start) * spacing for part, spacing in zip(box, case.grid.spacing_mm, strict=True)]
    left, gap, head, foot = 0.62, 0.08, 0.34, 1.45
    column_in = (WIDTH_IN - left - 2 * gap) / 3
    # One scale for all planes; a very long patient must still fit the page.
    per_mm = min(column_in / max(size_mm[1], size_mm[2]), TALLEST_IN / (size_mm[1] + 2 * size_mm[0]))
    heights = [size_mm[plane.rows_axis] * per_mm for plane in PLANES]
    total = head + sum(heights) + 2 * gap + foot
    figure = new_figure(total)

    def place(x: float, y: float, width: float, height: float) -> Axes:
        return figure.add_axes((x / WIDTH_IN, y / total, width / WIDTH_IN, height / total))

    starts = [left + column * (column_in + gap) for column in range(3)]
    grid: list[list[Axes]] = []
    top = total - head
    for plane, height in zip(PLANES, heights, strict=True):
        width = size_mm[plane.columns_axis] * per_mm
        grid.append([place(x + (column_in - width) / 2, top - height, width, height) for x in starts])
        figure.text(0.28 / WIDTH_IN, (top - height / 2) / total, plane.name, rotation=90, ha="right", va="center")
        top -= height + gap
    feet = [place(0.05, 0.0, starts[1] - 0.05, foot - 0.15)]
    feet += [place(x + 0.1, foot - 0.35, column_in - 0.2, 0.16) for x in starts[1:]]
    return figure, grid, feet


def _draw_foot(feet: list[Axes], case: Case, overlays: tuple[Overlay, Overlay]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, label=label) for _, label, colour in coloured(isodose_levels(case))]
    feet[0].axis("off")
    feet[0].legend(handles=lines, loc="upper left", handlelength=1.0, borderaxespad=0.0, labelspacing=0.15)
    for axis, overlay in zip(feet[1:], overlays, strict=True):
        scale = ScalarMappable(overlay.norm, overlay.colormap)
        bar = axis.figure.colorbar(scale, cax=axis, orientation="horizontal", extend=overlay.extend)
        bar.set_label(overlay.label)
        axis.grid(visible=False)
    kinds = [
        Line2D([], [], color="#444444", linewidth=1.2, label="plan"),
        Line2D([], [], color="#444444", linewidth=1.2, linestyle=DASHED, label="prediction"),
        Line2D([], [], color="#444444", linewidth=2.2, label=f"bar: {SCALE_BAR_MM:g} mm"),
    ]
    anchor = (-0.05, -3.9)
    feet[1].legend(handles=kinds, loc="upper left", bbox_to_anchor=anchor, ncols=3, handlelength=1.6, columnspacing=1.0)
