"""Goals that are asked for one patient: how they are read, and what the optimiser is asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import GoalSet, Protocol, load_goals, load_protocol
from doseledger.deliver.wishes import ROOM, objective_of, read_wishes, with_wishes


@pytest.fixture(scope="module")
def protocol(repository: Path) -> Protocol:
    return load_protocol(Layout(repository, "phantom").protocol)


@pytest.fixture(scope="module")
def goals(repository: Path) -> GoalSet:
    return load_goals(Layout(repository, "phantom").goals)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("Rectum V65Gy < 10 %", "Rectum V65Gy ≤ 10 %"),
        ("Rectum V65Gy<=10%", "Rectum V65Gy ≤ 10 %"),
        ("  PTV56   D95% ≥ 55.5 Gy ", "PTV56 D95% ≥ 55.5 Gy"),
        ("Bladder mean < 25", "Bladder mean ≤ 25 Gy"),
        ("Bowel V46.5Gy < 1.5 cc", "Bowel V46.5Gy ≤ 1.5 cc"),
    ],
)
def test_a_wish_is_read_as_a_clinic_writes_it(protocol: Protocol, option: str, name: str) -> None:
    assert [wish.name for wish in read_wishes([option], protocol)] == [name]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("Rectum below 10 %", "wanted STRUCTURE STATISTIC < LIMIT UNIT"),
        ("Rectum V65Gy < 10 pints", "the unit 'pints' is none of Gy, %, cc, 1"),
        ("Spleen V65Gy < 10 %", "Spleen is not a structure of protocol prostate_sib"),
        ("Rectum X65 < 10 %", "X65"),
        ("Rectum V6500Gy < 10 %", "6500 Gy is no dose of radiotherapy; was it meant in cGy"),
        ("Rectum V65Gy < 110 %", "a volume of 110 % can't be"),
    ],
)
def test_a_wish_that_means_nothing_is_refused(protocol: Protocol, option: str, told: str) -> None:
    with pytest.raises(BadInput, match="--goal") as error:
        read_wishes([option], protocol)
    assert told in str(error.value)


def test_a_wish_takes_the_place_of_the_goal_that_asks_the_same_and_is_added_where_none_does(
    protocol: Protocol, goals: GoalSet
) -> None:
    wishes = read_wishes(["Rectum V65Gy < 8 %", "Rectum mean < 30 Gy"], protocol)
    found = [goal.name for goal in with_wishes(goals, wishes).goals]
    before = [goal.name for goal in goals.goals]
    assert len(found) == len(before) + 1
    assert found[-1] == "Rectum mean ≤ 30 Gy"
    assert found[before.index("Rectum V65Gy ≤ 15 %")] == "Rectum V65Gy ≤ 8 %"
    # The same statistic in cc is another goal.
    assert "Rectum V65Gy ≤ 10 cc" in found
    assert with_wishes(goals, []) == goals


@pytest.mark.parametrize(
    ("option", "kind", "dose_gy", "percent"),
    [
        ("Rectum V65Gy < 10 %", "dvh_max", 65.0, ROOM * 10.0),
        ("Rectum V65Gy < 5 cc", "dvh_max", 65.0, ROOM * 10.0),
        ("Rectum D5% < 60 Gy", "dvh_max", ROOM * 60.0, 5.0),
        ("Rectum D2cc < 60 Gy", "dvh_max", ROOM * 60.0, 4.0),
        ("Rectum max < 72 Gy", "max_dose", ROOM * 72.0, None),
        ("Rectum mean < 30 Gy", "mean_max", ROOM * 30.0, None),
        ("PTV70 D98% > 68 Gy", "dvh_min", 68.0, 98.0),
        ("PTV70 V66.5Gy > 99 %", "dvh_min", 66.5, 99.0),
        ("PTV70 V66.5Gy > 100 %", "dvh_min", 66.5, 99.0),
    ],
)
def test_the_optimiser_is_asked_for_a_wish_with_a_little_room(
    protocol: Protocol, option: str, kind: str, dose_gy: float, percent: float | None
) -> None:
    (wish,) = read_wishes([option], protocol)
    found = objective_of(wish, 50.0, is_target=wish.structure == "PTV70")
    assert (found.structure, found.kind) == (wish.structure, kind)
    assert found.dose_gy == pytest.approx(dose_gy)
    assert found.volume_percent == (None if percent is None else pytest.approx(percent))


def test_what_no_plan_can_be_optimised_for_is_refused(protocol: Protocol) -> None:
    (wish,) = read_wishes(["PTV70 HI < 0.1 1"], protocol)
    with pytest.raises(BadInput, match=r"PTV70 HI ≤ 0\.1: a plan can be optimised for"):
        objective_of(wish, 50.0, is_target=True)
