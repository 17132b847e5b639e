"""Open field and ten segments in water by pyRadPlan, for benchmarks/engine.py --peer.

    python benchmarks/peers/field_pyradplan.py FIELD.npz                # 115 mm, a flat surface
    python benchmarks/peers/field_pyradplan.py SEGMENTS.npz --segments  # ten sides of a cylinder

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
from pyradplan_scene import SPACING_MM, dose_of, influence, positions_mm

SHAPE_ZYX, ORIGIN_ZYX_MM = (60, 110, 60), (-88.5, -103.5, -88.5)
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


def open_field() -> dict[str, Any]:
    """Return dose, CPU seconds and the side of the field that unit weights of all bixels make."""
    ct_hu = water()
    z, y, x = positions_mm(SHAPE_ZYX, ORIGIN_ZYX_MM)
    reach = (TARGET_MM - BIXEL_MM) / 2
    target = (np.abs(x) <= reach) & (np.abs(z) <= reach) & (np.abs(y) <= SPACING_MM)
    dij, stf, spent = influence((ct_hu, ORIGIN_ZYX_MM), (target, ct_hu > -500), (0.0,), BIXEL_MM)
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
    scene, regions = (ct_hu, ROUND_ORIGIN_ZYX_MM), (target, ct_hu > -500)
    dij, stf, spent = influence(scene, regions, ANGLES_DEG, BIXEL_MM)
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
