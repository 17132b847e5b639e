"""The detection limits of a drill: a strip of sizes per fault, filled where the gate fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doseledger.report.figures.style import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_IN, LEGEND_IN = 0.36, 0.75
# Apart in lightness too, so that they hold in grey.
SEEN, WARNED = COLOURS[0], "#F5C766"
EDGE = "#777777"
# Of a row's height; the rest keeps strips apart.
STRIP = 0.8
MOST_SIZES = 6


def plot_drill(faults: Sequence[Mapping[str, Any]]) -> Figure:
    """Return one strip a fault: a cell for each size tried, filled as high as the share of the cases in which it is seen.

    Parameters
    ----------
    faults
        Of a drill's result; those that no case can have are left out.
    """
    from matplotlib.patches import Patch

    rows = [fault for fault in faults if fault["tried"]]
    figure = new_figure(LEGEND_IN + ROW_IN * max(1, len(rows)))
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    for row, fault in enumerate(rows):
        _draw_strip(axis, row, fault)
    axis.set_yticks(range(len(rows)), [_label(fault) for fault in rows])
    axis.set_xlim(-0.1, MOST_SIZES + 1.7)
    axis.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axis.set_xticks([])
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    kinds = (("the gate fails", SEEN), ("a warning alone", WARNED), ("nothing is said", "white"))
    patches = [Patch(facecolor=colour, edgecolor=EDGE, label=name) for name, colour in kinds]
    figure.legend(handles=patches, loc="outside upper left", ncols=3, columnspacing=1.2, handlelength=1.2)
    return figure


def _label(fault: Mapping[str, Any]) -> str:
    return str(fault["title"]) + (" *" if fault["when"] == "after ingest" else "")


def _draw_strip(axis: Axes, row: int, fault: Mapping[str, Any]) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    bottom, unit = row + STRIP / 2.0, fault["unit"]
    for column, size in enumerate(fault["sizes"]):
        low = 0.0
        for counts, colour in ((fault["seen"], SEEN), (fault["warned"], WARNED)):
            share = counts[column] / fault["tried"]
            axis.add_patch(Rectangle((column, bottom - STRIP * low), 1.0, -STRIP * share, facecolor=colour))
            low += share
        axis.add_patch(Rectangle((column, bottom), 1.0, -STRIP, facecolor="none", edgecolor=EDGE, linewidth=0.8))
        text = f"{size:g}" if unit else ("seen" if fault["seen"][column] == fault["tried"] else "")
        dark = fault["seen"][column] == fault["tried"]
        outline = [] if dark else [withStroke(linewidth=2.5, foreground="white")]
        axis.text(
            column + 0.5, row, text, ha="center", va="center", color="white" if dark else "black",
            path_effects=outline,
        )  # fmt: skip
    axis.text(len(fault["sizes"]) + 0.15, row, unit, va="center")
