"""Segmentations of a test set: tables that all kinds share, refusals, comparison, and what stands on a blank image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.settings import EvaluateSettings
from doseledger.core.tables import DVH_METRICS, GOAL_METRICS, SPLITS, read_case_metrics, read_table, write_table
from doseledger.evaluate.cohort import TestSet
from doseledger.evaluate.compare import compare_models
from doseledger.evaluate.segmentation import evaluate_segmentations
from doseledger.evaluate.shortcuts.labels import LabelTemplate, mean_dice, placed, template_numbers

NAMES = ("Femur_L", "Femur_R")
SETTINGS = EvaluateSettings(
    gamma=[], surface_tolerance_mm=6.0, verify_gamma_points=0, dvh_statistics={"target": [], "organ": []}
)


def labels_of(case: Case, shift: int = 0) -> np.ndarray:
    whole = case.mask("Femur_L") + 2 * case.mask("Femur_R").astype(np.uint8)
    return np.roll(whole, shift, axis=0).astype(np.uint8)


def predict(path: Path, case: Case, digest: str, labels: np.ndarray, **meta: Any) -> None:
    said = {"case_id": case.case_id, "case_sha256": digest, "checkpoint_sha256": "c" * 64, "trained_on": [],
            "selected_on": [], "settings": {}, **meta}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"labels": labels, "structure_names": np.asarray(NAMES), "meta": np.asarray(json.dumps(said)),
              "spacing_mm": np.asarray(case.grid.spacing_mm), "origin_mm": np.asarray(case.grid.origin_mm)}  # fmt: skip
    write_npz(path, arrays)


@pytest.fixture
def test_set(tmp_path: Path, make_case: Callable[..., Case]) -> TestSet:
    """Three test cases; the second is segmented a slice too high, of the third one femur is missed."""
    rows = []
    for number in (1, 2, 3):
        case = make_case(f"case_{number}", seed=number)
        path = tmp_path / f"cases/{case.case_id}.npz"
        case.save(path)
        digest, labels = sha256_of_file(path), labels_of(case, shift=int(number == 2))
        if number == 3:
            labels[labels == 2] = 0
        predict(tmp_path / f"predictions/{case.case_id}.npz", case, digest, labels)
        rows.append({"repeat": 0, "fold": 0, "case_id": case.case_id, "pseudonym": case.case_id, "group": "A",
                     "split": "test", "sha256": digest})  # fmt: skip
    write_table(tmp_path / "splits.csv", pd.DataFrame(rows), SPLITS)
    return TestSet(tmp_path / "cases", tmp_path / "predictions", tmp_path / "splits.csv", "test", 0, 0)


def evaluate(test_set: TestSet, out: Path) -> dict[str, Any]:
    return evaluate_segmentations(test_set, out, SETTINGS, gamma_out=out / "gamma", tell=lambda line: None)


def test_the_tables_of_a_segmentation_are_those_of_every_kind_and_say_what_was_missed(
    test_set: TestSet, tmp_path: Path
) -> None:
    details = evaluate(test_set, tmp_path / "metrics")
    rows = read_case_metrics(tmp_path / "metrics/cases.csv").set_index("case_id")
    assert rows.loc["case_1", ["dice", "iou", "hd95_mm", "surface_dice"]].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert 0.8 < rows.loc["case_2", "dice"] < 1.0
    assert rows.loc["case_2", "hd95_mm"] == pytest.approx(6.0)
    assert rows.loc["case_3", "dice_Femur_R"] == 0.0
    assert rows.loc["case_3", "volume_cc_prediction_Femur_R"] == 0.0
    assert details["worst_case"] == "case_3"
    assert details["dice"] == pytest.approx(rows["dice"].mean())
    assert json.loads((tmp_path / "metrics/summary.json").read_text())["n_cases"] == 3
    for name, schema in (("dvh", DVH_METRICS), ("goals", GOAL_METRICS)):
        assert read_table(tmp_path / f"metrics/{name}.csv", schema).empty
    # DVC warns of an empty folder.
    assert [path.name for path in (tmp_path / "metrics/gamma").iterdir()] == ["none.txt"]
    again = evaluate(test_set, tmp_path / "again")
    assert again == details
    assert (tmp_path / "again/cases.csv").read_bytes() == (tmp_path / "metrics/cases.csv").read_bytes()


def test_what_can_not_be_compared_honestly_is_named_and_nothing_is_written(
    test_set: TestSet, tmp_path: Path, make_case: Callable[..., Case]
) -> None:
    case = make_case("case_1", seed=1)
    digest = sha256_of_file(test_set.cases / "case_1.npz")
    predict(test_set.predictions / "case_1.npz", case, digest, labels_of(case), trained_on=[digest])
    predict(test_set.predictions / "case_2.npz", make_case("case_2", seed=2), "0" * 64, labels_of(case))
    (test_set.predictions / "case_3.npz").unlink()
    with pytest.raises(BadInput, match="3 of 3 cases can't be evaluated") as caught:
        evaluate(test_set, tmp_path / "metrics")
    for said in ("was trained on this case", "of the case as it was", "no prediction case_3.npz"):
        assert said in str(caught.value)
    assert not (tmp_path / "metrics/cases.csv").exists()


def test_two_segmentations_are_compared_by_overlap_and_never_with_a_dose(test_set: TestSet, tmp_path: Path) -> None:
    evaluate(test_set, tmp_path / "first")
    for number in (2, 3):
        case = Case.load(test_set.cases / f"case_{number}.npz")
        digest = sha256_of_file(test_set.cases / f"case_{number}.npz")
        predict(test_set.predictions / f"case_{number}.npz", case, digest, labels_of(case))
    evaluate(test_set, tmp_path / "second")
    found = compare_models(tmp_path / "first", tmp_path / "second", np.random.default_rng(1))
    assert found["dice"]["mean_difference"] > 0
    assert found["hd95_mm"]["mean_difference"] < 0
    table = read_case_metrics(tmp_path / "second/cases.csv").assign(surface_tolerance_mm=2.0)
    (tmp_path / "second/cases.csv").write_text(table.to_csv(index=False))
    with pytest.raises(BadInput, match=r"surface tolerances of \[2\.0, 6\.0\] mm"):
        compare_models(tmp_path / "first", tmp_path / "second", np.random.default_rng(1))


def test_the_template_is_what_most_training_cases_have_about_the_middle(make_case: Callable[..., Case]) -> None:
    cases = [make_case(f"case_{seed}", seed=seed) for seed in (1, 2, 3)]
    template = LabelTemplate(NAMES)
    for case in cases[:2]:
        template.add(case)
    dice = mean_dice(template.labels_on(cases[2]), cases[2], NAMES)
    assert 0.5 < dice < 1.0
    assert mean_dice(labels_of(cases[0]), cases[0], NAMES) == 1.0


def test_placing_cuts_or_widens_about_the_middle() -> None:
    array = np.arange(5.0).reshape(5, 1, 1)
    assert placed(array, (3, 1, 1)).ravel().tolist() == [1, 2, 3]
    assert placed(array, (7, 1, 1)).ravel().tolist() == [0, 0, 1, 2, 3, 4, 0]


def test_shortcut_numbers_are_errors_beside_the_template_and_dice_on_a_blank_image() -> None:
    rows = [{"model_dice": 0.9, "template_dice": 0.6}, {"model_dice": 0.8, "template_dice": 0.4}]
    numbers = template_numbers(rows, {"a": {"blank_dice": 0.1}, "b": {"blank_dice": 0.3}})
    assert numbers == pytest.approx({"template_error_ratio": 0.3, "blank_dice": 0.2})
