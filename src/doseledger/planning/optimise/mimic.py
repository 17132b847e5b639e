"""Objectives of a plan that shall have a wanted dose."""

from __future__ import annotations

import numpy as np

from doseledger.core.errors import BadCase
from doseledger.planning.optimise.objectives import NORMAL_TISSUE, Objective
from doseledger.planning.optimise.patient import Patient

# Weights of the mean squared distance from the wanted dose in Gy². Tissue has most: it is most of the volume in which
# the two doses are compared. With a fifth of it, and fewer points, three to four voxels in a hundred more fail
# 2 %/2 mm, most of them far from the targets; with twice as much and less on targets, a target lost a goal.
TARGET_WEIGHT = 16.0
TISSUE_WEIGHT = 100.0
# Organs are part of the tissue; besides, more than is wanted of them is worse than less.
ORGAN_WEIGHT = 1.0
ORGAN_VOLUMES = (5.0, 20.0, 50.0)
# A mimicked target comes out a little less even than was wanted, and colder at its edge. Its plan is scaled to the
# prescription in the end, all else with it: so the target is asked for its dose from the start.
COVER_WEIGHT = 40.0
COVER_SHARE = 1.005
COVERED_PERCENT = 95.0


def mimic_objectives(patient: Patient) -> list[Objective]:
    """Return objectives that lead to the patient's wanted dose.

    Targets and tissue are held to it voxel by voxel, either way; organs not above it, voxel by voxel and by what their
    hottest 5, 20 and 50 % receive. The hottest target is held to its prescription, the others to what 95 % of them
    shall receive.

    Raises
    ------
    BadCase
        If there is no wanted dose, or it is not finite, negative, or nothing in a target.
    """
    name, wanted = patient.case_id, patient.wanted_dose_gy
    if wanted is None:
        raise BadCase(name, "there is no dose to mimic")
    if not np.isfinite(wanted).all() or wanted.min() < 0:
        raise BadCase(name, "the dose to mimic must be finite and not negative everywhere; predict it again")
    found = [Objective(NORMAL_TISSUE, "mimic", 0.0, TISSUE_WEIGHT)]
    for structure, mask in patient.masks.items():
        inside = wanted[mask]
        if not len(inside):
            continue
        if structure in patient.prescription_gy:
            covered = float(np.percentile(inside, 100.0 - COVERED_PERCENT))
            if covered <= 0:
                raise BadCase(name, f"the dose to mimic gives {structure} a D95% of {covered:g} Gy; is it its dose?")
            if structure == patient.hottest_target:
                covered = COVER_SHARE * patient.prescription_gy[structure]
            found.append(Objective(structure, "mimic", 0.0, TARGET_WEIGHT))
            found.append(Objective(structure, "min_dose", covered, COVER_WEIGHT))
            continue
        found.append(Objective(structure, "mimic_max", 0.0, ORGAN_WEIGHT))
        for volume in ORGAN_VOLUMES:
            level = float(np.percentile(inside, 100.0 - volume))
            found.append(Objective(structure, "dvh_max", level, ORGAN_WEIGHT, volume))
    return found
