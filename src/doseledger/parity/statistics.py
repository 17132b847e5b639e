"""Statistics of arrays: raw, normalised, grouped and pooled.

Complex values are described by magnitude and phase, two parts of one array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array

PERCENTS = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
Scale = Literal["largest", "rms", "standard", "constant"]
# What picks a group's values out of an array.
Index = Array | slice | tuple[Any, ...]


@dataclass(frozen=True)
class Statistics:
    """What the values of an array are like.

    Parameters
    ----------
    n, n_nan, n_infinite, n_zero
        How many values there are, and how many of them are not finite or zero; None where that would need the values.
    least, largest, mean, std, rms
        Of the finite values; `std` divides by n.
    percentiles
        By percent, linear between neighbours, as numpy's.
    """

    n: int
    n_nan: int
    n_infinite: int
    n_zero: int | None
    least: float
    largest: float
    mean: float
    std: float
    rms: float
    percentiles: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return flat JSON values; a percentile's key is `p` and its percent."""
        flat = asdict(self)
        return {**{key: value for key, value in flat.items() if key != "percentiles"}, **self.percentiles}


def parts_of(values: Array) -> dict[str, Array]:
    """Return the real arrays that describe an array: itself, or magnitude and phase (in radians) of a complex one."""
    if values.dtype.kind == "c":
        return {"magnitude": np.abs(values), "phase": np.angle(values)}
    return {"value": values}


def describe(values: Array) -> Statistics:
    """Return the statistics of a real array of any shape; of booleans those of 0 and 1."""
    if values.dtype.kind not in "biuf":
        raise BadInput(f"statistics of {values.dtype}: wanted real numbers")
    flat, counts = values.reshape(-1), None
    if flat.dtype.itemsize <= 2:
        # Few values that occur often; 32 bits hold each of them, and are sorted faster.
        levels, counts = np.unique(flat.astype(np.float32), return_counts=True, equal_nan=True)
    else:
        levels = np.sort(flat)
    # In order, NaN last: what lies between the infinities is finite.
    first, last = 0, len(levels)
    if levels.dtype.kind == "f":
        first, last = int(np.searchsorted(levels, -np.inf, "right")), int(np.searchsorted(levels, np.inf, "left"))
    n, n_nan = int(flat.size), int(np.isnan(flat).sum()) if flat.dtype.kind == "f" else 0
    finite, counts = levels[first:last], None if counts is None else counts[first:last]
    size = len(finite) if counts is None else int(counts.sum())
    n_infinite, keys = n - n_nan - size, [f"p{percent:g}" for percent in PERCENTS]
    if not size:
        none = math.nan
        return Statistics(n, n_nan, n_infinite, 0, none, none, none, none, none, dict.fromkeys(keys, none))
    place = (size - 1) * np.asarray(PERCENTS) / 100.0
    below = np.floor(place).astype(np.intp)
    ranks = np.stack([below, np.minimum(below + 1, size - 1)])
    if counts is None:
        mean, std = float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64))
        n_zero = int(np.searchsorted(finite, 0, side="right") - np.searchsorted(finite, 0, side="left"))
    else:
        finite = finite.astype(np.float64)
        mean = float(np.sum(finite * counts) / size)
        std = math.sqrt(float(np.sum((finite - mean) ** 2 * counts) / size))
        n_zero = int(counts[finite == 0].sum())
        # The value of rank r (from 0) is the first level whose cumulative count exceeds r.
        ranks = np.searchsorted(np.cumsum(counts), ranks, side="right")
    low, high = finite[ranks].astype(np.float64)
    percentiles = dict(zip(keys, (low + (high - low) * (place - below)).tolist(), strict=True))
    rms, ends = math.sqrt(mean**2 + std**2), (float(finite[0]), float(finite[-1]))
    return Statistics(n, n_nan, n_infinite, n_zero, *ends, mean, std, rms, percentiles)


def normalised(statistics: Statistics, by: Scale, divisor: float | None) -> Statistics:
    """Return the statistics that an array has once it is normalised; exact, as normalising is linear.

    Parameters
    ----------
    by
        `largest` divides by the largest magnitude, `rms` by the root mean square, `constant` by `divisor`; `standard`
        takes the mean off and divides by the standard deviation.
    divisor
        For `constant`.
    """
    s = statistics
    scale = {
        "largest": max(abs(s.least), abs(s.largest)), "rms": s.rms, "standard": s.std, "constant": divisor or math.nan,
    }[by]  # fmt: skip
    shift = s.mean if by == "standard" else 0.0
    scale = scale if scale else math.nan
    mean, std = (s.mean - shift) / scale, s.std / scale
    return Statistics(
        n=s.n,
        n_nan=s.n_nan,
        n_infinite=s.n_infinite,
        n_zero=s.n_zero if shift == 0.0 else None,
        least=(s.least - shift) / scale,
        largest=(s.largest - shift) / scale,
        mean=mean,
        std=std,
        rms=math.sqrt(mean**2 + std**2),
        percentiles={key: (value - shift) / scale for key, value in s.percentiles.items()},
    )


def grouped(values: Array, groups: Iterator[tuple[str, Index]]) -> dict[str, Statistics]:
    """Return the statistics of each group of an array's values.

    Parameters
    ----------
    groups
        Names, and what of the array each is: an index of numpy's.
    """
    return {name: describe(values[index]) for name, index in groups}


def pooled(parts: list[Statistics]) -> Statistics:
    """Return the statistics of all values of several arrays by those of each; percentiles can't be had so."""
    sizes = np.asarray([part.n - part.n_nan - part.n_infinite for part in parts], np.float64)
    filled = [part for part, size in zip(parts, sizes, strict=True) if size]
    weights = sizes[sizes > 0]
    total = float(weights.sum())
    mean = float(np.dot(weights, [part.mean for part in filled]) / total) if total else math.nan
    square = float(np.dot(weights, [part.rms**2 for part in filled]) / total) if total else math.nan
    spread = (
        float(np.dot(weights, [part.std**2 + (part.mean - mean) ** 2 for part in filled]) / total)
        if total
        else math.nan
    )
    zeros = [part.n_zero for part in parts]
    return Statistics(
        n=sum(part.n for part in parts),
        n_nan=sum(part.n_nan for part in parts),
        n_infinite=sum(part.n_infinite for part in parts),
        n_zero=None if any(count is None for count in zeros) else sum(count or 0 for count in zeros),
        least=min((part.least for part in filled), default=math.nan),
        largest=max((part.largest for part in filled), default=math.nan),
        mean=mean,
        std=math.sqrt(spread),
        rms=math.sqrt(square),
    )
