"""The dose that the optimiser sees, and its adjoint: the engine's dose, the exact transpose, slopes by differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from doseledger.core.plan import Arc, Plan
from doseledger.planning.dose.autograd import arc_dose
from doseledger.planning.dose.engine import dose_at_points
from doseledger.planning.dose.operator import ArcOperator, arc_operators
from doseledger.planning.dose.raytrace import DensityMap, density_map
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.patient import Patient, PlanStyle
from doseledger.planning.optimise.start import start_arcs

Setup = tuple[Arc, ArcOperator, np.ndarray, DensityMap]


@pytest.fixture(scope="module")
def setup(pelvis: Patient, machine: Machine) -> Setup:
    rng = np.random.default_rng(3)
    targets = pelvis.grid.index_to_mm(np.argwhere(pelvis.masks["PTV56"]))[:, ::-1].astype(np.float32)
    arc = start_arcs(targets, (0.0, 5.0, 0.0), machine, PlanStyle(collimator_deg=(20.0,)), 24)[0]
    leaf = arc.leaf_mm + rng.normal(0, 2, size=arc.leaf_mm.shape)
    leaf[:, 1] = np.maximum(leaf[:, 1], leaf[:, 0] + 1)
    arc = replace(arc, leaf_mm=leaf)
    density = density_map(pelvis.ct_hu, pelvis.grid, machine.density)
    points = rng.uniform([-70, -60, -60], [70, 70, 60], size=(500, 3)).astype(np.float32)
    return arc, arc_operators((arc,), density, machine, points)[0], points, density


def test_the_adjoint_passes_the_dot_product_test(setup: Setup) -> None:
    arc, operator, points, _ = setup
    rng = np.random.default_rng(5)
    fluence = rng.random(operator.passed(arc.leaf_mm[:, :, operator.spread.pairs]).shape).astype(np.float32)
    slope = rng.normal(size=len(points)).astype(np.float32)
    there = float(operator.dose_of_fluence(fluence).astype(np.float64) @ slope)
    back = float(np.sum(operator.adjoint_of_fluence(slope).astype(np.float64) * fluence))
    scale = np.linalg.norm(operator.dose_of_fluence(fluence)) * np.linalg.norm(slope)
    assert abs(there - back) < 1e-5 * scale


def test_slopes_by_leaves_and_monitor_units_agree_with_differences(setup: Setup) -> None:
    arc, operator, points, _ = setup
    leaf, mu = arc.leaf_mm[:, :, operator.spread.pairs].copy(), arc.segment_mu.copy()
    slope = np.random.default_rng(7).normal(size=len(points)).astype(np.float32)
    by_leaf, by_mu = operator.adjoint(leaf, mu, slope)

    def value(leaf: np.ndarray, mu: np.ndarray) -> float:
        return float(operator.dose(leaf, mu).astype(np.float64) @ slope)

    strongest = np.argsort(-np.abs(by_leaf).ravel())[:12]
    for index in zip(*np.unravel_index(strongest, leaf.shape), strict=True):
        up, down = leaf.copy(), leaf.copy()
        up[index] += 0.2
        down[index] -= 0.2
        assert by_leaf[index] == pytest.approx((value(up, mu) - value(down, mu)) / 0.4, rel=0.03)
    for s in range(0, len(mu), 5):
        up, down = mu.copy(), mu.copy()
        up[s] += 1.0
        down[s] -= 1.0
        assert by_mu[s] == pytest.approx((value(leaf, up) - value(leaf, down)) / 2, rel=0.02, abs=1e-4)


def test_the_operator_gives_the_dose_of_the_engine(setup: Setup, machine: Machine) -> None:
    arc, operator, points, density = setup
    quick = operator.dose(arc.leaf_mm[:, :, operator.spread.pairs], arc.segment_mu)
    exact = dose_at_points(Plan("test", machine.name, 6.0, (arc,), 1), density, machine, points, 1)
    # The nodes of its maps are coarser, and it reaches 60 mm where the engine reaches 80.
    assert np.abs(quick - exact).max() < 0.02 * exact.max()
    assert np.abs(quick - exact).mean() < 0.003 * exact.max()


def test_finer_steps_of_the_gantry_hardly_change_the_dose_of_an_arc(setup: Setup, machine: Machine) -> None:
    arc, _, points, density = setup
    plan = Plan("test", machine.name, 6.0, (arc,), 1)
    near = points[np.hypot(points[:, 0], points[:, 1]) < 40]
    coarse, fine = (dose_at_points(plan, density, machine, near, n) for n in (4, 16))
    assert np.abs(coarse - fine).mean() < 0.01 * fine.max()


def test_a_network_learns_through_the_engine(setup: Setup) -> None:
    arc, operator, points, _ = setup
    leaf = torch.tensor(arc.leaf_mm[:, :, operator.spread.pairs], requires_grad=True)
    mu = torch.tensor(arc.segment_mu, requires_grad=True)
    dose = arc_dose(operator, leaf, mu)
    assert np.array_equal(dose.detach().float().numpy(), operator.dose(leaf.detach().numpy(), mu.detach().numpy()))
    slope = np.random.default_rng(7).normal(size=len(points)).astype(np.float32)
    (dose * torch.from_numpy(slope)).sum().backward()
    by_leaf, by_mu = operator.adjoint(leaf.detach().numpy(), mu.detach().numpy(), slope)
    assert np.array_equal(leaf.grad.numpy(), by_leaf)
    assert np.array_equal(mu.grad.numpy(), by_mu)
    # One number scales all monitor units; gradient descent through the dose finds the one behind a wanted dose.
    wanted = 1.3 * dose.detach()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([scale], lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        (arc_dose(operator, leaf.detach(), scale * mu.detach()) - wanted).square().sum().backward()
        optimiser.step()
    assert scale.item() == pytest.approx(1.3, abs=0.01)
