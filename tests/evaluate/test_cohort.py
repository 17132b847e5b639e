"""Evaluation of a test set: the files that it writes, and each refusal, with nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadInput
from doseledger.core.files import read_json, sha256_of_file
from doseledger.core.protocol import load_goals, load_protocol
from doseledger.core.settings import EvaluateSettings, GammaSettings
from doseledger.core.tables import SPLITS, write_table
from doseledger.evaluate.case import Yardsticks
from doseledger.evaluate.cohort import TestSet, evaluate_cohort

SEEN, CHECKPOINT = "e" * 64, "c" * 64


@pytest.fixture
def yardsticks(repository: Path) -> Yardsticks:
    gamma = GammaSettings(
        gamma_percent=3.0, gamma_mm=3.0, cutoff_percent=10.0, local=False, interp_fraction=4, max_gamma=2.0
    )
    return Yardsticks(
        protocol=load_protocol(repository / "validation" / "protocols" / "prostate_sib.yaml"),
        goals=load_goals(repository / "validation" / "goals" / "prostate_sib.yaml"),
        settings=EvaluateSettings(
            workers=0, gamma=[gamma], verify_gamma_points=3, dvh_statistics={"target": ["D95%"], "organ": ["mean"]}
        ),
    )


def write_prediction(path: Path, case: Case, sha256: str, **changes: Any) -> None:
    assert case.dose_gy is not None
    meta = {
        "case_id": case.case_id, "case_sha256": sha256, "checkpoint_sha256": CHECKPOINT, "trained_on": [SEEN],
        "selected_on": [],
    }  # fmt: skip
    arrays = {
        "dose_gy": (case.dose_gy * 1.01).astype(np.float32),
        "spacing_mm": np.asarray(case.grid.spacing_mm),
        "origin_mm": np.asarray(case.grid.origin_mm),
    }
    arrays |= {key: value for key, value in changes.items() if key in arrays}
    meta |= {key: value for key, value in changes.items() if key in meta}
    path.parent.mkdir(exist_ok=True)
    write_npz(path, arrays | {"meta": np.asarray(json.dumps(meta))})


@pytest.fixture
def test_set(make_case: Callable[..., Case], tmp_path: Path) -> TestSet:
    rows = []
    for number in (1, 2, 3):
        case = make_case(f"case_{number:04d}", seed=number)
        case.save(tmp_path / "cases" / f"{case.case_id}.npz")
        sha256 = sha256_of_file(tmp_path / "cases" / f"{case.case_id}.npz")
        write_prediction(tmp_path / "predictions" / f"{case.case_id}.npz", case, sha256)
        split = "train" if number == 1 else "test"
        rows.append([0, 0, case.case_id, case.meta["pseudonym"], "A", split, sha256])
    write_table(tmp_path / "splits.csv", pd.DataFrame(rows, columns=list(SPLITS.columns)), SPLITS)
    return TestSet(tmp_path / "cases", tmp_path / "predictions", tmp_path / "splits.csv", "test", fold=0, repeat=0)


def spoil(test_set: TestSet, **changes: Any) -> None:
    path = test_set.cases / "case_0002.npz"
    write_prediction(test_set.predictions / "case_0002.npz", Case.load(path), sha256_of_file(path), **changes)


def test_four_files_are_written_and_are_the_same_each_time(
    test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path
) -> None:
    told: list[str] = []
    summary = evaluate_cohort(test_set, tmp_path / "a", yardsticks, tell=told.append)
    evaluate_cohort(test_set, tmp_path / "b", yardsticks, tell=told.append)
    names = ["cases.csv", "dvh.csv", "goals.csv", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    cases = pd.read_csv(tmp_path / "a" / "cases.csv")
    assert list(cases["case_id"]) == ["case_0002", "case_0003"]
    assert set(cases["checkpoint_sha256"]) == {CHECKPOINT}
    assert list(cases["gamma_points_verified"]) == [3, 3]
    assert cases["gamma_largest_difference"].max() < 1e-4
    assert 0.1 < cases["mae_PTV70_gy"].min() < 1.0
    assert read_json(tmp_path / "a" / "summary.json") == summary
    assert summary["gamma_points_verified"] == 3
    assert summary["gamma_largest_difference"] < 1e-4
    assert "gamma_points_verified_low" not in summary
    assert summary["mae_body_gy"] == pytest.approx(cases["mae_body_gy"].mean(), abs=1e-5)
    dvh = pd.read_csv(tmp_path / "a" / "dvh.csv")
    assert list(dvh.columns[:7]) == ["case_id", "structure", "kind", "statistic", "unit", "plan", "prediction"]
    goals = pd.read_csv(tmp_path / "a" / "goals.csv")
    assert goals["plan_met"].isna().any()
    assert told[-1] == "[2/2] case_0003"


def test_workers_change_nothing(test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path) -> None:
    pooled = replace(yardsticks, settings=yardsticks.settings.model_copy(update={"workers": 2}))
    evaluate_cohort(test_set, tmp_path / "a", yardsticks, tell=print)
    evaluate_cohort(test_set, tmp_path / "b", pooled, tell=print)
    assert (tmp_path / "a" / "cases.csv").read_bytes() == (tmp_path / "b" / "cases.csv").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origin_mm": np.zeros(3)}, "case_0002: the prediction lies on another grid"),
        ({"dose_gy": np.full((24, 40, 48), np.nan, np.float32)}, "case_0002: the prediction is not finite"),
        ({"dose_gy": np.full((24, 40, 48), -1.0, np.float32)}, "case_0002: the prediction goes down to -1.000"),
        ({"dose_gy": np.ones((24, 40, 48))}, "case_0002: the prediction's dose is float64, wanted float32"),
        ({"case_sha256": "d" * 64}, "case_0002: the prediction is of the case as it was"),
        ({"case_id": "case_0009"}, "case_0002: the prediction says it is of case_0009"),
        ({"checkpoint_sha256": "f" * 64}, "come from different checkpoints"),
    ],
)
def test_a_prediction_that_cannot_be_compared_stops_everything(
    changes: dict[str, Any], message: str, test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path
) -> None:
    spoil(test_set, **changes)
    with pytest.raises(BadInput, match=message):
        evaluate_cohort(test_set, tmp_path / "out", yardsticks, tell=print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("list_name", "how"), [("trained_on", "trained"), ("selected_on", "selected")])
def test_a_case_that_the_model_has_seen_is_refused(
    list_name: str, how: str, test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path
) -> None:
    spoil(test_set, **{list_name: [SEEN, sha256_of_file(test_set.cases / "case_0002.npz")]})
    with pytest.raises(BadInput, match=f"1 of 2 cases can't be evaluated.*the model was {how} on this case"):
        evaluate_cohort(test_set, tmp_path / "out", yardsticks, tell=print)


def test_a_case_that_changed_after_the_split_is_refused(
    test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path, make_case: Callable[..., Case]
) -> None:
    make_case("case_0002", seed=9).save(test_set.cases / "case_0002.npz")
    with pytest.raises(BadInput, match=r"case_0002: case_0002\.npz is .*, the splits say"):
        evaluate_cohort(test_set, tmp_path / "out", yardsticks, tell=print)


def test_a_missing_prediction_and_an_empty_part_are_refused(
    test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path
) -> None:
    (test_set.predictions / "case_0003.npz").unlink()
    with pytest.raises(BadInput, match=r"case_0003: no prediction case_0003\.npz; run predict"):
        evaluate_cohort(test_set, tmp_path / "out", yardsticks, tell=print)
    with pytest.raises(BadInput, match="no val cases in fold 0, repeat 0"):
        evaluate_cohort(replace(test_set, part="val"), tmp_path / "out", yardsticks, tell=print)
