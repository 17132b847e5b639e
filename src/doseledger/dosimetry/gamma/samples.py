"""Search offsets of gamma around a reference point, and their table by cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np

from doseledger.core.types import Floats, Integers, IntTriple, Mask, Triple

# A near cell is divided into parts about as long as a search step, at most so many along an axis.
MOST_BINS = 8

# Bounds the extra memory: 56 bytes a sample. Larger searches run in several blocks of growing distance.
BLOCK_SAMPLES = 200_000

# The first block is small: where doses agree, no point goes on to the rest, whose tables need not even be made.
FIRST_BLOCK_SAMPLES = 600


# Samples of a cell are searched by so many at once, as SIMD.
CHUNK = 16


class SampleBlock(NamedTuple):
    """Offsets of one range of distances, in order of growing distance.

    `offsets_mm` is (3, n) along the axes of the grid (unused leading axes are zero), `shell` (n,) counts the search
    distances from 0, `distance_squared` (n,) is (d / gamma_mm)².
    """

    offsets_mm: Floats
    shell: Integers
    distance_squared: Floats
    shells_per_gamma: float


class CellTable(NamedTuple):
    """Samples grouped by the cell of the evaluation grid that they fall in, nearest cell first.

    `cells` (n_cells, 3) are cell indices relative to the reference point's own index, `starts` (n_cells + 1,) slice the
    samples (each cell is filled up to whole chunks by its last sample), `counts[cell, k]` is how many of a cell's
    samples (which grow in distance) belong to the block's first k shells, `nearest_squared` (n_cells,) is the least
    (d / gamma_mm)². `samples` (7, n): place in the cell as 3 fractions from its middle, (d / gamma_mm)², 3 offsets in
    mm. `distances` (n_shells,) are d / gamma_mm, `centres` (n_cells, 3) lead from a cell's middle to the point.
    """

    cells: Integers
    starts: Integers
    counts: Integers
    nearest_squared: Floats
    samples: Floats
    distances: Floats
    centres: Floats
    sigma: Triple
    first_shell: int
    shells_per_gamma: float


class NearTable(NamedTuple):
    """The samples in the eight cells about a voxel.

    `samples` (4, n) are those of `table`, mirrored so that each cell has the voxel at its low corner; `guess` gives for
    each of `bins` parts of each cell a sample in it or near it; `first_cell` is the evaluation voxel at which the
    reference grid begins.
    """

    table: CellTable
    samples: Floats
    guess: Integers
    bins: IntTriple
    first_cell: IntTriple


def search_distances_mm(gamma_mm: float, interp_fraction: float, reach_mm: float) -> Iterator[float]:
    """Growing search distances in mm: 0, then steps of gamma_mm / interp_fraction, gamma_mm itself always among them.

    Notes
    -----
    Sums of steps are rounded as pymedphys 0.41 rounds them (ten steps of 0.1 stop short of 1, so that 1 follows as a
    shell of its own): the samples, and so the map, are the same to the last digits.
    """
    step_mm = gamma_mm / interp_fraction
    distance_mm, before_gamma_mm = 0.0, True
    while distance_mm <= reach_mm:
        yield distance_mm
        distance_mm += step_mm
        if before_gamma_mm and distance_mm >= gamma_mm:
            distance_mm, before_gamma_mm = gamma_mm, False


def sample_blocks(
    gamma_mm: float,
    interp_fraction: float,
    reach_mm: float,
    ndim: int,
    *,
    from_mm: float = 0.0,
    first_samples: int = FIRST_BLOCK_SAMPLES,
) -> Iterator[SampleBlock]:
    """Blocks of search offsets from one distance out to another, each of at most about `BLOCK_SAMPLES` samples.

    The first block holds about `first_samples`.

    Notes
    -----
    The layout of a shell is pymedphys' (Wendling et al. 2007, doi:10.1118/1.2721657, for the idea): 1D two points; 2D
    ceil(2πd/step) + 1 angles; 3D ceil(πd/step) + 1 elevations about the last axis, each a circle of
    ceil(2πd sin(elevation)/step) + 1 azimuths.
    """
    step_mm = gamma_mm / interp_fraction
    pieces: list[tuple[Floats, int, float]] = []
    n_samples, limit = 0, min(first_samples, BLOCK_SAMPLES)
    for shell, distance_mm in enumerate(search_distances_mm(gamma_mm, interp_fraction, reach_mm)):
        if distance_mm < from_mm:
            continue
        for offsets_mm in _shell_pieces(distance_mm, step_mm, ndim):
            pieces.append((offsets_mm, shell, (distance_mm / gamma_mm) ** 2))
            n_samples += offsets_mm.shape[1]
            if n_samples >= limit:
                yield _block(pieces, interp_fraction)
                pieces, n_samples, limit = [], 0, BLOCK_SAMPLES
    if pieces:
        yield _block(pieces, interp_fraction)


def group_by_cell(block: SampleBlock, shift: Floats, spacing_mm: Floats, gamma_mm: float) -> CellTable:
    """The block's samples regrouped by the evaluation cell that they fall in.

    Parameters
    ----------
    block
        Samples in order of distance.
    shift
        (3,) position of the reference grid's first point on the evaluation grid, in evaluation voxels.
    spacing_mm
        (3,) spacing of the evaluation grid in mm.
    """
    position = block.offsets_mm / spacing_mm[:, None] + shift[:, None]
    cells, starts, counts, samples, distances = _sorted_by_cell(
        position, block.offsets_mm, block.shell, block.distance_squared
    )
    first = starts[:-1]
    return CellTable(
        cells=cells,
        starts=starts,
        counts=counts,
        nearest_squared=samples[3, first],
        samples=samples,
        distances=distances,
        centres=shift - cells - 0.5,
        sigma=(spacing_mm[0] / gamma_mm, spacing_mm[1] / gamma_mm, spacing_mm[2] / gamma_mm),
        first_shell=int(block.shell[0]),
        shells_per_gamma=block.shells_per_gamma,
    )


@numba.njit(cache=True, nogil=True)
def _sorted_by_cell(
    position: Floats, offsets_mm: Floats, shell: Integers, distance_squared: Floats
) -> tuple[Integers, Integers, Integers, Floats, Floats]:
    """Fields of `CellTable`: cells, starts, counts, samples, distances; each cell filled up to whole chunks."""
    n_samples, first_shell, n_shells = len(shell), shell[0], shell[-1] - shell[0] + 1
    low, extent = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        low[axis] = np.int64(np.floor(position[axis].min()))
        extent[axis] = np.int64(np.floor(position[axis].max())) - low[axis] + 1
    # Samples come in order of distance: a cell's first is its nearest, and cells rank by it.
    rank = np.full(extent[0] * extent[1] * extent[2], -1, np.int64)
    key_of_rank, rank_of_sample = np.empty(min(len(rank), n_samples), np.int64), np.empty(n_samples, np.int64)
    n_cells = 0
    for n in range(n_samples):
        key = np.int64(0)
        for axis in range(3):
            key = key * extent[axis] + np.int64(np.floor(position[axis, n])) - low[axis]
        if rank[key] < 0:
            rank[key] = n_cells
            key_of_rank[n_cells] = key
            n_cells += 1
        rank_of_sample[n] = rank[key]
    counts, distances = np.zeros((n_cells, n_shells + 1), np.int64), np.zeros(n_shells)
    for n in range(n_samples):
        counts[rank_of_sample[n], shell[n] - first_shell + 1] += 1
        distances[shell[n] - first_shell] = np.sqrt(distance_squared[n])
    cells, starts = np.empty((n_cells, 3), np.int64), np.zeros(n_cells + 1, np.int64)
    for cell in range(n_cells):
        key = key_of_rank[cell]
        for axis in (2, 1, 0):
            cells[cell, axis] = low[axis] + key % extent[axis]
            key //= extent[axis]
        for k in range(n_shells):
            counts[cell, k + 1] += counts[cell, k]
        starts[cell + 1] = starts[cell] + (counts[cell, n_shells] + CHUNK - 1) // CHUNK * CHUNK
    samples, following = np.empty((7, starts[n_cells])), starts[:-1].copy()
    for n in range(n_samples):
        cell = rank_of_sample[n]
        k = following[cell]
        following[cell] += 1
        for axis in range(3):
            samples[axis, k] = position[axis, n] - cells[cell, axis] - 0.5
            samples[4 + axis, k] = offsets_mm[axis, n]
        samples[3, k] = distance_squared[n]
    for cell in range(n_cells):
        # The last sample of a cell fills up its last chunk.
        for k in range(following[cell], starts[cell + 1]):
            samples[:, k] = samples[:, following[cell] - 1]
    return cells, starts, counts, samples, distances


def near_table(block: SampleBlock, first_cell: IntTriple, spacing_mm: Floats, gamma_mm: float) -> NearTable:
    """The block's samples in the eight cells about the point, where that is a voxel of the evaluation grid."""
    shift = np.array(first_cell, dtype=np.float64)
    table = group_by_cell(_chosen(block, _near_samples(block, shift, spacing_mm)), shift, spacing_mm, gamma_mm)
    bins = np.clip(np.ceil(np.array(table.sigma) * block.shells_per_gamma), 1, MOST_BINS).astype(np.int64)
    mirrored = table.samples[:4].copy()
    guess = _guesses(table.cells - np.array(first_cell), table.starts, mirrored, bins)
    return NearTable(table, mirrored, guess, (int(bins[0]), int(bins[1]), int(bins[2])), first_cell)


@numba.njit(cache=True, nogil=True)
def _guesses(cells: Integers, starts: Integers, samples: Floats, bins: Integers) -> Integers:
    """A sample in or near each bin of each cell; the samples of cells on the lower side are mirrored in place."""
    n_bins = bins[0] * bins[1] * bins[2]
    guess = np.full(len(cells) * n_bins, -1, np.int64)
    for cell in range(len(cells)):
        for k in range(starts[cell], starts[cell + 1]):
            key = cell
            for axis in range(3):
                if cells[cell, axis] < 0:
                    samples[axis, k] = -samples[axis, k]
                key = key * bins[axis] + min(np.int64((samples[axis, k] + 0.5) * bins[axis]), bins[axis] - 1)
            guess[key] = k
        # An empty bin takes the sample of the bin before it.
        last = starts[cell]
        for key in range(cell * n_bins, (cell + 1) * n_bins):
            if guess[key] < 0:
                guess[key] = last
            last = guess[key]
    return guess


def far_samples(block: SampleBlock, near: NearTable, spacing_mm: Floats) -> SampleBlock:
    """The block without what the near table holds."""
    first_cell = np.array(near.first_cell, dtype=np.float64)
    n_shells = len(near.table.distances)
    if block.shell[0] >= n_shells:
        return block
    return _chosen(block, (block.shell >= n_shells) | ~_near_samples(block, first_cell, spacing_mm))


def _near_samples(block: SampleBlock, shift: Floats, spacing_mm: Floats) -> Mask:
    """(n,) Which samples lie in the eight cells about the point, where the point is a voxel of the evaluation grid."""
    # As `group_by_cell` has it.
    cell = np.floor(block.offsets_mm / spacing_mm[:, None] + shift[:, None]) - shift[:, None]
    return np.all((cell >= -1) & (cell <= 0), axis=0)


def _chosen(block: SampleBlock, chosen: Mask) -> SampleBlock:
    """The part of a block."""
    return block._replace(
        offsets_mm=block.offsets_mm[:, chosen],
        shell=block.shell[chosen],
        distance_squared=block.distance_squared[chosen],
    )


def _block(pieces: list[tuple[Floats, int, float]], shells_per_gamma: float) -> SampleBlock:
    """One block from pieces of shells."""
    sizes = [offsets_mm.shape[1] for offsets_mm, _, _ in pieces]
    return SampleBlock(
        offsets_mm=np.concatenate([offsets_mm for offsets_mm, _, _ in pieces], axis=1),
        shell=np.repeat(np.array([shell for _, shell, _ in pieces], dtype=np.int64), sizes),
        distance_squared=np.repeat(np.array([squared for _, _, squared in pieces]), sizes),
        shells_per_gamma=float(shells_per_gamma),
    )


def _shell_pieces(distance_mm: float, step_mm: float, ndim: int) -> Iterator[Floats]:
    """Offsets (3, n) of one shell, in pieces of at most about `BLOCK_SAMPLES`."""
    if ndim == 1:
        line = np.array([0.0]) if distance_mm == 0 else np.array([distance_mm, -distance_mm])
        yield np.stack([np.zeros_like(line), np.zeros_like(line), line])
    elif ndim == 2:
        n_angles = math.ceil(2 * np.pi * distance_mm / step_mm) + 1
        angle = np.arange(n_angles) * (2 * np.pi / n_angles)
        yield np.stack([np.zeros(n_angles), distance_mm * np.cos(angle), distance_mm * np.sin(angle)])
    else:
        yield from _sphere_pieces(distance_mm, step_mm)


def _sphere_pieces(distance_mm: float, step_mm: float) -> Iterator[Floats]:
    """Offsets (3, n) of a spherical shell: circles of latitude about the last axis, whole circles in each piece."""
    n_rows = math.ceil(np.pi * distance_mm / step_mm) + 1
    elevation = np.linspace(0, np.pi, n_rows)
    radius_mm = distance_mm * np.sin(elevation)
    height_mm = distance_mm * np.cos(elevation)
    n_in_row = np.ceil(2 * np.pi * radius_mm / step_mm).astype(np.int64) + 1
    ends = np.cumsum(n_in_row)
    start = 0
    while start < n_rows:
        before = ends[start] - n_in_row[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK_SAMPLES)))
        rows = slice(start, stop)
        row = np.repeat(np.arange(start, min(stop, n_rows)), n_in_row[rows])
        within = np.arange(len(row)) - (ends[row] - n_in_row[row] - before)
        azimuth = within * (2 * np.pi / n_in_row[row])
        yield np.stack([radius_mm[row] * np.cos(azimuth), radius_mm[row] * np.sin(azimuth), height_mm[row]])
        start = stop
