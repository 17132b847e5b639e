"""How near DVHs of contours come to sphere, cylinder and cone in 1 Gy/mm: what slices lose, and what we lose besides.

    python benchmarks/dvh_accuracy.py [--slice-mm 3]

Each row: the difference from the shape itself of the slabs that its contours describe, integrated by formula, and of
ours from those slabs; the largest of five positions of the slices. Doses in Gy, volume in percent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product

import numpy as np
from scipy.optimize import brentq

from doseledger.core.grid import Grid
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.slab_dose import slab_dose
from doseledger.dosimetry.dvh.slabs import make_slabs

RADIUS_MM, HALF_MM, CENTRE_GY = 14.2, 15.2, 40.0
N_POINTS, N_POSITIONS = 200_000, 5
# The shape itself is a stack of slabs as thin as this.
THIN_MM = 0.02
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sphere": lambda z: np.sqrt(np.maximum(RADIUS_MM**2 - z**2, 0)),
    "cylinder": lambda z: np.where(abs(z) <= HALF_MM, RADIUS_MM, 0.0),
    "cone": lambda z: np.where(abs(z) <= HALF_MM, RADIUS_MM * (HALF_MM - z) / (2 * HALF_MM), 0.0),
}
GRADIENTS = {"along z": (1.0, 0.0, 0.0), "across": (0.0, 0.0, 1.0), "oblique": (0.6, 0.5, np.sqrt(0.39))}
GRID = Grid((26, 30, 30), (2.5, 2.5, 2.5), (-31.3, -36.2, -35.9))
NAMES = ("volume", "min", "max", "mean", "D98%", "D2%", "D0.03cc", "D2cc")


def discs_above(level_gy: float, z: np.ndarray, radii: np.ndarray, tilt: tuple[float, float]) -> np.ndarray:
    """Area in mm² of each disc that has a dose: a segment of the circle."""
    missing = level_gy - CENTRE_GY - tilt[0] * z
    c = np.clip(missing / (tilt[1] * radii), -1, 1) if tilt[1] else np.where(missing <= 0, -1.0, 1.0)
    return radii**2 * (np.arccos(c) - c * np.sqrt(1 - c**2))


def dvh_of_stack(z: np.ndarray, radii: np.ndarray, slab_mm: float, gradient: tuple[float, float, float]) -> dict:
    """DVH statistics of stacked discs by formula."""
    tilt = (gradient[0], float(np.hypot(gradient[1], gradient[2])))
    n = max(1, round(slab_mm / THIN_MM))
    height = (z[:, None] + ((np.arange(n) + 0.5) / n - 0.5) * slab_mm).ravel()
    wide, volume = np.repeat(radii, n), float((np.pi * radii**2).sum() * slab_mm / 1000)
    reach = [CENTRE_GY + tilt[0] * (z + s * slab_mm / 2) + t * tilt[1] * radii for s, t in product((-1, 1), repeat=2)]
    low, high = float(np.min(reach)), float(np.max(reach))

    def hottest(cc: float) -> float:
        return brentq(
            lambda level: float(discs_above(level, height, wide, tilt).sum()) * slab_mm / n / 1000 - cc, low, high
        )

    mean = CENTRE_GY + tilt[0] * float((z * radii**2).sum() / (radii**2).sum())
    found = {"volume": volume, "min": low, "max": high, "mean": mean}
    return found | {"D98%": hottest(0.98 * volume), "D2%": hottest(0.02 * volume)} | {
        "D0.03cc": hottest(0.03), "D2cc": hottest(2.0),
    }  # fmt: skip


def ours(z: np.ndarray, radii: np.ndarray, slab_mm: float, gradient: tuple[float, float, float]) -> dict[str, float]:
    angle = np.arange(720) * np.pi / 360
    contours = [(level, [np.c_[r * np.cos(angle), r * np.sin(angle)]]) for level, r in zip(z, radii, strict=True)]
    axes = np.meshgrid(*GRID.axes_mm(), indexing="ij")
    dose = (CENTRE_GY + sum(g * axis for g, axis in zip(gradient, axes, strict=True))).astype(np.float32)
    samples, _ = slab_dose(dose, GRID, make_slabs(contours, slab_mm), N_POINTS)
    return {name: samples.measure(parse_statistic(name)).value for name in NAMES}


def difference(found: dict[str, float], wanted: dict[str, float]) -> list[float]:
    volume = 100 * (found["volume"] / wanted["volume"] - 1)
    return [volume, *(found[name] - wanted[name] for name in NAMES[1:])]


def print_row(shape: str, way: str, what: str, rows: list[list[float]]) -> None:
    worst = [max(column, key=abs) for column in zip(*rows, strict=True)]
    print(f"| {shape}, {way} | {what} | " + " | ".join(f"{value:+.2f}" for value in worst) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slice-mm", type=float, default=3.0, help="distance of the contours' slices")
    slice_mm = parser.parse_args().slice_mm
    print(f"| slices of {slice_mm:g} mm | | " + " | ".join(NAMES) + " |\n" + "|---" * (len(NAMES) + 2) + "|")
    for (shape, radius_at), (way, gradient) in product(SHAPES.items(), GRADIENTS.items()):
        fine = np.arange(-HALF_MM + THIN_MM / 2, HALF_MM, THIN_MM)
        fine = fine[radius_at(fine) > 0]
        shape_itself = dvh_of_stack(fine, radius_at(fine), THIN_MM, gradient)
        slices, rest = [], []
        for position in (np.arange(N_POSITIONS) + 0.5) * slice_mm / N_POSITIONS:
            z = np.arange(-np.ceil(HALF_MM / slice_mm) - 1, np.ceil(HALF_MM / slice_mm) + 1) * slice_mm + position
            z = z[radius_at(z) > 0]
            stacked = dvh_of_stack(z, radius_at(z), slice_mm, gradient)
            slices.append(difference(stacked, shape_itself))
            rest.append(difference(ours(z, radius_at(z), slice_mm, gradient), stacked))
        print_row(shape, way, "slices", slices)
        print_row(shape, way, "ours besides", rest)


if __name__ == "__main__":
    main()
