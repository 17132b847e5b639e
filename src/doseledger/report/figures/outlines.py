"""Outlines of reference and prediction on slices, and agreement of volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from doseledger.core.case import Case
from doseledger.core.grid import box_around
from doseledger.core.types import Floats, Mask
from doseledger.evaluate.segmentation import agreement
from doseledger.report.figures.style import COLOURS, DASHED, new_figure, point_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Room about the structures that is shown, and the middle values of the image that grey covers.
MARGIN_MM = 15.0
GREY_PERCENTILES = (1.0, 99.0)
# Title, and the axis of (z, y, x) that the slice is across.
PLANES = (("Axial", 0), ("Coronal", 1), ("Sagittal", 2))


@dataclass(frozen=True)
class Outlines:
    """One structure: its name, and its masks (z, y, x) as drawn and as segmented."""

    name: str
    reference: Mask
    prediction: Mask


def plot_outlines(case: Case, structures: Sequence[Outlines], colours: Mapping[str, str]) -> Figure:
    """Return axial, coronal and sagittal slices of a case with the outlines of its structures, two to a structure.

    Parameters
    ----------
    colours
        Of each structure, as everywhere (`style.structure_colours`).
    """
    from matplotlib.lines import Line2D

    whole = np.logical_or.reduce([one.reference | one.prediction for one in structures])
    if not whole.any():
        whole = np.ones(case.grid.shape_zyx, dtype=np.bool_)
    z, y, x = (int(np.ceil(MARGIN_MM / step)) for step in case.grid.spacing_mm)
    box = box_around(whole, (z, y, x))
    middle = np.rint(np.argwhere(whole[box]).mean(axis=0)).astype(int)
    image = case.ct_hu[box]
    low, high = np.percentile(image, GREY_PERCENTILES)
    figure = new_figure(3.4)
    # Keeps titles and legend on the page where a slice is as tall as the figure.
    figure.set_layout_engine("constrained")
    for axis, (title, across) in zip(figure.subplots(1, 3), PLANES, strict=True):
        row_mm, column_mm = (step for i, step in enumerate(case.grid.spacing_mm) if i != across)
        # +z is the head: up on coronal and sagittal slices.
        origin = "upper" if across == 0 else "lower"
        shown = image.take(middle[across], across)
        axis.imshow(shown, cmap="gray", vmin=low, vmax=max(high, low + 1), origin=origin, aspect=row_mm / column_mm)
        for one in structures:
            for mask, style in ((one.reference, "-"), (one.prediction, DASHED)):
                cut = mask[box].take(middle[across], across)
                if cut.any() and not cut.all():
                    lines = axis.contour(cut, [0.5], colors=[colours[one.name]], linewidths=1.6)
                    lines.set_linestyle(style)
        axis.set(title=title, xticks=[], yticks=[])
    handles = [Line2D([], [], color=colours[one.name], label=one.name) for one in structures]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, max(1, len(handles))))
    return figure


def plot_agreement(volumes_cc: Mapping[str, tuple[Floats, Floats]]) -> Figure:
    """Return one panel a structure: difference of volumes against their mean, with bias and limits of agreement.

    Parameters
    ----------
    volumes_cc
        Reference and prediction in cc, (case,) each, by structure.
    """
    n_rows = -(-len(volumes_cc) // 2)
    figure = new_figure(0.4 + 2.6 * n_rows)
    axes = figure.subplots(n_rows, 2).ravel()
    for axis, (name, (reference, prediction)) in zip(axes, volumes_cc.items(), strict=False):
        axis.plot(
            (reference + prediction) / 2, prediction - reference, "o", color=COLOURS[0], **point_style(len(reference))
        )
        found = agreement(prediction, reference)
        axis.axhline(found["volume_bias_cc"], color=COLOURS[1])
        for end in ("low", "high"):
            axis.axhline(found[f"volume_agreement_{end}_cc"], color=COLOURS[1], linestyle="--", linewidth=1.2)
        axis.set(title=name, xlabel="Mean volume (cc)", ylabel="Difference (cc)")
    for axis in axes[len(volumes_cc) :]:
        axis.set_axis_off()
    figure.tight_layout()
    return figure
