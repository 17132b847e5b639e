"""Patients with bowel near PTV56, and the compromise of their plans.

The compromise: bowel is spared as in everyone else, and PTV56 yields. It is written into the RTPLAN of each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from doseledger.core.project.protocol import GoalSet
from doseledger.core.settings import PhantomSettings
from doseledger.phantom.patient import Dirt, SyntheticPatient

# Loops of everyone else keep so far from PTV56.
CLEAR_MM = 10.0
# How near the loops of these may come; the nearest does, to a few mm. Assumed: 56 Gy fall to 46.5 Gy in about 5 mm.
GAP_MM = (1.0, 6.0)
# PTV56 V53.2Gy that is still acceptable. Assumed: no publication was found that says how far coverage yields.
YIELDED_PERCENT = 90.0
YIELDING, SPARED = "PTV56", "Bowel"
# The goal that yields, and no other of the same target: its structure, statistic and operator.
COVERAGE = (YIELDING, "V53.2Gy", ">=")
# The stream of random numbers that says who they are; anatomy and planner have 0 and 1, and so stay as they are.
STREAM = 2


def with_near_bowel(dirt: Dirt, number: int, settings: PhantomSettings) -> Dirt:
    """Return what is unusual about a patient, with loops near PTV56 in the named share of patients.

    Parameters
    ----------
    dirt
        What else is unusual; where bowel or PTV56 is not contoured, nothing is added.
    number
        Of the patient. It and the seed say who is drawn, whatever the size of the cohort.
    """
    rng = np.random.default_rng([settings.seed, number, STREAM])
    drawn, gap_mm = rng.uniform() < settings.near_bowel_share, float(rng.uniform(*GAP_MM))
    if not drawn or {YIELDING, SPARED} & set(dirt.absent):
        return dirt
    return replace(dirt, bowel_gap_mm=gap_mm)


def compromise_of(patient: SyntheticPatient) -> str:
    """Return the compromise that a patient is planned by, in words; empty where the bowel lies clear of PTV56."""
    if not {YIELDING, SPARED} <= set(patient.surfaces):
        return ""
    nearest_mm = float(patient.surfaces[YIELDING][patient.surfaces[SPARED] < 0].min())
    if nearest_mm >= CLEAR_MM:
        return ""
    return (
        f"{SPARED} lies {nearest_mm:.0f} mm from {YIELDING}, nearer than {CLEAR_MM:g} mm: its goals are kept, and "
        f"{COVERAGE[1]} of {YIELDING} may fall to {YIELDED_PERCENT:g} %"
    )


def yielded_goals(goals: GoalSet) -> GoalSet:
    """Return the goals of a patient planned by the compromise: the coverage of PTV56 is acceptable further down."""
    kept = [
        goal.model_copy(update={"acceptable": YIELDED_PERCENT})
        if (goal.structure, goal.statistic, goal.operator) == COVERAGE
        else goal
        for goal in goals.goals
    ]
    return goals.model_copy(update={"goals": kept})
