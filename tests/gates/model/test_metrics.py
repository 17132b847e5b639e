"""The metrics gate fails a broken model, a doctored summary, and a score on what was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_bytes, sha256_of_file, write_json, write_text
from doseledger.core.settings import load_settings
from doseledger.core.tables import CASE_METRICS, SPLITS, read_table, write_table
from doseledger.gates.limits import load_thresholds
from doseledger.gates.model.metrics import MetricsFiles, judge_metrics
from doseledger.gates.model.training import read_history
from doseledger.gates.verdict import Verdict
from doseledger.learn.recipes.dose import load_recipe
from doseledger.learn.training.checkpoint import Checkpoint, save_checkpoint

LIMITS = [
    {"metric": "mae_body_gy", "operator": "<=", "limit": 3.0, "source": "the clinic"},
    {"metric": "gamma_3_3_global_percent", "operator": ">=", "limit": 95.0, "source": "AAPM TG-218"},
]
PARTS = {"case_0001": "train", "case_0002": "train", "case_0003": "val", "case_0004": "test", "case_0005": "test"}


def digest_of(case_id: str) -> str:
    return sha256_of_bytes(case_id.encode())


@pytest.fixture
def files(repository: Path, tmp_path: Path) -> MetricsFiles:
    rows = [
        {"repeat": 0, "fold": 0, "case_id": c, "pseudonym": c, "group": "A", "split": part, "sha256": digest_of(c)}
        for c, part in PARTS.items()
    ]
    write_table(tmp_path / "splits.csv", pd.DataFrame(rows), SPLITS)
    seen = {part: {c: digest_of(c) for c in PARTS if PARTS[c] == part} for part in ("train", "val")}
    save_checkpoint(tmp_path / "checkpoints/best.ckpt", checkpoint_of(repository, seen["train"], seen["val"]))
    write_history(tmp_path, [(0.2, 7.0, 7.2), (0.1, 3.0, 3.1), (0.09, 2.5, 2.7)])
    write_metrics(tmp_path, {"case_0004": (2.0, 96.0), "case_0005": (3.0, 98.0)})
    write_json(tmp_path / "thresholds.yaml", thresholds_of(repository, LIMITS))
    return MetricsFiles(
        metrics_dir=tmp_path,
        splits_csv=tmp_path / "splits.csv",
        checkpoint=tmp_path / "checkpoints/best.ckpt",
        thresholds=tmp_path / "thresholds.yaml",
        cohort="phantom",
        model="dose_unet",
    )


def thresholds_of(repository: Path, limits: list[dict[str, Any]]) -> dict[str, Any]:
    value = load_thresholds(repository / "validation" / "thresholds.yaml").model_dump(mode="json")
    return {**value, "metrics": {"phantom": {"dose_unet": limits}}}


def checkpoint_of(repository: Path, trained: dict[str, str], selected: dict[str, str]) -> Checkpoint:
    recipe = load_recipe(load_settings(repository / "params.yaml").model("dose_unet"), "params.yaml")
    return Checkpoint(
        model="dose_unet",
        recipe=recipe.trained_part(),
        settings={},
        structure_names=("PTV70",),
        target_names=("PTV70",),
        spacing_range_mm=((3.0, 2.5, 2.5), (3.0, 2.5, 2.5)),
        trained_on=trained,
        selected_on=selected,
        epoch=1,
        scores={},
        weights={"one": torch.zeros(1)},
    )


def write_metrics(folder: Path, values: dict[str, tuple[float, float]]) -> None:
    rows = [
        {
            "case_id": case_id,
            "case_sha256": digest_of(case_id),
            "checkpoint_sha256": sha256_of_file(folder / "checkpoints/best.ckpt"),
            "mae_body_gy": mae,
            "gamma_3_3_global_percent": gamma,
            "gamma_criteria": "3 %/3 mm global, cutoff 10 %",
            "gamma_points_verified": 50,
            "gamma_largest_difference": 1e-13,
            "goals_evaluable": 10,
            "plan_goals_met": 10,
            "plan_acceptable": True,
            "prediction_goals_met": 9,
            "prediction_acceptable": True,
        }
        for case_id, (mae, gamma) in values.items()
    ]
    table = pd.DataFrame(rows)
    write_text(folder / "cases.csv", table.to_csv(index=False))
    means = {name: float(table[name].mean()) for name in ("mae_body_gy", "gamma_3_3_global_percent")}
    write_json(folder / "summary.json", {"n_cases": len(table), **means})


def write_history(folder: Path, epochs: list[tuple[float, float | None, float]]) -> None:
    """Loss, MAE on training cases (None: not measured) and in validation of each epoch."""
    lines = ["epoch,train_loss,train_mae_valid_dose_gy,val_mae_valid_dose_gy,seconds"]
    for number, (loss, train, val) in enumerate(epochs, start=1):
        lines.append(f"{number},{loss},{'' if train is None else train},{val},{12.5 * number}")
    write_text(folder / "history.csv", "\n".join(lines) + "\n")


def change_cases(files: MetricsFiles, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = change(read_table(files.cases_csv, CASE_METRICS))
    write_text(files.cases_csv, table.to_csv(index=False))


def errors(verdict: Verdict) -> dict[str, str]:
    return {finding.gate: finding.message for finding in verdict.errors}


def judged(files: MetricsFiles) -> Verdict:
    return judge_metrics(files, fold=0, repeat=0)


def test_a_model_within_its_limits_passes_and_says_by_how_much(files: MetricsFiles) -> None:
    verdict = judged(files)
    assert verdict.ok, errors(verdict)
    assert verdict.details["limits"][0] == {
        "metric": "mae_body_gy",
        "found": 2.5,
        "wanted": "<= 3",
        "ok": True,
        "source": "the clinic",
    }
    assert judged(files) == verdict


def test_what_a_candidate_must_reach_is_told_and_not_gated(files: MetricsFiles) -> None:
    verdict = judge_metrics(files, fold=0, repeat=0)
    told = {row["metric"]: row["ok"] for row in verdict.details["candidate"]}
    assert verdict.ok
    assert set(told) == {"mae_above_10_percent_gy", "gamma_3_3_global_percent"}
    assert not all(told.values())


def test_a_broken_model_fails_its_limits(files: MetricsFiles) -> None:
    write_metrics(files.metrics_dir, {"case_0004": (9.0, 40.0), "case_0005": (9.0, 30.0)})
    verdict = judged(files)
    messages = [finding.message for finding in verdict.errors]
    assert "dose_unet: mae_body_gy is 9, wanted <= 3 (the clinic)" in messages
    assert "dose_unet: gamma_3_3_global_percent is 35, wanted >= 95 (AAPM TG-218)" in messages


@pytest.mark.parametrize("value", [None, "good", True])
def test_a_metric_without_a_number_misses_its_limit(value: object, files: MetricsFiles) -> None:
    summary = json.loads(files.summary_json.read_text())
    write_json(files.summary_json, {**summary, "mae_body_gy": value})
    assert "no number for mae_body_gy" in errors(judged(files))["metric_absent"]


def test_a_summary_that_is_not_the_mean_of_its_cases_is_named(files: MetricsFiles) -> None:
    summary = json.loads(files.summary_json.read_text())
    write_json(files.summary_json, {**summary, "mae_body_gy": 2.4, "n_cases": 3})
    messages = " | ".join(f.message for f in judged(files).errors if f.gate == "summary_stale")
    assert "summary.json says mae_body_gy is 2.4, the mean of cases.csv is 2.5" in messages
    assert "summary.json is of 3 cases, cases.csv has 2" in messages


def test_a_score_on_a_training_case_is_named(files: MetricsFiles) -> None:
    splits = read_table(files.splits_csv, SPLITS)
    parts = splits["split"].where(splits["case_id"] != "case_0001", "test")
    write_table(files.splits_csv, splits.assign(split=parts), SPLITS)
    write_metrics(files.metrics_dir, dict.fromkeys(("case_0001", "case_0004", "case_0005"), (2.0, 97.0)))
    message = errors(judged(files))["tested_on_training"]
    assert message.startswith("case_0001: the model has seen it in training (as case_0001)")


def test_a_training_case_under_another_name_is_named_too(files: MetricsFiles) -> None:
    change_cases(files, lambda t: t.assign(case_sha256=[digest_of("case_0002"), digest_of("case_0005")]))
    message = errors(judged(files))["tested_on_training"]
    assert message.startswith("case_0004: the model has seen it in training (as case_0002)")


def test_a_test_case_that_was_left_out_is_named(files: MetricsFiles) -> None:
    write_metrics(files.metrics_dir, {"case_0004": (1.0, 99.0)})
    assert "case_0005: a test case, but was not evaluated" in errors(judged(files))["test_set"]


def test_a_case_that_changed_since_is_named(files: MetricsFiles) -> None:
    change_cases(files, lambda t: t.assign(case_sha256="e" * 64))
    assert "changed since it was evaluated" in errors(judged(files))["test_set"]


def test_a_fold_without_a_test_set_is_no_judgement(files: MetricsFiles) -> None:
    assert "no test case for this fold" in " ".join(f.message for f in judge_metrics(files, fold=3, repeat=0).errors)


def test_predictions_of_another_checkpoint_are_named(files: MetricsFiles) -> None:
    change_cases(files, lambda t: t.assign(checkpoint_sha256="d" * 64))
    assert "case_0004, case_0005: predicted with another checkpoint" in errors(judged(files))["checkpoint"]


def test_gamma_that_differs_from_its_reference_is_named(files: MetricsFiles) -> None:
    change_cases(files, lambda t: t.assign(gamma_largest_difference=[0.2, 0.0]))
    assert "case_0004: gamma differs from the reference implementation by 0.2" in errors(judged(files))["gamma_differs"]
    change_cases(files, lambda t: t.assign(gamma_points_verified=0, gamma_largest_difference=None))
    verdict = judged(files)
    assert verdict.ok
    assert {finding.gate for finding in verdict.findings} == {"gamma_unverified"}


RED_FLAGS: dict[str, tuple[list[tuple[float, float | None, float]], str, str, str]] = {
    "a training loss that vanishes": (
        [(0.2, 3.0, 3.1), (0.0009, 2.9, 3.0)], "loss_vanishes", "error", "has fallen to 0.0045 of the first epoch's"
    ),
    "patients learned by heart": (
        [(0.2, 3.0, 3.1), (0.1, 0.7, 2.8)], "train_val_gap", "error", "a gap of 300%, more than 200%"
    ),
    "a gap to look at": ([(0.2, 3.0, 3.6)], "train_val_gap", "warning", "a gap of 20%, more than 10%"),
    "a validation too good to be true": (
        [(0.2, 3.0, 3.1), (0.1, 0.2, 0.21)], "score_implausible", "error", "at or below 0.3 Gy"
    ),
    "a training that went astray": (
        [(0.2, 3.0, 3.1), (0.1, 2.9, 3.0), (0.5, 2.8, 2.9)], "diverges", "error", "the training loss is 5 times"
    ),
    "a history without training cases": ([(0.2, None, 3.1)], "training_unseen", "warning", "train it again"),
}  # fmt: skip


@pytest.mark.parametrize("flag", RED_FLAGS)
def test_a_red_flag_of_the_training_is_in_the_verdict(flag: str, files: MetricsFiles) -> None:
    epochs, gate, severity, words = RED_FLAGS[flag]
    before = judged(files)
    write_history(files.metrics_dir, epochs)
    verdict = judged(files)
    (finding,) = verdict.findings
    assert (finding.gate, finding.severity) == (gate, severity)
    assert finding.message.startswith("dose_unet: ")
    assert words in finding.message
    assert verdict.ok == (severity == "warning")
    assert verdict.digest != before.digest


@pytest.mark.parametrize(
    ("values", "severity", "words"),
    [
        ((0.1, 97.0), "error", "mae_body_gy is 0.100 Gy over 2 cases: nearer to the plan than a plan made to mimic it"),
        ((0.5, 97.0), "warning", "mae_body_gy is 0.500 Gy"),
        ((2.0, 100.0), "error", "gamma_3_3_global_percent is at least 100.00 % in each of 2 cases"),
        ((2.0, 99.3), "warning", "gamma_3_3_global_percent is at least 99.30 %"),
    ],
)
def test_scores_too_good_to_be_true_are_named(
    values: tuple[float, float], severity: str, words: str, files: MetricsFiles
) -> None:
    write_metrics(files.metrics_dir, dict.fromkeys(("case_0004", "case_0005"), values))
    (finding,) = judged(files).findings
    assert (finding.gate, finding.severity) == ("score_implausible", severity)
    assert words in finding.message


def test_the_clock_in_a_history_is_not_judged(files: MetricsFiles) -> None:
    before = judged(files)
    history = files.history_csv.read_text()
    write_text(files.history_csv, history.replace("12.5", "99.5"))
    assert judged(files).digest == before.digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (",0.1,", ",nan,"),
        (",0.1,", ",,"),
        (",0.1,", ",inf,"),
        (",0.1,", ",abc,"),
        ("\n2,", "\n,"),
        (",3.1,", ",inf,"),
        (",3.1,", ",-inf,"),
        (",3.1,", ",abc,"),
    ],
)
def test_a_history_with_what_is_no_number_is_refused(files: MetricsFiles, one: str, other: str) -> None:
    history = files.history_csv.read_text()
    assert history.count(one) == 1
    write_text(files.history_csv, history.replace(one, other))
    with pytest.raises(BadInput, match=r"history\.csv: an epoch, a loss or a score is no number; train"):
        judged(files)


def test_an_epoch_without_validation_is_left_empty(files: MetricsFiles) -> None:
    write_text(files.history_csv, files.history_csv.read_text().replace(",3.0,3.1,", ",,,"))
    assert [sorted(row) for row in read_history(files.history_csv)][1] == ["epoch", "train_loss"]
    assert judged(files).ok


def test_a_model_without_a_history_is_not_judged(files: MetricsFiles) -> None:
    write_text(files.history_csv, "epoch,seconds\n1,2\n")
    with pytest.raises(BadInput, match="a history has epoch, train_loss and a row an epoch"):
        judged(files)
    files.history_csv.unlink()
    with pytest.raises(BadInput, match=r"history\.csv: no history of the training; train the model again"):
        judged(files)


def test_a_model_without_limits_is_not_judged(files: MetricsFiles) -> None:
    with pytest.raises(BadInput, match=r"no limits under metrics\.phantom\.new_model"):
        judged(replace(files, model="new_model"))


def test_every_limit_that_ships_has_a_source(repository: Path) -> None:
    thresholds = load_thresholds(repository / "validation" / "thresholds.yaml")
    cohorts = set(load_settings(repository / "params.yaml").cohorts)
    assert set(thresholds.data) == cohorts
    for models in thresholds.metrics.values():
        for limits in models.values():
            assert all(len(limit.source) > 10 for limit in limits)
