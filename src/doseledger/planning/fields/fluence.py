"""Fluence of bixels that comes nearest to what a dose is asked for, by L-BFGS-B."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

from doseledger.core.types import Floats, Indices, Singles
from doseledger.planning.fields.operator import FieldOperator

# From a dose (point,) to its penalty and the penalty's slope (point,).
Penalty = Callable[[Singles], tuple[float, Singles]]


def fit_fluence(
    operator: FieldOperator, penalty: Penalty, start: Floats, *, smoothness: float, evaluations: int
) -> Floats:
    """Return the bixels' weights, (bixel,), none negative, that a penalty of the dose is least for.

    Parameters
    ----------
    penalty
        What is asked of the dose; about 1 for a bad dose.
    start
        Weights to begin with, (bixel,); their mean is the unit in which weights are searched and roughness is told.
    smoothness
        Weight of the mean squared step between neighbouring bixels, in units of the mean weight.
    evaluations
        How often the dose is computed at most.

    Notes
    -----
    Byrd, Lu, Nocedal & Zhu, SIAM J Sci Comput 16:1190, 1995, as scipy has it.
    """
    unit = float(start.mean())
    first, second = operator.neighbours()

    def value_and_slope(shares: Floats) -> tuple[float, Floats]:
        value, by_dose = penalty(operator.dose(shares * unit))
        rough, by_shares = _roughness(shares, first, second)
        slope = operator.adjoint(by_dose.astype(np.float32)) * unit
        return value + smoothness * rough, slope + smoothness * by_shares

    limits = {"maxfun": evaluations, "maxiter": evaluations, "ftol": 1e-9, "gtol": 0.0}
    bounds = [(0.0, None)] * len(start)
    # One thread: the matrices are small, and a second one only waits.
    with threadpool_limits(1):
        found = minimize(value_and_slope, start / unit, jac=True, method="L-BFGS-B", bounds=bounds, options=limits)
    weights: Floats = unit * np.maximum(found.x, 0.0)
    return weights


def _roughness(shares: Floats, first: Indices, second: Indices) -> tuple[float, Floats]:
    """Mean squared step between neighbours, and its slope by each bixel."""
    n_pairs = max(len(first), 1)
    step = shares[second] - shares[first]
    slope = np.bincount(second, 2.0 * step, len(shares)) - np.bincount(first, 2.0 * step, len(shares))
    return float(np.square(step).sum() / n_pairs), slope / n_pairs


def mean_square(wanted_gy: Singles, weight: Singles) -> Penalty:
    """Return the penalty of a dose's weighted mean squared distance from another one, per that one's mean square."""
    scale = 1.0 / max(float((weight * np.square(wanted_gy)).sum(dtype=np.float64)), 1e-12)

    def penalty(dose_gy: Singles) -> tuple[float, Singles]:
        difference = dose_gy - wanted_gy
        value = float((weight * np.square(difference)).sum(dtype=np.float64)) * scale
        return value, (2.0 * scale) * weight * difference

    return penalty
