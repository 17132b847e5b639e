"""Gamma index of two dose grids, at full resolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from doseledger.core.errors import BadInput
from doseledger.evaluate.gamma_exact import refine_points
from doseledger.evaluate.gamma_grids import (
    DosePair,
    counted_points,
    distance_to_evaluation_mm,
    farthest_mm,
    pose_problem,
    shift_voxels,
)
from doseledger.evaluate.gamma_kernels import UNREACHED, Problem, fill_map, search_cells, search_samples
from doseledger.evaluate.gamma_near import search_centres, search_near
from doseledger.evaluate.gamma_samples import (
    BLOCK_SAMPLES,
    FIRST_BLOCK_SAMPLES,
    FloatArray,
    IndexArray,
    NearTable,
    far_samples,
    group_by_cell,
    near_table,
    sample_blocks,
)

# A dose scaled by exactly the criterion gives 1 + 9e-16: rounding must not fail it. pymedphys has no such margin.
PASS_GAMMA = 1 + 1e-9

# Fewer points than this a thread are not worth starting one.
THREAD_POINTS = 5_000

# How far above the continuous minimum `exact_gamma_map` may end.
EXACT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GammaCriteria:
    """What is asked of gamma.

    Parameters
    ----------
    gamma_percent
        Dose criterion in percent: of the normalisation, or of each point's own reference dose where `local`.
    gamma_mm
        Distance criterion in mm.
    cutoff_percent
        Points whose reference dose is below this percent of the normalisation are left out (NaN).
    local
        Local in place of global dose criterion.
    interp_fraction
        Search steps per `gamma_mm`.
    max_gamma
        Gamma is searched up to this value, and larger ones are given as this value; may be infinite.
    normalisation_gy
        Dose in Gy that stands for 100 %; None for the maximum of the reference.

    Raises
    ------
    BadInput
        If a number is outside its range.
    """

    gamma_percent: float
    gamma_mm: float
    cutoff_percent: float
    local: bool
    interp_fraction: float
    max_gamma: float
    normalisation_gy: float | None = None

    def __post_init__(self) -> None:
        for name, low, strict in (
            ("gamma_percent", 0, True),
            ("gamma_mm", 0, True),
            ("cutoff_percent", 0, False),
            ("interp_fraction", 1, False),
            ("max_gamma", 1, True),
            ("normalisation_gy", 0, True),
        ):
            value = getattr(self, name)
            if name == "normalisation_gy" and value is None:
                continue
            if not (value > low or (value == low and not strict)) or (math.isinf(value) and name != "max_gamma"):
                raise BadInput(
                    f"gamma: {name} is {value}; it must be {'more than' if strict else 'at least'} {low}"
                    f"{'' if name == 'max_gamma' else ' and finite'}. Mend it in the criteria."
                )


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


def gamma_map(pair: DosePair, criteria: GammaCriteria) -> FloatArray:
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
    points = counted_points(pair, criteria)
    points = criterion_points(problem, points)
    # Off the evaluation grid, samples may or may not meet it: only the search tells.
    squared = start_squared(problem, points, criteria, reach_mm=0.0)
    _search(points, squared, problem, criteria, reach_gamma=criteria.max_gamma)
    return spread(squared, points, np.shape(pair.reference_gy), criteria.max_gamma)


def pass_rate_percent(pair: DosePair, criteria: GammaCriteria) -> GammaSummary:
    """Percent of points with gamma ≤ 1, without the map: a point is left as soon as it passes.

    Parameters, refusals and verdicts are those of `gamma_map`.

    Raises
    ------
    BadInput
        As `gamma_map`, and if no point is counted.
    """
    problem = pose_problem(pair, criteria)
    points = counted_points(pair, criteria)
    searched = criterion_points(problem, points)
    limit = PASS_GAMMA**2
    squared = np.full(len(searched), np.nextafter(limit, np.inf))
    _search(searched, squared, problem, criteria, reach_gamma=PASS_GAMMA, stop_below=limit)
    failed = searched[squared > limit]
    # A point off the evaluation grid may have no gamma at all: only the whole search tells.
    beyond_mm = distance_to_evaluation_mm(problem, failed)
    astray = failed[:0] if beyond_mm is None else failed[beyond_mm > 0]
    squared = np.full(len(astray), UNREACHED)
    _search(astray, squared, problem, criteria, reach_gamma=criteria.max_gamma)
    n_points = len(searched) - int(np.count_nonzero(squared >= UNREACHED))
    return _summary(len(searched) - len(failed), n_points, len(points) - n_points)


def summarise(gamma: FloatArray, pair: DosePair, criteria: GammaCriteria) -> GammaSummary:
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


def exact_gamma_map(pair: DosePair, criteria: GammaCriteria) -> FloatArray:
    """Gamma of each reference point over the whole trilinear evaluation dose, not only over samples of it.

    Each value lies between the continuous minimum and `EXACT_TOLERANCE` above it. Parameters, refusals and NaN are
    those of `gamma_map`; `interp_fraction` sets only where the search starts.
    """
    problem = pose_problem(pair, criteria)
    points = counted_points(pair, criteria)
    points = criterion_points(problem, points)
    reach_mm = criteria.max_gamma * criteria.gamma_mm
    squared = start_squared(problem, points, criteria, reach_mm)
    _search(points, squared, problem, criteria, reach_gamma=criteria.max_gamma)
    reached = squared < UNREACHED
    points, squared = points[reached], squared[reached]
    _in_threads(refine_points, points, squared, problem, criteria.gamma_mm, EXACT_TOLERANCE)
    return spread(squared, points, np.shape(pair.reference_gy), criteria.max_gamma)


def _search(
    points: IndexArray,
    squared: FloatArray,
    problem: Problem,
    criteria: GammaCriteria,
    *,
    reach_gamma: float,
    stop_below: float = -1.0,
) -> None:
    """Lower `squared`, the γ² of each point, by all samples out to `reach_gamma`; in place."""
    reach_mm = min(criteria.gamma_mm * reach_gamma, farthest_mm(problem))
    ndim = int(np.count_nonzero(np.array(problem.evaluation_shape) > 1))
    commensurate = min(problem.stride) > 0
    shift, spacing_mm = shift_voxels(problem), np.array(problem.spacing_mm)
    floor, from_mm, first_samples = -1.0, 0.0, FIRST_BLOCK_SAMPLES
    near = None
    if commensurate and np.array_equal(np.rint(shift), shift):
        near = _search_near(points, squared, problem, criteria, reach_mm, stop_below)
        if near is None:
            return
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
        todo = np.flatnonzero(squared > max(floor, block.distance_squared[0], stop_below))
        if len(todo) == 0:
            break
        chosen, best = points[todo], squared[todo]
        if commensurate:
            table = group_by_cell(block, shift, spacing_mm, criteria.gamma_mm)
            _in_threads(search_cells, chosen, best, problem, table, stop_below)
        else:
            _in_threads(search_samples, chosen, best, problem, block, stop_below)
        squared[todo] = best
        # Otherwise they would stay while the next block's are made.
        del todo, chosen, best


def _search_near(
    points: IndexArray,
    squared: FloatArray,
    problem: Problem,
    criteria: GammaCriteria,
    reach_mm: float,
    stop_below: float,
) -> NearTable | None:
    """Lower `squared` by the samples in the cells about each point's own voxel; None where all points are finished."""
    shift, spacing_mm = np.rint(shift_voxels(problem)), np.array(problem.spacing_mm)
    first_cell = (int(shift[0]), int(shift[1]), int(shift[2]))
    _in_threads(search_centres, points, squared, problem, first_cell)
    # The next samples are a step away.
    todo = np.flatnonzero(squared > max((1 - 1e-9) / criteria.interp_fraction**2, stop_below))
    if len(todo) == 0:
        return None
    chosen, best = points[todo], squared[todo]
    long = np.array(problem.evaluation_shape) > 1
    farthest = min(reach_mm, criteria.gamma_mm * float(np.sqrt(best.max())), float(np.linalg.norm(spacing_mm[long])))
    blocks = sample_blocks(
        criteria.gamma_mm, criteria.interp_fraction, farthest, int(np.count_nonzero(long)), first_samples=BLOCK_SAMPLES
    )
    near = near_table(next(blocks), first_cell, spacing_mm, criteria.gamma_mm)
    _in_threads(search_near, chosen, best, problem, near, stop_below)
    squared[todo] = best
    return near


def _in_threads(search: Callable[..., None], points: IndexArray, best: FloatArray, *rest: Any) -> None:
    """Run a compiled search, which lets go of Python's lock, over parts of the points; `best` is lowered in place.

    What a point gets does not hang on its neighbours (they set only the order of its search), so any number of threads
    gives one result. NUMBA_NUM_THREADS bounds that number; fan-out over cases sets it to 1.
    """
    n_threads = min(numba.config.NUMBA_NUM_THREADS, len(points) // THREAD_POINTS)
    if n_threads < 2:
        search(points, best, *rest)
        return
    # More parts than threads: hard points lie together, and one part may take far longer than another.
    parts = zip(np.array_split(points, 8 * n_threads), np.array_split(best, 8 * n_threads), strict=True)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(lambda part: search(*part, *rest), parts))


def criterion_points(problem: Problem, points: IndexArray) -> IndexArray:
    """The points with a dose criterion above zero; with local criteria, a point of zero dose has none."""
    return points if problem.threshold_gy > 0 else points[problem.reference[points] != 0]


def start_squared(problem: Problem, points: IndexArray, criteria: GammaCriteria, reach_mm: float) -> FloatArray:
    """γ² to start from: that of `max_gamma` where there is a gamma for sure, so that no more than that is searched."""
    # As float: filled with a whole `max_gamma` such as 2, the array would be one of integers and cut each γ² off.
    squared = np.full(len(points), min(float(criteria.max_gamma) ** 2, UNREACHED / 2))
    beyond_mm = distance_to_evaluation_mm(problem, points)
    if beyond_mm is not None:
        squared[beyond_mm > reach_mm] = UNREACHED
    return squared


def spread(squared: FloatArray, points: IndexArray, shape: tuple[int, ...], max_gamma: float) -> FloatArray:
    """Map of gamma from γ²: NaN where nothing was reached, no more than `max_gamma`."""
    gamma = np.empty(shape)
    fill_map(gamma.reshape(-1), squared, points, max_gamma)
    return gamma


def _summary(n_passed: int, n_points: int, n_without: int) -> GammaSummary:
    """The counts with their percentage."""
    if n_points == 0:
        raise BadInput(
            f"gamma: no point is counted ({n_without} above the cutoff without a gamma); "
            "lower cutoff_percent, widen the mask, or check that the two grids overlap."
        )
    return GammaSummary(100.0 * n_passed / n_points, n_points, n_passed, n_without)
