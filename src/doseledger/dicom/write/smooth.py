"""Rings around pixels, smoothed between pixel centres, area kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from doseledger.core.grid import Grid
from doseledger.core.types import Floats, Indices, Mask
from doseledger.dicom.contours.raster import rasterise_box

# A vertex stays this part of a pixel off the centres on either side of it, so that rounding moves none across.
NEAREST_SHARE = 0.15
# Each pass takes a vertex half-way to the middle of its neighbours: the rings' steps of up to eight pixels go.
PASSES, STRENGTH = 16, 0.5
AREA_PASSES = 6


def smooth_rings(rings: Sequence[Floats], slices: Sequence[int], inside: Mask) -> list[Floats]:
    """Return rings around pixels without their steps, that hold the same pixel centres and as much area as they have.

    Parameters
    ----------
    rings
        Each (vertex, 2) as (x, y) in pixels, every vertex half-way between two pixels of which one is inside.
    slices
        On which slice each ring lies.
    inside
        bool (z, y, x).

    Notes
    -----
    A vertex moves along the line between its two pixel centres alone, so no centre changes sides (constrained elastic
    surface nets: Gibson, MICCAI 1998). Smoothing shrinks what bulges; in the end each ring is widened evenly until its
    area is that of the pixels in it.
    """
    sizes = np.asarray([len(ring) for ring in rings])
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    number = np.arange(int(sizes.sum()))
    before, after = number - 1, number + 1
    before[first], after[first + sizes - 1] = first + sizes - 1, first
    chain = _Chain(first, sizes, before, after)
    points, z = np.concatenate(rings), np.repeat(np.asarray(slices), sizes)
    low, high = np.floor(points).astype(np.intp), np.ceil(points).astype(np.intp)
    is_low = inside[z, low[:, 1], low[:, 0]][:, None]
    start = np.where(is_low, low, high).astype(np.float64)
    way = np.where(is_low, high - low, low - high).astype(np.float64)
    share = np.full(len(points), 0.5)
    for _ in range(PASSES):
        at = start + share[:, None] * way
        pull = (at[before] + at[after]) / 2.0 - at
        share = _within(share + STRENGTH * np.sum(pull * way, axis=1))
    plane = Grid((1, *inside.shape[1:]), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    n_pixels = np.asarray([np.count_nonzero(rasterise_box([ring], plane)[1]) for ring in rings], dtype=np.float64)
    for _ in range(AREA_PASSES):
        share = _widened(start, way, share, chain, n_pixels)
    return np.split(start + share[:, None] * way, first[1:])


class _Chain(NamedTuple):
    """Where the vertices of each ring begin, how many they are, and the neighbours of each vertex."""

    first: Indices
    sizes: Indices
    before: Indices
    after: Indices


def _within(share: Floats) -> Floats:
    return np.clip(share, NEAREST_SHARE, 1.0 - NEAREST_SHARE)


def _widened(start: Floats, way: Floats, share: Floats, chain: _Chain, area: Floats) -> Floats:
    """Shares after one step of Newton towards each ring's area; a vertex moves as its normal lies to its line."""
    at = start + share[:, None] * way
    following = at[chain.after]
    chord = following - at[chain.before]
    signed = 0.5 * np.add.reduceat(at[:, 0] * following[:, 1] - following[:, 0] * at[:, 1], chain.first)
    # What the signed area gains where a vertex moves along its line.
    gain = 0.5 * (way[:, 0] * chord[:, 1] - way[:, 1] * chord[:, 0])
    slant = 2.0 * gain / np.maximum(np.hypot(chord[:, 0], chord[:, 1]), 1e-9)
    reach = np.maximum(np.add.reduceat(gain * slant, chain.first), 1e-9)
    step = np.repeat((np.sign(signed) * area - signed) / reach, chain.sizes)
    return _within(share + step * slant)
