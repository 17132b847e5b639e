"""How far two planners' plans of one synthetic patient lie apart: what a model that sees anatomy alone can't better.

    python benchmarks/planners.py --patients 4

Each patient is planned by as many planners as asked for, with habits drawn as the synthetic cohort draws them. Told is
the mean absolute difference between two plans, and between a plan and the mean of the others, in the body and where
the plan gives more than a tenth of the prescription. The second is what is left of the best guess.
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np
from engine import phantom_patient
from numpy.typing import NDArray

from doseledger.phantom.cohort import draw_style
from doseledger.planning.machine.linac import load_machine
from doseledger.planning.optimise.arcs import optimise_plan
from doseledger.planning.optimise.patient import OptimiserSettings

PRESCRIPTION_GY = 70.0


def plans_gy(number: int, n_planners: int, settings: OptimiserSettings) -> NDArray[np.float32]:
    """Return the doses (planner, voxel) of one patient's plans where any of them gives one."""
    patient, machine = phantom_patient(number), load_machine()
    doses = []
    for planner in range(n_planners):
        rng = np.random.default_rng([number, planner])
        doses.append(optimise_plan(patient, machine, draw_style(rng), settings, rng).dose_gy)
    return np.stack(doses)[:, np.any(doses, axis=0)]


def difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    """Return the mean absolute difference of two doses, everywhere and where the first gives more than a tenth."""
    apart = np.abs(a - b)
    return float(apart.mean()), float(apart[a > 0.1 * PRESCRIPTION_GY].mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=4)
    parser.add_argument("--planners", type=int, default=3)
    parser.add_argument("--segments", type=int, default=60)
    parser.add_argument("--iterations", type=int, default=200)
    options = parser.parse_args()
    settings = OptimiserSettings(options.segments, options.iterations, (3.0, 3.0, 3.0), 2)
    print("| patient | two plans: body / dose > 10 % | a plan and the others' mean |\n|---|---|---|")
    for number in range(1, options.patients + 1):
        doses = plans_gy(number, options.planners, settings)
        pairs = np.mean([difference(a, b) for a, b in combinations(doses, 2)], axis=0)
        others = [np.delete(doses, index, axis=0).mean(axis=0) for index in range(len(doses))]
        left = np.mean([difference(dose, mean) for dose, mean in zip(doses, others, strict=True)], axis=0)
        print(f"| {number} | {pairs[0]:.2f} / {pairs[1]:.2f} | {left[0]:.2f} / {left[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
