"""What the metrics gate says of small tables, word for word; what a suite wants, in words; verdicts as JSON."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from doseledger.gates import suites, verdict
from doseledger.gates.limits import EvaluationLimits, MetricLimit, SignLimit, TrainingLimits
from doseledger.gates.model import metrics, training
from doseledger.gates.verdict import Finding

SIGN = SignLimit(warning=1.0, error=0.5, source="x")
GAMMA = SignLimit(warning=99.0, error=99.9, source="x")
LIMITS = TrainingLimits(loss_share=SIGN, gap=SIGN, rise=SIGN, least_mae_gy=SIGN, most_gamma_percent=GAMMA)


def table(**columns: Any) -> pd.DataFrame:
    plain = {"case_id": ["a", "b"], "case_sha256": ["1", "2"], "checkpoint_sha256": ["c", "c"]}
    return pd.DataFrame(plain | columns)


def limit(metric: str, operator: str, number: float, **more: Any) -> MetricLimit:
    return MetricLimit.model_validate(
        {"metric": metric, "operator": operator, "limit": number, "source": "why", **more}
    )


def said(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    return [(finding.gate, finding.case_id, finding.severity, finding.message) for finding in findings]


@pytest.mark.parametrize("value", [None, True, "3", math.nan, math.inf, [1.0]])
def test_what_is_no_finite_number_is_none(value: Any) -> None:
    assert metrics._number({"m": value}, "m") is None
    assert metrics._number({}, "m") is None
    assert metrics._number({"m": 3}, "m") == 3.0


def test_limits_are_missed_by_numbers_beyond_them_and_by_none() -> None:
    limits = [limit("m", "<=", 2.0), limit("m", ">=", 3.5), limit("n", ">=", 1.0, provisional=True)]
    found = metrics.judge_limits({"m": 3.0}, limits, "dose")
    assert said(found) == [
        ("metric_limit", "", "error", "dose: m is 3, wanted <= 2 (why)"),
        ("metric_limit", "", "error", "dose: m is 3, wanted >= 3.5 (why)"),
        ("metric_absent", "", "error", "dose: no number for n, wanted >= 1; evaluate again"),
    ]
    assert [finding.numbers for finding in found] == [
        {"metric": "m", "found": 3.0, "limit": 2.0}, {"metric": "m", "found": 3.0, "limit": 3.5}, {"metric": "n"},
    ]  # fmt: skip
    assert metrics._result({"m": 3.0}, limits[0]) == {
        "metric": "m", "found": 3.0, "wanted": "<= 2", "ok": False, "provisional": False, "source": "why",
    }  # fmt: skip
    assert metrics._result({"m": 1.0}, limits[0])["ok"] is True
    assert metrics._result({}, limits[2]) == {
        "metric": "n", "found": None, "wanted": ">= 1", "ok": False, "provisional": True, "source": "why",
    }  # fmt: skip


def test_a_summary_is_the_mean_of_its_table() -> None:
    rows = table(
        mae_body_gy=[1.0, 2.0],
        mae_x_gy=[math.nan] * 2,
        gamma_points_verified=[5, 6],
        dice_A=[0.5, math.nan],
        note=["x", "y"],
    )
    assert metrics._averaged(rows) == ["mae_body_gy", "mae_x_gy", "dice_A"]
    sound = {"n_cases": 2, "mae_body_gy": 1.5, "mae_x_gy": None, "dice_A": 0.5}
    assert metrics.judge_summary(sound, rows) == []
    for change, gate in (
        ({"mae_body_gy": 1.6}, "summary_stale"),
        ({"mae_x_gy": 1.0}, "summary_stale"),
        ({"dice_A": None}, "summary_stale"),
    ):
        (finding,) = metrics.judge_summary(sound | change, rows)
        assert (finding.gate, finding.numbers) == (gate, {"metric": next(iter(change))})
    assert said(metrics.judge_summary(sound | {"n_cases": 3}, rows)) == [
        ("summary_stale", "", "error", "the summary is of 3 cases, cases.csv has 2; evaluate again")
    ]


def test_cases_are_the_test_set_of_this_model_and_unseen() -> None:
    test = pd.DataFrame({"case_id": ["a", "b"], "sha256": ["1", "2"]})
    assert metrics.judge_cases(table(), test, {"t": "9"}, "c") == []
    assert said(metrics.judge_cases(table(), test.iloc[:0], {}, "c"))[0][:2] == ("test_set", "")
    other = pd.DataFrame({"case_id": ["b", "z"], "sha256": ["3", "4"]})
    assert said(metrics.judge_cases(table(), other, {}, "c")) == [
        ("test_set", "a", "error", "a: evaluated, but is no test case; predict and evaluate again"),
        ("test_set", "z", "error", "z: a test case, but was not evaluated; predict and evaluate again"),
        ("test_set", "b", "error", "b: changed since it was evaluated; predict and evaluate again"),
    ]
    seen = metrics.judge_cases(table(), test, {"x": "1", "b": "8"}, "c")
    assert [(f.gate, f.case_id) for f in seen] == [("tested_on_training", "a"), ("tested_on_training", "b")]
    assert "a: the model has seen it in training (as x)" in seen[0].message
    assert "b: the model has seen it in training (as b)" in seen[1].message
    stray = metrics.judge_cases(table(checkpoint_sha256=["d", "e"]), test, {}, "c")
    assert said(stray) == [
        ("checkpoint", "a", "error", "a, b: predicted with another checkpoint than the one judged; predict again")
    ]


def test_gamma_is_checked_against_its_reference_or_warned_of() -> None:
    limits = EvaluationLimits(gamma_max_difference=1e-6, source="x")
    rows = table(gamma_points_verified=[0, 5], gamma_largest_difference=[math.nan, 2e-6])
    assert [(f.gate, f.case_id, f.severity) for f in metrics.judge_gamma(rows, limits)] == [
        ("gamma_unverified", "a", "warning"), ("gamma_differs", "b", "error"),
    ]  # fmt: skip
    assert metrics.judge_gamma(table(gamma_points_verified=[1, 5], gamma_largest_difference=[0.0, 1e-6]), limits) == []


@pytest.mark.parametrize(
    ("error_gy", "gamma", "severities"),
    [
        ([0.9, 1.11], [50.0, 98.9], []), ([0.9, 1.1], [99.5, 99.0], ["warning", "warning"]),
        ([0.4, 0.6], [99.9, 99.95], ["error", "error"]), ([0.5, 0.52], [99.95, 99.8], ["warning", "warning"]),
        ([math.nan, math.nan], [math.nan, math.nan], ["error", "error"]),
    ],
)  # fmt: skip
def test_scores_too_good_to_be_true_are_told(error_gy: list[float], gamma: list[float], severities: list[str]) -> None:
    rows = table(mae_body_gy=error_gy, gamma_3_3_global_percent=gamma)
    found = training.judge_plausible(rows, LIMITS, "m")
    assert [finding.severity for finding in found] == severities
    assert [finding.numbers["metric"] for finding in found] == ["mae_body_gy", "gamma_3_3_global_percent"][: len(found)]
    nothing = LIMITS.model_copy(update={"least_mae_gy": None, "most_gamma_percent": None})
    assert training.judge_plausible(rows, nothing, "m") == []


@pytest.mark.parametrize(
    ("kwargs", "kind", "wanted"),
    [
        ({"column": "a", "min_value": 0, "max_value": 2}, "", "0 to 2"), ({"min_value": 0}, "", "at least 0"),
        ({"max_value": 0}, "", "at most 0"), ({"value_set": ["x", 3]}, "", "one of x, 3"),
        ({"column_A": "a", "column_B": "b", "or_equal": True}, "pair_values_a_to_be_greater_than_b", "a at least b"),
        ({"column_A": "a", "column_B": "b"}, "pair_values_to_be_equal", "column_A a, column_B b"),
        ({"column": "a"}, "expect_column_values_to_be_unique", "each value once"),
        ({"column": "a"}, "other", "a value"),
        ({"column": "a", "regex": "x", "mostly": 0.5}, "", "regex x, in 50 % of the cases"),
        ({"min_value": 1, "row_condition": "v > 5"}, "", "at least 1, in the cases with v > 5"),
    ],
)  # fmt: skip
def test_an_expectation_is_said_in_words(kwargs: dict[str, Any], kind: str, wanted: str) -> None:
    assert suites.describe_wanted(kwargs, kind) == wanted


def test_an_expectation_of_one_case_asks_for_its_values_alone() -> None:
    def of_one(kind: str, **kwargs: Any) -> bool:
        return suites.is_of_one_case({"type": kind, "kwargs": kwargs})

    assert of_one("expect_column_values_to_be_between", column="a")
    assert of_one("expect_column_values_to_be_between", column="a", mostly=1)
    assert not of_one("expect_column_values_to_be_between", column="a", mostly=0.9)
    assert not of_one("expect_column_values_to_be_unique", column="a")
    assert not of_one("expect_column_mean_to_be_between", column="a")


def test_a_verdict_has_its_errors_first_and_its_counts() -> None:
    findings = [
        Finding("b", "c2", "warning", "w"), Finding("b", "c1", "error", "z"), Finding("a", "c9", "error", "y"),
        Finding("b", "c1", "error", "x", {"n": 1}),
    ]  # fmt: skip
    made = verdict.make_verdict("data", "d" * 64, findings, {"k": 1})
    assert [(f.gate, f.case_id, f.message) for f in made.findings] == [
        ("a", "c9", "y"),
        ("b", "c1", "x"),
        ("b", "c1", "z"),
        ("b", "c2", "w"),
    ]
    assert (made.ok, len(made.errors)) == (False, 3)
    shown = verdict.verdict_as_json(made)
    assert {key: shown[key] for key in ("gate", "ok", "digest", "counts", "details")} == {
        "gate": "data", "ok": False, "digest": "d" * 64, "counts": {"error": 3, "warning": 1}, "details": {"k": 1},
    }  # fmt: skip
    assert shown["findings"][1] == {
        "gate": "b",
        "case_id": "c1",
        "severity": "error",
        "message": "x",
        "numbers": {"n": 1},
    }
    assert verdict.make_verdict("data", "d", findings[:1], {}).ok
    bare = verdict.without_explanations({"a": 1, "source": "x", "b": [{"notes": "y", "c": ({"source": 1},)}]})
    assert bare == {"a": 1, "b": [{"c": [{}]}]}
