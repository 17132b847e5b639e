"""Monte Carlo dose in slabs by ompMC, for tests/planning/data/ompmc_slabs.csv and benchmarks/slabs.py.

    python benchmarks/slabs_ompmc.py SLABS.csv                      # 4 million photons a slab, 75 CPU s each
    python benchmarks/slabs_ompmc.py SLABS.csv --histories 2e6

Run it in an environment of ompMC's own (ompmc==0.4.0, GPL: nothing of it is part of this project); where that can't be
imported it says "not measured". A pencil beam is scored over whole planes, and by reciprocity the dose on the axis of
every square field is a sum over the field's square at each depth, times the inverse square: one run for all fields.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

SSD_MM, SAD_MM = 900.0, 1000.0
SIDES_MM = (20, 40, 60, 100, 200)
WATER, LUNG = "H2O700ICRU", "LUNG700ICRU"
# Thickness in mm, medium and g/cm³ of layers from the surface on.
SLABS = {
    "water": [(300, WATER, 1.0)],
    **{f"lung_{r:.2f}": [(50, WATER, 1.0), (100, LUNG, r), (150, WATER, 1.0)] for r in (0.15, 0.25, 0.4)},
    "thick_0.25": [(30, WATER, 1.0), (200, LUNG, 0.25), (70, WATER, 1.0)],
}
# Half a side of the fields at every depth lies among these, across the beam.
HALF_MM = [
    2,
    4,
    6,
    *range(8, 13),
    15,
    *range(18, 25, 2),
    *range(27, 37, 3),
    *range(40, 61, 5),
    75,
    *range(90, 121, 10),
    400,
]
DEPTH_MM = np.concatenate([np.arange(0, 20, 2.0), np.arange(20, 300.1, 5.0)])


def pencil(layers: list[tuple[int, str, float]], histories: int) -> np.ndarray:
    """Return the dose of a pencil beam times the area of each voxel, (x, y, depth), made symmetric."""
    import ompmc  # type: ignore[import-not-found]

    edge = np.concatenate([-np.array(HALF_MM[::-1], float), np.array(HALF_MM, float)])
    middle = 0.5 * (DEPTH_MM[1:] + DEPTH_MM[:-1])
    top = np.cumsum([0.0] + [layer[0] for layer in layers])
    which = np.searchsorted(top, middle, side="right") - 1
    media = sorted({layer[1] for layer in layers})
    density = np.array([layers[k][2] for k in which])
    shape = (len(edge) - 1, len(edge) - 1, len(middle))
    medium = np.array([media.index(layers[k][1]) + 1 for k in which], dtype=np.int32)
    cubes = [np.asfortranarray(np.broadcast_to(column, shape)) for column in (density, medium)]
    geometry = ompmc.Geometry(edge / 10, edge / 10, DEPTH_MM / 10, media, *cubes)
    # From so far away, through so small an opening, a beam is a pencil.
    source = ompmc.CollimatedSource(1e5, -1e-4, 1e-4, -1e-4, 1e-4)
    spectrum = ompmc.Spectrum.from_file(str(ompmc.data_path() / "spectra" / "mohan6.spectrum"))
    physics = ompmc.Physics(seeds=(1, 33), n_split=20)
    energy, _ = ompmc.calc_cube(geometry, source, spectrum, physics, n_histories=histories, output_dose=False)
    dose = np.asarray(energy / (density * np.diff(DEPTH_MM)))
    dose = dose + dose[::-1]
    dose = dose + dose[:, ::-1]
    return 0.125 * (dose + dose.transpose(1, 0, 2))


def on_axis(dose: np.ndarray, side_mm: float) -> np.ndarray:
    """Return the dose on the axis of a square field, (depth,), of its pencil beam's."""
    edge = np.concatenate([-np.array(HALF_MM[::-1], float), np.array(HALF_MM, float)])
    total = np.zeros((len(edge), len(edge), dose.shape[2]))
    total[1:, 1:] = dose.cumsum(axis=0).cumsum(axis=1)
    found = []
    for k, depth in enumerate(0.5 * (DEPTH_MM[1:] + DEPTH_MM[:-1])):
        scale = (SSD_MM + depth) / SAD_MM
        half = 0.5 * side_mm * scale
        rows = np.array([[np.interp(x, edge, line) for x in (-half, half)] for line in total[..., k].T])
        low, high = (np.array([np.interp(y, edge, rows[:, j]) for y in (-half, half)]) for j in (0, 1))
        found.append((high[1] - high[0] - low[1] + low[0]) / scale**2)
    return np.array(found)


def write_ratios(out: Path, histories: int) -> None:
    """Write slab, side, depth and dose over that in water, means over 10 mm at least 8 mm from a boundary."""
    pencils = {name: pencil(layers, histories) for name, layers in SLABS.items()}
    middle, lines = 0.5 * (DEPTH_MM[1:] + DEPTH_MM[:-1]), ["slab,side_mm,depth_mm,ratio"]
    for name, layers in SLABS.items():
        boundary = np.cumsum([layer[0] for layer in layers])[:-1]
        for side in SIDES_MM if name != "water" else ():
            slab, water = on_axis(pencils[name], side), on_axis(pencils["water"], side)
            for depth in range(40, 290, 10):
                if np.abs(boundary - depth).min() >= 8:
                    near = np.abs(middle - depth) < 3
                    lines.append(f"{name},{side},{depth},{slab[near].mean() / water[near].mean():.4f}")
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--histories", type=float, default=2e5)
    chosen = parser.parse_args()
    try:
        write_ratios(chosen.out, int(chosen.histories))
    except ImportError:
        print("not measured: ompmc is not installed here")
