"""Fluence of nine beams on the TG-119 phantom by pyRadPlan, for benchmarks/fluence.py --peer.

    python benchmarks/peers/fluence_pyradplan.py THEIRS.npz
    python benchmarks/peers/fluence_pyradplan.py THEIRS.npz --judge OURS.npz  # ours by its matrix; writes nothing

Run it in an environment of pyRadPlan's own (pyRadPlan==0.5.0, pydantic<2.13); where that can't be imported it says
"not measured". Phantom, structures and objectives are those that pyRadPlan ships; bixels of 5 mm and dose voxels of
5 mm are its defaults. Its solver is SciPy's L-BFGS-B, which it falls back to where IPOPT is not installed.
"""

from __future__ import annotations

import os

# One thread, before BLAS reads it.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import sys
import time
from typing import Any

import numpy as np

# Nine beams, 40° apart, as the report has them: G. A. Ezzell et al., Med Phys 36:5359, 2009.
N_BEAMS, BIXEL_MM = 9, 5.0
# What our objectives call those of the phantom.
KINDS = {"Squared Deviation": "uniform", "Squared Overdosing": "max_dose"}


def optimise(parts: tuple[Any, ...], steps: int) -> dict[str, Any]:
    """Return the optimised fluence, its dose, and how the penalty fell: (step, (CPU seconds, penalty))."""
    from pyRadPlan import fluence_optimization
    from pyRadPlan.core import observe_reports

    ct, cst, stf, dij, plan = parts
    history = []

    def note(report: Any) -> None:
        value = getattr(report, "data", {}).get("objective")
        if value is not None:
            history.append((time.process_time() - start, value))

    plan.prop_opt = {"solver": {"name": "scipy", "display": False, "max_iter": steps}}
    start = time.process_time()
    with observe_reports(note):
        weights = fluence_optimization(ct, cst, stf, dij, plan)
    print(f"optimised: {history[-1][0]:.1f} CPU s, {len(history)} steps, penalty {history[-1][1]:.2f}")
    return {"weights": weights, "dose": dose_of(dij, weights), "history": history}


def dose_of(dij: Any, weights: np.ndarray) -> np.ndarray:
    """Return the dose of bixel weights in Gy, (z, y, x) on the dose grid."""
    return dij.get_result_arrays_from_intensity(weights)["physical_dose"].reshape(dij.dose_grid.dimensions[::-1])


def scene(ct: Any, cst: Any, stf: Any, dij: Any) -> dict[str, Any]:
    """Return the phantom, objectives on disjoint masks, and beams; grids are (origin, spacing) in mm, (z, y, x)."""
    import SimpleITK as sitk

    # As the optimiser itself prepares them.
    vois = cst.apply_overlap_priorities().resample_on_new_ct(ct.resample_to_grid(dij.dose_grid)).vois
    asked = [(voi, objective) for voi in vois for objective in voi.objectives]
    grids = {
        f"{name}_grid": [grid.origin[::-1], [grid.resolution[axis] for axis in "zyx"]]
        for name, grid in (("ct", ct.grid), ("dose", dij.dose_grid))
    }
    return {
        "ct_hu": sitk.GetArrayFromImage(ct.cube_hu).astype(np.int16),
        "masks": np.stack([sitk.GetArrayFromImage(voi.mask).astype(np.bool_) for voi, _ in asked]),
        "structures": [voi.name for voi, _ in asked],
        "kinds": [KINDS[objective.name] for _, objective in asked],
        "doses_gy": [objective.parameters[0] for _, objective in asked],
        "penalties": [objective.priority for _, objective in asked],
        "angles_deg": [beam.gantry_angle for beam in stf.beams],
        "isocentre_xyz": np.ravel(stf.beams[0].iso_center),
        # X and Y of each bixel's middle in the isocentre plane, as the beam sees it.
        "bixels_mm": np.array([ray.ray_pos_bev[[0, 2]] for beam in stf.beams for ray in beam.rays]),
        "of_beam": np.repeat(np.arange(len(stf.beams)), [len(beam.rays) for beam in stf.beams]),
        **grids,
    }


def penalty(dose: np.ndarray, made: dict[str, Any]) -> float:
    """Return the penalty of a dose in Gy, (z, y, x): the formula that both sides are judged by."""
    total = 0.0
    asked = zip(made["masks"], made["kinds"], made["doses_gy"], made["penalties"], strict=True)
    for mask, kind, wanted, weight in asked:
        off = dose[mask] - wanted
        total += weight * np.mean((off if kind == "uniform" else np.maximum(off, 0.0)) ** 2)
    return float(total)


def judge(path: str, dij: Any, made: dict[str, Any]) -> None:
    """Print the penalty of our fluence by their matrix, with the target's mean dose that it has in our engine."""
    ours = np.load(path)
    target = made["masks"][made["kinds"].index("uniform")]
    dose = dose_of(dij, ours["weights"])
    dose *= ours["dose"][target].mean() / dose[target].mean()
    print(f"our fluence by their matrix: penalty {penalty(dose, made):.0f}")


def main(chosen: argparse.Namespace) -> None:
    """Make the influence matrix; optimise with it, or judge our fluence by it."""
    from pyRadPlan import PhotonPlan, calc_dose_influence, generate_stf, load_tg119

    ct, cst = load_tg119()
    plan = PhotonPlan(machine="Generic")
    plan.prop_stf = {
        "gantry_angles": [360.0 / N_BEAMS * k for k in range(N_BEAMS)], "couch_angles": [0.0] * N_BEAMS,
        "bixel_width": BIXEL_MM,
    }  # fmt: skip
    stf = generate_stf(ct, cst, plan)
    start = time.process_time()
    dij = calc_dose_influence(ct, cst, stf, plan)
    spent = time.process_time() - start
    entries = dij.physical_dose.flat[0].nnz / 1e6
    print(f"matrix: {spent:.1f} CPU s, {dij.total_num_of_bixels} bixels, {entries:.0f} million entries")
    made = scene(ct, cst, stf, dij)
    if chosen.judge is not None:
        return judge(chosen.judge, dij, made)
    made |= optimise((ct, cst, stf, dij, plan), chosen.steps)
    np.savez_compressed(chosen.out, matrix_s=spent, **made)
    print(f"written to {chosen.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=500, help="of its solver; its own limit unless given")
    parser.add_argument("--judge", metavar="OURS", help="apply our fluence instead, as benchmarks/fluence.py writes it")
    try:
        main(parser.parse_args())
    except ImportError as error:
        sys.exit(f"not measured: {error}")
