"""Statistics of arrays: raw, normalised, grouped and pooled.

Complex values are described by magnitude and phase, two parts of one array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array, Floats, Integers

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
    """Return the statistics of a real array of any shape; of booleans those of 0 and 1.

    Notes
    -----
    Values of 8 and 16 bits are counted by bit pattern and never sorted: the same numbers, some ten times faster.
    """
    flat = values.reshape(-1)
    if flat.dtype.kind == "b":
        flat = flat.view(np.uint8)
    if flat.dtype.kind not in "iuf":
        raise BadInput(f"statistics of {flat.dtype}: wanted real numbers")
    if flat.dtype.itemsize <= 2 and flat.size > 1 << 16:
        return _from_levels(*_counted(flat), int(flat.size))
    return _from_sorted(np.sort(flat))


def _counted(flat: Array) -> tuple[Floats, Integers]:
    """The values that occur, in order, and how often each does."""
    bits = np.uint8 if flat.dtype.itemsize == 1 else np.uint16
    native = np.ascontiguousarray(flat).astype(flat.dtype.newbyteorder("="), copy=False)
    counts = np.bincount(native.view(bits), minlength=1 << (8 * flat.dtype.itemsize))
    patterns = np.flatnonzero(counts).astype(bits)
    levels = patterns.view(native.dtype).astype(np.float64)
    order = np.argsort(levels, kind="stable")
    return levels[order], counts[patterns][order].astype(np.int64)


def _from_levels(levels: Floats, counts: Integers, n: int) -> Statistics:
    """Statistics of values by how often each occurs."""
    nan, infinite = np.isnan(levels), np.isinf(levels)
    n_nan, n_infinite = int(counts[nan].sum()), int(counts[infinite].sum())
    levels, counts = levels[~(nan | infinite)], counts[~(nan | infinite)]
    total = int(counts.sum())
    if not total:
        return _nothing(n, n_nan, n_infinite)
    mean = float(np.sum(levels * counts) / total)
    variance = float(np.sum((levels - mean) ** 2 * counts) / total)
    ends = np.cumsum(counts)
    return Statistics(
        n=n,
        n_nan=n_nan,
        n_infinite=n_infinite,
        n_zero=int(counts[levels == 0].sum()),
        least=float(levels[0]),
        largest=float(levels[-1]),
        mean=mean,
        std=math.sqrt(variance),
        rms=math.sqrt(mean**2 + variance),
        # The value of rank r (from 0) is the first level whose cumulative count exceeds r.
        percentiles=_percentiles(total, lambda rank: float(levels[np.searchsorted(ends, rank, side="right")])),
    )


def _from_sorted(values: Array) -> Statistics:
    """Statistics of values in order, NaN last; no copy in double precision is kept."""
    n = int(values.size)
    inexact = values.dtype.kind == "f"
    n_nan = int(np.isnan(values).sum()) if inexact else 0
    values = values[: n - n_nan]
    first, last = (
        (int(np.searchsorted(values, -np.inf, side="right")), int(np.searchsorted(values, np.inf, side="left")))
        if inexact
        else (0, n)
    )
    n_infinite = values.size - (last - first)
    values = values[first:last]
    if not values.size:
        return _nothing(n, n_nan, n_infinite)
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return Statistics(
        n=n,
        n_nan=n_nan,
        n_infinite=n_infinite,
        n_zero=int(np.searchsorted(values, 0, side="right") - np.searchsorted(values, 0, side="left")),
        least=float(values[0]),
        largest=float(values[-1]),
        mean=mean,
        std=std,
        rms=math.sqrt(mean**2 + std**2),
        percentiles=_percentiles(int(values.size), lambda rank: float(values[rank])),
    )


def _nothing(n: int, n_nan: int, n_infinite: int) -> Statistics:
    none = math.nan
    return Statistics(n, n_nan, n_infinite, 0, none, none, none, none, none, {_key(p): none for p in PERCENTS})


def _key(percent: float) -> str:
    return f"p{percent:g}"


def _percentiles(total: int, value_at: Callable[[int], float]) -> dict[str, float]:
    found = {}
    for percent in PERCENTS:
        place = (total - 1) * percent / 100.0
        below = math.floor(place)
        low, high = value_at(below), value_at(min(below + 1, total - 1))
        found[_key(percent)] = low + (high - low) * (place - below)
    return found


def normalised(statistics: Statistics, by: Scale, divisor: float | None) -> Statistics:
    """Return the statistics that an array has once it is normalised; exact, as normalising is linear.

    Parameters
    ----------
    statistics
        Of the array as it is.
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
