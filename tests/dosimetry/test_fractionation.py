"""Dose limits in another fractionation: known answers, there and back, and the shipped alternative goal sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Goal, GoalSet, load_goals, load_protocol
from doseledger.dosimetry.fractionation import convert_goal, convert_goals, dose_of_eqd2_gy, eqd2_gy, parse_alpha_beta
from doseledger.dosimetry.goals import lint_goals


def goal(statistic: str, limit: float, unit: str, **more: Any) -> Goal:
    return Goal(structure="Rectum", statistic=statistic, operator="<=", limit=limit, unit=unit, source="x", **more)


def test_70_gy_in_28_fractions_is_77_gy_in_fractions_of_2_gy_for_late_effects() -> None:
    assert eqd2_gy(70.0, 28, 3.0) == pytest.approx(77.0)
    assert dose_of_eqd2_gy(77.0, 28, 3.0) == pytest.approx(70.0)


@settings(deadline=None)
@given(st.floats(0.1, 100), st.integers(1, 45), st.floats(0.5, 20))
def test_a_dose_comes_back_from_its_eqd2(dose_gy: float, n: int, alpha_beta_gy: float) -> None:
    assert dose_of_eqd2_gy(eqd2_gy(dose_gy, n, alpha_beta_gy), n, alpha_beta_gy) == pytest.approx(dose_gy)


def test_the_level_of_a_volume_goal_and_the_limit_of_a_dose_goal_are_converted() -> None:
    volume = convert_goal(goal("V75Gy", 15.0, "%"), 28, 3.0)
    assert (volume.statistic, volume.limit) == ("V68.7Gy", 15.0)
    assert volume.source == "x; Rectum V75Gy ≤ 15 % in EQD2, converted to 28 fractions, α/β 3 Gy"
    dose = convert_goal(goal("D2cc", 60.0, "Gy", acceptable=62.0), 28, 3.0, from_fractions=20)
    assert dose.limit == pytest.approx(dose_of_eqd2_gy(72.0, 28, 3.0), abs=0.05)
    assert dose.acceptable is not None
    assert dose.acceptable > dose.limit


def test_converting_to_the_same_fractions_changes_no_number() -> None:
    same = convert_goal(goal("V65Gy", 25.0, "%"), 28, 3.0, from_fractions=28)
    assert (same.statistic, same.limit) == ("V65Gy", 25.0)


@pytest.mark.parametrize(("statistic", "unit"), [("mean", "Gy"), ("V95%", "%"), ("D95%", "%"), ("HI", "1")])
def test_what_is_no_dose_to_a_point_is_refused(statistic: str, unit: str) -> None:
    with pytest.raises(BadInput, match="is no dose to a point"):
        convert_goal(goal(statistic, 30.0, unit), 28, 3.0)


QUANTEC = {
    "Rectum": {50: 50, 60: 35, 65: 25, 70: 20, 75: 15},
    "Bladder": {65: 50, 70: 35, 75: 25, 80: 15},
}
CHHIP = {"Rectum": {24.6: 80, 32.4: 70, 40.8: 60, 52.8: 30, 60: 3}}


@pytest.mark.parametrize(
    ("name", "published", "from_fractions"),
    [("goals_quantec", QUANTEC, None), ("goals_chhip", CHHIP, 20)],
)
def test_the_shipped_alternatives_are_the_published_limits_converted(
    name: str, published: dict[str, dict[float, float]], from_fractions: int | None, repository: Path
) -> None:
    goals = load_goals(repository / f"validation/cohorts/prostate/{name}.yaml")
    protocol = load_protocol(repository / "validation/cohorts/phantom/protocol.yaml")
    assert lint_goals(goals, protocol) == []
    found = [(g.structure, g.statistic, g.limit) for g in goals.goals if g.structure in published]
    wanted = []
    for organ, limits in published.items():
        for level, limit in limits.items():
            eqd2 = level if from_fractions is None else eqd2_gy(level, from_fractions, 3.0)
            wanted.append((organ, f"V{dose_of_eqd2_gy(eqd2, 28, 3.0):.1f}Gy", limit))
    assert found == wanted


def test_a_set_of_goals_is_converted_there_and_back(repository: Path) -> None:
    goals = load_goals(repository / "validation/cohorts/prostate/goals_chhip.yaml")
    kept = frozenset({"PTV70", "PTV56"})
    there = convert_goals(goals, 20, {"Rectum": 3.0}, keep=kept, from_fractions=28)
    # The levels of CHHiP's arm of 20 fractions, which the file's sources list.
    levels = [g.statistic for g in there.goals if g.structure == "Rectum"]
    assert levels == ["V24.6Gy", "V32.4Gy", "V40.8Gy", "V52.8Gy", "V60Gy"]
    back = convert_goals(there, 28, {"Rectum": 3.0}, keep=kept, from_fractions=20)
    assert [g.statistic for g in back.goals] == [g.statistic for g in goals.goals]
    assert [g for g in back.goals if g.structure in kept] == [g for g in goals.goals if g.structure in kept]


def test_no_structure_is_left_as_it_is_by_mistake() -> None:
    goals = GoalSet(name="two", protocol="p", title="t", goals=[goal("V75Gy", 15.0, "%")])
    with pytest.raises(BadInput, match="Rectum have goals, but neither an α/β nor leave"):
        convert_goals(goals, 28, {})
    with pytest.raises(BadInput, match="Rectum are to be converted and kept"):
        convert_goals(goals, 28, {"Rectum": 3.0}, keep=frozenset({"Rectum"}))
    with pytest.raises(BadInput, match="Bladder have no goal in two; it has goals of Rectum"):
        convert_goals(goals, 28, {"Rectum": 3.0, "Bladder": 5.0})


@pytest.mark.parametrize("text", ["Rectum", "Rectum=", "=3", "Rectum=0", "Rectum=-3", "Rectum=three", "Rectum=inf"])
def test_an_alpha_beta_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="wanted a structure and a positive number of Gy"):
        parse_alpha_beta([text])
    with pytest.raises(BadInput, match="α/β of Rectum is given twice: 3 and 4 Gy"):
        parse_alpha_beta(["Rectum=3", "Rectum=4"])
