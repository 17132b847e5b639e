"""A predicted dose to a plan that a machine can deliver, as RTPLAN and RTDOSE."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import all_or_none, atomic_path, sha256_of_bytes, sha256_of_file, write_json
from doseledger.core.project.protocol import Goal, GoalSet, Protocol
from doseledger.core.settings import DeliverSettings
from doseledger.core.types import Mask
from doseledger.deliver.gap import Doses, judge_delivery
from doseledger.deliver.patient import protocol_of_prediction, roi_numbers
from doseledger.deliver.robustness import Scene, robustness_of
from doseledger.deliver.wishes import objective_of
from doseledger.dicom.read import CaseObjects, gather_objects
from doseledger.dicom.read_image import Image, read_image
from doseledger.dicom.source import in_file, lenient, malformed_as_bad_case, read_source
from doseledger.dicom.values import text_of
from doseledger.dicom.write.delivery import RoiDvh, make_mimicking_dose, make_mimicking_plan
from doseledger.dicom.write.objects import to_bytes
from doseledger.dicom.write.plan import BeamDevice
from doseledger.dicom.write.prediction import PredictedBy, make_heading
from doseledger.dosimetry.dvh.curves import dvh_curves
from doseledger.evaluate.files.plan_complexity import complexity_as_json
from doseledger.evaluate.predictions import Prediction, load_prediction
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.ingest.raw import find_sources
from doseledger.planning.dose.engine import dose_at_points
from doseledger.planning.dose.low_density import Placed, low_density_of
from doseledger.planning.dose.raytrace import DensityMap, density_map
from doseledger.planning.machine.check import check_plan
from doseledger.planning.machine.complexity import beam_complexity, plan_complexity
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.arcs import isocentre_of, optimise_to
from doseledger.planning.optimise.mimic import mimic_objectives
from doseledger.planning.optimise.patient import OptimiserSettings, Patient, PlannedPatient, PlanStyle
from doseledger.planning.optimise.start import start_arcs

SUB_ANGLES = 2
# Directions in which the way to the target is looked at before a plan is made.
N_DIRECTIONS = 36
DVH_BIN_GY = 0.1
PLAN_FILE, DOSE_FILE, JUDGED_FILE, ROBUSTNESS_FILE = "rtplan.dcm", "rtdose.dcm", "plan.json", "robustness.json"


@dataclass(frozen=True)
class PlanRequest:
    """How plans are made and judged.

    Parameters
    ----------
    protocol, goals
        Of the cohort, the goals with the patient's wishes in them.
    wishes
        Goals that the optimiser is asked for besides the predicted dose.
    robustness
        Whether the plan is computed with set-up and density errors too.
    """

    protocol: Protocol
    goals: GoalSet
    settings: DeliverSettings
    machine: Machine
    wishes: tuple[Goal, ...] = ()
    robustness: bool = False


@dataclass(frozen=True)
class Scanned:
    """A patient's files as far as a plan needs them: data sets to refer to, and the image."""

    objects: CaseObjects
    rtstruct: Dataset
    image: Image
    density: DensityMap


def deliver_case(
    source: Path, case_path: Path, prediction_path: Path, request: PlanRequest, out: Path
) -> dict[str, Any]:
    """Return what the plan of one ingested case is worth; see `deliver_patient`.

    Raises
    ------
    BadCase
        If prediction and case don't belong together, or the patient can't be planned.
    """
    prediction, case = load_prediction(prediction_path), Case.load(case_path)
    if prediction.case_sha256 != sha256_of_file(case_path):
        raise BadCase(
            case.case_id, f"the prediction is of the case as it was ({prediction.case_sha256[:12]}…); predict it again"
        )
    return deliver_patient(source, case, prediction, request, out)


def deliver_named(
    what: str, folders: tuple[Path, Path, Path], prediction: Path | None, request: PlanRequest, out: Path
) -> dict[str, Any]:
    """Return what the plan of one patient is worth, found by a case's name or by the place of its DICOM.

    Parameters
    ----------
    what
        Name of a case, or folder or zip of a patient's DICOM.
    folders
        Raw data, cases and predictions, for a case.
    prediction
        NPZ of the dose to mimic; None for the case's own among the predictions.

    Raises
    ------
    BadInput
        If it is neither, or there is no prediction.
    """
    raw, cases, predictions = folders
    place = Path(what)
    if place.exists():
        if prediction is None:
            raise BadInput(f"{what}: name the dose to mimic with --prediction, as `doseledger deliver dose` wrote it")
        name = place.resolve().name if place.is_dir() else place.stem
        found = load_prediction(prediction)
        return deliver_patient(place, read_patient_case(place, name, request.protocol), found, request, out)
    sources = find_sources(raw) if raw.is_dir() else {}
    if what not in sources or not (cases / f"{what}.npz").is_file():
        raise BadInput(
            f"{what!r} is no model, no folder or zip of DICOM, and no case with both raw data and NPZ ({raw}, {cases})"
        )
    return deliver_case(sources[what], cases / f"{what}.npz", prediction or predictions / f"{what}.npz", request, out)


def read_patient_case(source: Path, name: str, protocol: Protocol) -> Case:
    """Return the case of a patient's DICOM as `deliver dose` predicted it, with dose and plan where both are there.

    Raises
    ------
    BadCase
        If image and structures do not suffice.
    """
    with lenient(), malformed_as_bad_case(name):
        files, _ = read_source(source)
        kinds = {text_of(file.dataset, "Modality") for file in files}
    rules = protocol_of_prediction(protocol, {}, None)
    if {"RTDOSE", "RTPLAN"} <= kinds:
        rules = rules.model_copy(update={"objects": protocol.objects})
    return convert_case(source, Origin(name), rules)


@all_or_none()
def deliver_patient(
    source: Path, case: Case, prediction: Prediction, request: PlanRequest, out: Path
) -> dict[str, Any]:
    """Return what the plan of one patient is worth, after writing RTPLAN, RTDOSE and `plan.json` into a folder.

    Parameters
    ----------
    case
        The patient's structures, on the prediction's grid; with a dose, that of the original plan is judged beside it.
    out
        Gets the files: all of them, or none.

    Raises
    ------
    BadCase
        If prediction and case don't belong together, targets or beams lie in low density, the targets can't be
        covered, or the machine can't deliver the plan.
    """
    _check_same(case, prediction)
    with lenient(), malformed_as_bad_case(case.case_id):
        scanned = _read_scan(source, case.case_id, request.machine)
    patient = _patient_of(case, prediction, scanned.image)
    style = PlanStyle()
    warning = _refuse_low_density(patient, scanned.density, style, request.machine)
    planned = _plan(case, patient, style, request)
    faults = check_plan(planned.plan, request.machine)
    if faults:
        raise BadCase(
            case.case_id, f"{request.machine.name} can't deliver the plan ({len(faults)} faults): {faults[0]}"
        )
    with lenient(), malformed_as_bad_case(case.case_id):
        written = _write(case, planned, scanned, request, _named(prediction), out)
    judged = judge_delivery(case, Doses(prediction.dose_gy, planned.dose_gy, case.dose_gy), planned, request.goals)
    edges = request.machine.leaves.boundary_mm
    judged["checkpoint_sha256"] = prediction.checkpoint_sha256
    judged["plan"] |= {
        "complexity": complexity_as_json(plan_complexity([beam_complexity(arc, edges) for arc in planned.plan.arcs])),
        "faults": faults,
        "warnings": [warning] if warning else [],
        **written,
    }
    if request.robustness:
        scene = Scene(case, scanned.density, request.machine, request.goals)
        write_json(
            out / ROBUSTNESS_FILE, robustness_of(scene, planned.plan, np.random.default_rng(request.settings.seed))
        )
    write_json(out / JUDGED_FILE, judged)
    if not request.robustness:
        # What an earlier plan was worth under errors says nothing of this one.
        (out / ROBUSTNESS_FILE).unlink(missing_ok=True)
    return judged


def _check_same(case: Case, prediction: Prediction) -> None:
    name = case.case_id
    if prediction.case_id != name:
        raise BadCase(name, f"the prediction is of {prediction.case_id}; name the one of this patient")
    if not prediction.grid.same_as(case.grid):
        raise BadCase(
            name,
            f"the prediction lies on another grid ({prediction.grid.shape_zyx} voxels) than the case "
            f"({case.grid.shape_zyx}); predict this patient again, with this protocol",
        )
    if not case.prescription_gy or case.n_fractions is None:
        raise BadCase(name, "there is no prescription to plan for; the protocol must name targets and fractions")


def _named(prediction: Prediction) -> PredictedBy:
    return PredictedBy(prediction.model or "a model", prediction.checkpoint_sha256, version("doseledger"))


def _read_scan(source: Path, case_id: str, machine: Machine) -> Scanned:
    files, _ = read_source(source)
    objects = gather_objects(files, ["ct", "rtstruct"], "CT", case_id)
    if objects.rtstruct is None:
        raise BadCase(case_id, "no RTSTRUCT among the files; export the patient whole")
    image = read_image(objects.slices, case_id, objects.absent_note)
    return Scanned(objects, objects.rtstruct, image, density_map(image.values, image.grid, machine.density))


def _patient_of(case: Case, prediction: Prediction, image: Image) -> Patient:
    return Patient(
        case_id=case.case_id,
        ct_hu=image.values,
        grid=case.grid,
        masks={name: case.mask(name) for name in case.present_names},
        body=case.body,
        prescription_gy=case.prescription_gy,
        n_fractions=case.n_fractions or 0,
        dose_grid=case.grid,
        wanted_dose_gy=prediction.dose_gy,
        ct_grid=image.grid,
    )


def _targets(patient: Patient) -> Mask:
    return np.asarray(np.any([patient.masks[name] for name in patient.prescription_gy], axis=0), dtype=np.bool_)


def _refuse_low_density(patient: Patient, density: DensityMap, style: PlanStyle, machine: Machine) -> str:
    """Return what is to be said of low density in the targets and on the way to them, or refuse the patient."""
    targets, isocentre = _targets(patient), isocentre_of(patient)
    points = patient.grid.index_to_mm(np.argwhere(targets))[:, ::-1].astype(np.float32)
    arcs = start_arcs(points, isocentre, machine, style, N_DIRECTIONS)
    where, follows = Placed(patient.grid, patient.body, targets), machine.beam.follows_density
    found = low_density_of(density, where, arcs, machine.source_axis_mm, follows_density=follows)
    if found.refusal:
        raise BadCase(
            patient.case_id,
            f"{found.refusal}; plan this patient with a machine whose beam follows the density (--machine tissue, or "
            "one that `doseledger machine fit` made)",
        )
    return found.warning


def _plan(case: Case, patient: Patient, style: PlanStyle, request: PlanRequest) -> PlannedPatient:
    chosen = request.settings
    objectives = mimic_objectives(patient)
    for wish in request.wishes:
        if wish.structure not in patient.masks:
            raise BadInput(f"--goal {wish.name}: {case.case_id} has no {wish.structure}")
        volume_cc = float(patient.masks[wish.structure].sum()) * case.grid.voxel_volume_cc
        objectives.append(objective_of(wish, volume_cc, is_target=wish.structure in patient.prescription_gy))
    work = OptimiserSettings(
        segments_per_arc=chosen.segments_per_arc,
        iterations=chosen.iterations,
        dose_spacing_mm=case.grid.spacing_mm,
        n_points=chosen.n_points,
        sub_angles=SUB_ANGLES,
        mu_weight=chosen.mu_weight,
        edge_weight=chosen.edge_weight,
        outline_margin_mm=chosen.outline_margin_mm,
    )
    return optimise_to(patient, request.machine, (style, work), objectives, np.random.default_rng(chosen.seed))


def _write(
    case: Case, planned: PlannedPatient, scanned: Scanned, request: PlanRequest, by: PredictedBy, out: Path
) -> dict[str, Any]:
    """Return the UIDs of plan and dose, after writing both."""
    machine, plan, case_id = request.machine, planned.plan, case.case_id
    # Another dose or plan is another object, and needs another UID.
    parts = [planned.dose_gy, *(a for arc in plan.arcs for a in (arc.leaf_mm, arc.meterset_mu))]
    what = sha256_of_bytes(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
    image = scanned.objects.slices[0]
    with in_file(image, case_id):
        heading = make_heading(image, by, key=f"{by.checkpoint_sha256}/{what}", case_id=case_id)
        numbers = roi_numbers(scanned.rtstruct, request.protocol, case_id)
        device = BeamDevice(machine.leaves.boundary_mm, machine.source_axis_mm)
        doses = [_beam_dose_gy(planned, k, scanned.density, machine) for k in range(len(plan.arcs))]
        rtplan = make_mimicking_plan(heading, plan, device, (scanned.rtstruct, numbers), doses)
        dvhs = _dvhs(case, planned, numbers)
        rtdose = make_mimicking_dose(heading, planned.dose_gy, planned.dose_grid, (rtplan, scanned.rtstruct), dvhs)
    for name, dataset in ((PLAN_FILE, rtplan), (DOSE_FILE, rtdose)):
        with atomic_path(out / name) as part:
            part.write_bytes(to_bytes(dataset))
    return {"rtplan_uid": str(rtplan.SOPInstanceUID), "rtdose_uid": str(rtdose.SOPInstanceUID)}


def _beam_dose_gy(planned: PlannedPatient, beam: int, density: DensityMap, machine: Machine) -> float:
    """Return the dose of one beam in a fraction at its isocentre."""
    arc = planned.plan.arcs[beam]
    point = np.array([arc.isocentre_xyz_mm], dtype=np.float32)
    return float(dose_at_points(replace(planned.plan, arcs=(arc,)), density, machine, point, SUB_ANGLES)[0])


def _dvhs(case: Case, planned: PlannedPatient, numbers: dict[str, int]) -> list[RoiDvh]:
    names = [name for name in case.present_names if name in numbers]
    masks = np.stack([case.mask(name) for name in names])
    curves = dvh_curves(planned.dose_gy, masks, case.grid.voxel_volume_cc, DVH_BIN_GY)
    found = []
    for name, mask, curve in zip(names, masks, curves, strict=True):
        inside = planned.dose_gy[mask]
        ends = float(inside.min()), float(inside.mean(dtype=np.float64)), float(inside.max())
        found.append(RoiDvh(numbers[name], DVH_BIN_GY, curve.cumulative_cc[:-1], *ends))
    return found
