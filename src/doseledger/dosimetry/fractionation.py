"""Dose limits converted between fractionations by the linear-quadratic model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Goal, GoalSet
from doseledger.dosimetry.dvh.grammar import parse_statistic

STANDARD_FRACTION_GY = 2.0
# Converted levels are rounded to this many decimals of a Gy: α/β itself is known to a factor of two.
LEVEL_DECIMALS = 1


def eqd2_gy(dose_gy: float, n_fractions: int, alpha_beta_gy: float) -> float:
    """Return the dose in Gy that has the same effect in fractions of 2 Gy.

    Parameters
    ----------
    dose_gy
        Total dose to a point.
    alpha_beta_gy
        α/β of the tissue and the effect, in Gy.

    Notes
    -----
    D (D/n + α/β) / (2 + α/β): Fowler, Br J Radiol 62:679 (1989). Without repopulation or the length of the course.

    Examples
    --------
    >>> eqd2_gy(70.0, 35, 3.0), round(eqd2_gy(60.0, 20, 3.0), 6)
    (70.0, 72.0)
    """
    return dose_gy * (dose_gy / n_fractions + alpha_beta_gy) / (STANDARD_FRACTION_GY + alpha_beta_gy)


def dose_of_eqd2_gy(eqd2: float, n_fractions: int, alpha_beta_gy: float) -> float:
    """Return the total dose in Gy that has an EQD2 when it is given in `n_fractions`; the inverse of `eqd2_gy`.

    Examples
    --------
    >>> round(dose_of_eqd2_gy(72.0, 20, 3.0), 6)
    60.0
    """
    # D²/n + α/β D − EQD2 (2 + α/β) = 0.
    effect = eqd2 * (STANDARD_FRACTION_GY + alpha_beta_gy)
    half = n_fractions * alpha_beta_gy / 2.0
    return math.sqrt(half**2 + n_fractions * effect) - half


def convert_goal(goal: Goal, n_fractions: int, alpha_beta_gy: float, from_fractions: int | None = None) -> Goal:
    """Return a clinical goal with its dose level for another number of fractions.

    Parameters
    ----------
    goal
        The goal as published: a volume at a dose (`V65Gy`), or a dose to a volume (`D2cc`, `max`) in Gy.
    n_fractions
        For which it is wanted.
    alpha_beta_gy
        α/β of the organ in Gy; the new source names it.
    from_fractions
        For which it was published; None where its doses are EQD2.

    Raises
    ------
    BadInput
        If the goal has no dose of one point: a mean, or a percentage of the prescription, can't be converted.

    Notes
    -----
    Each point of a DVH is converted for itself: a point that had D in the old number of fractions has the isoeffective
    dose in the new one, and volumes stay what they are.
    """

    def convert(dose_gy: float) -> float:
        eqd2 = dose_gy if from_fractions is None else eqd2_gy(dose_gy, from_fractions, alpha_beta_gy)
        return round(dose_of_eqd2_gy(eqd2, n_fractions, alpha_beta_gy), LEVEL_DECIMALS)

    statistic = parse_statistic(goal.statistic)
    origin = "EQD2" if from_fractions is None else f"{from_fractions} fractions"
    changes: dict[str, object] = {
        "source": f"{goal.source}; {goal.name} in {origin}, converted to {n_fractions} fractions, "
        f"α/β {alpha_beta_gy:g} Gy"
    }
    if statistic.kind == "volume_at_gy":
        changes["statistic"] = f"V{convert(statistic.level):g}Gy"
    elif goal.unit == "Gy" and statistic.name != "mean":
        changes["limit"] = convert(goal.limit)
        changes["acceptable"] = None if goal.acceptable is None else convert(goal.acceptable)
    else:
        raise BadInput(f"goal {goal.name} is no dose to a point, so its fractionation can't be converted")
    return goal.model_copy(update=changes)


def convert_goals(
    goals: GoalSet,
    n_fractions: int,
    alpha_beta_gy: Mapping[str, float],
    *,
    keep: frozenset[str] = frozenset(),
    from_fractions: int | None = None,
) -> GoalSet:
    """Return a set of clinical goals for another number of fractions.

    Parameters
    ----------
    n_fractions
        For which it is wanted.
    alpha_beta_gy
        α/β in Gy by structure; every goal of these is converted.
    keep
        Structures whose goals stay as they are, as those of a target whose prescription is for `n_fractions` already.
    from_fractions
        For which it was published; None where its doses are EQD2.

    Raises
    ------
    BadInput
        If a structure is in neither list or in both, one is not among the goals, or a goal can't be converted: what was
        left as it is by mistake would look like a limit of the new fractionation.
    """
    structures = {goal.structure for goal in goals.goals}
    named = set(alpha_beta_gy) | keep
    both, missing, strangers = set(alpha_beta_gy) & keep, structures - named, named - structures
    for found, what in (
        (both, "are to be converted and kept; take them out of one list"),
        (missing, "have goals, but neither an α/β nor leave to stay as they are; name them in one of the lists"),
        (strangers, f"have no goal in {goals.name}; it has goals of {', '.join(sorted(structures))}"),
    ):
        if found:
            raise BadInput(f"{goals.name}: {', '.join(sorted(found))} {what}")
    converted = [
        convert_goal(goal, n_fractions, alpha_beta_gy[goal.structure], from_fractions)
        if goal.structure in alpha_beta_gy
        else goal
        for goal in goals.goals
    ]
    return goals.model_copy(update={"goals": converted})


def parse_alpha_beta(texts: Iterable[str]) -> dict[str, float]:
    """Return α/β in Gy by structure.

    Raises
    ------
    BadInput
        If a text is not `structure=number`, the number is not positive, or a structure comes twice.

    Examples
    --------
    >>> parse_alpha_beta(["Rectum=3", "Bladder=5.5"])
    {'Rectum': 3.0, 'Bladder': 5.5}
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            ratio_gy = float(number)
        except ValueError:
            ratio_gy = math.nan
        if not name or not (0 < ratio_gy < math.inf):
            raise BadInput(f"α/β {text!r}: wanted a structure and a positive number of Gy, for example Rectum=3")
        if name in found:
            raise BadInput(f"α/β of {name} is given twice: {found[name]:g} and {ratio_gy:g} Gy")
        found[name] = ratio_gy
    return found
