"""Fluence through a moving multileaf collimator, exact, with its derivative.

A segment is the way between two control points. Over it each tip moves linearly with the meterset, so the fraction of
time for which a place is open is a ramp, its mean over a cell piecewise quadratic, and its derivative by the tips' ends
known in closed form.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.core.types import Floats, Singles

# A tip that hardly moves is given this much travel in mm, to keep the derivative finite.
LEAST_TRAVEL_MM = 1e-3


@njit(cache=True)
def _passed(u, low, high):  # type: ignore[no-untyped-def]
    """Return the integral up to u of the fraction of time for which the tip lies below, and its slopes by low, high."""
    if u <= low:
        return 0.0, 0.0, 0.0
    if u >= high:
        return u - 0.5 * (low + high), -0.5, -0.5
    width = high - low
    part = (u - low) / width
    return 0.5 * part * (u - low), -part + 0.5 * part * part, -0.5 * part * part


@njit(cache=True)
def _bank(start, stop, cell_low, cell_high):  # type: ignore[no-untyped-def]
    """Return the mean over time and cell of "the tip lies below", and its slopes by the tip's start and stop."""
    low = min(start, stop)
    high = max(start, stop)
    if high - low < LEAST_TRAVEL_MM:
        middle = 0.5 * (low + high)
        low = middle - 0.5 * LEAST_TRAVEL_MM
        high = middle + 0.5 * LEAST_TRAVEL_MM
    width = cell_high - cell_low
    right, right_low, right_high = _passed(cell_high, low, high)
    left, left_low, left_high = _passed(cell_low, low, high)
    by_low = (right_low - left_low) / width
    by_high = (right_high - left_high) / width
    if start <= stop:
        return (right - left) / width, by_low, by_high
    return (right - left) / width, by_high, by_low


@njit(cache=True)
def _fill(leaf, edge, gap, transmission, out):  # type: ignore[no-untyped-def]
    for s in range(out.shape[0]):
        for r in range(out.shape[1]):
            for k in range(out.shape[2]):
                left, _, _ = _bank(leaf[s, 0, r] - gap, leaf[s + 1, 0, r] - gap, edge[k], edge[k + 1])
                right, _, _ = _bank(leaf[s, 1, r] + gap, leaf[s + 1, 1, r] + gap, edge[k], edge[k + 1])
                out[s, r, k] = transmission + (1.0 - transmission) * (left - right)


@njit(cache=True)
def _fill_back(leaf, edge, gap, transmission, slope, out):  # type: ignore[no-untyped-def]
    for s in range(slope.shape[0]):
        for r in range(slope.shape[1]):
            for bank in range(2):
                shift = -gap if bank == 0 else gap
                sign = 1.0 - transmission if bank == 0 else transmission - 1.0
                first = 0.0
                last = 0.0
                start = leaf[s, bank, r] + shift
                stop = leaf[s + 1, bank, r] + shift
                least = min(start, stop) - LEAST_TRAVEL_MM
                most = max(start, stop) + LEAST_TRAVEL_MM
                for k in range(slope.shape[2]):
                    # Beyond the tip's way a cell is open or shut throughout: no slope.
                    if edge[k + 1] < least or edge[k] > most:
                        continue
                    _, by_start, by_stop = _bank(start, stop, edge[k], edge[k + 1])
                    first += slope[s, r, k] * by_start
                    last += slope[s, r, k] * by_stop
                out[s, bank, r] += sign * first
                out[s + 1, bank, r] += sign * last


def open_fraction(leaf_mm: Floats, edge_mm: Floats, leaf_gap_mm: float, transmission: float) -> Singles:
    """Return the mean fraction of fluence that each cell receives in each segment, float32 (segment, pair, cell).

    Parameters
    ----------
    leaf_mm
        Tips at the control points, (segment + 1, bank, pair).
    edge_mm
        Edges of the cells along the leaves' travel, (cell + 1,).
    leaf_gap_mm
        How much wider a gap looks to the beam than to the eye, because the tips are rounded.
    transmission
        Fraction that passes a leaf.
    """
    out = np.empty((leaf_mm.shape[0] - 1, leaf_mm.shape[2], len(edge_mm) - 1), dtype=np.float32)
    _fill(np.ascontiguousarray(leaf_mm, dtype=np.float64), edge_mm, 0.5 * leaf_gap_mm, transmission, out)
    return out


def open_fraction_adjoint(
    leaf_mm: Floats,
    edge_mm: Floats,
    leaf_gap_mm: float,
    transmission: float,
    slope: NDArray[np.floating],
) -> Floats:
    """Return the slope of a scalar by the leaf tips, given its slope by what `open_fraction` returned.

    Parameters
    ----------
    leaf_mm, edge_mm, leaf_gap_mm, transmission
        As for `open_fraction`.
    slope
        Slope by each cell, (segment, pair, cell).

    Returns
    -------
    ndarray
        float64, of the shape of `leaf_mm`.
    """
    out = np.zeros(leaf_mm.shape, dtype=np.float64)
    leaf = np.ascontiguousarray(leaf_mm, dtype=np.float64)
    _fill_back(leaf, edge_mm, 0.5 * leaf_gap_mm, transmission, np.ascontiguousarray(slope), out)
    return out
