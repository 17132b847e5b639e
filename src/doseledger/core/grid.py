"""Axis-aligned LPS grids: shape, spacing, origin; resampling between two.

Triples follow the array's order (z, y, x) throughout; only names that end in `_xyz` are (x, y, z). World coordinates
are DICOM patient coordinates in mm: +x to the patient's left, +y posterior, +z to the head. Every axis ascends: a
reader flips an image that descends before it makes a Grid of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.limit import keeps
from doseledger.core.types import Array, Box, Floats, Mask, Singles
from doseledger.core.types import IntTriple as IntTriple
from doseledger.core.types import Triple as Triple

# Two grids whose voxel centres lie closer than this are the same grid: DICOM decimal strings carry about 1e-4 mm.
SAME_GRID_MM = 1e-2
# 1024 × 1024 × 512: more than any scan of a patient has, and about what a machine can hold as float32.
MOST_VOXELS = 1 << 29
# Smaller than any cell: arithmetic in voxels per mm holds from there on.
LEAST_SPACING_MM = 1e-6


@dataclass(frozen=True)
class Grid:
    """An axis-aligned grid of voxels.

    Parameters
    ----------
    shape_zyx
        Number of voxels along z, y, x.
    spacing_mm
        Distance of neighbouring voxel centres along z, y, x, in mm; positive.
    origin_mm
        Centre of voxel (0, 0, 0) in mm, LPS, as (z, y, x).
    """

    shape_zyx: IntTriple
    spacing_mm: Triple
    origin_mm: Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape_zyx", tuple(int(n) for n in self.shape_zyx))
        object.__setattr__(self, "spacing_mm", tuple(float(s) for s in self.spacing_mm))
        object.__setattr__(self, "origin_mm", tuple(float(o) for o in self.origin_mm))
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
            raise BadInput(f"a grid needs three positive sizes, found {self.shape_zyx}")
        if math.prod(self.shape_zyx) > MOST_VOXELS:
            raise BadInput(
                f"a grid of {self.shape_zyx} voxels (z, y, x) is larger than any patient's, wanted at most "
                f"{MOST_VOXELS} in all; look at the pixel spacing and the slice positions"
            )
        if not all(keeps(spacing, least=LEAST_SPACING_MM) for spacing in self.spacing_mm):
            raise BadInput(f"a grid needs three positive spacings in mm, found {self.spacing_mm}")
        if len(self.origin_mm) != 3 or not np.all(np.isfinite(self.origin_mm)):
            raise BadInput(f"a grid needs a finite origin in mm, found {self.origin_mm}")

    @property
    def voxel_volume_cc(self) -> float:
        """Volume of one voxel in cm³."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def extent_mm(self) -> tuple[Triple, Triple]:
        """Centres of the first and the last voxel in mm, each (z, y, x)."""
        last = tuple(o + (n - 1) * s for o, n, s in zip(self.origin_mm, self.shape_zyx, self.spacing_mm, strict=True))
        return self.origin_mm, (last[0], last[1], last[2])

    def axes_mm(self) -> tuple[Floats, Floats, Floats]:
        """Return the voxel centres along z, y and x in mm."""
        z, y, x = (
            origin + spacing * np.arange(n, dtype=np.float64)
            for origin, spacing, n in zip(self.origin_mm, self.spacing_mm, self.shape_zyx, strict=True)
        )
        return z, y, x

    def index_to_mm(self, index_zyx: Array) -> Floats:
        """Return positions (…, 3) in mm, as (z, y, x), of fractional voxel indices (…, 3)."""
        return np.asarray(self.origin_mm) + np.asarray(index_zyx, dtype=np.float64) * np.asarray(self.spacing_mm)

    def mm_to_index(self, position_mm: Array) -> Floats:
        """Return fractional voxel indices (…, 3) of positions (…, 3) in mm, both (z, y, x)."""
        return (np.asarray(position_mm, dtype=np.float64) - np.asarray(self.origin_mm)) / np.asarray(self.spacing_mm)

    def same_as(self, other: Grid) -> bool:
        """Return whether both grids have the same voxels, to a hundredth of a mm at every corner."""
        if self.shape_zyx != other.shape_zyx:
            return False
        return bool(np.allclose(self.extent_mm, other.extent_mm, rtol=0.0, atol=SAME_GRID_MM))

    def cropped(self, start_zyx: IntTriple, shape_zyx: IntTriple) -> Grid:
        """Return the part of this grid that begins at voxel `start_zyx`.

        Raises
        ------
        BadInput
            If the part reaches beyond the grid.
        """
        stop = tuple(a + n for a, n in zip(start_zyx, shape_zyx, strict=True))
        if min(start_zyx) < 0 or any(b > n for b, n in zip(stop, self.shape_zyx, strict=True)):
            raise BadInput(f"crop {start_zyx} + {shape_zyx} reaches beyond the grid of {self.shape_zyx} voxels")
        origin = self.index_to_mm(np.asarray(start_zyx))
        return Grid(shape_zyx, self.spacing_mm, (origin[0], origin[1], origin[2]))

    def inside(self, box: Box) -> Grid:
        """Return the part of this grid in a box of voxels, as `box_around` gives it."""
        start, stop = [part.start for part in box], [part.stop for part in box]
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        return self.cropped((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))

    def resampled(self, spacing_mm: Triple) -> Grid:
        """Return a grid of another spacing over the same box of voxels (edge to edge), centred in it.

        The box is covered whole where the new spacing doesn't divide it: the outer voxels then reach beyond it by
        less than one voxel.
        """
        shape, origin = [], []
        for start, n, old, new in zip(self.origin_mm, self.shape_zyx, self.spacing_mm, spacing_mm, strict=True):
            length = n * old
            count = max(1, int(np.ceil(length / new - 1e-6)))
            centre = start + (n - 1) * old / 2.0
            shape.append(count)
            origin.append(centre - (count - 1) * new / 2.0)
        return Grid((shape[0], shape[1], shape[2]), spacing_mm, (origin[0], origin[1], origin[2]))


def box_around(mask: Mask, margin_voxels_zyx: IntTriple = (0, 0, 0)) -> Box:
    """Return the smallest box of voxels that holds a mask, widened by a margin and cut at the grid's edge.

    Raises
    ------
    BadInput
        If the mask is empty.
    """
    if not mask.any():
        raise BadInput("an empty mask has no box")
    slices = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        low = max(0, int(hit[0]) - margin_voxels_zyx[axis])
        high = min(mask.shape[axis], int(hit[-1]) + 1 + margin_voxels_zyx[axis])
        slices.append(slice(low, high))
    return slices[0], slices[1], slices[2]


# A structure that reaches beyond a dose grid by more than this part of its volume has no dose as a whole.
MOST_OUTSIDE_PERCENT = 0.1


def _within(index: Array, n: int) -> Mask:
    """Return which fractional indices lie within n voxels, each half its size beyond its centre."""
    return (index >= -0.5 - 1e-6) & (index <= n - 0.5 + 1e-6)


def box_within(grid: Grid, other: Grid) -> tuple[slice, slice, slice] | None:
    """Return the voxels of a grid whose centres lie within another one's voxels; None where there are none."""
    slices = []
    for position, origin, spacing, n in zip(
        grid.axes_mm(), other.origin_mm, other.spacing_mm, other.shape_zyx, strict=True
    ):
        there = np.flatnonzero(_within((position - origin) / spacing, n))
        if len(there) == 0:
            return None
        slices.append(slice(int(there[0]), int(there[-1]) + 1))
    return slices[0], slices[1], slices[2]


def resample_linear(array: Array, source: Grid, target: Grid, outside: float) -> Singles:
    """Return an array sampled trilinearly at the voxel centres of another grid.

    Parameters
    ----------
    array
        Values on `source`, (z, y, x).
    outside
        Value of points beyond the outermost voxel centres by more than half a source voxel; within that half voxel
        the edge value holds, as a voxel has an extent.

    Returns
    -------
    ndarray
        float32, (z, y, x) of `target`.
    """
    if array.shape != source.shape_zyx:
        raise BadInput(f"array of {array.shape} voxels does not fit its grid of {source.shape_zyx}")
    result = np.asarray(array, dtype=np.float32)
    inside = []
    # The axis that shrinks most goes first: the steps after it then work on less.
    order = sorted(range(3), key=lambda axis: target.shape_zyx[axis] / source.shape_zyx[axis])
    index_of = {}
    for axis in range(3):
        position = target.origin_mm[axis] + target.spacing_mm[axis] * np.arange(target.shape_zyx[axis])
        index = (position - source.origin_mm[axis]) / source.spacing_mm[axis]
        n = source.shape_zyx[axis]
        inside.append(_within(index, n))
        index_of[axis] = np.clip(index, 0.0, n - 1.0)
    for axis in order:
        index = index_of[axis]
        low = np.minimum(index.astype(np.intp), max(source.shape_zyx[axis] - 2, 0))
        high = np.minimum(low + 1, source.shape_zyx[axis] - 1)
        shape = [1, 1, 1]
        shape[axis] = -1
        weight = (index - low).astype(np.float32).reshape(shape)
        first = np.take(result, low, axis=axis)
        result = first + weight * (np.take(result, high, axis=axis) - first)
    outer = ~(inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :])
    result[outer] = outside
    return result
