"""The OpenKBP scores of a summary follow from the table of cases too, however many structures each patient has."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from doseledger.dosimetry.openkbp_scores import score_patient
from doseledger.evaluate.case import CaseMetrics
from doseledger.evaluate.cohort import DRAW_SEED
from doseledger.evaluate.summary import summarise
from doseledger.ledger.runs.recompute import Tables, changed_summary

STRUCTURES = ("PTV70", "Larynx", "Mandible")


def measured(case_id: str, seed: int, absent: str = "") -> CaseMetrics:
    """A patient of random doses, scored as the challenge does."""
    rng = np.random.default_rng(seed)
    plan, prediction = (rng.uniform(0, 70, (6, 8, 8)) for _ in range(2))
    masks = {name: rng.random(plan.shape) < 0.3 for name in STRUCTURES if name != absent}
    score = score_patient(plan, prediction, masks, np.ones(plan.shape, bool), 27.0)
    row = {
        "case_id": case_id, "mae_above_10_percent_gy": 1.0 + seed,
        **{f"mae_{name}_gy": 1.5 if name in masks else np.nan for name in STRUCTURES},
        "gamma_3_3_global_percent": 90.0, "gamma_criteria": "3 %/3 mm global",
        "gamma_points_verified": 0, "gamma_largest_difference": np.nan,
        "goals_evaluable": 2, "plan_goals_met": 2, "plan_acceptable": True, "prediction_goals_met": 1,
        "prediction_acceptable": False, "openkbp_dose_gy": score.dose_gy,
        "openkbp_dvh_gy": float(np.mean(list(score.dvh_gy.values()))),
    }  # fmt: skip
    return CaseMetrics(row, [], [], score)


@pytest.fixture
def tables() -> Tables:
    """Tables of an evaluation as they are read again, with six decimals, of patients with unlike numbers of metrics."""
    cases = [measured("case_0001", 1), measured("case_0002", 2, absent="Mandible")]
    summary = summarise(cases, np.random.default_rng(DRAW_SEED))
    rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in summary.items()}
    frame = pd.DataFrame([case.row for case in cases]).round(6)
    empty = pd.DataFrame(columns=["case_id"])
    return Tables(frame, empty, empty, rounded)


def test_both_scores_follow_from_the_table_of_cases(tables: Tables) -> None:
    assert list(changed_summary(tables)) == []
    # The score is of all metrics together and no mean of patients' means, so that their number matters.
    assert tables.summary["openkbp_dvh_score"] != pytest.approx(tables.summary["openkbp_dvh_gy"], abs=0.001)


@pytest.mark.parametrize("name", ["openkbp_dose_score", "openkbp_dvh_score"])
def test_a_score_that_was_edited_is_named(tables: Tables, name: str) -> None:
    forged = Tables(tables.cases, tables.dvh, tables.goals, {**tables.summary, name: 0.5})
    (finding,) = changed_summary(forged)
    assert (finding.numbers["what"], finding.numbers["found"]) == (f"summary.json: {name}", "0.5")
