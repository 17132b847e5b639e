"""A case at a glance: dose wash of plan, prediction and difference, and DVH."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.types import GyArray
from doseledger.report.figures.curves import StructureCurves
from doseledger.report.figures.slices import DIFFERENCE_PART, WINDOW_HU, difference_colormap, dress
from doseledger.report.figures.style import DASHED, WIDTH_IN, new_figure
from doseledger.report.figures.views import PLANES, Comparison, View, box_of_interest, isocentre_index

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

# The wash begins at this part of the highest prescription: what lies below would only veil the image.
WASH_PART = 0.20
WASH_ALPHA = 0.55
# Differences below this part of the scale's end are left out of the wash.
SILENT_PART = 0.08
LEGEND_COLUMNS, LEGEND_ROW_IN = 5, 0.24
GAP_IN, HEAD_IN, BAR_IN, FOOT_IN = 0.08, 0.3, 0.14, 0.56
TALLEST_IN = 2.6
# A figure of half the page, for the DVH beside other things.
DVH_SIZE_IN = (4.4, 3.1)


def plot_overview(comparison: Comparison, colours: Mapping[str, str]) -> Figure:
    """Return the axial slice through the isocentre: plan, prediction and difference in Gy as wash, with contours."""
    import matplotlib
    from matplotlib.colors import Normalize

    case = comparison.case
    box = box_of_interest(case, comparison.plan_gy, comparison.predicted_gy)
    view = View(case.grid, PLANES[0], isocentre_index(case), box)
    width_mm, height_mm = view.size_mm
    width_in = (WIDTH_IN - 2 * GAP_IN) / 3
    height_in = min(width_in * height_mm / width_mm, TALLEST_IN)
    names = [name for name in case.present_names if name in colours]
    rows = -(-len(names) // LEGEND_COLUMNS)
    total = HEAD_IN + height_in + FOOT_IN + BAR_IN + LEGEND_ROW_IN * rows
    figure = new_figure(total)

    def place(column: int, bottom_in: float, tall_in: float, columns: int = 1) -> Axes:
        left, wide = column * (width_in + GAP_IN), columns * (width_in + GAP_IN) - GAP_IN
        return figure.add_axes((left / WIDTH_IN, bottom_in / total, wide / WIDTH_IN, tall_in / total))

    top_gy = max(float(comparison.plan_gy.max()), float(comparison.predicted_gy.max()))
    least_gy = WASH_PART * max(case.prescription_gy.values())
    limit_gy = DIFFERENCE_PART * max(case.prescription_gy.values())
    dose = (matplotlib.colormaps["viridis"], Normalize(least_gy, top_gy))
    change = comparison.predicted_gy - comparison.plan_gy
    shown = (
        ("Plan", comparison.plan_gy, comparison.plan_gy >= least_gy, *dose),
        ("Prediction", comparison.predicted_gy, comparison.predicted_gy >= least_gy, *dose),
        (
            "Prediction − plan", change, np.abs(change) >= SILENT_PART * limit_gy,
            difference_colormap(), Normalize(-limit_gy, limit_gy),
        ),
    )  # fmt: skip
    base = total - HEAD_IN - height_in
    for column, (title, volume, where, colormap, norm) in enumerate(shown):
        axis = place(column, base, height_in)
        _draw_wash(axis, view, case, np.where(where & case.body, volume, np.nan), colormap, norm)
        for name in names:
            view.outline(axis, case.mask(name), colours[name], 1.3, halo=True)
        dress(axis, view, "#FFFFFF")
        axis.set_title(title)
    _draw_bar(place(0, base - BAR_IN - 0.06, BAR_IN, 2), *dose, "Dose (Gy)")
    _draw_bar(place(2, base - BAR_IN - 0.06, BAR_IN), *shown[2][3:], "Difference (Gy)", extend="both")
    figure.legend(
        handles=_handles(names, colours), loc="lower center", ncols=LEGEND_COLUMNS, handlelength=1.0, columnspacing=1.2,
        borderaxespad=0.0, labelspacing=0.2,
    )  # fmt: skip
    return figure


def plot_prediction(case: Case, dose_gy: GyArray, spread_gy: GyArray | None, colours: Mapping[str, str]) -> Figure:
    """Return axial, coronal and sagittal slices with the dose in Gy as wash and contours; below them its spread.

    Parameters
    ----------
    case
        Without a plan's dose, or with one that is not looked at.
    dose_gy, spread_gy
        Predicted dose and the standard deviation of drawn doses in Gy, (z, y, x); None where none were drawn.

    Raises
    ------
    BadCase
        If there is no target to cut through, or the dose is nowhere.
    """
    import matplotlib
    from matplotlib.colors import Normalize

    top_gy, box = max(case.prescription_gy.values()), box_of_interest(case, dose_gy)
    if not float(dose_gy.max()) > WASH_PART * top_gy:
        raise BadCase(case.case_id, f"no dose reaches {WASH_PART * top_gy:.1f} Gy anywhere")
    views = [View(case.grid, plane, isocentre_index(case), box) for plane in PLANES]
    viridis, magma = (matplotlib.colormaps[name] for name in ("viridis", "magma"))
    rows = [("Dose (Gy)", dose_gy, WASH_PART * top_gy, viridis, Normalize(WASH_PART * top_gy, float(dose_gy.max())))]
    if spread_gy is not None:
        limit_gy = DIFFERENCE_PART * top_gy
        rows.append(("Spread (Gy)", spread_gy, SILENT_PART * limit_gy, magma, Normalize(0.0, limit_gy)))
    names = [name for name in case.present_names if name in colours]
    sizes_mm = [view.size_mm for view in views]
    gaps_in = GAP_IN * (len(views) - 1)
    per_mm = min(
        (WIDTH_IN - gaps_in) / sum(width for width, _ in sizes_mm), TALLEST_IN / max(height for _, height in sizes_mm)
    )
    tall_in = per_mm * max(height for _, height in sizes_mm)
    row_in = tall_in + FOOT_IN + BAR_IN
    total = HEAD_IN + len(rows) * row_in + LEGEND_ROW_IN * -(-len(names) // LEGEND_COLUMNS)
    figure = new_figure(total)
    start_in = (WIDTH_IN - gaps_in - per_mm * sum(width for width, _ in sizes_mm)) / 2

    def place(left_in: float, bottom_in: float, width_in: float, height_in: float) -> Axes:
        return figure.add_axes((left_in / WIDTH_IN, bottom_in / total, width_in / WIDTH_IN, height_in / total))

    for row, (label, volume, least_gy, colormap, norm) in enumerate(rows):
        base, left = total - HEAD_IN - row * row_in - tall_in, start_in
        for view, (width_mm, height_mm) in zip(views, sizes_mm, strict=True):
            axis = place(left, base + (tall_in - per_mm * height_mm) / 2, per_mm * width_mm, per_mm * height_mm)
            _draw_wash(axis, view, case, np.where((volume >= least_gy) & case.body, volume, np.nan), colormap, norm)
            for name in names:
                view.outline(axis, case.mask(name), colours[name], 1.3, halo=True)
            dress(axis, view, "#FFFFFF")
            if row == 0:
                axis.set_title(f"{view.plane.name}, {view.position}")
            left += per_mm * width_mm + GAP_IN
        _draw_bar(place(start_in, base - BAR_IN - 0.06, left - GAP_IN - start_in, BAR_IN), colormap, norm, label)
    figure.legend(
        handles=_handles(names, colours), loc="lower center", ncols=LEGEND_COLUMNS, handlelength=1.0, columnspacing=1.2,
        borderaxespad=0.0, labelspacing=0.2,
    )  # fmt: skip
    return figure


def _draw_wash(axis: Axes, view: View, case: Case, volume: Any, colormap: Colormap, norm: Normalize) -> None:
    view.show(axis, view.cut(case.ct_hu), cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
    clear = colormap.with_extremes(bad=(0.0, 0.0, 0.0, 0.0))
    view.show(axis, np.ma.masked_invalid(view.cut(volume)), cmap=clear, norm=norm, alpha=WASH_ALPHA)


def _draw_bar(axis: Axes, colormap: Colormap, norm: Normalize, label: str, extend: str = "neither") -> None:
    from matplotlib.cm import ScalarMappable

    bar = axis.figure.colorbar(ScalarMappable(norm, colormap), cax=axis, orientation="horizontal", extend=extend)
    bar.set_label(label, labelpad=1)
    axis.grid(visible=False)


def _handles(names: Sequence[str], colours: Mapping[str, str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colours[name], linewidth=2.4, label=name) for name in names]


def plot_overview_dvh(structures: Sequence[StructureCurves], top_gy: float) -> Figure:
    """Return the DVHs of a case in one small panel: plan solid, prediction dashed.

    Parameters
    ----------
    structures
        Every structure that is present; their colours are told by the legend of `plot_overview`.
    top_gy
        End of the dose axis in Gy.
    """
    from matplotlib.lines import Line2D

    figure = new_figure(DVH_SIZE_IN[1], DVH_SIZE_IN[0])
    axis = figure.subplots()
    for item in structures:
        axis.plot(item.plan_gy, item.plan_percent, color=item.colour)
        axis.plot(item.predicted_gy, item.predicted_percent, color=item.colour, linestyle=DASHED)
    axis.set(xlim=(0.0, top_gy), ylim=(0, 102), xlabel="Dose (Gy)", ylabel="Volume (%)")
    lines = [Line2D([], [], color="#444444", linestyle=style, label=label) for style, label in DVH_LINES]
    axis.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=2.2)
    figure.tight_layout(pad=0.3)
    return figure


DVH_LINES: tuple[tuple[Any, str], ...] = (("solid", "plan"), (DASHED, "prediction"))
