"""Confidence intervals over patients, and paired tests of two models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from doseledger.core.errors import BadInput
from doseledger.core.types import Floats

CONFIDENCE = 0.95
RESAMPLES = 2000
# With fewer values a resampled mean can take so few values that its percentiles mean nothing.
LEAST_VALUES = 3


def bootstrap_interval(values: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % interval of the mean of some values, by resampling them.

    Parameters
    ----------
    values
        One value per patient, (patient,); NaN are left out.

    Returns
    -------
    tuple
        Lower and upper end; NaN where there are fewer than three values.

    Notes
    -----
    The percentile bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Patients are
    resampled, never voxels, whose errors go together. With a handful of patients it is somewhat too narrow.
    """
    known = values[~np.isnan(values)]
    if len(known) < LEAST_VALUES:
        return math.nan, math.nan
    means = known[rng.integers(0, len(known), size=(RESAMPLES, len(known)))].mean(axis=1)
    low, high = np.percentile(means, [50.0 * (1 - CONFIDENCE), 50.0 * (1 + CONFIDENCE)])
    return float(low), float(high)


def wilson_interval(n_yes: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate in percent, of `n_yes` among `n`.

    Returns
    -------
    tuple
        Lower and upper end; NaN where n is 0.

    Notes
    -----
    The score interval (Wilson, J Am Stat Assoc 22:209, 1927): unlike the mean's bootstrap it does not shrink to a
    point when all of a few patients pass.
    """
    if n == 0:
        return math.nan, math.nan
    z = float(stats.norm.ppf(0.5 * (1 + CONFIDENCE)))
    rate, width = n_yes / n, z**2 / n
    centre = (rate + width / 2) / (1 + width)
    half = z / (1 + width) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return 100.0 * max(0.0, centre - half), 100.0 * min(1.0, centre + half)


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same patients.

    Parameters
    ----------
    n
        Patients that both have a value for.
    median_difference
        Of second − first, in the values' unit.
    p_value
        Two-sided Wilcoxon signed-rank test; NaN where no pair differs.
    effect_size
        Matched-pairs rank-biserial correlation, −1 to 1: positive when the second is larger.
    """

    n: int
    median_difference: float
    p_value: float
    effect_size: float


def paired_test(first: Floats, second: Floats) -> PairedTest:
    """Return whether two models differ on the same patients.

    Parameters
    ----------
    first, second
        One value per patient, in the same order, (patient,); a pair with NaN is left out.

    Raises
    ------
    BadInput
        If the numbers of patients differ.

    Notes
    -----
    Effect size as Kerby, Comprehensive Psychology 3:1 (2014): the share of the ranks in favour minus those against.
    """
    if first.shape != second.shape:
        raise BadInput(f"{len(first)} and {len(second)} values are no pairs; evaluate both models on the same cases")
    difference = (second - first)[~np.isnan(first) & ~np.isnan(second)]
    moved = difference[difference != 0]
    median = float(np.median(difference)) if len(difference) else math.nan
    if len(moved) == 0:
        return PairedTest(len(difference), median, math.nan, 0.0)
    ranks = stats.rankdata(np.abs(moved))
    effect = float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum())
    return PairedTest(len(difference), median, float(stats.wilcoxon(moved).pvalue), effect)


def holm(p_values: list[float]) -> list[float]:
    """Return p values that hold for all of several tests at once; NaN stays NaN and counts for no test.

    Notes
    -----
    Holm, Scand J Stat 6:65 (1979): the k-th smallest of m is multiplied by m − k + 1. No independence is assumed.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        adjusted[index] = least
    return adjusted
