"""A point seen from the source: its place on the blurred maps and in the fan of depths, its inverse square.

A view packs what the inner loops need of one beam direction into one array, (9, 3), with every scale folded in: the
source; what a point's way from the source gives, over its distance, in columns and rows of the maps and in rays across
and along the fan; the central axis; the maps' first column and row with the SAD; the fan's first node; steps of the
fan per mm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doseledger.planning.geometry import BeamFrame
from doseledger.planning.kernels import Spread
from doseledger.planning.raytrace import Fan


def view_of(frame: BeamFrame, fan: Fan, spread: Spread, collimator_deg: float) -> NDArray[np.float64]:
    """Return the view of one beam direction through one field, (9, 3)."""
    angle = np.deg2rad(collimator_deg)
    map_scale = frame.source_axis_mm / spread.spacing_mm
    column = map_scale * (np.cos(angle) * frame.across_xyz + np.sin(angle) * frame.along_xyz)
    row = map_scale * (np.cos(angle) * frame.along_xyz - np.sin(angle) * frame.across_xyz)
    return np.array(
        [
            frame.source_xyz_mm,
            column,
            row,
            frame.source_axis_mm / fan.spacing_mm[0] * frame.across_xyz,
            frame.source_axis_mm / fan.spacing_mm[1] * frame.along_xyz,
            frame.down_xyz,
            [spread.start_mm[0] / spread.spacing_mm, spread.start_mm[1] / spread.spacing_mm, frame.source_axis_mm],
            fan.start_mm / fan.spacing_mm,
            [1.0 / fan.spacing_mm[2], 0.0, 0.0],
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
