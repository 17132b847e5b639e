"""Tables of a predicted dose by rows written out."""

from __future__ import annotations

from typing import Any

import pytest

from doseledger.report.prediction import goal_state, goals_table


def goal(**change: Any) -> dict[str, Any]:
    return {"goal": "Rectum V45Gy ≤ 45 %", "structure": "Rectum", "gating": True, "value": 44.04, "unit": "%",
            "met": True, "acceptable": True, "reason": "", **change}  # fmt: skip


@pytest.mark.parametrize(("met", "acceptable", "state"), [
    (True, True, "met"), (False, True, "acceptable"), (False, False, "missed"), (None, None, "not judged"),
])  # fmt: skip
def test_a_missed_goal_may_be_acceptable(met: bool | None, acceptable: bool | None, state: str) -> None:
    assert goal_state(goal(met=met, acceptable=acceptable)) == state


def test_goals_are_told_with_value_verdict_and_what_a_predicted_dose_is() -> None:
    rows = [goal(), goal(met=False, acceptable=False, gating=False), goal(met=None, value=None, reason="no Rectum")]
    table = goals_table(rows, {"Rectum": "#006080"})
    found = [[cell.text for cell in row] for row in table.rows]
    assert table.caption == "Clinical goals"
    assert table.note.startswith("Of a predicted dose, which no machine need be able to give.")
    assert [row[1] for row in found] == ["gating", "reported", "gating"]
    assert [row[3] for row in found] == ["met", "missed", "not judged"]
    assert found[0][2].startswith("44.0")
    assert found[0][2].endswith("%")
    assert (found[2][4], table.rows[0][0].swatch) == ("no Rectum", "#006080")
    assert [row[3].state for row in table.rows][:2] == ["good", "bad"]
