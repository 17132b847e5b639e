"""Starting arcs: jaws on the targets, half apertures sweeping over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from doseledger.core.plan import Arc
from doseledger.core.types import Floats, Singles
from doseledger.planning.machine.geometry import beam_frame, turned
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.patient import PlanStyle

# A full arc stops short of 180° on either side, where gantries end.
ARC_ENDS_DEG = (181.0, 179.0)
ARC_TURN_DEG = 358.0
# Sweeps of the half aperture over the target per arc, and how far it opens beyond the target.
SWEEPS = 6
APERTURE_MARGIN_MM = 4.0
OPEN_SHARE = 0.45
START_MU = 400.0


def start_arcs(
    target_xyz: Singles,
    isocentre_xyz_mm: tuple[float, float, float],
    machine: Machine,
    style: PlanStyle,
    segments_per_arc: int,
) -> tuple[Arc, ...]:
    """Return the arcs to start from, one for each collimator angle of the style, turning to and fro.

    Parameters
    ----------
    target_xyz
        Points of all targets in mm, (n, 3).
    isocentre_xyz_mm
        LPS.
    """
    arcs = []
    for a, collimator in enumerate(style.collimator_deg):
        clockwise = a % 2 == 0
        share = np.linspace(0.0, 1.0, segments_per_arc + 1)
        start, sign = (ARC_ENDS_DEG[0], 1.0) if clockwise else (ARC_ENDS_DEG[1], -1.0)
        angle = np.round(np.mod(start + sign * ARC_TURN_DEG * share, 360.0), 4).astype(np.float64)
        n = machine.leaves.n_pairs
        bare = Arc(
            name=f"ARC{a + 1}",
            gantry_deg=angle,
            clockwise=clockwise,
            collimator_deg=collimator,
            couch_deg=0.0,
            leaf_mm=np.zeros((len(angle), 2, n)),
            jaw_x_mm=(0.0, 0.0),
            jaw_y_mm=(0.0, 0.0),
            meterset_mu=START_MU * share,
            isocentre_xyz_mm=isocentre_xyz_mm,
        )
        arcs.append(_opened(bare, target_xyz, machine, style.jaw_margin_mm, (a, len(style.collimator_deg))))
    return tuple(arcs)


def _opened(arc: Arc, target_xyz: Singles, machine: Machine, margin_mm: float, turn: tuple[int, int]) -> Arc:
    """Return an arc with jaws on the target and half apertures."""
    seen = _seen(arc, target_xyz, machine)
    low = np.min([s.min(axis=0) for s in seen], axis=0) - margin_mm
    high = np.max([s.max(axis=0) for s in seen], axis=0) + margin_mm
    jaw_x = _jaws(low[0], high[0], machine.jaws.x_mm, machine.leaves.max_span_mm, turn)
    jaw_y = _jaws(low[1], high[1], machine.jaws.y_mm, np.inf, turn)
    boundary = machine.leaves.boundary_mm
    leaf = np.empty_like(arc.leaf_mm)
    for k, s in enumerate(seen):
        left, right = _row_extent(s, boundary, jaw_x, APERTURE_MARGIN_MM)
        width = OPEN_SHARE * (right - left)
        # A triangle wave from 0 to 1 and back; the other arc is half a sweep behind.
        phase = SWEEPS * k / (len(seen) - 1) + turn[0]
        place = abs(np.mod(phase, 2.0) - 1.0)
        leaf[k, 0] = left + place * (right - left - width)
        leaf[k, 1] = leaf[k, 0] + width
    return replace(arc, leaf_mm=leaf, jaw_x_mm=jaw_x, jaw_y_mm=jaw_y)


def outline_of(arc: Arc, target_xyz: Singles, machine: Machine, margin_mm: float) -> Floats:
    """Return between which tips each leaf pair sees the target, (control point, bank, pair), with a margin.

    A pair that sees none of it, or none within the jaws, has both at one place.
    """
    outline = np.empty_like(arc.leaf_mm)
    for k, seen_mm in enumerate(_seen(arc, target_xyz, machine)):
        outline[k] = _row_extent(seen_mm, machine.leaves.boundary_mm, arc.jaw_x_mm, margin_mm)
    return outline


def _seen(arc: Arc, target_xyz: Singles, machine: Machine) -> list[Floats]:
    """Return the target's points as the leaves see them at each control point, in mm, (n, 2)."""
    return [
        turned(beam_frame(arc, angle, machine.source_axis_mm).project(target_xyz), arc.collimator_deg)
        for angle in arc.gantry_deg
    ]


def _jaws(
    low: float, high: float, limit: tuple[float, float], span_mm: float, turn: tuple[int, int]
) -> tuple[float, float]:
    """Return whole-mm jaws; where the leaves' span can't cover the target, the arcs share its width."""
    if high - low > span_mm:
        number, count = turn
        share = number / max(1, count - 1)
        low += share * (high - low - span_mm)
        high = low + span_mm
    return max(limit[0], float(np.ceil(low))), min(limit[1], float(np.floor(high)))


def _row_extent(
    seen_mm: Floats, boundary_mm: Floats, jaw_x_mm: tuple[float, float], margin_mm: float
) -> tuple[Floats, Floats]:
    """Return where each leaf pair sees the target, left and right with a margin; closed at the middle elsewhere."""
    n = len(boundary_mm) - 1
    row = np.clip(np.searchsorted(boundary_mm, seen_mm[:, 1]) - 1, 0, n - 1)
    left, right = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(left, row, seen_mm[:, 0])
    np.maximum.at(right, row, seen_mm[:, 0])
    middle = float(np.clip(seen_mm[:, 0].mean(), *jaw_x_mm))
    there = right >= left
    left = np.where(there, np.clip(left - margin_mm, *jaw_x_mm), middle)
    right = np.where(there, np.clip(right + margin_mm, *jaw_x_mm), middle)
    return left, right
