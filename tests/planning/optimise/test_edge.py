"""Steps between neighbouring leaves, and their slope."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.planning.optimise.edge import ROUNDED_MM, mean_step_mm


def test_leaves_side_by_side_have_no_step_and_a_comb_has_its_teeth() -> None:
    leaf = np.zeros((2, 2, 5))
    leaf[:, 1] = 30.0
    leaf[1, 0, ::2] = 12.0
    step, slope = mean_step_mm(leaf)
    # One bank of two is a comb of 12 mm.
    assert step == pytest.approx([0.0, 0.5 * (np.hypot(12.0, ROUNDED_MM) - ROUNDED_MM)])
    assert np.all(slope[0] == 0)
    assert np.all(slope[1, 0, ::2] > 0)
    assert np.all(slope[1, 0, 1::2] < 0)


def test_an_aperture_moved_or_mirrored_as_a_whole_has_the_same_steps() -> None:
    leaf = np.random.default_rng(1).normal(scale=20.0, size=(4, 2, 9))
    step, slope = mean_step_mm(leaf)
    for other in (leaf + 17.0, -leaf, leaf[:, ::-1], leaf[:, :, ::-1]):
        assert mean_step_mm(other)[0] == pytest.approx(step)
    assert slope.sum(axis=2) == pytest.approx(np.zeros((4, 2)), abs=1e-12)


def test_a_single_pair_has_no_neighbour_and_no_step() -> None:
    step, slope = mean_step_mm(np.array([[[-5.0], [5.0]]] * 3))
    assert step.tolist() == [0.0] * 3
    assert not slope.any()


def test_the_slope_of_the_steps_agrees_with_differences() -> None:
    rng = np.random.default_rng(2)
    leaf = rng.normal(scale=3.0, size=(3, 2, 6))
    _, slope = mean_step_mm(leaf)
    for k, bank, pair in ((0, 0, 0), (1, 1, 3), (2, 0, 5)):
        ends = []
        for change in (1e-5, -1e-5):
            moved = leaf.copy()
            moved[k, bank, pair] += change
            ends.append(mean_step_mm(moved)[0][k])
        assert slope[k, bank, pair] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)
