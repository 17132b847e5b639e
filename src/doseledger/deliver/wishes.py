"""Goals that a clinic wants for one patient, in place of the cohort's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Goal, GoalSet, Protocol
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.goals import lint_goals
from doseledger.planning.optimise.objectives import Kind, Objective

WISH = re.compile(
    r"^\s*(?P<structure>\S+)\s+(?P<statistic>[^\s<>≤≥]+)\s*(?P<sign><=|>=|≤|≥|<|>)"
    r"\s*(?P<limit>\d+(?:\.\d+)?)\s*(?P<unit>\S*)\s*$"
)
SOURCE = "asked for this patient (--goal)"
# A wish comes before the dose that is mimicked; of a DVH only the few points count that lie between. An organ is asked
# for a little more than the wish, so that what lies between the optimiser's points meets it too.
MEAN_WEIGHT = 300.0
DVH_WEIGHT = 1000.0
ROOM = 0.97
# A DVH objective is about a part of a structure.
MOST_PERCENT = 99.0


def read_wishes(options: Sequence[str], protocol: Protocol) -> list[Goal]:
    """Return the goals of options like `Rectum V65Gy < 10 %`.

    Raises
    ------
    BadInput
        If one is not of that form, or no goal of the protocol could be like it.
    """
    wishes = [_read(option) for option in options]
    faults = lint_goals(GoalSet(name="wishes", protocol=protocol.name, title="wishes", goals=wishes), protocol)
    # Wishes need not look at a target: the cohort's goals do.
    faults = [fault for fault in faults if not fault.startswith("no gating goal")]
    if faults:
        raise BadInput(f"--goal: {'; '.join(faults)}")
    return wishes


def _read(option: str) -> Goal:
    match = WISH.match(option)
    if match is None:
        raise BadInput(f"--goal {option!r}: wanted STRUCTURE STATISTIC < LIMIT UNIT, for example 'Rectum V65Gy < 10 %'")
    unit = match["unit"] or "Gy"
    if unit not in ("Gy", "%", "cc", "1"):
        raise BadInput(f"--goal {option!r}: the unit {unit!r} is none of Gy, %, cc, 1")
    return Goal(
        structure=match["structure"],
        statistic=match["statistic"],
        operator="<=" if match["sign"] in ("<", "<=", "≤") else ">=",
        limit=float(match["limit"]),
        unit=unit,
        source=SOURCE,
    )


def with_wishes(goals: GoalSet, wishes: Sequence[Goal]) -> GoalSet:
    """Return goals with wishes in place of those that ask the same statistic of the same structure, or added."""

    def asked(goal: Goal) -> tuple[str, ...]:
        return goal.structure, goal.statistic, goal.unit, goal.operator, *goal.minus

    there = {asked(wish): wish for wish in wishes}
    kept = [there.pop(asked(goal), goal) for goal in goals.goals]
    return goals.model_copy(update={"goals": [*kept, *there.values()]})


def objective_of(wish: Goal, volume_cc: float, *, is_target: bool) -> Objective:
    """Return what the optimiser is asked for, so that a wish is met.

    Parameters
    ----------
    volume_cc
        Volume of the structure.

    Raises
    ------
    BadInput
        If a plan can't be optimised for the statistic: a ratio, or what is relative to a prescription.
    """
    statistic = parse_statistic(wish.statistic).in_unit(wish.unit)
    below = wish.operator == "<="
    limit = wish.limit * (ROOM if below and not is_target else 1.0)
    dvh: Kind = "dvh_max" if below else "dvh_min"
    volume = None
    if statistic.kind == "volume_at_gy":
        volume = limit if wish.unit == "%" else 100.0 * limit / volume_cc
        limit = statistic.level
    elif wish.unit == "Gy" and statistic.kind in ("dose_at_percent", "dose_at_cc"):
        volume = statistic.level if statistic.kind == "dose_at_percent" else 100.0 * statistic.level / volume_cc
    if volume is not None:
        return Objective(wish.structure, dvh, limit, DVH_WEIGHT, min(volume, MOST_PERCENT))
    if wish.unit == "Gy" and statistic.name == ("max" if below else "min"):
        return Objective(wish.structure, "max_dose" if below else "min_dose", limit, DVH_WEIGHT)
    if wish.unit == "Gy" and statistic.name == "mean" and below:
        return Objective(wish.structure, "mean_max", limit, MEAN_WEIGHT)
    raise BadInput(
        f"--goal {wish.name}: a plan can be optimised for V..Gy, D..% and D..cc in Gy, and for min, max and mean < Gy"
    )
