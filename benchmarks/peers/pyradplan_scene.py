"""A scene of voxels in pyRadPlan: its influence matrix, beams and dose."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

SPACING_MM = 3.0


def positions_mm(shape_zyx: tuple[int, ...], origin_zyx_mm: tuple[float, ...]) -> list[np.ndarray]:
    """Return z, y and x of each voxel in mm."""
    starts = zip(origin_zyx_mm, shape_zyx, strict=True)
    return np.meshgrid(*(start + SPACING_MM * np.arange(n) for start, n in starts), indexing="ij")


def influence(
    scene: tuple[np.ndarray, tuple[float, ...]],
    regions: tuple[np.ndarray, np.ndarray],
    angles_deg: tuple[float, ...],
    bixel_mm: float,
    dose_settings: Mapping[str, Any] | None = None,
) -> tuple[Any, Any, float]:
    """Return pyRadPlan's influence matrix, its beams, and the CPU seconds that the matrix took.

    Parameters
    ----------
    scene
        CT numbers, (z, y, x), and the place of the first voxel in mm, (z, y, x).
    regions
        Masks of the target and of the voxels that get a dose, (z, y, x).
    dose_settings
        Further settings of its dose calculation.
    """
    import SimpleITK as sitk
    from pyRadPlan import PhotonPlan, calc_dose_influence, generate_stf, validate_cst, validate_ct
    from pyRadPlan.cst import create_voi

    ct_hu, origin_zyx_mm = scene
    image = sitk.GetImageFromArray(ct_hu.astype(np.float32))
    image.SetSpacing((SPACING_MM,) * 3)
    image.SetOrigin(origin_zyx_mm[::-1])
    ct = validate_ct(cube_hu=image)
    vois = []
    for kind, name, mask in zip(("TARGET", "EXTERNAL"), ("PTV", "BODY"), regions, strict=True):
        drawn = sitk.GetImageFromArray(mask.astype(np.uint8))
        drawn.CopyInformation(image)
        vois.append(create_voi(voi_type=kind, name=name, ct_image=ct, mask=drawn))
    cst = validate_cst(vois, ct=ct)
    plan = PhotonPlan(machine="Generic")
    plan.prop_stf = {
        "gantry_angles": list(angles_deg), "couch_angles": [0.0] * len(angles_deg),
        "bixel_width": bixel_mm, "iso_center": [0.0, 0.0, 0.0],
    }  # fmt: skip
    grid = {"resolution": dict.fromkeys("xyz", SPACING_MM)}
    plan.prop_dose_calc = {"dose_grid": grid} | dict(dose_settings or {})
    stf = generate_stf(ct, cst, plan)
    start = time.process_time()
    dij = calc_dose_influence(ct, cst, stf, plan)
    return dij, stf, time.process_time() - start


def dose_of(dij: Any, weights: np.ndarray) -> np.ndarray:
    """Return the dose of bixel weights, (z, y, x)."""
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(dij.compute_result_ct_grid(weights)["physical_dose"])
