"""Compute one open field in water with pyRadPlan, for benchmarks/engine.py to compare with.

    python benchmarks/pyradplan_field.py OUT.npz

Run it in an environment of pyRadPlan's own (pyRadPlan==0.5.0, pydantic<2.13); where that can't be imported it says "not
measured". Its generic machine and ours come from the same kind of linac, and both engines are of one class: the
comparison checks geometry, attenuation and time, not the physics of the model.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

SHAPE_ZYX, SPACING_MM, ORIGIN_ZYX_MM = (60, 110, 60), 3.0, (-88.5, -103.5, -88.5)
TARGET_MM, BIXEL_MM = 100.0, 5.0


def water() -> np.ndarray:
    """Return CT numbers of water behind two layers of air, (z, y, x)."""
    ct_hu = np.zeros(SHAPE_ZYX, dtype=np.int16)
    ct_hu[:, :2] = -1000
    return ct_hu


def open_field() -> dict[str, Any]:
    """Return dose, CPU seconds and the side of the field that unit weights of all bixels make."""
    import SimpleITK as sitk
    from pyRadPlan import PhotonPlan, calc_dose_influence, generate_stf, validate_cst, validate_ct
    from pyRadPlan.cst import create_voi

    ct_hu = water()
    image = sitk.GetImageFromArray(ct_hu.astype(np.float32))
    image.SetSpacing((SPACING_MM,) * 3)
    image.SetOrigin(ORIGIN_ZYX_MM[::-1])
    ct = validate_ct(cube_hu=image)
    axes = [start + SPACING_MM * np.arange(n) for start, n in zip(ORIGIN_ZYX_MM, SHAPE_ZYX, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    reach = (TARGET_MM - BIXEL_MM) / 2
    masks = {
        ("TARGET", "PTV"): (np.abs(x) <= reach) & (np.abs(z) <= reach) & (np.abs(y) <= SPACING_MM),
        ("EXTERNAL", "BODY"): ct_hu > -500,
    }
    regions = []
    for (kind, name), mask in masks.items():
        drawn = sitk.GetImageFromArray(mask.astype(np.uint8))
        drawn.CopyInformation(image)
        regions.append(create_voi(voi_type=kind, name=name, ct_image=ct, mask=drawn))
    cst = validate_cst(regions, ct=ct)
    plan = PhotonPlan(machine="Generic")
    plan.prop_stf = {
        "gantry_angles": [0.0], "couch_angles": [0.0], "bixel_width": BIXEL_MM, "iso_center": [0.0, 0.0, 0.0],
    }  # fmt: skip
    plan.prop_dose_calc = {"dose_grid": {"resolution": dict.fromkeys("xyz", SPACING_MM)}}
    stf = generate_stf(ct, cst, plan)
    start = time.process_time()
    dij = calc_dose_influence(ct, cst, stf, plan)
    spent = time.process_time() - start
    result = dij.compute_result_ct_grid(np.ones(dij.total_num_of_bixels))
    rays = np.array([ray.ray_pos_bev for beam in stf.beams for ray in beam.rays])
    dose = sitk.GetArrayFromImage(result["physical_dose"])
    return {"dose": dose, "cpu_s": spent, "side_mm": float(np.ptp(rays[:, 0])) + BIXEL_MM, "ct_hu": ct_hu}


if __name__ == "__main__":
    try:
        field = open_field()
    except ImportError as error:
        sys.exit(f"not measured: {error}")
    np.savez(sys.argv[1], spacing_mm=SPACING_MM, origin_mm=ORIGIN_ZYX_MM, **field)
    print(f"{field['cpu_s']:.1f} CPU s for a field of {field['side_mm']:g} mm, written to {sys.argv[1]}")
