"""Fit the generic machine's pencil beam to published measurements, and print the lines for its YAML file.

    python benchmarks/fit_beam.py

Free are the attenuation, three build-ups and three of four Gaussian widths (Nelder-Mead); the amplitudes follow by
linear least squares. The narrowest Gaussian is held at the width of a linac's source and penumbra: central-axis data
hardly see it. Fields below 15 mm count less: there the measured factor depends on the detector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import erf

DATA = Path(__file__).parents[1] / "tests/planning/data"
PENUMBRA_SIGMA_MM = 2.4
REFERENCE_MM = 100.0
LARGEST_MM = 200.0
DEEPEST_MM = 200.0
CELL_MM = 2.5


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return depths, field sides and dose relative to the reference field and depth, (depth, field)."""
    table = np.loadtxt(DATA / "artiste_6mv_tpr.csv", delimiter=",")
    output = np.loadtxt(DATA / "artiste_6mv_output.csv", delimiter=",")
    keep = table[0, 1:] <= LARGEST_MM
    side, depth = table[0, 1:][keep], table[1:, 0]
    dose = table[1:, 1:][:, keep] * np.interp(side, output[:, 0], output[:, 1])
    return depth, side, dose / dose[depth == REFERENCE_MM][:, side == REFERENCE_MM]


def gathered(side: np.ndarray, sigma: float, fluence: np.ndarray) -> np.ndarray:
    """Return what a Gaussian gathers at the centre of square fields under the primary fluence, (field,)."""
    half = np.arange(0.0, LARGEST_MM / 2, CELL_MM) + CELL_MM / 2
    primary = np.interp(np.hypot(half[:, None], half[None, :]), fluence[:, 0], fluence[:, 1])
    out = []
    for s in side:
        edge = np.minimum(np.arange(0.0, LARGEST_MM / 2 + CELL_MM / 2, CELL_MM), s / 2)
        share = np.diff(erf(edge / (np.sqrt(2) * sigma)))
        out.append(share @ primary @ share)
    return np.array(out)


def solve(
    free: np.ndarray, data: tuple[np.ndarray, np.ndarray, np.ndarray], fluence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the amplitudes (component, gaussian) and the residuals (depth, field)."""
    depth, side, dose = data
    mu, beta, sigma = free[0], np.exp(free[1:4]), np.concatenate([[PENUMBRA_SIGMA_MM], np.exp(free[4:])])
    by_depth = beta / (beta - mu) * (np.exp(-mu * depth[:, None]) - np.exp(-beta * depth[:, None]))
    by_field = np.stack([gathered(side, s, fluence) for s in sigma], axis=1)
    weight = np.where(depth <= DEEPEST_MM, 1.0, 0.4)[:, None] * np.where(side < 15, 0.15, 1.0)
    matrix = np.einsum("dc,sg,ds->dscg", by_depth, by_field, weight).reshape(weight.size, -1)
    ridge = 2e-3 * np.eye(matrix.shape[1])
    right = np.concatenate([(dose * weight).ravel(), np.zeros(matrix.shape[1])])
    amplitude = np.linalg.lstsq(np.vstack([matrix, ridge]), right, rcond=None)[0].reshape(len(beta), len(sigma))
    return amplitude, (np.einsum("dc,cg,sg->ds", by_depth, amplitude, by_field) - dose) * weight


def fit() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the free parameters, amplitudes and residuals."""
    data, fluence = load(), np.loadtxt(DATA / "artiste_6mv_fluence.csv", delimiter=",")

    def cost(free: np.ndarray) -> float:
        if np.any(np.diff(free[4:]) < 0.3) or np.exp(free[-1]) > 150 or np.exp(free[4]) < 1.3 * PENUMBRA_SIGMA_MM:
            return 1e3
        if np.abs(np.exp(free[1:4]) - free[0]).min() < 5e-4:
            return 1e3
        return float((solve(free, data, fluence)[1] ** 2).sum())

    best = np.concatenate([[0.0046], np.log([0.22, 0.03, 0.01]), np.log([6.0, 20.0, 60.0])])
    for _ in range(4):
        options = {"maxiter": 2500, "maxfev": 2500, "xatol": 1e-6, "fatol": 1e-10}
        best = minimize(cost, best, method="Nelder-Mead", options=options).x
    return best, *solve(best, data, fluence)


if __name__ == "__main__":
    found, amplitudes, residual = fit()
    print(f"  attenuation_per_mm: {found[0]:.8f}")
    print(f"  buildup_per_mm: {np.round(np.exp(found[1:4]), 8).tolist()}")
    print(f"  sigma_mm: {[PENUMBRA_SIGMA_MM, *np.round(np.exp(found[4:]), 4).tolist()]}")
    print("  amplitude:")
    for row in amplitudes:
        print(f"    - {np.round(row, 8).tolist()}")
    depth, side, dose = load()
    used = residual[depth <= DEEPEST_MM][:, side >= 20]
    print(f"# greatest residual, fields from 20 mm, to {DEEPEST_MM:g} mm deep: {100 * np.abs(used).max():.2f} %")
    for d in (10.0, 50.0, 100.0, 200.0, 300.0):
        mu, beta = found[0], np.exp(found[1:4])
        share = (beta / (beta - mu) * (np.exp(-mu * d) - np.exp(-beta * d))) @ amplitudes
        print(f"# amplitudes at {d:g} mm: {np.round(share, 4).tolist()}")
