"""Plans of arcs and static fields as RTPLAN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import RTPlanStorage

from doseledger.core.errors import BadInput
from doseledger.core.plan import Arc, Plan
from doseledger.core.types import Floats
from doseledger.dicom.plan.source_to_skin import Body, source_to_skin_mm
from doseledger.dicom.position import turn_plan
from doseledger.dicom.write.objects import Study, decimal, decimals, new_object, refer_to

# 1e-4 mm and 1e-8 of the meterset: a dose recomputed from the file then differs by far less than 0.01 Gy.
LEAF_DECIMALS = 4
WEIGHT_DECIMALS = 10


@dataclass(frozen=True)
class BeamDevice:
    """What an RTPLAN says of the machine besides its name.

    Parameters
    ----------
    leaf_boundary_mm
        Edges of the leaf pairs along Y, (pair + 1,), ascending.
    source_axis_mm
        Distance from the source to the isocentre.
    """

    leaf_boundary_mm: NDArray[np.float64]
    source_axis_mm: float


def make_plan(
    study: Study,
    plan: Plan,
    device: BeamDevice,
    structures: Dataset,
    roi_numbers: Mapping[str, int],
    body: Body | None = None,
) -> Dataset:
    """Return the RTPLAN of a plan.

    Parameters
    ----------
    study
        Identity and links.
    plan
        Angles as for a patient head first and supine; they are written for the study's position.
    device
        The machine's leaves and distance.
    structures
        The structure set that was planned on.
    roi_numbers
        Number of the ROI of each target in `plan.prescription_gy`.
    body
        The patient's outline, for the distance from the source to the skin; None leaves it out.

    Raises
    ------
    BadInput
        If a target has no ROI number, or leaves and boundaries do not fit.

    Notes
    -----
    Cumulative meterset weights run from 0 to 1, the monitor units stand in the fraction group (PS3.3 C.8.8.14.1).
    Later control points repeat only what moves: gantry, with the distance to the skin, leaves, and jaws that follow
    the aperture.
    """
    missing = [name for name in plan.prescription_gy if name not in roi_numbers]
    if missing:
        raise BadInput(f"{study.patient_id}: no ROI for the prescribed target {', '.join(missing)}")
    turned = turn_plan(plan, study.position)
    ds = new_object(study, RTPlanStorage, "RTPLAN", "rtplan")
    ds.RTPlanLabel, ds.RTPlanDate, ds.RTPlanTime = plan.label, "", ""
    ds.InstanceNumber, ds.RTPlanGeometry, ds.PlanIntent = 1, "PATIENT", "RESEARCH"
    ds.ApprovalStatus = "UNAPPROVED"
    ds.ReferencedStructureSetSequence = [refer_to(structures)]
    ds.DoseReferenceSequence = [
        _dose_reference(study, number, roi_numbers[name], dose)
        for number, (name, dose) in enumerate(plan.prescription_gy.items(), 1)
    ]
    setup = Dataset()
    setup.PatientSetupNumber, setup.PatientPosition = 1, study.position
    ds.PatientSetupSequence = [setup]
    # The outline lies in the patient, where the beams of the plan as it came are those of the turned one.
    skin = [source_to_skin_mm(arc, body, device.source_axis_mm) if body else None for arc in plan.arcs]
    ds.BeamSequence = [
        _beam(number, arc, turned, device, skin_mm)
        for number, (arc, skin_mm) in enumerate(zip(turned.arcs, skin, strict=True), 1)
    ]
    group = Dataset()
    group.FractionGroupNumber, group.NumberOfFractionsPlanned = 1, plan.n_fractions
    group.NumberOfBeams, group.NumberOfBrachyApplicationSetups = len(plan.arcs), 0
    group.ReferencedBeamSequence = [
        _beam_reference(number, float(arc.meterset_mu[-1])) for number, arc in enumerate(plan.arcs, 1)
    ]
    ds.FractionGroupSequence = [group]
    return ds


def _dose_reference(study: Study, number: int, roi_number: int, dose_gy: float) -> Dataset:
    item = Dataset()
    item.DoseReferenceNumber, item.DoseReferenceUID = number, study.uid("dose reference", number)
    item.DoseReferenceStructureType, item.ReferencedROINumber = "VOLUME", roi_number
    item.DoseReferenceType, item.TargetPrescriptionDose = "TARGET", decimal(dose_gy, 4)
    return item


def _beam_reference(number: int, meterset_mu: float) -> Dataset:
    item = Dataset()
    item.ReferencedBeamNumber, item.BeamMeterset = number, decimal(meterset_mu, 6)
    return item


def _beam(number: int, arc: Arc, plan: Plan, device: BeamDevice, skin_mm: Floats | None) -> Dataset:
    n_pairs = arc.leaf_mm.shape[2]
    if len(device.leaf_boundary_mm) != n_pairs + 1:
        raise BadInput(f"arc {arc.name}: {n_pairs} leaf pairs, but {len(device.leaf_boundary_mm)} boundaries")
    if arc.meterset_mu[-1] <= 0:
        raise BadInput(f"arc {arc.name}: it delivers no monitor units; leave it out")
    beam = Dataset()
    beam.BeamNumber, beam.BeamName = number, arc.name
    beam.Manufacturer, beam.TreatmentMachineName = "", plan.machine
    moves = bool(np.any(arc.leaf_mm != arc.leaf_mm[0]) or np.any(arc.gantry_deg != arc.gantry_deg[0]))
    beam.BeamType, beam.RadiationType = "DYNAMIC" if moves else "STATIC", "PHOTON"
    beam.TreatmentDeliveryType, beam.PrimaryDosimeterUnit = "TREATMENT", "MU"
    beam.SourceAxisDistance = decimal(device.source_axis_mm, 2)
    beam.BeamLimitingDeviceSequence = [
        _device("ASYMX", 1, None),
        _device("ASYMY", 1, None),
        _device("MLCX", n_pairs, device.leaf_boundary_mm),
    ]
    beam.ReferencedPatientSetupNumber = 1
    beam.NumberOfWedges = beam.NumberOfCompensators = beam.NumberOfBoli = beam.NumberOfBlocks = 0
    beam.FinalCumulativeMetersetWeight, beam.NumberOfControlPoints = "1", arc.n_control_points
    beam.ControlPointSequence = [_control_point(arc, k, plan.energy_mv) for k in range(arc.n_control_points)]
    for k, point in enumerate(beam.ControlPointSequence if skin_mm is not None else ()):
        if "GantryAngle" in point and skin_mm is not None and np.isfinite(skin_mm[k]):
            point.SourceToSurfaceDistance = decimal(float(skin_mm[k]), 1)
    return beam


def _device(kind: str, pairs: int, boundaries: NDArray[np.float64] | None) -> Dataset:
    item = Dataset()
    item.RTBeamLimitingDeviceType, item.NumberOfLeafJawPairs = kind, pairs
    if boundaries is not None:
        item.LeafPositionBoundaries = decimals(boundaries, 2)
    return item


def _positions(kind: str, values: NDArray[np.float64] | tuple[float, ...]) -> Dataset:
    item = Dataset()
    # Bank X1 from the first pair to the last, then bank X2 (PS3.3 C.8.8.14.5).
    item.RTBeamLimitingDeviceType, item.LeafJawPositions = kind, decimals(values, LEAF_DECIMALS)
    return item


def _control_point(arc: Arc, k: int, energy_mv: float) -> Dataset:
    point = Dataset()
    weight = float(arc.meterset_mu[k] / arc.meterset_mu[-1])
    point.ControlPointIndex = k
    point.CumulativeMetersetWeight = decimal(weight, WEIGHT_DECIMALS)
    devices = [_positions("MLCX", arc.leaf_mm[k])]
    jaws = (*arc.jaw_x_mm, *arc.jaw_y_mm) if arc.moving_jaws_mm is None else tuple(arc.moving_jaws_mm[k])
    if k == 0 or arc.moving_jaws_mm is not None:
        devices = [_positions("ASYMX", jaws[:2]), _positions("ASYMY", jaws[2:]), *devices]
    turn = "NONE" if arc.clockwise is None else "CW" if arc.clockwise else "CC"
    if k == 0:
        point.NominalBeamEnergy = decimal(energy_mv, 2)
        point.BeamLimitingDeviceAngle = decimal(arc.collimator_deg, 4)
        point.BeamLimitingDeviceRotationDirection = "NONE"
        point.PatientSupportAngle, point.PatientSupportRotationDirection = decimal(arc.couch_deg, 4), "NONE"
        point.TableTopEccentricAngle, point.TableTopEccentricRotationDirection = "0", "NONE"
        point.TableTopVerticalPosition = point.TableTopLongitudinalPosition = point.TableTopLateralPosition = None
        point.IsocenterPosition = decimals(arc.isocentre_xyz_mm, LEAF_DECIMALS)
    if k == 0 or arc.clockwise is not None:
        point.GantryAngle = decimal(float(arc.gantry_deg[k]), 4)
        point.GantryRotationDirection = "NONE" if k == arc.n_control_points - 1 else turn
    point.BeamLimitingDevicePositionSequence = devices
    return point
