"""Compute an open field or ten segments in water with pyRadPlan, for benchmarks/engine.py to compare with.

    python benchmarks/pyradplan_field.py FIELD.npz                # an open field of 115 mm on a flat surface
    python benchmarks/pyradplan_field.py SEGMENTS.npz --segments  # ten apertures from ten sides on a cylinder

Run it in an environment of pyRadPlan's own (pyRadPlan==0.5.0, pydantic<2.13); where that can't be imported it says "not
measured". Its generic machine and ours come from the same kind of linac, and both engines are of one class: the
comparison checks geometry, attenuation and time, not the physics of the model.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

SHAPE_ZYX, SPACING_MM, ORIGIN_ZYX_MM = (60, 110, 60), 3.0, (-88.5, -103.5, -88.5)
TARGET_MM, BIXEL_MM = 100.0, 5.0
# The cylinder of the ten segments, and the square that their apertures are cut from.
ROUND_SHAPE_ZYX, ROUND_ORIGIN_ZYX_MM, RADIUS_MM, SQUARE_MM = (50, 70, 70), (-73.5, -103.5, -103.5), 90.0, 40.0
ANGLES_DEG = tuple(36.0 * k for k in range(10))


def water() -> np.ndarray:
    """Return CT numbers of water behind two layers of air, (z, y, x)."""
    ct_hu = np.zeros(SHAPE_ZYX, dtype=np.int16)
    ct_hu[:, :2] = -1000
    return ct_hu


def cylinder() -> np.ndarray:
    """Return CT numbers of a cylinder of water along z in air, (z, y, x)."""
    _, y, x = positions_mm(ROUND_SHAPE_ZYX, ROUND_ORIGIN_ZYX_MM)
    return np.where(x**2 + y**2 < RADIUS_MM**2, 0, -1000).astype(np.int16)


def positions_mm(shape: tuple[int, ...], origin_mm: tuple[float, ...]) -> list[np.ndarray]:
    """Return z, y and x of each voxel."""
    axes = [start + SPACING_MM * np.arange(n) for start, n in zip(origin_mm, shape, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def influence(ct_hu: np.ndarray, origin_mm: tuple[float, ...], target: np.ndarray, angles: tuple[float, ...]) -> Any:
    """Return pyRadPlan's influence matrix, its beams, and the CPU seconds that the matrix took."""
    import SimpleITK as sitk
    from pyRadPlan import PhotonPlan, calc_dose_influence, generate_stf, validate_cst, validate_ct
    from pyRadPlan.cst import create_voi

    image = sitk.GetImageFromArray(ct_hu.astype(np.float32))
    image.SetSpacing((SPACING_MM,) * 3)
    image.SetOrigin(origin_mm[::-1])
    ct = validate_ct(cube_hu=image)
    regions = []
    for kind, name, mask in (("TARGET", "PTV", target), ("EXTERNAL", "BODY", ct_hu > -500)):
        drawn = sitk.GetImageFromArray(mask.astype(np.uint8))
        drawn.CopyInformation(image)
        regions.append(create_voi(voi_type=kind, name=name, ct_image=ct, mask=drawn))
    cst = validate_cst(regions, ct=ct)
    plan = PhotonPlan(machine="Generic")
    plan.prop_stf = {
        "gantry_angles": list(angles), "couch_angles": [0.0] * len(angles), "bixel_width": BIXEL_MM,
        "iso_center": [0.0, 0.0, 0.0],
    }  # fmt: skip
    plan.prop_dose_calc = {"dose_grid": {"resolution": dict.fromkeys("xyz", SPACING_MM)}}
    stf = generate_stf(ct, cst, plan)
    start = time.process_time()
    dij = calc_dose_influence(ct, cst, stf, plan)
    return dij, stf, time.process_time() - start


def dose_of(dij: Any, weights: np.ndarray) -> np.ndarray:
    """Return the dose of bixel weights, (z, y, x)."""
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(dij.compute_result_ct_grid(weights)["physical_dose"])


def open_field() -> dict[str, Any]:
    """Return dose, CPU seconds and the side of the field that unit weights of all bixels make."""
    ct_hu = water()
    z, y, x = positions_mm(SHAPE_ZYX, ORIGIN_ZYX_MM)
    reach = (TARGET_MM - BIXEL_MM) / 2
    target = (np.abs(x) <= reach) & (np.abs(z) <= reach) & (np.abs(y) <= SPACING_MM)
    dij, stf, spent = influence(ct_hu, ORIGIN_ZYX_MM, target, (0.0,))
    rays = np.array([ray.ray_pos_bev for beam in stf.beams for ray in beam.rays])
    dose = dose_of(dij, np.ones(dij.total_num_of_bixels))
    side = float(np.ptp(rays[:, 0])) + BIXEL_MM
    return {"dose": dose, "cpu_s": spent, "side_mm": side, "ct_hu": ct_hu, "origin_mm": ORIGIN_ZYX_MM}


def ten_segments() -> dict[str, Any]:
    """Return dose, CPU seconds and, for each beam, its angle and the rays of an aperture of its own, (n, 3) in LPS."""
    ct_hu = cylinder()
    z, y, x = positions_mm(ROUND_SHAPE_ZYX, ROUND_ORIGIN_ZYX_MM)
    # A ball looks the same from every side; apertures are rectangles off its middle.
    target = x**2 + y**2 + z**2 <= (SQUARE_MM / 2) ** 2
    dij, stf, spent = influence(ct_hu, ROUND_ORIGIN_ZYX_MM, target, ANGLES_DEG)
    weights, rays, of_beam = [], [], []
    for k, beam in enumerate(stf.beams):
        seen = np.array([ray.ray_pos_bev for ray in beam.rays])
        # From one side to past the middle, a step more for each beam: within the ball's square everywhere.
        on = (
            (seen[:, 0] > -12.0 + (k % 4) * BIXEL_MM) & (seen[:, 0] < 13.0) & (np.abs(seen[:, 2]) < 7.6 + (k % 2) * 5.0)
        )
        weights.append(on.astype(np.float64))
        rays.append(np.array([ray.ray_pos for ray in beam.rays])[on])
        of_beam.append(np.full(int(on.sum()), k))
    start = time.process_time()
    dose = dose_of(dij, np.concatenate(weights))
    return {
        "dose": dose, "cpu_s": spent, "apply_s": time.process_time() - start, "ct_hu": ct_hu,
        "origin_mm": ROUND_ORIGIN_ZYX_MM, "angles_deg": np.array(ANGLES_DEG), "rays_xyz": np.concatenate(rays),
        "of_beam": np.concatenate(of_beam), "bixel_mm": BIXEL_MM,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--segments", action="store_true", help="ten segments instead of the open field")
    chosen = parser.parse_args()
    try:
        made = ten_segments() if chosen.segments else open_field()
    except ImportError as error:
        sys.exit(f"not measured: {error}")
    np.savez(chosen.out, spacing_mm=SPACING_MM, **made)
    print(f"{made['cpu_s']:.1f} CPU s, written to {chosen.out}")
