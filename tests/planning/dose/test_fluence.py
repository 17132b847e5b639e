"""Moving leaves: the exact mean against brute force, its slope against differences."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.planning.dose.fluence import open_fraction, open_fraction_adjoint

EDGES = np.linspace(-50.0, 50.0, 41)


def brute_force(leaf: np.ndarray, gap: float, transmission: float) -> np.ndarray:
    time = (np.arange(4000) + 0.5) / 4000
    inside = np.linspace(0, 1, 201)[:-1] + 1 / 400
    u = EDGES[:-1, None] + np.diff(EDGES)[:, None] * inside
    out = np.zeros((leaf.shape[2], len(EDGES) - 1))
    for pair in range(leaf.shape[2]):
        left = leaf[0, 0, pair] + (leaf[1, 0, pair] - leaf[0, 0, pair]) * time - gap / 2
        right = leaf[0, 1, pair] + (leaf[1, 1, pair] - leaf[0, 1, pair]) * time + gap / 2
        after_left = np.searchsorted(np.sort(left), u.ravel()).reshape(u.shape) / len(time)
        after_right = np.searchsorted(np.sort(right), u.ravel()).reshape(u.shape) / len(time)
        out[pair] = (after_left - after_right).mean(axis=1)
    return transmission + (1 - transmission) * out


def random_leaves(n: int, pairs: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    left = rng.uniform(-45, 40, size=(n, pairs))
    return np.stack([left, left + rng.uniform(0.5, 40, size=(n, pairs))], axis=1)


def test_the_mean_over_time_agrees_with_ten_thousands_of_samples() -> None:
    leaf = random_leaves(2, 30, seed=3)
    found = open_fraction(leaf, EDGES, 1.6, 0.015)[0]
    assert np.abs(found - brute_force(leaf, 1.6, 0.015)).max() < 2e-3


def test_a_leaf_at_rest_cuts_a_cell_where_it_stands() -> None:
    leaf = np.zeros((2, 2, 1))
    leaf[:, 0], leaf[:, 1] = -10.6, 9.0
    passed = open_fraction(leaf, EDGES, 0.0, 0.0)[0, 0]
    assert passed.sum() * 2.5 == pytest.approx(19.6, abs=1e-3)
    assert passed[15] == pytest.approx(0.24, abs=1e-4)
    assert passed[16] == 1.0


def test_the_open_area_is_the_mean_gap_plus_what_rounded_tips_add() -> None:
    leaf = random_leaves(2, 20, seed=5)
    leaf = np.clip(leaf, -45, 45)
    area = open_fraction(leaf, EDGES, 1.6, 0.0)[0].sum(axis=1) * 2.5
    gap = (leaf[:, 1] - leaf[:, 0]).mean(axis=0)
    assert np.allclose(area, gap + 1.6, atol=1e-3)


def test_the_slope_by_each_tip_agrees_with_differences() -> None:
    leaf = random_leaves(4, 3, seed=7)
    slope = np.random.default_rng(1).normal(size=(3, 3, len(EDGES) - 1))
    found = open_fraction_adjoint(leaf, EDGES, 1.6, 0.015, slope)
    step = 1e-2
    for index in np.ndindex(leaf.shape):
        up, down = leaf.copy(), leaf.copy()
        up[index] += step
        down[index] -= step
        change = open_fraction(up, EDGES, 1.6, 0.015).astype(float) - open_fraction(down, EDGES, 1.6, 0.015)
        assert found[index] == pytest.approx((slope * change).sum() / (2 * step), abs=2e-4)
