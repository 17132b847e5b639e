"""What the dose engine and the optimiser cost and reach: CPU time on one thread, gamma at finer steps, the bound.

    python benchmarks/engine.py                      # a phantom patient, about two minutes
    python benchmarks/engine.py --patients 3 --segments 90 --iterations 100

The peer is pyRadPlan's photon pencil-beam engine, on one open field and on ten segments in water. It needs an
environment of its own: benchmarks/peers/field_pyradplan.py computes both there. Give its files with --peer and
--peer-segments, else that part says "not measured"; with --peer-only nothing else is measured.
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
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair
from doseledger.dosimetry.gamma.map import gamma_map
from doseledger.planning.dose.engine import compute_dose
from doseledger.planning.machine.check import check_plan
from doseledger.planning.machine.geometry import beam_frame
from doseledger.planning.machine.linac import Machine, load_machine
from doseledger.planning.optimise.arcs import optimise_plan
from doseledger.planning.optimise.patient import OptimiserSettings, Patient, PlannedPatient, PlanStyle


def phantom_patient(number: int) -> Patient:
    """Return one patient of a cohort, as phantom/cohort.py draws it."""
    from doseledger.phantom.patient import Dirt, draw_patient

    drawn = draw_patient(np.random.default_rng([7028, number, 0]), 256, 3.0, Dirt())
    masks = {name: surface < 0 for name, surface in drawn.surfaces.items() if name != "BODY"}
    prescription = {"PTV70": 70.0, "PTV56": 56.0}
    return Patient("bench", drawn.ct_hu, drawn.grid, masks, drawn.body, prescription, 28, None, drawn.dose_grid)


def plan_patients(machine: Machine, numbers: range, settings: OptimiserSettings) -> None:
    """Plan patients; print what each took, how near it comes to free fluence, and more of the first one."""
    # Once in small, so that nothing compiles while the clock runs.
    few = replace(settings, segments_per_arc=20, iterations=3, n_points=2000)
    optimise_plan(phantom_patient(numbers[0]), machine, PlanStyle(), few, np.random.default_rng(1))
    for number in numbers:
        patient = phantom_patient(number)
        start = time.process_time()
        made = optimise_plan(patient, machine, PlanStyle(), settings, np.random.default_rng(1))
        spent = time.process_time() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"patient {number}, 2 × {settings.segments_per_arc} segments, {settings.iterations} steps: "
              f"{spent:.1f} CPU s, peak {memory:.2f} GB")  # fmt: skip
        print(f"  {made.plan.total_mu:.0f} MU, penalty {made.objective:.1f}, faults {check_plan(made.plan, machine)}")
        small = replace(patient, dose_grid=made.dose_grid.resampled((8.0, 8.0, 8.0)))
        print_bound(small, machine, settings)
        if number == numbers[0]:
            # Four times the points leave free fluence less to fit by chance; more steps bring the leaves nearer to it.
            many = replace(settings, n_points=4 * settings.n_points)
            print_bound(small, machine, many)
            print_bound(small, machine, replace(many, iterations=200))
            print_finer_steps(patient, machine, made, settings.sub_angles)


def print_bound(patient: Patient, machine: Machine, settings: OptimiserSettings) -> None:
    """Print a plan's penalty beside that of free fluence on the same points."""
    wanted = replace(settings, bound_iterations=150)
    made = optimise_plan(patient, machine, PlanStyle(), wanted, np.random.default_rng(1))
    bound = made.free_fluence_objective or np.nan
    print(f"  {settings.n_points} points asked for, {settings.iterations} steps: penalty over bound "
          f"{made.objective:.1f} / {bound:.1f} = {made.objective / bound:.1f}")  # fmt: skip


def print_finer_steps(patient: Patient, machine: Machine, made: PlannedPatient, sub_angles: int) -> None:
    """Print how a plan's dose agrees with itself at four times finer steps of the gantry."""
    grid = made.dose_grid.resampled((4.0, 4.0, 4.0))
    times, doses = [], []
    for parts in (sub_angles, 4 * sub_angles):
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
        print("against pyRadPlan: not measured (no --peer file; see benchmarks/peers/field_pyradplan.py)")
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
    machine = flat_beam(machine)
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


def flat_beam(machine: Machine) -> Machine:
    """Return the machine with the same fluence everywhere."""
    flat = {"fluence_relative": [1.0] * len(machine.beam.fluence_relative)}
    return machine.model_copy(update={"beam": machine.beam.model_copy(update=flat)})


def segments_against_pyradplan(machine: Machine, path: Path | None) -> None:
    """Print how ten segments from ten sides compare with the peer's: time, and how far the doses lie apart."""
    if path is None:
        print("ten segments against pyRadPlan: not measured (no --peer-segments file)")
        return
    peer, machine = np.load(path), flat_beam(machine)
    theirs, ct = peer["dose"].astype(np.float64), peer["ct_hu"]
    z, y, x = (float(start) for start in peer["origin_mm"])
    grid = Grid(ct.shape, (float(peer["spacing_mm"]),) * 3, (z, y, x))
    leaf = np.empty((2, 2, machine.leaves.n_pairs))
    leaf[:, 0], leaf[:, 1] = -200.0, 200.0
    fields = []
    for k, angle in enumerate(peer["angles_deg"]):
        field = Arc(
            f"S{k}", np.full(2, angle), None, 0.0, 0.0, leaf, (0, 0), (0, 0), np.array([0.0, 100.0]), (0.0, 0.0, 0.0)
        )
        seen = beam_frame(field, float(angle), machine.source_axis_mm).project(peer["rays_xyz"][peer["of_beam"] == k])
        low, high = seen.min(axis=0) - peer["bixel_mm"] / 2, seen.max(axis=0) + peer["bixel_mm"] / 2
        across, along = ((float(low[j]), float(high[j])) for j in (0, 1))
        fields.append(replace(field, jaw_x_mm=across, jaw_y_mm=along))
    plan = Plan("segments", machine.name, machine.beam.energy_mv, tuple(fields), 1)
    compute_dose(plan, ct, grid, machine, grid.resampled((20.0, 20.0, 20.0)), 1)
    start = time.process_time()
    ours = compute_dose(plan, ct, grid, machine, grid, 1).astype(np.float64)
    spent = time.process_time() - start
    # Per bixel and per monitor unit: one factor, over what both give more than a fifth of their maximum.
    high_dose = (theirs > 0.2 * theirs.max()) & (ours > 0.2 * ours.max())
    ours *= float((ours * theirs)[high_dose].sum() / (ours**2)[high_dose].sum())
    made, applied = float(peer["cpu_s"]), float(peer["apply_s"])
    print(f"ten segments against pyRadPlan: {(made + applied) / spent:.0f} times faster ({spent:.2f} CPU s; theirs "
          f"{made:.1f} for the matrix and {applied:.2f} to apply it)")  # fmt: skip
    error = 100 * np.abs(ours - theirs)[high_dose] / theirs.max()
    print(
        f"  above a fifth of the maximum: mean {error.mean():.2f} %, 99th percentile {np.percentile(error, 99):.2f} %"
    )
    for percent in (2, 1):
        criteria = GammaCriteria(percent, percent, 10, local=False, interp_fraction=10, max_gamma=2.0)
        gamma = gamma_map(DosePair.on_one_grid(theirs, ours, grid.spacing_mm), criteria)
        print(f"  gamma {percent} %/{percent} mm: {100 * float(np.mean(gamma[np.isfinite(gamma)] <= 1)):.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--patients", type=int, default=1)
    parser.add_argument("--segments", type=int, default=60)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--peer-segments", type=Path)
    parser.add_argument("--peer-only", action="store_true")
    chosen = parser.parse_args()
    generic = load_machine()
    if not chosen.peer_only:
        work = OptimiserSettings(chosen.segments, chosen.iterations, (3.0, 3.0, 3.0), 2)
        plan_patients(generic, range(1, chosen.patients + 1), work)
    against_pyradplan(generic, chosen.peer)
    segments_against_pyradplan(generic, chosen.peer_segments)
