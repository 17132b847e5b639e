"""Lower bound of the penalty: fluence free of any machine, same beams and points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doseledger.core.types import Floats
from doseledger.planning.optimise.objectives import total_value_and_slope
from doseledger.planning.optimise.problem import Arcs, Problem

# Adam, D. P. Kingma & J. Ba, arXiv:1412.6980, with short memories. Steps are in shares of the mean fluence; they fall
# along half a cosine.
ADAM_DECAY = (0.7, 0.9)
FLUENCE_STEP = 0.08


@dataclass
class _Adam:
    """First and second moments of one array of variables."""

    first: Floats
    second: Floats
    steps: int = 0

    def step(self, slope: Floats) -> Floats:
        """Return the direction of the next step, each entry about 1 or less."""
        self.steps += 1
        a, b = ADAM_DECAY
        self.first = a * self.first + (1 - a) * slope
        self.second = b * self.second + (1 - b) * slope**2
        mean = self.first / (1 - a**self.steps)
        spread = np.sqrt(self.second / (1 - b**self.steps))
        return np.asarray(mean / (spread + 1e-12))


def free_fluence_penalty(problem: Problem, arcs: Arcs, iterations: int) -> float:
    """Return the least penalty met with any fluence of the same beams, started from the plan's own."""
    fluence = [
        operator.passed(arc.leaf_mm[:, :, operator.spread.pairs]) * arc.segment_mu[:, None, None].astype(np.float32)
        for arc, operator in zip(arcs, problem.operators, strict=True)
    ]
    mean = float(np.mean([f.mean() for f in fluence]))
    moments = [_Adam(np.zeros(f.shape), np.zeros(f.shape)) for f in fluence]
    least = np.inf
    for k in range(iterations):
        dose = np.sum([o.dose_of_fluence(f) for o, f in zip(problem.operators, fluence, strict=True)], axis=0)
        value, slope = total_value_and_slope(problem.asked, dose * problem.n_fractions)
        least = min(least, value)
        size = FLUENCE_STEP * mean * 0.5 * (1 + np.cos(np.pi * k / iterations))
        slope32 = (slope * problem.n_fractions).astype(np.float32)
        for a, operator in enumerate(problem.operators):
            step = moments[a].step(operator.adjoint_of_fluence(slope32).astype(np.float64))
            fluence[a] = np.maximum(0.0, fluence[a] - size * step).astype(np.float32)
    return float(least)
