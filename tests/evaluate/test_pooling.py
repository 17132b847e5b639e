"""Seeds and folds pooled to one result, and what must never be pooled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import write_npz
from doseledger.core.errors import BadCase, BadInput
from doseledger.evaluate.pooling import EvaluatedRun, describe_pool, pool_runs


def digest(case_id: str) -> str:
    return f"{int(case_id[-4:]):064x}"


def write_run(
    root: Path, errors: dict[str, float], seen: list[str], criteria: str = "3 %/3 mm global, cutoff 10 %"
) -> EvaluatedRun:
    run = EvaluatedRun(root / "metrics", root / "predictions")
    run.metrics.mkdir(parents=True)
    run.predictions.mkdir()
    n = len(errors)
    pd.DataFrame(
        {
            "case_id": list(errors),
            "case_sha256": [digest(case_id) for case_id in errors],
            "checkpoint_sha256": [hashlib.sha256(root.name.encode()).hexdigest()] * n,
            "mae_body_gy": list(errors.values()),
            "gamma_3_3_global_percent": 95.0,
            "gamma_criteria": criteria,
            "gamma_points_verified": 0,
            "gamma_largest_difference": np.nan,
            "goals_evaluable": 5,
            "plan_goals_met": 5,
            "plan_acceptable": True,
            "prediction_goals_met": 4,
            "prediction_acceptable": False,
        }
    ).to_csv(run.metrics / "cases.csv", index=False)
    meta = {"trained_on": [digest(case_id) for case_id in seen], "selected_on": []}
    for case_id in errors:
        write_npz(run.predictions / f"{case_id}.npz", {"meta": np.asarray(json.dumps(meta))})
    return run


def pool(*runs: EvaluatedRun) -> dict[str, object]:
    return pool_runs(runs, np.random.default_rng(1))


def test_pass_rates_above_another_cutoff_are_not_pooled(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"case_0001": 1.0}, [])
    second = write_run(tmp_path / "b", {"case_0001": 2.0}, [], criteria="3 %/3 mm global, cutoff 20 %")
    with pytest.raises(BadInput, match="evaluated with different gamma criteria"):
        pool(first, second)


def test_seeds_are_averaged_case_by_case(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"case_0001": 1.0, "case_0002": 2.0, "case_0003": 3.0}, ["case_0009"])
    second = write_run(tmp_path / "b", {"case_0001": 2.0, "case_0002": 3.0, "case_0003": 4.0}, ["case_0009"])
    found = pool(first, second)
    assert (found["kind"], found["n_runs"], found["n_cases"]) == ("seeds", 2, 3)
    error = found["mae_body_gy"]
    assert isinstance(error, dict)
    assert error["mean"] == pytest.approx(2.5)
    assert error["between_runs_sd"] == pytest.approx(np.sqrt(0.5))
    assert 1.5 <= error["low"] < 2.5 < error["high"] <= 3.5
    assert "gamma_points_verified" not in found
    assert describe_pool(found)[0].startswith("2 runs (seeds on one test set), 3 cases")
    assert describe_pool(found)[4].startswith("| MAE in body (Gy) | 2.500 | ")


def test_a_figure_that_is_not_known_is_a_dash_and_the_measures_name_stays_whole() -> None:
    row = {"mean": 1.5, "low": np.nan, "high": np.nan, "between_runs_sd": 0.25}
    found = {"kind": "seeds", "n_runs": 2, "n_cases": 2, "not_shared": ["mae_Bowel_gy"], "mae_Membrane_nano_gy": row}
    lines = describe_pool(found)
    assert lines[-1] == "Not pooled, since only some runs have them: mae_Bowel_gy."
    assert lines[-3] == "| MAE in Membrane_nano (Gy) | 1.500 | – | – | 0.250 |"


def test_folds_are_joined_though_each_model_has_seen_the_others_cases(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"case_0001": 1.0, "case_0002": 2.0}, ["case_0003", "case_0004"])
    second = write_run(tmp_path / "b", {"case_0003": 3.0, "case_0004": 6.0}, ["case_0001", "case_0002"])
    found = pool(first, second)
    assert (found["kind"], found["n_cases"]) == ("folds", 4)
    assert isinstance(found["mae_body_gy"], dict)
    assert found["mae_body_gy"]["mean"] == pytest.approx(3.0)


def test_a_case_that_any_of_the_pooled_models_has_seen_is_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"case_0001": 1.0, "case_0002": 2.0}, [])
    second = write_run(tmp_path / "b", {"case_0001": 1.0, "case_0002": 2.0}, ["case_0002"])
    with pytest.raises(BadInput, match="was trained or selected on case_0002"):
        pool(first, second)
    own = write_run(tmp_path / "c", {"case_0003": 1.0}, ["case_0003"])
    with pytest.raises(BadInput, match="was trained or selected on case_0003"):
        pool(first, own)


def test_runs_that_share_some_cases_and_not_others_are_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"case_0001": 1.0, "case_0002": 2.0}, [])
    second = write_run(tmp_path / "b", {"case_0002": 1.0, "case_0003": 2.0}, [])
    with pytest.raises(BadInput, match="share some test cases and not others"):
        pool(first, second)
    with pytest.raises(BadInput, match="nothing to pool"):
        pool(first)


def test_a_run_without_its_predictions_is_refused_as_nobody_can_tell_what_it_saw(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"case_0001": 1.0}, [])
    second = write_run(tmp_path / "b", {"case_0001": 1.0}, [])
    (second.predictions / "case_0001.npz").unlink()
    with pytest.raises(BadCase, match="no prediction"):
        pool(first, second)


def test_one_checkpoint_is_not_counted_twice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {"case_0001": 1.0, "case_0002": 2.0}, [])
    with pytest.raises(BadInput, match="one and the same checkpoint"):
        pool(run, run)
