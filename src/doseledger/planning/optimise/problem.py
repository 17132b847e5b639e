"""The optimisation problem: penalty of arcs, slope by leaves and MU, projection."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from doseledger.core.plan import Arc
from doseledger.core.types import Floats, Singles
from doseledger.planning.dose.operator import ArcOperator
from doseledger.planning.machine.feasible import feasible_leaves, feasible_mu
from doseledger.planning.machine.geometry import gantry_turn_deg
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.edge import mean_step_mm
from doseledger.planning.optimise.objectives import PointObjective, total_value_and_slope

Arcs = tuple[Arc, ...]


@dataclass(frozen=True)
class Problem:
    """The penalty of one patient's arcs as a function of their leaf tips and monitor units.

    Parameters
    ----------
    mu_penalty
        Penalty for each monitor unit of a fraction; 0 for none.
    edge_penalty
        Penalty for each monitor unit and each mm of the mean step between neighbouring leaves it goes through.
    outlines
        For an arc by its name, the least left and the greatest right tips, (control point, bank, pair). Where leaves
        are too slow to follow, they lie somewhat farther out.
    """

    machine: Machine
    operators: list[ArcOperator]
    asked: list[PointObjective]
    n_fractions: int
    mu_penalty: float = 0.0
    edge_penalty: float = 0.0
    outlines: dict[str, Floats] = field(default_factory=dict)

    def dose(self, arcs: Arcs) -> Singles:
        """Return the total dose at the points in Gy."""
        dose = np.zeros(self.operators[0].n_points, dtype=np.float32)
        for arc, operator in zip(arcs, self.operators, strict=True):
            dose += operator.dose(arc.leaf_mm[:, :, operator.spread.pairs], arc.segment_mu)
        return dose * np.float32(self.n_fractions)

    def value_and_slope(self, arcs: Arcs) -> tuple[float, Floats]:
        """Return the penalty, and its slope by every variable in the order of `variables`."""
        value, slope = total_value_and_slope(self.asked, self.dose(arcs))
        by_fraction = (slope * self.n_fractions).astype(np.float32)
        parts = []
        for arc, operator in zip(arcs, self.operators, strict=True):
            leaf = arc.leaf_mm[:, :, operator.spread.pairs]
            by_leaf, by_mu = operator.adjoint(leaf, arc.segment_mu, by_fraction)
            if self.mu_penalty:
                value += self.mu_penalty * float(arc.meterset_mu[-1])
                by_mu = by_mu + self.mu_penalty
            if self.edge_penalty:
                more, edge_by_leaf, edge_by_mu = _edge(leaf, arc.segment_mu)
                value += self.edge_penalty * more
                by_leaf, by_mu = by_leaf + self.edge_penalty * edge_by_leaf, by_mu + self.edge_penalty * edge_by_mu
            parts += [by_leaf.ravel(), by_mu]
        return value, np.concatenate(parts)

    def variables(self, arcs: Arcs) -> Floats:
        """Return arc by arc the tips of the pairs within the jaws in mm and the monitor units of the segments."""
        parts = []
        for arc, operator in zip(arcs, self.operators, strict=True):
            parts += [arc.leaf_mm[:, :, operator.spread.pairs].ravel(), arc.segment_mu]
        return np.concatenate(parts)

    def units(self, arcs: Arcs, leaf_unit: float, mu_unit: float) -> Floats:
        """Return for every variable the unit of a tip or of monitor units, in the order of `variables`."""
        parts = []
        for arc, operator in zip(arcs, self.operators, strict=True):
            parts += [np.full(arc.leaf_mm[:, :, operator.spread.pairs].size, leaf_unit)]
            parts += [np.full(arc.n_control_points - 1, mu_unit)]
        return np.concatenate(parts)

    def with_variables(self, arcs: Arcs, wanted: Floats) -> Arcs:
        """Return feasible arcs with variables near the wanted ones."""
        moved, start = [], 0
        for arc, operator in zip(arcs, self.operators, strict=True):
            leaf = arc.leaf_mm.copy()
            tips = leaf[:, :, operator.spread.pairs]
            stop = start + tips.size
            tips[...] = wanted[start:stop].reshape(tips.shape)
            start = stop + arc.n_control_points - 1
            moved.append(self.feasible(arc, leaf, wanted[stop:start]))
        return tuple(moved)

    def feasible(self, arc: Arc, leaf: Floats, mu: Floats) -> Arc:
        """Return an arc with the leaves and monitor units that come nearest to the wanted ones."""
        turn = gantry_turn_deg(arc)
        reach = np.array([self.machine.leaf_reach_mm(abs(t)) for t in turn])
        if arc.name in self.outlines:
            left, right = self.outlines[arc.name][:, 0], self.outlines[arc.name][:, 1]
            leaf = np.clip(leaf, left[:, None], right[:, None])
        leaf = feasible_leaves(leaf, arc.jaw_x_mm, reach, self.machine)
        mu = feasible_mu(mu, turn, self.machine)
        return replace(arc, leaf_mm=leaf, meterset_mu=np.concatenate([[0.0], np.cumsum(mu)]))


def _edge(leaf_mm: Floats, segment_mu: Floats) -> tuple[float, Floats, Floats]:
    """Return monitor units times the mean step of the leaves they pass, and its slopes by tips and monitor units."""
    step, by_leaf = mean_step_mm(leaf_mm)
    between = 0.5 * (step[1:] + step[:-1])
    # Each control point has half the monitor units of the segments beside it.
    mu = 0.5 * (np.append(0.0, segment_mu) + np.append(segment_mu, 0.0))
    return float(between @ segment_mu), by_leaf * mu[:, None, None], between
