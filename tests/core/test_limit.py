"""A number keeps its limits only where it is one: finite first, the limits included."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.limit import breaks, keeps, meets
from doseledger.core.schema import Block, load_block

NO_NUMBERS = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [(2.0, True), (3.0, True), (1.9999, False), (3.0001, False), *((v, False) for v in NO_NUMBERS)],
)
def test_a_number_keeps_what_lies_between_its_limits(value: float, is_kept: bool) -> None:
    assert keeps(value, least=2.0, most=3.0) is is_kept
    assert breaks([value, 2.5], least=2.0, most=3.0).tolist() == [not is_kept, False]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_keeps_no_limit_at_all(value: float) -> None:
    assert not keeps(value)
    assert not keeps(value, least=0.0)
    assert not keeps(value, most=0.0)
    assert not meets(value, "<=", 1e300)
    assert not meets(value, ">=", -1e300)
    assert breaks(value).all()


@pytest.mark.parametrize("limit", NO_NUMBERS[:1])
def test_a_limit_that_is_no_number_is_kept_by_nothing(limit: float) -> None:
    assert not keeps(1.0, most=limit)
    assert breaks([1.0], least=limit).all()


@pytest.mark.parametrize(("operator", "kept", "missed"), [("<=", 3.0, 3.0001), (">=", 3.0, 2.9999)])
def test_a_limit_with_an_operator_includes_itself(operator: Literal["<=", ">="], kept: float, missed: float) -> None:
    assert meets(kept, operator, 3.0)
    assert not meets(missed, operator, 3.0)


def test_limits_may_differ_from_place_to_place() -> None:
    values = np.array([[1.0, 5.0], [np.nan, 2.0]])
    assert breaks(values, most=np.array([[1.0, 4.0]])).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(("off_mm", "is_same"), [(0.0099, True), (0.0101, False)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_grids_are_one_where_their_ends_lie_within_the_hundredth_of_a_mm(
    axis: int, off_mm: float, is_same: bool
) -> None:
    grid = Grid((4, 5, 6), (3.0, 2.0, 1.0), (-10.0, 20.0, -30.0))
    origin, spacing = list(grid.origin_mm), list(grid.spacing_mm)
    origin[axis] += off_mm
    assert grid.same_as(Grid(grid.shape_zyx, grid.spacing_mm, (origin[0], origin[1], origin[2]))) is is_same
    # A spacing that is off by less adds up over the voxels.
    spacing[axis] += off_mm / (grid.shape_zyx[axis] - 1)
    assert grid.same_as(Grid(grid.shape_zyx, (spacing[0], spacing[1], spacing[2]), grid.origin_mm)) is is_same


class Limit(Block):
    value: float


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_setting_or_limit_that_is_no_number_is_refused_as_it_is_read(value: float) -> None:
    with pytest.raises(BadInput, match=r"limits\.yaml: value: Input should be a finite number"):
        load_block(Limit, {"value": value}, "limits.yaml")
