"""Each tolerance of planning: just inside is taken, just outside is another, in numbers written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.planning.dose.engine import outline
from doseledger.planning.dose.low_density import LowDensity, Placed, low_density_of
from doseledger.planning.dose.raytrace import DensityMap, density_map
from doseledger.planning.machine.complexity import Apertures
from doseledger.planning.machine.feasible import feasible_mu
from doseledger.planning.machine.linac import load_machine
from doseledger.planning.optimise.objectives import ring_limit_gy


@pytest.mark.parametrize(("gap_mm", "is_open"), [(0.99, False), (1.0, False), (1.01, True), (1.09, True), (3.5, True)])
def test_a_pair_open_by_more_than_a_mm_is_open(gap_mm: float, is_open: bool) -> None:
    found = Apertures(np.zeros((1, 1)), np.full((1, 1), gap_mm), np.full((1, 1), 10.0))
    assert bool(found.open[0, 0]) is is_open
    assert found.area_mm2[0] == pytest.approx(10.0 * gap_mm if is_open else 0.0)


@pytest.mark.parametrize(("target", "way", "warned", "refused"), [
    (2.0, 5.0, False, False), (2.05, 0.0, True, False), (0.0, 5.1, True, False), (10.0, 12.0, True, False),
    (10.1, 0.0, True, True), (0.0, 12.1, True, True), (float("nan"), 0.0, True, True),
])  # fmt: skip
def test_two_percent_of_a_target_and_five_of_the_way_may_lie_in_low_density_and_ten_and_twelve_at_most(
    target: float, way: float, warned: bool, refused: bool
) -> None:
    found = LowDensity(target, way)
    assert bool(found.warning) is warned
    assert bool(found.refusal) is refused
    # Kernels that follow the density: a warning in place of the refusal, unless nothing is known.
    follows = LowDensity(target, way, follows_density=True)
    assert bool(follows.warning) is refused
    assert bool(follows.refusal) is bool(refused and np.isnan(target))


@pytest.mark.parametrize(("relative", "percent"), [(0.599, 100.0), (0.601, 0.0), (0.65, 0.0), (0.21, 100.0)])
def test_low_density_lies_below_six_tenths_of_water(relative: float, percent: float) -> None:
    grid = Grid((5, 5, 5), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))
    whole = np.ones(grid.shape_zyx, np.bool_)
    density = DensityMap(np.full(grid.shape_zyx, relative, np.float32), grid)
    assert low_density_of(density, Placed(grid, whole, whole), [], 1000.0).target_percent == percent


@pytest.mark.parametrize(("hu", "is_patient"), [(-399, True), (-401, False), (-430, False), (-370, True)])
def test_the_patient_of_a_dose_is_denser_than_minus_400_hu(hu: int, is_patient: bool) -> None:
    grid = Grid((4, 6, 6), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    assert outline(np.full(grid.shape_zyx, hu, np.int16), grid, grid).any() == is_patient


@pytest.mark.parametrize(("relative", "is_kept"), [(0.051, True), (0.049, False), (0.1, True)])
def test_what_attenuates_begins_at_a_twentieth_of_water(relative: float, is_kept: bool) -> None:
    table: Any = SimpleNamespace(of=lambda hu: np.where(hu > 500, 1.0, np.where(hu > -500, relative, 0.0)).astype("f4"))
    ct_hu = np.full((9, 9, 30), -1000, np.int16)
    ct_hu[4, 4, 4], ct_hu[4, 4, 25] = 1000, 0
    # What lies below is cut off: the box then ends behind the dense voxel.
    found = density_map(ct_hu, Grid(ct_hu.shape, (5.0, 5.0, 5.0), (0.0, 0.0, 0.0)), table)
    assert (found.relative.shape[2] > 20) is is_kept


def test_monitor_units_keep_15_percent_off_what_the_machine_can() -> None:
    machine = load_machine()
    turn = np.array([6.0])
    least = machine.dose_rate.min_mu_min / 60.0 * 6.0 / machine.gantry.max_speed_deg_s
    most = machine.dose_rate.max_mu_min / 60.0 * 6.0 / machine.gantry.min_speed_deg_s
    assert feasible_mu(np.array([0.0]), turn, machine)[0] == pytest.approx(1.15 * least)
    assert feasible_mu(np.array([1e9]), turn, machine)[0] == pytest.approx(0.85 * most)


@pytest.mark.parametrize(("distance_mm", "limit_gy"), [(0.0, 70.0), (2.0, 70.0), (12.0, 30.0 + 40.0 / np.e)])
def test_a_ring_begins_two_mm_from_its_target(distance_mm: float, limit_gy: float) -> None:
    ring: Any = SimpleNamespace(dose_gy=30.0, structure="ring", falloff=10.0)
    found = ring_limit_gy(ring, {"PTV70": np.array([distance_mm])}, {"PTV70": 70.0})
    assert found[0] == pytest.approx(limit_gy)
