"""One verdict on a model: metrics, shortcuts and drift; a judge that sees nothing fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gates.model.evaluated import PARTS, digest_of, write_evaluated, write_metrics
from typer.testing import CliRunner

from doseledger.cli.evaluate import app
from doseledger.core.errors import GateFailed, NotReady
from doseledger.core.files import read_json, read_yaml, sha256_of_file, write_json, write_text
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.evaluate.shortcuts.ablation import ALTERATIONS
from doseledger.gates.model.judge import NOT_JUDGED, judge_model
from doseledger.gates.model.metrics import judge_metrics
from doseledger.gates.model.shortcuts import judge_shortcuts
from doseledger.gates.verdict import Finding, Verdict, make_verdict, read_verdict, verdict_as_json, write_verdict

# What physics says of each alteration, and a little of the image looked at.
ANSWERS = {
    item.name: {"organ_drop_change_gy": 0.1, "ct_shuffle_change_gy": 0.1}.get(item.name, 1.0) for item in ALTERATIONS
}


@pytest.fixture
def at(repository: Path, layout: Layout) -> ModelLayout:
    """A model that passes: half as far off as its rivals, its test cases like the training ones."""
    at = write_evaluated(repository, layout)
    write_shortcuts(at)
    write_drift(at)
    return at


def write_shortcuts(at: ModelLayout, mae_gy: float = 1.0, **answers: float) -> None:
    test = [case_id for case_id, part in PARTS.items() if part == "test"]
    errors = {"model": mae_gy, "template": 2.0, "distance": 2.0, "prior": 2.0}
    row = {f"{who}_mae{mask}_gy": gy for who, gy in errors.items() for mask in ("", "_above_10_percent")}
    measured = {
        "checkpoint_sha256": sha256_of_file(at.checkpoint),
        "test_cases": {case_id: digest_of(case_id) for case_id in test},
        "training_cases": [case_id for case_id, part in PARTS.items() if part == "train"],
        "trivial": [{"case_id": case_id, **row} for case_id in test],
        "ablation": dict.fromkeys(test, ANSWERS | answers),
    }
    write_json(at.shortcuts, measured)


def write_drift(at: ModelLayout, *findings: Finding) -> Verdict:
    verdict = make_verdict("drift", "e" * 64, findings, {"cohort": "phantom", "n_new": 2})
    write_verdict(verdict, at.layout.drift_verdict)
    return verdict


def judged(at: ModelLayout) -> Verdict:
    return judge_model(at, fold=0, repeat=0)


def gates(verdict: Verdict) -> list[str]:
    return [finding.gate for finding in verdict.errors]


def test_a_good_model_passes_and_the_verdict_holds_all_three(at: ModelLayout) -> None:
    drift = write_drift(at)
    verdict = judged(at)
    assert verdict.ok, verdict.errors
    assert verdict.gate == "model"
    assert (verdict.details["cohort"], verdict.details["model"]) == ("phantom", "dose_unet")
    assert verdict.details["metrics"] == verdict_as_json(judge_metrics(at, fold=0, repeat=0))
    assert verdict.details["shortcuts"] == verdict_as_json(judge_shortcuts(at, fold=0, repeat=0))
    assert verdict.details["drift"] == json.loads(json.dumps(verdict_as_json(drift)))


def test_the_verdict_is_the_same_to_the_byte_and_comes_back_as_it_was(at: ModelLayout) -> None:
    write_verdict(judged(at), at.model_verdict)
    once = at.model_verdict.findings.read_bytes()
    write_verdict(judged(at), at.model_verdict)
    assert at.model_verdict.findings.read_bytes() == once
    assert read_verdict(at.model_verdict) == judged(at)
    assert str(at.layout.root).encode() not in once


def test_what_any_of_the_three_finds_fails_the_model(at: ModelLayout) -> None:
    write_metrics(at, {"case_0004": (9.0, 96.0), "case_0005": (9.0, 98.0)})
    assert gates(judged(at)) == ["metric_limit"]
    write_shortcuts(at, mae_gy=20.0)
    assert set(gates(judged(at))) == {"metric_limit", "trivial_model"}
    write_drift(at, Finding("drift_far", "case_0004", "error", "case_0004: far"))
    verdict = judged(at)
    assert set(gates(verdict)) == {"metric_limit", "trivial_model", "drift_far"}
    parts = [verdict.details[name] for name in ("metrics", "shortcuts", "drift")]
    assert [part["ok"] for part in parts] == [False, False, False]
    assert sum(part["counts"]["error"] for part in parts) == len(verdict.errors)


def test_warnings_of_all_three_are_counted_and_fail_nothing(at: ModelLayout) -> None:
    write_metrics(at, {"case_0004": (0.5, 96.0), "case_0005": (0.5, 98.0)})
    write_shortcuts(at, prescription_gain=0.1)
    write_drift(at, Finding("drift_few", "", "warning", "too few"))
    verdict = judged(at)
    assert verdict.ok, verdict.errors
    assert {finding.gate for finding in verdict.findings} == {"score_implausible", "ablation", "drift_few"}
    assert verdict_as_json(verdict)["counts"] == {"error": 0, "warning": len(verdict.findings)}


def test_the_drift_verdict_is_read_and_counted_and_not_made_again(at: ModelLayout) -> None:
    before = judged(at)
    far = Finding("drift_far", "case_0004", "error", "case_0004: far", {"ratio": 2.0})
    write_drift(at, far, Finding("drift_few", "", "warning", "too few"))
    verdict = judged(at)
    assert verdict.errors == (far,)
    assert verdict.details["drift"]["counts"] == {"error": 1, "warning": 1}
    assert verdict.details["drift"]["digest"] == "e" * 64
    # Its digest is what was judged, and that is the same.
    assert verdict.digest == before.digest


def test_the_digest_is_of_what_each_of_the_three_judged(at: ModelLayout) -> None:
    digests = [judged(at).digest]
    write_metrics(at, {"case_0004": (2.1, 96.0), "case_0005": (3.0, 98.0)})
    digests.append(judged(at).digest)
    write_shortcuts(at, mae_gy=1.1)
    digests.append(judged(at).digest)
    drift = make_verdict("drift", "f" * 64, [], {})
    write_verdict(drift, at.layout.drift_verdict)
    digests.append(judged(at).digest)
    assert len(set(digests)) == 4


UNSEEN: dict[str, tuple[Callable[[ModelLayout], Path], str, str]] = {
    "no metrics": (lambda at: at.metrics / "details.json", "metrics_unseen", "no such file"),
    "no table of cases": (lambda at: at.metrics / "cases.csv", "metrics_unseen", "no such table"),
    "no history": (lambda at: at.run / "history.csv", "metrics_unseen", "no history of the training"),
    "no shortcuts": (lambda at: at.shortcuts, "shortcuts_unseen", "no such file"),
    "no drift": (lambda at: at.layout.drift_verdict.findings, "drift_unseen", "nothing has been judged yet"),
}


@pytest.mark.parametrize("fault", UNSEEN)
@pytest.mark.parametrize("content", [None, "", "[1, 2]", "{not json"])
def test_a_judge_that_can_not_see_its_files_fails_and_never_raises(
    fault: str, content: str | None, at: ModelLayout
) -> None:
    path_of, gate, message = UNSEEN[fault]
    if content is None:
        path_of(at).unlink()
    else:
        write_text(path_of(at), content)
    verdict = judged(at)
    (finding,) = verdict.errors
    assert (finding.gate, finding.severity) == (gate, "error")
    assert path_of(at).name in finding.message
    if content is None:
        assert message in finding.message
    part = verdict.details[gate.removesuffix("_unseen")]
    assert (part["ok"], part["digest"], part["details"]) == (False, NOT_JUDGED, {})
    # The other two are judged none the less.
    others = [verdict.details[name] for name in ("metrics", "shortcuts", "drift") if f"{name}_unseen" != gate]
    assert all(other["ok"] and other["digest"] != NOT_JUDGED for other in others)


@pytest.mark.parametrize("findings", [["x"], [["x", 1]], "x", None, [{"gate": "x"}], [{}]], ids=repr)
def test_findings_of_another_form_are_no_verdict_on_drift(findings: object, at: ModelLayout) -> None:
    path = at.layout.drift_verdict.findings
    write_json(path, {**read_json(path), "findings": findings})
    (finding,) = judged(at).errors
    assert finding.gate == "drift_unseen"
    assert "drift_findings.json: no findings of a gate" in finding.message


def test_without_a_checkpoint_metrics_and_shortcuts_are_unseen(at: ModelLayout) -> None:
    at.checkpoint.unlink()
    assert {"metrics_unseen", "shortcuts_unseen"} == set(gates(judged(at)))


def test_a_model_without_a_single_file_fails_in_all_three_and_never_raises(layout: Layout) -> None:
    verdict = judged(layout.model("dose_unet"))
    assert set(gates(verdict)) == {"metrics_unseen", "shortcuts_unseen", "drift_unseen"}
    assert judged(Layout(layout.root, "no_such_cohort").model("dose_unet")).errors


def change_limits(at: ModelLayout, **blocks: Any) -> None:
    path = at.layout.cohorts / "phantom/thresholds.yaml"
    write_json(path, {**read_yaml(path), **blocks})  # JSON is YAML too


def test_a_model_without_limits_fails_and_never_raises(at: ModelLayout) -> None:
    change_limits(at, metrics={}, shortcuts={})
    verdict = judged(at)
    messages = {finding.gate: finding.message for finding in verdict.errors}
    assert set(messages) == {"metrics_unseen", "shortcuts_unseen"}
    assert "no limits under metrics.dose_unet, nor under metrics.default" in messages["metrics_unseen"]
    assert "no limits under shortcuts.dose_unet, nor under shortcuts.default" in messages["shortcuts_unseen"]


def test_judge_writes_the_verdict_of_a_bad_model_and_gate_fails_with_it(
    at: ModelLayout, enter_project: Callable[[], None]
) -> None:
    write_shortcuts(at, mae_gy=20.0)
    enter_project()
    assert isinstance(CliRunner().invoke(app, ["gate", "dose_unet"]).exception, NotReady)
    shown = CliRunner().invoke(app, ["judge", "dose_unet", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == json.loads(at.model_verdict.findings.read_text())
    assert json.loads(at.model_verdict.token.read_text())["ok"] is False
    failed = CliRunner().invoke(app, ["gate", "dose_unet"]).exception
    assert isinstance(failed, GateFailed)
    assert "the model gate found" in str(failed)
    assert "dose_unet: distance_mae_ratio is 10, wanted <= 0.7" in str(failed)
    write_shortcuts(at)
    shown = CliRunner().invoke(app, ["judge", "dose_unet"])
    # One plain sentence before all else.
    assert shown.stdout.startswith("On 2 test cases the prediction differs from the plan by 2.5 Gy in the body; 97.0 %")
    assert "the model gate passed" in shown.stdout
    shown = CliRunner().invoke(app, ["gate", "dose_unet"])
    assert shown.exit_code == 0, shown.output
    assert "dose_unet: no gate failed" in shown.stdout
    assert "PROVISIONAL\n  - 2 test cases, wanted 20" in shown.stdout
