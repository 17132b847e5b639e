"""Electrons of head and air: the build-up against measured depth doses, and nothing deeper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.planning.dose.engine import dose_at_points
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.linac import Machine, load_machine

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def tissue() -> Machine:
    return load_machine("tissue")


@pytest.fixture(scope="module")
def depth_dose(make_plan: Callable[..., Plan], make_field: Callable[..., Arc]) -> Callable[..., np.ndarray]:
    """depth_dose(machine, side, depth, voxel): in water whose surface is at the isocentre, on voxels of that size."""

    def dose(machine: Machine, side: float, depth: np.ndarray, voxel_mm: float = 2.0) -> np.ndarray:
        grid = Grid((41, round(320 / voxel_mm), 41), (10.0, voxel_mm, 10.0), (-200.0, -1.5 * voxel_mm, -200.0))
        water = DensityMap(np.ones(grid.shape_zyx, dtype=np.float32), grid)
        water.relative[:, :2] = 0.0
        points = np.stack([0 * depth, depth, 0 * depth], axis=-1).astype(np.float32)
        plan = replace(make_plan(make_field(side)), machine=machine.name)
        return dose_at_points(plan, water, machine, points, 1)

    return dose


@pytest.mark.parametrize("voxel_mm", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("side", [30, 40, 100, 200])
def test_dose_at_2_to_15_mm_is_within_2_percent_of_the_maximum_of_a_truebeam_s(
    depth_dose: Callable[..., np.ndarray], tissue: Machine, side: int, voxel_mm: float
) -> None:
    rows = np.loadtxt(DATA / "truebeam_6mv_buildup.csv", delimiter=",")
    at, measured = rows[rows[:, 0] == side][:, 1:].T
    found = depth_dose(tissue, side, at, voxel_mm)
    found *= 100 / depth_dose(tissue, side, np.arange(5.0, 40.0), voxel_mm).max()
    # The first 3 mm lie within the chamber's radius.
    off = np.abs(found - measured)
    assert off[at > 3].max() < 2.0
    assert off.max() < 4.0


def test_without_electrons_dose_at_5_mm_would_be_9_percent_of_the_maximum_lower(
    depth_dose: Callable[..., np.ndarray], tissue: Machine, machine: Machine
) -> None:
    # Voxels as thick as the fan's steps: the surface lies where it should for both.
    at = np.array([5.0, 15.0])
    with_them, without = (np.divide(*depth_dose(one, 100.0, at, 4.0)) for one in (tissue, machine))
    assert 100 * (with_them - without) == pytest.approx(9.0, abs=1.0)


def test_deeper_than_30_mm_electrons_bring_nothing(
    depth_dose: Callable[..., np.ndarray], tissue: Machine, machine: Machine
) -> None:
    deep = np.arange(30.0, 300.0, 10.0)
    assert depth_dose(tissue, 100.0, deep, 4.0) == pytest.approx(depth_dose(machine, 100.0, deep, 4.0), rel=2e-3)


def test_wide_fields_have_more_of_them(depth_dose: Callable[..., np.ndarray], tissue: Machine) -> None:
    at = np.array([1.0, 15.0])
    surface = [np.divide(*depth_dose(tissue, side, at)) for side in (30.0, 100.0, 200.0)]
    assert np.all(np.diff(surface) > 0.02)
