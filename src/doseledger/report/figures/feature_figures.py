"""Small multiples of a cohort's features over train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from doseledger.core.text.words import spell_feature
from doseledger.report.figures.style import COLOURS, new_figure, point_style
from doseledger.report.tables.sections import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 2
PANEL_IN = 1.25
# Panels of one figure: three figures with their captions fit a page.
MOST_PANELS = 6
# The figures by what they show, in the order of the page.
VOLUMES, IN_TARGETS, ELSEWHERE, GEOMETRY = TITLES = (
    "Volumes", "Dose in the targets", "Dose in structures and body", "Image and geometry",
)  # fmt: skip
OF_TARGET = ("_v95_percent", "_beyond_hotter_percent")
# Each part has a colour and a mark, so that neither is needed alone.
MARKS = {"train": ("o", COLOURS[0]), "val": ("s", COLOURS[1]), "test": ("D", COLOURS[2])}


def plot_features(features: pd.DataFrame, parts: pd.Series, names: Sequence[str]) -> Figure:
    """Return one panel a feature: a point per case, a row per part of the splits, a bar at its median.

    Parameters
    ----------
    features
        A row per case, a column per feature; NaN where a case has none.
    parts
        train, val or test, by the same index.
    """
    rows = -(-len(names) // COLUMNS)
    figure = new_figure(PANEL_IN * rows)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(rows, COLUMNS).ravel()
    rng = np.random.default_rng(0)
    for axis, name in zip(panels, names, strict=False):
        _draw_feature(axis, features[name], parts, rng)
        axis.set_title(spell_feature(name), loc="left")
    for axis in panels[len(names) :]:
        axis.set_visible(False)
    return figure


def _draw_feature(axis: Axes, values: pd.Series, parts: pd.Series, rng: np.random.Generator) -> None:
    for row, part in enumerate(PARTS):
        mark, colour = MARKS[part]
        there = values[parts == part].dropna().to_numpy(dtype=np.float64)
        # Spread in height keeps equal values apart; it carries no meaning.
        height = row + rng.uniform(-0.2, 0.2, size=len(there))
        axis.plot(there, height, mark, color=colour, **point_style(len(there)))
        if len(there):
            axis.plot([np.median(there)] * 2, [row - 0.4, row + 0.4], color="#222222", linewidth=2.0)
    axis.set_yticks(range(len(PARTS)), PARTS)
    axis.set_ylim(len(PARTS) - 0.5, -0.5)
    axis.locator_params(axis="x", nbins=4)
    # 99.95 is read at once, "−0.05 +1e2" is not.
    axis.ticklabel_format(axis="x", useOffset=False)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def group_features(names: Sequence[str], targets: Sequence[str]) -> dict[str, list[str]]:
    """Return {title: features} of the figures that a cohort's features fill, each short enough for a page.

    Parameters
    ----------
    targets
        Names of the targets, whose doses stand by themselves.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        if name.endswith("_volume_cc"):
            title = VOLUMES
        elif name.startswith(tuple(f"{target}_d" for target in targets)) or name.endswith(OF_TARGET):
            title = IN_TARGETS
        elif name.startswith("dose_") or name.endswith("_gy"):
            title = ELSEWHERE
        else:
            title = GEOMETRY
        groups.setdefault(title, []).append(name)
    short: dict[str, list[str]] = {}
    for title in sorted(groups, key=TITLES.index):
        members = groups[title]
        for start in range(0, len(members), MOST_PANELS):
            more = f" ({start // MOST_PANELS + 1})" if len(members) > MOST_PANELS else ""
            short[f"{title}{more}"] = members[start : start + MOST_PANELS]
    return short
