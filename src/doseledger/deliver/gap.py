"""The deliverability gap: how far a plan's dose lies from the predicted one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.project.protocol import GoalSet
from doseledger.core.types import GyArray
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.statistics import structure_dose
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair
from doseledger.dosimetry.gamma.map import pass_rate_percent
from doseledger.dosimetry.goals import evaluate_goals
from doseledger.evaluate.case import ABOVE_FRACTION
from doseledger.planning.machine.complexity import mu_per_gy
from doseledger.planning.optimise.patient import PlannedPatient

# Percent and mm; the first is what the gap is told by in a line.
CRITERIA = ((3.0, 3.0), (3.0, 2.0), (2.0, 2.0))
CUTOFF_PERCENT = 10.0
INTERP_FRACTION = 10
MAX_GAMMA = 2.0
TARGET_STATISTICS = ("D98%", "D95%", "D50%", "D2%", "mean")
ORGAN_STATISTICS = ("D2%", "D20%", "D50%", "mean")
DECIMALS = 4
SAME_ENGINE = (
    "One dose engine planned and judged: the gap is what leaves, gantry and dose rate cost, and says nothing of how "
    "well the engine knows a real machine and patient."
)
Values = dict[str, float | None]


@dataclass(frozen=True)
class Doses:
    """Doses of a case on its grid: predicted, of the plan that mimics it, and of the original plan if any."""

    predicted: GyArray
    delivered: GyArray
    original: GyArray | None

    def by_name(self) -> dict[str, GyArray]:
        """Return those that are there, by name."""
        found = {"predicted": self.predicted, "delivered": self.delivered}
        return found if self.original is None else {**found, "original": self.original}


def judge_delivery(case: Case, doses: Doses, planned: PlannedPatient, goals: GoalSet) -> dict[str, Any]:
    """Return what a plan that mimics a predicted dose is worth, as JSON values.

    Parameters
    ----------
    case
        Structures and prescription; all doses lie on its grid.
    planned
        The plan; its scale is what its normalisation cost.

    Returns
    -------
    dict
        `gap` (gamma and MAE of the plan's dose against the predicted one), `normalisation`, `dvh`, `goals`,
        `goals_met`, `plan` and `note`.
    """
    unscaled = doses.delivered / np.float32(planned.scale)
    rows = _goal_rows(case, doses, goals)
    return {
        "case_id": case.case_id,
        "gap": dose_gap(case, doses.predicted, doses.delivered),
        "normalisation": {
            "target": case.main_target,
            "scale": round(planned.scale, DECIMALS),
            "before": {
                **dose_gap(case, doses.predicted, unscaled, CRITERIA[:1]),
                "d95_gy": _d95(case, unscaled),
            },
            "d95_gy": _d95(case, doses.delivered),
        },
        "original_against_predicted": (
            None if doses.original is None else dose_gap(case, doses.predicted, doses.original, CRITERIA[:1])
        ),
        "dvh": _dvh_rows(case, doses),
        "goals": rows,
        "goals_met": {who: sum(row[f"{who}_met"] is True for row in rows) for who in doses.by_name()},
        "goals_evaluable": sum(row["delivered_met"] is not None for row in rows),
        "plan": {
            "mu": round(planned.plan.total_mu, 2),
            "mu_per_gy": round(mu_per_gy(planned.plan) or math.nan, 2),
            "penalty": round(planned.objective, DECIMALS),
        },
        "note": SAME_ENGINE,
    }


def dose_gap(
    case: Case, predicted: GyArray, delivered: GyArray, criteria: Sequence[tuple[float, float]] = CRITERIA
) -> Values:
    """Return the distance of a delivered dose from the predicted one: gamma pass rates in percent, and MAE in Gy.

    Parameters
    ----------
    criteria
        Percent (of the predicted maximum) and mm; above 10 % of that maximum.
    """
    axes = case.grid.axes_mm()
    pair = DosePair(axes, predicted, axes, delivered)
    found: Values = {}
    for percent, mm in criteria:
        wanted = GammaCriteria(percent, mm, CUTOFF_PERCENT, False, INTERP_FRACTION, MAX_GAMMA)
        found[f"gamma_{percent:g}_{mm:g}_percent"] = round(pass_rate_percent(pair, wanted).pass_rate_percent, DECIMALS)
    error = np.abs(delivered - predicted)
    above = predicted > ABOVE_FRACTION * max(case.prescription_gy.values())
    for name, mask in (("above_10_percent", above), ("body", case.body)):
        found[f"mae_{name}_gy"] = _finite(float(error[mask].mean(dtype=np.float64)) if mask.any() else math.nan)
    return found


def _d95(case: Case, dose_gy: GyArray) -> float | None:
    target = case.main_target
    if target is None:
        return None
    samples = structure_dose(dose_gy, case.mask(target), case.grid.voxel_volume_cc)
    return _finite(samples.measure(parse_statistic("D95%")).value)


def _dvh_rows(case: Case, doses: Doses) -> list[dict[str, Any]]:
    rows = []
    for structure in case.present_names:
        names = TARGET_STATISTICS if structure in case.prescription_gy else ORGAN_STATISTICS
        found = {
            who: structure_dose(dose, case.mask(structure), case.grid.voxel_volume_cc)
            for who, dose in doses.by_name().items()
        }
        for name in names:
            values = {who: _finite(samples.measure(parse_statistic(name)).value) for who, samples in found.items()}
            rows.append({"structure": structure, "statistic": name, **values})
    return rows


def _goal_rows(case: Case, doses: Doses, goals: GoalSet) -> list[dict[str, Any]]:
    masks = {name: case.mask(name) for name in case.structure_names}
    results = {
        who: evaluate_goals(dose, masks, case.grid.spacing_mm, case.prescription_gy, goals)
        for who, dose in doses.by_name().items()
    }
    rows = []
    for k, goal in enumerate(goals.goals):
        row: dict[str, Any] = {"goal": goal.name, "gating": goal.gating, "source": goal.source}
        for who, found in results.items():
            row[who], row[f"{who}_met"] = _finite(found[k].value), found[k].met
            row[f"{who}_acceptable"] = found[k].acceptable
        rows.append(row)
    return rows


def _finite(value: float) -> float | None:
    return round(value, DECIMALS) if math.isfinite(value) else None


def summarise_deliveries(found: Mapping[str, dict[str, Any]], failed: Mapping[str, str]) -> dict[str, Any]:
    """Return the metrics of a model's plans: means over its cases, each case's own, and why others have no plan."""
    names = list(next(iter(found.values()))["gap"]) if found else []
    gap = {name: _mean([one["gap"][name] for one in found.values()]) for name in names}
    evaluable = sum(one["goals_evaluable"] for one in found.values())
    who = next(iter(found.values()))["goals_met"] if found else {}
    return {
        "n_cases": len(found),
        "n_failed": len(failed),
        "failed": dict(failed),
        "checkpoint_sha256": sorted({one["checkpoint_sha256"] for one in found.values()}),
        "gap": gap,
        "worst_gamma_3_3_percent": min((one["gap"]["gamma_3_3_percent"] for one in found.values()), default=None),
        "goals_met_percent": {
            name: _finite(100.0 * sum(one["goals_met"][name] for one in found.values()) / max(evaluable, 1))
            for name in who
        },
        "normalisation_scale": _mean([one["normalisation"]["scale"] for one in found.values()]),
        "mu_per_gy": _mean([one["plan"]["mu_per_gy"] for one in found.values()]),
        "modulation_score": _mean([one["plan"]["complexity"]["modulation_score"] for one in found.values()]),
        "cases": {name: _case_summary(one) for name, one in sorted(found.items())},
        "note": SAME_ENGINE,
    }


def _case_summary(one: dict[str, Any]) -> dict[str, Any]:
    gap, plan = one["gap"], one["plan"]
    return {
        **{name: gap[name] for name in ("gamma_3_3_percent", "gamma_2_2_percent", "mae_above_10_percent_gy")},
        "d95_before_scaling_gy": one["normalisation"]["before"]["d95_gy"],
        "goals_met": one["goals_met"],
        "goals_evaluable": one["goals_evaluable"],
        "mu_per_gy": plan["mu_per_gy"],
        "modulation_score": plan["complexity"]["modulation_score"],
    }


def _mean(values: list[Any]) -> float | None:
    there = [float(value) for value in values if value is not None]
    return round(float(np.mean(there)), DECIMALS) if there else None


def describe_delivery(found: dict[str, Any]) -> list[str]:
    """Return what was judged as lines of a table for the console: predicted, delivered and original side by side."""
    gap, plan, norm = found["gap"], found["plan"], found["normalisation"]
    gammas = ", ".join(
        f"{percent:g} %/{mm:g} mm {gap[f'gamma_{percent:g}_{mm:g}_percent']:.2f} %" for percent, mm in CRITERIA
    )
    lines = [
        f"{found['case_id']}: gamma of the plan's dose against the predicted one: {gammas}",
        f"  MAE {gap['mae_above_10_percent_gy']:.2f} Gy above 10 %, {gap['mae_body_gy']:.2f} Gy in the body; "
        f"{plan['mu']:.0f} MU, {plan['mu_per_gy']:.0f} MU/Gy, modulation score "
        f"{plan['complexity']['modulation_score']:.3f}",
        f"  scaled by {norm['scale']:.4f} to D95% {norm['d95_gy']:.2f} Gy of {norm['target']} (before: "
        f"{norm['before']['d95_gy']:.2f} Gy, gamma 3 %/3 mm {norm['before']['gamma_3_3_percent']:.2f} %)",
    ]
    who = list(found["goals_met"])
    lines.append(f"  {'':44}" + "".join(f"{name:>14}" for name in who))
    for row in found["dvh"]:
        label = f"{row['structure']} {row['statistic']} (Gy)"
        lines.append(f"  {label:44}" + "".join(f"{_text(row[name]):>14}" for name in who))
    for row in found["goals"]:
        marks = [_text(row[name]) + _mark(row[f"{name}_met"], row[f"{name}_acceptable"]) for name in who]
        lines.append(f"  {row['goal']:44}" + "".join(f"{mark:>14}" for mark in marks))
    met = [f"{count} of {found['goals_evaluable']}" for count in found["goals_met"].values()]
    lines.append(f"  {'goals met':44}" + "".join(f"{text:>14}" for text in met))
    return [*lines, f"  {found['note']}"]


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _mark(met: bool | None, acceptable: bool | None) -> str:
    if met is None:
        return "  "
    return " ✓" if met else " ~" if acceptable else " ✗"
