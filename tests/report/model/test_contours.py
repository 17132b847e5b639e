"""Dose on predicted contours in the report: shown where it is of these weights, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.files import write_json
from doseledger.report.model.contours import cases_table, changes_table, describe_closed_loop

FLIP = {"goal": "Rectum V65Gy ≤ 15 %", "gating": True, "drawn": 14.2, "predicted": 16.1}
CASE = {"dice": 0.91, "mae_body_gy": 0.21, "n_goals": 17, "n_flipped": 1, "flipped": [FLIP], "seen_flipped": []}
FOUND: dict[str, Any] = {
    "checkpoint_sha256": "a" * 64, "contours_by": "seg_organs", "structures": ["Rectum", "Bladder"], "n_cases": 2,
    "dice": 0.9, "dice_worst": 0.88, "mae_body_gy": 0.15, "mae_body_gy_worst": 0.21, "mae_above_10_percent_gy": 0.3,
    "mae_above_10_percent_gy_worst": None, "plan_mae_body_gy": {"drawn": 1.11, "predicted": 1.16},
    "d95_change_gy": {"PTV70": {"mean": -0.12, "largest": -0.4}, "PTV56": None}, "n_goals": 34, "n_flipped": 1,
    "n_seen_flipped": 3, "flips": {"Rectum V65Gy ≤ 15 %": 1},
    "cases": {"case_1": CASE, "case_2": {**CASE, "flipped": [], "n_flipped": 0}},
}  # fmt: skip
EVALUATED = pd.DataFrame({"checkpoint_sha256": ["a" * 64] * 2})


def test_the_section_says_who_drew_how_far_the_dose_moves_and_which_goals_flip(tmp_path: Path) -> None:
    path = tmp_path / "contours.json"
    assert describe_closed_loop(path, EVALUATED) is None
    write_json(path, FOUND)
    said = describe_closed_loop(path, EVALUATED)
    assert said is not None
    for needed in ("Rectum, Bladder", "seg_organs", "0.900", "1 of 34 goals flip: Rectum V65Gy ≤ 15 % (1×)",
                   "3 otherwise"):  # fmt: skip
        assert needed in said["text"], needed
    changes = {row[0].text: [cell.text for cell in row[1:]] for row in changes_table(FOUND).rows}
    assert changes["MAE in the body (Gy)"] == ["0.15", "0.21"]
    assert changes["Change of D95% of PTV70 (Gy)"] == ["−0.12", "−0.40"]
    assert not [name for name in changes if "PTV56" in name]
    first, second = cases_table(FOUND).rows
    assert "14.20 to 16.10" in first[-1].text
    assert (second[3].text, second[-1].text) == ("0 of 17", "")


def test_doses_of_another_checkpoint_are_not_shown(tmp_path: Path) -> None:
    write_json(tmp_path / "contours.json", {**FOUND, "checkpoint_sha256": "b" * 64})
    said = describe_closed_loop(tmp_path / "contours.json", EVALUATED)
    assert said is not None
    assert "are of another checkpoint" in said["text"]
    assert said["tables"] == ()
