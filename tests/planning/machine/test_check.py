"""The checker of deliverability: silent on a sound plan, and it names each fault that is put in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.plan import Arc, Plan
from doseledger.planning.machine.check import check_plan
from doseledger.planning.machine.linac import Machine


@pytest.fixture
def sound(machine: Machine) -> Plan:
    """An arc of 30° in 4° and less, 2 MU a step, a moving window within jaws of 100 mm."""
    n = 9
    gantry = np.mod(350.0 + np.linspace(0, 30, n), 360)
    left = np.linspace(-40, 10, n)[:, None] + np.zeros(machine.leaves.n_pairs)
    arc = Arc("ARC1", gantry, True, 10.0, 0.0, np.stack([left, left + 25], axis=1), (-50.0, 50.0), (-60.0, 60.0),
              2.0 * np.arange(n), (0.0, 0.0, 0.0))  # fmt: skip
    return Plan("test", machine.name, 6.0, (arc,), 28)


def with_arc(plan: Plan, **change: object) -> Plan:
    return replace(plan, arcs=(replace(plan.arcs[0], **change),))  # type: ignore[arg-type]


def moved(plan: Plan, index: tuple[int, ...], value: float) -> Plan:
    leaf = plan.arcs[0].leaf_mm.copy()
    leaf[index] = value
    return with_arc(plan, leaf_mm=leaf)


def falling(plan: Plan) -> Plan:
    meterset = plan.arcs[0].meterset_mu.copy()
    meterset[4] = 5.0
    return with_arc(plan, meterset_mu=meterset)


def test_a_sound_plan_passes(sound: Plan, machine: Machine) -> None:
    assert check_plan(sound, machine) == []


def test_a_static_field_passes(
    machine: Machine, make_field: Callable[..., Arc], make_plan: Callable[..., Plan]
) -> None:
    leaf = np.zeros((2, 2, machine.leaves.n_pairs))
    leaf[:, 0], leaf[:, 1] = -50.0, 50.0
    assert check_plan(make_plan(make_field(100.0, leaf_mm=leaf)), machine) == []


FAULTS: list[tuple[Callable[[Plan], Plan], str]] = [
    (lambda p: moved(p, (4, 1, 30), 49.0), r"ARC1, control point 4: leaf 31 of bank X2 moves .* mm/s, at most 25 mm/s"),
    (lambda p: moved(p, (4, 0, 30), 9.0), r"leaf 31 of bank X1 moves"),
    (lambda p: moved(p, (4, 1, 7), -20.0), r"control point 4: leaf pair 8 crosses"),
    (lambda p: moved(p, (4, 1, 7), -15.0 + 0.2), r"control point 4: leaf pair 8 is closer than the least gap"),
    (
        lambda p: moved(p, (0, 0, 30), -51.0),
        r"control point 0: the aperture of leaf pair 31, .* outside the jaws at -50",
    ),
    (lambda p: moved(p, (0, 0, 0), -201.0), r"a leaf tip at -201\.00 mm, travel -200 to 200"),
    (lambda p: moved(p, (0, 0, 0), -199.0), r"tips of one bank 159\.00 mm apart, at most 150"),
    (falling, r"control point 4: the meterset falls from 6\.0000 to 5\.0000 MU"),
    (lambda p: with_arc(p, meterset_mu=p.arcs[0].meterset_mu + 1), r"meterset begins at 1 MU"),
    (lambda p: with_arc(p, meterset_mu=0 * p.arcs[0].meterset_mu), r"delivers no monitor units"),
    (lambda p: with_arc(p, meterset_mu=70 * p.arcs[0].meterset_mu), r"need the gantry at 0\.\d+°/s, least 0\.3"),
    (lambda p: with_arc(p, meterset_mu=p.arcs[0].meterset_mu / 60), r"are \d\.\d+ MU/min, least 5 MU/min"),
    (lambda p: with_arc(p, isocentre_xyz_mm=(0.0, np.nan, 0.0)), r"ARC1 has no isocentre"),
    (lambda p: with_arc(p, isocentre_xyz_mm=(0.0, 0.0)), r"ARC1 has no isocentre"),
    (lambda p: with_arc(p, jaw_x_mm=(-50.0, 220.0)), r"jaws X at -50 and 220 mm, limits -200 and 200"),
    (lambda p: with_arc(p, jaw_y_mm=(3.0, 5.0)), r"jaws Y open by 2 mm, least opening 10"),
    (lambda p: with_arc(p, gantry_deg=p.arcs[0].gantry_deg + 360), r"wanted 0 ≤ angle < 360"),
    (lambda p: with_arc(p, clockwise=None), r"has no sense of rotation"),
    (lambda p: with_arc(p, clockwise=False), r"turns by \d+\.\d°, at most 360°: do the angles follow"),
    (lambda p: with_arc(p, leaf_mm=p.arcs[0].leaf_mm[:, :, :40]), r"has 40 leaf pairs, Generic120 has 60"),
    (lambda p: replace(p, machine="LinacX"), r"is for machine LinacX"),
    (lambda p: replace(p, energy_mv=10.0), r"asks for 10 MV, Generic120 has 6 MV"),
    (lambda p: replace(p, n_fractions=0), r"0 fractions"),
    (lambda p: replace(p, arcs=()), r"has no beam"),
]


@pytest.mark.parametrize(("break_it", "message"), FAULTS, ids=[message[:40] for _, message in FAULTS])
def test_each_fault_is_named_with_beam_place_and_limit(
    sound: Plan, machine: Machine, break_it: Callable[[Plan], Plan], message: str
) -> None:
    found = check_plan(break_it(sound), machine)
    assert any(re.search(message, line) for line in found), found


def test_interdigitation_is_found_only_where_it_is_forbidden(sound: Plan, machine: Machine) -> None:
    leaf = sound.arcs[0].leaf_mm.copy()
    leaf[:, :, 20:] += 26.0
    plan = with_arc(sound, leaf_mm=leaf, jaw_x_mm=(-50.0, 70.0))
    strict = machine.model_copy(update={"leaves": machine.leaves.model_copy(update={"interdigitation": False})})
    assert check_plan(plan, machine) == []
    assert any("leaf pairs 20 and 21 interdigitate" in line for line in check_plan(plan, strict))


def places(sound: Plan, *moves: tuple[tuple[int, ...], float]) -> Plan:
    for index, value in moves:
        sound = moved(sound, index, value)
    return sound


def standing(plan: Plan, k: int) -> Plan:
    """The gantry stands still in one segment of an arc."""
    gantry = plan.arcs[0].gantry_deg.copy()
    gantry[k + 1 :] -= gantry[k + 1] - gantry[k]
    return with_arc(plan, gantry_deg=np.mod(gantry, 360.0))


WAY = "Beam ARC1, control point {}: leaf {} of bank X{} moves {} mm in 0.625 s, {} mm/s, at most 25 mm/s."
# All that is said of a plan with several faults, line by line.
WHOLE: list[tuple[Callable[[Plan], Plan], list[str]]] = [
    (
        # Of two pairs that cross the one that crosses more, and the tip that is farthest, on whichever side.
        lambda p: places(p, ((4, 1, 7), -20.0), ((4, 1, 9), -26.0), ((8, 0, 0), -201.0), ((8, 1, 0), 203.0)),
        [
            "Beam ARC1, control point 4: leaf pair 10 crosses: gap -11.00 mm, least 0.5 mm.",
            "Beam ARC1, control point 8: a leaf tip at 203.00 mm, travel -200 to 200 mm.",
            "Beam ARC1, control point 8: tips of one bank 211.00 mm apart, at most 150 mm.",
            WAY.format(4, 10, 2, "29.75", "47.6"), WAY.format(5, 10, 2, "42.25", "67.6"),
            WAY.format(8, 1, 1, "204.75", "327.6"),
        ],
    ),
    (
        # Beyond both jaws, of pairs that the Y jaws show: the first such pair.
        lambda p: with_arc(places(p, ((1, 0, 30), -38.0), ((1, 1, 40), -4.0)), jaw_x_mm=(-35.0, 30.0)),
        [
            "Beam ARC1, control point 0: the aperture of leaf pair 19, -40.00 to -15.00 mm, reaches outside the jaws "
            "at -35 and 30 mm.",
            "Beam ARC1, control point 1: the aperture of leaf pair 31, -38.00 to -8.75 mm, reaches outside the jaws "
            "at -35 and 30 mm.",
            "Beam ARC1, control point 8: the aperture of leaf pair 19, 10.00 to 35.00 mm, reaches outside the jaws "
            "at -35 and 30 mm.",
        ],
    ),
    (
        lambda p: with_arc(p, jaw_x_mm=(-201.0, 50.0), jaw_y_mm=(-60.0, 212.0)),
        [
            "Beam ARC1: jaws X at -201 and 50 mm, limits -200 and 200 mm.",
            "Beam ARC1: jaws Y at -60 and 212 mm, limits -200 and 200 mm.",
        ],
    ),
    (lambda p: standing(p, 2), [
        "Beam ARC1, control point 3: 2.000 MU while the gantry of an arc stands still.",
        "Beam ARC1, control point 3: leaf 1 of bank X1 moves 6.25 mm in 0.200 s, 31.2 mm/s, at most 25 mm/s.",
    ]),
    (lambda p: with_arc(standing(p, 2), meterset_mu=np.array([0, 2, 4, 4, 6, 8, 10, 12, 14.0]),
                        leaf_mm=0 * p.arcs[0].leaf_mm + np.array([[-5.0], [5.0]])), []),
    (lambda p: with_arc(p, gantry_deg=np.full(9, 20.0), clockwise=None, leaf_mm=p.arcs[0].leaf_mm[::-1]), []),
    (lambda p: with_arc(p, gantry_deg=np.append(p.arcs[0].gantry_deg[:-1], 360.0)), [
        "Beam ARC1, control point 8: gantry at 360°, wanted 0 ≤ angle < 360°.",
        "Beam ARC1 turns by 370.0°, at most 360°: do the angles follow its sense of rotation?",
        "Beam ARC1, control point 8: 2.0000 MU at the gantry's full speed are 2.09 MU/min, least 5 MU/min.",
    ]),
    (lambda p: with_arc(p, collimator_deg=np.nan, couch_deg=np.inf), [
        "Beam ARC1: the collimator angle is not a number.", "Beam ARC1: the couch angle is not a number.",
    ]),
    (lambda p: with_arc(p, gantry_deg=np.full(9, 20.0), clockwise=None, meterset_mu=2501.0 * np.arange(9)), [
        "Beam ARC1 delivers 20008 MU, wanted at most 20000 MU.",
    ]),
    (lambda p: with_arc(p, gantry_deg=np.full(9, 20.0), clockwise=None, meterset_mu=np.arange(9) / 9e6), [
        "Beam ARC1 delivers no monitor units.",
    ]),
    (lambda p: replace(p, arcs=(with_arc(p, name="A", leaf_mm=p.arcs[0].leaf_mm[:, :, 1:]).arcs[0],
                                with_arc(p, name="B", jaw_y_mm=(3.0, 5.0)).arcs[0]), n_fractions=1), [
        "Beam A has 59 leaf pairs, Generic120 has 60.", "Beam B: jaws Y open by 2 mm, least opening 10 mm.",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("break_it", "lines"), WHOLE)
def test_all_that_is_wrong_is_said_once_in_order_and_nothing_else(
    sound: Plan, machine: Machine, break_it: Callable[[Plan], Plan], lines: list[str]
) -> None:
    assert check_plan(break_it(sound), machine) == lines


def test_neighbours_that_pass_one_another_are_named_from_either_side(sound: Plan, machine: Machine) -> None:
    strict = machine.model_copy(update={"leaves": machine.leaves.model_copy(update={"interdigitation": False})})
    word = "Beam ARC1, control point {}: leaf pairs {} and {} interdigitate, which Generic120 does not allow."
    for move, first in ((30.0, 12), (-30.0, 13)):
        leaf = sound.arcs[0].leaf_mm.copy()
        leaf[3, :, first:20] += move
        plan = with_arc(sound, leaf_mm=leaf, jaw_x_mm=(-100.0, 100.0))
        found = [line for line in check_plan(plan, strict) if "interdigitate" in line]
        assert found == [word.format(3, first, first + 1)]


@pytest.mark.parametrize(("gap", "is_named"), [(24.99, False), (25.51, True)])
def test_a_leaf_beside_one_further_left_or_right_keeps_the_least_gap_to_it(
    gap: float, is_named: bool, sound: Plan, machine: Machine
) -> None:
    strict = machine.model_copy(update={"leaves": machine.leaves.model_copy(update={"interdigitation": False})})
    for sign in (1.0, -1.0):
        leaf = sound.arcs[0].leaf_mm.copy()
        leaf[:, :, 20:] += sign * (gap - 0.49)
        plan = with_arc(sound, leaf_mm=leaf, jaw_x_mm=(-100.0, 100.0))
        assert any("interdigitate" in line for line in check_plan(plan, strict)) is is_named
