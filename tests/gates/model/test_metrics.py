"""The metrics gate fails a broken model, a doctored summary, and a score on what was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from gates.model.evaluated import LIMITS, digest_of, write_evaluated, write_history, write_metrics

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json, write_text
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.core.tables import CASE_METRICS, SPLITS, read_table, write_table
from doseledger.gates.limits import load_thresholds
from doseledger.gates.model.metrics import judge_metrics
from doseledger.gates.model.training import read_history
from doseledger.gates.verdict import Verdict


@pytest.fixture
def at(repository: Path, layout: Layout) -> ModelLayout:
    return write_evaluated(repository, layout)


def change_cases(at: ModelLayout, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = change(read_table(at.metrics / "cases.csv", CASE_METRICS))
    write_text(at.metrics / "cases.csv", table.to_csv(index=False))


def errors(verdict: Verdict) -> dict[str, str]:
    return {finding.gate: finding.message for finding in verdict.errors}


def judged(at: ModelLayout) -> Verdict:
    return judge_metrics(at, fold=0, repeat=0)


def test_a_model_within_its_limits_passes_and_says_by_how_much(at: ModelLayout) -> None:
    verdict = judged(at)
    assert verdict.ok, errors(verdict)
    assert verdict.details["limits"][0] == {
        "metric": "mae_body_gy",
        "found": 2.5,
        "wanted": "<= 3",
        "ok": True,
        "provisional": False,
        "source": "the clinic",
    }
    assert judged(at) == verdict


def test_a_segmentation_is_judged_beside_dose_models_without_a_gamma(at: ModelLayout) -> None:
    rows = read_table(at.metrics / "cases.csv", CASE_METRICS)[["case_id", "case_sha256", "checkpoint_sha256"]]
    rows = rows.assign(surface_tolerance_mm=1.0, dice=[0.9, 0.8], hd95_mm=2.0)
    rows = rows.assign(volume_cc_reference_Rectum=9.0, volume_cc_prediction_Rectum=9.0)
    write_text(at.metrics / "cases.csv", rows.to_csv(index=False))
    write_json(at.metrics / "details.json", {"n_cases": 2, "dice": 0.85})
    thresholds = at.layout.cohorts / "phantom/thresholds.yaml"
    limit = {"metric": "dice", "operator": ">=", "limit": 0.8, "source": "two observers"}
    write_json(thresholds, {**read_yaml(thresholds), "metrics": {"dose_unet": [limit]}})
    assert load_thresholds(at.layout).evaluation is not None
    verdict = judged(at)
    assert (verdict.details["limits"][0]["found"], verdict.details["limits"][0]["ok"]) == (0.85, True)
    assert "gamma_unverified" not in {finding.gate for finding in verdict.findings}


def test_what_a_candidate_must_reach_is_told_and_not_gated(at: ModelLayout) -> None:
    verdict = judge_metrics(at, fold=0, repeat=0)
    told = {row["metric"]: row["ok"] for row in verdict.details["candidate"]}
    assert verdict.ok
    assert set(told) == {"mae_above_10_percent_gy", "gamma_3_3_global_percent"}
    assert not all(told.values())


def test_a_broken_model_fails_its_limits(at: ModelLayout) -> None:
    write_metrics(at, {"case_0004": (9.0, 40.0), "case_0005": (9.0, 30.0)})
    verdict = judged(at)
    messages = [finding.message for finding in verdict.errors]
    assert "dose_unet: mae_body_gy is 9, wanted <= 3 (the clinic)" in messages
    assert "dose_unet: gamma_3_3_global_percent is 35, wanted >= 95 (AAPM TG-218)" in messages


@pytest.mark.parametrize("value", [None, "good", True])
def test_a_metric_without_a_number_misses_its_limit(value: object, at: ModelLayout) -> None:
    summary = json.loads((at.metrics / "details.json").read_text())
    write_json(at.metrics / "details.json", {**summary, "mae_body_gy": value})
    assert "no number for mae_body_gy" in errors(judged(at))["metric_absent"]


def test_a_summary_that_is_not_the_mean_of_its_cases_is_named(at: ModelLayout) -> None:
    summary = json.loads((at.metrics / "details.json").read_text())
    write_json(at.metrics / "details.json", {**summary, "mae_body_gy": 2.4, "n_cases": 3})
    messages = " | ".join(f.message for f in judged(at).errors if f.gate == "summary_stale")
    assert "the summary says mae_body_gy is 2.4, the mean of cases.csv is 2.5" in messages
    assert "the summary is of 3 cases, cases.csv has 2" in messages


def test_a_score_on_a_training_case_is_named(at: ModelLayout) -> None:
    splits = read_table(at.layout.splits, SPLITS)
    parts = splits["split"].where(splits["case_id"] != "case_0001", "test")
    write_table(at.layout.splits, splits.assign(split=parts), SPLITS)
    write_metrics(at, dict.fromkeys(("case_0001", "case_0004", "case_0005"), (2.0, 97.0)))
    message = errors(judged(at))["tested_on_training"]
    assert message.startswith("case_0001: the model has seen it in training (as case_0001)")


def test_a_training_case_under_another_name_is_named_too(at: ModelLayout) -> None:
    change_cases(at, lambda t: t.assign(case_sha256=[digest_of("case_0002"), digest_of("case_0005")]))
    message = errors(judged(at))["tested_on_training"]
    assert message.startswith("case_0004: the model has seen it in training (as case_0002)")


def test_a_test_case_that_was_left_out_is_named(at: ModelLayout) -> None:
    write_metrics(at, {"case_0004": (1.0, 99.0)})
    assert "case_0005: a test case, but was not evaluated" in errors(judged(at))["test_set"]


def test_a_case_that_changed_since_is_named(at: ModelLayout) -> None:
    change_cases(at, lambda t: t.assign(case_sha256="e" * 64))
    assert "changed since it was evaluated" in errors(judged(at))["test_set"]


def test_a_fold_without_a_test_set_is_no_judgement(at: ModelLayout) -> None:
    assert "no test case for this fold" in " ".join(f.message for f in judge_metrics(at, fold=3, repeat=0).errors)


def test_predictions_of_another_checkpoint_are_named(at: ModelLayout) -> None:
    change_cases(at, lambda t: t.assign(checkpoint_sha256="d" * 64))
    assert "case_0004, case_0005: predicted with another checkpoint" in errors(judged(at))["checkpoint"]


def test_gamma_that_differs_from_its_reference_is_named(at: ModelLayout) -> None:
    change_cases(at, lambda t: t.assign(gamma_largest_difference=[0.2, 0.0]))
    assert "case_0004: gamma differs from the reference implementation by 0.2" in errors(judged(at))["gamma_differs"]
    change_cases(at, lambda t: t.assign(gamma_points_verified=0, gamma_largest_difference=None))
    verdict = judged(at)
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
def test_a_red_flag_of_the_training_is_in_the_verdict(flag: str, at: ModelLayout) -> None:
    epochs, gate, severity, words = RED_FLAGS[flag]
    before = judged(at)
    write_history(at, epochs)
    verdict = judged(at)
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
    values: tuple[float, float], severity: str, words: str, at: ModelLayout
) -> None:
    write_metrics(at, dict.fromkeys(("case_0004", "case_0005"), values))
    (finding,) = judged(at).findings
    assert (finding.gate, finding.severity) == ("score_implausible", severity)
    assert words in finding.message


def test_the_clock_in_a_history_is_not_judged(at: ModelLayout) -> None:
    before = judged(at)
    history = (at.run / "history.csv").read_text()
    write_text(at.run / "history.csv", history.replace("12.5", "99.5"))
    assert judged(at).digest == before.digest


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
def test_a_history_with_what_is_no_number_is_refused(at: ModelLayout, one: str, other: str) -> None:
    history = (at.run / "history.csv").read_text()
    assert history.count(one) == 1
    write_text(at.run / "history.csv", history.replace(one, other))
    with pytest.raises(BadInput, match=r"history\.csv: an epoch, a loss or a score is no number; train"):
        judged(at)


def test_an_epoch_without_validation_is_left_empty(at: ModelLayout) -> None:
    write_text(at.run / "history.csv", (at.run / "history.csv").read_text().replace(",3.0,3.1,", ",,,"))
    assert [sorted(row) for row in read_history(at.run / "history.csv")][1] == ["epoch", "train_loss"]
    assert judged(at).ok


def test_a_model_without_a_history_is_not_judged(at: ModelLayout) -> None:
    write_text(at.run / "history.csv", "epoch,seconds\n1,2\n")
    with pytest.raises(BadInput, match="a history has epoch, train_loss and a row an epoch"):
        judged(at)
    (at.run / "history.csv").unlink()
    with pytest.raises(BadInput, match=r"history\.csv: no history of the training; train the model again"):
        judged(at)


def test_a_model_without_limits_is_not_judged(at: ModelLayout) -> None:
    with pytest.raises(BadInput, match=r"no limits under metrics\.new_model, nor under metrics\.default"):
        judged(at.layout.model("new_model"))


def test_the_limits_under_default_hold_for_a_model_that_has_none_of_its_own(at: ModelLayout) -> None:
    path = at.layout.cohorts / "phantom/thresholds.yaml"
    write_json(path, {**read_yaml(path), "metrics": {"default": LIMITS, "other": [{**LIMITS[0], "limit": 0.1}]}})
    verdict = judged(at)
    assert verdict.ok, errors(verdict)
    assert [row["wanted"] for row in verdict.details["limits"]] == ["<= 3", ">= 95"]


def test_every_cohort_that_ships_has_limits_with_a_source(repository: Path) -> None:
    cohorts = sorted(folder.name for folder in (repository / "validation/cohorts").iterdir() if folder.is_dir())
    assert cohorts == ["hippocampus", "openkbp", "phantom", "prostate"]
    for cohort in cohorts:
        thresholds = load_thresholds(Layout(repository, cohort))
        assert thresholds.metrics
        for limits in thresholds.metrics.values():
            assert all(len(limit.source) > 10 for limit in limits)
