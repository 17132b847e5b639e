from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.grid import MOST_VOXELS, Grid, box_around, box_within, resample_linear

GRID = Grid((4, 5, 6), (3.0, 2.0, 1.0), (-10.0, 20.0, -30.0))


def ramp(grid: Grid) -> np.ndarray:
    z, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij")
    return (1.0 * z + 0.5 * y - 0.25 * x + 100.0).astype(np.float32)


def test_index_and_mm_are_inverse_of_each_other() -> None:
    index = np.array([[0.0, 0.0, 0.0], [1.5, 2.25, 5.0]])
    np.testing.assert_allclose(GRID.mm_to_index(GRID.index_to_mm(index)), index)
    np.testing.assert_allclose(GRID.index_to_mm(np.array([1, 1, 1])), [-7.0, 22.0, -29.0])


def test_the_last_voxel_lies_at_the_end_of_the_extent() -> None:
    assert GRID.extent_mm == ((-10.0, 20.0, -30.0), (-1.0, 28.0, -25.0))
    assert GRID.voxel_volume_cc == pytest.approx(0.006)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 4.0, 0.7), (30.0, 30.0, 30.0)])
def test_a_resampled_grid_covers_the_same_box_centred(spacing: tuple[float, float, float]) -> None:
    new = GRID.resampled(spacing)
    for axis in range(3):
        old_edge = GRID.origin_mm[axis] - GRID.spacing_mm[axis] / 2
        new_edge = new.origin_mm[axis] - new.spacing_mm[axis] / 2
        length = GRID.shape_zyx[axis] * GRID.spacing_mm[axis]
        assert new_edge <= old_edge + 1e-9
        assert old_edge - new_edge < new.spacing_mm[axis] / 2 + 1e-9
        assert new.shape_zyx[axis] * new.spacing_mm[axis] >= length - 1e-6


def test_a_linear_dose_survives_resampling_exactly() -> None:
    target = Grid((5, 7, 8), (1.5, 1.0, 0.5), (-9.5, 20.5, -29.5))
    np.testing.assert_allclose(resample_linear(ramp(GRID), GRID, target, outside=0.0), ramp(target), rtol=1e-6)


def test_points_more_than_half_a_voxel_outside_take_the_outside_value() -> None:
    target = Grid((1, 1, 4), (1.0, 1.0, 0.4), (-10.0, 20.0, -30.8))
    sampled = resample_linear(ramp(GRID), GRID, target, outside=-1000.0)[0, 0]
    edge = ramp(GRID)[0, 0, 0]
    np.testing.assert_allclose(sampled, [-1000.0, edge, edge, ramp(target)[0, 0, 3]])


def test_a_single_slice_can_be_resampled() -> None:
    flat = Grid((1, 5, 6), (3.0, 2.0, 1.0), (0.0, 0.0, 0.0))
    assert resample_linear(np.ones(flat.shape_zyx), flat, flat, outside=0.0).min() == 1.0


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(BadInput, match="does not fit its grid"):
        resample_linear(np.zeros((2, 2, 2)), GRID, GRID, outside=0.0)


def test_a_crop_beyond_the_grid_is_refused() -> None:
    assert GRID.cropped((1, 1, 1), (2, 2, 2)).origin_mm == (-7.0, 22.0, -29.0)
    assert GRID.inside((slice(1, 3),) * 3) == GRID.cropped((1, 1, 1), (2, 2, 2))
    with pytest.raises(BadInput, match="reaches beyond"):
        GRID.cropped((1, 1, 1), (4, 1, 1))


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((0, 1, 1), (1, 1, 1), "positive sizes"),
        ((1, 1, 1), (1, -1, 1), "positive spacings"),
        ((1, 1, 1), (1, np.nan, 1), "positive spacings"),
    ],
)
def test_an_impossible_grid_is_refused(shape: tuple, spacing: tuple, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Grid(shape, spacing, (0.0, 0.0, 0.0))


def test_a_grid_shifted_by_a_tenth_of_a_millimetre_is_another_grid() -> None:
    assert GRID.same_as(Grid(GRID.shape_zyx, GRID.spacing_mm, (-10.0, 20.001, -30.0)))
    assert not GRID.same_as(Grid(GRID.shape_zyx, GRID.spacing_mm, (-10.0, 20.1, -30.0)))
    assert not GRID.same_as(Grid((4, 5, 7), GRID.spacing_mm, GRID.origin_mm))


def test_the_box_of_a_mask_is_cut_at_the_grids_edge() -> None:
    mask = np.zeros((4, 5, 6), bool)
    mask[1, 2, 3:5] = True
    assert box_around(mask, (2, 1, 0)) == (slice(0, 4), slice(1, 4), slice(3, 5))
    with pytest.raises(BadInput, match="empty mask"):
        box_around(np.zeros((2, 2, 2), bool))


def test_the_voxels_within_another_grid_are_those_that_resampling_knows() -> None:
    grid, other = (
        Grid((10, 12, 14), (3.0, 2.0, 2.5), (0.0, 0.0, 0.0)),
        Grid((4, 9, 3), (2.5, 2.5, 2.5), (4.0, -9.0, 8.0)),
    )
    box = box_within(grid, other)
    assert box is not None
    known = ~np.isnan(resample_linear(np.ones(other.shape_zyx), other, grid, np.nan))
    wanted = np.zeros(grid.shape_zyx, dtype=bool)
    wanted[box] = True
    np.testing.assert_array_equal(known, wanted)
    assert box_within(grid, Grid((4, 4, 4), (2.5, 2.5, 2.5), (400.0, 0.0, 0.0))) is None


def test_a_grid_holds_plain_numbers_whatever_it_was_made_of() -> None:
    grid = Grid(np.array([2, 3, 4]), [np.float32(1.5), 2, 3], np.array([0, 1, 2]))  # type: ignore[arg-type]
    assert (grid.shape_zyx, grid.spacing_mm, grid.origin_mm) == ((2, 3, 4), (1.5, 2.0, 3.0), (0.0, 1.0, 2.0))
    assert {type(n) for n in grid.shape_zyx} == {int}
    assert {type(v) for v in (*grid.spacing_mm, *grid.origin_mm)} == {float}


@pytest.mark.parametrize(
    ("shape", "origin", "message"),
    [
        ((2, 3), (0.0, 0.0, 0.0), "three positive sizes"),
        ((2, 3, 4, 5), (0.0, 0.0, 0.0), "three positive sizes"),
        ((2, 0, 4), (0.0, 0.0, 0.0), "three positive sizes"),
        ((513, 1024, 1024), (0.0, 0.0, 0.0), "larger than any patient's, wanted at most 536870912 in all"),
        ((2, 3, 4), (0.0, 0.0), "needs a finite origin"),
        ((2, 3, 4), (0.0, np.nan, 0.0), "needs a finite origin"),
    ],
)
def test_a_grid_that_can_not_be_is_refused(shape: tuple, origin: tuple, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Grid(shape, (1.0, 1.0, 1.0), origin)


def test_the_largest_grid_holds_as_many_voxels_as_a_scan_of_512_slices_of_1024_by_1024() -> None:
    assert Grid((512, 1024, 1024), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)).shape_zyx == (512, 1024, 1024)
    assert MOST_VOXELS == 512 * 1024 * 1024
    assert not GRID.same_as(Grid((4, 5, 3), (3.0, 2.0, 2.5), GRID.origin_mm)), "ends alone don't make a grid"


def test_a_part_of_a_grid_may_reach_to_its_ends_and_no_further() -> None:
    part = GRID.cropped((1, 0, 2), (3, 5, 4))
    assert (part.shape_zyx, part.spacing_mm, part.origin_mm) == ((3, 5, 4), GRID.spacing_mm, (-7.0, 20.0, -28.0))
    assert GRID.inside((slice(1, 4), slice(0, 5), slice(2, 6))) == part
    for axis in range(3):
        below, beyond = [0, 0, 0], list(GRID.shape_zyx)
        below[axis], beyond[axis] = -1, beyond[axis] + 1
        for start, shape in ((below, GRID.shape_zyx), ((0, 0, 0), beyond)):
            with pytest.raises(BadInput, match="reaches beyond the grid"):
                GRID.cropped(tuple(start), tuple(shape))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spacing", "shape", "origin"),
    [
        # Edges at (-11.5, 0.5), (19, 29), (-30.5, -24.5): centred on (-5.5, 24, -27.5).
        ((1.0, 1.0, 1.0), (12, 10, 6), (-11.0, 19.5, -30.0)),
        ((2.5, 4.0, 0.7), (5, 3, 9), (-10.5, 20.0, -30.3)),
        ((1e9, 1e9, 1e9), (1, 1, 1), (-5.5, 24.0, -27.5)),
        # Rounding makes no voxel more: 12 / 4.0000001 is a little less than 3, 10 / 4.9999999 a little more than 2.
        ((3.9999999, 4.9999999, 6.0000001), (3, 2, 1), (-9.4999999, 21.50000005, -27.5)),
        ((3.99999, 4.99999, 5.99999), (4, 3, 2), (-11.499985, 19.00001, -30.499995)),
    ],
)
def test_a_resampled_grid_is_centred_in_the_same_box(
    spacing: tuple[float, float, float], shape: tuple[int, int, int], origin: tuple[float, float, float]
) -> None:
    new = GRID.resampled(spacing)
    assert (new.shape_zyx, new.spacing_mm) == (shape, spacing)
    np.testing.assert_allclose(new.origin_mm, origin, atol=1e-9)


@pytest.mark.parametrize(("beyond_mm", "is_known"), [(0.0, True), (0.9e-6, True), (2e-6, False), (0.1, False)])
def test_a_voxel_reaches_half_its_size_beyond_its_centre_but_for_rounding(beyond_mm: float, is_known: bool) -> None:
    source = Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    for axis in range(3):
        for place in (-0.5 - beyond_mm, 1.5 + beyond_mm):
            origin = [0.25, 0.25, 0.25]
            origin[axis] = place
            target = Grid((1, 1, 1), (1.0, 1.0, 1.0), tuple(origin))  # type: ignore[arg-type]
            value = resample_linear(np.full((2, 2, 2), 3.0), source, target, outside=-1.0)
            assert value.tolist() == [[[3.0 if is_known else -1.0]]]
            assert (box_within(target, source) is not None) is is_known


def test_a_trilinear_value_is_the_mean_of_eight_weighed_by_nearness() -> None:
    source = Grid((2, 3, 2), (2.0, 4.0, 8.0), (10.0, 20.0, 30.0))
    values = np.arange(12.0).reshape(2, 3, 2) ** 2
    # A quarter of the way along z, half way in the second step along y, three quarters along x.
    target = Grid((1, 1, 1), (1.0, 1.0, 1.0), (10.5, 26.0, 36.0))
    weights = [(0.75, 0.25), (0.0, 0.5, 0.5), (0.25, 0.75)]
    wanted = np.einsum("zyx,z,y,x->", values, *map(np.asarray, weights))
    found = resample_linear(values, source, target, outside=0.0)
    assert (found.dtype, found.shape) == (np.float32, (1, 1, 1))
    assert found.item() == pytest.approx(float(wanted), rel=1e-6)
    assert resample_linear(values, source, source, outside=-5.0).tolist() == values.tolist()


def test_along_an_axis_of_one_voxel_its_value_holds() -> None:
    source, target = (
        Grid((1, 2, 1), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        Grid((3, 1, 3), (1.0, 1.0, 0.4), (-1.0, 0.5, -0.4)),
    )
    assert resample_linear(np.array([[[1.0], [4.0]]]), source, target, outside=0.0).tolist() == [[[2.5] * 3]] * 3


def test_a_box_is_widened_by_a_margin_of_its_own_along_each_axis() -> None:
    mask = np.zeros((9, 10, 11), bool)
    mask[4, 3, 5] = mask[5, 6, 7] = True
    assert box_around(mask) == (slice(4, 6), slice(3, 7), slice(5, 8))
    assert box_around(mask, (1, 2, 3)) == (slice(3, 7), slice(1, 9), slice(2, 11))
    assert box_around(mask, (4, 3, 5)) == (slice(0, 9), slice(0, 10), slice(0, 11))
    mask[0, 0, 0] = mask[8, 9, 10] = True
    assert box_around(mask) == (slice(0, 9), slice(0, 10), slice(0, 11))


def test_the_voxels_within_another_grid_are_told_by_their_numbers() -> None:
    grid = Grid((10, 12, 14), (3.0, 2.0, 2.5), (0.0, 0.0, 0.0))
    other = Grid((3, 4, 5), (4.0, 3.0, 2.0), (6.0, 7.0, 11.0))
    # Its voxels reach from 4 to 16, from 5.5 to 17.5 and from 10 to 20 mm.
    assert box_within(grid, other) == (slice(2, 6), slice(3, 9), slice(4, 9))
    for axis in range(3):
        origin = list(other.origin_mm)
        origin[axis] = -100.0
        assert box_within(grid, Grid(other.shape_zyx, other.spacing_mm, tuple(origin))) is None  # type: ignore[arg-type]
