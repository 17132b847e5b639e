"""How many times faster gamma is than pymedphys: CPU time on one thread each, same samples, same map.

python benchmarks/gamma.py            # a small volume, about three minutes
python benchmarks/gamma.py --full     # 256×256×100, an hour or more, nearly all of it pymedphys
"""

from __future__ import annotations

import os

# One thread for both sides, before numba reads it.
os.environ.update(NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import logging
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from doseledger.evaluate.gamma import GammaCriteria, exact_gamma_map, gamma_map, pass_rate_percent
from doseledger.evaluate.gamma_reference import reference_map

SMALL_ZYX, FULL_ZYX = (16, 40, 40), (100, 256, 256)
SPACING_MM_ZYX = (2.5, 1.5, 1.5)
CRITERIA = {
    "3%/3mm global": GammaCriteria(3, 3, 10, local=False, interp_fraction=10, max_gamma=2.0),
    "2%/2mm local": GammaCriteria(2, 2, 10, local=True, interp_fraction=10, max_gamma=2.0),
}


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


def cpu_s(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least CPU seconds of some calls, and the last result."""
    best_s, result = np.inf, None
    for _ in range(repeats):
        start_s = time.process_time()
        result = function()
        best_s = min(best_s, time.process_time() - start_s)
    return best_s, result


def peak_mb(function: Callable[[], Any]) -> float:
    """Peak of what NumPy allocates during a call, result included, in MB."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="256×256×100 in place of 40×40×16")
    shape_zyx = FULL_ZYX if parser.parse_args().full else SMALL_ZYX
    logging.disable(logging.INFO)
    dose = planned_dose(shape_zyx)
    reference = dose.astype(np.float32)
    axes = [step * np.arange(n) for step, n in zip(SPACING_MM_ZYX, shape_zyx, strict=True)]
    ratios: list[tuple[float, float]] = []
    print(f"{' × '.join(map(str, shape_zyx))} voxels of {' × '.join(map(str, SPACING_MM_ZYX))} mm; CPU s on one thread")
    print(
        "| case | criteria | points | pass % | map s | pass s | exact s | pymedphys s | map × | pass × | difference |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for number, (name, evaluated) in enumerate(cases(dose)):
        evaluation = evaluated.astype(np.float32)
        label, criteria = list(CRITERIA.items())[number % 2]
        doses = (axes, reference, axes, evaluation, criteria)
        if number == 0:
            for compile_first in (gamma_map, pass_rate_percent, exact_gamma_map, reference_map):
                compile_first(
                    [axis[:4] for axis in axes],
                    reference[9:13, 30:34, 30:34],
                    [axis[:4] for axis in axes],
                    evaluation[9:13, 30:34, 30:34],
                    criteria,
                )
        map_s, gamma = cpu_s(lambda doses=doses: gamma_map(*doses), 3)
        pass_s, summary = cpu_s(lambda doses=doses: pass_rate_percent(*doses), 3)
        exact_s, _ = cpu_s(lambda doses=doses: exact_gamma_map(*doses), 1)
        peer_s, wanted = cpu_s(lambda doses=doses: reference_map(*doses), 1)
        ratios.append((peer_s / map_s, peer_s / pass_s))
        print(
            f"| {name} | {label} | {summary.n_points} | {summary.pass_rate_percent:.2f} | {map_s:.3f} | {pass_s:.3f} | "
            f"{exact_s:.2f} | {peer_s:.1f} | {ratios[-1][0]:.0f} | {ratios[-1][1]:.0f} | "
            f"{np.nanmax(np.abs(gamma - wanted)):.1e} |",
            flush=True,
        )
    print(f"median: map {np.median([r[0] for r in ratios]):.0f} ×, pass rate {np.median([r[1] for r in ratios]):.0f} ×")
    large = planned_dose(FULL_ZYX).astype(np.float32)
    large_axes = [step * np.arange(n) for step, n in zip(SPACING_MM_ZYX, FULL_ZYX, strict=True)]
    arguments = (large_axes, large, large_axes, large * np.float32(1.06), CRITERIA["3%/3mm global"])
    print(
        f"peak extra memory on 256×256×100: map {peak_mb(lambda: gamma_map(*arguments)):.0f} MB "
        f"(output included), pass rate {peak_mb(lambda: pass_rate_percent(*arguments)):.0f} MB"
    )
    print("yagit (C++) was not measured: it has no Python binding, and no build of it is looked for here")


if __name__ == "__main__":
    main()
