"""Gamma by pymedphys, the reference: a whole map, or spot checks of ours."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array, Floats
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair, counted_points, normalisation_gy, pose_problem


def reference_map(pair: DosePair, criteria: GammaCriteria) -> Floats:
    """Gamma of each reference point as pymedphys computes it, with the refusals of `gamma_map` before it.

    Parameters and result are those of `gamma_map`. It takes minutes and about a gigabyte where ours takes a second.
    """
    pose_problem(pair, criteria)
    reference_gy = pair.reference_gy
    kept = np.zeros(reference_gy.size, dtype=bool)
    points = counted_points(pair, criteria)
    if criteria.local:
        # pymedphys divides by zero there, and would search for ever.
        points = points[reference_gy.reshape(-1)[points] != 0]
    kept[points] = True
    # What is not to be counted goes below any cutoff; the normalisation is given, so that it does not change.
    asked = replace(pair, reference_gy=np.where(kept.reshape(reference_gy.shape), reference_gy, -1.0))
    return _pymedphys_gamma(asked, criteria, normalisation_gy(float(np.max(reference_gy)), criteria))


def verify_points(
    gamma: Floats, pair: DosePair, criteria: GammaCriteria, *, n_points: int, rng: np.random.Generator
) -> float:
    """Largest difference in gamma between a map and pymedphys at randomly drawn points that have a gamma.

    Parameters
    ----------
    gamma
        Map from `gamma_map`; points masked out there are not drawn.
    pair, criteria
        What the map was made of.
    n_points
        Points to draw; all where there are fewer.

    Returns
    -------
    Largest |difference|; infinite where pymedphys finds no gamma.

    Raises
    ------
    BadInput
        If the map has another shape than the reference, or no point with a gamma.
    """
    if gamma.shape != pair.reference_gy.shape:
        raise BadInput(
            f"gamma: the map has shape {gamma.shape}, the reference {pair.reference_gy.shape}; they must agree."
        )
    candidates = np.flatnonzero(~np.isnan(gamma))
    if n_points < 1 or len(candidates) == 0:
        raise BadInput(
            f"gamma: {n_points} points are to be verified and {len(candidates)} have a gamma; at least one of each is "
            "needed. Ask for more, or check cutoff and mask."
        )
    norm_gy = normalisation_gy(float(np.max(pair.reference_gy)), criteria)
    reach_mm = criteria.max_gamma * criteria.gamma_mm
    worst = 0.0
    for point in rng.choice(candidates, size=min(n_points, len(candidates)), replace=False):
        index = np.unravel_index(point, gamma.shape)
        place_mm = [np.asarray(axis)[[i]] for axis, i in zip(pair.axes_reference_mm, index, strict=True)]
        # Cut to what the search can reach, and a voxel or two more: pymedphys copies all that it is given.
        window = tuple(
            _window(np.asarray(axis), place[0], reach_mm)
            for axis, place in zip(pair.axes_evaluation_mm, place_mm, strict=True)
        )
        near_mm = [np.asarray(axis)[cut] for axis, cut in zip(pair.axes_evaluation_mm, window, strict=True)]
        dose_gy = np.full((1,) * gamma.ndim, pair.reference_gy[index])
        asked = DosePair(place_mm, dose_gy, near_mm, pair.evaluation_gy[window])
        found = _pymedphys_gamma(asked, criteria, norm_gy)
        difference = abs(float(found.reshape(-1)[0]) - float(gamma[index]))
        worst = max(worst, np.inf if np.isnan(difference) else difference)
    return worst


def _window(axis_mm: Array, place_mm: float, reach_mm: float) -> slice:
    """The part of an ascending axis within reach of a place, with two positions more at either end."""
    first = int(np.searchsorted(axis_mm, place_mm - reach_mm)) - 2
    last = int(np.searchsorted(axis_mm, place_mm + reach_mm)) + 2
    # A window wholly beside the grid keeps its two nearest positions, where no sample falls.
    return slice(max(0, min(first, len(axis_mm) - 2)), max(2, min(last, len(axis_mm))))


def _pymedphys_gamma(pair: DosePair, criteria: GammaCriteria, norm_gy: float) -> Floats:
    """Gamma by pymedphys itself, in float64 (given float32 it rounds gamma to float32)."""
    import pymedphys

    # It leaves stand-ins in sys.modules that import altair, black, sklearn … when any attribute is read, so that a mere
    # walk over the loaded modules (hypothesis before it draws, inspect, unittest) runs them and draws from `random`.
    for name in [name for name in sys.modules if name.startswith("pymedphys._imports.")]:
        del sys.modules[name]
    found = pymedphys.gamma(
        tuple(np.asarray(axis, dtype=np.float64) for axis in pair.axes_reference_mm),
        pair.reference_gy.astype(np.float64),
        tuple(np.asarray(axis, dtype=np.float64) for axis in pair.axes_evaluation_mm),
        pair.evaluation_gy.astype(np.float64),
        criteria.gamma_percent,
        criteria.gamma_mm,
        lower_percent_dose_cutoff=criteria.cutoff_percent,
        interp_fraction=criteria.interp_fraction,
        max_gamma=criteria.max_gamma,
        local_gamma=criteria.local,
        global_normalisation=norm_gy,
    )
    return np.asarray(found, dtype=np.float64)
