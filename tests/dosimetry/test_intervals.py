"""Intervals: known answers, coverage, and what a handful of patients can't tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from doseledger.core.errors import BadInput
from doseledger.dosimetry.intervals import bootstrap_interval, holm, paired_test, wilson_interval


def test_the_bootstrap_of_many_values_is_the_normal_interval() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(2.0, 0.5, 400)
    low, high = bootstrap_interval(values, rng)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(0.0, 1.0, 30), rng)
        hits += low <= 0.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_missing_values_do_not_count() -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0, 3.0])
    first = bootstrap_interval(values, np.random.default_rng(1))
    assert first == bootstrap_interval(values[~np.isnan(values)], np.random.default_rng(1))


def test_two_patients_have_no_interval() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([1.0, 2.0, np.nan]), np.random.default_rng(1)))


@pytest.mark.parametrize(("n_yes", "n"), [(0, 10), (5, 10), (10, 10), (1, 3)])
def test_the_wilson_interval_is_scipys(n_yes: int, n: int) -> None:
    wanted = stats.binomtest(n_yes, n).proportion_ci(method="wilson")
    assert wilson_interval(n_yes, n) == pytest.approx((100 * wanted.low, 100 * wanted.high), abs=1e-9)


def test_no_cases_have_no_rate() -> None:
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


def test_a_model_that_is_always_better_has_effect_minus_one_and_wilcoxons_p() -> None:
    first = np.array([3.0, 2.5, 4.0, 3.3, 2.9, 3.8])
    second = first - np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    found = paired_test(first, second)
    assert found.effect_size == pytest.approx(-1.0)
    assert found.median_difference == pytest.approx(-0.35)
    assert found.p_value == pytest.approx(2 / 2**6)
    assert paired_test(second, first).effect_size == pytest.approx(1.0)


def test_a_model_against_itself_does_not_differ() -> None:
    found = paired_test(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert (found.n, found.median_difference, found.effect_size) == (2, 0.0, 0.0)
    assert math.isnan(found.p_value)


def test_values_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(BadInput, match="are no pairs"):
        paired_test(np.array([1.0, 2.0]), np.array([1.0]))


def test_several_tests_at_once_are_corrected_by_holms_steps() -> None:
    # Known answer of Holm's step-down procedure, worked by hand.
    assert holm([0.01, float("nan"), 0.02, 0.04]) == pytest.approx([0.03, float("nan"), 0.04, 0.04], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
