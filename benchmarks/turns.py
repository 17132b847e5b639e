"""What turning a dose costs by interpolation alone, by voxel size: whether turns pay in training.

    python benchmarks/turns.py DATA [--patients 8]

DATA is the compact form of OpenKBP; its training patients are taken in order, at the challenge's voxels and at those of
`openkbp_cases.py`. A dose is turned by multiples of the angle between the protocol's beams and turned back; a row is
the mean absolute difference where a dose is possible, in Gy: mean over patients (least to most).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from openkbp_cases import LOW_FACTORS_ZYX, PROTOCOL, read_case

from doseledger.core.case import Case
from doseledger.core.project.protocol import load_protocol
from doseledger.learn.data.turns import turn_step, turn_volume


def lost_gy(case: Case, step_deg: float) -> float:
    """Return the mean absolute difference of a dose and the same turned there and back, over all angles."""
    spacing_yx, shape_yx = case.grid.spacing_mm[1:], case.grid.shape_zyx[1:]
    wide = max(shape_yx) * 2
    errors, volumes = [], np.stack([case.dose_gy, case.valid_dose.astype(np.float32)])
    for times in range(1, round(360.0 / step_deg)):
        there = turn_volume(volumes, times * step_deg, spacing_yx, (wide, wide))
        back = turn_volume(there, -times * step_deg, spacing_yx, shape_yx)
        # As in training, the dose's edge where none is possible is no part of it.
        dose_gy = back[0] / np.maximum(back[1], 0.5)
        errors.append(float(np.abs(dose_gy - case.dose_gy)[case.valid_dose].mean()))
    return float(np.mean(errors))


def main() -> None:
    """Print a row for each size of voxels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--patients", type=int, default=8)
    args = parser.parse_args()
    protocol = load_protocol(PROTOCOL)
    if protocol.beams is None:
        raise SystemExit(f"{PROTOCOL} has no beams")
    step_deg = turn_step(protocol.beams.gantry_deg)
    files = sorted((args.data / "train").glob("pt_*.npz"), key=lambda file: int(file.stem[3:]))[: args.patients]
    for factors in ((1, 1, 1), LOW_FACTORS_ZYX):
        cases = [read_case(file, protocol, factors) for file in files]
        lost, mm = [lost_gy(case, step_deg) for case in cases], np.mean([case.grid.spacing_mm[1] for case in cases])
        print(f"{mm:.1f} mm: {np.mean(lost):.2f} Gy ({min(lost):.2f} to {max(lost):.2f})", flush=True)


if __name__ == "__main__":
    main()
