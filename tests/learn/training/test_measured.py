"""As many training cases are measured beside the validation's as a twentieth of the training pays for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from doseledger.learn.training.measured import measured_cases


def measured(
    shape_zyx: tuple[int, int, int], patches: int, *, n_train: int = 10, n_val: int = 10, passes: int = 1
) -> Any:
    """The numbers of the cases measured, of ten cases of one shape and patches of 16 x 16 x 16."""
    sampling, fit = SimpleNamespace(patches_per_case=patches, patch_zyx=(16, 16, 16)), SimpleNamespace(validate_every=1)
    run: Any = SimpleNamespace(
        network_recipe=SimpleNamespace(sampling=sampling, fit=fit), family=SimpleNamespace(passes=passes)
    )
    cases: Any = {"train": [SimpleNamespace(shape_zyx=shape_zyx, n=n) for n in range(n_train)], "val": [None] * n_val}
    return [case.n for case in measured_cases(run, cases)]


# A case of one window costs a third of a step: of 10 steps a patch, a twentieth pays for 1.5 cases.
@pytest.mark.parametrize(("patches", "n"), [(1, 1), (2, 3), (4, 6), (5, 7), (100, 10)])
def test_a_twentieth_of_the_steps_is_paid_at_three_windows_a_step(patches: int, n: int) -> None:
    assert len(measured((16, 16, 16), patches)) == n


@pytest.mark.parametrize(("size", "n"), [(16, 6), (17, 3), (28, 3), (29, 2), (40, 2), (41, 1)])
def test_windows_of_a_case_overlap_by_a_quarter(size: int, n: int) -> None:
    assert len(measured((size, 16, 16), 4)) == n


def test_what_a_family_goes_through_more_often_costs_more() -> None:
    assert len(measured((16, 16, 16), 4, passes=3)) == 2


def test_no_more_are_measured_than_there_are_of_either_part_and_they_are_spread_evenly() -> None:
    assert measured((16, 16, 16), 100, n_val=3) == [0, 3, 6]
    assert measured((16, 16, 16), 100, n_train=2) == [0, 1]
