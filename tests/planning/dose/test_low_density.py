"""Low density in targets and on the way to them: water has none, a chest is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.core.plan import Arc
from doseledger.planning.dose.low_density import TARGET_PERCENT, WAY_PERCENT, LowDensity, Placed, low_density_of
from doseledger.planning.dose.raytrace import DensityMap, density_map
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.patient import Patient

# A box of 200 mm, and air about it.
GRID = Grid((30, 60, 60), (8.0, 5.0, 5.0), (-116.0, -147.5, -147.5))
Z, Y, X = np.meshgrid(*GRID.axes_mm(), indexing="ij")
BODY = (np.abs(X) < 100) & (np.abs(Y) < 100)
TARGET = (np.abs(X) < 20) & (np.abs(Y) < 20) & (np.abs(Z) < 20)


def found_of(relative: np.ndarray, arcs: list[Arc], target: np.ndarray = TARGET) -> LowDensity:
    where = Placed(GRID, BODY, target)
    return low_density_of(DensityMap(np.where(BODY, relative, 0.0).astype(np.float32), GRID), where, arcs, 1000.0)


def test_water_has_no_low_density_whatever_air_is_about_it(make_field: Callable[..., Arc]) -> None:
    found = found_of(np.ones(BODY.shape), [make_field(gantry_deg=angle) for angle in (0.0, 45.0, 200.0)])
    assert (found.target_percent, found.way_percent) == (0.0, 0.0)
    assert found.warning == found.refusal == ""


def test_a_slab_of_lung_on_the_way_is_its_share_of_the_way(make_field: Callable[..., Arc]) -> None:
    slab = np.where((Y < -40) & (Y > -70), 0.25, 1.0)
    front, back = found_of(slab, [make_field()]), found_of(slab, [make_field(gantry_deg=180.0)])
    # From the front 30 of 100 mm to the target's middle.
    assert front.way_percent == pytest.approx(30.0, abs=5.0)
    assert back.way_percent == 0.0
    both = found_of(slab, [make_field(), make_field(gantry_deg=180.0)])
    assert both.way_percent == pytest.approx(front.way_percent / 2, rel=0.1)
    assert front.target_percent == 0.0
    assert "% of the beams' way to it (at most 12) lies in low density" in front.refusal
    assert back.refusal == back.warning == ""


def test_a_target_in_lung_is_refused_and_gas_at_its_rim_is_not(make_field: Callable[..., Arc]) -> None:
    half = np.where((X > 0) & TARGET, 0.25, 1.0)
    assert found_of(half, [make_field()]).target_percent == pytest.approx(50.0, abs=1.0)
    assert "50.0 % of the target (at most 10)" in found_of(half, [make_field()]).refusal
    bubble = np.where((X > 14) & (Y > 10) & TARGET, 0.0, 1.0)
    rim = found_of(bubble, [make_field()])
    assert TARGET_PERCENT[0] < rim.target_percent < TARGET_PERCENT[1]
    assert rim.refusal == ""
    assert "of the target (at most 2)" in rim.warning


def test_what_can_not_be_told_is_refused(make_field: Callable[..., Arc]) -> None:
    nothing = found_of(np.ones(BODY.shape), [make_field()], np.zeros_like(TARGET))
    assert "nan % of the target" in nothing.refusal
    assert LowDensity(0.0, WAY_PERCENT[1]).refusal == ""
    assert LowDensity(0.0, WAY_PERCENT[1] + 0.1).refusal != ""


def test_rectal_gas_of_a_pelvis_is_nothing_to_speak_of(
    pelvis: Patient, machine: Machine, make_field: Callable[..., Arc]
) -> None:
    density = density_map(pelvis.ct_hu, pelvis.grid, machine.density)
    arcs = [make_field(gantry_deg=float(angle)) for angle in range(0, 360, 20)]
    found = low_density_of(density, Placed(pelvis.grid, pelvis.body, pelvis.masks["PTV56"]), arcs, 1000.0)
    assert 0 < found.way_percent < 2.0
    assert found.warning == ""
