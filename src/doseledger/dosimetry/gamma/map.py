"""Gamma index of two dose grids, at full resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Floats, Integers, IntTriple
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.exact import refine_points
from doseledger.dosimetry.gamma.grids import (
    DosePair,
    counted_points,
    distance_to_evaluation_mm,
    farthest_mm,
    flat_mask,
    pose_problem,
    shared_voxel,
    shift_voxels,
)
from doseledger.dosimetry.gamma.kernels import UNREACHED, Problem, search_cells, search_samples
from doseledger.dosimetry.gamma.lattices import call_on_lattices, lattice_cuts, map_of_lattices
from doseledger.dosimetry.gamma.near import search_near
from doseledger.dosimetry.gamma.points import Bounds, fill_points, open_points
from doseledger.dosimetry.gamma.samples import (
    BLOCK_SAMPLES,
    FIRST_BLOCK_SAMPLES,
    NearTable,
    far_samples,
    group_by_cell,
    near_table,
    sample_blocks,
)
from doseledger.dosimetry.gamma.threads import search_in_threads

# A dose scaled by exactly the criterion gives 1 + 9e-16: rounding must not fail it. pymedphys has no such margin.
PASS_GAMMA = 1 + 1e-9

# Bounds the extra memory: 24 bytes for each point that is searched at once.
POINTS_AT_ONCE = 250_000

# How far above the continuous minimum `exact_gamma_map` may end.
EXACT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GammaSummary:
    """Pass rate: percent of counted points with gamma ≤ 1.

    `n_points` counts the points at or above the cutoff that have a gamma, `n_passed` those that pass, `n_without` those
    at or above the cutoff that have none (out of the evaluation grid's reach, or local criteria at zero dose), which
    are not counted.
    """

    pass_rate_percent: float
    n_points: int
    n_passed: int
    n_without: int


def gamma_map(pair: DosePair, criteria: GammaCriteria) -> Floats:
    """Gamma of each reference point (no unit), NaN below the cutoff.

    Parameters
    ----------
    pair
        The two doses on their grids; the reference's points are asked.
    criteria
        Percent, mm, cutoff and the like.

    Returns
    -------
    (shape of the reference) float64. NaN below the cutoff, outside the mask, where the evaluation grid is out of reach,
    and, with local criteria, at zero dose.

    Raises
    ------
    BadInput
        If an axis descends, is uneven or does not match its dose, if a dose is not finite, if no reference dose is
        above zero, or if an infinite `max_gamma` meets a reference that reaches beyond the evaluation grid.

    Notes
    -----
    The definition and the samples are those of pymedphys 0.41 (gamma_shell) given float64 doses: γ² = (Δdose /
    criterion)² + (d / gamma_mm)², least over shells of distance d around the point, the evaluation dose interpolated
    linearly. The order of the search differs: samples are grouped by grid cell, and a cell that can't hold a smaller γ
    is skipped whole.
    """
    problem = pose_problem(pair, criteria)
    if cuts := lattice_cuts(problem, len(pair.axes_reference_mm)):
        return map_of_lattices(gamma_map, pair, criteria, cuts)
    # The next samples are a step away.
    finished = (1 - 1e-9) / criteria.interp_fraction**2
    # Off the evaluation grid, samples may or may not meet it: only the search tells.
    gamma, points, squared = open_map(pair, problem, criteria, finished=finished, reach_mm=0.0)
    _search(points, squared, problem, criteria, reach_gamma=criteria.max_gamma)
    fill_points(gamma.reshape(-1), points, squared, criteria.max_gamma)
    return gamma


def pass_rate_percent(pair: DosePair, criteria: GammaCriteria) -> GammaSummary:
    """Percent of points with gamma ≤ 1, without the map: a point is left as soon as it passes.

    Parameters, refusals and verdicts are those of `gamma_map`.

    Raises
    ------
    BadInput
        As `gamma_map`, and if no point is counted.
    """
    return _summary(*_count_passed(pair, criteria))


def _count_passed(pair: DosePair, criteria: GammaCriteria) -> IntTriple:
    """The counts of `GammaSummary`: points that pass, that have a gamma, and that have none."""
    problem = pose_problem(pair, criteria)
    if cuts := lattice_cuts(problem, len(pair.axes_reference_mm)):
        counts = call_on_lattices(_count_passed, pair, criteria, cuts)
        return sum(count[0] for count in counts), sum(count[1] for count in counts), sum(count[2] for count in counts)
    limit = PASS_GAMMA**2
    bounds = Bounds(start=float(np.nextafter(limit, np.inf)), finished=limit)
    asked = open_points(problem, flat_mask(pair), bounds, shared_voxel(problem), np.empty(0))
    squared = np.full(len(asked.points), bounds.start)
    _search(asked.points, squared, problem, criteria, reach_gamma=PASS_GAMMA, stop_below=limit)
    failed = asked.points[squared > limit]
    # A point off the evaluation grid may have no gamma at all: only the whole search tells.
    beyond_mm = distance_to_evaluation_mm(problem, failed)
    astray = failed[:0] if beyond_mm is None else failed[beyond_mm > 0]
    squared = np.full(len(astray), UNREACHED)
    _search(astray, squared, problem, criteria, reach_gamma=criteria.max_gamma)
    n_points = asked.n_asked - int(np.count_nonzero(squared >= UNREACHED))
    return asked.n_asked - len(failed), n_points, asked.n_counted - n_points


def summarise(gamma: Floats, pair: DosePair, criteria: GammaCriteria) -> GammaSummary:
    """Percent of points with gamma ≤ 1 in a map, the same numbers as `pass_rate_percent` gives.

    Parameters
    ----------
    gamma
        Map from `gamma_map`.
    pair, criteria
        What the map was made of.

    Raises
    ------
    BadInput
        If no point is counted.
    """
    values = gamma.reshape(-1)[counted_points(pair, criteria)]
    n_points = int(np.count_nonzero(~np.isnan(values)))
    return _summary(int(np.count_nonzero(values <= PASS_GAMMA)), n_points, len(values) - n_points)


def exact_gamma_map(pair: DosePair, criteria: GammaCriteria) -> Floats:
    """Gamma of each reference point over the whole trilinear evaluation dose, not only over samples of it.

    Each value lies between the continuous minimum and `EXACT_TOLERANCE` above it. Parameters, refusals and NaN are
    those of `gamma_map`; `interp_fraction` sets only where the search starts.
    """
    problem = pose_problem(pair, criteria)
    if cuts := lattice_cuts(problem, len(pair.axes_reference_mm)):
        return map_of_lattices(exact_gamma_map, pair, criteria, cuts)
    reach_mm = criteria.max_gamma * criteria.gamma_mm
    gamma, points, squared = open_map(pair, problem, criteria, finished=-1.0, reach_mm=reach_mm)
    _search(points, squared, problem, criteria, reach_gamma=criteria.max_gamma)
    # What nothing has reached so far is out of reach.
    reached = squared < UNREACHED
    refined = squared[reached]
    search_in_threads(refine_points, points[reached], refined, problem, criteria.gamma_mm, EXACT_TOLERANCE)
    squared[reached] = refined
    fill_points(gamma.reshape(-1), points, squared, criteria.max_gamma)
    return gamma


def open_map(
    pair: DosePair, problem: Problem, criteria: GammaCriteria, *, finished: float, reach_mm: float
) -> tuple[Floats, Integers, Floats]:
    """A map that is filled but for the points still to be searched; these, and the γ² of each so far.

    A point at which γ² is at most `finished` at its own voxel is done. The γ² of the others starts from that of
    `max_gamma` where there is a gamma for sure, so that no more than that is searched: not where a point lies further
    than `reach_mm` off the evaluation grid.
    """
    gamma = np.full(np.shape(pair.reference_gy), np.nan)
    # As float: from a whole `max_gamma` such as 2, the compiler would make another kernel, of integers.
    bounds = Bounds(start=min(float(criteria.max_gamma) ** 2, UNREACHED / 2), finished=finished)
    points = open_points(problem, flat_mask(pair), bounds, shared_voxel(problem), gamma.reshape(-1)).points
    squared = gamma.reshape(-1)[points]
    beyond_mm = distance_to_evaluation_mm(problem, points)
    if beyond_mm is not None:
        # What has found a γ at its own voxel has one, though rounding put it beside the grid.
        squared[(beyond_mm > reach_mm) & (squared >= bounds.start)] = UNREACHED
    return gamma, points, squared


def _search(
    points: Integers,
    squared: Floats,
    problem: Problem,
    criteria: GammaCriteria,
    *,
    reach_gamma: float,
    stop_below: float = -1.0,
) -> None:
    """Lower `squared`, the γ² of each point, by all samples out to `reach_gamma`; in place.

    Where the grids share their voxels, each point has been looked at where it stands.
    """
    if len(points) == 0:
        return
    reach_mm = min(criteria.gamma_mm * reach_gamma, farthest_mm(problem))
    ndim = int(np.count_nonzero(np.array(problem.evaluation_shape) > 1))
    commensurate = min(problem.stride) > 0
    shift, spacing_mm = shift_voxels(problem), np.array(problem.spacing_mm)
    floor, from_mm, first_samples = -1.0, 0.0, FIRST_BLOCK_SAMPLES
    near = _search_near(points, squared, problem, criteria, reach_mm, stop_below)
    if near is not None:
        # All samples nearer than a voxel, as far as the near table goes, were in the cells about the point.
        extent_mm = float(spacing_mm[np.array(problem.evaluation_shape) > 1].min())
        from_mm = (1 - 1e-9) * min(extent_mm, criteria.gamma_mm * float(near.table.distances[-1]))
        floor, first_samples = (from_mm / criteria.gamma_mm) ** 2, BLOCK_SAMPLES
        reach_mm = min(reach_mm, criteria.gamma_mm * float(np.sqrt(squared.max())))
    for whole in sample_blocks(
        criteria.gamma_mm, criteria.interp_fraction, reach_mm, ndim, from_mm=from_mm, first_samples=first_samples
    ):
        block = whole if near is None else far_samples(whole, near, spacing_mm)
        if len(block.shell) == 0:
            continue
        # Nothing at this distance or beyond can lower what is already smaller than the distance alone.
        nearest = max(floor, block.distance_squared[0], stop_below)
        if squared.max() <= nearest:
            break
        if commensurate:
            table = group_by_cell(block, shift, spacing_mm, criteria.gamma_mm)
            _search_open(search_cells, points, squared, nearest, problem, table, stop_below)
        else:
            _search_open(search_samples, points, squared, nearest, problem, block, stop_below)


def _search_open(search: Callable[..., None], points: Integers, squared: Floats, nearest: float, *rest: Any) -> None:
    """Run a compiled search of the points whose γ² is more than `nearest`, some at a time: they are copied out."""
    for first in range(0, len(points), POINTS_AT_ONCE):
        part = slice(first, first + POINTS_AT_ONCE)
        todo = np.flatnonzero(squared[part] > nearest)
        best = squared[part][todo]
        search_in_threads(search, points[part][todo], best, *rest)
        squared[part][todo] = best


def _search_near(
    points: Integers,
    squared: Floats,
    problem: Problem,
    criteria: GammaCriteria,
    reach_mm: float,
    stop_below: float,
) -> NearTable | None:
    """Lower `squared` by the samples in the cells about each point's own voxel; None where the grids share none."""
    first_cell = shared_voxel(problem)
    if first_cell is None:
        return None
    spacing_mm = np.array(problem.spacing_mm)
    long = np.array(problem.evaluation_shape) > 1
    farthest = min(reach_mm, criteria.gamma_mm * float(np.sqrt(squared.max())), float(np.linalg.norm(spacing_mm[long])))
    blocks = sample_blocks(
        criteria.gamma_mm, criteria.interp_fraction, farthest, int(np.count_nonzero(long)), first_samples=BLOCK_SAMPLES
    )
    near = near_table(next(blocks), first_cell, spacing_mm, criteria.gamma_mm)
    search_in_threads(search_near, points, squared, problem, near, stop_below)
    return near


def _summary(n_passed: int, n_points: int, n_without: int) -> GammaSummary:
    """The counts with their percentage."""
    if n_points == 0:
        raise BadInput(
            f"gamma: no point is counted ({n_without} above the cutoff without a gamma); "
            "lower cutoff_percent, widen the mask, or check that the two grids overlap."
        )
    return GammaSummary(100.0 * n_passed / n_points, n_points, n_passed, n_without)
