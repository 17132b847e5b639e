"""Dose in slabs of lung by pyRadPlan, for benchmarks/slabs.py --peer.

    python benchmarks/peers/slabs_pyradplan.py pyradplan.csv

Run it in an environment of its own (pyRadPlan==0.5.0, "pydantic<2.13"). Its generic photon machine; fields are
squares of bixels with equal weights. CT numbers are those that its own table turns into the slabs' densities. Only
voxels beside the axis are computed, with kernels as wide as they are tabulated.
"""

from __future__ import annotations

import numpy as np
from layers import SLABS, fill, write_ratios
from pyradplan_scene import SPACING_MM, dose_of, influence, positions_mm

# Bixels along a field's side: an odd number, as one lies on the axis.
BIXELS = {20: 5, 40: 9, 60: 13, 100: 21, 200: 41}
SHAPE, AIR = (85, 110, 85), 8
# The surface is 100 mm before the isocentre; depth of each plane below it.
DEPTH_MM = SPACING_MM * (np.arange(SHAPE[1]) - AIR + 0.5)
ORIGIN_ZYX_MM = (-126.0, DEPTH_MM[0] - 100.0, -126.0)
AIR_DENSITY = 0.001
# Kernels as wide as they are tabulated.
WIDE = {
    "ignore_outside_densities": False, "enable_dij_sampling": False,
    "geometric_lateral_cutoff": 160.0, "kernel_cutoff": 180.0,
}  # fmt: skip


def doses_on_axis(side_mm: int) -> dict[str, np.ndarray]:
    """Return the dose on the axis of a square field in each slab."""
    return {slab: dose_on_axis(side_mm, slab) for slab in SLABS}


def dose_on_axis(side_mm: int, slab: str) -> np.ndarray:
    """Return the dose on the axis of a square field in one slab."""
    from pyRadPlan.ct import default_hlut

    table, density = default_hlut(), np.full(SHAPE, AIR_DENSITY)
    fill(density, DEPTH_MM, slab)
    ct_hu = np.interp(density, table[1:, 1], table[1:, 0])
    z, y, x = positions_mm(SHAPE, ORIGIN_ZYX_MM)
    width = side_mm / BIXELS[side_mm]
    reach = max((side_mm - width) / 2, SPACING_MM)
    target = (np.abs(x) <= reach) & (np.abs(z) <= reach) & (np.abs(y) <= SPACING_MM)
    beside = (np.abs(x) < 4) & (np.abs(z) < 4) & (DEPTH_MM > 0)[None, :, None]
    scene, regions = (ct_hu, ORIGIN_ZYX_MM), (target, beside | target)
    dij, stf, _ = influence(scene, regions, (0.0,), width, WIDE)
    rays = np.array([ray.ray_pos_bev for beam in stf.beams for ray in beam.rays])
    used = (np.abs(rays[:, 0]) < side_mm / 2) & (np.abs(rays[:, 2]) < side_mm / 2)
    if used.sum() != BIXELS[side_mm] ** 2:
        raise SystemExit(f"{side_mm} mm: {used.sum()} bixels, wanted {BIXELS[side_mm] ** 2}")
    return dose_of(dij, used.astype(np.float64))[SHAPE[0] // 2, :, SHAPE[2] // 2]


if __name__ == "__main__":
    write_ratios(doses_on_axis, DEPTH_MM, __doc__.split("\n")[0])
