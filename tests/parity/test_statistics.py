"""Statistics of arrays and their differences: numpy is the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doseledger.core.errors import BadInput
from doseledger.parity.differences import compare_values, nearest_phase, shifts
from doseledger.parity.statistics import PERCENTS, describe, grouped, normalised, parts_of, pooled

TYPES = ["bool", "uint8", "int8", "int16", "uint16", "float16", "int32", "float32", "float64", ">f2", ">i2"]


def test_known_statistics_of_a_ramp() -> None:
    found = describe(np.arange(101.0))
    assert (found.least, found.largest, found.mean, found.n_zero) == (0.0, 100.0, 50.0, 1)
    assert found.std == pytest.approx(math.sqrt((101**2 - 1) / 12))
    assert (found.percentiles["p1"], found.percentiles["p50"], found.percentiles["p99.9"]) == pytest.approx(
        (1, 50, 99.9)
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", [7, 70_000])
def test_statistics_are_numpys_for_every_type_counted_or_sorted(dtype: str, n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.integers(0, 2, n) if dtype == "bool" else rng.normal(3, 40, n).clip(-120, 120)
    values = np.abs(values).astype(dtype) if dtype.startswith("u") else values.astype(dtype)
    found, wide = describe(values.reshape(7, -1)), values.astype(np.float64)
    assert found.n == n
    assert found.n_zero == int((values == 0).sum())
    for key, wanted in (
        ("least", wide.min()), ("largest", wide.max()), ("mean", wide.mean()), ("std", wide.std()),
        ("rms", math.sqrt((wide**2).mean())),
    ):  # fmt: skip
        assert getattr(found, key) == pytest.approx(wanted, rel=1e-9), key
    assert list(found.percentiles.values()) == pytest.approx(np.percentile(wide, PERCENTS).tolist(), rel=1e-12)


@pytest.mark.parametrize("n", [10, 70_000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_values_that_are_not_finite_are_counted_and_left_out(n: int, dtype: type) -> None:
    values = np.ones(n, dtype)
    values[:5] = [np.nan, np.inf, -np.inf, 0.0, -0.0]
    found = describe(values)
    assert (found.n, found.n_nan, found.n_infinite, found.n_zero) == (n, 1, 2, 2)
    assert found.mean == pytest.approx((n - 5) / (n - 3))
    nothing = describe(np.full(3, np.nan))
    assert (nothing.n, nothing.n_nan) == (3, 3)
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.percentiles["p50"])


def test_text_has_no_statistics() -> None:
    with pytest.raises(BadInput, match="statistics of <U1"):
        describe(np.asarray(["a"]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), by=st.sampled_from(["largest", "rms", "standard", "constant"]))
def test_normalised_statistics_are_those_of_the_normalised_values(seed: int, by: str) -> None:
    values = np.random.default_rng(seed).normal(-2, 5, 200)
    divisor = 7.5 if by == "constant" else None
    by_hand = {
        "largest": values / np.abs(values).max(),
        "rms": values / np.sqrt((values**2).mean()),
        "standard": (values - values.mean()) / values.std(),
        "constant": values / 7.5,
    }[by]
    ours, theirs = normalised(describe(values), by, divisor).as_dict(), describe(by_hand).as_dict()  # type: ignore[arg-type]
    ours.pop("n_zero"), theirs.pop("n_zero")
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)


def test_pooled_statistics_are_those_of_all_values_together() -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(m, s, n) for m, s, n in ((1, 2, 100), (-5, 0.5, 37), (0, 9, 400))]
    arrays[0][:3] = np.nan
    ours, theirs = pooled([describe(item) for item in arrays]), describe(np.concatenate(arrays))
    for key in ("n", "n_nan", "n_zero", "least", "largest", "mean", "std", "rms"):
        assert getattr(ours, key) == pytest.approx(getattr(theirs, key), rel=1e-12), key


def test_complex_arrays_are_described_by_magnitude_and_phase() -> None:
    parts = parts_of(np.asarray([3 + 4j, -1j]))
    assert parts["magnitude"].tolist() == [5.0, 1.0]
    assert parts["phase"].tolist() == pytest.approx([math.atan2(4, 3), -math.pi / 2])
    assert list(parts_of(np.ones(2))) == ["value"]


def test_phases_on_both_sides_of_the_cut_are_near() -> None:
    reference, phase = np.asarray([math.pi - 0.01, 0.5]), np.asarray([-math.pi + 0.01, 0.4])
    near = nearest_phase(reference, phase)
    assert (near - reference).tolist() == pytest.approx([0.02, -0.1])


def compared(one: np.ndarray, other: np.ndarray) -> object:
    return compare_values(one, other, (describe(one), describe(other)))


def test_a_difference_has_a_known_size() -> None:
    one = np.asarray([0.0, 2.0, 4.0, np.nan])
    other = np.asarray([0.0, 2.0, 7.0, np.nan])
    found = compared(one, other)
    assert found.equal is False
    assert found.largest_difference == 3.0
    assert found.mean_difference == 1.0
    assert found.rms_difference == pytest.approx(math.sqrt(3))
    assert found.mean_shift_percent == pytest.approx(1.0 / np.std([0, 2, 4]) * 100)
    assert found.n_one_sided == 0
    assert compared(one, one).equal is True
    assert compared(one, np.asarray([0.0, 2.0, 4.0, 1.0])).n_one_sided == 1


def test_unsigned_values_do_not_wrap_round() -> None:
    assert compared(np.asarray([0, 250], np.uint8), np.asarray([255, 0], np.uint8)).largest_difference == 255.0


def test_arrays_of_other_shapes_are_not_compared() -> None:
    with pytest.raises(BadInput, match=r"shape \(3,\) and \(4,\)"):
        compared(np.zeros(3), np.zeros(4))


def test_a_shift_of_an_array_that_does_not_vary_is_in_percent_of_its_mean() -> None:
    assert shifts(describe(np.full(9, 4.0)), describe(np.full(9, 5.0)))["mean_shift_percent"] == pytest.approx(25.0)
    assert math.isnan(shifts(describe(np.zeros(9)), describe(np.ones(9)))["mean_shift_percent"])


def test_groups_are_described_apart() -> None:
    values = np.asarray([1.0, 1.0, 5.0, 5.0])
    found = grouped(values, iter([("low", np.asarray([True, True, False, False])), ("high", slice(2, None))]))
    assert {name: item.mean for name, item in found.items()} == {"low": 1.0, "high": 5.0}
