"""Calibration of drawn doses: coverage, ranks, spread against error.

A model that draws doses says by their spread how sure it is. Here that is held against the plan: a
95 % interval must hold the plan's dose in 95 % of the voxels, and that of a structure's mean dose
in 95 % of the structures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from doseledger.core.errors import BadInput
from doseledger.core.types import Floats, GyArray, Mask
from doseledger.dosimetry.intervals import bootstrap_interval

# The intervals that are reported.
LEVELS = (0.50, 0.80, 0.95)
# Those that the curve of coverage is drawn through.
CURVE_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
# Voxels whose drawn doses all agree have no interval. Below this, a tenth of what dose engines agree to, is none.
LEAST_SD_GY = 0.05
# Of a sum of weights: shares that are equal on paper.
ROUNDING = 1e-9
# Ends of the classes of spread in Gy, for spread against error; the last class has no end.
SPREAD_ENDS_GY = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


@dataclass(frozen=True)
class CaseSpread:
    """What one case says of the spread of its drawn doses.

    Parameters
    ----------
    ratios
        |plan − mean| / standard deviation of each voxel, sorted, (voxel,).
    structures
        The same of each structure's mean dose, by name.
    ranks
        Voxels by how many of the drawn doses lie below the plan's, (n_samples + 1,); ties count half.
    classes
        (class of spread, 3): voxels, sum of squared spread, sum of squared error, in Gy².
    mae_gy, expected_mae_gy
        Mean absolute error of the mean dose, and what it would be were the plan one more drawn dose.
    """

    case_id: str
    n_samples: int
    ratios: Floats
    structures: dict[str, float]
    ranks: Floats
    classes: Floats
    mae_gy: float
    expected_mae_gy: float


@cache
def half_width(level: float, n_samples: int) -> float:
    """Return how many standard deviations of `n_samples` drawn doses an interval reaches to either side of their mean.

    Notes
    -----
    The prediction interval of one more draw from a normal distribution: Student's t of n − 1 degrees of freedom, times
    sqrt(1 + 1/n). So few samples do not read as a spread that is too narrow.

    Examples
    --------
    >>> round(half_width(0.95, 8), 3)
    2.508
    """
    return float(stats.t.ppf(0.5 + level / 2, n_samples - 1)) * math.sqrt(1 + 1 / n_samples)


def describe_spread(case_id: str, plan_gy: GyArray, samples_gy: GyArray, masks: Mapping[str, Mask]) -> CaseSpread:
    """Return what one case says of the spread of its drawn doses.

    Parameters
    ----------
    plan_gy
        (voxel,): the plan's dose in the voxels that count.
    samples_gy
        (sample, voxel): the drawn doses there.
    masks
        bool (voxel,) of each structure; an empty one is left out.

    Raises
    ------
    BadInput
        If there are fewer than two samples, or the voxels do not fit.
    """
    n = len(samples_gy)
    if n < 2 or samples_gy.shape[1:] != plan_gy.shape or not plan_gy.size:
        raise BadInput(
            f"{case_id}: drawn doses {samples_gy.shape} for {plan_gy.shape} voxels of the plan; wanted (2 or more, the "
            "same voxels)"
        )
    mean, sd = samples_gy.mean(axis=0, dtype=np.float64), samples_gy.std(axis=0, ddof=1, dtype=np.float64)
    error = np.abs(plan_gy - mean)
    below = (samples_gy < plan_gy).sum(axis=0) + (samples_gy == plan_gy).sum(axis=0) / 2
    ranks = np.bincount(np.floor(below).astype(np.intp), minlength=n + 1).astype(np.float64)
    which = np.searchsorted(SPREAD_ENDS_GY, sd, side="right")
    kinds = [np.ones_like(sd), np.square(sd), np.square(error)]
    n_classes = len(SPREAD_ENDS_GY) + 1
    sums = [np.bincount(which, weights=values, minlength=n_classes) for values in kinds]
    structures = {}
    for name, mask in masks.items():
        if mask.any():
            means = samples_gy[:, mask].mean(axis=1, dtype=np.float64)
            spread = max(float(means.std(ddof=1)), LEAST_SD_GY)
            structures[name] = abs(float(plan_gy[mask].mean(dtype=np.float64)) - float(means.mean())) / spread
    # The mean of the others is n/(n − 1) times as far from a sample as the mean of all; one more draw is
    # sqrt(1 + 1/n) from the mean of all where a sample is sqrt(1 + 1/(n − 1)) from that of the others.
    apart = float(np.abs(samples_gy - mean).mean(dtype=np.float64)) * n / (n - 1)
    return CaseSpread(
        case_id=case_id,
        n_samples=n,
        ratios=np.sort(error / np.maximum(sd, LEAST_SD_GY)),
        structures=structures,
        ranks=ranks,
        classes=np.stack(sums, axis=1, dtype=np.float64),
        mae_gy=float(error.mean()),
        expected_mae_gy=apart * math.sqrt((1 + 1 / n) / (1 + 1 / (n - 1))),
    )


# (case, level, factor) -> share that is covered.
Coverage = Callable[[CaseSpread, float, float], float]


def voxel_coverage(case: CaseSpread, level: float, factor: float) -> float:
    """Return the share of a case's voxels whose plan dose lies in the interval times `factor`; NaN without one."""
    if math.isnan(factor):
        return math.nan
    reach = factor * half_width(level, case.n_samples)
    return float(np.searchsorted(case.ratios, reach, side="right")) / len(case.ratios)


def structure_coverage(case: CaseSpread, level: float, factor: float) -> float:
    """Return the share of a case's structures whose mean dose lies in its interval; NaN without them or a factor."""
    if not case.structures or math.isnan(factor):
        return math.nan
    reach = factor * half_width(level, case.n_samples)
    return float(np.mean([ratio <= reach for ratio in case.structures.values()]))


@dataclass(frozen=True)
class Factors:
    """By what intervals are stretched so that they hold what they say, by level: of voxels, of structures' mean doses.

    NaN where the cases are too few for a level (95 % takes 20), or have no structure.
    """

    voxels: Mapping[float, float]
    structures: Mapping[float, float]


def fit_factors(cases: Sequence[CaseSpread]) -> Factors:
    """Return the factors with which intervals of these cases hold what they say, one for each of CURVE_LEVELS.

    Notes
    -----
    The quantile of |plan − mean| / standard deviation over the cases, each of which counts the same: split conformal
    prediction with the spread as scale (Lei et al. 2018, "Distribution-free predictive inference for regression"). The
    patient to come counts as one more, of whom nothing is known (Dunn, Wasserman & Ramdas 2022, "Distribution-free
    prediction sets for two-layer hierarchical models"): what a whole patient shares, many voxels don't tell. A factor
    for each level, as errors have longer tails than Student's t. To be fitted on validation cases alone: on those that
    it is then reported for it would prove nothing. One number for all doses keeps what the model says of where it is
    unsure.
    """
    n = cases[0].n_samples
    voxels = _factors([case.ratios for case in cases], n)
    return Factors(voxels, _factors([np.asarray(list(case.structures.values())) for case in cases], n))


def _factors(ratios: Sequence[Floats], n_samples: int) -> dict[float, float]:
    """By level what an interval is stretched by to hold its share of the cases and the one to come, of one weight."""
    known = [each for each in ratios if len(each)]
    values = np.concatenate([*known, np.asarray([math.nan])])
    weights = np.concatenate([*(np.full(len(each), 1.0 / len(each)) for each in known), [1.0]]) / (len(known) + 1)
    # NaN, the case to come, sorts last.
    order = np.argsort(values, kind="stable")
    reached = np.searchsorted(np.cumsum(weights[order]), np.asarray(CURVE_LEVELS) - ROUNDING)
    reaches = [half_width(level, n_samples) for level in CURVE_LEVELS]
    factors = values[order][reached] / reaches
    # A level that asks for every voxel of every case says how far the single farthest one lies, and no more.
    factors[np.asarray(CURVE_LEVELS) > len(known) / (len(known) + 1) - ROUNDING] = math.nan
    return dict(zip(CURVE_LEVELS, factors.tolist(), strict=True))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def summarise_calibration(cases: Sequence[CaseSpread], factors: Factors, rng: np.random.Generator) -> dict[str, float]:
    """Return the coverage of the cases in percent, plain and with the factors, and their spread against their error.

    Parameters
    ----------
    factors
        Fitted on other cases.
    rng
        Draws the bootstrap, over patients, of the intervals `_low` and `_high`.

    Returns
    -------
    dict
        `coverage_<level>_<voxels|structures>[_stretched]_percent` with `_low` and `_high`; `mae_gy` and
        `expected_mae_gy`, what it would be if the plan were one more drawn dose; `mae_correlation`, Spearman's between
        the two over the cases; `factor_<level>_<voxels|structures>`.
    """
    result = {"n_cases": float(len(cases)), "n_samples": float(cases[0].n_samples)}
    for what, coverage, by_level in (
        ("voxels", voxel_coverage, factors.voxels),
        ("structures", structure_coverage, factors.structures),
    ):
        for level in LEVELS:
            for ending, stretch in (("", 1.0), ("_stretched", by_level[level])):
                shares = np.asarray([100.0 * coverage(case, level, stretch) for case in cases])
                name = f"coverage_{100 * level:.0f}_{what}{ending}_percent"
                result[name] = _mean(shares.tolist())
                result[f"{name}_low"], result[f"{name}_high"] = bootstrap_interval(shares, rng)
            result[f"factor_{100 * level:.0f}_{what}"] = by_level[level]
    found, expected = np.asarray([case.mae_gy for case in cases]), np.asarray([case.expected_mae_gy for case in cases])
    result |= {"mae_gy": float(found.mean()), "expected_mae_gy": float(expected.mean())}
    result["mae_correlation"] = float(stats.spearmanr(found, expected).statistic) if len(cases) > 2 else math.nan
    return result


def calibration_curves(cases: Sequence[CaseSpread], factors: Factors) -> list[dict[str, float]]:
    """Return a row for each of CURVE_LEVELS: the share that intervals say they hold, and those that they do, 0 to 1."""
    return [
        {
            "level": level,
            "voxels": _mean([voxel_coverage(case, level, 1.0) for case in cases]),
            "voxels_stretched": _mean([voxel_coverage(case, level, factors.voxels[level]) for case in cases]),
            "structures": _mean([structure_coverage(case, level, 1.0) for case in cases]),
            "structures_stretched": _mean([structure_coverage(one, level, factors.structures[level]) for one in cases]),
        }
        for level in CURVE_LEVELS
    ]


def spread_against_error(cases: Sequence[CaseSpread]) -> list[dict[str, float]]:
    """Return a row for each class of spread that has voxels: how many, their rms spread and their rms error in Gy."""
    total = np.sum([case.classes for case in cases], axis=0)
    return [
        {"voxels": float(n), "spread_gy": math.sqrt(spread / n), "error_gy": math.sqrt(error / n)}
        for n, spread, error in total
        if n > 0
    ]


def rank_shares(cases: Sequence[CaseSpread]) -> list[float]:
    """Return the share of voxels whose plan dose has each rank among the drawn doses; level where all is well."""
    total = np.sum([case.ranks / case.ranks.sum() for case in cases], axis=0)
    return [float(share) for share in total / len(cases)]
