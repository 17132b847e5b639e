"""RTPLAN -> the deliverable plan as data, its prescription, and a summary that even an unusual plan has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from doseledger.core.errors import BadCase
from doseledger.core.limit import breaks
from doseledger.core.plan import Arc, Plan

# A machine without jaws along the leaves (Elekta's) is limited by its leaves alone: the widest field is 40 cm.
WIDEST_FIELD_MM = 200.0
ANGLE_TOLERANCE_DEG = 0.05
POSITION_TOLERANCE_MM = 0.01
JAWS_X, JAWS_Y = ("ASYMX", "X"), ("ASYMY", "Y")


@dataclass(frozen=True)
class TargetDose:
    """One prescribed dose of a plan.

    Parameters
    ----------
    dose_gy
        Target Prescription Dose (300A,0026), total.
    roi_number
        The ROI that it is for; None where the plan doesn't say.
    description
        Dose Reference Description; may be empty.
    """

    dose_gy: float
    roi_number: int | None
    description: str


@dataclass(frozen=True)
class Prescription:
    """What a plan prescribes: fractions by fraction group number, and doses."""

    n_fractions: dict[int, int]
    targets: list[TargetDose]


def read_prescription(dataset: pydicom.Dataset, case_id: str) -> Prescription:
    """Return the fractions and the prescribed doses of an RTPLAN.

    Raises
    ------
    BadCase
        If it has no fraction group.

    Notes
    -----
    DICOM PS3.3 C.8.8.10 (RT Prescription) and C.8.8.13 (RT Fraction Scheme). Doses to a point (calculation points,
    Dose Reference Structure Type POINT or COORDINATES) are no prescription of a target.
    """
    groups = dataset.get("FractionGroupSequence") or []
    if not groups:
        raise BadCase(case_id, "the RTPLAN has no fraction group; export the plan again")
    n_fractions = {int(g.FractionGroupNumber): int(g.get("NumberOfFractionsPlanned") or 0) for g in groups}
    targets = []
    for reference in dataset.get("DoseReferenceSequence") or []:
        dose = reference.get("TargetPrescriptionDose")
        kind = (reference.get("DoseReferenceType"), reference.get("DoseReferenceStructureType"))
        if dose is None or kind[0] != "TARGET" or kind[1] not in ("VOLUME", "SITE"):
            continue
        number = reference.get("ReferencedROINumber")
        description = str(reference.get("DoseReferenceDescription") or "").strip()
        targets.append(TargetDose(float(dose), None if number is None else int(number), description))
    return Prescription(n_fractions, targets)


def treatment_beams(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Beams that treat: portal images and setup fields are left out."""
    beams = dataset.get("BeamSequence") or []
    return [beam for beam in beams if beam.get("TreatmentDeliveryType") in (None, "", "TREATMENT", "CONTINUATION")]


def _metersets(group: pydicom.Dataset) -> dict[int, float]:
    """Monitor units per fraction by beam number, of the beams that have any."""
    references = group.get("ReferencedBeamSequence") or []
    return {int(r.ReferencedBeamNumber): float(r.BeamMeterset) for r in references if r.get("BeamMeterset") is not None}


def summarise_plan(dataset: pydicom.Dataset) -> dict[str, Any]:
    """Return what meta says of a plan: number of beams and control points, MU per fraction, technique, energies.

    Notes
    -----
    Unlike `read_plan` it takes any plan, wedges and electrons included. `technique` is `arc` where a gantry turns
    while the beam is on, `imrt` where only the leaves move, else `static`.
    """
    beams = treatment_beams(dataset)
    turning = any(
        point.get("GantryRotationDirection") in ("CW", "CC")
        for beam in beams
        for point in beam.get("ControlPointSequence") or []
    )
    dynamic = any(beam.get("BeamType") == "DYNAMIC" for beam in beams)
    energies = {
        float(point.NominalBeamEnergy)
        for beam in beams
        for point in beam.get("ControlPointSequence") or []
        if point.get("NominalBeamEnergy") is not None
    }
    groups = dataset.get("FractionGroupSequence") or []
    return {
        "n_beams": len(beams),
        "n_control_points": sum(len(beam.get("ControlPointSequence") or []) for beam in beams),
        "mu_per_fraction": round(sum(sum(_metersets(group).values()) for group in groups), 3),
        "technique": "arc" if turning else "imrt" if dynamic else "static",
        "radiation": sorted({str(beam.get("RadiationType") or "") for beam in beams}),
        "energies_mv": sorted(energies),
        "approval": str(dataset.get("ApprovalStatus") or ""),
    }


def read_plan(dataset: pydicom.Dataset, case_id: str, fraction_group: int | None = None) -> Plan:
    """Return the plan of an RTPLAN: every control point of every treatment beam of one fraction group.

    Parameters
    ----------
    dataset
        The RTPLAN.
    case_id
        Who the errors name.
    fraction_group
        Fraction Group Number; None where the plan has just one.

    Raises
    ------
    BadCase
        If the plan says something that a `Plan` can't hold (wedges, blocks, electrons, a collimator or couch that
        turns, several energies), or lacks what it needs.

    Notes
    -----
    DICOM PS3.3 C.8.8.14: an attribute that a control point leaves out has the value of the control point before it.
    """
    groups = {int(g.FractionGroupNumber): g for g in dataset.get("FractionGroupSequence") or []}
    if fraction_group is None and len(groups) != 1:
        raise BadCase(case_id, f"the RTPLAN has fraction groups {sorted(groups)}; name the one that is wanted")
    number = next(iter(groups)) if fraction_group is None else fraction_group
    if number not in groups:
        raise BadCase(case_id, f"the RTPLAN has no fraction group {number}; it has {sorted(groups)}")
    meterset = _metersets(groups[number])
    beams = [beam for beam in treatment_beams(dataset) if int(beam.BeamNumber) in meterset]
    if not beams:
        raise BadCase(case_id, f"fraction group {number} of the RTPLAN has no treatment beam with a meterset")
    energies = {_first(beam, "NominalBeamEnergy", case_id) for beam in beams}
    if len(energies) > 1:
        raise BadCase(case_id, f"the RTPLAN's beams have energies {sorted(energies)}; one energy is supported")
    prescription = read_prescription(dataset, case_id)
    return Plan(
        label=str(dataset.get("RTPlanLabel") or ""),
        machine=str(beams[0].get("TreatmentMachineName") or ""),
        energy_mv=energies.pop(),
        arcs=tuple(_read_arc(beam, meterset[int(beam.BeamNumber)], case_id) for beam in beams),
        n_fractions=prescription.n_fractions[number],
        prescription_gy={
            target.description or f"ROI {target.roi_number}": target.dose_gy for target in prescription.targets
        },
    )


def _first(beam: pydicom.Dataset, keyword: str, case_id: str) -> float:
    value = beam.ControlPointSequence[0].get(keyword) if beam.get("ControlPointSequence") else None
    if value is None:
        raise BadCase(case_id, f"beam {beam.get('BeamName')}: the first control point has no {keyword}")
    return float(value)


def _read_arc(beam: pydicom.Dataset, meterset_mu: float, case_id: str) -> Arc:
    who = f"beam {beam.get('BeamName')}"
    _check_plain(beam, who, case_id)
    points = list(_filled_points(beam))
    final = float(beam.get("FinalCumulativeMetersetWeight") or 0.0)
    weights = np.asarray([point["CumulativeMetersetWeight"] for point in points], dtype=np.float64)
    if not final > 0 or breaks(np.append(np.diff(weights), final), least=0.0).any():
        raise BadCase(case_id, f"{who}: cumulative meterset falls, or ends at {final}; the plan can't be delivered")
    n = len(points)
    jaws = np.column_stack([_jaws(points, JAWS_X, who, case_id), _jaws(points, JAWS_Y, who, case_id)])
    held = bool(np.ptp(jaws, axis=0).max() <= POSITION_TOLERANCE_MM)
    turns = [point.get("GantryRotationDirection") for point in points]
    turn = next((t for t in turns if t in ("CW", "CC")), None)
    isocentre = _held(points, "IsocenterPosition", POSITION_TOLERANCE_MM, who, case_id)
    return Arc(
        name=str(beam.get("BeamName") or beam.BeamNumber),
        gantry_deg=np.asarray([float(point["GantryAngle"]) for point in points]) % 360.0,
        clockwise=None if turn is None else turn == "CW",
        collimator_deg=float(_held(points, "BeamLimitingDeviceAngle", ANGLE_TOLERANCE_DEG, who, case_id)[0]),
        couch_deg=float(_held(points, "PatientSupportAngle", ANGLE_TOLERANCE_DEG, who, case_id)[0]),
        leaf_mm=np.stack([_leaves(point) for point in points]).reshape(n, 2, -1),
        jaw_x_mm=(float(jaws[:, 0].min()), float(jaws[:, 1].max())),
        jaw_y_mm=(float(jaws[:, 2].min()), float(jaws[:, 3].max())),
        meterset_mu=weights / final * meterset_mu,
        isocentre_xyz_mm=(float(isocentre[0]), float(isocentre[1]), float(isocentre[2])),
        moving_jaws_mm=None if held else jaws,
    )


def _check_plain(beam: pydicom.Dataset, who: str, case_id: str) -> None:
    """Refuse what an Arc can't hold."""
    if beam.get("RadiationType") != "PHOTON":
        raise BadCase(case_id, f"{who}: radiation is {beam.get('RadiationType')}, wanted PHOTON")
    for keyword in ("NumberOfWedges", "NumberOfCompensators", "NumberOfBoli", "NumberOfBlocks"):
        if int(beam.get(keyword) or 0):
            raise BadCase(case_id, f"{who}: {keyword} is {beam.get(keyword)}; modulation by leaves alone is supported")
    devices = {str(item.RTBeamLimitingDeviceType) for item in beam.get("BeamLimitingDeviceSequence") or []}
    strange = devices - {*JAWS_X, *JAWS_Y, "MLCX"}
    if strange:
        raise BadCase(case_id, f"{who}: beam limiting device {sorted(strange)}; leaves along X (MLCX) are supported")
    found, said = len(beam.get("ControlPointSequence") or []), int(beam.get("NumberOfControlPoints") or 0)
    if found != said or found < 2:
        raise BadCase(case_id, f"{who}: {found} control points, the beam says {said}, wanted the same and ≥ 2")


def _filled_points(beam: pydicom.Dataset) -> Iterator[dict[str, Any]]:
    """Control points with what they leave out filled from the one before; device positions under `devices`."""
    state: dict[str, Any] = {"devices": {}}
    for point in beam.ControlPointSequence:
        devices = dict(state["devices"])
        for item in point.get("BeamLimitingDevicePositionSequence") or []:
            positions = np.asarray([float(v) for v in item.LeafJawPositions], dtype=np.float64)
            devices[str(item.RTBeamLimitingDeviceType)] = positions
        said = {element.keyword: element.value for element in point if element.VR != "SQ" and element.value is not None}
        state = {**state, **said, "devices": devices}
        yield state


def _held(points: list[dict[str, Any]], keyword: str, tolerance: float, who: str, case_id: str) -> NDArray[np.float64]:
    """A value that all control points share."""
    if any(keyword not in point for point in points):
        raise BadCase(case_id, f"{who}: no {keyword}")
    values = np.asarray([np.atleast_1d(np.asarray(p[keyword], dtype=np.float64)) for p in points])
    if breaks(np.ptp(values, axis=0), most=tolerance).any():
        raise BadCase(case_id, f"{who}: {keyword} changes during the beam, which is not supported")
    first: NDArray[np.float64] = values[0]
    return first


def _jaws(points: list[dict[str, Any]], names: tuple[str, ...], who: str, case_id: str) -> NDArray[np.float64]:
    """Positions of a pair of jaws, (control point, 2), wide open where the machine has none."""
    pairs = []
    for point in points:
        given = [point["devices"][name] for name in names if name in point["devices"]]
        pair = given[0] if given else np.asarray([-WIDEST_FIELD_MM, WIDEST_FIELD_MM])
        if pair.shape != (2,) or not pair[0] <= pair[1]:
            raise BadCase(case_id, f"{who}: jaws {names[0]} at {pair.tolist()} mm, wanted two rising positions")
        pairs.append(pair)
    return np.stack(pairs)


def _leaves(point: dict[str, Any]) -> NDArray[np.float64]:
    """Leaf tips, (bank, pair): DICOM lists bank X1 whole, then X2; no pair where the beam has no leaves."""
    tips: NDArray[np.float64] = point["devices"].get("MLCX", np.empty(0))
    return tips.reshape(2, -1)
