"""Each tolerance of clinical goals: just inside is met, just outside missed; what is no number meets nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.protocol import Goal, GoalSet, load_protocol
from doseledger.dosimetry.dvh.grammar import Measure
from doseledger.dosimetry.goals import _judge, evaluate_goals, lint_goals


def goal(statistic: str, operator: str, limit: float, unit: str, **more: Any) -> Goal:
    return Goal.model_validate(
        {"structure": "PTV70", "statistic": statistic, "operator": operator, "limit": limit, "unit": unit,
         "source": "a test", **more}
    )  # fmt: skip


def judged(dose_gy: float, one: Goal) -> tuple[bool | None, bool | None, str]:
    dose, mask = np.full((4, 4, 4), dose_gy), np.ones((4, 4, 4), bool)
    goals = GoalSet(name="test", protocol="prostate_sib", title="test", goals=[one])
    (result,) = evaluate_goals(dose, {"PTV70": mask}, (3.0, 2.0, 2.0), {"PTV70": 70.0}, goals)
    return result.met, result.acceptable, result.reason


@pytest.mark.parametrize(
    ("operator", "dose_gy", "met"),
    [(">=", 69.9991, True), (">=", 69.9989, False), ("<=", 70.0009, True), ("<=", 70.0011, False)],
)
def test_a_limit_is_met_within_a_thousandth_of_a_gray(operator: str, dose_gy: float, met: bool) -> None:
    assert judged(dose_gy, goal("mean", operator, 70.0, "Gy"))[:2] == (met, met)
    limit = 71.0 if operator == ">=" else 69.0
    assert judged(dose_gy, goal("mean", operator, limit, "Gy", acceptable=70.0))[:2] == (False, met)


@pytest.mark.parametrize("operator", ["<=", ">="])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_meets_no_goal(value: float, operator: str) -> None:
    result = _judge(goal("mean", operator, 70.0, "Gy"), Measure(value, "Gy"), "")
    assert (result.met, result.acceptable) == (None, None)
    assert result.reason == f"the value is {value}"
    with pytest.raises(BadInput, match="the dose is not finite in 64 voxels"):
        judged(value, goal("mean", operator, 70.0, "Gy"))


@pytest.mark.parametrize(
    ("one", "is_sound"),
    [
        (goal("D2%", "<=", 149.9, "Gy"), True), (goal("D2%", "<=", 150.1, "Gy"), False),
        (goal("V149.9Gy", "<=", 5.0, "%"), True), (goal("V150.1Gy", "<=", 5.0, "%"), False),
        (goal("V70Gy", "<=", 100.0, "%"), True), (goal("V70Gy", "<=", 100.1, "%"), False),
        (goal("D95%", ">=", 0.0, "Gy"), True), (goal("D95%", ">=", -0.1, "Gy"), False),
        (goal("D2%", "<=", 74.0, "Gy", acceptable=74.0), True), (goal("D2%", "<=", 74.0, "Gy", acceptable=73.9), False),
    ],
)  # fmt: skip
def test_no_dose_is_beyond_150_gray_and_no_volume_beyond_the_whole(one: Goal, is_sound: bool, repository: Path) -> None:
    protocol = load_protocol(repository / "validation" / "cohorts" / "prostate" / "protocol.yaml")
    goals = GoalSet(name="test", protocol="prostate_sib", title="test", goals=[one])
    assert (lint_goals(goals, protocol) == []) is is_sound


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["limit", "acceptable", "minus_margin_mm"])
def test_a_goal_with_what_is_no_number_is_refused_as_it_is_read(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{key}\n.*finite number"):
        Goal.model_validate(goal("D95%", ">=", 70.0, "Gy").model_dump() | {key: value})
