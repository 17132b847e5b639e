"""Dose at chosen points as a function of leaves and monitor units, and its exact adjoint.

What the optimiser repeats hundreds of times: per segment one beam at its middle, the leaves' whole way as one mean
fluence. Geometry and depths are looked up once: 24 bytes for each point and segment instead of an influence matrix.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.core.plan import Arc
from doseledger.planning.fluence import open_fraction, open_fraction_adjoint
from doseledger.planning.geometry import beam_frame, gantry_at
from doseledger.planning.kernels import DEPTH_STEP_MM, Spread, depth_table, spread_for
from doseledger.planning.machine import N_GAUSSIANS, Machine
from doseledger.planning.raytrace import STEP_MM, DensityMap, depth_at, trace_fan
from doseledger.planning.view import see, seen_bounds_mm, view_of

# Nodes of the blurred maps while optimising, and their reach beyond the jaws.
MAP_MM = 2.5
REACH_MM = 60.0
# Segments whose maps are held at once: they stay in the processor's cache.
BATCH = 16


@dataclass(frozen=True)
class ArcOperator:
    """The dose of one arc at points.

    Parameters
    ----------
    spread
        Blurring of the arc's jaws.
    place
        Column and row of each point on each segment's map, float32 (segment, point, 2); −1 out of reach.
    weight
        Depth dose times inverse square for each Gaussian in Gy/MU, float32 (segment, point, gaussian).
    leaf_gap_mm, transmission
        Of the machine's leaves.
    """

    spread: Spread
    place: NDArray[np.float32]
    weight: NDArray[np.float32]
    leaf_gap_mm: float
    transmission: float

    @property
    def n_segments(self) -> int:
        """Number of segments."""
        return self.place.shape[0]

    @property
    def n_points(self) -> int:
        """Number of points."""
        return self.place.shape[1]

    def passed(self, leaf_mm: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the open fraction of each cell, (segment, pair, cell), of leaf tips (segment + 1, bank, pair)."""
        return open_fraction(leaf_mm, self.spread.cell_edge_mm, self.leaf_gap_mm, self.transmission)

    def dose_of_fluence(self, fluence: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the dose of one fraction in Gy, (point,), of fluence in MU, (segment, pair, cell)."""
        dose = np.zeros(self.n_points, dtype=np.float32)
        for start in range(0, self.n_segments, BATCH):
            part = slice(start, start + BATCH)
            _gather(self.place[part], self.weight[part], self.spread.maps(fluence[part]), dose)
        return dose

    def adjoint_of_fluence(self, slope: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the slope by the fluence, (segment, pair, cell), given the slope by the dose, (point,)."""
        shape = (self.n_segments, self.spread.along_y[0].shape[1], self.spread.along_x[0].shape[1])
        out = np.empty(shape, dtype=np.float32)
        for start in range(0, self.n_segments, BATCH):
            part = slice(start, start + BATCH)
            n = len(self.place[part])
            maps = np.zeros((n, *self.spread.shape, N_GAUSSIANS), dtype=np.float32)
            _scatter(self.place[part], self.weight[part], slope, maps)
            out[part] = self.spread.adjoint(maps)
        return out

    def dose(self, leaf_mm: NDArray[np.float64], mu: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the dose of one fraction in Gy, (point,).

        Parameters
        ----------
        leaf_mm
            Tips of the pairs within the jaws at the control points, (segment + 1, bank, pair).
        mu
            Monitor units of the segments, (segment,).
        """
        return self.dose_of_fluence(self.passed(leaf_mm) * mu[:, None, None].astype(np.float32))

    def adjoint(
        self, leaf_mm: NDArray[np.float64], mu: NDArray[np.float64], slope: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the slopes by the leaf tips and by the monitor units, given the slope by the dose, (point,)."""
        by_fluence = self.adjoint_of_fluence(slope)
        by_mu = np.einsum("spk,spk->s", by_fluence, self.passed(leaf_mm), dtype=np.float64)
        by_fluence *= mu[:, None, None].astype(np.float32)
        gap, transmission = self.leaf_gap_mm, self.transmission
        by_leaf = open_fraction_adjoint(leaf_mm, self.spread.cell_edge_mm, gap, transmission, by_fluence)
        return by_leaf, by_mu


def arc_operators(
    arcs: tuple[Arc, ...], density: DensityMap, machine: Machine, points_xyz: NDArray[np.float32]
) -> list[ArcOperator]:
    """Return the operator of each arc for one set of points.

    Parameters
    ----------
    arcs
        Their angles, jaws and isocentre count; leaves and meterset don't.
    density
        Electron density of the patient.
    machine
        The machine.
    points_xyz
        Positions in mm, LPS, (n, 3).
    """
    beam = machine.beam
    table = depth_table(beam)
    n = len(points_xyz)
    operators = []
    for arc in arcs:
        spread = spread_for(machine, arc.jaw_x_mm, arc.jaw_y_mm, MAP_MM, REACH_MM)
        segments = arc.n_control_points - 1
        place = np.empty((segments, n, 2), dtype=np.float32)
        weight = np.empty((segments, n, N_GAUSSIANS), dtype=np.float32)
        operators.append(ArcOperator(spread, place, weight, beam.leaf_gap_mm, beam.leaf_transmission))
    # Arcs that pass the same angle share its fan of depths.
    looks: dict[tuple[float, ...], list[tuple[int, int]]] = defaultdict(list)
    for a, arc in enumerate(arcs):
        for s in range(arc.n_control_points - 1):
            looks[round(gantry_at(arc, s, 0.5), 3), arc.couch_deg, *arc.isocentre_xyz_mm].append((a, s))
    for key, group in looks.items():
        frame = beam_frame(arcs[group[0][0]], key[0], machine.source_axis_mm)
        spreads = [operators[a].spread for a, _ in group]
        fan = trace_fan(density, frame, seen_bounds_mm(frame, points_xyz, spreads))
        for a, s in group:
            operator = operators[a]
            view = view_of(frame, fan, operator.spread, arcs[a].collimator_deg)
            shape = operator.spread.shape
            _look_up(points_xyz, view, fan.depth_mm, table, shape, (operator.place[s], operator.weight[s]))
    return operators


@njit(cache=True, fastmath=True, error_model="numpy")
def _look_up(points, view, depth, table, shape, out):  # type: ignore[no-untyped-def]
    place, weight = out
    for p in range(points.shape[0]):
        column, row, ray_x, ray_y, distance = see(points, p, view)
        if column < 0.0 or row < 0.0 or column >= shape[1] - 1 or row >= shape[0] - 1:
            place[p, 0] = -1.0
            place[p, 1] = -1.0
            weight[p] = 0.0
            continue
        # In single precision a place just short of the last node may round up to it.
        place[p, 0] = min(np.float32(column), np.float32(shape[1] - 1.001))
        place[p, 1] = min(np.float32(row), np.float32(shape[0] - 1.001))
        deep = depth_at(depth, ray_x, ray_y, distance / STEP_MM - view[7, 2]) / DEPTH_STEP_MM
        deep = min(deep, table.shape[0] - 1.001)
        k = int(deep)
        f = deep - k
        square = (view[6, 2] / distance) ** 2
        for g in range(N_GAUSSIANS):
            weight[p, g] = ((1 - f) * table[k, g] + f * table[k + 1, g]) * square


@njit(cache=True, fastmath=True)
def _gather(place, weight, maps, dose):  # type: ignore[no-untyped-def]
    one = np.uint64(1)
    for s in range(place.shape[0]):
        for p in range(place.shape[1]):
            column = place[s, p, 0]
            row = place[s, p, 1]
            if column < 0.0:
                continue
            # Unsigned indices: signed ones would be checked for a wrap at every load.
            x = np.uint64(column)
            y = np.uint64(row)
            fx = column - np.float32(x)
            fy = row - np.float32(y)
            total = np.float32(0.0)
            for g in range(N_GAUSSIANS):
                low = maps[s, y, x, g] + fx * (maps[s, y, x + one, g] - maps[s, y, x, g])
                high = maps[s, y + one, x, g] + fx * (maps[s, y + one, x + one, g] - maps[s, y + one, x, g])
                total += weight[s, p, g] * (low + fy * (high - low))
            dose[p] += total


@njit(cache=True, fastmath=True)
def _scatter(place, weight, slope, maps):  # type: ignore[no-untyped-def]
    one = np.uint64(1)
    for s in range(place.shape[0]):
        for p in range(place.shape[1]):
            column = place[s, p, 0]
            row = place[s, p, 1]
            if column < 0.0 or slope[p] == 0.0:
                continue
            x = np.uint64(column)
            y = np.uint64(row)
            fx = column - np.float32(x)
            fy = row - np.float32(y)
            for g in range(N_GAUSSIANS):
                value = weight[s, p, g] * slope[p]
                high = fy * value
                low = value - high
                maps[s, y, x, g] += low - fx * low
                maps[s, y, x + one, g] += fx * low
                maps[s, y + one, x, g] += high - fx * high
                maps[s, y + one, x + one, g] += fx * high
