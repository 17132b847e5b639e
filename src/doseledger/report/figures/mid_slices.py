"""Axial and coronal slice of a case through its targets, with contours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from doseledger.core.case import Case
from doseledger.core.grid import IntTriple, box_around
from doseledger.core.types import Mask
from doseledger.report.figures.outlines import GREY_PERCENTILES
from doseledger.report.figures.slices import WINDOW_HU, dress
from doseledger.report.figures.style import new_figure
from doseledger.report.figures.views import PLANES, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN, TALLEST_IN, GAP_IN = 5.6, 2.4, 0.05


def plot_mid_slices(case: Case, colours: Mapping[str, str]) -> Figure:
    """Return an axial and a coronal slice side by side, at one scale in mm, with the contours of structures.

    Parameters
    ----------
    case
        With or without dose; the slices go through the voxel of `middle_index`.
    """
    index = middle_index(case)
    box = box_around(case.body if case.body.any() else np.ones_like(case.body))
    views = [View(case.grid, plane, index, box) for plane in PLANES[:2]]
    sizes_mm = [view.size_mm for view in views]
    per_mm = min((WIDTH_IN - GAP_IN) / sum(x for x, _ in sizes_mm), TALLEST_IN / max(y for _, y in sizes_mm))
    tall = per_mm * max(y for _, y in sizes_mm)
    figure = new_figure(tall, WIDTH_IN)
    image = case.ct_hu[box]
    is_ct = case.meta.get("modality", "CT") == "CT"
    low, high = WINDOW_HU if is_ct else np.percentile(image, GREY_PERCENTILES)
    left = 0.0
    for view, (wide_mm, tall_mm) in zip(views, sizes_mm, strict=True):
        place = (left / WIDTH_IN, 1.0 - per_mm * tall_mm / tall, per_mm * wide_mm / WIDTH_IN, per_mm * tall_mm / tall)
        axis = figure.add_axes(place)
        view.show(axis, view.cut(case.ct_hu), cmap="gray", vmin=low, vmax=max(high, low + 1))
        for name in case.present_names:
            if name in colours:
                view.outline(axis, case.mask(name), colours[name], 1.2, halo=True)
        dress(axis, view, "#FFFFFF")
        left += per_mm * wide_mm + GAP_IN
    return figure


def middle_index(case: Case) -> IntTriple:
    """Return the voxel (z, y, x) at the centre of the target of the highest prescription.

    Where there is none it is that of all structures together, else of the body, else of the grid.
    """
    target = case.main_target
    tried: list[Mask] = [case.mask(target)] if target is not None else []
    tried += [np.asarray(case.masks.any(axis=0)), case.body]
    within = next((mask for mask in tried if mask.any()), np.ones_like(case.body))
    z, y, x = np.rint(np.argwhere(within).mean(axis=0)).astype(int)
    return int(z), int(y), int(x)
