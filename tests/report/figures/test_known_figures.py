"""Each figure as it was when a person last looked at it: its lines, bars, pictures, limits and words in numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.comparisons import compared
from matplotlib.figure import Figure

from doseledger.core.case import Case
from doseledger.core.project.protocol import Goal
from doseledger.report.figures.curves import StructureCurves, plot_differences, plot_dvh, plot_training
from doseledger.report.figures.drill_figure import plot_drill
from doseledger.report.figures.feature_figures import plot_features
from doseledger.report.figures.gamma_figure import plot_gamma, plot_gamma_histogram
from doseledger.report.figures.mid_slices import plot_mid_slices
from doseledger.report.figures.outlines import Outlines, plot_agreement, plot_outlines
from doseledger.report.figures.overview import plot_overview, plot_overview_dvh, plot_prediction
from doseledger.report.figures.slices import plot_slices
from doseledger.report.figures.style import house_style, structure_colours
from doseledger.report.figures.uncertainty import calibration_figure

KNOWN = Path(__file__).parent / "known_figures.json"


def curves(name: str, *, is_target: bool) -> StructureCurves:
    dose = np.linspace(0, 80, 161)
    percent = np.clip(100 * (75 - dose) / 20, 0, 100) if is_target else np.clip(100 - 2 * dose, 0, 100)
    return StructureCurves(name, is_target, "#E02000", dose, percent, dose * 1.01, percent)


def fault(**values: Any) -> dict[str, Any]:
    return {"title": "dose moved", "unit": "mm", "when": "before ingest", "sizes": [1.0, 2.0, 4.0], "tried": 4,
            "seen": [0, 1, 4], "warned": [1, 2, 0], **values}  # fmt: skip


def interval(level: float, by: float) -> dict[str, float]:
    return {"level": level, "voxels": level - by, "structures": level + by, "voxels_stretched": level - by / 2,
            "structures_stretched": level + by / 2}  # fmt: skip


def draw_all(case: Case) -> dict[str, Callable[[], Figure]]:
    assert case.dose_gy is not None
    colours, low_gy = structure_colours(case.structure_names), (case.dose_gy * 0.97).astype(np.float32)
    comparison, rng = compared(case, low_gy), np.random.default_rng(7)
    masks = case.mask("Rectum"), np.roll(case.mask("Rectum"), 1, axis=1)
    history = pd.DataFrame({
        "epoch": [1, 2, 3, 4], "train_loss": [4.0, 2.0, 1.0, 0.5], "val_loss": [4.5, 2.5, np.nan, 1.5],
        "val_mae_gy": [6.0, 3.0, np.nan, 2.0], "val_ptv70_d95_error_gy": [2.0, 1.0, np.nan, 0.5],
    })  # fmt: skip
    names = [f"{name}_volume_cc" for name in ("PTV70", "PTV56", "Rectum")]
    features = pd.DataFrame(rng.normal(50.0, 5.0, (9, 3)), columns=names)
    parts = pd.Series(["train"] * 5 + ["val"] * 2 + ["test"] * 2)
    goals = [
        Goal(structure="Rectum", statistic="V45Gy", operator="<=", limit=45, unit="%", source="a test"),
        Goal(structure="PTV70", statistic="D95%", operator=">=", limit=66.5, unit="Gy", source="a test"),
        Goal(structure="Rectum", statistic="mean", operator="<=", limit=40, unit="Gy", source="a test"),
    ]
    doses: Any = SimpleNamespace(
        reference=SimpleNamespace(dose_gy=case.dose_gy, grid=case.grid), gamma=comparison.gamma,
        evaluation=SimpleNamespace(dose_gy=low_gy, grid=case.grid),
    )  # fmt: skip
    calibration = {
        "curves": [interval(0.5, 0.1), interval(0.8, 0.04)], "ranks": [0.2, 0.5, 0.3],
        "spread_against_error": [{"spread_gy": 1.0, "error_gy": 1.2}, {"spread_gy": 2.0, "error_gy": 2.6}],
        "cases": [{"case_id": "a", "mae_gy": 1.0, "expected_mae_gy": 1.4}],
    }  # fmt: skip
    dvh = [curves("PTV70", is_target=True), curves("Rectum", is_target=False)]
    values = [rng.normal(0.5, 1.0, n) for n in (6, 3, 0)]
    faults = [fault(), fault(title="sides swapped", unit="", when="after ingest", sizes=[1.0], seen=[2], warned=[1])]
    volumes = {name: (rng.uniform(50, 60, 5), rng.uniform(50, 60, 5)) for name in ("Rectum", "Bladder", "PTV70")}
    return {
        "training": lambda: plot_training(history, 2),
        "training without a best epoch": lambda: plot_training(history[["epoch", "train_loss"]], None),
        "dvh": lambda: plot_dvh(dvh, goals, 80.0),
        "differences": lambda: plot_differences(["PTV70 D95%", "Rectum mean", "Bowel"], values, "Difference (Gy)"),
        "many differences": lambda: plot_differences([f"row {k}" for k in range(40)], values[:2] * 20, "Gy"),
        "drill": lambda: plot_drill(faults),
        "features": lambda: plot_features(features, parts, names),
        "gamma": lambda: plot_gamma(doses),
        "gamma histogram": lambda: plot_gamma_histogram(np.linspace(0.0, 2.6, 90) ** 2),
        "mid slices": lambda: plot_mid_slices(case, colours),
        "outlines": lambda: plot_outlines(case, [Outlines("Rectum", *masks)], colours),
        "agreement": lambda: plot_agreement(volumes),
        "overview": lambda: plot_overview(comparison, colours),
        "prediction": lambda: plot_prediction(case, low_gy, (low_gy * 0.1).astype(np.float32), colours),
        "overview dvh": lambda: plot_overview_dvh(dvh, 80.0),
        "slices": lambda: plot_slices(comparison, colours),
        "calibration": lambda: calibration_figure(calibration),
    }


def summed(points: Any) -> list[float]:
    """Return mean and spread of each column of points (n, 2), and how many there are."""
    points = np.asarray(points, dtype=float).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    return [len(points), *points.mean(axis=0), *points.std(axis=0)] if len(points) else [0]


def describe(figure: Figure) -> dict[str, Any]:
    """Return what a figure shows, without its colours and widths."""
    found: dict[str, Any] = {"in": list(figure.get_size_inches()), "legend": [
        text.get_text() for legend in figure.legends for text in legend.get_texts()]}  # fmt: skip
    for k, axis in enumerate(figure.axes):
        legend = axis.get_legend()
        named = [text.get_text() for text in legend.get_texts()] if legend else []
        found[f"axes {k}"] = {
            "place": list(axis.get_position().bounds), "shown": float(axis.get_visible() and axis.axison),
            "words": [axis.get_title(), axis.get_title(loc="left"), axis.get_xlabel(), axis.get_ylabel(),
                      axis.get_xscale(), axis.get_yscale(), *named],
            "texts": [[text.get_text(), *text.get_position()] for text in axis.texts],
            "limits": [*axis.get_xlim(), *axis.get_ylim()],
            "ticks": [text.get_text() for text in axis.get_yticklabels()][:12],
            "lines": [[str(line.get_linestyle()), str(line.get_marker()), *summed(line.get_xydata())]
                      for line in axis.lines],
            "boxes": [summed(patch.get_path().transformed(patch.get_patch_transform()).vertices)
                      for patch in axis.patches][:60],
            "contours": [summed(np.concatenate([np.zeros((0, 2)), *(path.vertices for path in one.get_paths())]))
                         for one in axis.collections],
            "pictures": [[*np.asarray(image.get_array()).shape, *image.get_extent(), *(image.get_clim()),
                          float(np.ma.mean(image.get_array())), float(np.ma.std(image.get_array()))]
                         for image in axis.images],
        }  # fmt: skip
    return found


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {name: value if isinstance(value, str) else float(value)}
    return {key: one for part, inner in items for key, one in flatten(inner, f"{name}/{part}").items()}


def test_figures_show_what_they_showed(make_case: Callable[..., Case]) -> None:
    known = json.loads(KNOWN.read_text())
    drawn = draw_all(make_case())
    assert list(drawn) == list(known)
    for name, draw in drawn.items():
        with house_style():
            found, wanted = flatten(describe(draw())), flatten(known[name])
        numbers = {key for key, value in wanted.items() if not isinstance(value, str)}
        assert {k: v for k, v in found.items() if k not in numbers} == {
            k: wanted[k] for k in wanted.keys() - numbers
        }, name
        assert {key: found[key] for key in numbers} == pytest.approx(
            {key: wanted[key] for key in numbers}, rel=2e-3, abs=2e-3
        ), name
