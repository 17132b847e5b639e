from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid, box_around, box_within, resample_linear

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
