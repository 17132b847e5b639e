"""Optimise the fluence of nine beams beside pyRadPlan: penalty against CPU time, one thread on both sides.

    python benchmarks/fluence.py --peer THEIRS.npz [--out OURS.npz]

Phantom, voxels, objectives, beams and bixels are the peer's; each side has its own engine. Ours goes down by the
peer's own solver, so that the engines are compared, and by the descent that plans are made with. The peer needs an
environment of its own: benchmarks/peers/fluence_pyradplan.py makes THEIRS.npz there and can judge OURS.npz; without
it this says "not measured". Beside them stand two arcs that a machine can deliver, planned for the same objectives.
"""

from __future__ import annotations

import os

# One thread for both sides, before numba and BLAS read it.
os.environ.update(NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from engine import flat_beam
from numpy.typing import NDArray
from peers.fluence_pyradplan import BIXEL_MM, penalty
from scipy.optimize import Bounds, minimize

from doseledger.core.grid import Grid, resample_linear
from doseledger.core.plan import Arc
from doseledger.planning.dose.engine import voxel_points_xyz
from doseledger.planning.dose.operator import ArcOperator, arc_operators
from doseledger.planning.dose.raytrace import density_map
from doseledger.planning.machine.linac import Machine, load_machine
from doseledger.planning.optimise.arcs import optimise_to
from doseledger.planning.optimise.descent import descend
from doseledger.planning.optimise.objectives import NORMAL_TISSUE, Objective, PointObjective, total_value_and_slope
from doseledger.planning.optimise.patient import OptimiserSettings, Patient, PlanStyle

Weights = NDArray[np.float64]
History = NDArray[np.float64]
# What the peer's file says of each objective.
ASKED = ("masks", "structures", "kinds", "doses_gy", "penalties")
# The descent's unit of a bixel as a share of their mean: weights go to 0 and to three times the mean.
UNIT_SHARE = 0.1


@dataclass(frozen=True)
class Fluence:
    """Weights of bixels in MU, in the place of an arc."""

    segment_mu: NDArray[np.float64]


@dataclass(frozen=True)
class FluenceProblem:
    """What the descent asks of `planning.problem.Problem`, with bixels that may have any weight but a negative one.

    Parameters
    ----------
    operators
        Dose at the points, one for each beam.
    asked
        The objectives on the points.
    place
        Beam, leaf pair and column of each bixel.
    """

    operators: list[ArcOperator]
    asked: list[PointObjective]
    place: tuple[NDArray[np.intp], ...]

    def dose(self, weights: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the dose at the points in Gy."""
        spread = self.operators[0].spread
        # The operator's cells are half a bixel wide.
        fluence = np.zeros((len(self.operators), *spread.primary.shape), dtype=np.float32)
        beam, pair, column = self.place
        fluence[beam, pair, 2 * column] = fluence[beam, pair, 2 * column + 1] = weights
        return np.sum([o.dose_of_fluence(f[None]) for o, f in zip(self.operators, fluence, strict=True)], axis=0)

    def value_and_slope(self, arcs: tuple[Fluence, ...]) -> tuple[float, NDArray[np.float64]]:
        """Return the penalty and its slope by the weights."""
        value, by_dose = total_value_and_slope(self.asked, self.dose(arcs[0].segment_mu))
        slope = np.concatenate([o.adjoint_of_fluence(by_dose.astype(np.float32)) for o in self.operators])
        beam, pair, column = self.place
        return value, (slope[beam, pair, 2 * column] + slope[beam, pair, 2 * column + 1]).astype(np.float64)

    def variables(self, arcs: tuple[Fluence, ...]) -> NDArray[np.float64]:
        """Return the weights."""
        return arcs[0].segment_mu

    def units(self, arcs: tuple[Fluence, ...], _leaf: float, _mu: float) -> NDArray[np.float64]:
        """Return the unit of each weight."""
        return np.full(len(arcs[0].segment_mu), UNIT_SHARE * arcs[0].segment_mu.mean())

    def with_variables(self, _arcs: tuple[Fluence, ...], wanted: NDArray[np.float64]) -> tuple[Fluence, ...]:
        """Return the nearest weights that are not negative."""
        return (Fluence(np.maximum(wanted, 0.0)),)


def problem_of(peer: dict[str, Any], machine: Machine) -> FluenceProblem:
    """Return the peer's problem for our operator."""
    ct_grid, dose_grid = grids_of(peer)
    inside = peer["masks"].any(axis=0)
    asked = []
    for mask, name, kind, dose, weight in zip(*(peer[key] for key in ASKED), strict=True):
        points = np.flatnonzero(mask[inside])
        asked.append(PointObjective(Objective(str(name), kind, dose, weight), points, np.full(len(points), dose)))
    # Rows of leaves where the peer has its rows of bixels: with a leaf's middle on the axis.
    low, high = (f(peer["bixels_mm"], axis=0) for f in (np.min, np.max))
    jaw_x, jaw_y = ((float(low[k] - BIXEL_MM / 2), float(high[k] + BIXEL_MM / 2)) for k in (0, 1))
    beams = tuple(
        Arc(f"B{k}", np.full(2, angle), None, 0.0, 0.0, np.zeros((2, 2, machine.leaves.n_pairs)), jaw_x, jaw_y,
            np.array([0.0, 1.0]), tuple(peer["isocentre_xyz"]))
        for k, angle in enumerate(peer["angles_deg"])
    )  # fmt: skip
    density = density_map(peer["ct_hu"], ct_grid, machine.density)
    operators = arc_operators(beams, density, machine, voxel_points_xyz(inside, dose_grid))
    column, pair = np.round((peer["bixels_mm"] - low) / BIXEL_MM).astype(np.intp).T
    return FluenceProblem(operators, asked, (peer["of_beam"], pair, column))


def grids_of(peer: dict[str, Any]) -> tuple[Grid, Grid]:
    """Return the grids of the CT and of the dose."""
    shapes = (peer["ct_hu"].shape, peer["masks"].shape[1:])
    pairs = (peer["ct_grid"], peer["dose_grid"])
    return tuple(Grid(s, tuple(spacing), tuple(origin)) for s, (origin, spacing) in zip(shapes, pairs, strict=True))


def bixel_machine() -> Machine:
    """Return the generic machine with a flat beam and leaves in the rows of the peer's bixels."""
    machine = flat_beam(load_machine())
    leaves = type(machine.leaves).model_validate({**machine.leaves.model_dump(), "runs": [[81, BIXEL_MM]]})
    return machine.model_copy(update={"leaves": leaves})


def by_descent(problem: FluenceProblem, even: Weights, steps: int, note: Callable[[float], None]) -> Weights:
    """Return the weights that the descent of plans ends with."""
    (best,), _ = descend(problem, (Fluence(even),), steps, lambda _step, _steps, value: note(value))
    return best.segment_mu


def by_lbfgsb(problem: FluenceProblem, even: Weights, steps: int, note: Callable[[float], None]) -> Weights:
    """Return the weights that the peer's solver ends with, its settings left alone but for the tolerance."""
    mean = even.mean()

    def value_and_slope(shares: Weights) -> tuple[float, Weights]:
        value, slope = problem.value_and_slope((Fluence(shares * mean),))
        note(value)
        return value, slope * mean

    limits = {"maxiter": steps, "ftol": 1e-9}
    bounds = Bounds(0.0, np.inf)
    return mean * minimize(value_and_slope, even / mean, jac=True, method="L-BFGS-B", bounds=bounds, options=limits).x


WAYS = {"ours by pyRadPlan's solver": by_lbfgsb, "ours by the descent of plans": by_descent}


def optimised(peer: dict[str, Any], way: str, steps: int) -> tuple[Weights, FluenceProblem, History]:
    """Return weights, the problem, and how the penalty fell: (evaluation, (CPU seconds, least penalty))."""
    target = peer["kinds"].tolist().index("uniform")
    history: list[tuple[float, float]] = []
    start = time.process_time()
    problem = problem_of(peer, bixel_machine())
    # All bixels alike, so that the target's mean dose is what is asked.
    even = np.ones(len(peer["of_beam"]))
    even *= peer["doses_gy"][target] / problem.dose(even)[problem.asked[target].points].mean()
    weights = WAYS[way](problem, even, steps, lambda value: history.append((time.process_time() - start, value)))
    fell = np.array(history)
    fell[:, 1] = np.minimum.accumulate(fell[:, 1])
    return weights, problem, fell


def seconds_to(history: History, level: float) -> float:
    """Return the CPU seconds after which the penalty was at a level or below, NaN if it never was."""
    there = history[:, 1] <= level
    return float(history[np.argmax(there), 0]) if there.any() else np.nan


def on_grid(peer: dict[str, Any], dose: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the dose at the points on the peer's grid, (z, y, x)."""
    inside = peer["masks"].any(axis=0)
    full = np.zeros(inside.shape)
    full[inside] = dose
    return full


def compare(peer: dict[str, Any], steps: int, out: Path | None) -> None:
    """Print what both sides reach and when, and what the peer's fluence is worth in our engine."""
    made, voxels = float(peer["matrix_s"]), peer["masks"].any(axis=0)
    print(f"{len(peer['of_beam'])} bixels of {len(peer['angles_deg'])} beams, {voxels.sum()} voxels")
    fell = {"pyRadPlan": peer["history"] + (made, 0.0)}
    ready = {"pyRadPlan": made}
    for way in WAYS:
        # Once in small, so that nothing compiles while the clock runs.
        optimised(peer, way, 2)
        weights, problem, fell[way] = optimised(peer, way, steps)
        ready[way] = float(fell[way][0, 0])
        if out is not None and way == next(iter(WAYS)):
            np.savez_compressed(out, weights=weights, dose=on_grid(peer, problem.dose(weights)))
    # The least penalty that all of them reach, each by its own engine: no level is out of anybody's reach.
    common = max(history[:, 1].min() for history in fell.values())
    for way, history in fell.items():
        print(f"{way}: ready after {ready[way]:.2f} CPU s; {len(history)} evaluations or steps, "
              f"{history[-1, 0]:.1f} CPU s, penalty {history[:, 1].min():.1f}")  # fmt: skip
        for share in (2.0, 1.1, 1.01):
            both = np.array([seconds_to(h, share * common) for h in (fell["pyRadPlan"], history)])
            bare = both - (made, ready[way])
            print(f"  {share * common:.0f} after {both[1]:.2f} CPU s, pyRadPlan's over it {both[0] / both[1]:.1f}; "
                  f"once ready {bare[1]:.2f}, {bare[0] / bare[1]:.1f}")  # fmt: skip
    swapped = on_grid(peer, problem.dose(peer["weights"]))
    target = peer["masks"][peer["kinds"].tolist().index("uniform")]
    swapped *= peer["dose"][target].mean() / swapped[target].mean()
    apart = 100 * np.abs(swapped - peer["dose"])[voxels] / peer["dose"].max()
    print(f"their fluence: penalty {penalty(peer['dose'], peer):.1f} in their engine, {penalty(swapped, peer):.1f} in "
          f"ours; doses differ by {apart.mean():.2f} %, 99th percentile {np.percentile(apart, 99):.2f} %")  # fmt: skip


def plan_arcs(peer: dict[str, Any], machine: Machine, settings: OptimiserSettings) -> None:
    """Print what two deliverable arcs reach for the same objectives."""
    ct_grid, dose_grid = grids_of(peer)
    objectives = [
        Objective(NORMAL_TISSUE if name == "BODY" else str(name), kind, dose, weight)
        for _, name, kind, dose, weight in zip(*(peer[key] for key in ASKED), strict=True)
    ]
    masks = {str(name): mask for name, mask in zip(peer["structures"], peer["masks"], strict=True)}
    del masks["BODY"]
    prescription = {o.structure: o.dose_gy for o in objectives if o.kind == "uniform"}
    ct_hu = resample_linear(peer["ct_hu"], ct_grid, dose_grid, outside=-1000.0).astype(np.int16)
    patient = Patient("TG119", ct_hu, dose_grid, masks, peer["masks"].any(axis=0), prescription, 1, None, dose_grid)
    start = time.process_time()
    made = optimise_to(patient, machine, (PlanStyle(), settings), objectives, np.random.default_rng(1))
    spent = time.process_time() - start
    print(f"two arcs that can be delivered, {settings.segments_per_arc} segments each, {settings.iterations} steps: "
          f"{spent:.1f} CPU s, penalty {penalty(made.dose_gy / made.scale, peer):.0f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    chosen = parser.parse_args()
    if chosen.peer is None:
        print("fluence against pyRadPlan: not measured (no --peer file; see benchmarks/peers/fluence_pyradplan.py)")
    else:
        with np.load(chosen.peer) as file:
            loaded = dict(file)
        compare(loaded, chosen.steps, chosen.out)
        plan_arcs(loaded, flat_beam(load_machine()), OptimiserSettings(60, 60, (5.0, 5.0, 5.0), 2))
