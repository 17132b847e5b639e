"""The projection onto what a machine can do: whatever comes in, what comes out is deliverable."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from doseledger.planning.machine.feasible import feasible_leaves, feasible_mu
from doseledger.planning.machine.linac import Machine, load_machine

JAWS = (-70.0, 70.0)
MACHINE = load_machine()
STRICT = MACHINE.model_copy(update={"leaves": MACHINE.leaves.model_copy(update={"interdigitation": False})})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(2.0, 30.0), st.sampled_from([MACHINE, STRICT]))
def test_any_leaves_become_deliverable_ones(seed: int, reach_mm: float, machine: Machine) -> None:
    wanted = np.random.default_rng(seed).uniform(-120, 120, size=(12, 2, 9))
    reach = np.full(11, reach_mm)
    tips = feasible_leaves(wanted, JAWS, reach, machine)
    assert tips.min() >= JAWS[0]
    assert tips.max() <= JAWS[1]
    assert (tips[:, 1] - tips[:, 0]).min() >= machine.leaves.min_gap_mm
    assert np.abs(np.diff(tips, axis=0)).max() <= reach_mm
    if not machine.leaves.interdigitation:
        assert (tips[:, 1, 1:] - tips[:, 0, :-1]).min() >= machine.leaves.min_gap_mm
        assert (tips[:, 1, :-1] - tips[:, 0, 1:]).min() >= machine.leaves.min_gap_mm


def test_deliverable_leaves_are_left_as_they_are() -> None:
    way = np.linspace(-30, 20, 12)
    tips = np.stack([np.stack([way] * 4, axis=1), np.stack([way + 12] * 4, axis=1)], axis=1)
    assert np.allclose(feasible_leaves(tips, JAWS, np.full(11, 10.0), MACHINE), tips)


def test_tips_keep_a_hundredth_of_a_mm_off_jaws_least_gap_and_greatest_reach() -> None:
    wanted = np.stack([np.full((2, 3), -120.0), np.full((2, 3), 120.0)], axis=1)
    tips = feasible_leaves(wanted, JAWS, np.array([500.0]), MACHINE)
    assert np.allclose(tips[:, 0], -69.99)
    assert np.allclose(tips[:, 1], 69.99)
    closed = feasible_leaves(np.zeros((2, 2, 3)), JAWS, np.array([500.0]), MACHINE)
    assert np.allclose(closed[:, 1] - closed[:, 0], MACHINE.leaves.min_gap_mm + 0.02)
    wanted[1] = 0.5 * wanted[0]
    slow = feasible_leaves(wanted, JAWS, np.array([2.0]), MACHINE)
    assert np.allclose(np.abs(np.diff(slow, axis=0)), 1.98)


def test_monitor_units_keep_room_for_the_final_scaling() -> None:
    turn = np.full(3, 4.0)
    mu = feasible_mu(np.array([-1.0, 3.0, 1e4]), turn, MACHINE)
    least = 5.0 / 60 * 4.0 / 6.0
    most = 600.0 / 60 * 4.0 / 0.3
    assert least * 1.1 < mu[0] < least * 1.2
    assert mu[1] == 3.0
    assert most * 0.8 < mu[2] < most * 0.9
