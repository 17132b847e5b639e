"""What the dose engine and the optimiser cost and reach: CPU time on one thread, gamma at finer steps, the bound.

    python benchmarks/engine.py                      # a phantom patient, about two minutes
    python benchmarks/engine.py --segments 90 --iterations 100

The peer is pyRadPlan's photon pencil-beam engine on one open field in water. It needs an environment of its own:
benchmarks/pyradplan_field.py computes the field there. Give its file with --peer, else that part says "not measured".
"""

from __future__ import annotations

import os

# One thread for both sides, before numba and BLAS read it.
os.environ.update(NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.evaluate.gamma import GammaCriteria, gamma_map
from doseledger.evaluate.gamma_grids import DosePair
from doseledger.planning.check import check_plan
from doseledger.planning.engine import compute_dose
from doseledger.planning.machine import Machine, load_machine
from doseledger.planning.optimise import OptimiserSettings, Patient, PlanStyle, optimise_plan


def phantom_patient() -> Patient:
    """Return the first patient of a cohort, as cohort/phantom.py draws it."""
    from doseledger.cohort.phantom_patient import Dirt, draw_patient

    drawn = draw_patient(np.random.default_rng([7028, 1, 0]), 256, 3.0, Dirt())
    masks = {name: surface < 0 for name, surface in drawn.surfaces.items() if name != "BODY"}
    prescription = {"PTV70": 70.0, "PTV56": 56.0}
    return Patient("bench", drawn.ct_hu, drawn.grid, masks, drawn.body, prescription, 28, None, drawn.dose_grid)


def plan_one(machine: Machine, segments: int, iterations: int) -> None:
    """Plan a patient, and print what it took and how the dose holds at finer steps."""
    patient = phantom_patient()
    settings = OptimiserSettings(segments, iterations, (3.0, 3.0, 3.0))
    few = replace(settings, segments_per_arc=20, iterations=25, n_points=2000)
    # Once in small, so that nothing compiles while the clock runs.
    optimise_plan(patient, machine, PlanStyle(), few, np.random.default_rng(1))
    start = time.process_time()
    made = optimise_plan(patient, machine, PlanStyle(), settings, np.random.default_rng(1))
    spent = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"optimise 2 × {segments} segments, {iterations} steps: {spent:.1f} CPU s, peak {memory:.2f} GB")
    print(f"  {made.plan.total_mu:.0f} MU, penalty {made.objective:.1f}, faults {check_plan(made.plan, machine)}")
    bounded = optimise_plan(
        patient, machine, PlanStyle(), replace(settings, bound_iterations=150), np.random.default_rng(1)
    )
    bound = bounded.free_fluence_objective or np.nan
    print(f"  penalty against the free-fluence bound: {made.objective:.1f} / {bound:.1f}")
    grid = made.dose_grid.resampled((4.0, 4.0, 4.0))
    times, doses = [], []
    for parts in (settings.sub_angles, 4 * settings.sub_angles):
        start = time.process_time()
        doses.append(compute_dose(made.plan, patient.ct_hu, patient.grid, machine, grid, parts))
        times.append(time.process_time() - start)
    criteria = GammaCriteria(2, 2, 10, local=False, interp_fraction=10, max_gamma=2.0)
    gamma = gamma_map(
        DosePair.on_one_grid(doses[1].astype(np.float64), doses[0].astype(np.float64), grid.spacing_mm), criteria
    )
    passed = 100 * float(np.mean(gamma[np.isfinite(gamma)] <= 1))
    print(f"  four times finer gantry steps: gamma 2 %/2 mm {passed:.2f} % ({times[0]:.1f} and {times[1]:.1f} CPU s)")


def against_pyradplan(machine: Machine, path: Path | None) -> None:
    """Print how one open field compares with the peer's, or that there is nothing to compare with."""
    if path is None:
        print("against pyRadPlan: not measured (no --peer file; see benchmarks/pyradplan_field.py)")
        return
    peer = np.load(path)
    theirs, ct = peer["dose"], peer["ct_hu"]
    z, y, x = (float(start) for start in peer["origin_mm"])
    grid = Grid(ct.shape, (float(peer["spacing_mm"]),) * 3, (z, y, x))
    leaf = np.empty((2, 2, machine.leaves.n_pairs))
    leaf[:, 0], leaf[:, 1] = -200.0, 200.0
    half = float(peer["side_mm"]) / 2
    field = Arc("OPEN", np.zeros(2), None, 0.0, 0.0, leaf, (-half, half), (-half, half), np.array([0.0, 100.0]),
                (0.0, 0.0, 0.0))  # fmt: skip
    # The peer's fluence is flat unless told otherwise; so that models are compared and not beams, ours is flat here.
    flat = {"fluence_relative": [1.0] * len(machine.beam.fluence_relative)}
    machine = machine.model_copy(update={"beam": machine.beam.model_copy(update=flat)})
    plan = Plan("open", machine.name, machine.beam.energy_mv, (field,), 1)
    compute_dose(plan, ct, grid, machine, grid.resampled((20.0, 20.0, 20.0)), 1)
    start = time.process_time()
    ours = compute_dose(plan, ct, grid, machine, grid, 1)
    spent = time.process_time() - start
    at = tuple(int(k) for k in np.round(grid.mm_to_index(np.zeros(3))))
    ours, theirs = ours / ours[at], theirs / theirs[at]
    print(f"against pyRadPlan, open field of {2 * half:g} mm: {float(peer['cpu_s']) / spent:.0f} times faster "
          f"({spent:.2f} and {float(peer['cpu_s']):.1f} CPU s)")  # fmt: skip
    scale = 1 + grid.axes_mm()[1] / machine.source_axis_mm
    across = [np.abs(axis)[None, :] / scale[:, None] / half for axis in (grid.axes_mm()[0], grid.axes_mm()[2])]
    deep = (grid.axes_mm()[1] > grid.axes_mm()[1][2] + 20.0)[None, :, None]
    inside = (across[0].T[:, :, None] < 0.8) & (across[1][None, :, :] < 0.8) & deep
    error = 100 * np.abs(ours - theirs)[inside]
    print(f"  inside 80 % of the width, beyond build-up, in % of the isocentre: mean {error.mean():.2f}, "
          f"99th percentile {np.percentile(error, 99):.2f}, greatest {error.max():.2f}")  # fmt: skip
    criteria = GammaCriteria(2, 2, 10, local=False, interp_fraction=10, max_gamma=2.0)
    gamma = gamma_map(
        DosePair.on_one_grid(theirs * deep, ours * deep, grid.spacing_mm, np.broadcast_to(deep, ours.shape)), criteria
    )
    print(f"  gamma 2 %/2 mm: {100 * float(np.mean(gamma[np.isfinite(gamma)] <= 1)):.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--segments", type=int, default=60)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--peer", type=Path)
    chosen = parser.parse_args()
    generic = load_machine()
    plan_one(generic, chosen.segments, chosen.iterations)
    against_pyradplan(generic, chosen.peer)
