"""Calibration: known spreads give known coverage, a factor mends a spread that is off, and little else does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from doseledger.core.errors import BadInput
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

N_VOXELS = 4000
EVEN = Factors(*(dict.fromkeys(CURVE_LEVELS, 1.0),) * 2)


def drawn_case(seed: int, *, said: float = 1.0, n_samples: int = 8, n_structures: int = 4) -> CaseSpread:
    """A case whose plan is one more draw from the model's distribution, which says `said` times its true width."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(10, 60, N_VOXELS)
    width = rng.uniform(0.5, 6.0, N_VOXELS)
    plan = centre + width * rng.standard_normal(N_VOXELS)
    samples = centre + said * width * rng.standard_normal((n_samples, N_VOXELS))
    parts = np.arange(N_VOXELS) % max(n_structures, 1)
    masks = {f"S{i}": parts == i for i in range(n_structures)} | {"Absent": np.zeros(N_VOXELS, dtype=bool)}
    return describe_spread(f"case_{seed}", plan.astype(np.float32), samples.astype(np.float32), masks)


@pytest.mark.parametrize("n_samples", [4, 8, 30])
@pytest.mark.parametrize("level", LEVELS)
def test_intervals_of_a_true_spread_hold_what_they_say_however_few_the_samples(n_samples: int, level: float) -> None:
    found = [voxel_coverage(drawn_case(seed, n_samples=n_samples), level, 1.0) for seed in range(3)]
    assert np.mean(found) == pytest.approx(level, abs=0.012)


def test_the_half_width_is_that_of_a_prediction_interval() -> None:
    # Student's t of 7 degrees of freedom at 97.5 % is 2.3646 in every table.
    assert half_width(0.95, 8) == pytest.approx(2.3646 * math.sqrt(9 / 8), abs=1e-3)
    assert half_width(0.95, 10_000) == pytest.approx(stats.norm.ppf(0.975), abs=1e-3)


def test_a_wider_interval_holds_more() -> None:
    case = drawn_case(1)
    shares = [voxel_coverage(case, 0.8, factor) for factor in (0.5, 1.0, 2.0)]
    assert shares == sorted(shares)
    levels = [voxel_coverage(case, level, 1.0) for level in LEVELS]
    assert levels == sorted(levels)


@pytest.mark.parametrize("said", [0.5, 1.0, 1.6])
def test_a_factor_fitted_on_other_cases_mends_a_spread_that_is_off(said: float) -> None:
    factors = fit_factors([drawn_case(seed, said=said) for seed in range(20, 119)])
    # The mean of 8 drawn doses is itself as unsure as they are wide.
    wanted = math.sqrt((1 + said**2 / 8) / (1 + 1 / 8)) / said
    for level in LEVELS:
        assert factors.voxels[level] == pytest.approx(wanted, rel=0.08)
    test = [drawn_case(seed, said=said) for seed in range(10, 14)]
    summary = summarise_calibration(test, factors, np.random.default_rng(0))
    for level in LEVELS:
        mended = summary[f"coverage_{100 * level:.0f}_voxels_stretched_percent"]
        assert mended == pytest.approx(100 * level, abs=2.0)
    if said == 0.5:
        assert summary["coverage_95_voxels_percent"] < 80
    assert summary["coverage_80_voxels_percent_low"] <= summary["coverage_80_voxels_percent"]
    assert summary["coverage_80_voxels_percent_high"] >= summary["coverage_80_voxels_percent"]


def test_the_expected_error_is_the_found_one_where_the_spread_is_true() -> None:
    cases = [drawn_case(seed, n_samples=5) for seed in range(6)]
    found, expected = np.mean([c.mae_gy for c in cases]), np.mean([c.expected_mae_gy for c in cases])
    assert expected == pytest.approx(found, rel=0.02)
    narrow = drawn_case(1, said=0.5)
    assert narrow.expected_mae_gy < 0.7 * narrow.mae_gy


def test_ranks_are_level_where_the_spread_is_true_and_pile_up_at_the_ends_where_it_is_narrow() -> None:
    level = rank_shares([drawn_case(seed) for seed in range(4)])
    assert sum(level) == pytest.approx(1.0)
    assert max(level) - min(level) < 0.03
    narrow = rank_shares([drawn_case(seed, said=0.4) for seed in range(4)])
    assert narrow[0] > 2 * narrow[4] < narrow[8]


def test_spread_against_error_lies_on_the_diagonal_where_the_spread_is_true() -> None:
    rows = spread_against_error([drawn_case(seed, n_samples=30) for seed in range(4)])
    assert sum(row["voxels"] for row in rows) == 4 * N_VOXELS
    for row in (row for row in rows if row["voxels"] > 500):
        assert row["error_gy"] == pytest.approx(row["spread_gy"], rel=0.12)


def test_curves_rise_and_keep_their_levels() -> None:
    rows = calibration_curves([drawn_case(seed) for seed in range(3)], EVEN)
    for name in ("voxels", "structures", "voxels_stretched"):
        values = [row[name] for row in rows]
        assert values == sorted(values)
    assert all(row["voxels"] == pytest.approx(row["level"], abs=0.03) for row in rows)


def test_structures_are_judged_by_their_mean_dose_and_absent_ones_not_at_all() -> None:
    case = drawn_case(1)
    assert set(case.structures) == {"S0", "S1", "S2", "S3"}
    shares = [structure_coverage(drawn_case(seed), 0.8, 1.0) for seed in range(60)]
    assert np.mean(shares) == pytest.approx(0.8, abs=0.07)
    assert math.isnan(structure_coverage(drawn_case(1, n_structures=0), 0.8, 1.0))


def with_long_tails(seed: int, *, n_structures: int = 40) -> CaseSpread:
    """A case whose drawn doses know nothing of a patient's own planner: he errs by up to four times as much."""
    case = drawn_case(seed, n_structures=n_structures)
    times = np.exp(np.random.default_rng([seed, 1]).normal(0.0, 0.7))
    structures = {name: times * ratio for name, ratio in case.structures.items()}
    return replace(case, ratios=times * case.ratios, structures=structures)


def test_errors_with_long_tails_are_held_at_every_level_of_other_cases() -> None:
    fitted, judged = ([with_long_tails(seed) for seed in range(first, first + 60)] for first in (0, 100))
    factors = fit_factors(fitted)
    # The tails: one factor for all levels would be too wide at 50 % or too narrow at 95 %.
    assert factors.voxels[0.95] > 1.3 * factors.voxels[0.5]
    summary = summarise_calibration(judged, factors, np.random.default_rng(0))
    for level in LEVELS:
        for what in ("voxels", "structures"):
            found = summary[f"coverage_{100 * level:.0f}_{what}_stretched_percent"]
            assert found == pytest.approx(100 * level, abs=6.0), (level, what)
    for row in calibration_curves(fitted, factors):
        # Of 60 fitted on, what the level says of 61.
        assert math.isnan(row["structures_stretched"]) is (row["level"] == 0.99)
        if row["level"] < 0.99:
            assert row["structures_stretched"] == pytest.approx(row["level"] * 61 / 60, abs=0.002)


def test_intervals_hold_a_patient_to_come_as_often_as_they_say_however_few_they_are_fitted_on() -> None:
    # 20 patients with 8 structures who err together: without the one to come, 95 % would hold 90 in the mean.
    rng = np.random.default_rng(3)
    blank = drawn_case(1)
    held = {level: [] for level in LEVELS}
    for _ in range(400):
        wide = np.exp(rng.normal(0.0, 0.7, 21))[:, None] * np.abs(rng.standard_normal((21, 8)))
        cases = [replace(blank, structures={f"S{i}": float(one) for i, one in enumerate(row)}) for row in wide]
        factors = fit_factors(cases[:20])
        for level in LEVELS:
            held[level].append(structure_coverage(cases[20], level, factors.structures[level]))
    for level in LEVELS:
        assert level - 0.02 <= np.mean(held[level]) <= level + 1 / 21 + 0.02


def test_each_case_counts_the_same_however_many_structures_it_has() -> None:
    # Nine structures of one case say 1, one of the other 3: a third of the weight lies at each, one on whom is to come.
    cases = [
        replace(drawn_case(1), structures={f"S{i}": 1.0 for i in range(9)}),
        replace(drawn_case(2), structures={"S0": 3.0}),
    ]
    factors = fit_factors(cases)
    assert factors.structures[0.3] * half_width(0.3, 8) == pytest.approx(1.0)
    assert factors.structures[0.6] * half_width(0.6, 8) == pytest.approx(3.0)
    assert math.isnan(factors.structures[0.7])


def test_without_structures_to_fit_a_factor_on_there_is_none_and_nothing_is_stretched_by_it() -> None:
    factors = fit_factors([drawn_case(seed, n_structures=0) for seed in range(3)])
    assert factors.voxels[0.6] == pytest.approx(1.6, abs=0.1)
    assert all(math.isnan(factor) for factor in factors.structures.values())
    summary = summarise_calibration([drawn_case(seed) for seed in range(3)], factors, np.random.default_rng(0))
    for name in ("coverage_80_structures_stretched_percent", "coverage_80_voxels_stretched_percent"):
        assert math.isnan(summary[name])
    assert 0.0 < summary["coverage_80_structures_percent"] <= 100.0


def test_voxels_whose_drawn_doses_all_agree_with_the_plan_are_covered_and_others_are_not() -> None:
    plan = np.array([0.0, 0.0, 5.0], dtype=np.float32)
    samples = np.zeros((4, 3), dtype=np.float32)
    case = describe_spread("case_0001", plan, samples, {})
    assert voxel_coverage(case, 0.95, 1.0) == pytest.approx(2 / 3)
    # Ties count half: in the middle of the ranks.
    assert case.ranks.tolist() == [0, 0, 2, 0, 1]


def test_drawn_doses_that_do_not_fit_are_refused() -> None:
    plan = np.zeros(3, dtype=np.float32)
    with pytest.raises(BadInput, match=r"case_0001: drawn doses \(1, 3\) for \(3,\) voxels"):
        describe_spread("case_0001", plan, np.zeros((1, 3), dtype=np.float32), {})
    with pytest.raises(BadInput, match="the same voxels"):
        describe_spread("case_0001", plan, np.zeros((4, 2), dtype=np.float32), {})
