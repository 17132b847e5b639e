"""Statistics of a structure that the dose grid reaches in part: its own volume, and a reason for the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.statistics import StructureDose, reached_dose
from doseledger.dosimetry.dvh.subvoxel import SampledDose

WHOLE = (np.full(100, 70.0), 0.5)


def sampled(outside_percent: float) -> SampledDose:
    """10 cc in all, from 60 to 80 Gy where the dose is known."""
    inside_cc = 10.0 * (1.0 - outside_percent / 100.0)
    n = 2001 if outside_percent < 100.0 else 0
    return SampledDose(StructureDose(np.linspace(60, 80, 2001)[:n], None, inside_cc / 2001), 10.0 - inside_cc)


@pytest.mark.parametrize(("outside_percent", "is_whole"), [(0.0, True), (0.099, True), (0.101, False), (40.0, False)])
def test_a_thousandth_out_of_reach_changes_no_statistic_and_more_leaves_none(
    outside_percent: float, is_whole: bool
) -> None:
    dose = sampled(outside_percent)
    assert dose.outside_percent == pytest.approx(outside_percent)
    assert dose.measure(parse_statistic("volume")).value == pytest.approx(10.0)
    for name in ("D95%", "D2cc", "V70Gy", "V70Gy[cc]", "mean", "min", "max", "HI", "CI", "R50"):
        found = dose.measure(parse_statistic(name), 70.0, WHOLE)
        assert math.isnan(found.value) != is_whole, name
        assert found.reason == ("" if is_whole else f"{outside_percent:.1f} % of it lies beyond the dose grid"), name


def test_a_structure_out_of_reach_says_so_and_an_absent_one_is_absent() -> None:
    found = sampled(100.0).measure(parse_statistic("mean"))
    assert found.reason == "the dose grid does not reach it"
    assert sampled(100.0).measure(parse_statistic("volume")).value == pytest.approx(10.0)
    absent = SampledDose(StructureDose(np.empty(0), None, 1.0), 0.0)
    assert math.isnan(absent.outside_percent)
    assert "absent or smaller than a voxel" in absent.measure(parse_statistic("mean")).reason
    assert absent.measure(parse_statistic("volume")).value == 0.0


def test_what_is_asked_wrongly_is_refused_whatever_the_reach() -> None:
    with pytest.raises(BadInput, match="is relative to a prescription, found None"):
        sampled(40.0).measure(parse_statistic("V95%"))
    with pytest.raises(BadInput, match="CI needs the dose outside the structure too"):
        sampled(40.0).measure(parse_statistic("CI"), 70.0)


@pytest.mark.parametrize(
    ("stop", "inside", "outside_cc"), [(5, [2.0, 3.0, 4.0], 0.0), (4, [2.0, 3.0], 0.5), (2, [], 1.5)]
)
def test_voxels_beyond_the_reach_are_told_as_volume_and_not_as_dose(
    stop: int, inside: list[float], outside_cc: float
) -> None:
    dose, mask = np.arange(5.0)[::-1].reshape(1, 1, 5), np.array([[[False, False, True, True, True]]])
    found = reached_dose(dose[..., ::-1], mask, 0.5, (slice(0, 1), slice(0, 1), slice(0, stop)))
    assert (found.samples.dose_gy.tolist(), found.outside_cc) == (inside, outside_cc)
    assert found.whole_cc == pytest.approx(1.5)
