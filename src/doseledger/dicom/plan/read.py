"""RTPLAN to a deliverable plan, its prescription and a summary."""

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
from doseledger.dicom.plan.beams import (
    KINDS,
    POSITION_TOLERANCE_MM,
    control_points,
    couch_moves,
    metersets,
    plan_kind,
    treatment_beams,
)
from doseledger.dicom.source import in_file
from doseledger.dicom.values import (
    finite,
    items_of,
    listed,
    number_of,
    read_items,
    text_of,
    value_of,
    what_is,
    whole,
    whole_of,
)

# A machine without jaws along the leaves (Elekta's) is limited by its leaves alone: the widest field is 40 cm.
WIDEST_FIELD_MM = 200.0
ANGLE_TOLERANCE_DEG = 0.05
JAWS_X, JAWS_Y = ("ASYMX", "X"), ("ASYMY", "Y")
# What a control point may leave out, and then has from the one before.
FILLED = (
    *("CumulativeMetersetWeight", "GantryAngle", "GantryRotationDirection", "IsocenterPosition"),
    *("BeamLimitingDeviceAngle", "PatientSupportAngle"),
)


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
    with in_file(dataset, case_id):
        n_fractions = dict(read_items(dataset, "FractionGroupSequence", _fractions))
        if not n_fractions:
            raise BadCase(case_id, "the RTPLAN has no fraction group; export the plan again")
        targets = read_items(dataset, "DoseReferenceSequence", _target)
        return Prescription(n_fractions, [target for target in targets if target is not None])


def _fractions(group: pydicom.Dataset) -> tuple[int, int]:
    return whole(group, "FractionGroupNumber"), whole_of(group, "NumberOfFractionsPlanned") or 0


def _target(reference: pydicom.Dataset) -> TargetDose | None:
    kind = text_of(reference, "DoseReferenceType"), text_of(reference, "DoseReferenceStructureType")
    if kind[0] != "TARGET" or kind[1] not in ("VOLUME", "SITE"):
        return None
    dose = number_of(reference, "TargetPrescriptionDose")
    if dose is None:
        return None
    return TargetDose(dose, whole_of(reference, "ReferencedROINumber"), text_of(reference, "DoseReferenceDescription"))


def summarise_plan(dataset: pydicom.Dataset) -> dict[str, Any]:
    """Return what meta says of a plan: number of beams and control points, MU per fraction, technique, energies.

    Notes
    -----
    Unlike `read_plan` it takes any plan: wedges and electrons, ions, brachytherapy. `technique` is `arc` where a gantry
    turns while the beam is on, `helical` where the table moves too, `imrt` where only the leaves move, `ion`, `brachy`,
    else `static`. Energies are MV, of electrons MeV and of ions MeV a nucleon.
    """
    beams = treatment_beams(dataset)
    kind = plan_kind(dataset)
    points = [point for beam in beams for point in control_points(beam)]
    turning = any(text_of(point, "GantryRotationDirection") in ("CW", "CC") for point in points)
    energies = {number_of(point, "NominalBeamEnergy") for point in points} - {None}
    groups = items_of(dataset, "FractionGroupSequence")
    technique = "imrt" if any(text_of(beam, "BeamType") == "DYNAMIC" for beam in beams) else "static"
    if kind in ("ion", "brachy"):
        technique = kind
    elif turning:
        technique = "helical" if any(map(couch_moves, beams)) else "arc"
    return {
        "n_beams": len(beams),
        "n_control_points": len(points),
        "mu_per_fraction": round(sum(sum(metersets(group).values()) for group in groups), 3),
        "technique": technique,
        "radiation": sorted({text_of(beam, "RadiationType") for beam in beams}),
        "energies_mv": sorted(energy for energy in energies if energy is not None),
        "approval": text_of(dataset, "ApprovalStatus"),
    }


def read_plan(dataset: pydicom.Dataset, case_id: str, fraction_group: int | None = None) -> Plan:
    """Return the plan of an RTPLAN: every control point of every treatment beam of one fraction group.

    Parameters
    ----------
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
    with in_file(dataset, case_id):
        chosen, meterset, beams = _beams_of(dataset, case_id, fraction_group)
        energies = {_first(beam, "NominalBeamEnergy", case_id) for beam in beams}
        if len(energies) > 1:
            raise BadCase(case_id, f"the RTPLAN's beams have energies {sorted(energies)}; one energy is supported")
        prescription = read_prescription(dataset, case_id)
        return Plan(
            label=text_of(dataset, "RTPlanLabel"),
            machine=text_of(beams[0], "TreatmentMachineName"),
            energy_mv=energies.pop(),
            arcs=tuple(_read_arc(beam, meterset[whole(beam, "BeamNumber")], case_id) for beam in beams),
            n_fractions=prescription.n_fractions[chosen],
            prescription_gy={
                target.description or f"ROI {target.roi_number}": target.dose_gy for target in prescription.targets
            },
        )


def read_leaf_boundaries(
    dataset: pydicom.Dataset, case_id: str, fraction_group: int | None = None
) -> list[NDArray[np.float64] | None]:
    """Return the edges of the leaf pairs of each beam of `read_plan` in mm, (pair + 1,); None where it says none.

    Raises
    ------
    BadCase
        As `read_plan`.
    """
    with in_file(dataset, case_id):
        _, _, beams = _beams_of(dataset, case_id, fraction_group)
        return [_boundaries(beam) for beam in beams]


def _boundaries(beam: pydicom.Dataset) -> NDArray[np.float64] | None:
    for item in items_of(beam, "BeamLimitingDeviceSequence"):
        edges = _floats(item, "LeafPositionBoundaries")
        if text_of(item, "RTBeamLimitingDeviceType") == "MLCX" and len(edges) > 1 and np.all(np.diff(edges) > 0):
            return edges
    return None


def _beams_of(
    dataset: pydicom.Dataset, case_id: str, fraction_group: int | None
) -> tuple[int, dict[int, float], list[pydicom.Dataset]]:
    """The number of a fraction group, its metersets by beam number, and its treatment beams."""
    kind = plan_kind(dataset)
    if kind in ("ion", "brachy"):
        raise BadCase(case_id, f"the RTPLAN is one of {KINDS[kind]}; photon beams with leaves are supported")
    groups = dict(read_items(dataset, "FractionGroupSequence", lambda g: (whole(g, "FractionGroupNumber"), g)))
    if fraction_group is None and len(groups) != 1:
        raise BadCase(case_id, f"the RTPLAN has fraction groups {sorted(groups)}; name the one that is wanted")
    chosen = next(iter(groups)) if fraction_group is None else fraction_group
    if chosen not in groups:
        raise BadCase(case_id, f"the RTPLAN has no fraction group {chosen}; it has {sorted(groups)}")
    meterset = metersets(groups[chosen])
    beams = [beam for beam in treatment_beams(dataset) if whole(beam, "BeamNumber") in meterset]
    if not beams:
        raise BadCase(case_id, f"fraction group {chosen} of the RTPLAN has no treatment beam with a BeamMeterset")
    return chosen, meterset, beams


def _who(beam: pydicom.Dataset) -> str:
    return f"beam {text_of(beam, 'BeamName') or text_of(beam, 'BeamNumber')}"


def _first(beam: pydicom.Dataset, keyword: str, case_id: str) -> float:
    points = control_points(beam)
    value = number_of(points[0], keyword) if points else None
    if value is None:
        raise BadCase(case_id, f"{_who(beam)}: the first control point has no {keyword}")
    return value


def _read_arc(beam: pydicom.Dataset, meterset_mu: float, case_id: str) -> Arc:
    who = _who(beam)
    _check_plain(beam, who, case_id)
    points = list(_filled_points(beam))
    final = number_of(beam, "FinalCumulativeMetersetWeight") or 0.0
    weights = _each(points, "CumulativeMetersetWeight", 1, who, case_id)[:, 0]
    if not final > 0 or breaks(np.diff(weights), least=0.0).any():
        raise BadCase(case_id, f"{who}: cumulative meterset falls, or ends at {final}; the plan can't be delivered")
    n = len(points)
    jaws = np.column_stack([_jaws(points, JAWS_X, who, case_id), _jaws(points, JAWS_Y, who, case_id)])
    held = bool(np.ptp(jaws, axis=0).max() <= POSITION_TOLERANCE_MM)
    turns = [point.get("GantryRotationDirection") for point in points]
    turn = next((t for t in turns if t in ("CW", "CC")), None)
    isocentre = _held(points, "IsocenterPosition", POSITION_TOLERANCE_MM, who, case_id)
    return Arc(
        name=text_of(beam, "BeamName") or text_of(beam, "BeamNumber"),
        gantry_deg=_each(points, "GantryAngle", 1, who, case_id)[:, 0] % 360.0,
        clockwise=None if turn is None else turn == "CW",
        collimator_deg=float(_held(points, "BeamLimitingDeviceAngle", ANGLE_TOLERANCE_DEG, who, case_id)[0]),
        couch_deg=float(_held(points, "PatientSupportAngle", ANGLE_TOLERANCE_DEG, who, case_id)[0]),
        leaf_mm=_leaves(points, who, case_id).reshape(n, 2, -1),
        jaw_x_mm=(float(jaws[:, 0].min()), float(jaws[:, 1].max())),
        jaw_y_mm=(float(jaws[:, 2].min()), float(jaws[:, 3].max())),
        meterset_mu=weights / final * meterset_mu,
        isocentre_xyz_mm=(float(isocentre[0]), float(isocentre[1]), float(isocentre[2])),
        moving_jaws_mm=None if held else jaws,
    )


def _check_plain(beam: pydicom.Dataset, who: str, case_id: str) -> None:
    """Refuse what an Arc can't hold."""
    radiation = text_of(beam, "RadiationType") or None
    if radiation != "PHOTON":
        raise BadCase(case_id, f"{who}: radiation is {radiation}, wanted PHOTON")
    for keyword in ("NumberOfWedges", "NumberOfCompensators", "NumberOfBoli", "NumberOfBlocks"):
        count = whole_of(beam, keyword) or 0
        if count:
            raise BadCase(case_id, f"{who}: {keyword} is {count}; modulation by leaves alone is supported")
    devices = {text_of(item, "RTBeamLimitingDeviceType") for item in items_of(beam, "BeamLimitingDeviceSequence")}
    strange = devices - {*JAWS_X, *JAWS_Y, "MLCX"}
    if strange:
        raise BadCase(case_id, f"{who}: beam limiting device {sorted(strange)}; leaves along X (MLCX) are supported")
    if couch_moves(beam):
        raise BadCase(case_id, f"{who}: the table moves during the beam (helical delivery), which is not supported")
    found, said = len(control_points(beam)), whole_of(beam, "NumberOfControlPoints") or 0
    if found != said or found < 2:
        raise BadCase(case_id, f"{who}: {found} control points, the beam says {said}, wanted the same and ≥ 2")


def _filled_points(beam: pydicom.Dataset) -> Iterator[dict[str, Any]]:
    """Control points with what they leave out filled from the one before; device positions under `devices`."""
    state: dict[str, Any] = {"devices": {}}
    for point in control_points(beam):
        devices = dict(state["devices"])
        for item in items_of(point, "BeamLimitingDevicePositionSequence"):
            devices[text_of(item, "RTBeamLimitingDeviceType")] = _floats(item, "LeafJawPositions")
        said = {keyword: value_of(point, keyword) for keyword in FILLED if value_of(point, keyword) is not None}
        state = {**state, **said, "devices": devices}
        yield state


def _floats(item: pydicom.Dataset, keyword: str) -> NDArray[np.float64]:
    """All numbers of an attribute; NaN where one is none."""
    return np.asarray([finite(v) for v in listed(value_of(item, keyword))], dtype=np.float64)


def _each(points: list[dict[str, Any]], keyword: str, count: int, who: str, case_id: str) -> NDArray[np.float64]:
    """An attribute's numbers at each control point, (control point, count)."""
    rows = []
    for index, point in enumerate(points):
        value = point.get(keyword)
        if value is None:
            raise BadCase(case_id, f"{who}: no {keyword}")
        row = [finite(v) for v in listed(value)]
        if len(row) != count or None in row:
            odd = f" but {what_is(value)}" if None in row else f" but {len(row)}"
            wanted = "a finite number" if count == 1 else f"{count} finite numbers"
            raise BadCase(case_id, f"{who}, control point {index}: {keyword} is not {wanted}{odd}; export again")
        rows.append(row)
    return np.asarray(rows, dtype=np.float64)


def _held(points: list[dict[str, Any]], keyword: str, tolerance: float, who: str, case_id: str) -> NDArray[np.float64]:
    """A value that all control points share."""
    values = _each(points, keyword, 3 if keyword == "IsocenterPosition" else 1, who, case_id)
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
            found = f"at {pair.tolist()} mm" if pair.shape == (2,) else f"have {pair.size} positions"
            raise BadCase(case_id, f"{who}: jaws {names[0]} {found}, wanted two rising positions")
        pairs.append(pair)
    return np.stack(pairs)


def _leaves(points: list[dict[str, Any]], who: str, case_id: str) -> NDArray[np.float64]:
    """Leaf tips, (control point, tip): DICOM lists bank X1 whole, then X2; no tip where the beam has no leaves."""
    tips = [point["devices"].get("MLCX", np.empty(0)) for point in points]
    if len({len(row) for row in tips}) > 1 or len(tips[0]) % 2 or not np.isfinite(np.concatenate(tips)).all():
        raise BadCase(case_id, f"{who}: leaf positions (MLCX) are not one finite pair a leaf at each control point")
    return np.stack(tips)
