"""Where voxels lie about the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.learn.data.place import HALF_LENGTH_MM, TargetPlace, find_place


def test_ends_lie_at_the_half_length_whatever_the_targets_and_mm_go_on_beyond() -> None:
    for last in (11.0, 40.0):
        place = TargetPlace((10.0, last), (0.0, 0.0))
        middle = (10.0 + last) / 2
        found = place.along_mm(np.array([10.0, middle, last, last + 4, 8.0]), 3.0)
        np.testing.assert_allclose(
            found, [-HALF_LENGTH_MM, 0.0, HALF_LENGTH_MM, HALF_LENGTH_MM + 12, -HALF_LENGTH_MM - 6]
        )


def test_the_ends_are_those_of_all_targets_and_the_centre_the_main_ones(make_case: Callable[..., Case]) -> None:
    case = make_case()
    slices = np.flatnonzero((case.mask("PTV70") | case.mask("PTV56")).any(axis=(1, 2)))
    found = find_place(case)
    assert found is not None
    assert found.ends_z == (slices[0], slices[-1])
    assert found.centre_yx == pytest.approx(np.argwhere(case.mask("PTV70")).mean(axis=0)[1:])
    assert find_place(replace(case, prescription_gy={})) is None
