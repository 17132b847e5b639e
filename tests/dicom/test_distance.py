"""Signed distances: exact for boxes, unbiased at the surface, right at anisotropic spacing."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.dicom.distance import signed_distance

GRID = Grid((30, 40, 50), (3.0, 2.0, 1.0), (0.0, 0.0, 0.0))


def box_mask() -> np.ndarray:
    mask = np.zeros(GRID.shape_zyx, dtype=bool)
    mask[10:20, 15:25, 20:30] = True
    return mask


def exact_box_distance() -> np.ndarray:
    """Distance to the box of voxel faces: z 28.5 to 58.5, y 29 to 49, x 19.5 to 29.5 mm."""
    z, y, x = np.meshgrid(*GRID.axes_mm(), indexing="ij")
    q = np.stack([np.abs(z - 43.5) - 15.0, np.abs(y - 39.0) - 10.0, np.abs(x - 24.5) - 5.0])
    return np.linalg.norm(np.maximum(q, 0), axis=0) + np.minimum(q.max(axis=0), 0)


def test_a_box_has_its_exact_distance_in_mm_wherever_it_shows_a_face():
    sdf = signed_distance(box_mask(), GRID, 50.0)
    assert sdf.dtype == np.float16
    exact = np.clip(exact_box_distance(), -50, 50)
    inside = box_mask()
    faced = inside.copy()
    faced[:, 15:25, 20:30] = faced[10:20, :, 20:30] = faced[10:20, 15:25, :] = True
    np.testing.assert_allclose(sdf[faced], exact[faced], atol=0.02)
    # Towards an edge or a corner the nearest point midway between centres is half a voxel off it.
    excess = sdf.astype(float) - exact
    assert excess.min() > -0.02
    assert excess.max() <= 0.5 * np.linalg.norm(GRID.spacing_mm)


def test_it_is_negative_inside_positive_outside_and_nowhere_zero():
    mask = box_mask()
    sdf = signed_distance(mask, GRID, 50.0)
    assert (sdf[mask] < 0).all()
    assert (sdf[~mask] > 0).all()


def test_it_is_clipped_on_both_sides():
    sdf = signed_distance(box_mask(), GRID, 4.0)
    assert (sdf.min(), sdf.max()) == (-4.0, 4.0)
    unclipped = signed_distance(box_mask(), GRID, 50.0)
    np.testing.assert_array_equal(sdf, np.clip(unclipped, -4, 4))


def test_an_absent_structure_is_the_clip_value_and_never_a_boundary():
    assert np.all(signed_distance(np.zeros(GRID.shape_zyx, dtype=bool), GRID, 50.0) == 50.0)


def test_a_structure_that_fills_the_grid_is_the_negative_clip_value():
    assert np.all(signed_distance(np.ones(GRID.shape_zyx, dtype=bool), GRID, 50.0) == -50.0)


def test_the_complement_has_the_opposite_sign():
    mask = box_mask()
    np.testing.assert_array_equal(signed_distance(mask, GRID, 50.0), -signed_distance(~mask, GRID, 50.0))


def test_the_grids_edge_is_no_surface():
    mask = np.zeros(GRID.shape_zyx, dtype=bool)
    mask[:, :20] = True
    sdf = signed_distance(mask, GRID, 50.0)
    np.testing.assert_allclose(sdf[0, :, 0], (np.arange(40) - 19.5) * 2.0, atol=0.02)


@pytest.mark.parametrize("spacing", [(3.0, 2.5, 2.5), (3.0, 1.0, 1.0), (2.0, 2.0, 2.0)])
def test_a_sphere_is_unbiased_at_its_surface_and_better_than_a_plain_transform(spacing):
    from scipy.ndimage import distance_transform_edt

    grid = Grid(tuple(int(90 / s) for s in spacing), spacing, (-44.3, -45.2, -44.7))
    z, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij")
    true = np.sqrt(z**2 + y**2 + x**2) - 25.0
    mask = true < 0
    near = np.abs(true) < 10.0
    error = signed_distance(mask, grid, 50.0).astype(float)[near] - true[near]
    plain = np.where(
        mask, -distance_transform_edt(mask, sampling=spacing), distance_transform_edt(~mask, sampling=spacing)
    )
    plain_error = plain[near] - true[near]
    voxel = np.cbrt(np.prod(spacing))
    assert np.sqrt(np.mean(error**2)) < 0.4 * voxel
    assert np.sqrt(np.mean(error**2)) < 0.95 * np.sqrt(np.mean(plain_error**2))
    # Each side alone: the plain transform's two errors of half a voxel would cancel.
    for side in (mask[near], ~mask[near]):
        assert abs(error[side].mean()) < 0.75 * abs(plain_error[side].mean())
        assert abs(error[side].mean()) < 0.25 * voxel
