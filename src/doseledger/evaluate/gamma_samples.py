"""Where gamma looks: the search offsets around a reference point, and the same offsets grouped by grid cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

# Bounds the extra memory: 56 bytes a sample. Larger searches run in several blocks of growing distance.
BLOCK_SAMPLES = 200_000

# The first block is small: where doses agree, no point goes on to the rest, whose tables need not even be made.
FIRST_BLOCK_SAMPLES = 600


class SampleBlock(NamedTuple):
    """Offsets of one range of distances, in order of growing distance.

    `offsets_mm` is (3, n) along the axes of the grid (unused leading axes are zero), `shell` (n,) counts the search
    distances from 0, `distance_squared` (n,) is (d / gamma_mm)².
    """

    offsets_mm: FloatArray
    shell: IndexArray
    distance_squared: FloatArray
    shells_per_gamma: float


class CellTable(NamedTuple):
    """Samples grouped by the cell of the evaluation grid that they fall in, nearest cell first.

    `cells` (n_cells, 3) are cell indices relative to the reference point's own index, `starts` (n_cells + 1,) slice the
    samples, `counts[cell, k]` is how many of a cell's samples (which grow in distance) belong to the block's first k
    shells, `nearest_squared` (n_cells,) is the least (d / gamma_mm)². `samples` (7, n): place in the cell as 3
    fractions, (d / gamma_mm)², 3 offsets in mm.
    """

    cells: IndexArray
    starts: IndexArray
    counts: NDArray[np.int32]
    nearest_squared: FloatArray
    samples: FloatArray
    centres: FloatArray
    sigma: tuple[float, float, float]
    first_shell: int
    shells_per_gamma: float


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


def sample_blocks(gamma_mm: float, interp_fraction: float, reach_mm: float, ndim: int) -> Iterator[SampleBlock]:
    """Blocks of search offsets out to `reach_mm`, each of at most about `BLOCK_SAMPLES` samples.

    Notes
    -----
    The layout of a shell is pymedphys' (Wendling et al. 2007, doi:10.1118/1.2721657, for the idea): 1D two points; 2D
    ceil(2πd/step) + 1 angles; 3D ceil(πd/step) + 1 elevations about the last axis, each a circle of
    ceil(2πd sin(elevation)/step) + 1 azimuths.
    """
    step_mm = gamma_mm / interp_fraction
    pieces: list[tuple[FloatArray, int, float]] = []
    n_samples, limit = 0, min(FIRST_BLOCK_SAMPLES, BLOCK_SAMPLES)
    for shell, distance_mm in enumerate(search_distances_mm(gamma_mm, interp_fraction, reach_mm)):
        for offsets_mm in _shell_pieces(distance_mm, step_mm, ndim):
            pieces.append((offsets_mm, shell, (distance_mm / gamma_mm) ** 2))
            n_samples += offsets_mm.shape[1]
            if n_samples >= limit:
                yield _block(pieces, interp_fraction)
                pieces, n_samples, limit = [], 0, BLOCK_SAMPLES
    if pieces:
        yield _block(pieces, interp_fraction)


def group_by_cell(block: SampleBlock, shift: FloatArray, spacing_mm: FloatArray, gamma_mm: float) -> CellTable:
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
    cell = np.floor(position)
    fractions = position - cell
    cell = cell.astype(np.int64)
    low = cell.min(axis=1)
    extent = cell.max(axis=1) - low + 1
    key = ((cell[0] - low[0]) * extent[1] + (cell[1] - low[1])) * extent[2] + (cell[2] - low[2])
    # Samples come in order of distance: a cell's first is its nearest, and cells rank by it. Of several values given to
    # one place the last stays, so that walking backwards leaves the first.
    first = np.full(int(np.prod(extent)), len(key))
    first[key[::-1]] = np.arange(len(key) - 1, -1, -1)
    nearest = np.sort(first[first < len(key)])
    rank = np.empty(len(first), dtype=np.uint16 if len(nearest) <= np.iinfo(np.uint16).max else np.int64)
    rank[key[nearest]] = np.arange(len(nearest))
    rank_of_sample = rank[key]
    # Of 16 bits NumPy sorts in linear time.
    order = np.argsort(rank_of_sample, kind="stable")
    first_shell = int(block.shell[0])
    n_cells, n_shells = len(nearest), int(block.shell[-1]) - first_shell + 1
    in_shell = np.bincount(
        rank_of_sample.astype(np.int64) * n_shells + (block.shell - first_shell), minlength=n_cells * n_shells
    )
    counts = np.zeros((n_cells, n_shells + 1), dtype=np.int32)
    counts[:, 1:] = np.cumsum(in_shell.reshape(n_cells, n_shells), axis=1)
    starts = np.concatenate(([0], np.cumsum(counts[:, -1], dtype=np.int64)))
    samples = np.empty((7, len(order)))
    for row, values in enumerate((*(fractions - 0.5), block.distance_squared, *block.offsets_mm)):
        np.take(values, order, out=samples[row])
    return CellTable(
        cells=np.ascontiguousarray(cell[:, nearest].T),
        starts=starts,
        counts=counts,
        nearest_squared=block.distance_squared[nearest],
        samples=samples,
        centres=np.ascontiguousarray((shift[:, None] - cell[:, nearest] - 0.5).T),
        sigma=(spacing_mm[0] / gamma_mm, spacing_mm[1] / gamma_mm, spacing_mm[2] / gamma_mm),
        first_shell=first_shell,
        shells_per_gamma=block.shells_per_gamma,
    )


def _block(pieces: list[tuple[FloatArray, int, float]], shells_per_gamma: float) -> SampleBlock:
    """One block from pieces of shells."""
    sizes = [offsets_mm.shape[1] for offsets_mm, _, _ in pieces]
    return SampleBlock(
        offsets_mm=np.concatenate([offsets_mm for offsets_mm, _, _ in pieces], axis=1),
        shell=np.repeat(np.array([shell for _, shell, _ in pieces], dtype=np.int64), sizes),
        distance_squared=np.repeat(np.array([squared for _, _, squared in pieces]), sizes),
        shells_per_gamma=float(shells_per_gamma),
    )


def _shell_pieces(distance_mm: float, step_mm: float, ndim: int) -> Iterator[FloatArray]:
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


def _sphere_pieces(distance_mm: float, step_mm: float) -> Iterator[FloatArray]:
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
