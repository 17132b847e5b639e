"""Each limit of a contract: just inside is kept, just outside named; what is no number keeps none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import write_npz
from doseledger.core.files import write_json
from doseledger.gates.parity import judge_parity
from doseledger.parity.check import check_data_set
from doseledger.parity.contract import Contract, ParityLimit, load_contract
from doseledger.parity.differences import compare_values
from doseledger.parity.statistics import describe

MEASURES = (
    "largest_difference", "mean_difference", "rms_difference", "mean_shift_percent", "std_shift_percent",
    "percentile_shift", "ssim", "ms_ssim",
)  # fmt: skip
NO_NUMBERS = [math.nan, math.inf, -math.inf]


def make_contract(path: Path, **limits: Any) -> Contract:
    array = {"describes": "a dose", "kinds": ["real"], "axes": ["voxel"], "min": 0.0, "max": 80.0}
    value = {
        "name": "toy", "title": "toy", "source": "a test", "files": {"pattern": r".*\.npz"}, "arrays": {"dose": array},
    }  # fmt: skip
    write_json(path / "toy.yaml", value | limits)
    return load_contract(path / "toy.yaml")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, ""), (80.0, ""), (-1e-3, "the least value is -0.001, wanted at least 0"),
        (80.001, "the largest value is 80.001, wanted at most 80"), (math.nan, "1 values are NaN"),
        (math.inf, "1 values are infinite"), (-math.inf, "1 values are infinite"),
    ],
)  # fmt: skip
def test_a_value_lies_in_the_contracts_range(value: float, words: str, tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"dose": np.array([1.0, value, 2.0])})
    lines = check_data_set(tmp_path, make_contract(tmp_path)).lines
    assert (lines == []) is not words
    assert not words or any(words in line for line in lines), lines


@pytest.mark.parametrize("values", [np.full(3, np.nan), np.empty(0)])
def test_an_array_without_a_finite_value_does_not_keep_its_range(values: np.ndarray, tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"dose": values})
    lines = check_data_set(tmp_path, make_contract(tmp_path)).lines
    assert "a.npz: dose: holds no finite value, so its range can't be judged" in lines


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("operator", "inside", "outside"), [("<=", 0.5, 0.5001), (">=", 0.5, 0.4999)])
def test_every_measure_is_held_to_its_limit_and_no_number_keeps_one(
    measure: str, operator: str, inside: float, outside: float, tmp_path: Path
) -> None:
    limit = {"array": "dose", "measure": measure, "operator": operator, "limit": 0.5, "source": "a test"}
    contract = make_contract(tmp_path, parity=[limit])

    def ok(value: float) -> bool:
        return judge_parity([{"file": "a", "array": "dose", "part": "value", measure: value}], [], contract).ok

    assert ok(inside)
    assert not ok(outside)
    assert not any(ok(value) for value in NO_NUMBERS)


@pytest.mark.parametrize(("operator", "is_met"), [(">=", True), ("<=", False)])
def test_the_psnr_of_equal_images_is_infinite_and_only_that(operator: str, is_met: bool) -> None:
    fields = {"array": "dose", "measure": "psnr_db", "operator": operator, "limit": 40.0, "source": "a test"}
    limit = ParityLimit.model_validate(fields)
    assert limit.is_met(math.inf) is is_met
    assert not limit.is_met(-math.inf)
    assert not limit.is_met(math.nan)


@pytest.mark.parametrize("values", [np.full(4, np.nan), np.empty(0), np.full(4, np.inf)])
def test_two_arrays_without_a_finite_value_agree_about_nothing(values: np.ndarray) -> None:
    found = compare_values(values, values.copy(), (describe(values), describe(values)))
    assert found.equal
    assert math.isnan(found.largest_difference)
    same = np.array([1.0, np.nan])
    assert compare_values(same, same.copy(), (describe(same), describe(same))).largest_difference == 0.0
