"""The slabs of benchmarks/slabs.py, and the file of another engine's dose in them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Thickness in mm and relative electron density of the layers from the surface on, 900 mm from the source.
SLABS = {
    "water": [(300, 1.0)],
    **{f"lung_{r:.2f}": [(50, 1.0), (100, 0.99 * r), (150, 1.0)] for r in (0.15, 0.25, 0.4)},
    "thick_0.25": [(30, 1.0), (200, 0.99 * 0.25), (70, 1.0)],
}
SIDES_MM = (20, 40, 60, 100, 200)
# From this depth on.
LEAST_MM = 20.0


def fill(density: np.ndarray, depth_mm: np.ndarray, slab: str) -> None:
    """Write a slab's densities into planes, (z, depth, x), by the depth of their middle; what lies before it stays."""
    top = 0.0
    for thickness, value in SLABS[slab]:
        density[:, (top < depth_mm) & (depth_mm < top + thickness)] = value
        top += thickness


def write_ratios(doses_on_axis: Callable[[int], dict[str, np.ndarray]], depth_mm: np.ndarray, about: str) -> None:
    """Write slab, side, depth and dose over that in water to the file that the command line names.

    Parameters
    ----------
    doses_on_axis
        Called with the side of a square field in mm; returns the dose at each depth on its axis for each slab.
    about
        First line of the command's help.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    lines, used = ["slab,side_mm,depth_mm,ratio"], (depth_mm > LEAST_MM) & (depth_mm < 299)
    for side in SIDES_MM:
        dose = doses_on_axis(side)
        for name in [name for name in SLABS if name != "water"]:
            ratio = dose[name][used] / dose["water"][used]
            lines += [f"{name},{side},{d:.1f},{r:.4f}" for d, r in zip(depth_mm[used], ratio, strict=True)]
        falls = np.interp([200, 100], depth_mm[used], dose["water"][used])
        print(f"{side} mm: dose in water at 200 mm over that at 100 mm {falls[0] / falls[1]:.3f}")
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
