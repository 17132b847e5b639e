"""The dose engine in slabs of lung against Monte Carlo: what kernels that follow the density are worth.

python benchmarks/slabs.py                          # against the recorded figures, half a minute
python benchmarks/slabs.py --figures SLABS.csv      # against those of benchmarks/slabs_ompmc.py
python benchmarks/slabs.py --peer PEER.csv          # and another engine's, of the same form; repeat for more
python benchmarks/slabs.py --ompmc PYTHON           # runs ompMC first, by the Python of its own environment
"""

from __future__ import annotations

import os

os.environ.update(NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.planning.dose.engine import dose_at_points
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.linac import Machine, load_machine

HERE = Path(__file__).parent
RECORDED = HERE.parent / "tests/planning/data/ompmc_slabs.csv"
# Electrons of ICRU's lung a gram, over those of water.
LUNG = 0.990
Key = tuple[str, int]


def layers_of(slab: str) -> list[tuple[float, float]]:
    """Return thickness in mm and density of a slab's layers, from the surface on, by its name."""
    kind, _, density = slab.partition("_")
    lung = {"lung": (50, 100), "thick": (30, 200)}[kind]
    return [(lung[0], 1.0), (lung[1], float(density) * LUNG), (300 - sum(lung), 1.0)]


def read_figures(path: Path) -> dict[Key, np.ndarray]:
    """Return depth in mm and dose over that in water, (point, 2), for each slab and side."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines() if line[0] not in "#s"]
    rows = [row for row in rows if row[0].partition("_")[0] in ("lung", "thick")]
    keys = dict.fromkeys((row[0], int(row[1])) for row in rows)
    return {key: np.array([row[2:] for row in rows if (row[0], int(row[1])) == key], dtype=float) for key in keys}


def dose_on_axis(
    machine: Machine, side_mm: float, layers: list[tuple[float, float]], depth_mm: np.ndarray
) -> np.ndarray:
    """Return the dose of an open square field on its axis, surface 900 mm from the source."""
    grid = Grid((81, 155, 81), (5.0, 2.0, 5.0), (-200.0, -7.0, -200.0))
    y, top, relative = grid.axes_mm()[1], 0.0, np.zeros(grid.shape_zyx, dtype=np.float32)
    for thickness, density in layers:
        relative[:, (y > top) & (y < top + thickness)] = density
        top += thickness
    leaf = np.empty((2, 2, machine.leaves.n_pairs))
    leaf[:, 0], leaf[:, 1] = -200.0, 200.0
    jaw = (-side_mm / 2, side_mm / 2)
    field = Arc("OPEN", np.zeros(2), None, 0.0, 0.0, leaf, jaw, jaw, np.array([0.0, 100.0]), (0.0, 100.0, 0.0))
    plan = Plan("open", machine.name, machine.beam.energy_mv, (field,), 1)
    points = np.stack([0 * depth_mm, depth_mm, 0 * depth_mm], axis=-1).astype(np.float32)
    return dose_at_points(plan, DensityMap(relative, grid), machine, points, 1)


def difference(found: np.ndarray, wanted: np.ndarray) -> str:
    """Return the greatest difference and the rms in percent."""
    off = 100 * (found / wanted - 1)
    return f"{off[np.abs(off).argmax()]:+.1f}, {np.sqrt(np.mean(off**2)):.1f}"


def compare(figures: dict[Key, np.ndarray], peers: dict[str, dict[Key, np.ndarray]]) -> None:
    """Print for each slab and field how far each engine is off, in percent of the dose: at worst and rms."""
    generic = load_machine()
    flat = {"fluence_relative": [1.0] * len(generic.beam.fluence_relative)}
    machines = {
        name: generic.model_copy(update={"beam": generic.beam.model_copy(update={**flat, "follows_density": follows})})
        for name, follows in (("kernels of water", False), ("that follow the density", True))
    }
    print("| slab | field | " + " | ".join([*machines, *peers]) + " |")
    print("|---" * (2 + len(machines) + len(peers)) + "|")
    for (slab, side), figure in figures.items():
        depth, ratio = figure.T
        cells = []
        for machine in machines.values():
            found = dose_on_axis(machine, side, layers_of(slab), depth)
            found = found / dose_on_axis(machine, side, [(300, 1.0)], depth)
            cells.append(difference(found, ratio))
        for peer in peers.values():
            there = (slab, side) in peer
            cells.append(difference(np.interp(depth, *peer[slab, side].T), ratio) if there else "")
        print(f"| {slab} | {side} mm | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--figures", type=Path, default=RECORDED)
    parser.add_argument("--peer", type=Path, action="append", default=[])
    parser.add_argument("--ompmc", type=Path, help="Python of an environment with ompMC.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.ompmc:
            chosen.figures = Path(folder) / "slabs.csv"
            subprocess.run([chosen.ompmc, HERE / "slabs_ompmc.py", chosen.figures], check=True)
        compare(read_figures(chosen.figures), {peer.stem: read_figures(peer) for peer in chosen.peer})
