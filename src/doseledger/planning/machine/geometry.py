"""Beam frames in the patient, and points projected from the source.

The patient lies head first, supine. In LPS the gantry at angle g has its X axis along (cos g, sin g, 0), its Y axis
along +z and its source at the isocentre + SAD · (sin g, −cos g, 0); the collimator turns counter-clockwise as seen from
the source, the couch counter-clockwise as seen from above (IEC 61217).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doseledger.core.plan import Arc
from doseledger.core.types import Floats


@dataclass(frozen=True)
class BeamFrame:
    """One beam direction in the patient.

    Parameters
    ----------
    source_xyz_mm
        Position of the source, LPS.
    across_xyz, along_xyz, down_xyz
        Unit vectors of the gantry's X and Y axes, and of the central axis from the source on.
    source_axis_mm
        Distance from the source to the isocentre.
    """

    source_xyz_mm: Floats
    across_xyz: Floats
    along_xyz: Floats
    down_xyz: Floats
    source_axis_mm: float

    def project(self, points_xyz: NDArray[np.floating]) -> Floats:
        """Return points (n, 3) as (n, 3): X and Y in the isocentre plane, and distance along the axis, all in mm."""
        relative = np.asarray(points_xyz, dtype=np.float64) - self.source_xyz_mm
        distance = relative @ self.down_xyz
        scale = self.source_axis_mm / distance
        return np.stack([(relative @ self.across_xyz) * scale, (relative @ self.along_xyz) * scale, distance], axis=-1)


def beam_frame(arc: Arc, gantry_deg: float, source_axis_mm: float) -> BeamFrame:
    """Return the frame of a beam at one gantry angle, its collimator at 0."""
    gantry, couch = np.deg2rad(gantry_deg), np.deg2rad(arc.couch_deg)
    # A couch that turns counter-clockwise (seen from above) turns the beam clockwise in the patient: about LPS y
    # that is x' = x cos c + z sin c, z' = −x sin c + z cos c.
    turn = np.array(
        [[np.cos(couch), 0.0, np.sin(couch)], [0.0, 1.0, 0.0], [-np.sin(couch), 0.0, np.cos(couch)]],
    )
    across = turn @ np.array([np.cos(gantry), np.sin(gantry), 0.0])
    along = turn @ np.array([0.0, 0.0, 1.0])
    down = turn @ np.array([-np.sin(gantry), np.cos(gantry), 0.0])
    source = np.asarray(arc.isocentre_xyz_mm, dtype=np.float64) - source_axis_mm * down
    return BeamFrame(source, across, along, down, source_axis_mm)


def turned(xy_mm: Floats, collimator_deg: float) -> Floats:
    """Return positions (n, 2 or more) of the gantry's frame in the collimator's; further columns are dropped."""
    angle = np.deg2rad(collimator_deg)
    x, y = xy_mm[:, 0], xy_mm[:, 1]
    return np.stack([x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)], axis=-1)


def gantry_turn_deg(arc: Arc) -> Floats:
    """Return the signed rotation of each segment in degrees, clockwise positive; 0 for a gantry that stands still."""
    step = np.diff(arc.gantry_deg)
    if arc.clockwise is None:
        return np.zeros_like(step)
    return np.mod(step, 360.0) if arc.clockwise else -np.mod(-step, 360.0)


def gantry_at(arc: Arc, segment: int, fraction: float) -> float:
    """Return the gantry angle in [0, 360) when a fraction of a segment's meterset is delivered."""
    return float(np.mod(arc.gantry_deg[segment] + fraction * gantry_turn_deg(arc)[segment], 360.0))
