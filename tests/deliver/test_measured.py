"""What a predicted dose is measured by: statistics, their spread, and goals where they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.project.protocol import GoalSet, Protocol, load_goals, load_protocol
from doseledger.deliver.measured import Yardstick, drawn_doses, measure_dose

STATISTICS = {"target": ["D95%", "mean"], "organ": ["mean"]}


@pytest.fixture
def protocol(repository: Path) -> Protocol:
    return load_protocol(repository / "validation/cohorts/phantom/protocol.yaml")


@pytest.fixture
def goals(repository: Path) -> GoalSet:
    return load_goals(repository / "validation/cohorts/phantom/goals.yaml")


def drawn(case: Case, levels_gy: tuple[float, ...]) -> dict[str, Any]:
    """A flat dose of 60 Gy in the body, and flat draws of it."""
    where = np.asarray(case.body)
    steps = [np.full(int(where.sum()), round(level / 0.002), np.uint16) for level in levels_gy]
    return {
        "dose_gy": np.where(where, np.float32(60), np.float32(0)),
        "samples": np.stack(steps), "sampled": where.astype(np.uint8), "sample_step_gy": np.asarray(0.002),
    }  # fmt: skip


def test_the_spread_of_a_statistic_is_the_deviation_of_the_draws(
    make_case: Callable[..., Case], protocol: Protocol, goals: GoalSet
) -> None:
    case = make_case()
    arrays = drawn(case, (58.0, 60.0, 62.0))
    assert [dose[case.body].mean() for dose in drawn_doses(arrays)] == pytest.approx([58.0, 60.0, 62.0], abs=1e-3)
    found = measure_dose(case, arrays, protocol, Yardstick(STATISTICS, protocol, goals))
    rows = {(row["structure"], row["statistic"]): (row["value"], row["sd"]) for row in found["dvh"]}
    assert rows["PTV70", "mean"] == pytest.approx((60.0, 2.0), abs=1e-3)
    assert rows["Rectum", "mean"] == pytest.approx((60.0, 2.0), abs=1e-3)
    assert ("Rectum", "D95%") not in rows


def test_goals_are_judged_for_their_own_protocol_and_prescription_alone(
    make_case: Callable[..., Case], protocol: Protocol, goals: GoalSet
) -> None:
    case = make_case()
    arrays = {"dose_gy": np.where(case.body, np.float32(60), np.float32(0))}
    found = measure_dose(case, arrays, protocol, Yardstick(STATISTICS, protocol, goals))
    assert len(found["goals"]) == len(goals.goals)
    assert found["goals_note"] == ""
    assert all(row["sd"] is None for row in found["dvh"])
    fewer = protocol.model_copy(update={"n_fractions": 20})
    found = measure_dose(case, arrays, fewer, Yardstick(STATISTICS, protocol, goals))
    assert (found["goals"], found["goals_note"][:33]) == ([], "the patient has another prescript")
    other = goals.model_copy(update={"protocol": "lung"})
    found = measure_dose(case, arrays, protocol, Yardstick(STATISTICS, protocol, other))
    assert found["goals_note"] == (
        "the clinical goals are of protocol lung, the patient of prostate_sib: none was judged"
    )
    found = measure_dose(case, arrays, protocol, Yardstick(STATISTICS, protocol, None))
    assert found["goals_note"] == "there are no clinical goals: none was judged"
