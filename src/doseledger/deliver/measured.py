"""DVH statistics and clinical goals of a predicted dose, and their spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.project.protocol import GoalSet, Protocol
from doseledger.core.types import Array, GyArray
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.statistics import reached_dose
from doseledger.dosimetry.goals import evaluate_goals

DECIMALS = 3
OTHER_PROTOCOL = "the clinical goals are of protocol {found}, the patient of {wanted}: none was judged"
OTHER_PRESCRIPTION = "the patient has another prescription than the clinical goals are for: none was judged"


@dataclass(frozen=True)
class Yardstick:
    """Statistics by kind of structure (`target`, `organ`), the cohort's own protocol, and its clinical goals if any."""

    statistics: Mapping[Any, Sequence[str]]
    protocol: Protocol
    goals: GoalSet | None


def measure_dose(case: Case, arrays: Mapping[str, Array], wanted: Protocol, yardstick: Yardstick) -> dict[str, Any]:
    """Return the statistics and goals of a predicted dose as JSON values.

    Parameters
    ----------
    case
        The patient, with the prescription that the dose was predicted for.
    arrays
        What the model gave: `dose_gy` (z, y, x) in Gy; `samples` and what belongs to it where it drew doses.
    wanted
        The protocol that the patient was read with.

    Returns
    -------
    dict
        `dvh`: rows of `structure`, `statistic`, `unit`, `value` and `sd`, the spread over drawn doses, None without;
        `goals`: rows of `goal`, `structure`, `unit`, `gating`, `value`, `met`, `acceptable`, `reason`;
        `goals_note`: why no goal was judged, else empty.
    """
    draws_gy = drawn_doses(arrays)
    rows = []
    for structure in wanted.structures:
        if structure.name in case.present_names:
            rows += _dvh_of(case, arrays["dose_gy"], draws_gy, structure.name, yardstick.statistics[structure.kind])
    note = _why_no_goals(wanted, yardstick)
    goals = [] if note or yardstick.goals is None else _goals_of(case, arrays["dose_gy"], yardstick.goals)
    return {"dvh": rows, "goals": goals, "goals_note": note}


def drawn_doses(arrays: Mapping[str, Array]) -> list[GyArray]:
    """Return the doses that a model drew, in Gy (z, y, x) each; none where it gave one dose."""
    if "samples" not in arrays:
        return []
    where, step_gy = arrays["sampled"] > 0, float(arrays["sample_step_gy"])
    found = []
    for sample in arrays["samples"]:
        dose_gy = np.zeros(where.shape, dtype=np.float32)
        dose_gy[where] = sample * np.float32(step_gy)
        found.append(dose_gy)
    return found


def _dvh_of(
    case: Case, dose_gy: GyArray, draws_gy: Sequence[GyArray], name: str, wanted: Sequence[str]
) -> list[dict[str, Any]]:
    statistics = [parse_statistic(text) for text in wanted]
    prescription_gy = case.prescription_gy.get(name, max(case.prescription_gy.values()))
    voxel_cc = case.grid.voxel_volume_cc
    values = []
    for dose in (dose_gy, *draws_gy):
        samples, whole = reached_dose(dose, case.mask(name), voxel_cc, case.reach), (dose[case.reach], voxel_cc)
        values.append([samples.measure(statistic, prescription_gy, whole).value for statistic in statistics])
    spreads = np.std(values[1:], axis=0, ddof=1) if len(values) > 2 else [math.nan] * len(statistics)
    return [
        {
            "structure": name,
            "statistic": statistic.name,
            "unit": statistic.unit,
            "value": _finite(value),
            "sd": _finite(float(spread)),
        }
        for statistic, value, spread in zip(statistics, values[0], spreads, strict=True)
    ]


def _why_no_goals(wanted: Protocol, yardstick: Yardstick) -> str:
    if yardstick.goals is None:
        return "there are no clinical goals: none was judged"
    if yardstick.goals.protocol != wanted.name:
        return OTHER_PROTOCOL.format(found=yardstick.goals.protocol, wanted=wanted.name)
    # Limits in Gy are of one prescription.
    own, asked = ((one.prescription_gy, one.n_fractions) for one in (yardstick.protocol, wanted))
    return "" if asked == own else OTHER_PRESCRIPTION


def _goals_of(case: Case, dose_gy: GyArray, goals: GoalSet) -> list[dict[str, Any]]:
    masks = {name: case.mask(name) for name in case.structure_names}
    found = evaluate_goals(dose_gy, masks, case.grid.spacing_mm, case.prescription_gy, goals, case.reach)
    return [
        {
            "goal": one.name,
            "structure": one.goal.structure,
            "unit": one.goal.unit,
            "gating": one.goal.gating,
            "value": _finite(one.value),
            "met": one.met,
            "acceptable": one.acceptable,
            "reason": one.reason,
        }
        for one in found
    ]


def _finite(value: float) -> float | None:
    return round(value, DECIMALS) if math.isfinite(value) else None
