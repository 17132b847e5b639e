"""Beam's-eye coordinates of points: map index, depth index, inverse square.

A view packs what the inner loops need of one beam direction into one array, (9, 3), with every scale folded in. Row 0
is the source. Rows 1 and 2 are what a point's way from it gives, over its distance, in columns and rows of the maps;
row 3 gives the distance, row 4 is the maps' first column and row and the SAD. Rows 5 and 6 are what the way gives, over
what row 7 gives, in rays across and along the fan; row 7 gives steps of the fan; row 8 is its first node.
"""

from __future__ import annotations

import numpy as np

from doseledger.core.types import Singles
from doseledger.planning.dose.kernels import Spread
from doseledger.planning.dose.raytrace import Fan
from doseledger.planning.machine.geometry import BeamFrame


def view_of(frame: BeamFrame, fan: Fan, spread: Spread, collimator_deg: float) -> Singles:
    """Return the view of one beam direction through one field, (9, 3)."""
    angle = np.deg2rad(collimator_deg)
    map_scale = frame.source_axis_mm / spread.spacing_mm
    column = map_scale * (np.cos(angle) * frame.across_xyz + np.sin(angle) * frame.along_xyz)
    row = map_scale * (np.cos(angle) * frame.along_xyz - np.sin(angle) * frame.across_xyz)
    fan_scale = frame.source_axis_mm / fan.spacing_mm / fan.spacing_mm[2]
    view = [
        frame.source_xyz_mm,
        column,
        row,
        frame.down_xyz,
        [spread.start_mm[0] / spread.spacing_mm, spread.start_mm[1] / spread.spacing_mm, frame.source_axis_mm],
        fan_scale[0] * fan.frame.across_xyz,
        fan_scale[1] * fan.frame.along_xyz,
        fan.frame.down_xyz / fan.spacing_mm[2],
        fan.start_mm / fan.spacing_mm,
    ]
    return np.array(view, dtype=np.float32)


def reach_mm(spreads: list[Spread]) -> float:
    """Return how far from the axis the maps of fields go in mm, whatever the angle of their collimators."""
    reach = 0.0
    for spread in spreads:
        stop = np.asarray(spread.start_mm) + spread.spacing_mm * np.asarray(spread.shape[::-1])
        reach = max(reach, float(np.hypot(*np.maximum(np.abs(spread.start_mm), np.abs(stop)))))
    return reach
