"""Two doses compared: slices of reference, difference and gamma; a histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from doseledger.core.grid import Grid, IntTriple, box_around, resample_linear
from doseledger.core.types import Array, Box, Floats
from doseledger.dosimetry.gamma.map import PASS_GAMMA
from doseledger.evaluate.files.gamma import ComparedDoses
from doseledger.report.figures.slices import difference_colormap, dress, gamma_colormap
from doseledger.report.figures.style import COLOURS, WIDTH_IN, new_figure
from doseledger.report.figures.views import PLANES, Plane, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Slices show what is above this part of the highest dose, with a margin, and go through the middle of the hottest part.
SHOWN_PART, HOT_PART, MARGIN_MM = 0.05, 0.80, 15.0
# The difference's scale ends at this part of the highest reference dose.
DIFFERENCE_PART = 0.10
LEFT_IN, GAP_IN, HEAD_IN, FOOT_IN, TALLEST_IN = 0.62, 0.08, 0.34, 0.85, 6.2


def plot_gamma(compared: ComparedDoses) -> Figure:
    """Return a row a plane: reference dose, evaluation − reference in Gy, gamma; of a single plane one row."""
    import matplotlib
    from matplotlib.colors import Normalize

    reference_gy, grid = compared.reference.dose_gy, compared.reference.grid
    evaluation_gy = resample_linear(compared.evaluation.dose_gy, compared.evaluation.grid, grid, np.nan)
    top_gy = float(reference_gy.max())
    box, index = shown_box(reference_gy, grid), hot_index(reference_gy)
    planes = [plane for plane in PLANES if all(n > 1 for k, n in enumerate(grid.shape_zyx) if k != plane.axis)]
    shown: tuple[tuple[str, str, Array, Any, Any], ...] = (
        ("Reference", "Dose (Gy)", reference_gy, matplotlib.colormaps["viridis"], Normalize(0.0, top_gy)),
        (
            "Evaluation − reference", "Difference (Gy)", evaluation_gy - reference_gy, difference_colormap(),
            Normalize(-DIFFERENCE_PART * top_gy, DIFFERENCE_PART * top_gy),
        ),
        ("Gamma", "Gamma (passes ≤ 1)", compared.gamma, gamma_colormap(), Normalize(0.0, 2.0)),
    )  # fmt: skip
    figure, rows, bars = _layout(grid, planes, box)
    for plane, row in zip(planes, rows, strict=True):
        view = View(grid, plane, index, box)
        # The dose's map is dark where there is little of it, the other two are light.
        inks = ("#FFFFFF", "#222222", "#222222")
        for axis, ink, (_, _, volume, colormap, norm) in zip(row, inks, shown, strict=True):
            view.show(axis, np.ma.masked_invalid(view.cut(volume)), cmap=colormap, norm=norm)
            dress(axis, view, ink)
        row[0].set_ylabel(f"{plane.name}\n{view.position}")
    for axis, bar, (title, label, _, colormap, norm) in zip(rows[0], bars, shown, strict=True):
        axis.set_title(title)
        _draw_bar(bar, colormap, norm, label)
    return figure


def shown_box(dose_gy: Array, grid: Grid) -> Box:
    """Return the box of what slices show: wherever there is dose, with a margin."""
    z, y, x = (int(np.ceil(MARGIN_MM / step)) for step in grid.spacing_mm)
    return box_around(dose_gy >= SHOWN_PART * float(dose_gy.max()), (z, y, x))


def hot_index(dose_gy: Array) -> IntTriple:
    """Return the voxel (z, y, x) in the middle of the hottest part of a dose."""
    z, y, x = np.rint(np.argwhere(dose_gy >= HOT_PART * float(dose_gy.max())).mean(axis=0)).astype(int)
    return int(z), int(y), int(x)


def _layout(grid: Grid, planes: list[Plane], box: Box) -> tuple[Figure, list[list[Axes]], list[Axes]]:
    """Axes of a row a plane at one scale in mm, and below them three for colour bars."""
    size_mm = [(part.stop - part.start) * step for part, step in zip(box, grid.spacing_mm, strict=True)]
    column_in = (WIDTH_IN - LEFT_IN - 2 * GAP_IN) / 3
    widest = max(size_mm[plane.columns_axis] for plane in planes)
    tall_mm = sum(size_mm[plane.rows_axis] for plane in planes)
    per_mm = min(column_in / widest, TALLEST_IN / tall_mm)
    total = HEAD_IN + per_mm * tall_mm + GAP_IN * len(planes) + FOOT_IN
    figure = new_figure(total)

    def place(left: float, bottom: float, width: float, height: float) -> Axes:
        return figure.add_axes((left / WIDTH_IN, bottom / total, width / WIDTH_IN, height / total))

    lefts = [LEFT_IN + k * (column_in + GAP_IN) for k in range(3)]
    rows, top = [], total - HEAD_IN
    for plane in planes:
        width, height = per_mm * size_mm[plane.columns_axis], per_mm * size_mm[plane.rows_axis]
        rows.append([place(left + (column_in - width) / 2, top - height, width, height) for left in lefts])
        top -= height + GAP_IN
    return figure, rows, [place(left + 0.1, FOOT_IN - 0.25, column_in - 0.2, 0.14) for left in lefts]


def _draw_bar(axis: Axes, colormap: Any, norm: Any, label: str) -> None:
    from matplotlib.cm import ScalarMappable

    bar = axis.figure.colorbar(ScalarMappable(norm, colormap), cax=axis, orientation="horizontal")
    bar.set_label(label, labelpad=1)
    axis.grid(visible=False)


def plot_gamma_histogram(gamma: Floats) -> Figure:
    """Return how many points have which gamma, those that pass and those that fail in two colours."""
    known = gamma[np.isfinite(gamma)]
    figure = new_figure(2.6)
    axis = figure.subplots()
    edges = np.linspace(0.0, max(2.0, float(known.max(initial=0.0))), 41)
    groups = (known[known <= PASS_GAMMA], known[known > PASS_GAMMA])
    for part, colour, label in zip(groups, COLOURS, ("passes", "fails"), strict=False):
        axis.hist(
            part, bins=edges.tolist(), weights=np.full(len(part), 100.0 / max(len(known), 1)), color=colour, label=label
        )
    axis.axvline(1.0, color="#444444", linestyle=":")
    axis.set(xlabel="Gamma", ylabel="Points (%)")
    axis.legend(loc="upper right")
    figure.tight_layout()
    return figure
