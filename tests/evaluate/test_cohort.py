"""Evaluation of a test set: the files that it writes, and each refusal, with nothing written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.projects import copy_cohorts, enter_project
from typer.testing import CliRunner

from doseledger.cli.evaluate import app
from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import read_json, sha256_of_file, write_text
from doseledger.core.pool.cluster import local
from doseledger.core.project.layout import ModelLayout
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.settings import EvaluateSettings, GammaSettings
from doseledger.core.tables import SPLITS, read_table, write_table
from doseledger.evaluate.calibration import DrawnSets
from doseledger.evaluate.case import Yardsticks
from doseledger.evaluate.cohort import TestSet, evaluate_cohort, read_gamma, write_gamma
from doseledger.evaluate.summary import headline, shown_cases

SEEN, CHECKPOINT = "e" * 64, "c" * 64


@pytest.fixture
def yardsticks(repository: Path) -> Yardsticks:
    gamma = GammaSettings(
        gamma_percent=3.0, gamma_mm=3.0, cutoff_percent=10.0, local=False, interp_fraction=4, max_gamma=2.0
    )
    return Yardsticks(
        protocol=load_protocol(repository / "validation/cohorts/phantom/protocol.yaml"),
        goals=load_goals(repository / "validation/cohorts/phantom/goals.yaml"),
        settings=EvaluateSettings(
            gamma=[gamma],
            surface_tolerance_mm=1.0,
            verify_gamma_points=3,
            dvh_statistics={"target": ["D95%"], "organ": ["mean"]},
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


def test_five_files_are_written_and_are_the_same_each_time(
    test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path
) -> None:
    told: list[str] = []
    details = evaluate_cohort(test_set, tmp_path / "a", yardsticks, tell=told.append)
    evaluate_cohort(test_set, tmp_path / "b", yardsticks, tell=told.append)
    names = ["cases.csv", "details.json", "dvh.csv", "goals.csv", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    cases = pd.read_csv(tmp_path / "a" / "cases.csv")
    assert list(cases["case_id"]) == ["case_0002", "case_0003"]
    assert set(cases["checkpoint_sha256"]) == {CHECKPOINT}
    assert list(cases["gamma_points_verified"]) == [3, 3]
    assert cases["gamma_largest_difference"].max() < 1e-4
    assert 0.1 < cases["mae_PTV70_gy"].min() < 1.0
    assert read_json(tmp_path / "a" / "details.json") == details
    assert details["gamma_points_verified"] == 3
    assert details["gamma_largest_difference"] < 1e-4
    assert "gamma_points_verified_low" not in details
    assert details["mae_body_gy"] == pytest.approx(cases["mae_body_gy"].mean(), abs=1e-5)
    dvh = pd.read_csv(tmp_path / "a" / "dvh.csv")
    assert list(dvh.columns[:7]) == ["case_id", "structure", "kind", "statistic", "unit", "plan", "prediction"]
    goals = pd.read_csv(tmp_path / "a" / "goals.csv")
    assert goals["plan_met"].isna().any()
    assert told[-1] == "[2/2] case_0003"


def test_the_headline_is_a_few_of_the_details(test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path) -> None:
    details = evaluate_cohort(test_set, tmp_path / "out", yardsticks, tell=print)
    summary = read_json(tmp_path / "out" / "summary.json")
    assert summary == headline(details)
    assert summary == {name: details[name] for name in summary}
    assert {"n_cases", "mae_body_gy", "mae_above_10_percent_gy", "gamma_3_3_global_percent"} <= set(summary)
    # No intervals, no single structure, and nothing that there is no number of.
    assert not [name for name in summary if name.endswith(("_low", "_high", "_worst")) or name.startswith("dvh_")]
    assert None not in summary.values()
    assert len(summary) < len(details) / 5


def more_cases(test_set: TestSet, make_case: Callable[..., Case]) -> None:
    """Make it five test cases, each prediction further off than the one before."""
    splits = read_table(test_set.splits, SPLITS)
    for number in (4, 5, 6):
        case = make_case(f"case_{number:04d}", seed=number)
        path = test_set.cases / f"{case.case_id}.npz"
        case.save(path)
        row = splits.iloc[-1:].assign(case_id=case.case_id, pseudonym=case.case_id, sha256=sha256_of_file(path))
        splits = pd.concat([splits, row], ignore_index=True)
        assert case.dose_gy is not None
        # Noise, so that a part of the points passes.
        noise = np.random.default_rng(number).normal(0.0, 0.9 * number, case.dose_gy.shape)
        dose_gy = np.maximum(case.dose_gy + noise, 0.0).astype(np.float32)
        write_prediction(test_set.predictions / f"{case.case_id}.npz", case, sha256_of_file(path), dose_gy=dose_gy)
    write_table(test_set.splits, splits, SPLITS)


def test_the_gamma_map_of_each_shown_case_is_the_one_that_was_scored(
    test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path, make_case: Callable[..., Case]
) -> None:
    more_cases(test_set, make_case)
    evaluate_cohort(test_set, tmp_path / "out", yardsticks, gamma_out=tmp_path / "gamma", tell=print)
    cases = pd.read_csv(tmp_path / "out" / "cases.csv").set_index("case_id")
    shown = [case_id for _, case_id in shown_cases(dict(cases["mae_above_10_percent_gy"]))]
    assert len(shown) == 3
    assert sorted(path.stem for path in (tmp_path / "gamma").iterdir()) == sorted(shown)
    for case_id in shown:
        case = Case.load(test_set.cases / f"{case_id}.npz")
        gamma = read_gamma(tmp_path / "gamma" / f"{case_id}.npz", case.grid.shape_zyx)
        assert case.dose_gy is not None
        # Below the cutoff of 10 % there is none.
        assert np.array_equal(np.isnan(gamma), case.dose_gy < 0.1 * case.dose_gy.max())
        passed = 100.0 * np.mean(gamma[~np.isnan(gamma)] <= 1.0)
        assert passed == pytest.approx(cases.loc[case_id, "gamma_3_3_global_percent"], abs=1e-5)
    assert 1.0 < cases.loc[shown, "gamma_3_3_global_percent"].min() < 99.0


def test_the_gamma_maps_are_the_same_each_time_and_only_where_they_were_asked_for(
    test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        evaluate_cohort(test_set, tmp_path / "out", yardsticks, gamma_out=tmp_path / name, tell=print)
    names = [path.name for path in sorted((tmp_path / "a").iterdir())]
    assert names == ["case_0002.npz", "case_0003.npz"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert not list((tmp_path / "out").glob("*.npz"))


def test_the_map_is_of_the_first_criterion(test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path) -> None:
    first = yardsticks.settings.gamma[0]
    strict = first.model_copy(update={"gamma_percent": 0.5, "gamma_mm": 0.5})
    rates = {}
    for name, criteria in (("first", [first, strict]), ("strict", [strict, first])):
        settings = yardsticks.settings.model_copy(update={"gamma": criteria, "verify_gamma_points": 0})
        write_gamma(
            tmp_path / f"{name}.npz", test_set.cases / "case_0002.npz", test_set.predictions / "case_0002.npz", settings
        )
        gamma = read_gamma(tmp_path / f"{name}.npz", (24, 40, 48))
        rates[name] = np.mean(gamma[~np.isnan(gamma)] <= 1.0)
    assert rates["first"] == 1.0 > rates["strict"]
    none = yardsticks.settings.model_copy(update={"gamma": []})
    with pytest.raises(BadInput, match=r"evaluate\.gamma is empty: the report draws its first criterion"):
        write_gamma(tmp_path / "x", test_set.cases / "case_0002.npz", test_set.predictions / "case_0002.npz", none)


def test_a_map_whose_values_rotted_is_a_bad_case(tmp_path: Path) -> None:
    path = tmp_path / "case_0002.npz"
    write_npz(path, {"gamma": np.ones((2, 3, 4), np.float32)})
    content = bytearray(path.read_bytes())
    content[content.rindex(np.float32(1).tobytes())] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(BadCase, match=r"case_0002: its gamma map can't be read .*CRC.*evaluate again"):
        read_gamma(path, (2, 3, 4))


def test_a_map_that_is_absent_or_of_another_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCase, match=r"case_0002: no gamma map case_0002\.npz; run evaluate"):
        read_gamma(tmp_path / "case_0002.npz", (2, 3, 4))
    write_npz(tmp_path / "case_0002.npz", {"gamma": np.zeros((2, 3, 5), np.float32)})
    with pytest.raises(BadCase, match=r"case_0002: its gamma map has \(2, 3, 5\) voxels, the case \(2, 3, 4\)"):
        read_gamma(tmp_path / "case_0002.npz", (2, 3, 4))


@pytest.mark.parametrize(
    ("errors", "wanted"),
    [
        ({}, []),
        ({"a": 1.0}, [("Best case", "a")]),
        ({"a": 2.0, "b": 1.0}, [("Best case", "b"), ("Worst case", "a")]),
        ({"a": 2.0, "b": 1.0, "c": 3.0}, [("Best case", "b"), ("Median case", "a"), ("Worst case", "c")]),
        ({"a": 2.0, "b": 2.0, "c": 2.0}, [("Best case", "a"), ("Median case", "b"), ("Worst case", "c")]),
        (
            {"a": 4.0, "b": 1.0, "c": 2.0, "d": 3.0},
            [("Best case", "b"), ("Median case", "d"), ("Worst case", "a")],
        ),
        ({"a": math.nan, "b": 1.0}, [("Best case", "b")]),
    ],
)
def test_best_median_and_worst_case_are_shown(errors: dict[str, float], wanted: list[tuple[str, str]]) -> None:
    assert shown_cases(errors) == wanted


# The command, as the pipeline calls it.


@pytest.fixture
def at(
    repository: Path, tmp_path: Path, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> ModelLayout:
    """A project with two test cases and their predictions."""
    layout = copy_cohorts(repository, tmp_path)
    at = layout.model("dose_unet")
    at.predictions.mkdir(parents=True)
    rows = []
    for number, split in ((1, "train"), (2, "test"), (3, "test")):
        case = make_case(f"case_{number:04d}", seed=number)
        path = layout.cases / f"{case.case_id}.npz"
        case.save(path)
        if split == "test":
            write_prediction(at.predictions / path.name, case, sha256_of_file(path))
        rows.append([0, 0, case.case_id, case.meta["pseudonym"], "A", split, sha256_of_file(path)])
    write_table(layout.splits, pd.DataFrame(rows, columns=list(SPLITS.columns)), SPLITS)
    enter_project(repository, layout, monkeypatch)
    # In this process, and few points: what is asked here is where the files go.
    text = layout.params.read_text().replace("pool: local", "pool: here")
    write_text(layout.params, text.replace("verify_gamma_points: 50", "verify_gamma_points: 3"))
    return at


def test_the_command_writes_tables_numbers_and_maps_where_the_layout_says(at: ModelLayout) -> None:
    shown = CliRunner().invoke(app, ["evaluate", "dose_unet", "--json"])
    assert shown.exit_code == 0, shown.output
    details = read_json(at.metrics / "details.json")
    assert json.loads(shown.stdout) == details
    assert read_json(at.metrics / "summary.json") == headline(details)
    # No doses were drawn, so there is nothing to calibrate.
    assert read_json(at.metrics / "calibration.json") == {}
    assert sorted(path.stem for path in at.gamma.iterdir()) == ["case_0002", "case_0003"]


def test_drawn_doses_are_calibrated_along(at: ModelLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[DrawnSets] = []

    def calibrate(sets: DrawnSets, *, tell: object) -> dict[str, Any]:
        asked.append(sets)
        return {"summary": {"n_cases": 2}, "details": {"ranks": [0.5, 0.5]}}

    monkeypatch.setattr("doseledger.evaluate.calibration.calibrate_cohort", calibrate)
    (at.predictions / "val").mkdir()
    shown = CliRunner().invoke(app, ["evaluate", "dose_unet"])
    assert shown.exit_code == 0, shown.output
    # For people: a table of the first numbers, with intervals.
    table = shown.stdout[shown.stdout.index("2 test cases") :].splitlines()
    assert table[0].split()[3:] == ["Mean", "95", "%", "from", "To", "Worst"]
    assert [line.partition(" (Gy)")[0] for line in table[1:3]] == [
        "MAE in body", "MAE where the dose is above 10 % of the highest prescription",
    ]  # fmt: skip
    found = read_json(at.metrics / "calibration.json")
    assert found == {"summary": {"n_cases": 2}, "details": {"ranks": [0.5, 0.5]}}
    assert [(sets.val.resolve(), sets.test.resolve()) for sets in asked] == [(at.predictions / "val", at.predictions)]


def test_other_predictions_need_another_folder_and_leave_the_models_own_alone(at: ModelLayout, tmp_path: Path) -> None:
    words = ["evaluate", "dose_unet", "--predictions", str(at.predictions)]
    refused = CliRunner().invoke(app, words).exception
    assert isinstance(refused, BadInput)
    assert "name another folder too, with --out" in str(refused)
    assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / "elsewhere")]).exit_code == 0
    assert read_json(tmp_path / "elsewhere" / "calibration.json") == {}
    assert not at.metrics.exists()
    assert not at.gamma.exists()


def test_the_pool_changes_nothing(test_set: TestSet, yardsticks: Yardsticks, tmp_path: Path) -> None:
    evaluate_cohort(test_set, tmp_path / "a", yardsticks, tell=print)
    evaluate_cohort(test_set, tmp_path / "b", yardsticks, scale=local(2), tell=print)
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
        evaluate_cohort(test_set, tmp_path / "out", yardsticks, gamma_out=tmp_path / "gamma", tell=print)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "gamma").exists()


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
