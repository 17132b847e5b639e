"""Dose in slabs of lung by PyDoseRT, for benchmarks/slabs.py --peer.

    python benchmarks/peers/slabs_pydosert.py PEER.csv            # in an environment of its own: pydosert==1.5.0

Its `PencilDepthEngine` with the beam quality of 6 MV; densities are given to it as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

SIDES_MM = (20, 40, 60, 100, 200)
# Relative electron density of layers, by thickness in mm, as benchmarks/slabs.py has them.
SLABS = {
    "water": [(300, 1.0)],
    **{f"lung_{r:.2f}": [(50, 1.0), (100, 0.99 * r), (150, 1.0)] for r in (0.15, 0.25, 0.4)},
    "thick_0.25": [(30, 1.0), (200, 0.99 * 0.25), (70, 1.0)],
}
TPR_20_10 = 0.667
SPACING_MM = (2.5, 2.0, 2.5)
SHAPE = (129, 150, 129)
DEPTH_MM = 2.0 * np.arange(SHAPE[1]) + 1.0


def doses_on_axis(side_mm: float) -> dict[str, np.ndarray]:
    """Return the dose on the axis of a square field in each slab, surface 900 mm from the source."""
    import torch  # type: ignore[import-not-found,unused-ignore]
    from pydosert import Beam, MachineConfig, PencilDepthEngine  # type: ignore[import-not-found]

    config = MachineConfig(tpr_20_10=TPR_20_10, number_of_leaf_pairs=80, leaf_widths=[5.0] * 80)
    middle = [64 * SPACING_MM[0], 99.0, 64 * SPACING_MM[2]]
    beam = Beam.create(0.0, 80, iso_center=tuple(middle), device="cpu", requires_grad=False)
    half = side_mm / 2
    beam.leaf_positions[:, 0], beam.leaf_positions[:, 1] = -half, half
    beam.jaw_positions[0], beam.jaw_positions[1] = -half, half
    engine = PencilDepthEngine(config, 101, SPACING_MM, SHAPE, beam, device="cpu")
    found = {}
    for name, layers in SLABS.items():
        top, density = 0.0, torch.zeros(SHAPE)
        for thickness, value in layers:
            density[:, torch.from_numpy((top < DEPTH_MM) & (top + thickness > DEPTH_MM))] = value
            top += thickness
        with torch.no_grad():
            dose = engine.compute_dose(beam, density)
        found[name] = dose.squeeze(0)[64, :, 64].double().numpy()
    return found


def write_ratios(out: Path) -> None:
    """Write slab, side, depth and dose over that in water."""
    lines = ["slab,side_mm,depth_mm,ratio"]
    for side in SIDES_MM:
        dose = doses_on_axis(side)
        for name in [name for name in SLABS if name != "water"]:
            ratio = dose[name] / dose["water"]
            lines += [f"{name},{side},{d:.0f},{r:.4f}" for d, r in zip(DEPTH_MM, ratio, strict=True) if d > 20]
        print(side, "mm: PDD 200/100 in water", round(float(np.interp(200, DEPTH_MM, dose["water"]) / np.interp(100, DEPTH_MM, dose["water"])), 3))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    write_ratios(parser.parse_args().out)
