"""Projections, machines and low density in numbers worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from doseledger.core.grid import Grid
from doseledger.planning.dose import engine, operator
from doseledger.planning.dose.engine import outline
from doseledger.planning.dose.low_density import Placed, low_density_of
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.feasible import feasible_leaves, feasible_mu
from doseledger.planning.machine.linac import Beam, Density, Leaves, Machine, load_machine


def strict(machine: Machine, allowed: bool = False) -> Machine:
    leaves = machine.leaves.model_copy(update={"interdigitation": allowed, "min_gap_mm": 2.0, "max_speed_mm_s": 25.0})
    return machine.model_copy(update={"leaves": leaves})


@pytest.mark.parametrize(("wanted", "found"), [
    # A gap of 2 mm and 0.02 in hand, about the middle; jaws of ±50 mm less 0.01.
    ((10.0, 30.0), (10.0, 30.0)), ((10.0, 11.0), (9.49, 11.51)), ((30.0, 10.0), (18.99, 21.01)),
    ((10.0, 12.02), (10.0, 12.02)), ((49.5, 49.9), (47.97, 49.99)), ((-80.0, -60.0), (-49.99, -47.97)),
    ((-60.0, 60.0), (-49.99, 49.99)),
])  # fmt: skip
def test_a_pair_is_opened_about_its_middle_within_the_jaws(
    wanted: tuple[float, float], found: tuple[float, float], machine: Machine
) -> None:
    tips = np.array(wanted)[None, :, None] * np.ones((3, 1, 2))
    made = feasible_leaves(tips, (-50.0, 50.0), np.full(2, 99.0), strict(machine, True))
    assert made[1, :, 1] == pytest.approx(found)
    assert np.ptp(made, axis=(0, 2)) == pytest.approx([0.0, 0.0])


def test_neighbours_that_must_not_pass_pull_left_tips_back(machine: Machine) -> None:
    left, right = np.array([-10.0, 20.0, -30.0, -30.0]), np.array([5.0, 40.0, -20.0, 30.0])
    tips = np.stack([left, right])[None] * np.ones((2, 1, 1))
    made = feasible_leaves(tips, (-50.0, 50.0), np.array([99.0]), strict(machine))
    # The second pair goes to 2.02 mm before the right tips beside it, of which -20 is the least, the others stay.
    assert made[0, 0] == pytest.approx([-10.0, -22.02, -30.0, -30.0])
    assert made[0, 1] == pytest.approx(right)
    free = feasible_leaves(tips, (-50.0, 50.0), np.array([99.0]), strict(machine, True))
    assert free[0, 0] == pytest.approx(left)


def test_a_leaf_that_is_too_fast_goes_midway_between_its_steepest_ways(machine: Machine) -> None:
    way = np.array([0.0, 0.0, 20.0, 0.0, 0.0])
    tips = np.stack([way - 30.0, way + 10.0], axis=1)[:, :, None]
    made = feasible_leaves(tips, (-50.0, 50.0), np.array([4.02, 8.02, 2.02, 4.02]), strict(machine, True))
    # Below: 0, 0, 2, 0, 0 (up by 8, down by 2); above: 8, 12, 20, 18, 14.
    assert made[:, 0, 0] == pytest.approx(-30.0 + np.array([4.0, 6.0, 11.0, 9.0, 7.0]))
    assert made[:, 1, 0] == pytest.approx(10.0 + np.array([4.0, 6.0, 11.0, 9.0, 7.0]))


def test_monitor_units_hang_on_how_far_a_segment_turns(machine: Machine) -> None:
    # 5 and 600 MU/min at 6 and 0.3°/s, with 15 % in hand.
    found = feasible_mu(np.array([0.0, 0.0, 1e6, 1e6, 7.0]), np.array([3.0, -6.0, 3.0, -6.0, 3.0]), machine)
    assert found == pytest.approx([1.15 * 5 / 120, 1.15 * 5 / 60, 0.85 * 100.0, 0.85 * 200.0, 7.0])


def test_a_machine_is_measured_from_its_runs_and_speeds(machine: Machine) -> None:
    leaves = machine.leaves.model_copy(update={"runs": [(2, 10.0), (3, 4.0)]})
    fresh = Leaves.model_validate(leaves.model_dump())
    assert fresh.boundary_mm.tolist() == [-16.0, -6.0, 4.0, 8.0, 12.0, 16.0]
    assert fresh.n_pairs == 5
    assert machine.leaf_reach_mm(3.0) == pytest.approx(12.5)
    beam = machine.beam
    assert beam.primary_fluence(np.array([7.07, 999.0])) == pytest.approx([1.00065, 1.0737], abs=1e-5)


@pytest.mark.parametrize(("block", "changes"), [
    ("beam", {"sigma_mm": [1.0, 2.0, 3.0]}), ("beam", {"buildup_per_mm": [0.2, 0.1]}),
    ("beam", {"amplitude": [[1.0] * 4] * 2}), ("beam", {"fluence_relative": [1.0]}),
    ("beam", {"fluence_distance_mm": [0.0, 0.0], "fluence_relative": [1.0, 1.0]}),
    ("beam", {"buildup_per_mm": [0.2, 0.1, 0.00425655]}), ("beam", {"leaf_transmission": 0.2}),
    ("beam", {"leaf_transmission": -0.001}), ("beam", {"leaf_gap_mm": -0.1}), ("beam",
    {"sigma_mm": [0.0, 2.0, 3.0, 4.0]}),
    ("density", {"hu": [0.0], "relative": [1.0]}), ("density", {"hu": [0.0, 0.0], "relative": [1.0, 1.0]}),
    ("density", {"hu": [0.0, 1.0], "relative": [1.0]}), ("density", {"hu": [0.0, 1.0], "relative": [1.0, -0.1]}),
    ("leaves", {"runs": [(0, 5.0)]}), ("leaves", {"runs": [(3, 0.0)]}), ("leaves", {"min_gap_mm": -0.1}),
    ("leaves", {"travel_mm": (5.0, 5.0)}), ("leaves", {"max_span_mm": 0.0}), ("leaves", {"max_speed_mm_s": 0.0}),
])  # fmt: skip
def test_a_machine_that_can_not_be_is_refused(block: str, changes: dict[str, Any], machine: Machine) -> None:
    kind: Any = {"beam": Beam, "density": Density, "leaves": Leaves}[block]
    value = getattr(machine, block).model_dump()
    kind.model_validate(value)
    with pytest.raises(ValidationError):
        kind.model_validate({**value, **changes})


@pytest.mark.parametrize(("block", "changes"), [
    ("beam", {"leaf_transmission": 0.0}), ("beam", {"leaf_transmission": 0.199}), ("beam", {"leaf_gap_mm": 0.0}),
    ("density", {"hu": [0.0, 1.0], "relative": [0.0, 0.5]}), ("leaves", {"runs": [(1, 0.5)]}),
    ("leaves", {"min_gap_mm": 0.0}), ("beam", {"fluence_distance_mm": [0.0], "fluence_relative": [0.5]}),
])  # fmt: skip
def test_a_machine_at_the_edge_of_what_can_be_is_taken(block: str, changes: dict[str, Any], machine: Machine) -> None:
    kind: Any = {"beam": Beam, "density": Density, "leaves": Leaves}[block]
    kind.model_validate({**getattr(machine, block).model_dump(), **changes})


def test_reported_doses_have_finer_maps_that_reach_farther_than_those_of_the_optimiser(machine: Machine) -> None:
    (own,) = engine._spreads(machine, ((-20.0, 20.0), (-30.0, 30.0)), (tuple(machine.beam.sigma_mm),))
    assert (own.spacing_mm, own.start_mm) == (1.5, (-100.0, -110.0))
    assert (operator.MAP_MM, operator.REACH_MM, engine.SUB_ANGLES) == (2.5, 60.0, 2)
    jaws = np.array([[-10.0, 10.0, -20.0, 20.0], [-20.0, 30.0, -40.0, 60.0]])
    arc: Any = SimpleNamespace(moving_jaws_mm=jaws, name="a")
    look: Any = SimpleNamespace(segment=0, part=1)
    assert engine._jaws_in_motion(arc, look, 2) == ((-17.5, 25.0), (-35.0, 50.0))


def test_the_outline_is_the_largest_body_with_its_holes_filled_slice_by_slice() -> None:
    grid = Grid((3, 9, 12), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    ct_hu = np.full(grid.shape_zyx, -1000, np.int16)
    ct_hu[:, 1:8, 1:7] = 0
    ct_hu[:, 3:6, 3:5] = -1000
    ct_hu[:, 2:4, 9:11] = 50
    found = outline(ct_hu, grid, grid)
    wanted = np.zeros(grid.shape_zyx, bool)
    wanted[:, 1:8, 1:7] = True
    assert np.array_equal(found, wanted)
    assert not outline(np.full_like(ct_hu, -1000), grid, grid).any()


def test_low_density_is_counted_step_by_step_on_each_ray(machine: Machine) -> None:
    grid = Grid((6, 30, 8), (5.0, 4.0, 5.0), (-12.5, -58.0, -17.5))
    rng = np.random.default_rng(2)
    relative = np.repeat(rng.choice([0.3, 1.0], (6, 6, 8)), 5, axis=1).astype(np.float32)
    density = DensityMap(relative, grid)
    body, target = np.zeros(grid.shape_zyx, bool), np.zeros(grid.shape_zyx, bool)
    body[:, 4:26, 1:7], target[2:4, 12:15, 3:5] = True, True
    arcs: Any = [
        SimpleNamespace(gantry_deg=np.array([0.0, 3.0, 93.0]), couch_deg=0.0, isocentre_xyz_mm=(0.0, 0.0, 0.0)),
        SimpleNamespace(gantry_deg=np.array([2.0]), couch_deg=30.0, isocentre_xyz_mm=(0.0, 0.0, 0.0)),
    ]  # fmt: skip
    found = low_density_of(density, Placed(grid, body, target), arcs, 1000.0)
    assert found.target_percent == pytest.approx(100.0 * np.mean(relative[target] < 0.6))
    points = grid.index_to_mm(np.argwhere(target))[:, ::-1]
    low = total = 0
    # 0 and 3° are one direction, 2° of the turned couch another.
    for gantry, couch in ((0.0, 0.0), (93.0, 0.0), (2.0, 30.0)):
        g, c = np.deg2rad(gantry), np.deg2rad(couch)
        down = np.array([-np.sin(g) * np.cos(c), np.cos(g), np.sin(g) * np.sin(c)])
        source = -1000.0 * down
        length = np.linalg.norm(points - source, axis=1)
        for point, far in zip(points, length, strict=True):
            for back in np.arange(0.0, 0.9 * length.min(), 4.0):
                at = point - back * (point - source) / far
                index = np.round(grid.mm_to_index(at[::-1])).astype(int)
                if np.all(index >= 0) and np.all(index < grid.shape_zyx) and body[tuple(index)]:
                    total += 1
                    low += bool(relative[tuple(index)] < 0.6)
    assert found.way_percent == pytest.approx(100.0 * low / total, abs=0.5)
    assert load_machine().source_axis_mm == machine.source_axis_mm == 1000.0
