"""The picture of a plan: its isodoses follow its own prescription, and the protocol says what is a target."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.contour import ContourSet

from doseledger.core.case import Case
from doseledger.report.figures.plan_figure import ORGAN_COLOUR, TARGET_COLOUR, _draw_slice, _levels, _Scene
from doseledger.report.figures.style import new_figure


@pytest.fixture
def scene(make_case: Callable[..., Case]) -> Callable[..., _Scene]:
    """scene(prescription_gy): a case as the picture sees it, with a target called CTV and an organ called PTV_ring."""
    case = make_case()
    middle = case.grid.index_to_mm(np.array(case.grid.shape_zyx) / 2)

    def make(prescription_gy: dict[str, float]) -> _Scene:
        patient: Any = SimpleNamespace(image=SimpleNamespace(grid=case.grid, values=case.ct_hu))
        isocentre = tuple(float(value) for value in middle[::-1])
        plan: Any = SimpleNamespace(arcs=[SimpleNamespace(isocentre_xyz_mm=isocentre)], prescription_gy=prescription_gy)
        box = np.zeros(case.grid.shape_zyx, bool)
        box[tuple(slice(size // 4, 3 * size // 4) for size in box.shape)] = True
        assert case.dose_gy is not None
        return _Scene(patient, plan, case.dose_gy, {"CTV": box, "PTV_ring": box}, ("CTV",), np.zeros(2))

    return make


def test_a_target_is_what_the_protocol_calls_one_whatever_its_name(scene: Callable[..., _Scene]) -> None:
    axis = new_figure(3.0).add_subplot()
    _draw_slice(axis, scene({"CTV": 60.0}), "axial")
    outlines = [drawn for drawn in axis.collections if isinstance(drawn, ContourSet)][:2]
    colours = [tuple(outline.get_edgecolor()[0]) for outline in outlines]
    assert colours == [to_rgba(TARGET_COLOUR), to_rgba(ORGAN_COLOUR)]


def test_isodoses_are_of_the_plans_own_prescription(scene: Callable[..., _Scene]) -> None:
    doses = [dose for dose, _ in _levels(scene({"CTV": 60.0, "CTV_low": 50.0}))]
    assert doses == pytest.approx([18.0, 30.0, 47.5, 57.0, 63.0])
    without = scene({})
    top = float(without.dose_gy.max())
    assert [dose for dose, _ in _levels(without)] == pytest.approx([0.3 * top, 0.5 * top, 0.95 * top, 1.05 * top])


@pytest.mark.parametrize(("plane", "x", "y"), [
    ("axial", (-170.0, 170.0), (120.0, -130.0)), ("coronal", (-170.0, 170.0), (-80.0, 140.0)),
    ("sagittal", (-130.0, 120.0), (-80.0, 140.0)),
])  # fmt: skip
def test_a_slice_shows_so_much_about_the_isocentre_without_numbers(
    plane: str, x: tuple[float, float], y: tuple[float, float], scene: Callable[..., _Scene]
) -> None:
    axis = new_figure(3.0).add_subplot()
    _draw_slice(axis, scene({"CTV": 60.0}), plane)
    assert (axis.get_xlim(), axis.get_ylim(), axis.get_title()) == (x, y, plane)
    assert (list(axis.get_xticks()), list(axis.get_yticks()), axis.get_aspect()) == ([], [], 1.0)
