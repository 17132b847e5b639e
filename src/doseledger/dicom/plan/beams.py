"""Beams of an RTPLAN of any kind: treating ones, meterset, moving tables."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pydicom

from doseledger.dicom.values import finite, items_of, number_of, read_items, text_of, value_of, whole

POSITION_TOLERANCE_MM = 0.01
TABLE_POSITIONS = ("TableTopLongitudinalPosition", "TableTopLateralPosition", "TableTopVerticalPosition")
# Two points lie on any line: fewer than so many show no helix. Its pitch is even to the rounding of positions.
LEAST_HELIX_POINTS = 8
PITCH_SLACK_MM = 0.1
Kind = Literal["photon", "electron", "ion", "brachy"]
KINDS: dict[Kind, str] = {
    "photon": "photon beams",
    "electron": "electron beams",
    "ion": "ion beams (RT Ion Plan)",
    "brachy": "brachytherapy",
}


def plan_kind(dataset: pydicom.Dataset) -> Kind:
    """Return which kind of plan an RTPLAN is: by the sequence that holds its beams, or its sources.

    Notes
    -----
    RT Plan Storage has BeamSequence or, for brachytherapy, ApplicationSetupSequence (PS3.3 A.20); RT Ion Plan Storage
    has IonBeamSequence (A.49).
    """
    if items_of(dataset, "IonBeamSequence"):
        return "ion"
    if items_of(dataset, "ApplicationSetupSequence") and not items_of(dataset, "BeamSequence"):
        return "brachy"
    return "photon" if _radiations(dataset) <= {"PHOTON", ""} else "electron"


def _radiations(dataset: pydicom.Dataset) -> set[str]:
    return {text_of(beam, "RadiationType") for beam in treatment_beams(dataset)}


def treatment_beams(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Beams that treat, ion beams too: portal images and setup fields are left out."""
    beams = items_of(dataset, "BeamSequence") + items_of(dataset, "IonBeamSequence")
    return [beam for beam in beams if text_of(beam, "TreatmentDeliveryType") in ("", "TREATMENT", "CONTINUATION")]


def control_points(beam: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Return the control points of a beam, of an ion beam too."""
    return items_of(beam, "ControlPointSequence") or items_of(beam, "IonControlPointSequence")


def metersets(group: pydicom.Dataset) -> dict[int, float]:
    """Return the monitor units per fraction by beam number, of the beams of a fraction group that have any."""
    given = read_items(
        group,
        "ReferencedBeamSequence",
        lambda item: (whole(item, "ReferencedBeamNumber"), number_of(item, "BeamMeterset")),
    )
    return {beam: meterset for beam, meterset in given if meterset is not None}


def couch_moves(beam: pydicom.Dataset) -> bool:
    """Return whether the table moves while a beam is on, as in helical delivery.

    Notes
    -----
    Either the table top's position changes from one control point to another (PS3.3 C.8.8.14.6), or every control point
    has an isocentre of its own that moves with the gantry's rotation, along the patient and by an even pitch.
    """
    points = control_points(beam)
    for keyword in TABLE_POSITIONS:
        given = [value for value in (number_of(point, keyword) for point in points) if value is not None]
        if given and max(given) - min(given) > POSITION_TOLERANCE_MM:
            return True
    return _is_helix(points)


def _is_helix(points: list[pydicom.Dataset]) -> bool:
    if len(points) < LEAST_HELIX_POINTS:
        return False
    places = [value_of(point, "IsocenterPosition") for point in points]
    angles = [number_of(point, "GantryAngle") for point in points]
    if any(place is None or len(place) != 3 for place in places) or None in angles:
        return False
    at = np.asarray([[finite(value) for value in place] for place in places], dtype=np.float64)
    turn = np.unwrap(np.asarray(angles, dtype=np.float64), period=360.0)
    way = at[:, 2] - at[0, 2]
    if not np.isfinite(at).all() or np.ptp(at[:, :2], axis=0).max() > POSITION_TOLERANCE_MM or np.ptp(turn) == 0:
        return False
    pitch = way[-1] / (turn[-1] - turn[0]) if turn[-1] != turn[0] else np.inf
    return bool(abs(way[-1]) > POSITION_TOLERANCE_MM and np.abs(way - pitch * (turn - turn[0])).max() <= PITCH_SLACK_MM)
