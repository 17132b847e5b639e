"""A point seen from the source: its place on the blurred maps, its radiological depth, its inverse square.

A view packs what the inner loops need of one beam direction into one array, (8, 3): source, X axis, Y axis, central
axis, first node of the fan, spacing of the fan, (first X, first Y, spacing) of the maps, (cosine, sine, SAD).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.planning.geometry import BeamFrame
from doseledger.planning.kernels import Spread
from doseledger.planning.raytrace import Fan, depth_at


def view_of(frame: BeamFrame, fan: Fan, spread: Spread, collimator_deg: float) -> NDArray[np.float64]:
    """Return the view of one beam direction through one field, (8, 3)."""
    angle = np.deg2rad(collimator_deg)
    return np.array(
        [
            frame.source_xyz_mm,
            frame.across_xyz,
            frame.along_xyz,
            frame.down_xyz,
            fan.start_mm,
            fan.spacing_mm,
            [*spread.start_mm, spread.spacing_mm],
            [np.cos(angle), np.sin(angle), frame.source_axis_mm],
        ]
    )


def seen_bounds_mm(frame: BeamFrame, points_xyz: NDArray[np.floating], spreads: list[Spread]) -> NDArray[np.float64]:
    """Return least and greatest X, Y and distance in mm of points that lie within reach of any field, (2, 3)."""
    low, high = points_xyz.min(axis=0), points_xyz.max(axis=0)
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    seen = frame.project(corners)
    # The collimator may stand at any angle: what counts is the farthest corner of a map from the axis.
    reach = 0.0
    for spread in spreads:
        stop = np.asarray(spread.start_mm) + spread.spacing_mm * np.asarray(spread.shape[::-1])
        reach = max(reach, float(np.hypot(*np.maximum(np.abs(spread.start_mm), np.abs(stop)))))
    bounds = np.stack([seen.min(axis=0), seen.max(axis=0)])
    bounds[:, :2] = np.clip(bounds[:, :2], -reach, reach)
    return bounds


@njit(cache=True, fastmath=True)
def see(point, view, depth):  # type: ignore[no-untyped-def]
    """Return a point's column and row on the maps, its radiological depth in mm, and SAD over its distance."""
    rx = point[0] - view[0, 0]
    ry = point[1] - view[0, 1]
    rz = point[2] - view[0, 2]
    distance = rx * view[3, 0] + ry * view[3, 1] + rz * view[3, 2]
    scale = view[7, 2] / distance
    x = (rx * view[1, 0] + ry * view[1, 1] + rz * view[1, 2]) * scale
    y = (rx * view[2, 0] + ry * view[2, 1] + rz * view[2, 2]) * scale
    column = (x * view[7, 0] + y * view[7, 1] - view[6, 0]) / view[6, 2]
    row = (y * view[7, 0] - x * view[7, 1] - view[6, 1]) / view[6, 2]
    return column, row, depth_at(depth, view[4], view[5], x, y, distance), scale
