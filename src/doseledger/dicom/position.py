"""Patient positions: image axes, and machine angles of a plan.

Patient coordinates (LPS) do not turn with the patient, so masks, contours and doses are the same in every position;
what differs is the order of an image's rows and slices, and the machine's angles for one direction in the patient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from doseledger.core.errors import BadInput
from doseledger.core.plan import Arc, Plan

Position = Literal["HFS", "HFP", "FFS", "FFP"]
# Direction cosines of an axial image's rows and columns, as scanners write them in each position (DICOM PS3.3
# C.7.6.2.1.1). Their cross product is the order of the slices: to the head when it enters first, else to the feet.
IMAGE_AXES: dict[str, tuple[float, ...]] = {
    "HFS": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "HFP": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "FFS": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "FFP": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
}
# From a head-first supine plan: gantry = sign · gantry + offset, collimator + turn. IEC 61217's Y axis points to the
# gantry, its Z axis up; a position fixes both in the patient (feet first: Y = −z; prone: Z = +y), hence X = Y × Z, the
# source's direction (sin γ, 0, cos γ) and the collimator's axes at γ.
_TURN: dict[str, tuple[int, float, float]] = {
    "HFS": (1, 0.0, 0.0),
    "HFP": (1, 180.0, 0.0),
    "FFS": (-1, 0.0, 180.0),
    "FFP": (-1, 180.0, 180.0),
}


def check_position(text: str) -> Position:
    """Return a patient position that can be written.

    Raises
    ------
    BadInput
        For a decubitus or unknown position.
    """
    for position in get_args(Position):
        if text == position:
            return position
    raise BadInput(f"patient position {text!r}: wanted one of {', '.join(get_args(Position))}")


def turn_plan(plan: Plan, position: Position) -> Plan:
    """Return the plan with the machine angles that give the same beams in a patient who lies in another position.

    The map is its own inverse: it turns a plan written for `position` into its head-first supine equivalent too.

    Raises
    ------
    BadInput
        If the couch is turned: its angle then mixes with the gantry's.
    """
    return plan if position == "HFS" else replace(plan, arcs=tuple(_turn_arc(arc, position) for arc in plan.arcs))


def _turn_arc(arc: Arc, position: Position) -> Arc:
    if arc.couch_deg != 0.0:
        raise BadInput(f"arc {arc.name}: couch at {arc.couch_deg:g}°; only a plan with its couch at 0° can be turned")
    sign, offset, turn = _TURN[position]
    clockwise = arc.clockwise if arc.clockwise is None or sign > 0 else not arc.clockwise
    gantry = (sign * arc.gantry_deg + offset) % 360.0
    return replace(arc, gantry_deg=gantry, clockwise=clockwise, collimator_deg=(arc.collimator_deg + turn) % 360.0)
