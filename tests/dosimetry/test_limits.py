"""Each tolerance of clinical goals: just inside is met, just outside missed; what is no number meets nothing."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Goal, GoalSet, load_protocol
from doseledger.dosimetry.dvh.grammar import Measure
from doseledger.dosimetry.gamma.grids import _checked_axis, whole_stride
from doseledger.dosimetry.goals import _judge, evaluate_goals, lint_goals
from doseledger.dosimetry.intervals import bootstrap_interval
from doseledger.dosimetry.openkbp_scores import dvh_metrics_gy
from doseledger.dosimetry.spread import describe_spread


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


@pytest.mark.parametrize(("stray", "is_even"), [(0.0, True), (0.95e-4, True), (1.05e-4, False), (3e-4, False)])
def test_an_axis_of_gamma_strays_by_the_ten_thousandth_of_a_voxel(stray: float, is_even: bool) -> None:
    axis = 2.5 * np.arange(21.0)
    axis[10] += 2.5 * stray
    with nullcontext() if is_even else pytest.raises(BadInput, match="is uneven, its positions stray"):
        assert len(_checked_axis("axis 0", axis)) == 21


@pytest.mark.parametrize(("drift", "stride"), [(0.0, 2), (0.9e-11, 2), (1.05e-11, 0), (1e-9, 0)])
def test_a_stride_is_whole_up_to_rounding(drift: float, stride: int) -> None:
    axis = np.array([0.0, 2.0, 4.0 + drift])
    assert whole_stride(axis, 1.0) == stride


@pytest.mark.parametrize(("sd_gy", "counted_gy"), [(0.0, 0.05), (0.01, 0.05), (0.0499, 0.05), (0.06, 0.06), (2.0, 2.0)])
def test_a_spread_below_the_twentieth_of_a_gray_counts_as_one(sd_gy: float, counted_gy: float) -> None:
    draws = np.stack([np.full(8, 10.0 - sd_gy / math.sqrt(2)), np.full(8, 10.0 + sd_gy / math.sqrt(2))])
    found = describe_spread("case_1", np.full(8, 11.0), draws, {"PTV": np.ones(8, bool)})
    assert found.ratios == pytest.approx(np.full(8, 1.0 / counted_gy))
    assert found.structures["PTV"] == pytest.approx(1.0 / counted_gy)


@pytest.mark.parametrize(("voxel_mm3", "n_hot"), [(100.0, 1), (40.0, 2), (39.0, 3), (10.0, 10), (9.0, 11), (300.0, 1)])
def test_the_hottest_tenth_of_a_cc_of_an_organ_is_100_mm3(voxel_mm3: float, n_hot: int) -> None:
    dose = np.arange(101.0).reshape(1, 1, 101)
    found = dvh_metrics_gy(dose, {"Brainstem": np.ones(dose.shape, bool)}, voxel_mm3)
    assert found["Brainstem", "D_0.1_cc"] == pytest.approx(np.percentile(np.arange(101.0), 100 - 100 * n_hot / 101))


@pytest.mark.parametrize(("n", "is_known"), [(2, False), (3, True), (30, True)])
def test_an_interval_wants_three_values(n: int, is_known: bool) -> None:
    low, high = bootstrap_interval(np.arange(n, dtype=np.float64), np.random.default_rng(1))
    assert (low < high) is is_known
    assert math.isnan(low) is not is_known
