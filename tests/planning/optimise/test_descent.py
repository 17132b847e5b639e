"""The way down: its steps know the secant, it finds a known lowest place at the edge of what is allowed, and counts."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from doseledger.planning.optimise.descent import GREATEST_STEP, MEMORY, _Memory, descend


def learnt(n: int, size: int, rng: np.random.Generator) -> tuple[_Memory, np.ndarray]:
    """A memory that walked n random steps over a quadratic bowl, and the bowl's curvature."""
    root = rng.normal(size=(size, size))
    curvature = root @ root.T + np.eye(size)
    memory = _Memory()
    for _ in range(n):
        step = 0.01 * rng.normal(size=size)
        memory.learn(step, curvature @ step)
    return memory, curvature


def test_the_newest_step_is_what_its_change_of_slope_calls_for() -> None:
    memory, _ = learnt(7, 12, np.random.default_rng(1))
    step, change = memory.pairs[-1]
    assert memory.direction(change) == pytest.approx(-step)


def test_after_as_many_conjugate_steps_as_variables_the_lowest_place_is_known() -> None:
    rng = np.random.default_rng(2)
    curvature = np.diag([0.1, 1.0, 30.0, 400.0])
    memory = _Memory()
    for axis in np.eye(4):
        memory.learn(axis, curvature @ axis)
    slope = rng.normal(size=4) * 0.1
    assert memory.direction(slope) == pytest.approx(-np.linalg.solve(curvature, slope))


def test_no_variable_moves_by_more_than_the_greatest_step_and_the_first_by_no_more_than_a_unit() -> None:
    memory, _ = learnt(5, 8, np.random.default_rng(3))
    slope = np.full(8, 1e6)
    assert np.abs(memory.direction(slope)).max() == GREATEST_STEP
    assert np.abs(_Memory().direction(np.r_[slope, -1e9])).max() == 1.0
    assert np.array_equal(_Memory().direction(np.zeros(3)), np.zeros(3))


def test_only_so_many_steps_are_remembered_and_none_along_which_the_penalty_bends_down() -> None:
    memory, _ = learnt(MEMORY + 9, 6, np.random.default_rng(4))
    assert len(memory.pairs) == MEMORY
    before = list(memory.pairs)
    memory.learn(np.ones(6), -np.ones(6))
    assert all(a is b for a, b in zip(memory.pairs, before, strict=True))


@dataclass
class Bowl:
    """A quadratic in six variables, five of them much stiffer, that must stay at 1 or above."""

    asked: int = 0

    def value_and_slope(self, arcs: tuple[SimpleNamespace, ...]) -> tuple[float, np.ndarray]:
        self.asked += 1
        stiff, at = np.array([1.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]), arcs[0].at
        return float(0.5 * (stiff * (at - LOWEST) ** 2).sum()), stiff * (at - LOWEST)

    def variables(self, arcs: tuple[SimpleNamespace, ...]) -> np.ndarray:
        return arcs[0].at

    def units(self, arcs: tuple[SimpleNamespace, ...], leaf: float, mu: float) -> np.ndarray:
        return np.array([leaf] * 5 + [mu])

    def with_variables(self, arcs: tuple[SimpleNamespace, ...], wanted: np.ndarray) -> tuple[SimpleNamespace, ...]:
        return (bowl_arc(np.maximum(wanted, 1.0)),)


LOWEST = np.array([2.0, 0.0, 3.0, -1.0, 1.5, 2.5])


def bowl_arc(at: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(at=at, segment_mu=np.full(4, 100.0))


def test_the_lowest_place_that_is_allowed_is_found() -> None:
    start = (bowl_arc(np.full(6, 8.0)),)
    best, value = descend(Bowl(), start, 80)  # type: ignore[arg-type]
    assert best[0].at == pytest.approx(np.maximum(LOWEST, 1.0), abs=0.02)  # type: ignore[attr-defined]
    assert value == pytest.approx(0.5 * (30.0 + 300.0 * 4.0), rel=1e-3)


def test_the_penalty_is_asked_for_once_a_step_and_the_best_place_is_returned() -> None:
    bowl, steps = Bowl(), []
    start = (bowl_arc(np.full(6, 8.0)),)
    _, value = descend(bowl, start, 15, lambda k, n, v: steps.append((k, n, v)))  # type: ignore[arg-type]
    assert bowl.asked == 16
    assert [(k, n) for k, n, _ in steps] == [(k, 15) for k in range(16)]
    assert value == min(v for _, _, v in steps) < 0.1 * steps[0][2]
    assert descend(bowl, start, 0)[0] is start  # type: ignore[arg-type]
