"""Kernels that follow the density: unchanged in water, held to Monte Carlo in slabs, with an exact adjoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.planning.dose.autograd import arc_dose
from doseledger.planning.dose.engine import dose_at_points
from doseledger.planning.dose.kernels import spread_for
from doseledger.planning.dose.loops import spread_out
from doseledger.planning.dose.operator import arc_operators
from doseledger.planning.dose.raytrace import DensityMap, trace_fan
from doseledger.planning.dose.stretch import LENGTH_MM, MOST_STRETCH, ladder_of, stretch_fan
from doseledger.planning.dose.view import view_of
from doseledger.planning.machine.geometry import beam_frame
from doseledger.planning.machine.linac import N_GAUSSIANS, Machine

DATA = Path(__file__).parents[1] / "data"
# Electrons of ICRU's lung a gram, over those of water.
LUNG = 0.990
# Thickness in mm and density of layers from the surface on; the isocentre lies 100 mm deep.
SLABS = {
    "lung_0.15": [(50, 1.0), (100, 0.15 * LUNG), (150, 1.0)],
    "lung_0.25": [(50, 1.0), (100, 0.25 * LUNG), (150, 1.0)],
    "lung_0.40": [(50, 1.0), (100, 0.40 * LUNG), (150, 1.0)],
    # No part of the fit.
    "thick_0.25": [(30, 1.0), (200, 0.25 * LUNG), (70, 1.0)],
}
# Sides of fields in mm, and how far dose may be off in percent.
LIMITS = {20: 6.0, 40: 3.0, 60: 3.0, 100: 3.0, 200: 4.0}
THICK_LIMITS = {**LIMITS, 60: 4.0, 100: 4.0, 200: 5.0}
WATER = [(300, 1.0)]
Layers = list[tuple[float, float]]


def layered(layers: Layers) -> DensityMap:
    """Layers across y, from y = 0 on, on voxels of 5 × 2 × 5 mm, with air before them."""
    grid = Grid((81, 155, 81), (5.0, 2.0, 5.0), (-200.0, -7.0, -200.0))
    y, top, relative = grid.axes_mm()[1], 0.0, np.zeros(grid.shape_zyx, dtype=np.float32)
    for thickness, density in layers:
        relative[:, (y > top) & (y < top + thickness)] = density
        top += thickness
    return DensityMap(relative, grid)


@pytest.fixture(scope="module")
def follows(machine: Machine) -> Machine:
    """The generic machine with a flat beam that follows the density, and nothing else changed."""
    flat = [1.0] * len(machine.beam.fluence_relative)
    beam = machine.beam.model_copy(update={"follows_density": True, "fluence_relative": flat})
    return machine.model_copy(update={"beam": beam})


@pytest.fixture(scope="module")
def water_widths(follows: Machine) -> Machine:
    """The same machine with the widths of water everywhere."""
    return follows.model_copy(update={"beam": follows.beam.model_copy(update={"follows_density": False})})


@pytest.fixture(scope="module")
def field(make_field: Callable[..., Arc]) -> Callable[[float], Arc]:
    return lambda side: make_field(side, isocentre_xyz_mm=(0.0, 100.0, 0.0))


@pytest.fixture(scope="module")
def dose_in(make_plan: Callable[..., Plan], field: Callable[[float], Arc]) -> Callable[..., np.ndarray]:
    """dose_in(machine, side, layers, points_xyz) of one open field."""

    def dose(machine: Machine, side: float, layers: Layers, points: np.ndarray) -> np.ndarray:
        return dose_at_points(make_plan(field(side)), layered(layers), machine, points.astype(np.float32), 1)

    return dose


def axis(depth: np.ndarray) -> np.ndarray:
    return np.stack([0 * depth, depth, 0 * depth], axis=-1)


@pytest.mark.parametrize("relative", [1.0, 0.95, 1.3])
def test_in_water_fat_and_bone_nothing_changes_to_the_last_digit(
    dose_in: Callable[..., np.ndarray], follows: Machine, water_widths: Machine, relative: float
) -> None:
    points = np.random.default_rng(1).uniform([-70, 1, -70], [70, 290, 70], (300, 3))
    found, wanted = (dose_in(one, 60.0, [(300, relative)], points) for one in (follows, water_widths))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("side", list(LIMITS))
@pytest.mark.parametrize("slab", list(SLABS))
def test_dose_in_and_behind_lung_is_near_that_of_monte_carlo(
    dose_in: Callable[..., np.ndarray], follows: Machine, water_widths: Machine, slab: str, side: int
) -> None:
    rows = [line.split(",") for line in (DATA / "ompmc_slabs.csv").read_text().splitlines() if line[0] not in "#s"]
    depth, ratio = np.array([(row[2], row[3]) for row in rows if row[:2] == [slab, str(side)]], dtype=float).T
    found = dose_in(follows, side, SLABS[slab], axis(depth)) / dose_in(follows, side, WATER, axis(depth))
    worst = 100 * np.abs(found / ratio - 1).max()
    assert worst < (THICK_LIMITS if slab == "thick_0.25" else LIMITS)[side], f"{slab}, {side} mm: {worst:.1f} % off"
    # With the widths of water it would not be.
    before = dose_in(water_widths, side, SLABS[slab], axis(depth)) / dose_in(water_widths, side, WATER, axis(depth))
    assert 100 * np.abs(before / ratio - 1).max() > worst


def test_stretch_tends_to_one_over_the_density_and_is_forgotten_in_water(follows: Machine, field: Callable) -> None:
    layers: Layers = [(50, 1.0), (100, 0.25), (150, 1.0)]
    frame = beam_frame(field(100.0), 0.0, 1000.0)
    box = np.array([[-5.0, 0.0, -5.0], [5.0, 299.0, 5.0]])
    fan = trace_fan(layered(layers), frame, box, 20.0, 1.0)
    stretch = stretch_fan(fan, follows.beam)
    assert stretch is not None
    middle = fan.depth_mm.shape[0] // 2, fan.depth_mm.shape[2] // 2
    y = fan.start_mm[2] + np.arange(fan.depth_mm.shape[1]) - 900.0
    for length, found in zip(LENGTH_MM, stretch[:, middle[0], :, middle[1]], strict=True):
        inside, behind = (y > 55) & (y < 145), (y > 155) & (y < 290)
        wanted = 4.0 - 3.0 * np.exp(-0.25 * (y[inside] - 50.0) / length)
        assert found[inside] == pytest.approx(wanted, abs=0.15)
        left = (4.0 - 3.0 * np.exp(-25.0 / length) - 1.0) * np.exp(-(y[behind] - 150.0) / length)
        assert found[behind] == pytest.approx(1.0 + left, abs=0.15)
        assert found[y < 45] == pytest.approx(1.0, abs=1e-3)
    gap = stretch_fan(trace_fan(layered([(50, 1.0), (200, 0.0), (50, 1.0)]), frame, box, 20.0), follows.beam)
    assert gap is not None
    assert gap.max() == MOST_STRETCH
    assert np.isfinite(gap).all()


def test_a_stretched_gaussian_keeps_its_weight_and_its_variance(follows: Machine, field: Callable) -> None:
    ladder, beam = ladder_of(follows.beam), follows.beam
    arc = field(100.0)
    frame = beam_frame(arc, 0.0, 1000.0)
    rows = np.ascontiguousarray(axis(np.arange(5.0, 290.0, 5.0)).T.astype(np.float32))
    fan = trace_fan(layered(SLABS["lung_0.25"]), frame, np.stack([rows.min(axis=1), rows.max(axis=1)]), 20.0)
    stretch = stretch_fan(fan, beam)
    spread = spread_for(follows, arc.jaw_x_mm, arc.jaw_y_mm, 2.5, 60.0)
    before = np.random.default_rng(2).random((rows.shape[1], N_GAUSSIANS)).astype(np.float32)
    weight, wide = before.copy(), np.zeros((len(ladder.groups) - 1, *before.shape), dtype=np.float32)
    used = spread_out(rows, view_of(frame, fan, spread, 0.0), stretch, ladder.rule, weight, wide)
    assert 20 < used < rows.shape[1]
    assert weight.sum(axis=1) + wide.sum(axis=(0, 2)) == pytest.approx(before.sum(axis=1), rel=1e-5)
    variance = np.square(ladder.groups)
    after = weight @ variance[0] + sum(wide[k] @ variance[k + 1] for k in range(len(wide)))
    assert np.all(after >= 0.9999 * (before @ variance[0]))
    assert after.max() > 2 * (before @ variance[0]).max()


def test_adjoint_operator_and_engine_agree_in_lung(
    follows: Machine, field: Callable[[float], Arc], make_plan: Callable[..., Plan]
) -> None:
    density, arc = layered(SLABS["lung_0.25"]), field(80.0)
    rng = np.random.default_rng(5)
    points = rng.uniform([-60, 5, -60], [60, 280, 60], (400, 3)).astype(np.float32)
    operator = arc_operators((arc,), density, follows, points)[0]
    assert len(operator.wider) == 2
    assert all(0 < len(wider.points[0]) < len(points) for wider in operator.wider)
    leaf, slope = arc.leaf_mm[:, :, operator.spread.pairs], rng.normal(size=len(points)).astype(np.float32)
    fluence = rng.random(operator.passed(leaf).shape).astype(np.float32)
    dose = operator.dose_of_fluence(fluence)
    back = float(np.sum(operator.adjoint_of_fluence(slope).astype(np.float64) * fluence))
    assert abs(float(dose.astype(np.float64) @ slope) - back) < 1e-5 * np.linalg.norm(dose) * np.linalg.norm(slope)
    quick, exact = operator.dose(leaf, arc.segment_mu), dose_at_points(make_plan(arc), density, follows, points, 1)
    assert np.abs(quick - exact).max() < 0.02 * exact.max()
    mu = torch.tensor(arc.segment_mu, requires_grad=True)
    arc_dose(operator, torch.tensor(leaf), mu).sum().backward()
    assert mu.grad.numpy() == pytest.approx(quick.sum() / arc.segment_mu, rel=1e-4)


def test_two_halves_of_a_field_make_the_whole_in_lung(
    follows: Machine, make_plan: Callable[..., Plan], field: Callable[[float], Arc]
) -> None:
    points = np.random.default_rng(6).uniform([-60, 5, -60], [60, 280, 60], (300, 3)).astype(np.float32)
    density, whole = layered(SLABS["lung_0.25"]), field(100.0)
    parts = [whole, *(replace(whole, jaw_x_mm=jaw) for jaw in ((-50.0, 7.0), (7.0, 50.0)))]
    doses = [dose_at_points(make_plan(arc), density, follows, points, 1) for arc in parts]
    assert np.abs(doses[1] + doses[2] - doses[0]).max() < 0.01 * doses[0].max()
