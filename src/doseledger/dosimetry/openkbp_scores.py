"""The dose and DVH scores of the OpenKBP challenge.

Defined by Babier et al., Med Phys 48:5549, 2021. They use no statistic of `dvh`: the challenge's
D_95 and D_0.1_cc are numpy percentiles of whole voxels, and stay so whatever becomes of the DVH
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array, Mask

TARGETS = ("PTV70", "PTV63", "PTV56")
ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible")
# Percentile of the dose that is each target metric: D_99 is the dose of the coldest percent.
TARGET_PERCENTILES = {"D_99": 1.0, "D_95": 5.0, "D_1": 99.0}
HOT_VOLUME_MM3 = 100.0


@dataclass(frozen=True)
class PatientScore:
    """What one patient adds to the scores.

    Parameters
    ----------
    dose_gy
        Dose error: sum of |reference − prediction| over all voxels per voxel of the possible-dose mask.
    dvh_gy
        |reference − prediction| of each metric by (structure, metric); only structures that are there.
    """

    dose_gy: float
    dvh_gy: dict[tuple[str, str], float]


@dataclass(frozen=True)
class OpenKbpScore:
    """The scores of a set of patients, in Gy; lower is better."""

    dose_score_gy: float
    dvh_score_gy: float
    n_patients: int
    n_dvh_pairs: int


def score_patient(
    reference_gy: Array,
    prediction_gy: Array,
    masks: Mapping[str, Mask],
    possible_dose: Mask,
    voxel_volume_mm3: float,
) -> PatientScore:
    """Return the errors of one patient in Gy.

    Parameters
    ----------
    reference_gy, prediction_gy
        Doses in Gy, of one shape; the whole volume, not a crop of it.
    masks
        Bool mask by structure; an empty one counts as absent.
    possible_dose
        Bool: where the challenge allows a dose.
    voxel_volume_mm3
        Volume of a voxel.

    Raises
    ------
    BadInput
        If shapes differ, a dose is not finite, or the possible-dose mask is empty.
    """
    for name, array in (("prediction", prediction_gy), ("possible-dose mask", possible_dose), *masks.items()):
        if array.shape != reference_gy.shape:
            raise BadInput(f"the {name} has {array.shape} voxels, the reference dose {reference_gy.shape}")
    reference, prediction = np.asarray(reference_gy, np.float64), np.asarray(prediction_gy, np.float64)
    if not (np.isfinite(reference).all() and np.isfinite(prediction).all()):
        raise BadInput("a dose to be scored is not finite")
    n_possible = int(np.count_nonzero(possible_dose))
    if n_possible == 0:
        raise BadInput("the possible-dose mask is empty; the dose score divides by its voxels")
    ours = dvh_metrics_gy(prediction, masks, voxel_volume_mm3)
    theirs = dvh_metrics_gy(reference, masks, voxel_volume_mm3)
    return PatientScore(
        dose_gy=float(np.abs(reference - prediction).sum() / n_possible),
        dvh_gy={pair: abs(theirs[pair] - ours[pair]) for pair in theirs},
    )


def dvh_metrics_gy(dose_gy: Array, masks: Mapping[str, Mask], voxel_volume_mm3: float) -> dict[tuple[str, str], float]:
    """Return the challenge's DVH metrics in Gy by (structure, metric), of the structures that are there.

    Notes
    -----
    Targets have D_99, D_95 and D_1, the 1st, 5th and 99th percentile of their voxels. Organs have the mean and
    D_0.1_cc: with n = max(1, round(100 mm³ / voxel volume)), the percentile 100 − 100 n / (number of voxels).
    """
    found: dict[tuple[str, str], float] = {}
    for name in (*ORGANS, *TARGETS):
        if name not in masks or not masks[name].any():
            continue
        voxels = dose_gy[masks[name]]
        if name in TARGETS:
            for metric, percentile in TARGET_PERCENTILES.items():
                found[name, metric] = float(np.percentile(voxels, percentile))
        else:
            hot = max(1, round(HOT_VOLUME_MM3 / voxel_volume_mm3))
            # A structure smaller than 0.1 cm³ has all its voxels in it.
            found[name, "D_0.1_cc"] = float(np.percentile(voxels, max(0.0, 100.0 - 100.0 * hot / len(voxels))))
            found[name, "mean"] = float(voxels.mean())
    return found


def combine_scores(patients: Sequence[PatientScore]) -> OpenKbpScore:
    """Return the scores of a set of patients: the mean over patients, and the mean over all present DVH metrics.

    Raises
    ------
    BadInput
        If there are no patients.
    """
    if not patients:
        raise BadInput("no patients to score")
    pairs = [error for patient in patients for error in patient.dvh_gy.values()]
    return OpenKbpScore(
        dose_score_gy=float(np.mean([patient.dose_gy for patient in patients])),
        dvh_score_gy=float(np.mean(pairs)) if pairs else math.nan,
        n_patients=len(patients),
        n_dvh_pairs=len(pairs),
    )
