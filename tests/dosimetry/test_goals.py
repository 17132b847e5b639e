"""Clinical goals: met and missed by how much, structures without others, and a linter that finds each kind of fault."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Goal, GoalSet, Protocol, load_protocol
from doseledger.dosimetry.goals import GoalResult, evaluate_goals, lint_goals

SPACING = (3.0, 2.0, 1.0)
SHAPE = (10, 20, 30)


def goal(structure: str, statistic: str, operator: str, limit: float, unit: str, **more: Any) -> Goal:
    return Goal(
        structure=structure, statistic=statistic, operator=operator, limit=limit, unit=unit,
        **{"source": "a test", **more},
    )  # fmt: skip


def goal_set(*goals: Goal) -> GoalSet:
    return GoalSet(name="test", protocol="prostate_sib", title="test", goals=list(goals))


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    made = {name: np.zeros(SHAPE, bool) for name in ("PTV70", "PTV56", "Rectum", "Bowel")}
    made["PTV70"][3:6, 5:10, 5:15] = True
    made["PTV56"][2:8, 3:15, 3:25] = True
    made["Rectum"][:, 15:, 10:20] = True
    return made


def judge(masks: dict[str, np.ndarray], dose: np.ndarray, *goals: Goal) -> list[GoalResult]:
    return evaluate_goals(dose, masks, SPACING, {"PTV70": 70.0, "PTV56": 56.0}, goal_set(*goals))


def test_a_goal_is_met_or_missed_by_how_much(masks: dict[str, np.ndarray]) -> None:
    dose = np.full(SHAPE, 68.0)
    low, high, ok = judge(
        masks, dose,
        goal("PTV70", "D95%", ">=", 70.0, "Gy", acceptable=67.0),
        goal("Rectum", "mean", "<=", 60.0, "Gy", acceptable=65.0),
        goal("PTV70", "D2%", "<=", 74.9, "Gy"),
    )  # fmt: skip
    assert (low.met, low.acceptable, low.margin) == (False, True, pytest.approx(-2.0))
    assert (high.met, high.acceptable, high.margin) == (False, False, pytest.approx(-8.0))
    assert (ok.met, ok.acceptable, ok.margin) == (True, True, pytest.approx(6.9))
    assert low.name == "PTV70 D95% ≥ 70 Gy"


def test_a_plan_scaled_to_its_limit_meets_it_whatever_float32_leaves(masks: dict[str, np.ndarray]) -> None:
    dose = np.full(SHAPE, np.nextafter(np.float32(70.0), np.float32(0.0)), np.float32)
    (result,) = judge(masks, dose, goal("PTV70", "D95%", ">=", 70.0, "Gy"))
    assert result.met


def test_relative_goals_refer_to_the_targets_own_prescription_and_organs_to_the_highest(
    masks: dict[str, np.ndarray],
) -> None:
    low, organ = judge(
        masks, np.full(SHAPE, 56.0),
        goal("PTV56", "D95%", ">=", 95.0, "%"),
        goal("Rectum", "D95%", "<=", 95.0, "%"),
    )  # fmt: skip
    assert low.value == pytest.approx(100.0)
    assert organ.value == pytest.approx(80.0)


def test_a_volume_goal_in_cc_is_absolute(masks: dict[str, np.ndarray]) -> None:
    (result,) = judge(masks, np.full(SHAPE, 56.0), goal("Rectum", "V50Gy", "<=", 1.0, "cc"))
    assert result.value == pytest.approx(masks["Rectum"].sum() * 0.006)
    assert result.met is False


def test_an_absent_structure_is_neither_met_nor_missed_and_says_why(masks: dict[str, np.ndarray]) -> None:
    for statistic, unit in (("D2cc", "Gy"), ("CI", "1")):
        (result,) = judge(masks, np.full(SHAPE, 56.0), goal("Bowel", statistic, "<=", 1.0, unit))
        assert result.met is None
        assert result.acceptable is None
        assert math.isnan(result.value)
        assert result.reason == "Bowel is absent"


def test_minus_with_a_margin_takes_away_every_voxel_within_it(masks: dict[str, np.ndarray]) -> None:
    dose = np.random.default_rng(1).uniform(50, 70, SHAPE)
    margin = 5.0
    keep = masks["PTV56"] & (distance_transform_edt(~masks["PTV70"], sampling=SPACING) > margin)
    (result,) = judge(masks, dose, goal("PTV56", "mean", "<=", 60.0, "Gy", minus=["PTV70"], minus_margin_mm=margin))
    assert result.value == pytest.approx(dose[keep].mean())
    assert result.name == "PTV56 minus (PTV70 + 5 mm) mean ≤ 60 Gy"


def test_minus_without_a_margin_is_the_difference_of_the_masks(masks: dict[str, np.ndarray]) -> None:
    dose = np.random.default_rng(1).uniform(50, 70, SHAPE)
    (result,) = judge(masks, dose, goal("PTV56", "mean", "<=", 60.0, "Gy", minus=["PTV70"]))
    assert result.value == pytest.approx(dose[masks["PTV56"] & ~masks["PTV70"]].mean())


def test_an_absent_structure_takes_nothing_away_and_a_swallowed_one_has_no_value(
    masks: dict[str, np.ndarray],
) -> None:
    whole, gone = judge(
        masks, np.full(SHAPE, 56.0),
        goal("PTV56", "mean", "<=", 60.0, "Gy", minus=["Bowel"], minus_margin_mm=3),
        goal("PTV70", "mean", "<=", 60.0, "Gy", minus=["PTV56"], minus_margin_mm=3),
    )  # fmt: skip
    assert whole.value == pytest.approx(56.0)
    assert whole.reason == "Bowel absent: nothing taken away for it"
    assert gone.met is None
    assert gone.reason == "nothing of PTV70 is left without PTV56"


def test_a_structure_or_a_statistic_that_is_not_known_is_refused(masks: dict[str, np.ndarray]) -> None:
    with pytest.raises(BadInput, match="no structure Rektum; there are PTV70"):
        judge(masks, np.ones(SHAPE), goal("Rektum", "mean", "<=", 1, "Gy"))
    with pytest.raises(BadInput, match="goal Rectum V70 ≤ 1 %: statistic 'V70' is not known"):
        judge(masks, np.ones(SHAPE), goal("Rectum", "V70", "<=", 1, "%"))


@pytest.fixture(scope="module")
def protocol(repository: Any) -> Protocol:
    return load_protocol(repository / "validation/cohorts/phantom/protocol.yaml")


SOUND = goal("PTV70", "D95%", ">=", 70.0, "Gy")


def test_the_linter_is_silent_on_sound_goals(protocol: Protocol) -> None:
    goals = goal_set(
        SOUND,
        goal("PTV70", "HI", "<=", 0.1, "1"),
        goal("Rectum", "V65Gy", "<=", 15, "%", acceptable=20),
        goal("PTV56", "V95%", ">=", 95, "%", minus=["PTV70"], minus_margin_mm=5, acceptable=93),
    )
    assert lint_goals(goals, protocol) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (goal("Rektum", "mean", "<=", 40, "Gy"), "Rektum is not a structure of protocol prostate_sib"),
        (goal("PTV56", "mean", "<=", 40, "Gy", minus=["PTV_70"]), "PTV_70 is not a structure"),
        (goal("PTV56", "mean", "<=", 40, "Gy", minus=["PTV56"]), "takes PTV56 away from itself"),
        (goal("PTV56", "mean", "<=", 40, "Gy", minus_margin_mm=3), "minus is empty"),
        (goal("Rectum", "V65", "<=", 40, "%"), "statistic 'V65' is not known; it lacks a unit"),
        (goal("Rectum", "V65Gy", "<=", 40, "Gy"), "V65Gy can't be had in 'Gy'"),
        (goal("Rectum", "V6500Gy", "<=", 40, "%"), "meant in cGy"),
        (goal("Rectum", "D2%", "<=", 7000, "Gy"), "meant in cGy"),
        (goal("Rectum", "V65Gy", "<=", 400, "%"), "a volume of 400 % can't be"),
        (goal("Rectum", "V65Gy", "<=", 15, "%", acceptable=10), "are they swapped"),
        (goal("PTV70", "D98%", ">=", 66, "Gy", acceptable=67), "are they swapped"),
        (goal("Rectum", "V65Gy", "<=", -1, "%"), "wanted a number from 0"),
        (goal("PTV70", "D95%", ">=", 69.0, "Gy"), "the same statistic is judged by PTV70 D95% ≥ 70 Gy"),
        (goal("PTV70", "D95%", "<=", 60.0, "Gy"), "can't both be met"),
        (goal("PTV70", "D50%", "<=", 60.0, "Gy"), "PTV70 D95% ≥ 70 Gy and PTV70 D50% ≤ 60 Gy can't both be met"),
    ],
)  # fmt: skip
def test_the_linter_finds(bad: Goal, message: str, protocol: Protocol) -> None:
    found = lint_goals(goal_set(SOUND, bad), protocol)
    assert len(found) == 1
    assert message in found[0]


def test_the_linter_wants_a_gating_goal_on_a_target_and_the_goals_own_protocol(protocol: Protocol) -> None:
    goals = GoalSet(name="x", protocol="other", title="x", goals=[goal("Rectum", "mean", "<=", 40, "Gy")])
    assert lint_goals(goals, protocol) == [
        "the goals are of protocol other, they are used with prostate_sib",
        "no gating goal looks at a target: an empty plan would pass",
    ]


@pytest.mark.parametrize(
    ("statistic", "unit", "limit", "fault"),
    [
        ("D95%", "%", 95.0, "is relative to a prescription, and protocol"), ("V95%", "%", 95.0, "is relative to a"),
        ("D95%", "Gy", 66.5, ""), ("V60Gy", "cc", 150.0, ""), ("V60Gy", "%", 150.0, "a volume of 150 % can't be"),
        ("D95%", "%", 150.0, "is relative to a"),
    ],
)  # fmt: skip
def test_a_protocol_without_a_prescription_has_no_goal_that_refers_to_one(
    statistic: str, unit: str, limit: float, fault: str, repository: Any
) -> None:
    shipped = load_protocol(repository / "validation/cohorts/prostate/protocol.yaml")
    bare = shipped.model_copy(update={"prescription_gy": {}})
    found = [
        s for s in lint_goals(goal_set(goal("Rectum", statistic, "<=", limit, unit)), bare) if "no gating" not in s
    ]
    assert [fault in sentence for sentence in found] == ([True] if fault else [])


@pytest.mark.parametrize("margin_mm", [0.0, 2.9, 3.0, 3.1, 6.0])
def test_a_margin_takes_what_lies_within_it_on_the_grid_of_the_case(margin_mm: float) -> None:
    mask, other = np.ones((7, 1, 1), bool), np.zeros((7, 1, 1), bool)
    other[3] = True
    dose = np.arange(7.0).reshape(7, 1, 1)
    one = goal("A", "V0Gy", "<=", 60.0, "cc", minus=["B"], minus_margin_mm=margin_mm)
    (result,) = evaluate_goals(dose, {"A": mask, "B": other}, (3.0, 2.0, 1.0), {}, goal_set(one))
    kept = [z for z in range(7) if abs(z - 3) * 3.0 > margin_mm]
    assert result.value == pytest.approx(len(kept) * 0.006)
