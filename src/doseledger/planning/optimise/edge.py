"""Steps between neighbouring leaves, the edge that modulation adds."""

from __future__ import annotations

import numpy as np

from doseledger.core.types import Floats

# A step counts as its length, but for the first mm or so, where it counts by its square: the slope has no jump.
ROUNDED_MM = 1.0


def mean_step_mm(leaf_mm: Floats) -> tuple[Floats, Floats]:
    """Return the mean step between neighbouring tips of a bank in mm, and its slope by each tip.

    Parameters
    ----------
    leaf_mm
        Tips, (control point, bank, pair).

    Returns
    -------
    tuple
        One for each control point, (control point,), and the slopes, of the shape of `leaf_mm`; 0 for a single pair.

    Notes
    -----
    √(step² + 1 mm²) − 1 mm, the pseudo-Huber function (P. Charbonnier et al., IEEE Trans Image Process 6:298, 1997).
    """
    step = np.diff(leaf_mm, axis=2)
    slope = np.zeros(leaf_mm.shape)
    if step.shape[2] == 0:
        return np.zeros(len(leaf_mm)), slope
    length, count = np.hypot(step, ROUNDED_MM), step.shape[1] * step.shape[2]
    by_step = step / length / count
    slope[:, :, 1:] += by_step
    slope[:, :, :-1] -= by_step
    return (length - ROUNDED_MM).sum(axis=(1, 2)) / count, slope
