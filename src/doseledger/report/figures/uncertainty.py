"""Figures of a calibration: coverage, ranks, spread against error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from doseledger.report.figures.style import COLOURS, DASHED, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#555555"
HEIGHT_IN = 7.5


def calibration_figure(details: dict[str, Any]) -> Figure:
    """Return the picture of a calibration: coverage, ranks, spread against error, and each case's error.

    Parameters
    ----------
    details
        What `doseledger evaluate` wrote into calibration.json under that name.
    """
    figure = new_figure(HEIGHT_IN)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(2, 2)
    _draw_coverage(panels[0, 0], details["curves"])
    _draw_ranks(panels[0, 1], details["ranks"])
    _draw_spread(panels[1, 0], details["spread_against_error"])
    _draw_cases(panels[1, 1], details["cases"])
    return figure


def _draw_coverage(axes: Axes, curves: list[dict[str, float | None]]) -> None:
    # A level that nothing is known of, as of too few cases to stretch it by, has no point.
    percent = {name: 100 * np.asarray([row[name] for row in curves], dtype=np.float64) for name in curves[0]}
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1)
    for what, colour in (("voxels", COLOURS[0]), ("structures", COLOURS[1])):
        axes.plot(percent["level"], percent[what], color=colour, label=what)
        axes.plot(percent["level"], percent[f"{what}_stretched"], color=colour, linestyle=DASHED)
    axes.plot([], [], color=GREY, linestyle=DASHED, label="stretched")
    axes.set(xlabel="said to hold / %", ylabel="hold / %", title="Intervals", xlim=(0, 100), ylim=(0, 100))
    axes.legend()


def _draw_ranks(axes: Axes, shares: list[float]) -> None:
    axes.bar(range(len(shares)), [100 * share for share in shares], color=COLOURS[0])
    axes.axhline(100 / len(shares), color=GREY, linewidth=1)
    axes.set(xlabel="drawn doses below the plan's", ylabel="voxels / %", title="Rank of the plan's dose")


def _draw_spread(axes: Axes, classes: list[dict[str, float]]) -> None:
    _draw_equal(axes, [row["spread_gy"] for row in classes], [row["error_gy"] for row in classes], line="-")
    axes.set(xlabel="rms spread / Gy", ylabel="rms error / Gy", title="Voxels by spread")


def _draw_cases(axes: Axes, cases: list[dict[str, Any]]) -> None:
    _draw_equal(axes, [row["expected_mae_gy"] for row in cases], [row["mae_gy"] for row in cases], line="")
    axes.set(xlabel="expected MAE / Gy", ylabel="MAE / Gy", title="Cases")


def _draw_equal(axes: Axes, x: list[float], y: list[float], *, line: str) -> None:
    """Points, and where they lie if both numbers are equal."""
    most = 1.05 * max(*x, *y)
    axes.plot([0, most], [0, most], color=GREY, linewidth=1)
    axes.plot(x, y, color=COLOURS[0], marker="o", markersize=4, linestyle=line)
    axes.set(xlim=(0, most), ylim=(0, most))
