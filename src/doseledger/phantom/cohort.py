"""The synthetic cohort: prostate SIB patients, planned and packed as DICOM-RT.

Each case is a CT series, an RTSTRUCT, an RTPLAN of two arcs and the RTDOSE of exactly those control points. A plan
that misses a gating clinical goal is planned again in another style, and dropped with its reason if that fails too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from doseledger.core.errors import BadCase
from doseledger.core.files import write_stored_zip
from doseledger.core.grid import box_around, resample_linear
from doseledger.core.pool.cluster import Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.protocol import GoalSet
from doseledger.core.settings import PhantomSettings
from doseledger.core.tables import RAW, write_table
from doseledger.core.types import Mask, Tell
from doseledger.dicom.plan.source_to_skin import Body
from doseledger.dicom.source import source_digest
from doseledger.dicom.structure_names import InterpretedType
from doseledger.dicom.write.objects import Study, make_uid, to_bytes
from doseledger.dicom.write.plan import BeamDevice, make_plan
from doseledger.dicom.write.structures import Roi, make_structure_set
from doseledger.dicom.write.volumes import make_ct, make_dose
from doseledger.dosimetry.goals import GoalResult, evaluate_goals
from doseledger.phantom.near_bowel import SPARED, compromise_of, with_near_bowel, yielded_goals
from doseledger.phantom.patient import Dirt, SyntheticPatient, draw_patient
from doseledger.planning.dose.engine import SUB_ANGLES
from doseledger.planning.machine.check import check_plan
from doseledger.planning.machine.linac import Machine, load_machine
from doseledger.planning.optimise.arcs import optimise_plan
from doseledger.planning.optimise.patient import OptimiserSettings, Patient, PlannedPatient, PlanStyle

# What these patients are prescribed; ingest refuses them where the protocol says otherwise.
PRESCRIPTION_GY = {"PTV70": 70.0, "PTV56": 56.0}
N_FRACTIONS = 28
STRUCTURES = ("PTV70", "PTV56", "Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel")
# A cohort has its dirt. Names are aliases of the protocol; the numbers are those of the cases.
DIRT: dict[int, Dirt] = {
    4: Dirt(names={"PTV70": "PTV_70", "PTV56": "PTV_56", "Rectum": "Rect"}, extra=True),
    7: Dirt(absent=("Bowel",)),
    9: Dirt(odd_dose_grid=True),
    11: Dirt(names={"Femur_L": "FemoralHead_L", "Femur_R": "FemoralHead_R", "Bowel": "SmallBowel"}),
    13: Dirt(absent=("PTV56",)),
    16: Dirt(names={"PTV70": "PTVp_7000", "PTV56": "PTVn_5600", "Prostate": "CTVp", "Bladder": "Blad"}),
    17: Dirt(position="FFP"),
    20: Dirt(names={"Femur_L": "Femur_Head_L", "Femur_R": "Femur_Head_R", "Rectum": "Rektum"}, extra=True),
    21: Dirt(roll_deg=5.0),
}
# How planners differ: the spread of the logarithm of their weights, and their machine habits.
WEIGHT_SPREAD = 0.25
COLLIMATOR_DEG = (8.0, 38.0)
JAW_MARGIN_MM = (6.0, 11.0)
FALLOFF_MM = (11.0, 17.0)
# A second planner asks this much more for what the first plan missed.
FIRMER = 2.0


@dataclass(frozen=True)
class MadeCase:
    """What came of one patient.

    Parameters
    ----------
    sha256
        Digest of the case's files, as ingest computes it.
    attempts
        Plans made until one met the goals.
    goals
        Value by name of goal; NaN where the structure is absent.
    total_mu
        Monitor units of a fraction.
    compromise
        What the plan was let off, and why; empty for most.
    """

    sha256: str
    attempts: int
    goals: dict[str, float]
    total_mu: float
    compromise: str = ""


@dataclass(frozen=True)
class Cohort:
    """A cohort as made: its cases, and why others were dropped."""

    made: dict[str, MadeCase]
    dropped: dict[str, str]


def make_cohort(
    out: Path, raw_list: Path, settings: PhantomSettings, goals: GoalSet, *, scale: Scale, tell: Tell
) -> Cohort:
    """Return what was made: a stored zip for each patient in `out`, and the list of cases with their SHA256.

    Parameters
    ----------
    out
        Folder of the packed cases; those of another, larger cohort are removed from it.
    raw_list
        CSV of case ids and digests (core.tables.RAW).
    settings
        How many patients, their seed, and the work put into each.
    goals
        What a plan must achieve.
    scale
        Where they are planned.

    Notes
    -----
    A patient depends on the seed and on its own number alone: a larger cohort begins with the smaller one.
    """
    names = [f"case_{number:04d}" for number in range(1, settings.n_patients + 1)]
    arguments = {name: (name, number, out, settings, goals) for number, name in enumerate(names, 1)}
    outcome = over_cases(make_case, arguments, scale, tell=tell)
    wanted = {f"{name}.zip" for name in outcome.done}
    for stale in sorted(path for path in out.glob("case_*.zip") if path.name not in wanted):
        os.unlink(stale)
    table = pd.DataFrame({"case_id": list(outcome.done), "sha256": [made.sha256 for made in outcome.done.values()]})
    write_table(raw_list, table, RAW)
    dropped = {name: error.reason for name, error in outcome.failed.items()}
    replanned = sum(made.attempts > 1 for made in outcome.done.values())
    tell(f"{len(outcome.done)} patients in {out}, {replanned} planned more than once, {len(dropped)} dropped")
    for name, made in outcome.done.items():
        if made.compromise:
            tell(f"{name} was planned by a compromise: {made.compromise}")
    return Cohort(outcome.done, dropped)


def tabulate_goals(cohort: Cohort, goals: GoalSet) -> pd.DataFrame:
    """Return one row for each goal: how many patients met it, and the spread of its value in the goal's unit.

    Returns
    -------
    DataFrame
        Columns `goal`, `met`, `of` (patients who have the structure), `median`, `low` and `high`.
    """
    rows = []
    for goal in goals.goals:
        values = np.asarray([made.goals[goal.name] for made in cohort.made.values()], dtype=np.float64)
        values = values[np.isfinite(values)]
        met = values <= goal.limit if goal.operator == "<=" else values >= goal.limit
        spread = (np.median(values), values.min(), values.max()) if len(values) else (np.nan, np.nan, np.nan)
        rows.append((goal.name, int(met.sum()), len(values), *(float(value) for value in spread)))
    return pd.DataFrame(rows, columns=["goal", "met", "of", "median", "low", "high"])


def make_case(case_id: str, number: int, out: Path, settings: PhantomSettings, goals: GoalSet) -> MadeCase:
    """Return what came of one patient, written as `<out>/<case_id>.zip`.

    Raises
    ------
    BadCase
        If no plan meets the gating goals, naming those that the last one missed, or the machine can't deliver it.
    """
    dirt = with_near_bowel(DIRT.get(number, Dirt()), number, settings)
    # Anatomy and planner draw from streams of their own: more planning leaves the patients as they are.
    anatomy_rng, plan_rng = (np.random.default_rng([settings.seed, number, stream]) for stream in (0, 1))
    patient = draw_patient(anatomy_rng, settings.in_plane_pixels, settings.dose_grid_mm, dirt)
    machine = load_machine()
    compromise = compromise_of(patient)
    planned, results, attempts = _plan(case_id, patient, machine, (settings, goals), plan_rng)
    faults = check_plan(planned.plan, machine)
    if faults:
        more = f" (and {len(faults) - 1} faults more)" if len(faults) > 1 else ""
        raise BadCase(case_id, f"dropped: {machine.name} can't deliver its plan: {faults[0]}{more}")
    target = out / f"{case_id}.zip"
    write_stored_zip(target, _pack(case_id, number, patient, planned, (settings, machine, dirt)))
    values = {result.goal.name: result.value for result in results}
    return MadeCase(source_digest(target), attempts, values, planned.plan.total_mu, compromise)


def draw_style(rng: np.random.Generator) -> PlanStyle:
    """Return the habits of one planner."""
    collimator = float(np.round(rng.uniform(*COLLIMATOR_DEG)))
    weight = {name: float(np.exp(rng.normal(0.0, WEIGHT_SPREAD))) for name in ("target", "ring", *STRUCTURES[3:])}
    return PlanStyle(
        collimator_deg=(collimator, 360.0 - collimator),
        jaw_margin_mm=float(rng.uniform(*JAW_MARGIN_MM)),
        target_weight=weight.pop("target"),
        ring_weight=weight.pop("ring"),
        organ_weights=weight,
        falloff_mm=float(rng.uniform(*FALLOFF_MM)),
    )


def _plan(
    case_id: str,
    patient: SyntheticPatient,
    machine: Machine,
    how: tuple[PhantomSettings, GoalSet],
    rng: np.random.Generator,
) -> tuple[PlannedPatient, list[GoalResult], int]:
    settings, goals = how
    masks = {name: patient.surfaces[name] < 0 for name in STRUCTURES if name in patient.surfaces}
    prescription = {name: dose for name, dose in PRESCRIPTION_GY.items() if name in masks}
    to_plan = Patient(
        case_id=case_id,
        ct_hu=patient.ct_hu,
        grid=patient.grid,
        masks=masks,
        body=patient.body,
        prescription_gy=prescription,
        n_fractions=N_FRACTIONS,
        dose_grid=patient.dose_grid,
    )
    work = OptimiserSettings(
        segments_per_arc=settings.segments_per_arc,
        iterations=settings.iterations,
        dose_spacing_mm=patient.dose_grid.spacing_mm,
        sub_angles=SUB_ANGLES,
    )
    style = draw_style(rng)
    if compromise_of(patient):
        style, goals = firmer_style(style, {SPARED}, prescription), yielded_goals(goals)
    told = ""
    for attempt in range(1, settings.attempts + 1):
        try:
            planned = optimise_plan(to_plan, machine, style, work, rng)
        except BadCase as error:
            # So far from the prescription that it can't be normalised: the targets need more weight.
            told, style = error.reason, firmer_style(style, set(prescription), prescription)
            continue
        results = judge(planned, patient, masks, prescription, goals)
        missed = [result for result in results if result.goal.gating and result.acceptable is False]
        if not missed:
            return planned, results, attempt
        told = "missed " + ", ".join(f"{result.goal.name} (found {result.value:.1f})" for result in missed)
        style = firmer_style(style, {result.goal.structure for result in missed}, prescription)
    raise BadCase(case_id, f"dropped: none of {settings.attempts} plans meets the goals; the last: {told}")


def firmer_style(style: PlanStyle, missed: set[str], targets: Mapping[str, float]) -> PlanStyle:
    """Return a style that asks more for the structures whose goals were missed."""
    organs = dict(style.organ_weights)
    for name in missed - set(targets):
        organs[name] = style.organ_weight(name) * FIRMER
    factor = FIRMER if missed & set(targets) else 1.0
    return replace(style, target_weight=style.target_weight * factor, organ_weights=organs)


def judge(
    planned: PlannedPatient,
    patient: SyntheticPatient,
    masks: Mapping[str, Mask],
    prescription_gy: Mapping[str, float],
    goals: GoalSet,
) -> list[GoalResult]:
    """Return how a plan does on the clinical goals, on the CT's voxels."""
    box = box_around(np.any(list(masks.values()), axis=0))
    dose = resample_linear(planned.dose_gy, planned.dose_grid, patient.grid.inside(box), outside=0.0)
    inside = {name: masks[name][box] if name in masks else np.zeros(dose.shape, np.bool_) for name in STRUCTURES}
    return evaluate_goals(dose, inside, patient.grid.spacing_mm, prescription_gy, goals)


def _pack(
    case_id: str,
    number: int,
    patient: SyntheticPatient,
    planned: PlannedPatient,
    made: tuple[PhantomSettings, Machine, Dirt],
) -> dict[str, bytes]:
    """Return the DICOM files of a case by name."""
    settings, machine, dirt = made
    # Equal settings give equal UIDs; another seed or amount of work is another patient's scan. The share of patients
    # with near bowel is no part of it: it leaves the others as they are.
    key = f"{settings.model_dump_json(exclude={'n_patients', 'attempts', 'near_bowel_share'})}/{case_id}"
    if dirt.bowel_gap_mm is not None:
        key += "/near bowel"
    study = Study(
        patient_id=f"phantom_{number:04d}",
        patient_name=f"phantom^{number:04d}",
        patient_sex="M",
        study_uid=make_uid(key, "study"),
        frame_of_reference_uid=make_uid(key, "frame of reference"),
        position=dirt.position,
        key=key,
    )
    images = make_ct(study, patient.ct_hu, patient.grid, body_part="PELVIS")
    rois = [Roi(dirt.names.get(name, name), s, _interpreted(name)) for name, s in patient.surfaces.items()]
    structures = make_structure_set(study, rois, patient.grid, images)
    numbers = {name: k for k, name in enumerate(patient.surfaces, 1)}
    device = BeamDevice(machine.leaves.boundary_mm, machine.source_axis_mm)
    body = Body(patient.surfaces["BODY"], patient.grid)
    plan = make_plan(study, planned.plan, device, structures, numbers, body)
    if compromise := compromise_of(patient):
        plan.RTPlanDescription = compromise
    dose = make_dose(study, planned.dose_gy, planned.dose_grid, plan=plan)
    files = {f"CT/{k:04d}.dcm": to_bytes(image) for k, image in enumerate(images, 1)}
    return files | {"RS.dcm": to_bytes(structures), "RP.dcm": to_bytes(plan), "RD.dcm": to_bytes(dose)}


def _interpreted(name: str) -> InterpretedType:
    if name == "BODY":
        return "EXTERNAL"
    return "PTV" if name.startswith("PTV") else "CTV" if name == "Prostate" else "ORGAN"
