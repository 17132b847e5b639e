"""Drift statistics: KS and PSI by feature, Mahalanobis distance by case."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from doseledger.core.errors import BadInput
from doseledger.core.text.lists import first_of

Floats = NDArray[np.float64]
# With fewer values on a side there is no distribution to compare.
LEAST_VALUES = 5
# PSI needs some cases a bin; ten bins are its custom.
CASES_PER_BIN = 4
MOST_BINS = 10
# With fewer cases nothing is known of how features go together.
LEAST_REFERENCE = 5
# How many features of a far case are named.
NAMED = 3
# A feature that varied by less than this of its size was the same in all of the training cohort.
SAME = 1e-6
# A spread below this share of a feature's size is the voxels' and not the patients': a voxel more or less is no drift.
GRAIN = 0.01


def ks_p_value(reference: Floats, new: Floats) -> float:
    """Return the two-sided p value of the Kolmogorov-Smirnov test; NaN where a side has fewer than five values."""
    if min(len(reference), len(new)) < LEAST_VALUES:
        return math.nan
    return float(stats.ks_2samp(reference, new, method="auto").pvalue)


def psi(expected: Floats, found: Floats) -> float:
    """Return the population stability index of two sets of shares, (bin,); 0 where they are alike.

    Notes
    -----
    Σ (found − expected) ln(found / expected): the symmetric form of Kullback and Leibler's divergence (Ann Math Stat
    22:79, 1951), named so by Siddiqi, Credit Risk Scorecards (2006). No share may be 0.

    Examples
    --------
    >>> round(psi(np.array([0.5, 0.5]), np.array([0.7, 0.3])), 4)
    0.1695
    """
    return float(((found - expected) * np.log(found / expected)).sum())


def psi_of_values(reference: Floats, new: Floats) -> tuple[float, int]:
    """Return the PSI of a feature between two sets of cases, and in how many bins; NaN where there are too few cases.

    Notes
    -----
    Bins hold equal numbers of the reference. Half a case is added to each bin, so that an empty one is no infinity.
    """
    n_bins = min(MOST_BINS, len(reference) // CASES_PER_BIN)
    if n_bins < 2 or len(new) < LEAST_VALUES:
        return math.nan, 0
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, n_bins + 1)[1:-1]))
    shares = []
    for values in (reference, new):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) + 0.5
        shares.append(counts / counts.sum())
    return psi(shares[0], shares[1]), len(edges) + 1


def psi_by_chance(n_reference: int, n_new: int, n_bins: int, alpha: float) -> float:
    """Return how large a PSI is by chance alone with probability `alpha`, when nothing has drifted.

    Notes
    -----
    Without drift PSI / (1/n + 1/m) follows χ² with bins − 1 degrees of freedom: Yurdakul and Naranjo, J Risk Model
    Validation 14:89 (2020). The custom of 0.25 alone would raise the alarm at every small batch.
    """
    return float(stats.chi2.isf(alpha, n_bins - 1)) * (1.0 / n_reference + 1.0 / n_new)


@dataclass(frozen=True)
class Reference:
    """What the training cohort looks like.

    Parameters
    ----------
    columns
        Features that vary in it.
    centre, scale
        Median and spread of each, (column,).
    precision
        Inverse of the shrunk covariance of the standardised features, (column, column).
    left_out
        Distance of each training case from the others, ascending: what a case of the cohort may have.
    complete
        Features that every training case has.
    """

    columns: list[str]
    centre: Floats
    scale: Floats
    precision: Floats
    left_out: Floats
    constants: dict[str, float]
    complete: list[str]


def learn_reference(rows: pd.DataFrame) -> Reference:
    """Return what a training cohort looks like.

    Parameters
    ----------
    rows
        A row per case, a column per feature; NaN where a structure is absent, which then counts as the median.

    Raises
    ------
    BadInput
        If there are fewer than five cases.

    Notes
    -----
    Covariance shrunk as Ledoit and Wolf, J Multivariate Anal 88:365 (2004), which exists for any number of features and
    cases. The distance of a training case is measured with it left out: with it in, it is always too small.
    """
    columns, constant = _varying(rows)
    values = rows[columns].to_numpy(dtype=np.float64)
    left_out = [distance for distance, _ in _each_left_out(values)]
    centre, scale, precision = _fit(values)
    constants = {str(name): float(rows[name].dropna().iloc[0]) for name in rows.columns[constant]}
    complete = [str(name) for name in rows.columns[rows.notna().all()]]
    return Reference(columns, centre, scale, precision, np.sort(np.asarray(left_out)), constants, complete)


def measure_left_out(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return how far each case of a cohort is from all its others, itself left out.

    Parameters
    ----------
    rows
        A row per case, a column per feature; NaN where a structure is absent.

    Returns
    -------
    list of dict
        By case: `distance` and `features`, as `measure_distances` gives them.

    Raises
    ------
    BadInput
        If there are fewer than five cases, or all are alike.
    """
    columns, _ = _varying(rows)
    found = _each_left_out(rows[columns].to_numpy(dtype=np.float64))
    return [
        {"case_id": str(case_id), "distance": distance, "features": _farthest(columns, away)}
        for case_id, (distance, away) in zip(rows.index, found, strict=True)
    ]


def _varying(rows: pd.DataFrame) -> tuple[list[str], pd.Series[bool]]:
    """Return the features that vary over a cohort, and which do not, by column."""
    if len(rows) < LEAST_REFERENCE:
        raise BadInput(f"{len(rows)} training cases are too few to know a cohort by; wanted {LEAST_REFERENCE} at least")
    known = rows.notna().any()
    spread, size = rows.max() - rows.min(), rows.abs().max()
    constant = known & (spread <= SAME * size.clip(lower=1.0))
    columns = [str(name) for name in rows.columns[known & ~constant]]
    if not columns:
        raise BadInput(f"{len(rows)} training cases are alike in every feature; a cohort of copies knows no distance")
    return columns, constant


def _each_left_out(values: Floats) -> list[tuple[float, Floats]]:
    """Return of each case its distance from all others, and by how many of their spreads each feature is off."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

    found = []
    # A thousand small matrices: threads would wait for each other, at full load, longer than they work.
    with threadpool_limits(1):
        for index in range(len(values)):
            centre, scale, precision = _fit(np.delete(values, index, axis=0))
            away = _standardised(values[index : index + 1], centre, scale)
            found.append((float(_distance(away, precision)[0]), away[0]))
    return found


def _farthest(columns: list[str], away: Floats) -> dict[str, float]:
    return {columns[i]: float(away[i]) for i in np.argsort(-np.abs(away))[:NAMED]}


def measure_distances(reference: Reference, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return how far each case is from a training cohort.

    Returns
    -------
    list of dict
        By case: `distance` (Mahalanobis, 1 is typical for one feature), `ratio` (to the farthest training case),
        `rank_p` (share of the training cases that are as far, the case itself counted: not below 1 / (n + 1)),
        `features` (those that are farthest, each with how many spreads it is off), `changed` (features that were the
        same in all training cases, with another value here), and `missing` (features that every training case has and
        this one has not, though its structure is there).
    """
    missing = [name for name in (*reference.columns, *reference.constants) if name not in rows]
    if missing:
        raise BadInput(f"the new cases have no {first_of(missing, 8)}; ingest them with the training cohort's protocol")
    away = _standardised(rows[reference.columns].to_numpy(dtype=np.float64), reference.centre, reference.scale)
    distances = _distance(away, reference.precision)
    n = len(reference.left_out)
    found = []
    for case_id, distance, row in zip(rows.index, distances, away, strict=True):
        found.append(
            {
                "case_id": str(case_id),
                "distance": float(distance),
                "ratio": float(distance / reference.left_out[-1]),
                "rank_p": float((1 + np.count_nonzero(reference.left_out >= distance)) / (1 + n)),
                "features": _farthest(reference.columns, row),
                "changed": _changed(reference, rows.loc[case_id]),
                "missing": _missing(reference, rows.loc[case_id]),
            }
        )
    return found


def _changed(reference: Reference, row: pd.Series[float]) -> dict[str, float]:
    return {
        name: float(row[name])
        for name, value in reference.constants.items()
        if not math.isnan(row[name]) and abs(row[name] - value) > SAME * max(abs(value), 1.0)
    }


def _missing(reference: Reference, row: pd.Series[float]) -> list[str]:
    absent = tuple(f"{name.removesuffix('_present')}_" for name in row.index[row == 0.0] if name.endswith("_present"))
    return [name for name in reference.complete if math.isnan(row[name]) and not name.startswith(absent)]


def _fit(values: Floats) -> tuple[Floats, Floats, Floats]:
    from sklearn.covariance import LedoitWolf

    # pandas and not numpy, which warns of a structure that is absent in all cases but the one left out.
    table = pd.DataFrame(values)
    centre = table.median().fillna(0.0).to_numpy(dtype=np.float64)
    # The median is not drawn by one odd patient; the spread is the plain one, as many features sit on one value.
    scale = table.std().fillna(0.0).to_numpy(dtype=np.float64)
    size = table.abs().max().fillna(0.0).to_numpy(dtype=np.float64)
    # Where only the case that is left out differs, nothing is known of the spread: its size stands for it.
    scale = np.where(scale > 0, np.maximum(scale, GRAIN * size), size)
    scale = np.where(scale > 0, scale, 1.0)
    shrunk = LedoitWolf(assume_centered=True).fit(_standardised(values, centre, scale))
    return centre, scale, np.asarray(shrunk.precision_, dtype=np.float64)


def _standardised(values: Floats, centre: Floats, scale: Floats) -> Floats:
    # What is absent is neither near nor far.
    return np.nan_to_num((values - centre) / scale, nan=0.0)


def _distance(away: Floats, precision: Floats) -> Floats:
    return np.sqrt(np.einsum("ij,jk,ik->i", away, precision, away) / precision.shape[0])
