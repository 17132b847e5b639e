"""Each figure as it was when a person last looked at it: all that is drawn, in numbers.

`python -m pytest tests/report/figures/test_known_figures.py` after `rm known_figures.json` writes it anew and fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.comparisons import CRITERIA
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D

from doseledger.core.case import Case
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Goal
from doseledger.report.figures.curves import StructureCurves, plot_differences, plot_dvh, plot_training
from doseledger.report.figures.drill_figure import plot_drill
from doseledger.report.figures.feature_figures import plot_features
from doseledger.report.figures.gamma_figure import plot_gamma, plot_gamma_histogram
from doseledger.report.figures.mid_slices import plot_mid_slices
from doseledger.report.figures.outlines import Outlines, plot_agreement, plot_outlines
from doseledger.report.figures.overview import plot_overview, plot_overview_dvh, plot_prediction
from doseledger.report.figures.plan_figure import _draw, _Scene
from doseledger.report.figures.slices import plot_slices
from doseledger.report.figures.style import house_style, structure_colours
from doseledger.report.figures.uncertainty import calibration_figure
from doseledger.report.figures.views import Comparison

KNOWN = Path(__file__).parent / "known_figures.json"


def curves(name: str, *, is_target: bool, others: int = 0) -> StructureCurves:
    dose = np.linspace(0, 80, 161)
    percent = np.clip(100 * (75 - dose) / 20, 0, 100) if is_target else np.clip(100 - 2 * dose, 0, 100)
    more = tuple((dose * (0.9 - 0.2 * k), percent) for k in range(others))
    return StructureCurves(name, is_target, "#E02000", dose, percent, dose * 1.01, percent, more)


def goal(structure: str, statistic: str, operator: Any, limit: float, unit: str, **values: Any) -> Goal:
    return Goal(
        structure=structure, statistic=statistic, operator=operator, limit=limit, unit=unit, source="a test", **values
    )


def fault(**values: Any) -> dict[str, Any]:
    return {"title": "dose moved", "unit": "mm", "when": "before ingest", "sizes": [1.0, 2.0, 4.0], "tried": 4,
            "seen": [0, 1, 4], "warned": [1, 2, 0], **values}  # fmt: skip


def interval(level: float, by: float) -> dict[str, float]:
    return {"level": level, "voxels": level - by, "structures": level + by, "voxels_stretched": level - by / 2,
            "structures_stretched": level + by / 2}  # fmt: skip


def against(case: Case, predicted_gy: np.ndarray) -> Comparison:
    """The case beside a prediction, with a gamma of half the difference in Gy above 7 Gy."""
    assert case.dose_gy is not None
    gamma = np.where(case.dose_gy > 7, np.abs(predicted_gy - case.dose_gy) / 2, np.nan)
    return Comparison(case, predicted_gy, CRITERIA, gamma.astype(np.float32))


def scene(case: Case, **values: Any) -> _Scene:
    """A plan as its picture sees it: one arc of seven control points about the middle of the case."""
    assert case.dose_gy is not None
    middle = case.grid.index_to_mm(np.array(case.grid.shape_zyx) / 2)
    points = np.arange(7.0)
    leaf_mm = np.stack([np.stack([-20 - points - leaf, 15 + 2 * points - leaf]) for leaf in range(4)], axis=-1)
    arc: dict[str, Any] = {
        "jaw_x_mm": (-30.0, 25.0), "jaw_y_mm": (-12.0, 14.0), "moving_jaws_mm": None, "n_control_points": 7,
        "isocentre_xyz_mm": tuple(float(value) for value in middle[::-1]), "gantry_deg": 30 * points,
        "leaf_mm": np.moveaxis(leaf_mm, 1, 0),
    }  # fmt: skip
    plan: Any = SimpleNamespace(
        arcs=[SimpleNamespace(**(arc | values)), None], prescription_gy={"PTV70": 70.0, "PTV56": 56.0}, total_mu=431.6
    )
    patient: Any = SimpleNamespace(image=SimpleNamespace(grid=case.grid, values=case.ct_hu))
    masks = {name: case.mask(name) for name in ("PTV70", "Rectum", "Bowel")}
    return _Scene(patient, plan, case.dose_gy, masks, ("PTV70",), np.array([-10.0, -5.0, 0.0, 5.0, 12.0]))


def draw_all(case: Case) -> dict[str, Callable[[], Figure]]:
    # Voxels of three sizes: no axis is mistaken for another.
    case = replace(case, grid=Grid(case.grid.shape_zyx, (5.0, 6.0, 7.0), (-61.0, -117.0, -170.0)))
    # A patient so tall that the height decides about the scale.
    tall = replace(case, grid=replace(case.grid, spacing_mm=(15.0, 4.0, 3.0)))
    assert case.dose_gy is not None
    colours, low_gy = structure_colours(case.structure_names), (case.dose_gy * 0.97).astype(np.float32)
    few = {name: colours[name] for name in ("PTV70", "Rectum")}
    rng = np.random.default_rng(7)
    masks = case.mask("Rectum"), np.roll(case.mask("Rectum"), 1, axis=1)
    nothing = np.zeros_like(masks[0])
    history = pd.DataFrame({
        "epoch": [1, 2, 3, 4], "train_loss": [4.0, 2.0, 1.0, 0.5], "val_loss": [4.5, 2.5, np.nan, 1.5],
        "val_mae_gy": [6.0, 3.0, np.nan, 2.0], "val_ptv70_d95_error_gy": [2.0, 1.0, np.nan, 0.5],
    })  # fmt: skip
    epochs = np.arange(1, 14)
    long = pd.DataFrame({
        "epoch": epochs, "train_loss": 3.0 - epochs / 9, "val_loss": np.where(epochs > 1, 4.0 - epochs / 9, np.nan),
        "val_dice_error": 0.5 / epochs, "lr-Adam": 1e-3 / epochs,
    })  # fmt: skip
    names = [f"{name}_volume_cc" for name in ("PTV70", "PTV56", "Rectum")]
    features = pd.DataFrame(rng.normal(50.0, 5.0, (9, 3)), columns=names)
    parts = pd.Series(["train"] * 5 + ["val"] * 2 + ["test"] * 2)
    features.loc[2, names[0]], features.loc[7:, names[2]] = np.nan, np.nan
    goals = [
        goal("Rectum", "V45Gy", "<=", 45, "%"), goal("PTV70", "D95%", ">=", 66.5, "Gy"),
        goal("Rectum", "mean", "<=", 40, "Gy"), goal("Rectum", "V46.5Gy", "<=", 43, "%"),
        goal("Rectum", "V47Gy", "<=", 45, "%"), goal("Rectum", "V45Gy", "<=", 48, "%"),
        goal("Rectum", "V60Gy", "<=", 20, "cc"), goal("PTV70", "D2%", "<=", 105, "%"),
        goal("Bladder", "V20Gy", "<=", 50, "%"), goal("Rectum", "V30Gy", "<=", 30, "%", minus=["PTV70"]),
    ]  # fmt: skip
    doses: Any = SimpleNamespace(
        reference=SimpleNamespace(dose_gy=case.dose_gy, grid=case.grid), gamma=against(case, low_gy).gamma,
        evaluation=SimpleNamespace(dose_gy=low_gy, grid=case.grid),
    )  # fmt: skip
    flat = Grid((1, *case.grid.shape_zyx[1:]), case.grid.spacing_mm, case.grid.origin_mm)
    plane = SimpleNamespace(dose_gy=case.dose_gy[12:13], grid=flat)
    plane_doses: Any = SimpleNamespace(reference=plane, evaluation=plane, gamma=np.zeros(flat.shape_zyx))
    calibration = {
        "curves": [interval(0.5, 0.1), interval(0.8, 0.04)], "ranks": [0.2, 0.5, 0.3],
        "spread_against_error": [{"spread_gy": 1.0, "error_gy": 1.2}, {"spread_gy": 2.0, "error_gy": 2.6}],
        "cases": [{"case_id": "a", "mae_gy": 1.0, "expected_mae_gy": 1.4}],
    }  # fmt: skip
    dvh = [curves("PTV70", is_target=True), *(curves(name, is_target=False) for name in ("Rectum", "Bladder", "Bowel"))]
    three = [curves("PTV70", is_target=True, others=2), curves("PTV56", is_target=True, others=2)]
    values = [rng.normal(0.5, 1.0, n) for n in (6, 3, 0)]
    faults = [fault(), fault(title="sides swapped", unit="", when="after ingest", sizes=[1.0], seen=[2], warned=[1])]
    volumes = {name: (rng.uniform(50, 60, 5), rng.uniform(50, 60, 5)) for name in ("Rectum", "Bladder", "PTV70")}
    # Values of 0 and 1 alone.
    image = replace(case, meta={**case.meta, "modality": "MR"}, body=nothing, ct_hu=case.body.astype(np.int16))
    spread_gy = (low_gy * 0.1).astype(np.float32)
    # A leaf that is farther back than what is shown.
    far = np.stack([[[-60.0, 10.0]] * 7, *([[-20.0, 15.0 + k]] * 7 for k in range(3))], axis=-1)
    moving = np.stack([np.array([-25.0 - k, 20.0 + k, -10.0, 9.0 + k]) for k in range(7)])
    return {
        "training": lambda: plot_training(history, 2),
        "training without a best epoch": lambda: plot_training(history[["epoch", "train_loss"]], None),
        "long training": lambda: plot_training(long, 0),
        "dvh": lambda: plot_dvh(dvh, goals, 80.0),
        "dvh of targets": lambda: plot_dvh(three, [], 75.0, ("first", "second", "third"), "reference"),
        "dvh of long names": lambda: plot_dvh(three, goals, 75.0, ("of the first model", "of another one"), "plan"),
        "differences": lambda: plot_differences(["PTV70 D95%", "Rectum mean", "Bowel"], values, "Difference (Gy)"),
        "many points": lambda: plot_differences(["one row"], [np.linspace(-1, 2, 240)], "Gy"),
        "full column": lambda: plot_differences([f"row {k}" for k in range(14)], (values * 5)[:14], "Gy"),
        "many differences": lambda: plot_differences([f"row {k}" for k in range(40)], values[:2] * 20, "Gy"),
        "too many differences": lambda: plot_differences([f"row {k}" for k in range(77)], (values * 26)[:77], "Gy"),
        "no differences": lambda: plot_differences([], [], "Gy"),
        "drill": lambda: plot_drill(faults),
        "features": lambda: plot_features(features, parts, names),
        "gamma": lambda: plot_gamma(doses),
        "gamma of a plane": lambda: plot_gamma(plane_doses),
        "gamma histogram": lambda: plot_gamma_histogram(np.append(np.linspace(0.0, 2.6, 90) ** 2, [1.0, np.nan])),
        "gamma histogram of nothing": lambda: plot_gamma_histogram(np.full(3, np.nan)),
        "mid slices": lambda: plot_mid_slices(case, few),
        "mid slices of an MR image": lambda: plot_mid_slices(image, {}),
        "outlines": lambda: plot_outlines(case, [Outlines("Rectum", *masks)], colours),
        "outlines of five": lambda: plot_outlines(
            case, [Outlines(name, case.mask(name), case.mask(name)) for name in case.structure_names[:5]], colours
        ),
        "outlines of nothing": lambda: plot_outlines(
            replace(tall, ct_hu=image.ct_hu), [Outlines("Bowel", nothing, nothing)], colours
        ),
        "agreement": lambda: plot_agreement(volumes),
        "overview": lambda: plot_overview(against(case, low_gy), colours),
        "tall overview": lambda: plot_overview(against(tall, low_gy * 1.2), few),
        "prediction": lambda: plot_prediction(case, low_gy, spread_gy, colours),
        "tall prediction": lambda: plot_prediction(tall, low_gy, None, few),
        "overview dvh": lambda: plot_overview_dvh(dvh, 80.0),
        "slices": lambda: plot_slices(against(case, low_gy), few),
        "tall slices": lambda: plot_slices(against(tall, low_gy * 1.2), colours),
        "calibration": lambda: calibration_figure(calibration),
        "plan": lambda: _draw(scene(case), "case_0001"),
        "plan of moving jaws": lambda: _draw(scene(tall, moving_jaws_mm=moving, leaf_mm=far), "case_0002"),
    }


@dataclass
class Row:
    """What one part of a figure shows: words, and points, widths and colours of its strokes and pictures."""

    name: str
    words: list[str] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    looks: list[list[float]] = field(default_factory=list)

    @property
    def numbers(self) -> list[float]:
        places, looks = np.concatenate([np.zeros((0, 2)), *self.places]), np.array(self.looks).reshape(-1, 4)
        middle = [*places.mean(axis=0), *places.std(axis=0)] if len(places) else []
        return [len(looks), len(places), *middle, *(looks.mean(axis=0) if len(looks) else [])]


class Seen(RendererBase):
    """Note what a figure draws, in points from its lower left corner."""

    def __init__(self, figure: Figure) -> None:
        super().__init__()
        self.size, self.stack, self.rows = figure.get_size_inches() * 72, list[str](), list[Row]()

    def get_canvas_width_height(self) -> tuple[float, float]:
        return tuple(self.size)

    def open_group(self, s: str, gid: str | None = None) -> None:
        self.stack.append(s)
        if len(self.stack) <= 3:
            self.rows.append(Row("/".join(self.stack[1:])))

    def close_group(self, s: str) -> None:
        self.stack.pop()
        if len(self.stack) <= 2:
            self.rows.append(Row("/".join(self.stack[1:])))

    def start_rasterizing(self) -> None:
        self.rows[-1].words.append("(as an image)")

    def stop_rasterizing(self) -> None:
        pass

    def _note(self, gc: Any, points: np.ndarray, width: float, *colours: Any) -> None:
        points = points[np.isfinite(points).all(axis=1)]
        self.rows[-1].places.append(points)
        # One number a colour: red, green, blue and how opaque.
        seen = [float(np.dot(colour if colour is not None else (2, 2, 2, 0), (1, 2, 3, 5))) for colour in colours]
        self.rows[-1].looks.append([width, float(gc.get_clip_rectangle() is None), *seen])

    def draw_path(self, gc: Any, path: Outline, transform: Any, rgbFace: Any = None) -> None:
        dashes = gc.get_dashes()[1]
        width = gc.get_linewidth() * (1 + (sum(dashes) + 10 * len(dashes) if dashes is not None else 0))
        face = None if rgbFace is None else (*rgbFace[:3], rgbFace[3] if len(rgbFace) > 3 else 1.0)
        self._note(gc, transform.transform(path.vertices), width, gc.get_rgb(), face)

    def draw_image(self, gc: Any, x: float, y: float, im: np.ndarray, transform: Any = None) -> None:
        height, width = im.shape[:2]
        points = np.stack(np.meshgrid([x, x + width], [y, y + height]), axis=-1).reshape(-1, 2)
        if transform is not None:
            points = (Affine2D().scale(1 / width, 1 / height) + transform).transform(points)
        # Where the picture is bright, and of which colour.
        light = im[..., :3].sum(axis=-1) + 1.0
        bright = [float((np.indices(light.shape)[k] * light).sum() / light.sum()) for k in (0, 1)]
        mean, spread = im.reshape(-1, im.shape[-1]).mean(axis=0) / 255, im[..., :3].std(axis=(0, 1)) / 255
        self._note(gc, np.concatenate([points, [bright]]), 0.0, mean, (*spread, 0.0))

    def draw_text(self, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, *_: Any, **__: Any) -> None:
        self.rows[-1].words.append(s)
        self._note(gc, np.array([[x, y]]), prop.get_size_in_points(), gc.get_rgb(), (angle, 0, 0, 0))


def describe(figure: Figure) -> list[list[Any]]:
    """Return a row for each part of a figure: its name and words, and numbers of what it draws."""
    figure.set_dpi(72)
    seen = Seen(figure)
    figure.draw(seen)
    rows = [[row.name, *row.words, *row.numbers] for row in seen.rows if row.looks or row.words]
    return [["size", *(float(value) for value in figure.get_size_inches())], *rows]


@pytest.fixture
def drawn(make_case: Callable[..., Case]) -> dict[str, Callable[[], Figure]]:
    return draw_all(make_case())


@cache
def known() -> dict[str, list[list[Any]]]:
    return dict(json.loads(KNOWN.read_text()))


def write(figures: dict[str, list[list[Any]]]) -> None:
    """Write what is drawn, a line a part, in four digits."""
    rows = {name: [[float(f"{value:.4g}") if isinstance(value, float) else value for value in row] for row in rows]
            for name, rows in figures.items()}  # fmt: skip
    lines = (f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in part) + "\n]" for name, part in rows.items())
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def test_each_figure_is_known(drawn: dict[str, Callable[[], Figure]]) -> None:
    if not KNOWN.is_file():
        with house_style():
            write({name: describe(draw()) for name, draw in drawn.items()})
        pytest.fail("known_figures.json is written anew: look at the figures and run the tests again")
    assert list(drawn) == list(known())


@pytest.mark.parametrize("name", list(known()) if KNOWN.is_file() else [])
def test_a_figure_shows_what_it_showed(name: str, drawn: dict[str, Callable[[], Figure]]) -> None:
    with house_style():
        found = describe(drawn[name]())
    wanted = known()[name]
    assert [[value for value in row if isinstance(value, str)] for row in found] == [
        [value for value in row if isinstance(value, str)] for row in wanted
    ]
    for one, other in zip(found, wanted, strict=True):
        numbers = [[float(value) for value in row if not isinstance(value, str)] for row in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], rel=2e-3, abs=5e-3), one[0]
