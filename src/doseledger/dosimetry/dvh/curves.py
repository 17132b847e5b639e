"""Cumulative and differential DVHs of all structures in one pass over the dose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.core.types import Array, Floats, Integers

# Voxels that one step of the pass takes: their doses (32 kB as float32) stay in the first cache for every structure.
BLOCK_VOXELS = 8192
# Voxels that are looked at in one load of a mask of bytes.
WORD_VOXELS = 8


@dataclass(frozen=True)
class Dvh:
    """The DVH of one structure.

    Parameters
    ----------
    edges_gy
        Edges of the dose bins from 0 to above the maximum, (bin + 1,).
    bin_cc
        Volume in cm³ whose dose lies in each bin, lower edge included, (bin,): the differential DVH.
    """

    edges_gy: Floats
    bin_cc: Floats

    @property
    def volume_cc(self) -> float:
        """Volume of the structure in cm³."""
        return float(self.bin_cc.sum())

    @property
    def cumulative_cc(self) -> Floats:
        """Volume in cm³ that has at least the dose of each edge, (bin + 1,), falling to 0."""
        return np.append(np.cumsum(self.bin_cc[::-1])[::-1], 0.0)

    @property
    def cumulative_percent(self) -> Floats:
        """Percent of the volume that has at least the dose of each edge, (bin + 1,); NaN for an absent structure."""
        return 100.0 * self.cumulative_cc / self.volume_cc if self.volume_cc else np.full(len(self.edges_gy), np.nan)

    @property
    def differential_percent_per_gy(self) -> Floats:
        """Percent of the volume per Gy in each bin, (bin,); NaN for an absent structure."""
        if not self.volume_cc:
            return np.full(len(self.bin_cc), np.nan)
        return 100.0 * self.bin_cc / self.volume_cc / np.diff(self.edges_gy)


def dvh_curves(dose_gy: Array, coverages: Array, voxel_volume_cc: float, bin_gy: float) -> list[Dvh]:
    """Return the DVH of every structure, on common dose bins.

    Parameters
    ----------
    dose_gy
        Dose in Gy, (z, y, x) or any shape.
    coverages
        (structure, z, y, x): bool masks, or the part of each voxel that each structure covers, 0 to 1.
    voxel_volume_cc
        Volume of a voxel in cm³.
    bin_gy
        Width of a dose bin in Gy.

    Raises
    ------
    BadInput
        If shapes differ, or a structure's dose is negative or not finite.
    """
    if not bin_gy > 0:
        raise BadInput(f"a DVH needs a positive bin width in Gy, found {bin_gy}")
    if coverages.shape[1:] != dose_gy.shape:
        raise BadInput(f"a dose of {dose_gy.shape} voxels and structures of {coverages.shape[1:]} are not on one grid")
    dose = np.ascontiguousarray(dose_gy).reshape(-1)
    flat = np.ascontiguousarray(coverages).reshape(len(coverages), -1)
    top = float(np.max(dose, initial=0.0))
    if not np.isfinite(top):
        raise BadInput("the dose is not finite; a DVH needs a finite dose everywhere")
    # One bin more than the maximum needs, so that every curve ends at 0.
    edges = bin_gy * np.arange(int(top / bin_gy) + 3, dtype=np.float64)
    volumes: Array
    if flat.dtype == np.bool_:
        volumes = np.zeros((len(flat), len(edges)), dtype=np.int64)
        _count_voxels(dose, flat.view(np.uint8), bin_gy, volumes)
    else:
        volumes = np.zeros((len(flat), len(edges)), dtype=np.float64)
        _add_coverage(dose, flat, bin_gy, volumes)
    if volumes[:, 0].any():
        bad = np.flatnonzero(volumes[:, 0])
        raise BadInput(f"the dose is negative or not finite in the structures of index {bad.tolist()}")
    return [Dvh(edges, np.asarray(row[1:] * voxel_volume_cc, dtype=np.float64)) for row in volumes]


@njit(cache=True)
def _find_bins(dose: Array, bin_gy: float, bins: NDArray[np.int32]) -> None:
    """Write each voxel's bin, counted from 1; 0 where the dose is negative or no number. Free of branches: SIMD."""
    per_gy = 1.0 / bin_gy
    for i in range(dose.size):
        d = np.float64(dose[i])
        good = d >= 0.0
        index = np.int32(d * per_gy if good else 0.0)
        # The product may round across an edge: the edges themselves decide.
        index -= np.int32(d < index * bin_gy)
        index += np.int32(d >= (index + 1) * bin_gy)
        bins[i] = index + 1 if good else 0


@njit(cache=True)
def _count_voxels(dose: Array, masks: NDArray[np.uint8], bin_gy: float, counts: Integers) -> None:
    """Count each structure's voxels by bin; column 0 takes those without a valid dose."""
    bins, n = np.empty(BLOCK_VOXELS, np.int32), dose.size
    for start in range(0, n, BLOCK_VOXELS):
        stop = min(start + BLOCK_VOXELS, n)
        known = False
        for s in range(masks.shape[0]):
            block = masks[s, start:stop]
            # Most of a grid is outside most structures: it is passed over many voxels at a time.
            words = block[: block.size - block.size % WORD_VOXELS].view(np.uint64)
            rest = np.uint8(0)
            for i in range(words.size * WORD_VOXELS, block.size):
                rest |= block[i]
            filled = np.uint64(rest)
            for w in range(words.size):
                filled |= words[w]
            if filled == 0:
                continue
            if not known:
                _find_bins(dose[start:stop], bin_gy, bins)
                known = True
            row = counts[s]
            for w in range(words.size):
                if words[w] != 0:
                    for i in range(w * WORD_VOXELS, (w + 1) * WORD_VOXELS):
                        row[bins[i]] += block[i]
            for i in range(words.size * WORD_VOXELS, block.size):
                row[bins[i]] += block[i]


@njit(cache=True)
def _add_coverage(dose: Array, coverages: Array, bin_gy: float, volumes: Floats) -> None:
    """Add each structure's covered parts of voxels by bin; column 0 takes those without a valid dose."""
    bins, n = np.empty(BLOCK_VOXELS, np.int32), dose.size
    for start in range(0, n, BLOCK_VOXELS):
        stop = min(start + BLOCK_VOXELS, n)
        _find_bins(dose[start:stop], bin_gy, bins)
        for s in range(coverages.shape[0]):
            for i in range(start, stop):
                volumes[s, bins[i - start]] += coverages[s, i]
