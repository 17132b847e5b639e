"""Clinical goals: met or missed and by how much; faults of a file of goals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import edt
import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.grid import box_around
from doseledger.core.limit import keeps
from doseledger.core.project.protocol import Goal, GoalSet, Protocol
from doseledger.core.types import Array, Box, Mask, Triple
from doseledger.dosimetry.dvh.grammar import Measure, Statistic, parse_statistic
from doseledger.dosimetry.dvh.statistics import SampledDose, reached_dose

# A plan that is scaled to its limit meets it, though float32 and interpolation leave it off by 1e-5. Planning systems
# print two decimals; a tenth of the last one decides nothing in a clinic.
LIMIT_TOLERANCE = 1e-3
# No dose of external radiotherapy is prescribed in Gy beyond this: such a limit was meant in cGy.
LARGEST_DOSE_GY = 150.0


@dataclass(frozen=True)
class GoalResult:
    """How a dose does on one goal.

    Parameters
    ----------
    value
        Value of its statistic, in the goal's unit; NaN where there is none.
    met, acceptable
        Whether the limit is kept, and whether at least the acceptable limit (the limit itself where there is no
        other); None where there is no value.
    margin
        Room left, in the goal's unit: positive is better than the limit, negative misses it by as much.
    reason
        Why there is no value, or what was assumed; empty otherwise.
    """

    goal: Goal
    value: float
    met: bool | None
    acceptable: bool | None
    margin: float
    reason: str

    @property
    def name(self) -> str:
        """How the goal is called in tables."""
        return self.goal.name


def evaluate_goals(
    dose_gy: Array,
    masks: Mapping[str, Mask],
    spacing_mm: Triple,
    prescription_gy: Mapping[str, float],
    goals: GoalSet,
    reach: Box | None = None,
) -> list[GoalResult]:
    """Return how a dose does on each goal, in the order of the goals.

    Parameters
    ----------
    dose_gy
        Total plan dose in Gy, (z, y, x).
    masks
        Bool mask (z, y, x) by structure name; all False where the structure is absent.
    spacing_mm
        Voxel spacing (z, y, x) in mm.
    prescription_gy
        Prescribed dose in Gy by target. What is relative in a goal refers to the structure's own prescription, and
        for any other structure to the highest one.
    reach
        Voxels (z, y, x) where the dose is known; None: all.

    Raises
    ------
    BadInput
        If a goal names a structure that is not among the masks, or its statistic or unit is not of the grammar.

    Notes
    -----
    `minus` takes away every voxel whose centre lies within the margin of the centre of a voxel of the others (exact
    Euclidean distance on the anisotropic grid). An absent one of them takes nothing away, which the result says. A
    structure of which more than 0.1 % lies beyond the dose has no value.
    """
    voxel_cc = float(np.prod(spacing_mm)) / 1000.0
    known = reach or (slice(None), slice(None), slice(None))
    whole = dose_gy[known], voxel_cc
    samples: dict[tuple[str, tuple[str, ...], float], tuple[Mask, SampledDose]] = {}
    results = []
    for goal in goals.goals:
        statistic = _statistic(goal)
        _check_names(goal, masks)
        key = (goal.structure, tuple(goal.minus), goal.minus_margin_mm)
        if key not in samples:
            mask = _without(masks[goal.structure], [masks[name] for name in goal.minus], goal, spacing_mm)
            samples[key] = mask, reached_dose(dose_gy, mask, voxel_cc, known)
        mask, dose = samples[key]
        reference = prescription_gy.get(goal.structure, max(prescription_gy.values(), default=math.nan))
        measure = dose.measure(statistic, reference, whole)
        remarks = [dose.lacking, _remark(goal, masks, mask)]
        results.append(_judge(goal, measure, "; ".join(filter(None, remarks))))
    return results


def _statistic(goal: Goal) -> Statistic:
    try:
        return parse_statistic(goal.statistic).in_unit(goal.unit)
    except BadInput as error:
        raise BadInput(f"goal {goal.name}: {error}") from error


def _check_names(goal: Goal, masks: Mapping[str, Mask]) -> None:
    for name in (goal.structure, *goal.minus):
        if name not in masks:
            raise BadInput(f"goal {goal.name}: there is no structure {name}; there are {', '.join(masks)}")


def _without(mask: Mask, others: list[Mask], goal: Goal, spacing_mm: Triple) -> Mask:
    """Return a mask without the voxels that lie within the goal's margin of other masks."""
    if not others or not mask.any():
        return mask
    taken = np.logical_or.reduce(others)
    reach = goal.minus_margin_mm
    margin = [math.ceil(reach / spacing) for spacing in spacing_mm]
    # Only what lies within the margin of the structure's box can take anything from it.
    box = box_around(mask, (margin[0], margin[1], margin[2]))
    near = taken[box]
    if reach > 0 and near.any():
        distance_mm = edt.edt(np.ascontiguousarray(~near), anisotropy=spacing_mm, black_border=False)
        near = distance_mm <= reach + 1e-4
    rest = mask.copy()
    rest[box] &= ~near
    return rest


def _remark(goal: Goal, masks: Mapping[str, Mask], mask: Mask) -> str:
    if not masks[goal.structure].any():
        return f"{goal.structure} is absent"
    if not mask.any():
        return f"nothing of {goal.structure} is left without {' and '.join(goal.minus)}"
    gone = [name for name in goal.minus if not masks[name].any()]
    return f"{' and '.join(gone)} absent: nothing taken away for it" if gone else ""


def _judge(goal: Goal, measure: Measure, remark: str) -> GoalResult:
    if not math.isfinite(measure.value):
        reason = remark or measure.reason or f"the value is {measure.value}"
        return GoalResult(goal, math.nan, None, None, math.nan, reason)
    sign = 1.0 if goal.operator == "<=" else -1.0
    margin = sign * (goal.limit - measure.value)
    met = keeps(margin, least=-LIMIT_TOLERANCE)
    loosest = goal.limit if goal.acceptable is None else goal.acceptable
    acceptable = met or keeps(sign * (loosest - measure.value), least=-LIMIT_TOLERANCE)
    return GoalResult(goal, measure.value, met, acceptable, margin, remark)


def lint_goals(goals: GoalSet, protocol: Protocol) -> list[str]:
    """Return everything that is wrong with a set of goals, one sentence each; empty when it is sound."""
    found = []
    if goals.protocol != protocol.name:
        found.append(f"the goals are of protocol {goals.protocol}, they are used with {protocol.name}")
    targets = protocol.target_names
    if targets and not any(goal.gating and goal.structure in targets for goal in goals.goals):
        found.append("no gating goal looks at a target: an empty plan would pass")
    seen: dict[tuple[Any, ...], str] = {}
    for goal in goals.goals:
        found += [f"{goal.name}: {fault}" for fault in _faults(goal, protocol)]
        key = (goal.structure, goal.statistic, goal.unit, goal.operator, tuple(sorted(goal.minus)))
        if key in seen:
            found.append(f"{goal.name}: the same statistic is judged by {seen[key]}")
        seen[key] = goal.name
    return found + _contradictions(goals)


def _faults(goal: Goal, protocol: Protocol) -> list[str]:
    found = [
        f"{name} is not a structure of protocol {protocol.name} ({', '.join(protocol.structure_names)})"
        for name in (goal.structure, *goal.minus)
        if name not in protocol.structure_names
    ]
    if goal.structure in goal.minus:
        found.append(f"takes {goal.structure} away from itself")
    if goal.minus_margin_mm and not goal.minus:
        found.append(f"minus_margin_mm is {goal.minus_margin_mm:g}, but minus is empty")
    if not keeps(goal.limit, least=0.0):
        found.append(f"the limit is {goal.limit}; wanted a number from 0")
    sign = 1 if goal.operator == "<=" else -1
    if goal.acceptable is not None and not keeps((goal.acceptable - goal.limit) * sign, least=0.0):
        found.append(f"acceptable {goal.acceptable:g} is stricter than the limit {goal.limit:g}; are they swapped?")
    try:
        statistic = parse_statistic(goal.statistic).in_unit(goal.unit)
    except BadInput as error:
        return [*found, str(error)]
    if statistic.needs_prescription and not protocol.prescription_gy:
        found.append(f"is relative to a prescription, and protocol {protocol.name} has none")
    if goal.unit == "Gy" and not keeps(goal.limit, most=LARGEST_DOSE_GY):
        found.append(f"{goal.limit:g} Gy is no dose of radiotherapy; was it meant in cGy?")
    if statistic.kind == "volume_at_gy" and not keeps(statistic.level, most=LARGEST_DOSE_GY):
        found.append(f"{statistic.level:g} Gy is no dose of radiotherapy; was it meant in cGy?")
    if statistic.kind.startswith("volume_at") and goal.unit == "%" and not keeps(goal.limit, most=100.0):
        found.append(f"a volume of {goal.limit:g} % can't be: a structure has 100 %")
    return found


def _contradictions(goals: GoalSet) -> list[str]:
    found = []
    for low in (goal for goal in goals.goals if goal.operator == ">="):
        for high in (goal for goal in goals.goals if goal.operator == "<="):
            same = all(getattr(low, key) == getattr(high, key) for key in ("structure", "unit", "minus"))
            if same and low.limit > high.limit and _never_above(low.statistic, high.statistic):
                found.append(f"{low.name} and {high.name} can't both be met")
    return found


def _never_above(one: str, other: str) -> bool:
    """Whether no dose gives the one statistic more than the other: V falls with the dose, D with the volume."""
    try:
        first, second = parse_statistic(one), parse_statistic(other)
    except BadInput:
        return False
    return one == other or (first.kind == second.kind and first.level >= second.level)
