"""DVH statistics: known answers, properties, and numpy as the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doseledger.core.errors import BadInput
from doseledger.dosimetry.dvh.grammar import Measure, Statistic, parse_statistic
from doseledger.dosimetry.dvh.statistics import dvh_statistics, structure_dose

RAMP = np.linspace(60.0, 80.0, 2001)


def dose_statistic(
    dose: np.ndarray, weights: np.ndarray | None, voxel_cc: float, statistic: Statistic, reference: float | None = None
) -> Measure:
    coverage = np.ones(len(dose), bool) if weights is None else weights
    return structure_dose(dose, coverage, voxel_cc).measure(statistic, reference)


def structure_statistic(
    dose: np.ndarray, mask: np.ndarray, voxel_cc: float, statistic: Statistic, prescription: float | None = None
) -> Measure:
    return dvh_statistics(dose, mask, voxel_cc, [statistic.name], prescription)[statistic.name]


def test_conformity_is_refused_without_the_dose_outside_the_structure() -> None:
    samples = structure_dose(np.ones(3), np.ones(3, bool), 1.0)
    with pytest.raises(BadInput, match="CI needs the dose outside the structure too"):
        samples.measure(parse_statistic("CI"), 70.0)


def of_ramp(name: str, prescription_gy: float | None = None) -> float:
    return dose_statistic(RAMP, None, 0.01, parse_statistic(name), prescription_gy).value


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("D95%", 61.0), ("D98%", 60.4), ("D50%", 70.0), ("D2%", 79.6), ("D100%", 60.0), ("D0%", 80.0),
        ("mean", 70.0), ("min", 60.0), ("max", 80.0), ("volume", 20.01), ("HI", 19.2 / 70.0),
        ("D2cc", 80.0 - 20.0 * 2.0 / 20.01), ("D0.03cc", 80.0 - 20.0 * 0.03 / 20.01),
    ],
)  # fmt: skip
def test_a_ramp_from_60_to_80_gy_has_known_statistics(name: str, wanted: float) -> None:
    assert of_ramp(name) == pytest.approx(wanted, abs=1e-9)


def test_volumes_of_a_ramp_are_its_share_above_the_level() -> None:
    assert of_ramp("V70Gy") == pytest.approx(100 * 1001 / 2001)
    assert of_ramp("V70Gy[cc]") == pytest.approx(1001 * 0.01)
    assert of_ramp("V100%", 70.0) == of_ramp("V70Gy")
    assert of_ramp("V80.01Gy") == 0.0
    assert of_ramp("V0Gy") == 100.0


def test_a_dose_in_percent_is_relative_to_the_prescription() -> None:
    statistic = parse_statistic("D95%").in_unit("%")
    assert dose_statistic(RAMP, None, 0.01, statistic, 61.0).value == pytest.approx(100.0)


@pytest.mark.parametrize("text", ["D95", "V70", "d95%", "D101%", "D0cc", "V-3Gy", "D95 %", "Dfoo", "", "D5Gy", "D٩٥%"])
def test_the_parser_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(BadInput, match="statistic"):
        parse_statistic(text)


def test_a_name_without_unit_is_refused_with_the_two_it_could_mean() -> None:
    with pytest.raises(BadInput, match="lacks a unit: V70% or V70Gy"):
        parse_statistic("V70")


def test_a_statistic_in_a_unit_that_it_cannot_have_is_refused() -> None:
    with pytest.raises(BadInput, match="D95% can't be had in 'cc'; it is in Gy or %"):
        parse_statistic("D95%").in_unit("cc")


@pytest.mark.parametrize("name", ["V95%", "CI", "R50"])
def test_what_is_relative_to_a_prescription_is_refused_without_one(name: str) -> None:
    mask = np.ones((2, 2, 2), bool)
    with pytest.raises(BadInput, match="relative to a prescription, found None"):
        structure_statistic(np.ones((2, 2, 2)), mask, 0.01, parse_statistic(name))


def test_an_absent_structure_has_no_value_and_a_reason() -> None:
    samples = structure_dose(np.ones((3, 3, 3)), np.zeros((3, 3, 3), bool), 0.027)
    found = samples.measure(parse_statistic("D95%"))
    assert math.isnan(found.value)
    assert "absent or smaller than a voxel" in found.reason
    assert samples.measure(parse_statistic("volume")).value == 0.0


def test_d2cc_of_a_structure_of_one_cc_has_no_value_and_a_reason() -> None:
    found = dose_statistic(np.full(100, 5.0), None, 0.01, parse_statistic("D2cc"))
    assert math.isnan(found.value)
    assert found.reason == "the structure has 1 cc, less than 2"


def test_a_structure_of_one_voxel_has_that_voxels_dose() -> None:
    for name in ("D95%", "D2%", "mean", "min", "max", "D0.003cc"):
        assert dose_statistic(np.array([42.0]), None, 0.01, parse_statistic(name)).value == 42.0


def test_a_dose_that_is_not_finite_is_refused() -> None:
    with pytest.raises(BadInput, match="not finite in 1 voxels"):
        structure_dose(np.array([1.0, np.nan]), np.array([True, True]), 1.0)


def test_a_mask_on_another_grid_is_refused() -> None:
    with pytest.raises(BadInput, match="not on one grid"):
        structure_dose(np.ones((2, 2, 2)), np.ones((2, 2, 3), bool), 1.0)


doses = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=60).map(np.array)


@settings(deadline=None, max_examples=60)
@given(doses, st.sampled_from([1.0, 2.0, 5.0, 50.0, 95.0, 98.0, 99.0]))
def test_dose_at_a_percent_is_numpys_percentile(dose: np.ndarray, percent: float) -> None:
    found = dose_statistic(dose, None, 1.0, parse_statistic(f"D{percent:g}%")).value
    assert found == pytest.approx(np.percentile(dose, 100 - percent), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(doses)
def test_doubling_the_dose_doubles_every_dose_statistic(dose: np.ndarray) -> None:
    for name in ("D95%", "D2%", "mean", "min", "max"):
        statistic = parse_statistic(name)
        single, double = (dose_statistic(d, None, 1.0, statistic).value for d in (dose, 2 * dose))
        assert double == pytest.approx(2 * single)


@settings(deadline=None, max_examples=60)
@given(doses)
def test_equal_weights_are_whole_voxels_of_a_smaller_size(dose: np.ndarray) -> None:
    for name in ("D95%", "D2%", "mean", "V50Gy", "volume"):
        statistic = parse_statistic(name)
        whole = dose_statistic(dose, None, 0.5, statistic).value
        half = dose_statistic(dose, np.full(len(dose), 0.5), 1.0, statistic).value
        assert half == pytest.approx(whole, abs=1e-9)


def test_a_voxel_covered_to_a_tenth_weighs_a_tenth() -> None:
    dose, weights = np.array([10.0, 20.0, 99.0]), np.array([1.0, 0.1, 0.0])
    assert dose_statistic(dose, weights, 1.0, parse_statistic("mean")).value == pytest.approx(12.0 / 1.1)
    assert dose_statistic(dose, weights, 1.0, parse_statistic("V15Gy[cc]")).value == pytest.approx(0.1)
    assert dose_statistic(dose, weights, 1.0, parse_statistic("max")).value == 20.0


def test_conformity_is_one_when_the_isodose_is_the_target_and_half_of_half() -> None:
    target = np.zeros((10, 10, 10), bool)
    target[:4] = True
    plan = np.where(target, 70.0, 36.0)
    ci, r50 = parse_statistic("CI"), parse_statistic("R50")
    assert structure_statistic(plan, target, 1.0, ci, 70.0).value == 1.0
    assert structure_statistic(plan, target, 1.0, r50, 70.0).value == pytest.approx(2.5)
    half = plan.copy()
    half[:2] = 60.0
    half[6:8] = 70.0
    assert structure_statistic(half, target, 1.0, ci, 70.0).value == pytest.approx(0.25)
    nothing = structure_statistic(np.zeros_like(plan), target, 1.0, ci, 70.0)
    assert math.isnan(nothing.value)
    assert nothing.reason == "no voxel has the prescription of 70 Gy"
