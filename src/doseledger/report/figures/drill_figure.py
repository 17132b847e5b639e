"""Detection limits of a drill: sizes per fault, filled where the gates fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from doseledger.report.figures.style import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_IN, LEGEND_IN = 0.36, 0.75
# Light enough for a number on top, and apart in lightness, so that they hold in grey.
SEEN, WARNED, EDGE = COLOURS[5], "#FBE3A6", "#777777"
# Of a row's height; the rest keeps strips apart.
STRIP = 0.8


def plot_drill(faults: Sequence[Mapping[str, Any]]) -> Figure:
    """Return a strip a fault: a cell a size, filled as high as the share of cases it is seen in.

    Parameters
    ----------
    faults
        Of a drill's result, each tried in a case at least.
    """
    from matplotlib.patches import Patch

    figure = new_figure(LEGEND_IN + ROW_IN * len(faults))
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    for row, fault in enumerate(faults):
        columns, floor = (
            np.arange(len(fault["sizes"])),
            np.full(len(fault["sizes"]), row + STRIP / 2),
        )
        for counts, colour in ((fault["seen"], SEEN), (fault["warned"], WARNED)):
            height = -STRIP * np.asarray(counts) / fault["tried"]
            axis.bar(columns, height, 1.0, floor, color=colour)
            floor = floor + height
        axis.bar(columns, STRIP, 1.0, row - STRIP / 2, color="none", edgecolor=EDGE, linewidth=0.8)
        texts = [f"{size:g}" if fault["unit"] else "" for size in fault["sizes"]]
        for x, text in enumerate([*texts, fault["unit"]]):
            side = "left" if x == len(texts) else "center"
            axis.text(x - 0.35 * (side == "left"), row, text, ha=side, va="center")
    labels = [fault["title"] + " *" * (fault["when"] == "after ingest") for fault in faults]
    axis.set_yticks(range(len(faults)), labels)
    axis.set_xlim(-0.6, max(len(fault["sizes"]) for fault in faults) + 1.5)
    axis.set_ylim(len(faults) - 0.5, -0.5)
    axis.set_xticks([])
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    kinds = (("a gate fails", SEEN), ("a warning alone", WARNED), ("nothing is said", "white"))
    patches = [Patch(facecolor=colour, edgecolor=EDGE, label=name) for name, colour in kinds]
    figure.legend(handles=patches, loc="outside upper left", ncols=len(patches))
    return figure
