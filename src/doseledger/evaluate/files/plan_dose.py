"""A finished case asked whether its dose is its plan's: the RTPLAN on disk computed anew against the RTDOSE on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from doseledger.core.errors import BadCase, BadInput
from doseledger.dicom.position import check_position, turn_plan
from doseledger.dicom.read import gather_objects
from doseledger.dicom.read_dose import read_dose
from doseledger.dicom.read_image import read_image
from doseledger.dicom.read_plan import read_plan
from doseledger.dicom.source import lenient, malformed_as_bad_case, read_source
from doseledger.planning.dose.engine import dose_at_points, voxel_points_xyz
from doseledger.planning.dose.raytrace import density_map
from doseledger.planning.machine.linac import load_machine


@dataclass(frozen=True)
class Recomputed:
    """How far a dose on disk lies from that of its plan.

    Parameters
    ----------
    case_id
        The source's name.
    n_voxels
        Voxels compared: all to which the RTDOSE gives a dose.
    greatest_gy
        Highest dose of the RTDOSE.
    worst_gy, mean_gy
        Greatest and mean absolute difference of the total dose.
    """

    case_id: str
    n_voxels: int
    greatest_gy: float
    worst_gy: float
    mean_gy: float


def recompute_dose(source: Path, sub_angles: int = 2) -> Recomputed:
    """Return how far the RTDOSE of a case lies from the dose of its RTPLAN, in Gy.

    Parameters
    ----------
    source
        Folder or zip of one case: CT, RTPLAN and RTDOSE.
    sub_angles
        Beams for each segment between control points: the dose on disk was reported with as many.

    Raises
    ------
    BadCase
        If an object is missing or malformed, or the RTDOSE is 0 everywhere.
    BadInput
        If the plan is not of the generic machine, the only one whose beam is known here.

    Notes
    -----
    Compared at the very voxels to which the file gives a dose: the outline found in a CT differs from the contoured
    skin by a few, and the engine's lattice of depths follows the outline.
    """
    case_id = source.stem
    with lenient():
        files, _ = read_source(source)
        with malformed_as_bad_case(case_id):
            objects = gather_objects(files, ["ct", "rtdose", "rtplan"], "CT", case_id)
            if objects.rtdose is None or objects.rtplan is None:
                raise BadCase(case_id, "RTPLAN and RTDOSE are both needed; export the whole plan")
            image, dose = read_image(objects.slices, case_id), read_dose(objects.rtdose, case_id)
            plan = read_plan(objects.rtplan, case_id)
            position = check_position(str(objects.rtplan.PatientSetupSequence[0].PatientPosition))
    machine, inside = load_machine(), dose.dose_gy > 0
    if plan.machine != machine.name:
        raise BadInput(f"{case_id}: its plan is for {plan.machine}, and only the beam of {machine.name} is known here")
    if not inside.any():
        raise BadCase(case_id, "RTDOSE is 0 everywhere; export the dose of this plan")
    density = density_map(image.values, image.grid, machine.density)
    points = voxel_points_xyz(inside, dose.grid)
    again = dose_at_points(turn_plan(plan, position), density, machine, points, sub_angles) * plan.n_fractions
    off = np.abs(again - dose.dose_gy[inside])
    return Recomputed(case_id, len(off), float(dose.dose_gy.max()), float(off.max()), float(off.mean()))
