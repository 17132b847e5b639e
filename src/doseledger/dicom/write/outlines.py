"""Masks and surfaces to closed planar contours, holes joined by keyholes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.types import Indices, Mask
from doseledger.dicom.contours import rasterise
from doseledger.dicom.write.smooth import smooth_rings

Polygon = NDArray[np.float64]
# A vertex closer than this to the line between its neighbours says nothing; planning systems round to 0.01 mm.
STRAIGHT_MM = 0.03
THINNING_PASSES = 3
# Contours are rounded to this many digits of a mm.
DECIMALS = 2
# On fine pixels the tolerance is this part of one.
STRAIGHT_SHARE = 0.02


def find_outlines(surface: NDArray[Any], grid: Grid, *, smooth: bool = False) -> dict[int, list[Polygon]]:
    """Return the contours of a structure on each slice that it meets, in mm.

    Parameters
    ----------
    surface
        (z, y, x) on `grid`: a bool mask, or a float field, negative inside, whose zero is the surface (a signed
        distance, say). Contours cross between pixel centres: halfway for a mask, where the field is 0 otherwise.
    smooth
        Take the steps of a mask's pixels out, and keep each contour's area that of its pixels.

    Returns
    -------
    dict
        Polygons (vertex, 2), as (x, y) in mm LPS, not closed by a repeated vertex, by slice index. The even-odd rule
        at the pixel centres gives the mask back.

    Raises
    ------
    BadInput
        If the surface does not fit the grid.
    """
    if surface.shape != grid.shape_zyx:
        raise BadInput(f"a surface of {surface.shape} voxels does not fit its grid of {grid.shape_zyx}")
    inside = surface if surface.dtype == np.bool_ else surface < 0
    slices = np.flatnonzero(inside.any(axis=(1, 2)))
    drawn = _smooth_outlines(inside, slices, grid) if smooth and surface.dtype == np.bool_ else {}
    return {k: drawn.get(k) or _slice_outlines(surface[k], inside[k], grid) for k in slices.tolist()}


def _smooth_outlines(inside: Mask, slices: Indices, grid: Grid) -> dict[int, list[Polygon]]:
    """A mask's contours without its pixels' steps, of the slices that they give back."""
    padded = np.pad(inside, ((0, 0), (1, 1), (1, 1)))
    rings: list[Polygon] = []
    # Where the rings of each polygon begin, by slice.
    first: dict[int, list[int]] = {}
    for k in slices.tolist():
        values = np.where(padded[k], -1.0, 1.0)
        found = contour_generator(z=values, name="serial", fill_type=FillType.OuterOffset).filled(-np.inf, 0.0)
        first[k] = []
        for points, offsets in zip(*found, strict=True):
            first[k].append(len(rings))
            # Every ring repeats its first vertex at its end.
            rings += [points[a : b - 1] for a, b in pairwise(offsets)]
    bounds = [*(start for starts in first.values() for start in starts), len(rings)]
    slice_of = np.repeat(list(first), [len(starts) for starts in first.values()])
    origin, pixel = np.asarray(grid.origin_mm)[:0:-1], np.asarray(grid.spacing_mm)[:0:-1]
    straight_mm = min(STRAIGHT_MM, STRAIGHT_SHARE * float(pixel.min()))
    smoothed = smooth_rings(rings, np.repeat(slice_of, np.diff(bounds)).tolist(), padded)
    in_mm = [_thinned(np.round(origin + pixel * (ring - 1.0), DECIMALS), straight_mm) for ring in smoothed]
    drawn: dict[int, list[Polygon]] = {k: [] for k in first}
    for k, (a, b) in zip(slice_of.tolist(), pairwise(bounds), strict=True):
        drawn[k].append(_keyholed(in_mm[a], in_mm[a + 1 : b]))
    return {k: polygons for k, polygons in drawn.items() if np.array_equal(rasterise(polygons, grid), inside[k])}


def _slice_outlines(surface: NDArray[Any], inside: NDArray[np.bool_], grid: Grid) -> list[Polygon]:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    pixel_mm = grid.spacing_mm[2]
    field = np.where(inside[box], -pixel_mm, pixel_mm) if surface.dtype == np.bool_ else surface[box]
    # A ring of outside around the box closes every contour. It takes the neighbouring pixels' own values where there
    # are some; a field of 0 at a pixel centre would put a vertex on it, in doubt between inside and outside.
    padded = np.full((field.shape[0] + 2, field.shape[1] + 2), pixel_mm, dtype=np.float64)
    top, left = rows[0] - 1, columns[0] - 1
    if surface.dtype != np.bool_:
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(rows[-1] + 2, surface.shape[0]), min(columns[-1] + 2, surface.shape[1])
        padded[y0 - top : y1 - top, x0 - left : x1 - left] = surface[y0:y1, x0:x1]
    padded[1:-1, 1:-1] = field
    padded[padded == 0.0] = 1e-6
    x = grid.origin_mm[2] + pixel_mm * (left + np.arange(padded.shape[1]))
    y = grid.origin_mm[1] + grid.spacing_mm[1] * (top + np.arange(padded.shape[0]))
    generator = contour_generator(x, y, padded, name="serial", fill_type=FillType.OuterOffset)
    polygons = []
    for points, offsets in zip(*generator.filled(-np.inf, 0.0), strict=True):
        # Every ring repeats its first vertex at its end.
        rings = [_thinned(points[a : b - 1]) for a, b in pairwise(offsets)]
        polygons.append(_keyholed(rings[0], rings[1:]))
    return polygons


def _thinned(ring: Polygon, straight_mm: float = STRAIGHT_MM) -> Polygon:
    """Drop vertices on a straight line, every second one a pass, so that no two neighbours go at once."""
    for turn in range(THINNING_PASSES):
        if len(ring) < 8:
            break
        before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
        chord, leg = after - before, ring - before
        length = np.hypot(chord[:, 0], chord[:, 1])
        deviation = np.abs(chord[:, 0] * leg[:, 1] - chord[:, 1] * leg[:, 0]) / np.maximum(length, 1e-9)
        drop = deviation < straight_mm
        drop[turn % 2 :: 2] = False
        # With an odd number of vertices the last and the first are neighbours of one parity.
        drop[-1] &= not drop[0]
        ring = ring[~drop]
    return ring


def _keyholed(outer: Polygon, holes: list[Polygon]) -> Polygon:
    """Join each hole to the outer ring by a channel of no width at their nearest vertices (PS3.3 C.8.8.6.3)."""
    ring = outer
    for hole in holes:
        distance = np.hypot(ring[:, None, 0] - hole[None, :, 0], ring[:, None, 1] - hole[None, :, 1])
        i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
        turned = np.roll(hole, -int(j), axis=0)
        ring = np.concatenate([ring[: i + 1], turned, turned[:1], ring[i:]])
    return ring
