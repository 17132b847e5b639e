"""Positions of parallel planes: which of them are one plane, and how far apart planes are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.float64]
# Positions are decimal strings, and some systems round them to 0.1 mm: so far apart they may say the same.
ROUNDED_MM = 0.1
# Contours nearer than this are on one plane: two roundings to 0.1 mm, and the 0.01 to 0.1 mm that systems add.
SAME_PLANE_MM = 0.25
# On thin slices the tolerance is this part of their distance, so that planes stay apart.
SAME_PLANE_SHARE = 0.25
# Differences of doubles, no distances.
TINY_MM = 1e-6


def same_plane_mm(step_mm: float) -> float:
    """Return how near two positions in mm are one plane, where planes lie `step_mm` apart.

    Examples
    --------
    >>> same_plane_mm(3.0), same_plane_mm(0.5)
    (0.25, 0.125)
    """
    return min(SAME_PLANE_MM, SAME_PLANE_SHARE * step_mm)


def find_planes(position_mm: Positions, within_mm: float = SAME_PLANE_MM) -> tuple[Positions, NDArray[np.intp]]:
    """Return the planes that positions lie on, and which plane each position is on.

    Parameters
    ----------
    position_mm
        Positions along the planes' normal in mm, (n,), in any order.
    within_mm
        Neighbouring positions no farther apart than this are on one plane.

    Returns
    -------
    planes_mm
        Median position of each plane, rising, (plane,).
    plane_of
        Index of its plane for each position, (n,).

    Notes
    -----
    A run of positions, each near the next, may be longer than any rounding explains: these are planes finer than
    the tolerance, and are told apart at a quarter of their own distance.

    Examples
    --------
    >>> planes_mm, plane_of = find_planes(np.array([3.06, 0.0, 3.0, 0.1]))
    >>> planes_mm.round(2).tolist(), plane_of.tolist()
    ([0.05, 3.03], [1, 0, 1, 0])
    """
    order = np.argsort(position_mm, kind="stable")
    rising = np.asarray(position_mm, dtype=np.float64)[order]
    gaps = np.diff(rising)
    is_new = gaps > within_mm + TINY_MM
    starts = np.concatenate([[0], np.flatnonzero(is_new) + 1, [len(rising)]])
    for start, stop in pairwise(starts.tolist()):
        if stop - start > 1 and rising[stop - 1] - rising[start] > 2 * within_mm + TINY_MM:
            run = slice(start, stop - 1)
            is_new[run] = gaps[run] > SAME_PLANE_SHARE * gaps[run].max()
    number = np.concatenate([[0], np.cumsum(is_new)]).astype(np.intp)
    plane_of = np.empty(len(rising), dtype=np.intp)
    plane_of[order] = number
    edges = np.flatnonzero(np.concatenate([[True], is_new]))
    planes_mm = np.asarray([float(np.median(part)) for part in np.split(rising, edges[1:])])
    return planes_mm, plane_of


def common_step_mm(planes_mm: Positions) -> float | None:
    """Return the commonest distance of neighbouring planes in mm, the least of several; None for one plane.

    Parameters
    ----------
    planes_mm
        Rising positions, (plane,).

    Notes
    -----
    Distances that differ by no more than rounding does are one; their mean is returned.

    Examples
    --------
    >>> round(common_step_mm(np.array([0.0, 1.3, 2.5, 3.8, 5.0, 11.0])), 3)
    1.25
    """
    gaps = np.sort(np.diff(planes_mm))
    if len(gaps) == 0:
        return None
    # How far a gap may be from another one and still be the same, thin slices considered.
    slack = np.minimum(ROUNDED_MM, SAME_PLANE_SHARE * gaps) + TINY_MM
    first = np.searchsorted(gaps, gaps - slack, side="left")
    stop = np.searchsorted(gaps, gaps + slack, side="right")
    best = int(np.argmax(stop - first))
    return float(gaps[first[best] : stop[best]].mean())


def even_planes(planes_mm: Positions, step_mm: float) -> tuple[Positions, float] | None:
    """Return planes put at even steps, gaps left out, and the step in mm; None where they are uneven.

    Parameters
    ----------
    planes_mm
        Rising positions, (plane,).
    step_mm
        Distance of neighbouring planes, about.

    Notes
    -----
    A line of least squares through position over number: rounding moves it less than it moves single planes.

    Examples
    --------
    >>> even, step = even_planes(np.array([0.0, 1.3, 2.5, 3.8, 7.5]), 1.25)
    >>> even.round(1).tolist(), round(step, 2)
    ([0.0, 1.3, 2.5, 3.8, 7.5], 1.25)
    """
    steps = np.rint(np.diff(planes_mm) / step_mm)
    if len(planes_mm) < 2 or steps.min() < 1:
        return None
    number = np.concatenate([[0.0], np.cumsum(steps)])
    centred = number - number.mean()
    step = float(centred @ planes_mm / (centred @ centred))
    even = planes_mm.mean() + step * centred
    off_mm = max(float(np.abs(even - planes_mm).max()), abs(step - step_mm))
    if off_mm > same_plane_mm(step_mm) + TINY_MM:
        return None
    return even, step
