"""The RTPLAN of a finished case computed anew, against its RTDOSE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset

from doseledger.core.errors import BadCase, BadInput
from doseledger.dicom.dose_parts import read_parts
from doseledger.dicom.plan.read import read_plan, read_prescription
from doseledger.dicom.position import Position, check_position, turn_plan
from doseledger.dicom.read import gather_objects
from doseledger.dicom.read_image import read_image
from doseledger.dicom.source import in_file, lenient, malformed_as_bad_case, read_source
from doseledger.dicom.values import items_of, text_of
from doseledger.planning.dose.engine import SUB_ANGLES, dose_at_points, outline, voxel_points_xyz
from doseledger.planning.dose.low_density import Placed, low_density_of
from doseledger.planning.dose.raytrace import density_map
from doseledger.planning.machine.linac import Machine, machine_named

# Share of the highest dose above which a voxel counts as the target's.
HIGH_SHARE = 0.8


@dataclass(frozen=True)
class Recomputed:
    """How far a dose on disk lies from that of its plan.

    Parameters
    ----------
    n_voxels
        Voxels compared: all to which the RTDOSE gives a dose.
    warning
        Of low density in the high dose or on the beams' way; empty where there is none to speak of.
    """

    case_id: str
    n_voxels: int
    greatest_gy: float
    worst_gy: float
    mean_gy: float
    warning: str = ""


def recompute_dose(source: Path, machine: Machine | None = None) -> Recomputed:
    """Return how far the RTDOSE of a case lies from the dose of its RTPLAN, in Gy.

    Parameters
    ----------
    machine
        Whose beam is computed; None for the one of the package that the plan names, else the generic one.

    Raises
    ------
    BadCase
        If an object is missing or malformed, the RTDOSE is 0 everywhere, or too much of the high dose or of the beams'
        way to it lies in low density (`planning.dose.low_density`).
    BadInput
        If the plan is of another machine than the one whose beam is given.

    Notes
    -----
    Compared at the very voxels to which the file gives a dose: the outline found in a CT differs from the contoured
    skin by a few, and the engine's lattice of depths follows the outline.
    """
    case_id = source.stem
    with lenient(), malformed_as_bad_case(case_id):
        files, _ = read_source(source)
        objects = gather_objects(files, ["ct", "rtdose", "rtplan"], "CT", case_id)
        if objects.rtplan is None or not objects.dose_parts:
            raise BadCase(case_id, "RTPLAN and RTDOSE are both needed; export the whole plan")
        image = read_image(objects.slices, case_id)
        dose, _ = read_parts(objects.dose_parts, objects.rtplan, case_id)
        groups = sorted(read_prescription(objects.rtplan, case_id).n_fractions)
        # The file's dose is that of the whole plan: of all its fraction groups.
        plans = [read_plan(objects.rtplan, case_id, group) for group in groups]
        position = _position(objects.rtplan, case_id)
    machine, inside = machine or machine_named(plans[0].machine), dose.dose_gy > 0
    for plan in plans:
        if plan.machine != machine.name:
            raise BadInput(
                f"{case_id}: its plan is for {plan.machine}, the beam is that of {machine.name}; give the file of "
                "its own machine (`doseledger machine fit` makes one)"
            )
    if not inside.any():
        raise BadCase(case_id, "RTDOSE is 0 everywhere; export the dose of this plan")
    density = density_map(image.values, image.grid, machine.density)
    turned = [turn_plan(plan, position) for plan in plans]
    # Without an RTSTRUCT what receives most of the dose stands for the target.
    target = dose.dose_gy >= HIGH_SHARE * dose.dose_gy.max()
    where = Placed(dose.grid, outline(image.values, image.grid, dose.grid), target)
    arcs = [arc for plan in turned for arc in plan.arcs]
    follows = machine.beam.follows_density
    low = low_density_of(density, where, arcs, machine.source_axis_mm, follows_density=follows)
    if low.refusal:
        raise BadCase(case_id, f"{low.refusal}; recompute this plan with another engine")
    points = voxel_points_xyz(inside, dose.grid)
    again = np.zeros(len(points))
    for plan in turned:
        try:
            again += dose_at_points(plan, density, machine, points, SUB_ANGLES) * plan.n_fractions
        except BadInput as error:
            raise BadCase(case_id, str(error)) from error
    off = np.abs(again - dose.dose_gy[inside])
    highest = float(dose.dose_gy.max())
    return Recomputed(case_id, len(off), highest, float(off.max()), float(off.mean()), low.warning)


def _position(rtplan: Dataset, case_id: str) -> Position:
    """How the patient lies for treatment, by the plan's patient setup, which is optional in DICOM (PS3.3 A.20.3)."""
    with in_file(rtplan, case_id):
        said = {text_of(item, "PatientPosition") for item in items_of(rtplan, "PatientSetupSequence")} - {""}
        if len(said) != 1:
            found = (
                f"names {len(said)} patient positions" if said else "has no PatientSetupSequence with a PatientPosition"
            )
            raise BadCase(
                case_id,
                f"the RTPLAN {found}, and without one it can't be told from where its beams come; export the plan with "
                "its setup",
            )
        return check_position(said.pop())
