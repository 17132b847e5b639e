"""What a descent works on: slopes by all variables, and arcs that are put together from them again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.plan import Plan
from doseledger.planning.dose.operator import arc_operators
from doseledger.planning.dose.raytrace import density_map
from doseledger.planning.machine.check import check_plan
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.objectives import NORMAL_TISSUE, sib_objectives
from doseledger.planning.optimise.patient import Patient, PlanStyle
from doseledger.planning.optimise.problem import Arcs, Problem
from doseledger.planning.optimise.sampling import sampled_points
from doseledger.planning.optimise.start import outline_of, start_arcs


@pytest.fixture(scope="module")
def posed(pelvis: Patient, machine: Machine) -> tuple[Problem, Arcs]:
    targets = pelvis.grid.index_to_mm(np.argwhere(pelvis.masks["PTV56"]))[:, ::-1].astype(np.float32)
    arcs = start_arcs(targets, (0.0, 5.0, 0.0), machine, PlanStyle(), 20)
    points, asked = sampled_points(
        pelvis, sib_objectives(pelvis.prescription_gy, ["Rectum"], PlanStyle()), 1500, np.random.default_rng(1)
    )
    density = density_map(pelvis.ct_hu, pelvis.grid, machine.density)
    problem = Problem(machine, arc_operators(arcs, density, machine, points), asked, pelvis.n_fractions)
    return problem, tuple(problem.feasible(arc, arc.leaf_mm, arc.segment_mu) for arc in arcs)


def test_feasible_arcs_are_put_together_from_their_variables_as_they_were(posed: tuple[Problem, Arcs]) -> None:
    problem, arcs = posed
    again = problem.with_variables(arcs, problem.variables(arcs))
    for a, b in zip(again, arcs, strict=True):
        assert a.leaf_mm == pytest.approx(b.leaf_mm, abs=1e-9)
        assert a.meterset_mu == pytest.approx(b.meterset_mu)


def test_the_slope_of_the_penalty_agrees_with_differences(posed: tuple[Problem, Arcs]) -> None:
    problem, arcs = posed
    at = problem.variables(arcs)
    _, slope = problem.value_and_slope(arcs)
    assert slope.shape == at.shape == problem.units(arcs, 1.0, 0.1).shape
    # Only variables that the machine lets move either way: beside a limit the projection would move others too.
    strongest = np.argsort(-np.abs(slope))
    compared = 0
    for k in strongest[:40]:
        ends = []
        for change in (0.1, -0.1):
            wanted = at.copy()
            wanted[k] += change
            moved = problem.with_variables(arcs, wanted)
            if np.abs(problem.variables(moved) - wanted).max() > 1e-9:
                break
            ends.append(problem.value_and_slope(moved)[0])
        if len(ends) == 2:
            compared += 1
            assert slope[k] == pytest.approx((ends[0] - ends[1]) / 0.2, rel=0.03)
    assert compared >= 10


def test_large_structures_get_more_points_than_small_ones(posed: tuple[Problem, Arcs]) -> None:
    points = {one.objective.structure: len(one.points) for one in posed[0].asked}
    assert points["Rectum"] < points["PTV70"] < points["PTV56"] < points[NORMAL_TISSUE]


def test_a_penalty_on_monitor_units_is_a_slope_of_its_own_on_each_segment(posed: tuple[Problem, Arcs]) -> None:
    problem, arcs = posed
    priced = replace(problem, mu_penalty=0.25)
    (value, slope), (more, steeper) = problem.value_and_slope(arcs), priced.value_and_slope(arcs)
    assert more - value == pytest.approx(0.25 * sum(arc.meterset_mu[-1] for arc in arcs))
    is_mu = problem.units(arcs, 0.0, 1.0) > 0
    assert steeper[is_mu] - slope[is_mu] == pytest.approx(0.25)
    assert np.array_equal(steeper[~is_mu], slope[~is_mu])


def test_a_penalty_on_edges_is_the_monitor_units_times_the_mean_step_they_pass(posed: tuple[Problem, Arcs]) -> None:
    problem, arcs = posed
    priced = replace(problem, edge_penalty=0.25)
    more = priced.value_and_slope(arcs)[0] - problem.value_and_slope(arcs)[0]
    wanted = 0.0
    for arc, operator in zip(arcs, problem.operators, strict=True):
        step = np.sqrt(np.diff(arc.leaf_mm[:, :, operator.spread.pairs], axis=2) ** 2 + 1.0) - 1.0
        mean = step.mean(axis=(1, 2))
        wanted += 0.25 * float((0.5 * (mean[1:] + mean[:-1]) * arc.segment_mu).sum())
    assert more == pytest.approx(wanted)


def test_the_slope_of_a_penalty_on_edges_agrees_with_differences(posed: tuple[Problem, Arcs]) -> None:
    problem, arcs = posed
    bare = replace(problem, asked=[], edge_penalty=0.25)
    rng = np.random.default_rng(3)
    slope = bare.value_and_slope(arcs)[1]
    where = rng.normal(size=len(slope))

    def value(by: float) -> float:
        at, moved, start = problem.variables(arcs) + by * where, [], 0
        for arc, operator in zip(arcs, problem.operators, strict=True):
            leaf = arc.leaf_mm.copy()
            tips = leaf[:, :, operator.spread.pairs]
            stop = start + tips.size
            end = stop + arc.n_control_points - 1
            leaf[:, :, operator.spread.pairs] = at[start:stop].reshape(tips.shape)
            meterset = np.append(0.0, np.cumsum(at[stop:end]))
            moved.append(replace(arc, leaf_mm=leaf, meterset_mu=meterset))
            start = end
        return bare.value_and_slope(tuple(moved))[0]

    assert slope @ where == pytest.approx((value(1e-4) - value(-1e-4)) / 2e-4, rel=1e-5)


def test_leaves_held_to_an_outline_do_not_open_beyond_it_but_where_they_are_too_slow(
    posed: tuple[Problem, Arcs], pelvis: Patient, machine: Machine
) -> None:
    problem, arcs = posed
    targets = pelvis.grid.index_to_mm(np.argwhere(pelvis.masks["PTV56"]))[:, ::-1].astype(np.float32)
    outlines = {arc.name: outline_of(arc, targets, machine, 8.0) for arc in arcs}
    held = replace(problem, outlines=outlines)
    arc = arcs[0]
    wide = np.empty_like(arc.leaf_mm)
    wide[:, 0], wide[:, 1] = arc.jaw_x_mm
    for of, area in ((problem, 1.0), (held, 0.8)):
        found = of.feasible(arc, wide, arc.segment_mu)
        assert check_plan(Plan("held", machine.name, 6.0, (found,), 28), machine) == []
        gap = found.leaf_mm[:, 1] - found.leaf_mm[:, 0]
        assert gap.mean() <= area * (arc.jaw_x_mm[1] - arc.jaw_x_mm[0])
        inside = (found.leaf_mm[:, 0] >= outlines[arc.name][:, 0] - 1.0).mean()
        assert (inside > 0.95) == (of is held)
