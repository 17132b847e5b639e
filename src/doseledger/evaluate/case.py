"""Metrics of one case: predicted dose against plan, by structure and goal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import GoalSet, Protocol
from doseledger.core.settings import EvaluateSettings, GammaSettings
from doseledger.dosimetry.dvh.grammar import Measure, Statistic, parse_statistic
from doseledger.dosimetry.dvh.statistics import reached_dose
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair
from doseledger.dosimetry.gamma.map import gamma_map, pass_rate_percent, summarise
from doseledger.dosimetry.gamma.reference import verify_points
from doseledger.dosimetry.goals import GoalResult, evaluate_goals
from doseledger.dosimetry.openkbp_scores import PatientScore, score_patient
from doseledger.evaluate.refusals import refuse_unfit

# The mask of mae_above_10_percent_gy: reference dose above this part of the highest prescription.
ABOVE_FRACTION = 0.10
# Masks that every case has; a structure may be absent.
WHOLE_MASKS = ("body", "valid_dose", "above_10_percent")


@dataclass(frozen=True)
class Yardsticks:
    """What a prediction is measured with."""

    protocol: Protocol
    goals: GoalSet
    settings: EvaluateSettings


@dataclass(frozen=True)
class CaseMetrics:
    """What was measured on one case.

    Parameters
    ----------
    row
        One row of `core.tables.CASE_METRICS`.
    dvh, goals
        Rows of `core.tables.DVH_METRICS` and `core.tables.GOAL_METRICS`.
    openkbp
        What the case adds to the challenge's scores; None for other cohorts.
    """

    row: dict[str, Any]
    dvh: list[dict[str, Any]]
    goals: list[dict[str, Any]]
    openkbp: PatientScore | None


def evaluate_case(
    case: Case, prediction_gy: NDArray[np.float32], yardsticks: Yardsticks, rng: np.random.Generator
) -> CaseMetrics:
    """Return what a prediction is worth against the plan of its case.

    Parameters
    ----------
    case
        With dose and prescription; the plan is the reference.
    prediction_gy
        Predicted dose in Gy, (z, y, x) on the case's grid.
    yardsticks
        Structures' kinds, clinical goals, statistics and gamma criteria.
    rng
        Draws the points at which gamma is checked against its reference implementation.

    Raises
    ------
    BadCase
        If there is no dose to compare with, or the prediction is not finite or negative.
    BadInput
        If a statistic, criterion or goal is not known.
    """
    refuse_unfit(case, prediction_gy, case.grid)
    row: dict[str, Any] = {"case_id": case.case_id}
    row |= absolute_errors(case, prediction_gy)
    row |= _gamma(case, prediction_gy, yardsticks.settings, rng)
    goals = _goal_rows(case, prediction_gy, yardsticks.goals)
    row |= _goal_counts(goals)
    openkbp = None
    if yardsticks.protocol.source == "openkbp":
        masks = {name: case.mask(name) for name in case.present_names}
        openkbp = score_patient(
            plan_dose(case), prediction_gy, masks, case.valid_dose, case.grid.voxel_volume_cc * 1000.0
        )
        row["openkbp_dose_gy"] = openkbp.dose_gy
        row["openkbp_dvh_gy"] = float(np.mean(list(openkbp.dvh_gy.values()))) if openkbp.dvh_gy else math.nan
    return CaseMetrics(row, _dvh_rows(case, prediction_gy, yardsticks), goals, openkbp)


def plan_dose(case: Case) -> NDArray[np.float32]:
    """Return the plan's dose of a case in Gy, (z, y, x).

    Raises
    ------
    BadCase
        If it has none.
    """
    if case.dose_gy is None:
        raise BadCase(case.case_id, "the case has no plan dose to compare with")
    return case.dose_gy


def error_masks(case: Case) -> dict[str, NDArray[np.bool_]]:
    """Return the masks that errors are named by, (z, y, x): body, valid_dose, above_10_percent and each structure.

    Notes
    -----
    The same model reads 1.4 Gy under one mask and 4.2 Gy under another: an error without its mask's name says nothing.
    A structure is its part within the plan's dose grid; `body` is whole, and the plan counts as 0 Gy beyond that grid.
    """
    level_gy = ABOVE_FRACTION * max(case.prescription_gy.values())
    masks = {"body": case.body, "valid_dose": case.valid_dose, "above_10_percent": plan_dose(case) > level_gy}
    clash = sorted(set(masks) & set(case.structure_names))
    if clash:
        raise BadInput(
            f"a structure is called {', '.join(clash)}, like a mask of evaluation; rename it in the protocol"
        )
    return masks | {name: _reached(case, name) for name in case.structure_names}


def _reached(case: Case, name: str) -> NDArray[np.bool_]:
    """The part of a structure where the plan has a dose to err from."""
    known = np.zeros(case.grid.shape_zyx, dtype=np.bool_)
    known[case.reach] = case.mask(name)[case.reach]
    return known


def absolute_errors(case: Case, prediction_gy: NDArray[np.float32]) -> dict[str, float]:
    """Return `mae_<mask>_gy`, the mean absolute error in Gy under each named mask; NaN where a structure is absent.

    Raises
    ------
    BadCase
        If body, valid_dose or above_10_percent has no voxel: a mean over none would leave the cohort's mean unseen.
    """
    error, masks = np.abs(prediction_gy - plan_dose(case)), error_masks(case)
    empty = [name for name in WHOLE_MASKS if not masks[name].any()]
    if empty:
        raise BadCase(case.case_id, f"{', '.join(empty)} has no voxel, so no error can be measured; ingest it again")
    return {
        f"mae_{name}_gy": float(error[mask].mean(dtype=np.float64)) if mask.any() else math.nan
        for name, mask in masks.items()
    }


def gamma_criteria(settings: GammaSettings) -> GammaCriteria:
    """Return the criteria of gamma as the settings have them; 100 % is the plan's maximum."""
    return GammaCriteria(
        gamma_percent=settings.gamma_percent,
        gamma_mm=settings.gamma_mm,
        cutoff_percent=settings.cutoff_percent,
        local=settings.local,
        interp_fraction=settings.interp_fraction,
        max_gamma=settings.max_gamma,
    )


def gamma_column(settings: GammaSettings) -> str:
    """Return the name of a criterion's column: percent, mm, and which kind.

    Examples
    --------
    >>> gamma_column(GammaSettings(
    ...     gamma_percent=3, gamma_mm=2, cutoff_percent=10, local=True, interp_fraction=10, max_gamma=2))
    'gamma_3_2_local_percent'
    """
    kind = "local" if settings.local else "global"
    return f"gamma_{settings.gamma_percent:g}_{settings.gamma_mm:g}_{kind}_percent"


def gamma_name(settings: GammaSettings) -> str:
    """Return a criterion as the field writes it, with its cutoff.

    Examples
    --------
    >>> gamma_name(GammaSettings(
    ...     gamma_percent=3, gamma_mm=2, cutoff_percent=10, local=True, interp_fraction=10, max_gamma=2))
    '3 %/2 mm local, cutoff 10 %'
    """
    kind = "local" if settings.local else "global"
    return f"{settings.gamma_percent:g} %/{settings.gamma_mm:g} mm {kind}, cutoff {settings.cutoff_percent:g} %"


def all_gamma_criteria(settings: EvaluateSettings) -> str:
    """Return all that decides the pass rates of a table, so that tables made with other settings can be told apart."""
    texts = (f"{gamma_name(gamma)}, steps of 1/{gamma.interp_fraction} of the distance" for gamma in settings.gamma)
    return "; ".join(texts) or "none"


def dose_pair(case: Case, prediction_gy: NDArray[np.float32]) -> DosePair:
    """Return plan and prediction as gamma compares them: every voxel of the case, in the body or not."""
    axes = case.grid.axes_mm()
    return DosePair(axes, plan_dose(case), axes, prediction_gy)


def _gamma(
    case: Case, prediction_gy: NDArray[np.float32], settings: EvaluateSettings, rng: np.random.Generator
) -> dict[str, Any]:
    """Return each criterion's pass rate, and at how many points the reference implementation differs by how much."""
    pair = dose_pair(case, prediction_gy)
    rates: dict[str, float] = {}
    n_verified, differences = 0, []
    for item in settings.gamma:
        name, criteria = gamma_column(item), gamma_criteria(item)
        if name in rates:
            raise BadInput(f"evaluate.gamma: there are two criteria of the name {name}; take one away")
        if settings.verify_gamma_points == 0:
            rates[name] = pass_rate_percent(pair, criteria).pass_rate_percent
            continue
        gamma = gamma_map(pair, criteria)
        rates[name] = summarise(gamma, pair, criteria).pass_rate_percent
        n_points = min(settings.verify_gamma_points, int(np.count_nonzero(~np.isnan(gamma))))
        differences.append(verify_points(gamma, pair, criteria, n_points=n_points, rng=rng))
        n_verified += n_points
    largest = max(differences) if differences else math.nan
    return rates | {
        "gamma_criteria": all_gamma_criteria(settings),
        "gamma_points_verified": n_verified,
        "gamma_largest_difference": largest,
    }


def _dvh_rows(case: Case, prediction_gy: NDArray[np.float32], yardsticks: Yardsticks) -> list[dict[str, Any]]:
    rows = []
    for structure in yardsticks.protocol.structures:
        statistics = [parse_statistic(text) for text in yardsticks.settings.dvh_statistics[structure.kind]]
        plan, prediction = (
            _measure(case, dose, structure.name, statistics) for dose in (plan_dose(case), prediction_gy)
        )
        for statistic, wanted, found in zip(statistics, plan, prediction, strict=True):
            rows.append(
                {
                    "case_id": case.case_id,
                    "structure": structure.name,
                    "kind": structure.kind,
                    "statistic": statistic.name,
                    "unit": statistic.unit,
                    "plan": wanted.value,
                    "prediction": found.value,
                    "difference": found.value - wanted.value,
                    "reason": wanted.reason or found.reason,
                }
            )
    return rows


def _measure(case: Case, dose_gy: NDArray[np.float32], name: str, statistics: list[Statistic]) -> list[Measure]:
    """Return each statistic of a structure, its doses being sorted once."""
    mask, voxel_cc = case.mask(name), case.grid.voxel_volume_cc
    prescription_gy = case.prescription_gy.get(name, max(case.prescription_gy.values()))
    samples, whole = reached_dose(dose_gy, mask, voxel_cc, case.reach), (dose_gy[case.reach], voxel_cc)
    return [samples.measure(statistic, prescription_gy, whole) for statistic in statistics]


def _goal_rows(case: Case, prediction_gy: NDArray[np.float32], goals: GoalSet) -> list[dict[str, Any]]:
    masks = {name: case.mask(name) for name in case.structure_names}
    plan, prediction = (
        evaluate_goals(dose, masks, case.grid.spacing_mm, case.prescription_gy, goals, case.reach)
        for dose in (plan_dose(case), prediction_gy)
    )
    return [_goal_row(case.case_id, ours, theirs) for ours, theirs in zip(plan, prediction, strict=True)]


def _goal_row(case_id: str, plan: GoalResult, prediction: GoalResult) -> dict[str, Any]:
    goal = plan.goal
    return {
        "case_id": case_id,
        "goal": goal.name,
        "structure": goal.structure,
        "unit": goal.unit,
        "limit": goal.limit,
        "gating": goal.gating,
        "plan": plan.value,
        "prediction": prediction.value,
        "plan_met": plan.met,
        "prediction_met": prediction.met,
        "plan_acceptable": plan.acceptable,
        "prediction_acceptable": prediction.acceptable,
        "plan_margin": plan.margin,
        "prediction_margin": prediction.margin,
        "reason": plan.reason or prediction.reason,
    }


def _goal_counts(goals: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts of goals that a case's row has: all, and whether every gating one is at least acceptable.

    A goal of an absent structure counts for nothing; where no gating goal could be judged, nothing is acceptable.
    """
    counts: dict[str, Any] = {"goals_evaluable": sum(row["plan_met"] is not None for row in goals)}
    for who in ("plan", "prediction"):
        counts[f"{who}_goals_met"] = sum(row[f"{who}_met"] is True for row in goals)
        judged = [row[f"{who}_acceptable"] for row in goals if row["gating"] and row[f"{who}_acceptable"] is not None]
        counts[f"{who}_acceptable"] = bool(judged) and all(judged)
    return counts
