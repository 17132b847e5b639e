"""Dose in slabs of lung by pyRadPlan, for benchmarks/slabs.py --peer.

    python benchmarks/peers/slabs_pyradplan.py PEER.csv     # environment of its own: pyRadPlan==0.5.0 "pydantic<2.13"

Its generic photon machine; fields are squares of bixels with equal weights. CT numbers are those that its own table
turns into the slabs' densities. Only voxels beside the axis are computed, with kernels as wide as they are tabulated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

# Side of the field in mm, and bixels along it: an odd number, as one lies on the axis.
BIXELS = {20: 5, 40: 9, 60: 13, 100: 21, 200: 41}
# Relative electron density of layers, by thickness in mm, as benchmarks/slabs.py has them.
SLABS = {
    "water": [(300, 1.0)],
    **{f"lung_{r:.2f}": [(50, 1.0), (100, 0.99 * r), (150, 1.0)] for r in (0.15, 0.25, 0.4)},
    "thick_0.25": [(30, 1.0), (200, 0.99 * 0.25), (70, 1.0)],
}
SPACING_MM, SHAPE, AIR = 3.0, (85, 110, 85), 8
# The surface is 100 mm before the isocentre; depth of each plane below it.
DEPTH_MM = SPACING_MM * (np.arange(SHAPE[1]) - AIR + 0.5)
ORIGIN_MM = (-126.0, DEPTH_MM[0] - 100.0, -126.0)


def dose_on_axis(side_mm: int, layers: list[tuple[float, float]]) -> np.ndarray:
    """Return the dose on the axis of a square field, surface 900 mm from the source."""
    import SimpleITK as sitk
    from pyRadPlan import PhotonPlan, calc_dose_influence, generate_stf, validate_cst, validate_ct
    from pyRadPlan.ct import default_hlut
    from pyRadPlan.cst import create_voi

    table, density, top = default_hlut(), np.full(SHAPE, 0.001), 0.0
    for thickness, value in layers:
        density[:, (top < DEPTH_MM) & (top + thickness > DEPTH_MM)] = value
        top += thickness
    ct_hu = np.interp(density, table[1:, 1], table[1:, 0])
    image = sitk.GetImageFromArray(ct_hu.astype(np.float32))
    image.SetSpacing((SPACING_MM,) * 3)
    image.SetOrigin(ORIGIN_MM)
    ct = validate_ct(cube_hu=image)
    z, y, x = np.meshgrid(*(o + SPACING_MM * np.arange(n) for o, n in zip(ORIGIN_MM, SHAPE, strict=True)), indexing="ij")
    width = side_mm / BIXELS[side_mm]
    reach = (side_mm - width) / 2
    target = (np.abs(x) <= max(reach, SPACING_MM)) & (np.abs(z) <= max(reach, SPACING_MM)) & (np.abs(y) <= SPACING_MM)
    beside = (np.abs(x) < 4) & (np.abs(z) < 4) & (DEPTH_MM > 0)[None, :, None]
    regions = []
    for kind, name, mask in (("TARGET", "PTV", target), ("EXTERNAL", "BODY", beside | target)):
        drawn = sitk.GetImageFromArray(mask.astype(np.uint8))
        drawn.CopyInformation(image)
        regions.append(create_voi(voi_type=kind, name=name, ct_image=ct, mask=drawn))
    cst = validate_cst(regions, ct=ct)
    plan = PhotonPlan(machine="Generic")
    plan.prop_stf = {
        "gantry_angles": [0.0],
        "couch_angles": [0.0],
        "bixel_width": width,
        "iso_center": [0.0, 0.0, 0.0],
    }
    plan.prop_dose_calc = {
        "dose_grid": {"resolution": dict.fromkeys("xyz", SPACING_MM)},
        "ignore_outside_densities": False,
        "enable_dij_sampling": False,
        "geometric_lateral_cutoff": 160.0,
        "kernel_cutoff": 180.0,
    }
    stf = generate_stf(ct, cst, plan)
    influence = calc_dose_influence(ct, cst, stf, plan)
    rays = np.array([ray.ray_pos_bev for beam in stf.beams for ray in beam.rays])
    used = (np.abs(rays[:, 0]) < side_mm / 2) & (np.abs(rays[:, 2]) < side_mm / 2)
    if used.sum() != BIXELS[side_mm] ** 2:
        raise SystemExit(f"{side_mm} mm: {used.sum()} bixels, wanted {BIXELS[side_mm] ** 2}")
    dose = sitk.GetArrayFromImage(influence.compute_result_ct_grid(used.astype(np.float64))["physical_dose"])
    return dose[SHAPE[0] // 2, :, SHAPE[2] // 2]


def write_ratios(out: Path) -> None:
    """Write slab, side, depth and dose over that in water."""
    lines, deep = ["slab,side_mm,depth_mm,ratio"], DEPTH_MM > 20
    for side in BIXELS:
        dose = {name: dose_on_axis(side, layers)[deep] for name, layers in SLABS.items()}
        for name in [name for name in SLABS if name != "water"]:
            ratio = dose[name] / dose["water"]
            lines += [f"{name},{side},{d:.1f},{r:.4f}" for d, r in zip(DEPTH_MM[deep], ratio, strict=True) if d < 299]
        falls = np.interp([200, 100], DEPTH_MM[deep], dose["water"])
        print(f"{side} mm: dose in water at 200 mm over that at 100 mm {falls[0] / falls[1]:.3f}")
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    write_ratios(parser.parse_args().out)
