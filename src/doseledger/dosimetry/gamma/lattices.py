"""Commensurable grids, split into sub-lattices that coincide.

Of a grid of 2.5 mm on one of 3 mm, each sixth voxel lies alike in its cell. The 216 lattices of such voxels have a
spacing of five evaluation voxels each, and all their points share one table of samples by cell: the grouped search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from doseledger.core.types import Floats
from doseledger.dosimetry.gamma.grids import DosePair, normalisation_gy, whole_stride
from doseledger.dosimetry.gamma.kernels import Problem
from doseledger.dosimetry.gamma.threads import call_on_parts

if TYPE_CHECKING:
    from doseledger.dosimetry.gamma.criteria import GammaCriteria

Cut = tuple[slice, ...]
Found = TypeVar("Found")

# The tables of a lattice take some 5 ms: as long as the one-by-one search of 50 points that fail, or of thousands that
# agree. Each lattice must have this many points on average.
LATTICE_POINTS = 200


def lattice_cuts(problem: Problem, ndim: int) -> list[Cut]:
    """What cuts the reference into lattices that are commensurate with the evaluation grid.

    Empty where the grid itself is, where none of its lattices are, and where they are too many to be worth it.
    """
    if min(problem.stride) > 0:
        return []
    along = list(zip(problem.axes_mm, problem.spacing_mm, strict=True))[3 - ndim :]
    periods = [_period(axis_mm, spacing_mm) for axis_mm, spacing_mm in along]
    if min(periods) < 1 or math.prod(periods) * LATTICE_POINTS > len(problem.reference):
        return []
    return [
        tuple(slice(first, None, period) for first, period in zip(start, periods, strict=True))
        for start in itertools.product(*map(range, periods))
    ]


def map_of_lattices(
    compute: Callable[[DosePair, GammaCriteria], Floats], pair: DosePair, criteria: GammaCriteria, cuts: list[Cut]
) -> Floats:
    """A map that is computed lattice by lattice."""
    gamma = np.empty(np.shape(pair.reference_gy))
    for cut, found in zip(cuts, call_on_lattices(compute, pair, criteria, cuts), strict=True):
        gamma[cut] = found
    return gamma


def call_on_lattices(
    compute: Callable[[DosePair, GammaCriteria], Found], pair: DosePair, criteria: GammaCriteria, cuts: list[Cut]
) -> list[Found]:
    """What a computation gives for each lattice of the reference's points; 100 % stays the whole reference's."""
    norm_gy = normalisation_gy(float(np.max(pair.reference_gy)), criteria)
    whole, evaluation_gy = replace(criteria, normalisation_gy=norm_gy), np.ascontiguousarray(pair.evaluation_gy)

    def compute_lattice(cut: Cut) -> Found:
        axes_mm = [np.asarray(axis)[along] for axis, along in zip(pair.axes_reference_mm, cut, strict=True)]
        mask = None if pair.mask is None else pair.mask[cut]
        return compute(DosePair(axes_mm, pair.reference_gy[cut], pair.axes_evaluation_mm, evaluation_gy, mask), whole)

    return call_on_parts(compute_lattice, cuts, n_points=pair.reference_gy.size)


def _period(axis_mm: Floats, spacing_mm: float) -> int:
    """After how many positions an axis meets the evaluation grid's spacing alike again; 0 if after too many."""
    # A lattice needs two positions along each axis.
    for period in range(1, len(axis_mm) // 2 + 1):
        if all(whole_stride(axis_mm[first::period], spacing_mm) for first in range(period)):
            return period
    return 1 if len(axis_mm) == 1 else 0
