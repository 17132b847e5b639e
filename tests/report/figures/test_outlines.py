"""Outlines on slices of cases of any shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.report.figures.outlines import Outlines, plot_outlines
from doseledger.report.figures.style import house_style, structure_colours


@pytest.mark.parametrize("tall", [0, 1, 2])
def test_titles_and_legend_stay_on_the_figure_however_tall_a_slice_is(
    make_case: Callable[..., Case], tall: int
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    case = make_case()
    middle = tuple(slice(n // 2 - 1, n // 2 + 1) for n in case.grid.shape_zyx)
    mask = np.zeros(case.grid.shape_zyx, np.bool_)
    mask[tuple(slice(2, -2) if axis == tall else cut for axis, cut in enumerate(middle))] = True
    with house_style():
        figure = plot_outlines(case, [Outlines("Rectum", mask, mask)], structure_colours(["Rectum"]))
        FigureCanvasAgg(figure).draw()
        shown = [*(axis.title for axis in figure.axes), *figure.legends]
        for item in shown:
            box = item.get_window_extent()
            assert box.y0 >= 0
            assert box.y1 <= figure.bbox.y1
            assert not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes), item
