"""Two models compared: the better one is told, and tables of different cases are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.errors import BadInput
from doseledger.evaluate.compare import compare_models as compare_with
from doseledger.evaluate.compare import describe_comparison


def compare_models(first: Path, second: Path) -> dict[str, Any]:
    return compare_with(first, second, np.random.default_rng(1))


def write_cases(
    path: Path, errors: np.ndarray, digest: str = "a", criteria: str = "3 %/3 mm global, cutoff 10 %"
) -> Path:
    n = len(errors)
    pd.DataFrame(
        {
            "case_id": [f"case_{i:04d}" for i in range(n)],
            "case_sha256": [digest * 64] * n,
            "checkpoint_sha256": ["c" * 64] * n,
            "mae_body_gy": errors,
            "mae_Bowel_gy": np.nan,
            "gamma_3_3_global_percent": 100.0 - errors,
            "gamma_criteria": criteria,
            "gamma_points_verified": 0,
            "gamma_largest_difference": np.nan,
            "goals_evaluable": 5,
            "plan_goals_met": 5,
            "plan_acceptable": True,
            "prediction_goals_met": 4,
            "prediction_acceptable": False,
        }
    ).to_csv(path, index=False)
    return path


def test_the_model_with_the_smaller_errors_is_told_apart(tmp_path: Path) -> None:
    errors = np.array([2.0, 2.5, 3.0, 1.5, 2.2, 2.8, 3.1])
    found = compare_models(write_cases(tmp_path / "a.csv", errors), write_cases(tmp_path / "b.csv", 0.8 * errors))
    assert found["n_cases"] == 7
    assert found["mae_body_gy"]["effect_size"] == -1.0
    assert found["mae_body_gy"]["p_value"] < 0.05
    assert found["mae_body_gy"]["p_value"] < found["mae_body_gy"]["p_adjusted"] < 0.1
    assert found["mae_body_gy"]["low"] < found["mae_body_gy"]["mean_difference"] < found["mae_body_gy"]["high"] < 0
    assert found["mae_body_gy"]["better"] == found["gamma_3_3_global_percent"]["better"] == "second"
    assert found["mae_Bowel_gy"]["better"] == "neither"
    assert found["mae_body_gy"]["median_difference"] == pytest.approx(-0.5)
    assert found["gamma_3_3_global_percent"]["effect_size"] == 1.0
    assert found["only_first"] == found["only_second"] == []
    measures = {"mae_body_gy", "mae_Bowel_gy", "gamma_3_3_global_percent"}
    assert set(found) == {"n_cases", "only_first", "only_second"} | measures


def test_what_one_side_alone_has_is_told(tmp_path: Path) -> None:
    first, second = (write_cases(tmp_path / name, np.ones(3)) for name in ("a.csv", "b.csv"))
    pd.read_csv(second).rename(columns={"mae_Bowel_gy": "mae_Rectum_gy"}).to_csv(second, index=False)
    found = compare_models(first, second)
    assert (found["only_first"], found["only_second"]) == (["mae_Bowel_gy"], ["mae_Rectum_gy"])
    lines = describe_comparison(found, ("old", "new"))
    assert "Not compared, since old alone has them: mae_Bowel_gy." in lines
    assert "Not compared, since new alone has them: mae_Rectum_gy." in lines


def test_pass_rates_above_another_cutoff_are_not_compared(tmp_path: Path) -> None:
    first = write_cases(tmp_path / "a.csv", np.ones(3))
    second = write_cases(tmp_path / "b.csv", np.ones(3), criteria="3 %/3 mm global, cutoff 20 %")
    with pytest.raises(BadInput, match=r"cutoff 10 % against 3 %/3 mm global, cutoff 20 %\); evaluate both with one"):
        compare_models(first, second)


def test_other_cases_and_other_bytes_of_a_case_are_refused(tmp_path: Path) -> None:
    first = write_cases(tmp_path / "a.csv", np.ones(3))
    with pytest.raises(BadInput, match=r"not of the same cases \(case_0003 differ\)"):
        compare_models(first, write_cases(tmp_path / "b.csv", np.ones(4)))
    with pytest.raises(BadInput, match="not of the same cases"):
        compare_models(first, write_cases(tmp_path / "b.csv", np.ones(3), digest="b"))


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such table"):
        compare_models(tmp_path / "absent.csv", tmp_path / "absent.csv")
    (tmp_path / "other.csv").write_text("case_id,score\ncase_0001,3\n")
    with pytest.raises(BadInput, match="not a case metrics table"):
        compare_models(tmp_path / "other.csv", tmp_path / "other.csv")


def test_two_folders_are_compared_by_their_dvh_too(tmp_path: Path) -> None:
    folders = []
    for name, factor in (("a", 1.0), ("b", -0.5)):
        folder = tmp_path / name
        folder.mkdir()
        write_cases(folder / "cases.csv", np.arange(1.0, 7.0))
        rows = {
            "case_id": [f"case_{i:04d}" for i in range(6)],
            "structure": "PTV70",
            "kind": "target",
            "statistic": "D95%",
            "unit": "Gy",
            "plan": 70.0,
            "prediction": 70.0 + factor * np.arange(1, 7),
            "difference": factor * np.arange(1, 7),
            "reason": "",
        }
        pd.DataFrame(rows).to_csv(folder / "dvh.csv", index=False)
        folders.append(folder)
    found = compare_models(*folders)["dvh_PTV70_D95%"]
    assert (found["first"], found["second"]) == (3.5, 1.75)
    assert found["better"] == "second"
    lines = describe_comparison(compare_models(*folders), ("a", "b"))
    (row,) = [line for line in lines if "PTV70" in line]
    assert row.startswith("| PTV70 D95%, \\|prediction − plan\\| | 3.50 | 1.75 | −1.75 | ")


def test_a_model_compared_with_itself_is_neither_better_nor_worse(tmp_path: Path) -> None:
    path = write_cases(tmp_path / "a.csv", np.arange(5.0))
    row = compare_models(path, path)["mae_body_gy"]
    assert (row["better"], row["mean_difference"], row["effect_size"]) == ("neither", 0.0, 0.0)
    assert np.isnan(row["p_value"])
    assert np.isnan(row["p_adjusted"])
    assert "| – | – |" in "\n".join(describe_comparison(compare_models(path, path), ("a", "a")))
