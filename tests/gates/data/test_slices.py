"""Slices against their neighbours: how large, how high and how much alike, from both sides of each number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.gates.data.slices import Slices, measure_slices

SHAPE = (24, 40, 48)


@pytest.fixture
def measured(make_case: Callable[..., Case]) -> Callable[..., Slices]:
    """measured(ct_hu=…, body=…, dose_gy=…): the slices of a case with these arrays; voxels of 6 mm."""
    plain = make_case()

    def run(**arrays: Any) -> Slices:
        body = arrays.get("body", np.ones(SHAPE, bool))
        return measure_slices(replace(plain, **{"body": body, "valid_dose": body, "dose_gy": None} | arrays))

    return run


def slices_of(*values: float) -> np.ndarray:
    """An image of the slices 0, 0, …, then these, then 0 again: whole numbers."""
    image = np.zeros(SHAPE, np.int16)
    for z, value in enumerate(values, start=10):
        image[z] = value
    return image


@pytest.mark.parametrize(("voxels", "is_large"), [(55, False), (56, True)])
def test_a_slice_of_less_than_20_cm2_says_nothing(voxels: int, is_large: bool, measured: Callable[..., Slices]) -> None:
    body = np.zeros(SHAPE, bool)
    body.reshape(24, -1)[:, :voxels] = True
    found = measured(ct_hu=slices_of(-1000), body=body, dose_gy=slices_of(9).astype(np.float32))
    assert (found.air_percent == 100.0) is is_large
    assert all(math.isfinite(value) is is_large for value in (found.jump_ratio, found.dose_jump_gy))
    noisy = np.random.default_rng(1).integers(-50, 50, SHAPE).astype(np.int16)
    assert math.isfinite(measured(ct_hu=noisy, body=body).same_percent) is is_large


@pytest.mark.parametrize(("hu", "jump_hu"), [(400, 400.0), (500, 500.0), (501, 500.0), (3000, 500.0),
                                             (-900, 900.0), (-1000, 1000.0), (-1001, 1000.0)])  # fmt: skip
def test_a_step_is_measured_from_minus_1000_to_500_hu_and_per_one_hu_at_the_least(
    hu: int, jump_hu: float, measured: Callable[..., Slices]
) -> None:
    # All other slices are alike, so the middle step is 0.
    assert measured(ct_hu=slices_of(hu)).jump_ratio == jump_hu


@pytest.mark.parametrize(("usual_hu", "ratio"), [(0.25, 100.0), (0.5, 100.0), (2.0, 50.0)])
def test_a_step_is_told_per_the_middle_one_where_that_is_more_than_one_hu(
    usual_hu: float, ratio: float, measured: Callable[..., Slices]
) -> None:
    # Every second slice is higher, in as many of 48 columns as make that mean.
    image = np.zeros(SHAPE, np.int16)
    image[::2, :, : round(48 * min(usual_hu, 1.0))] = max(usual_hu, 1.0)
    image[11] = image[10] + 100
    assert measured(ct_hu=image).jump_ratio == pytest.approx(ratio, rel=0.03)


@pytest.mark.parametrize(("gy", "is_compared"), [(0.09, False), (0.11, True)])
def test_doses_above_a_tenth_of_a_gray_are_compared(
    gy: float, is_compared: bool, measured: Callable[..., Slices]
) -> None:
    # No two slices have a value in common but these two.
    dose = gy + np.arange(24, dtype=np.float32)[:, None, None] * 1e-4 + np.zeros(SHAPE, np.float32)
    dose[11] = dose[10]
    found = measured(ct_hu=slices_of(), dose_gy=dose)
    assert (found.same_dose_percent == 100.0) is is_compared
    assert math.isnan(found.same_dose_percent) is not is_compared


@pytest.mark.parametrize(("columns", "is_told"), [(24, True), (25, False)])
def test_where_most_slices_share_more_than_half_of_their_values_none_is_called_a_repeat(
    columns: int, is_told: bool, measured: Callable[..., Slices]
) -> None:
    image = np.arange(24, dtype=np.int16)[:, None, None] + np.zeros(SHAPE, np.int16)
    image[:, :, :columns] = 0
    image[11] = image[10]
    found = measured(ct_hu=image)
    assert math.isfinite(found.same_percent) is is_told
    assert not is_told or found.same_percent == 100.0


def test_a_slice_without_neighbours_says_nothing(measured: Callable[..., Slices]) -> None:
    body = np.zeros(SHAPE, bool)
    body[10] = True
    found = measured(ct_hu=slices_of(40), body=body)
    assert math.isnan(found.jump_ratio)
    assert math.isnan(found.same_percent)
