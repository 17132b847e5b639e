"""Projected quasi-Newton descent of limited memory.

Leaves and monitor units act on one another: neighbouring control points share their segment, all segments share the
dose. What the last steps did to the slope tells how, and a step that knows it goes several times as far as one of a
method that weighs each variable by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from doseledger.core.types import Floats
from doseledger.planning.optimise.problem import Arcs, Problem

Progress = Callable[[int, int, float], None]
# Units in which the variables weigh alike: mm, and shares of the mean monitor units of a segment at the start.
LEAF_UNIT_MM = 1.0
MU_UNIT_SHARE = 0.008
# Steps and slopes remembered; no variable moves by more units at once than the greatest step.
MEMORY = 20
GREATEST_STEP = 4.0
# A step is taken if it ends below the worst of the last few values: the projection makes the ground uneven, and a
# method that must fall at each step crawls along it. Else it is shortened; the last try is taken as it is.
RECENT = 3
SHORTER = 0.35
TRIES = 4
# A step and its change of slope are remembered if they point the same way by at least this cosine.
LEAST_COSINE = 1e-4


@dataclass(frozen=True)
class _Place:
    """Feasible arcs, their variables in units, their penalty and its slope by the variables."""

    arcs: Arcs
    at: Floats
    value: float
    slope: Floats


@dataclass
class _Memory:
    """The last steps and what each changed the slope by; gives the direction of the next one.

    Notes
    -----
    The two-loop recursion: J. Nocedal, Math Comp 35:773, 1980.
    """

    pairs: deque[tuple[Floats, Floats]] = field(default_factory=lambda: deque(maxlen=MEMORY))

    def learn(self, step: Floats, change: Floats) -> None:
        """Remember a step, unless the penalty bends the wrong way along it."""
        if step @ change > LEAST_COSINE * np.linalg.norm(step) * np.linalg.norm(change):
            self.pairs.append((step, change))

    def forget(self) -> None:
        """Keep the newest steps alone."""
        while len(self.pairs) > RECENT:
            self.pairs.popleft()

    def direction(self, slope: Floats) -> Floats:
        """Return the step to try, no entry above the greatest step."""
        if not self.pairs:
            size = float(np.sqrt(np.mean(slope**2)))
            return np.clip(-slope / size, -1.0, 1.0) if size > 0 else np.zeros_like(slope)
        ahead = -slope
        shares = []
        for step, change in reversed(self.pairs):
            share = (step @ ahead) / (step @ change)
            shares.append(share)
            ahead = ahead - share * change
        step, change = self.pairs[-1]
        ahead = ahead * ((step @ change) / (change @ change))
        for (step, change), share in zip(self.pairs, reversed(shares), strict=True):
            ahead = ahead + (share - (change @ ahead) / (step @ change)) * step
        return np.clip(ahead, -GREATEST_STEP, GREATEST_STEP)


def descend(problem: Problem, arcs: Arcs, iterations: int, progress: Progress | None = None) -> tuple[Arcs, float]:
    """Return the best arcs met on the way, and their penalty.

    Parameters
    ----------
    arcs
        Where to start; feasible.
    iterations
        How often penalty and slope are computed after the first time.
    progress
        Called after each with its number, all of them, and the penalty.
    """
    mean_mu = float(np.mean([arc.segment_mu.mean() for arc in arcs]))
    units = problem.units(arcs, LEAF_UNIT_MM, MU_UNIT_SHARE * mean_mu)
    here = best = _place(problem, arcs, units)
    if progress is not None:
        progress(0, iterations, here.value)
    memory = _Memory()
    recent = deque([here.value], maxlen=RECENT)
    direction, tried = memory.direction(here.slope), 0
    for k in range(1, iterations + 1):
        wanted = (here.at + SHORTER**tried * direction) * units
        there = _place(problem, problem.with_variables(here.arcs, wanted), units)
        if progress is not None:
            progress(k, iterations, there.value)
        if there.value < best.value:
            best = there
        tried += 1
        falls = there.value <= max(recent)
        if not falls and tried < TRIES:
            continue
        memory.learn(there.at - here.at, there.slope - here.slope)
        if not falls:
            memory.forget()
        here = there
        recent.append(here.value)
        direction, tried = memory.direction(here.slope), 0
    return best.arcs, best.value


def _place(problem: Problem, arcs: Arcs, units: Floats) -> _Place:
    value, slope = problem.value_and_slope(arcs)
    return _Place(arcs, problem.variables(arcs) / units, value, slope * units)
