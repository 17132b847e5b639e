"""Differences of an array from its reference, by value and by statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array
from doseledger.parity.statistics import Statistics


@dataclass(frozen=True)
class Difference:
    """How far one array is from its reference.

    Parameters
    ----------
    equal
        Whether every value is the same, NaN where the reference has NaN.
    largest_difference, mean_difference, rms_difference
        Of the magnitudes of differences, where both values are finite; NaN where no value is.
    mean_shift_percent, std_shift_percent
        Change of mean and of standard deviation, in percent of the reference's standard deviation (of its mean's
        magnitude where it does not vary).
    percentile_shift
        Largest change of a percentile.
    n_one_sided
        Values that are finite in one of the two only.
    """

    equal: bool
    largest_difference: float
    mean_difference: float
    rms_difference: float
    mean_shift_percent: float
    std_shift_percent: float
    percentile_shift: float
    n_one_sided: int


def compare_values(reference: Array, other: Array, of: tuple[Statistics, Statistics]) -> Difference:
    """Return how far an array is from its reference, value by value.

    Parameters
    ----------
    reference, other
        Real arrays of one shape.

    Raises
    ------
    BadInput
        If the shapes differ.
    """
    if reference.shape != other.shape:
        raise BadInput(f"arrays of shape {reference.shape} and {other.shape} can't be compared value by value")
    inexact = "f" in (reference.dtype.kind, other.dtype.kind)
    equal = bool(np.array_equal(reference, other, equal_nan=inexact))
    if equal:
        # Two arrays without a finite value agree about nothing.
        none = 0.0 if reference.size and np.isfinite(reference).any() else math.nan
        return Difference(True, none, none, none, none, none, none, 0)
    one, two = reference.astype(np.float64), other.astype(np.float64)
    both = np.isfinite(one) & np.isfinite(two)
    gap = np.abs(one[both] - two[both])
    return Difference(
        equal=False,
        largest_difference=float(gap.max()) if gap.size else math.nan,
        mean_difference=float(gap.mean()) if gap.size else math.nan,
        rms_difference=float(np.sqrt(np.mean(gap**2))) if gap.size else math.nan,
        n_one_sided=int((np.isfinite(one) != np.isfinite(two)).sum()),
        **shifts(*of),
    )


def shifts(reference: Statistics, other: Statistics) -> dict[str, float]:
    """Return how far an array's statistics are from its reference's; needs no values that pair."""
    unit = reference.std or abs(reference.mean) or math.nan
    gaps = [abs(other.percentiles[key] - value) for key, value in reference.percentiles.items()]
    return {
        "mean_shift_percent": 0.0 if other.mean == reference.mean else abs(other.mean - reference.mean) / unit * 100.0,
        "std_shift_percent": 0.0 if other.std == reference.std else abs(other.std - reference.std) / unit * 100.0,
        "percentile_shift": max(gaps) if gaps else math.nan,
    }


def nearest_phase(reference: Array, phase: Array) -> Array:
    """Return phases in radians turned by whole turns to within half a turn of the reference's: −π and π are one."""
    turns = np.round((phase - reference) / (2 * math.pi))
    return np.asarray(phase - turns * 2 * math.pi)
