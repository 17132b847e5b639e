"""Figures of curves and points: training, DVHs, differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Goal
from doseledger.core.text.words import spell_metric
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.report.figures.style import COLOURS, DASHED, FONT_PT, new_figure, point_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_ROW_IN = 0.25
# Marks of goals closer than this would hide one another.
MARK_GY, MARK_PERCENT = 2.0, 3.0
# Letters of all names of predictions that fit in one row below a figure.
LONGEST_ROW = 32
# Of the first prediction, of a second and a third one; the plan is solid.
LINE_STYLES: tuple[Any, ...] = (DASHED, (0, (1, 1.4)), (0, (6, 1.5, 1, 1.5)))
TALLEST_IN = 7.2
# Rows of differences that stand below each other before a second column begins.
ROWS_OF_ONE_COLUMN = 14


@dataclass(frozen=True)
class Curve:
    """One line of a panel of training curves: a column of the history and how it is called."""

    column: str
    label: str


@dataclass(frozen=True)
class Panel:
    """One panel of training curves, with its unit on the axis."""

    axis_label: str
    curves: tuple[Curve, ...]
    logarithmic: bool = False


def training_panels(columns: Sequence[str]) -> list[Panel]:
    """Return the panels that a history's columns fill: loss, errors in Gy or of overlap, learning rate."""
    losses = [name for name in columns if name.endswith("loss")]
    errors = [name for name in columns if name.endswith("_gy")]
    others = [name for name in columns if name.endswith("dice_error")]
    rates = [name for name in columns if name in ("lr", "learning_rate") or name.startswith("lr-")]
    panels = [
        Panel("Loss", _curves(losses), logarithmic=True),
        Panel("Error (Gy)", _curves(errors)),
        Panel("1 − Dice", _curves(others)),
        Panel("Learning rate", _curves(rates)),
    ]
    return [panel for panel in panels if panel.curves]


def _curves(columns: Sequence[str]) -> tuple[Curve, ...]:
    return tuple(Curve(name, spell_metric(name).replace(" (Gy)", "").replace(", ", ",\n")) for name in columns)


def plot_training(history: pd.DataFrame, best_epoch: int | None) -> Figure:
    """Return the curves of a training, one panel per unit, epoch on x.

    Parameters
    ----------
    history
        One row per epoch: `epoch`, losses, errors in Gy, learning rate; empty cells are left out of a line.
    best_epoch
        Epoch of the best checkpoint, marked by a vertical line; None where it isn't known.

    Raises
    ------
    BadInput
        If the history holds nothing to draw.
    """
    import pandas as pd

    panels = training_panels([str(name) for name in history.columns])
    if "epoch" not in history.columns or not panels or history.empty:
        raise BadInput(f"a history needs `epoch` and a loss, found columns {', '.join(map(str, history.columns))}")
    figure = new_figure(0.8 + 1.4 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        for colour, curve in zip(COLOURS * 2, panel.curves, strict=False):
            values = pd.to_numeric(history[curve.column], errors="coerce")
            there = values.notna()
            marker = "o" if int(there.sum()) <= 12 else None
            axis.plot(history["epoch"][there], values[there], color=colour, label=curve.label, marker=marker, ms=4)
        # A logarithmic axis shows the slow end of training; it needs positive values throughout.
        shown = history[[curve.column for curve in panel.curves]].apply(pd.to_numeric, errors="coerce")
        lowest, highest = float(shown.min().min()), float(shown.max().max())
        # Within a factor of two a logarithmic axis is a straight one whose numbers stand on each other.
        axis.locator_params(axis="y", nbins=5)
        if panel.logarithmic and 0 < 2 * lowest <= highest:
            axis.set_yscale("log")
            _plain_log_ticks(axis)
        if best_epoch is not None:
            axis.axvline(best_epoch, color="#444444", linestyle=":", linewidth=1.2)
        axis.set_ylabel(panel.axis_label)
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), handlelength=1.2, borderaxespad=0.0)
    axes[-1].set_xlabel("Epoch" if best_epoch is None else f"Epoch (dotted: best checkpoint, epoch {best_epoch})")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels(list(axes))
    figure.tight_layout()
    return figure


def _plain_log_ticks(axis: Axes) -> None:
    """Numbers such as 0.02 in place of powers; a range below one decade would else show no tick at all."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class StructureCurves:
    """Cumulative DVHs of one structure for plan and prediction: dose in Gy, percent of its volume, each (bin + 1,).

    `colour` is the structure's own everywhere (`style.structure_colours`).
    `others` holds (dose, percent) of further predictions of the same case.
    """

    name: str
    is_target: bool
    colour: str
    plan_gy: NDArray[np.float64]
    plan_percent: NDArray[np.float64]
    predicted_gy: NDArray[np.float64]
    predicted_percent: NDArray[np.float64]
    others: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...] = ()

    @property
    def predictions(self) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
        """(dose, percent) of every prediction."""
        return ((self.predicted_gy, self.predicted_percent), *self.others)


def plot_dvh(
    structures: Sequence[StructureCurves],
    goals: Sequence[Goal],
    top_gy: float,
    labels: Sequence[str] = ("prediction",),
    solid: str = "plan",
) -> Figure:
    """Return the DVHs of one case: plan solid, predictions dashed or dotted, targets and organs in two panels.

    Parameters
    ----------
    goals
        Clinical goals; those that are a point of a DVH are marked on it, ▼ an upper limit, ▲ a lower one.
    top_gy
        End of the dose axis in Gy.
    labels
        What the predictions are called, in the order of `StructureCurves.predictions`; those without are not drawn.
    solid
        What the solid line is called.
    """
    from matplotlib.lines import Line2D

    groups = {"Targets": [s for s in structures if s.is_target], "Organs": [s for s in structures if not s.is_target]}
    groups = {title: group for title, group in groups.items() if group}
    legend_in = LEGEND_ROW_IN * max((len(group) + 1) // 2 for group in groups.values())
    # Short names of lines stand in one row, long ones below each other.
    lines_in_a_row = len(labels) + 2 if sum(map(len, labels)) < LONGEST_ROW else 1
    line_rows = -(-(len(labels) + 2) // lines_in_a_row)
    foot_in = 0.72 + legend_in + 0.17 + LEGEND_ROW_IN * line_rows
    figure = new_figure(0.32 + 2.5 + foot_in)
    height_in = figure.get_figheight()
    axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.1, right=0.98, top=1 - 0.32 / height_in, bottom=foot_in / height_in, wspace=0.1)
    for axis, (title, group) in zip(axes, groups.items(), strict=True):
        for item in group:
            axis.plot(item.plan_gy, item.plan_percent, color=item.colour, label=item.name)
            for style, (dose_gy, percent) in zip(LINE_STYLES[: len(labels)], item.predictions, strict=False):
                axis.plot(dose_gy, percent, color=item.colour, linestyle=style)
        _mark_goals(axis, goals, group)
        start_gy = _shoulder_gy(group) if group[0].is_target else 0.0
        axis.set(xlim=(start_gy, top_gy), ylim=(0, 102), xlabel="Dose (Gy)")
        axis.set_title(title)
        # 0.62 inches below the axis: under its label.
        anchor = (0.5, -0.62 / 2.5)
        axis.legend(loc="upper center", bbox_to_anchor=anchor, ncols=2, columnspacing=1.0, handlelength=1.2)
    axes[0].set_ylabel("Volume (%)")
    lines = [
        Line2D([], [], color="#444444", label=solid),
        *(
            Line2D([], [], color="#444444", linestyle=style, label=label)
            for style, label in zip(LINE_STYLES, labels, strict=False)
        ),
    ]
    if goals:
        lines.append(Line2D([], [], color="#444444", marker="v", linestyle="", markerfacecolor="white", label="goal"))
    figure.legend(handles=lines, loc="lower center", ncols=min(len(lines), lines_in_a_row))
    return figure


def _shoulder_gy(group: Sequence[StructureCurves]) -> float:
    """Where the curves begin to fall, a round dose in Gy: what targets have below it is a straight line."""
    falls = [
        float(dose[np.flatnonzero(percent > 99.5)[-1]])
        for item in group
        for dose, percent in ((item.plan_gy, item.plan_percent), *item.predictions)
    ]
    return max(0.0, 10.0 * np.floor(min(falls) / 10.0) - 5.0)


def _mark_goals(axis: Axes, goals: Sequence[Goal], group: Sequence[StructureCurves]) -> None:
    """Mark the goals of structures on their axis; where one's mark would hide another's, it is drawn around it."""
    marked: list[tuple[float, float]] = []
    for item in group:
        for goal in goals:
            point = _point_of(goal) if goal.structure == item.name else None
            if point is None:
                continue
            near = [(gy, v) for gy, v in marked if abs(point[0] - gy) < MARK_GY and abs(point[1] - v) < MARK_PERCENT]
            marked.append(point)
            (mark,) = axis.plot(*point, marker="v" if goal.operator == "<=" else "^", color=item.colour)
            mark.set(markerfacecolor="white", markersize=8 + 6 * len(near), clip_on=False, zorder=5 - 0.1 * len(near))


def _point_of(goal: Goal) -> tuple[float, float] | None:
    """Dose in Gy and percent of the volume where a goal stands on a DVH; None where it is no point of one."""
    statistic = parse_statistic(goal.statistic)
    if goal.minus:
        return None
    if statistic.kind == "volume_at_gy" and goal.unit == "%":
        return statistic.level, goal.limit
    if statistic.kind == "dose_at_percent" and goal.unit == "Gy":
        return goal.limit, statistic.level
    return None


def plot_differences(labels: Sequence[str], values: Sequence[NDArray[np.float64]], axis_label: str) -> Figure:
    """Return one row of points per label, one point a case, with the mean as a bar and zero marked.

    Parameters
    ----------
    labels
        What each row shows, the first at the top.
    values
        Differences of each row, (case,); NaN where a case has none.
    """
    # Many rows stand in two columns, and closer together, so that figure and caption leave room on a page.
    columns = 2 if len(labels) > ROWS_OF_ONE_COLUMN else 1
    rows = max(1, -(-len(labels) // columns))
    row_in = min(0.27 if columns == 1 else 0.22, max(0.2, TALLEST_IN / rows))
    figure = new_figure(0.75 + row_in * rows)
    rng = np.random.default_rng(0)
    axes = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    for axis, first in zip(axes, range(0, columns * rows, rows), strict=True):
        _draw_rows(axis, labels[first : first + rows], values[first : first + rows], rng)
        axis.set_ylim(rows - 0.5, -0.5)
    if columns == 1:
        axes[0].set_xlabel(axis_label)
    else:
        figure.supxlabel(axis_label, fontsize=FONT_PT)
    axes[0].xaxis.get_major_locator().set_params(nbins=4, steps=[1, 2, 5, 10])
    figure.set_layout_engine("constrained")
    return figure


def _draw_rows(
    axis: Axes, labels: Sequence[str], values: Sequence[NDArray[np.float64]], rng: np.random.Generator
) -> None:
    for row, points in enumerate(values):
        there = points[np.isfinite(points)]
        if row % 2 == 0:
            axis.axhspan(row - 0.5, row + 0.5, color="#F4F6F8", zorder=0)
        # Spread in height keeps equal values apart; it carries no meaning.
        height = row + rng.uniform(-0.22, 0.22, size=len(there))
        axis.plot(there, height, "o", color=COLOURS[0], **point_style(len(there)))
        if len(there):
            axis.plot([there.mean()] * 2, [row - 0.38, row + 0.38], color=COLOURS[1], linewidth=2.4)
    axis.axvline(0.0, color="#444444", linewidth=1.0)
    axis.set_yticks(range(len(labels)), labels)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
