"""The badge of a model: three states, each with its reasons, and one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from doseledger.core.files import write_json, write_text
from doseledger.core.project.layout import Layout
from doseledger.gates.limits import BadgeLimits, borrowed_limits
from doseledger.gates.model.standing import find_standing, read_standing, standing_of_run, tell_results
from doseledger.gates.verdict import Finding, make_verdict, verdict_as_json

BADGE = BadgeLimits(least_test_cases=20, source="a test")
TOLD = {"mae_body_gy": 1.114, "mae_above_10_percent_gy": 1.9, "gamma_3_3_global_percent": 77.55}
CANDIDATE = [
    {"metric": "mae_above_10_percent_gy", "wanted": "<= 3"},
    {"metric": "gamma_3_3_global_percent", "wanted": ">= 95"},
]
SENTENCE = (
    "On 3 test cases the prediction differs from the plan by 1.1 Gy in the body; 77.5 % of points pass gamma "
    "3 %/3 mm, a candidate needs 95 %."
)


def limit(metric: str, *, provisional: bool = False) -> dict[str, Any]:
    return {"metric": metric, "provisional": provisional}


def parts_of(n_cases: int = 20, *findings: Finding, **limits: Any) -> dict[str, dict[str, Any]]:
    details = {"n_cases": n_cases, "told": TOLD, "candidate": CANDIDATE, "limits": [limit("mae_body_gy")]}
    shown = {"metrics": details | limits, "shortcuts": {"limits": []}, "drift": {}}
    verdicts = {name: make_verdict(name, "a" * 64, [], told) for name, told in shown.items()}
    verdicts["shortcuts"] = make_verdict("shortcuts", "a" * 64, findings, shown["shortcuts"])
    return {name: verdict_as_json(verdict) for name, verdict in verdicts.items()}


def test_the_sentence_holds_cases_error_gamma_and_what_a_candidate_needs() -> None:
    assert tell_results(parts_of(3)["metrics"]["details"]) == SENTENCE


@pytest.mark.parametrize(
    ("details", "wanted"),
    [
        ({}, "How far the prediction is from the reference is not known: its metrics could not be judged."),
        ({"n_cases": 1, "told": {"mae_body_gy": 2.0}}, "On 1 test case the prediction differs from the plan by 2.0 Gy"),
        (
            {"n_cases": 2, "told": {"mae_body_gy": 2.0, "gamma_3_2_local_percent": 80.0}},
            "80.0 % of points pass gamma 3 %/2 mm, local.",
        ),
        ({"n_cases": 2, "told": {"mae_body_gy": 2.0, "gamma_3_2_local_percent": None}}, "by 2.0 Gy in the body."),
        ({"n_cases": 2, "told": {"dice": 0.8824, "hd95_mm": None}}, "On 2 test cases the mean Dice is 0.882."),
    ],
)
def test_the_sentence_says_no_more_than_was_measured(details: dict[str, Any], wanted: str) -> None:
    assert wanted in tell_results(details)
    assert "needs" not in tell_results(details)


def test_the_sentence_of_a_segmentation_is_of_overlap_and_never_of_a_plan() -> None:
    details = {
        "n_cases": 30,
        "told": {"dice": 0.8824, "hd95_mm": 1.63, "dice_Anterior": 0.89},
        "candidate": [{"metric": "dice", "wanted": ">= 0.88"}],
    }
    assert tell_results(details) == (
        "On 30 test cases the mean Dice is 0.882, a candidate needs 0.88; the 95 % Hausdorff distance is 1.6 mm."
    )


def test_a_model_that_keeps_every_limit_on_enough_cases_is_green() -> None:
    standing = find_standing(parts_of(), BADGE, {})
    assert (standing.state, standing.reasons, standing.badge) == ("passed", (), "ALL GATES PASSED")


WARNING = Finding("ablation", "", "warning", "m: ct_shuffle_change_gy is 0.02, wanted >= 0.05 (a source (long))")
PROVISIONAL: dict[str, tuple[dict[str, dict[str, Any]], dict[str, str], str]] = {
    "few cases": (parts_of(19), {}, "19 test cases, wanted 20"),
    "a warning about learning": (
        parts_of(20, WARNING), {},
        "1 warning about learning: m: change of dose with the CT's voxels shuffled (Gy) is 0.02, wanted ≥ 0.05",
    ),
    "gamma that nobody checked": (
        parts_of(20, Finding("gamma_unverified", "c", "warning", "c: no point")), {}, "not be judged: c: no point",
    ),
    "a limit that was not measured": (
        parts_of(20, limits=[limit("mae_body_gy", provisional=True)]), {},
        "limits without a measured source: MAE in body (Gy)",
    ),
    "limits of another cohort": (
        parts_of(20), {"metrics": "phantom", "drift": "phantom", "preflight": "phantom"},
        "limits of metrics, drift are those of the cohort phantom",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROVISIONAL)
def test_what_keeps_a_badge_from_being_green_is_named(name: str) -> None:
    parts, borrowed, reason = PROVISIONAL[name]
    standing = find_standing(parts, BADGE, borrowed)
    assert standing.state == "provisional"
    (told,) = standing.reasons
    assert reason in told
    assert "source (long)" not in told


def test_a_warning_that_says_nothing_of_learning_leaves_the_badge_green() -> None:
    parts = parts_of(20, Finding("shortcut_unasked", "", "warning", "a single target can't be swapped"))
    assert find_standing(parts, BADGE, {}).state == "passed"


@pytest.mark.parametrize("name", ["metrics", "shortcuts", "drift"])
def test_an_error_of_any_gate_fails_whatever_else_holds(name: str) -> None:
    parts = parts_of(3)
    findings = [Finding("one", "", "error", "m: far off"), Finding("two", "", "error", "m: very far off")]
    parts[name] = verdict_as_json(make_verdict(name, "a" * 64, findings, parts[name]["details"]))
    standing = find_standing(parts, BADGE, {})
    assert (standing.state, standing.badge) == ("failed", "NOT FIT FOR RELEASE")
    assert standing.reasons == (f"the {name} gate failed: m: far off (and 1 more)",)
    assert standing.sentence == SENTENCE


def test_the_gates_before_it_count_too() -> None:
    standing = find_standing(parts_of(), BADGE, {})
    findings = {"details": {"standing": standing.as_json()}}
    assert read_standing(findings) == standing
    passed = verdict_as_json(make_verdict("preflight", "a" * 64, [], {}))
    assert standing_of_run(findings, [passed]) == standing
    failed = verdict_as_json(make_verdict("data", "a" * 64, [Finding("sdf", "c", "error", "c: bad")], {}))
    run = standing_of_run(findings, [passed, failed])
    assert (run.state, run.reasons) == ("failed", ("the data gate failed: c: bad",))


@pytest.mark.parametrize("findings", [
    {}, {"details": {}}, {"details": {"standing": {"state": "green"}}}, {"details": ["standing"]},
    {"details": {"standing": {"state": ["passed"], "reasons": []}}},
    {"details": {"standing": {"state": "passed", "reasons": 3}}}, {"details": {"standing": {"state": "passed"}}},
])  # fmt: skip
def test_a_verdict_without_a_standing_is_never_green(findings: dict[str, Any]) -> None:
    assert read_standing(findings) is None
    assert standing_of_run(findings, []).state == "failed"


def test_limits_of_the_cohort_that_this_one_is_like_are_named_by_block(layout: Layout) -> None:
    write_text(layout.cohorts / "clinic/cohort.yaml", "like: phantom\n")
    write_json(layout.cohorts / "clinic/thresholds.yaml", {"metrics": {}})
    borrowed = borrowed_limits(Layout(layout.root, "clinic"))
    assert "metrics" not in borrowed
    assert borrowed["drift"] == borrowed["badge"] == "phantom"
    assert borrowed_limits(layout) == {}
