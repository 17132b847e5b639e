"""Training cases that each validation measures beside its own."""

from __future__ import annotations

import math

from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.networks.windows import VALIDATION_OVERLAP
from doseledger.learn.recipes.dose import PatchSize
from doseledger.learn.run import CasesByPart, TrainingRun

# What measuring training cases too may cost, as a share of the training between two validations.
MEASURING_SHARE = 0.05
# A step goes forward and back: about three times the work of going forward alone.
STEP_COST = 3.0


def measured_cases(run: TrainingRun, cases: CasesByPart) -> list[OpenCase]:
    """Return the training cases that each validation measures too, so that both can be compared by one measure.

    As many as may be measured for a twentieth of the training between two validations, at least one, and no more than
    there are validation cases; spread evenly over the training cases.
    """
    sampling, trained = run.network_recipe.sampling, cases["train"]
    n_steps = len(trained) * sampling.patches_per_case * run.network_recipe.fit.validate_every
    n_passes = [run.family.passes * _windows(case, sampling.patch_zyx) for case in trained]
    affordable = int(MEASURING_SHARE * STEP_COST * n_steps * len(trained) / sum(n_passes))
    n_measured = max(1, min(affordable, len(cases["val"]), len(trained)))
    return [trained[turn * len(trained) // n_measured] for turn in range(n_measured)]


def _windows(case: OpenCase, patch_zyx: PatchSize) -> int:
    """How many windows a case is seen through; as a whole, one."""
    if patch_zyx == "case":
        return 1
    return math.prod(
        1 + math.ceil(max(0, n - size) / ((1 - VALIDATION_OVERLAP) * size))
        for n, size in zip(case.shape_zyx, patch_zyx, strict=True)
    )
