"""Projection of leaves and monitor units onto what the machine can deliver."""

from __future__ import annotations

import numpy as np
from numba import njit

from doseledger.core.types import Floats
from doseledger.planning.machine.linac import Machine

# Tips are rounded to this when a plan is made final; the projection keeps as much in hand.
TIP_MM = 0.01
# Monitor units keep this far from their limits, so that the final scaling to the prescription breaks none.
SCALE_ROOM = 0.15


@njit(cache=True)
def _slowed(tips, reach):  # type: ignore[no-untyped-def]
    """Make each leaf's way no steeper than its reach: the mean of the steepest ways just below and just above it."""
    n = tips.shape[0]
    for bank in range(tips.shape[1]):
        for pair in range(tips.shape[2]):
            low = tips[:, bank, pair].copy()
            high = tips[:, bank, pair].copy()
            for k in range(1, n):
                low[k] = min(low[k], low[k - 1] + reach[k - 1])
                high[k] = max(high[k], high[k - 1] - reach[k - 1])
            for k in range(n - 2, -1, -1):
                low[k] = min(low[k], low[k + 1] + reach[k])
                high[k] = max(high[k], high[k + 1] - reach[k])
            for k in range(n):
                tips[k, bank, pair] = 0.5 * (low[k] + high[k])


def feasible_leaves(leaf_mm: Floats, jaw_x_mm: tuple[float, float], reach_mm: Floats, machine: Machine) -> Floats:
    """Return leaf tips near the wanted ones that hold every limit of the leaves.

    Parameters
    ----------
    leaf_mm
        Wanted tips, (control point, bank, pair), of the pairs within the jaws.
    jaw_x_mm
        The tips stay between the jaws. No wider than the bank's span, so that it holds too.
    reach_mm
        How far a leaf gets in each segment, (control point − 1,).

    Returns
    -------
    ndarray
        Tips within the jaws, open by the least gap or more, no faster than the reach; where neighbours must not
        interdigitate, they don't.

    Notes
    -----
    The speed limit is applied by the mean of the lower and the upper Lipschitz envelope of each tip's way. Both are
    monotone and keep bounds, so that gaps, jaws and neighbours set before it hold after it.
    """
    tips = np.clip(leaf_mm, jaw_x_mm[0] + TIP_MM, jaw_x_mm[1] - TIP_MM)
    gap = machine.leaves.min_gap_mm + 2.0 * TIP_MM
    _open(tips, gap, jaw_x_mm)
    if not machine.leaves.interdigitation:
        _part_neighbours(tips, gap)
    _slowed(tips, np.asarray(reach_mm, dtype=np.float64) - 2.0 * TIP_MM)
    return tips


def _open(tips: Floats, gap: float, jaw_x_mm: tuple[float, float]) -> None:
    """Move the tips of a pair apart, evenly about their middle, where they are closer than the gap."""
    middle = 0.5 * (tips[:, 0] + tips[:, 1])
    middle = np.clip(middle, jaw_x_mm[0] + TIP_MM + 0.5 * gap, jaw_x_mm[1] - TIP_MM - 0.5 * gap)
    tight = tips[:, 1] - tips[:, 0] < gap
    tips[:, 0] = np.where(tight, middle - 0.5 * gap, tips[:, 0])
    tips[:, 1] = np.where(tight, middle + 0.5 * gap, tips[:, 1])


def _part_neighbours(tips: Floats, gap: float) -> None:
    """Pull back the tips of both banks so that no leaf passes a neighbour's opposite leaf.

    Each pair is opened to what itself and its neighbours hold in common, which needs one sweep: a left tip goes to
    the least of the neighbours' right tips less the gap, so both banks only ever open.
    """
    right = tips[:, 1].copy()
    least = right.copy()
    least[:, 1:] = np.minimum(least[:, 1:], right[:, :-1])
    least[:, :-1] = np.minimum(least[:, :-1], right[:, 1:])
    tips[:, 0] = np.minimum(tips[:, 0], least - gap)


def feasible_mu(mu: Floats, turn_deg: Floats, machine: Machine) -> Floats:
    """Return monitor units of segments within what dose rate and gantry speed allow.

    Parameters
    ----------
    mu
        Wanted monitor units, (segment,).
    turn_deg
        Gantry rotation of the segments; each must turn.
    machine
        The machine. At full gantry speed the lowest dose rate gives the least, at the lowest gantry speed the highest
        dose rate gives the most.
    """
    turn = np.abs(turn_deg)
    least = machine.dose_rate.min_mu_min / 60.0 * turn / machine.gantry.max_speed_deg_s
    most = machine.dose_rate.max_mu_min / 60.0 * turn / machine.gantry.min_speed_deg_s
    return np.clip(mu, (1.0 + SCALE_ROOM) * least, (1.0 - SCALE_ROOM) * most)
