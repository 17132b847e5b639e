"""How many times faster gamma is than pymedphys, and than yagit: CPU time on one thread each, same points.

python benchmarks/gamma.py                     # 96×96×48 voxels, about three minutes
python benchmarks/gamma.py --full              # 256×256×100, about ten minutes of CPU, nearly all of it pymedphys
python benchmarks/gamma.py --yagit PROGRAM     # yagit alone, by the program that benchmarks/yagit_gamma.cpp makes

A ratio is the peer's CPU seconds over ours; pymedphys runs once, ours is the least of three. The five cases that fail
most are asked about the hottest part alone (a mask), since pymedphys takes 2 ms for each such point. Memory is that of
one call more, not timed: tracing makes a call slower. pymedphys' is not told, as it would have to run twice.

pymedphys has our samples and our map. yagit (C++, Wendling's method) has others: a cubic lattice of the same step out
to the same distance, in float32. Both are told apart from the minimum over the whole trilinear dose, below which
neither can come. Where PATH holds yagit_gamma, it is measured after pymedphys.
"""

from __future__ import annotations

import os

# One thread for both sides, before numba reads it.
os.environ.update(NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import logging
import math
import platform
import re
import shutil
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair
from doseledger.dosimetry.gamma.map import PASS_GAMMA, exact_gamma_map, gamma_map, pass_rate_percent
from doseledger.dosimetry.gamma.reference import reference_map

SMALL_ZYX, FULL_ZYX = (48, 96, 96), (100, 256, 256)
SPACING_MM_ZYX = (2.5, 1.5, 1.5)
CRITERIA = {
    "3%/3mm global": GammaCriteria(3, 3, 20, local=False, interp_fraction=10, max_gamma=2.0),
    "2%/2mm local": GammaCriteria(2, 2, 20, local=True, interp_fraction=10, max_gamma=2.0),
}
# The hottest part, in parts of the maximum, that the last cases are asked about: about 6,000 and 20,000 points.
HOT_PART = {SMALL_ZYX: 0.7, FULL_ZYX: 0.92}
N_WHOLE = 5

# Ratios to yagit are near 1 at times: each side is called for so long, three times at least, and its least call counts.
YAGIT_CALLS_S = 0.5


def planned_dose(shape_zyx: tuple[int, int, int]) -> NDArray[np.float64]:
    """A target with a boost on a rippled bath of dose, in Gy."""
    half_mm = np.array([(n - 1) / 2 * step for n, step in zip(shape_zyx, SPACING_MM_ZYX, strict=True)])
    z, y, x = np.meshgrid(
        *(np.linspace(-h, h, n) for h, n in zip(half_mm, shape_zyx, strict=True)), sparse=True, indexing="ij"
    )

    def ellipsoid(centre_mm: tuple[float, float, float], radii_mm: NDArray[np.float64], penumbra_mm: float) -> Any:
        cz, cy, cx = centre_mm
        depth = np.sqrt(((z - cz) / radii_mm[0]) ** 2 + ((y - cy) / radii_mm[1]) ** 2 + ((x - cx) / radii_mm[2]) ** 2)
        return 1 / (1 + np.exp((depth - 1) * radii_mm.min() / penumbra_mm))

    dose = 25 * ellipsoid((0, 0, 0), half_mm * 0.75, 15) + 20 * ellipsoid((0, 0, 0), half_mm * 0.5, 6)
    dose += 25 * ellipsoid((2, 4, -3), half_mm * 0.3, 3)
    for beam in range(9):
        angle = beam * 2 * np.pi / 9
        dose *= 1 + 0.02 * np.sin((y * np.sin(angle) + x * np.cos(angle)) / 7 + beam)
    return np.asarray(dose)


def cases(dose: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Evaluated doses, from near-identical to badly failing."""
    rng = np.random.default_rng(1)
    smooth = gaussian_filter(rng.standard_normal(dose.shape), [6 / step for step in SPACING_MM_ZYX])
    smooth *= dose.max() / smooth.std()

    def moved(mm: float) -> NDArray[np.float64]:
        """The dose, moved by this much along each axis."""
        return np.asarray(shift(dose, [mm / step for step in SPACING_MM_ZYX], order=1, mode="nearest"))

    yield "noise 0.2 %", dose * (1 + 0.002 * rng.standard_normal(dose.shape))
    yield "scaled 1 %", dose * 1.01
    yield "noise 3 %", dose + 0.03 * dose.max() * rng.standard_normal(dose.shape)
    yield "shifted 1 mm", moved(0.6)
    yield "blurred", gaussian_filter(dose, [4 / step for step in SPACING_MM_ZYX])
    yield "smooth error 3 %", dose + 0.03 * smooth
    yield "shifted 5 mm", moved(3.0)
    yield "scaled 6 %", dose * 1.06
    yield "smooth error 8 %", dose + 0.08 * smooth
    yield "shifted 9 mm, scaled 10 %", moved(5.2) * 1.1


class Asked(NamedTuple):
    """A case as it is asked: the two doses, the points and the criteria."""

    name: str
    label: str
    criteria: GammaCriteria
    pair: DosePair


def asked_cases(shape_zyx: tuple[int, int, int]) -> Iterator[Asked]:
    """All cases, the criteria taking turns, with what is measured later compiled."""
    dose = planned_dose(shape_zyx)
    reference = dose.astype(np.float32)
    hot = dose >= HOT_PART[shape_zyx] * dose.max()
    for number, (name, evaluated) in enumerate(cases(dose)):
        label, criteria = list(CRITERIA.items())[number % 2]
        mask = None if number < N_WHOLE else hot
        pair = DosePair.on_one_grid(reference, evaluated.astype(np.float32), SPACING_MM_ZYX, mask)
        if number == 0:
            compile_all(pair)
        yield Asked(name, label, criteria, pair)


class Run(NamedTuple):
    """What a call gave and cost: its result, CPU seconds, wall seconds; peak of NumPy's allocations in MB, or NaN."""

    result: Any
    cpu_s: float
    wall_s: float
    peak_mb: float


def measure(function: Callable[[], Any], repeats: int = 1, *, calls_s: float = 0.0, trace: bool = False) -> Run:
    """Least CPU and wall seconds of some calls, as many more as fit into `calls_s` of CPU time.

    With `trace` also the peak memory of one more, as tracing takes time.
    """
    cpu_s: list[float] = []
    wall_s: list[float] = []
    while len(cpu_s) < repeats or sum(cpu_s) < calls_s:
        start_s, start_wall_s = time.process_time(), time.perf_counter()
        result = function()
        cpu_s.append(time.process_time() - start_s)
        wall_s.append(time.perf_counter() - start_wall_s)
    return Run(result, min(cpu_s), min(wall_s), peak_mb_of(function) if trace else math.nan)


def peak_mb_of(function: Callable[[], Any]) -> float:
    """Peak memory of a call in MB, as NumPy tells it."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def on_all_threads(pair: DosePair, criteria: GammaCriteria) -> float:
    """Wall seconds of the map with a thread for each core."""
    numba.config.NUMBA_NUM_THREADS = os.cpu_count()
    try:
        return measure(lambda: gamma_map(pair, criteria), 3).wall_s
    finally:
        numba.config.NUMBA_NUM_THREADS = 1


def compare_cases(shape_zyx: tuple[int, int, int]) -> None:
    """Print a row a case against pymedphys, and the medians."""
    print(
        "\n| case | criteria | points | pass % | map: CPU s | pass rate: CPU s | exact: CPU s | pymedphys: CPU s | "
        f"**map ×** | **pass rate ×** | wall s: map, map on {os.cpu_count()} threads, pymedphys | "
        "peak MB: map, pass rate | difference |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    ratios: list[tuple[float, float]] = []
    for name, label, criteria, pair in asked_cases(shape_zyx):
        mapped = measure(lambda pair=pair, c=criteria: gamma_map(pair, c), 3, trace=True)
        passed = measure(lambda pair=pair, c=criteria: pass_rate_percent(pair, c), 3, trace=True)
        exact = measure(lambda pair=pair, c=criteria: exact_gamma_map(pair, c))
        threads_s = on_all_threads(pair, criteria)
        peer = measure(lambda pair=pair, c=criteria: reference_map(pair, c))
        ratios.append((peer.cpu_s / mapped.cpu_s, peer.cpu_s / passed.cpu_s))
        print(
            f"| {name} | {label} | {passed.result.n_points} | {passed.result.pass_rate_percent:.2f} "
            f"| {mapped.cpu_s:.3f} | {passed.cpu_s:.3f} | {exact.cpu_s:.2f} | {peer.cpu_s:.1f} "
            f"| {ratios[-1][0]:.0f} | {ratios[-1][1]:.0f} "
            f"| {mapped.wall_s:.3f}, {threads_s:.3f}, {peer.wall_s:.1f} "
            f"| {mapped.peak_mb:.0f}, {passed.peak_mb:.0f} "
            f"| {np.nanmax(np.abs(mapped.result - peer.result)):.1e} |",
            flush=True,
        )
    print_medians(ratios, 0)


def print_medians(ratios: list[tuple[float, float]], digits: int) -> None:
    """Print median and range of the ratios of map and pass rate."""
    for what, column in (("map", 0), ("pass rate", 1)):
        found = [ratio[column] for ratio in ratios]
        middle, low, high = (f"{value:.{digits}f}" for value in (np.median(found), min(found), max(found)))
        print(f"{what}: median {middle} ×, from {low} to {high}")


def compile_all(pair: DosePair) -> None:
    """Compile, or load from the cache, what is measured later."""
    corner = tuple(slice(n // 2, n // 2 + 4) for n in pair.reference_gy.shape)
    small = DosePair.on_one_grid(pair.reference_gy[corner], pair.evaluation_gy[corner], SPACING_MM_ZYX)
    for compiled in (gamma_map, pass_rate_percent, exact_gamma_map, reference_map):
        compiled(small, CRITERIA["3%/3mm global"])


def compare_yagit(program: str | None, shape_zyx: tuple[int, int, int]) -> None:
    """Print a row a case against yagit, and the medians, or that there is no yagit."""
    found = shutil.which(program or "yagit_gamma")
    if found is None:
        print("yagit (C++): not built here, not measured; how to build it stands in benchmarks/yagit_gamma.cpp")
        return
    print(
        "\n| case | criteria | points | map: CPU s | pass rate: CPU s | yagit: CPU s | **map ×** | **pass rate ×** "
        "| pass %: exact, ours, yagit | difference to yagit: 99 %, largest "
        "| above exact, 99 %: ours, yagit | largest: ours, yagit |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    ratios: list[tuple[float, float]] = []
    for name, label, criteria, pair in asked_cases(shape_zyx):
        mapped = measure(lambda pair=pair, c=criteria: gamma_map(pair, c), 3, calls_s=YAGIT_CALLS_S)
        passed = measure(lambda pair=pair, c=criteria: pass_rate_percent(pair, c), 3, calls_s=YAGIT_CALLS_S)
        asked = ~np.isnan(mapped.result)
        peer = run_yagit(found, pair, criteria, asked)
        exact = exact_gamma_map(pair, criteria)[asked]
        ours, theirs = mapped.result[asked], np.minimum(peer.result[asked], criteria.max_gamma)
        rates = ", ".join(f"{100 * np.mean(gamma <= PASS_GAMMA):.2f}" for gamma in (exact, ours, theirs))
        apart = [tail(np.abs(theirs - ours)), tail(ours - exact), tail(theirs - exact)]
        ratios.append((peer.cpu_s / mapped.cpu_s, peer.cpu_s / passed.cpu_s))
        print(
            f"| {name} | {label} | {len(ours)} | {mapped.cpu_s:.4f} | {passed.cpu_s:.4f} | {peer.cpu_s:.4f} "
            f"| {ratios[-1][0]:.1f} | {ratios[-1][1]:.1f} | {rates} | {apart[0][0]:.3f}, {apart[0][1]:.3f} "
            f"| {apart[1][0]:.3f}, {apart[2][0]:.3f} | {apart[1][1]:.3f}, {apart[2][1]:.3f} |",
            flush=True,
        )
    print_medians(ratios, 1)


def tail(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The 99th percentile and the largest."""
    return float(np.percentile(differences, 99)), float(differences.max())


def run_yagit(program: str, pair: DosePair, criteria: GammaCriteria, asked: NDArray[np.bool_]) -> Run:
    """yagit's map and seconds, by the program that `yagit_gamma.cpp` makes; it must have asked the same points."""
    reference = pair.reference_gy
    # yagit has no mask, only a cutoff: the least dose that is asked gives the same points, as masks here are isodoses.
    numbers = [*reference.shape, *SPACING_MM_ZYX, criteria.gamma_percent, criteria.gamma_mm]
    numbers += ["local" if criteria.local else "global", float(reference.max()), float(reference[asked].min())]
    numbers += [criteria.max_gamma * criteria.gamma_mm, criteria.gamma_mm / criteria.interp_fraction, YAGIT_CALLS_S]
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / part for part in ("reference", "evaluation", "gamma")]
        reference.tofile(files[0])
        pair.evaluation_gy.tofile(files[1])
        command = [program, *map(str, files), *map(str, numbers)]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        gamma = np.fromfile(files[2], dtype=np.float32).reshape(reference.shape).astype(np.float64)
    if not np.array_equal(~np.isnan(gamma), asked):
        raise SystemExit(f"yagit: {np.count_nonzero(~np.isnan(gamma))} points, not {np.count_nonzero(asked)} as asked")
    cpu_s, wall_s, _ = map(float, printed.split())
    return Run(gamma, cpu_s, wall_s, math.nan)


def describe_machine() -> str:
    """Model of the processor, cores, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return (
        f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"numba {numba.__version__}, numpy {np.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="256×256×100 in place of 96×96×48")
    parser.add_argument(
        "--yagit", help="the program yagit_gamma: compare with yagit alone; by default both, if in PATH"
    )
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    shape_zyx = FULL_ZYX if arguments.full else SMALL_ZYX
    print(describe_machine())
    print(f"{' × '.join(map(str, shape_zyx))} voxels of {' × '.join(map(str, SPACING_MM_ZYX))} mm (z, y, x)")
    if arguments.yagit is None:
        compare_cases(shape_zyx)
    compare_yagit(arguments.yagit, shape_zyx)


if __name__ == "__main__":
    main()
