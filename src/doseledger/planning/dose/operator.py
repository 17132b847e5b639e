"""Dose at points as a function of leaves and MU, with its exact adjoint.

What the optimiser repeats hundreds of times: per segment one beam at its middle, the leaves' whole way as one mean
fluence. Geometry and depths are looked up once: 28 bytes for each point and segment instead of an influence matrix.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doseledger.core.plan import Arc
from doseledger.core.types import Floats, Singles
from doseledger.planning.dose.fluence import open_fraction, open_fraction_adjoint
from doseledger.planning.dose.kernels import Spread, depth_table, spread_for
from doseledger.planning.dose.loops import (
    gather,
    gather_some,
    locate,
    scatter,
    scatter_some,
    spread_out,
    weigh,
)
from doseledger.planning.dose.raytrace import DensityMap, fan_step_mm, trace_fan
from doseledger.planning.dose.stretch import Ladder, ladder_of, stretch_fan
from doseledger.planning.dose.view import reach_mm, view_of
from doseledger.planning.machine.geometry import beam_frame, gantry_at
from doseledger.planning.machine.linac import N_GAUSSIANS, Machine

# Nodes of the blurred maps while optimising, and their reach beyond the jaws.
MAP_MM = 2.5
REACH_MM = 60.0
# Segments whose maps are held at once: as many as stay in the processor's cache.
BATCH = 4


@dataclass(frozen=True)
class Wider:
    """Gaussians of other widths, for the points whose scatter spreads farther than in water.

    Parameters
    ----------
    spread
        Blurring with these widths; its maps lie where the arc's own do.
    points
        The points that they reach on each segment, int32 (point of segment,).
    weight
        Their weights, float32 (point of segment, gaussian).
    """

    spread: Spread
    points: list[NDArray[np.int32]]
    weight: list[Singles]

    def used(self, start: int, stop: int) -> list[int]:
        """Return the segments of a range that need them."""
        return [s for s in range(start, stop) if len(self.points[s])]


@dataclass(frozen=True)
class ArcOperator:
    """The dose of one arc at points.

    Parameters
    ----------
    spread
        Blurring of the arc's jaws.
    node
        The node before each point on each segment's flat map, int32 (segment, point); −1 out of reach.
    share
        Shares of the way across and down to the next nodes, float32 (segment, 2, point).
    weight
        Depth dose times inverse square for each Gaussian in Gy/MU, float32 (segment, point, gaussian).
    leaf_gap_mm, transmission
        Of the machine's leaves.
    wider
        Other widths of Gaussians, where the machine's follow the density; none where all is water.
    """

    spread: Spread
    node: NDArray[np.int32]
    share: Singles
    weight: Singles
    leaf_gap_mm: float
    transmission: float
    wider: tuple[Wider, ...] = ()

    @property
    def n_segments(self) -> int:
        """Number of segments."""
        return self.node.shape[0]

    @property
    def n_points(self) -> int:
        """Number of points."""
        return self.node.shape[1]

    def passed(self, leaf_mm: Floats) -> Singles:
        """Return the open fraction of each cell, (segment, pair, cell), of leaf tips (segment + 1, bank, pair)."""
        return open_fraction(leaf_mm, self.spread.cell_edge_mm, self.leaf_gap_mm, self.transmission)

    def dose_of_fluence(self, fluence: Singles) -> Singles:
        """Return the dose of one fraction in Gy, (point,), of fluence in MU, (segment, pair, cell)."""
        dose = np.zeros(self.n_points, dtype=np.float32)
        for start in range(0, self.n_segments, BATCH):
            maps = self.spread.maps(fluence[start : start + BATCH])
            for k in range(len(maps)):
                s = slice(start + k, start + k + 1)
                gather(self.node[s], self.share[s], self.weight[start + k], maps[k : k + 1], dose)
            for wider in self.wider:
                used = wider.used(start, start + len(maps))
                for k, blurred in zip(used, wider.spread.maps(fluence[used]) if used else (), strict=True):
                    gather_some(self.node[k], self.share[k], wider.weight[k], wider.points[k], blurred, dose)
        return dose

    def adjoint_of_fluence(self, slope: Singles) -> Singles:
        """Return the slope by the fluence, (segment, pair, cell), given the slope by the dose, (point,)."""
        shape = (self.n_segments, self.spread.along_y[0].shape[1], self.spread.along_x[0].shape[1])
        out = np.empty(shape, dtype=np.float32)
        chosen = np.flatnonzero(slope).astype(np.int32)
        for start in range(0, self.n_segments, BATCH):
            stop = min(start + BATCH, self.n_segments)
            maps = np.zeros((stop - start, *self.spread.shape, N_GAUSSIANS), dtype=np.float32)
            for s, blurred in enumerate(maps, start):
                scatter(self.node[s], self.share[s], self.weight[s], slope, chosen, blurred)
            out[start:stop] = self.spread.adjoint(maps)
            for wider in self.wider:
                used = wider.used(start, stop)
                if not used:
                    continue
                maps = np.zeros((len(used), *self.spread.shape, N_GAUSSIANS), dtype=np.float32)
                for s, blurred in zip(used, maps, strict=True):
                    scatter_some(self.node[s], self.share[s], wider.weight[s], slope, wider.points[s], blurred)
                out[used] += wider.spread.adjoint(maps)
        return out

    def dose(self, leaf_mm: Floats, mu: Floats) -> Singles:
        """Return the dose of one fraction in Gy, (point,).

        Parameters
        ----------
        leaf_mm
            Tips of the pairs within the jaws at the control points, (segment + 1, bank, pair).
        mu
            Monitor units of the segments, (segment,).
        """
        return self.dose_of_fluence(self.passed(leaf_mm) * mu[:, None, None].astype(np.float32))

    def adjoint(self, leaf_mm: Floats, mu: Floats, slope: Singles) -> tuple[Floats, Floats]:
        """Return the slopes by the leaf tips and by the monitor units, given the slope by the dose, (point,)."""
        by_fluence = self.adjoint_of_fluence(slope)
        by_mu = np.einsum("spk,spk->s", by_fluence, self.passed(leaf_mm), dtype=np.float64)
        by_fluence *= mu[:, None, None].astype(np.float32)
        gap, transmission = self.leaf_gap_mm, self.transmission
        by_leaf = open_fraction_adjoint(leaf_mm, self.spread.cell_edge_mm, gap, transmission, by_fluence)
        return by_leaf, by_mu


def arc_operators(
    arcs: tuple[Arc, ...], density: DensityMap, machine: Machine, points_xyz: Singles
) -> list[ArcOperator]:
    """Return the operator of each arc for one set of points.

    Parameters
    ----------
    arcs
        Their angles, jaws and isocentre count; leaves and meterset don't.
    points_xyz
        Positions in mm, LPS, (n, 3).
    """
    beam = machine.beam
    table, ladder = depth_table(beam), ladder_of(beam)
    n = len(points_xyz)
    operators = []
    for arc in arcs:
        spread = spread_for(machine, arc.jaw_x_mm, arc.jaw_y_mm, MAP_MM, REACH_MM)
        segments = arc.n_control_points - 1
        node = np.empty((segments, n), dtype=np.int32)
        share = np.empty((segments, 2, n), dtype=np.float32)
        weight = np.empty((segments, n, N_GAUSSIANS), dtype=np.float32)
        wider = _no_wider(arc, machine, ladder) if beam.follows_density else ()
        operators.append(ArcOperator(spread, node, share, weight, beam.leaf_gap_mm, beam.leaf_transmission, wider))
    box = np.stack([points_xyz.min(axis=0), points_xyz.max(axis=0)])
    rows = np.ascontiguousarray(points_xyz.T)
    # Arcs that pass the same angle share its fan of depths.
    looks: dict[tuple[float, ...], list[tuple[int, int]]] = defaultdict(list)
    for a, arc in enumerate(arcs):
        for s in range(arc.n_control_points - 1):
            looks[round(gantry_at(arc, s, 0.5), 3), arc.couch_deg, *arc.isocentre_xyz_mm].append((a, s))
    for key, group in looks.items():
        frame = beam_frame(arcs[group[0][0]], key[0], machine.source_axis_mm)
        spreads = [operators[a].spread for a, _ in group]
        fan = trace_fan(density, frame, box, reach_mm(spreads), fan_step_mm(beam))
        stretch = stretch_fan(fan, beam)
        for a, s in group:
            operator = operators[a]
            view = view_of(frame, fan, operator.spread, arcs[a].collimator_deg)
            locate(rows, view, operator.spread.shape, operator.node[s], operator.share[s])
            weigh(rows, view, fan.depth_mm, table, operator.weight[s])
            if stretch is not None:
                wide = np.zeros((len(ladder.groups) - 1, n, N_GAUSSIANS), dtype=np.float32)
                spread_out(rows, view, stretch, ladder.rule, operator.weight[s], wide)
                for other, weights in zip(operator.wider, wide, strict=True):
                    chosen = np.flatnonzero(weights.any(axis=1))
                    other.points[s], other.weight[s] = chosen.astype(np.int32), weights[chosen]
    return operators


def _no_wider(arc: Arc, machine: Machine, ladder: Ladder) -> tuple[Wider, ...]:
    """Return the ladder's other widths for an arc, with no point yet that needs them."""
    n, none = arc.n_control_points - 1, np.empty((0, N_GAUSSIANS), dtype=np.float32)
    return tuple(
        Wider(
            spread_for(machine, arc.jaw_x_mm, arc.jaw_y_mm, MAP_MM, REACH_MM, widths),
            [np.empty(0, dtype=np.int32)] * n,
            [none] * n,
        )
        for widths in ladder.groups[1:]
    )
