"""Calibration of drawn doses on three voxels and a few cases, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from doseledger.dosimetry.intervals import bootstrap_interval, paired_test, wilson_interval
from doseledger.dosimetry.spread import (
    CURVE_LEVELS,
    LEVELS,
    CaseSpread,
    Factors,
    calibration_curves,
    describe_spread,
    fit_factors,
    half_width,
    rank_shares,
    spread_against_error,
    structure_coverage,
    summarise_calibration,
    voxel_coverage,
)


def case(**given: Any) -> CaseSpread:
    fields = {
        "case_id": "case_1", "n_samples": 8, "ratios": np.array([0.5, 1.5, 3.0]), "structures": {"A": 1.0, "B": 2.0},
        "ranks": np.ones(9), "classes": np.zeros((11, 3)), "mae_gy": 1.0, "expected_mae_gy": 1.0,
    }  # fmt: skip
    return CaseSpread(**(fields | given))


def everywhere(voxels: float, structures: float) -> Factors:
    """One factor for voxels and one for structures, at each level."""
    return Factors(dict.fromkeys(CURVE_LEVELS, voxels), dict.fromkeys(CURVE_LEVELS, structures))


def width(level: float, n: int) -> float:
    return float(stats.t(n - 1).ppf((1 + level) / 2)) * math.sqrt((n + 1) / n)


def test_what_three_drawn_doses_say_of_three_voxels() -> None:
    plan = np.array([1.0, 5.0, 9.0])
    draws = np.array([[0.0, 5.0, 8.0], [2.0, 5.0, 12.0], [4.0, 5.0, 10.0]])
    found = describe_spread("case_7", plan, draws, {"A": np.array([True, False, True]), "none": np.zeros(3, bool)})
    assert (found.case_id, found.n_samples) == ("case_7", 3)
    # Means 2, 5, 10; standard deviations 2, 0, 2: |plan - mean| / sd, where 0 counts as 0.05.
    assert found.ratios.tolist() == [0.0, 0.5, 0.5]
    # Of A the draws' means are 4, 7, 7 and the plan's 5.
    assert found.structures == {"A": pytest.approx(1.0 / math.sqrt(3.0))}
    # One draw below 1, three equal to 5 (half of them), one below 9.
    assert found.ranks.tolist() == [0, 3, 0, 0]
    wanted = np.zeros((11, 3))
    wanted[0], wanted[5] = (1, 0, 0), (2, 8, 2)
    assert found.classes.tolist() == wanted.tolist()
    assert found.mae_gy == pytest.approx(2 / 3)
    # Draws are 8/9 Gy from their mean on average; of one more draw it would be 3/2 of that, times the root of 8/9.
    assert found.expected_mae_gy == pytest.approx(8 / 9 * 1.5 * math.sqrt((4 / 3) / (3 / 2)))


@pytest.mark.parametrize("spread_gy", [0.2, 0.25, 0.6, 1.0, 2.5, 11.9, 12.0, 40.0])
def test_a_voxel_is_in_the_class_whose_end_lies_above_its_spread(spread_gy: float) -> None:
    draws = np.array([[10.0 - spread_gy], [10.0], [10.0 + spread_gy]])
    found = describe_spread("case_1", np.array([10.0]), draws, {})
    ends = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0]
    assert np.flatnonzero(found.classes[:, 0]).tolist() == [sum(end <= spread_gy for end in ends)]


@pytest.mark.parametrize(("level", "n"), [(0.5, 2), (0.8, 5), (0.95, 8)])
def test_an_interval_reaches_as_far_as_students_t_and_its_end_is_covered(level: float, n: int) -> None:
    reach = half_width(level, n)
    assert reach == pytest.approx(width(level, n))
    at = case(
        n_samples=n, ratios=np.array([reach, 1.001 * reach]), structures={"A": reach, "B": 1.001 * reach, "C": 0.0}
    )
    assert (voxel_coverage(at, level, 1.0), structure_coverage(at, level, 1.0)) == (0.5, pytest.approx(2 / 3))
    assert (voxel_coverage(at, level, 1.01), structure_coverage(at, level, 1.01)) == (1.0, 1.0)
    assert math.isnan(structure_coverage(at, level, math.nan))


def test_curves_hold_the_share_of_each_level_plain_and_stretched() -> None:
    cases = [case(), case(ratios=np.array([0.1, 0.2]), structures={}, n_samples=4)]
    rows = calibration_curves(cases, everywhere(2.0, 0.5))
    assert [row["level"] for row in rows] == list(CURVE_LEVELS)
    for row in rows:
        near, far = width(row["level"], 8), width(row["level"], 4)
        shares = {}
        for name, factor in (("voxels", 1.0), ("voxels_stretched", 2.0)):
            first = sum(ratio <= factor * near for ratio in (0.5, 1.5, 3.0)) / 3
            shares[name] = (first + sum(ratio <= factor * far for ratio in (0.1, 0.2)) / 2) / 2
        for name, factor in (("structures", 1.0), ("structures_stretched", 0.5)):
            shares[name] = sum(ratio <= factor * near for ratio in (1.0, 2.0)) / 2
        assert row == {"level": row["level"], **shares}


def test_classes_of_spread_are_added_over_cases_and_empty_ones_left_out() -> None:
    one, other = np.zeros((11, 3)), np.zeros((11, 3))
    one[2], other[2], other[5] = (4, 16, 36), (1, 4, 9), (2, 8, 50)
    assert spread_against_error([case(classes=one), case(classes=other)]) == [
        {"voxels": 5.0, "spread_gy": 2.0, "error_gy": 3.0},
        {"voxels": 2.0, "spread_gy": 2.0, "error_gy": 5.0},
    ]


def test_each_case_counts_the_same_in_the_shares_of_ranks() -> None:
    found = rank_shares([case(ranks=np.array([1.0, 1.0, 2.0])), case(ranks=np.array([8.0, 0.0, 0.0]))])
    assert found == [0.625, 0.125, 0.25]


def test_the_factor_of_a_level_is_the_quantile_over_what_its_interval_reaches() -> None:
    # 1,000 voxels in each of 199 patients, of which each level holds just its share once intervals are 3 times as wide.
    shares = (np.arange(1000) + 0.5) / 1000
    one = case(ratios=3.0 * np.array([width(share, 8) for share in shares]), structures={"A": 2.0, "B": 6.0})
    found = fit_factors([one] * 199)
    assert list(found.voxels) == list(found.structures) == list(CURVE_LEVELS)
    assert [*found.voxels.values()] == pytest.approx([3.0] * 11 + [3.5], rel=0.06)
    # Half of the weight at 2, half at 6, and the 200th, the patient to come, beyond: 2 holds 49.75 %.
    quantile = {level: 2.0 if level < 0.4975 else 6.0 for level in CURVE_LEVELS}
    assert found.structures == pytest.approx({level: quantile[level] / width(level, 8) for level in CURVE_LEVELS})


def test_each_case_has_one_weight_in_the_factors_and_so_has_the_one_to_come() -> None:
    # Weights 1/3, 1/6 twice, and 1/3 of whom nothing is known; a case without structures has none.
    found = fit_factors([case(structures={"A": 1.0}), case(structures={"A": 3.0, "B": 4.0}), case(structures={})])
    reached = {0.05: 1.0, 0.1: 1.0, 0.2: 1.0, 0.3: 1.0, 0.4: 3.0, 0.5: 3.0, 0.6: 4.0}
    for level in CURVE_LEVELS:
        wanted = reached[level] / width(level, 8) if level in reached else math.nan
        assert found.structures[level] == pytest.approx(wanted, nan_ok=True), level
    nothing = fit_factors([case(structures={})])
    assert all(math.isnan(factor) for factor in nothing.structures.values())


@pytest.mark.parametrize(("n_cases", "levels"), [
    (1, ()), (2, (0.5,)), (4, (0.5,)), (5, (0.5, 0.8)), (19, (0.5, 0.8)), (20, (0.5, 0.8, 0.95)),
])  # fmt: skip
def test_a_level_takes_so_many_cases_that_it_need_not_hold_them_all(n_cases: int, levels: tuple[float, ...]) -> None:
    found = fit_factors([case(ratios=np.array([float(i), i + 0.5])) for i in range(n_cases)])
    assert {level for level in LEVELS if not math.isnan(found.voxels[level])} == set(levels)
    for level in levels:
        # Of so many voxels in their order, and two that are to come, the one that the level reaches.
        wanted = math.ceil(level * 2 * (n_cases + 1) - 1e-9)
        assert found.voxels[level] == pytest.approx((wanted - 1) / 2 / width(level, 8))


def test_the_summary_of_three_cases_is_written_out() -> None:
    cases = [
        case(mae_gy=1.0, expected_mae_gy=2.0), case(mae_gy=2.0, expected_mae_gy=4.0, structures={}),
        case(mae_gy=3.0, expected_mae_gy=3.0, ratios=np.array([0.1, 0.2, 9.0]), structures={"A": 9.0}),
    ]  # fmt: skip
    found = summarise_calibration(cases, everywhere(0.5, 4.0), np.random.default_rng(5))
    rng, wanted = np.random.default_rng(5), {"n_cases": 3.0, "n_samples": 8.0}
    for what, coverage, factor in (("voxels", voxel_coverage, 0.5), ("structures", structure_coverage, 4.0)):
        for level in LEVELS:
            for ending, stretch in (("", 1.0), ("_stretched", factor)):
                shares = np.array([100.0 * coverage(one, level, stretch) for one in cases])
                name = f"coverage_{level * 100:.0f}_{what}{ending}_percent"
                low, high = bootstrap_interval(shares, rng)
                wanted |= {name: np.nanmean(shares), f"{name}_low": low, f"{name}_high": high}
            wanted[f"factor_{level * 100:.0f}_{what}"] = factor
    wanted |= {"mae_gy": 2.0, "expected_mae_gy": 3.0, "mae_correlation": 0.5}
    assert list(found) == list(wanted)
    assert found == pytest.approx(wanted, nan_ok=True)
    assert math.isnan(summarise_calibration(cases[:2], everywhere(1.0, 1.0), rng)["mae_correlation"])


# --- intervals over patients --------------------------------------------------------------------------------------


def test_the_bootstrap_is_as_wide_as_the_standard_error_says_and_knows_no_nan() -> None:
    values = np.random.default_rng(2).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(np.append(values, np.nan), np.random.default_rng(1))
    error = values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)
    draws = values[np.random.default_rng(3).integers(0, 400, size=(2000, 400))].mean(axis=1)
    assert bootstrap_interval(values, np.random.default_rng(3)) == pytest.approx(
        tuple(np.percentile(draws, [2.5, 97.5]))
    )


@pytest.mark.parametrize(
    ("n_yes", "n", "wanted"),
    [
        (8, 10, (49.02, 94.33)),
        (0, 5, (0.0, 43.45)),
        (5, 5, (56.55, 100.0)),
        (1, 1, (20.65, 100.0)),
        (37, 50, (60.45, 84.13)),
    ],
)
def test_wilsons_interval_of_a_rate_is_that_of_the_tables(n_yes: int, n: int, wanted: tuple[float, float]) -> None:
    assert wilson_interval(n_yes, n) == pytest.approx(wanted, abs=0.005)


def test_a_paired_test_leaves_out_missing_pairs_and_ranks_what_moved() -> None:
    first = np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan, 1.0])
    second = np.array([2.0, 4.0, 3.0, 7.0, 4.0, 9.0, np.nan])
    found = paired_test(first, second)
    # Differences 1, 2, 0, 3, -1; ranks of those that moved 1.5, 3, 4 and 1.5.
    assert (found.n, found.median_difference, found.effect_size) == (5, 1.0, pytest.approx(0.7))
    assert found.p_value == pytest.approx(stats.wilcoxon([1.0, 2.0, 3.0, -1.0]).pvalue)
    same = paired_test(first[:3], first[:3])
    assert (same.n, same.median_difference, same.effect_size) == (3, 0.0, 0.0)
    assert math.isnan(same.p_value)
    nobody = paired_test(np.array([np.nan]), np.array([1.0]))
    assert (nobody.n, math.isnan(nobody.median_difference)) == (0, True)
