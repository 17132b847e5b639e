"""Sphere, cylinder and cone in a linear gradient: DVHs that a formula gives, on a dose grid of clinical coarseness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import brentq

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.statistics import StructureDose
from doseledger.dosimetry.dvh.subvoxel import sampled_dose

# Offsets, radii and spacings that no plane of voxels is in step with.
GRID = Grid((30, 32, 32), (3.0, 2.5, 2.5), (-43.3, -38.9, -38.4))
# Slices of contours end half a slice beyond the last one: here, where the cylinder does.
FINE = Grid((116, 200, 200), (0.4, 0.4, 0.4), (-23.0, -40.2, -39.7))
RADIUS_MM, HALF_HEIGHT_MM = 14.2, 15.2
DOSE_AT_CENTRE_GY, GRADIENT_GY_PER_MM = 40.0, 1.0
N_POINTS = 200_000


def coordinates(grid: Grid) -> list[np.ndarray]:
    return list(np.meshgrid(*grid.axes_mm(), indexing="ij"))


def sphere_sdf(grid: Grid) -> np.ndarray:
    z, y, x = coordinates(grid)
    return np.sqrt(z**2 + y**2 + x**2) - RADIUS_MM


def cylinder_sdf(grid: Grid) -> np.ndarray:
    z, y, x = coordinates(grid)
    side, end = np.hypot(y, x) - RADIUS_MM, np.abs(z) - HALF_HEIGHT_MM
    return np.minimum(np.maximum(side, end), 0) + np.hypot(np.maximum(side, 0), np.maximum(end, 0))


def cone_sdf(grid: Grid) -> np.ndarray:
    """Apex at +HALF_HEIGHT_MM, base at -HALF_HEIGHT_MM: the distance to the nearer of base and side."""
    z, y, x = coordinates(grid)
    r = np.hypot(y, x)

    def to_segment(start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
        dr, dz = end[0] - start[0], end[1] - start[1]
        t = np.clip(((r - start[0]) * dr + (z - start[1]) * dz) / (dr**2 + dz**2), 0, 1)
        return np.hypot(r - start[0] - t * dr, z - start[1] - t * dz)

    rim, apex, foot = (RADIUS_MM, -HALF_HEIGHT_MM), (0.0, HALF_HEIGHT_MM), (0.0, -HALF_HEIGHT_MM)
    inside = (z >= -HALF_HEIGHT_MM) & (r <= RADIUS_MM * (HALF_HEIGHT_MM - z) / (2 * HALF_HEIGHT_MM))
    return np.minimum(to_segment(rim, apex), to_segment(foot, rim)) * np.where(inside, -1, 1)


def sphere_above(z_mm: float) -> float:
    """Fraction of the sphere's volume at or above a height: the cap's formula."""
    h = np.clip(RADIUS_MM - z_mm, 0, 2 * RADIUS_MM)
    return float(h**2 * (3 * RADIUS_MM - h) / (4 * RADIUS_MM**3))


def cylinder_above(z_mm: float) -> float:
    return float(np.clip((HALF_HEIGHT_MM - z_mm) / (2 * HALF_HEIGHT_MM), 0, 1))


def cone_above(z_mm: float) -> float:
    return cylinder_above(z_mm) ** 3


def disc_above(x_mm: float) -> float:
    """Fraction of the cylinder's volume at or above a distance along x: the circular segment's formula."""
    c = np.clip(x_mm / RADIUS_MM, -1, 1)
    return float((np.arccos(c) - c * np.sqrt(1 - c**2)) / np.pi)


SPHERE_CC = 4 / 3 * np.pi * RADIUS_MM**3 / 1000
CYLINDER_CC = np.pi * RADIUS_MM**2 * 2 * HALF_HEIGHT_MM / 1000
SHAPES = {
    "sphere along z": (sphere_sdf, sphere_above, SPHERE_CC, 0),
    "sphere along y": (sphere_sdf, sphere_above, SPHERE_CC, 1),
    "cylinder along z": (cylinder_sdf, cylinder_above, CYLINDER_CC, 0),
    "cylinder along x": (cylinder_sdf, disc_above, CYLINDER_CC, 2),
    "cone along z": (cone_sdf, cone_above, CYLINDER_CC / 3, 0),
}


def check(samples: StructureDose, above: Callable[[float], float], volume_cc: float, slack: float = 1.0) -> None:
    """Every dose within 0.1 Gy and every volume within 0.5 % of the structure, both times `slack`."""
    assert samples.volume_cc == pytest.approx(volume_cc, rel=0.005 * slack)
    for percent in (99, 98, 95, 80, 50, 20, 5, 2, 1):
        wanted = DOSE_AT_CENTRE_GY + GRADIENT_GY_PER_MM * brentq(lambda z, p=percent: above(z) - p / 100, -20, 20)
        assert samples.measure(parse_statistic(f"D{percent}%")).value == pytest.approx(wanted, abs=0.1 * slack), percent
    for gy in (28, 33, 38, 43, 48, 53):
        wanted = 100 * above((gy - DOSE_AT_CENTRE_GY) / GRADIENT_GY_PER_MM)
        assert samples.measure(parse_statistic(f"V{gy}Gy")).value == pytest.approx(wanted, abs=0.5 * slack), gy


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_known_by_its_signed_distance_has_the_dvh_of_the_formula(name: str) -> None:
    sdf, above, volume_cc, axis = SHAPES[name]
    dose = DOSE_AT_CENTRE_GY + GRADIENT_GY_PER_MM * coordinates(GRID)[axis]
    # The distance is float16, as a case holds it.
    samples, outside_cc = sampled_dose(dose, GRID, sdf(GRID).astype(np.float16), GRID, N_POINTS)
    assert outside_cc == 0.0
    # The sharp rim of the cone lies between the voxels of 3 mm: a distance at their centres can't show it whole.
    check(samples, above, volume_cc, slack=2.0 if sdf is cone_sdf else 1.0)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_known_by_fine_masks_has_the_dvh_of_the_formula(name: str) -> None:
    sdf, above, volume_cc, axis = SHAPES[name]
    dose = DOSE_AT_CENTRE_GY + GRADIENT_GY_PER_MM * coordinates(GRID)[axis]
    samples, _ = sampled_dose(dose, GRID, sdf(FINE) <= 0, FINE, N_POINTS)
    check(samples, above, volume_cc)


@pytest.mark.parametrize("gradient", [(1, 0, 0), (0, 0, 1), (0.6, 0.5, np.sqrt(0.39))])
def test_the_extremes_of_a_round_shape_known_by_its_signed_distance_are_kept(gradient: tuple[float, ...]) -> None:
    dose = DOSE_AT_CENTRE_GY + sum(g * axis for g, axis in zip(gradient, coordinates(GRID), strict=True))
    samples, _ = sampled_dose(dose, GRID, sphere_sdf(GRID).astype(np.float16), GRID, N_POINTS)
    hottest = brentq(lambda z: sphere_above(z) - 0.03 / SPHERE_CC, -20, 20)
    for name, wanted in {"min": -RADIUS_MM, "max": RADIUS_MM, "D0.03cc": hottest}.items():
        found = samples.measure(parse_statistic(name)).value
        assert found == pytest.approx(DOSE_AT_CENTRE_GY + wanted, abs=0.1), name


def test_voxel_centres_alone_would_miss_that_accuracy() -> None:
    dose = DOSE_AT_CENTRE_GY + GRADIENT_GY_PER_MM * coordinates(GRID)[0]
    centres = np.sort(dose[cylinder_sdf(GRID) <= 0])
    wanted = DOSE_AT_CENTRE_GY + brentq(lambda z: cylinder_above(z) - 0.95, -20, 20)
    assert abs(float(np.percentile(centres, 5)) - wanted) > 0.25


def test_a_sphere_smaller_than_a_voxel_keeps_its_volume_and_mean() -> None:
    z, y, x = coordinates(GRID)
    sdf = np.sqrt((z - 0.7) ** 2 + (y - 0.7) ** 2 + (x - 0.7) ** 2) - 3.0
    samples, _ = sampled_dose(40.0 + x, GRID, sdf, GRID, N_POINTS)
    assert samples.measure(parse_statistic("mean")).value == pytest.approx(40.7, abs=0.1)


def test_a_structure_cut_by_the_end_slice_ends_where_the_slice_ends() -> None:
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[0, 4:8, 4:8] = True
    samples, outside_cc = sampled_dose(np.ones(GRID.shape_zyx), GRID, mask, GRID, 1000)
    assert samples.volume_cc == pytest.approx(16 * GRID.voxel_volume_cc)
    assert outside_cc == 0.0


def test_what_the_dose_grid_does_not_reach_is_counted_and_not_guessed() -> None:
    half = GRID.cropped((15, 0, 0), (15, 32, 32))
    mask = np.ones(GRID.shape_zyx, bool)
    samples, outside_cc = sampled_dose(np.ones(half.shape_zyx), half, mask, GRID, 100_000)
    whole = mask.size * GRID.voxel_volume_cc
    assert samples.volume_cc == pytest.approx(whole / 2, rel=1e-3)
    assert samples.volume_cc + outside_cc == pytest.approx(whole)


def test_an_absent_structure_gives_no_samples() -> None:
    clip = np.full(GRID.shape_zyx, 50.0, np.float16)
    samples, outside_cc = sampled_dose(np.ones(GRID.shape_zyx), GRID, clip, GRID, 1000)
    assert len(samples.dose_gy) == 0
    assert outside_cc == 0.0


def test_arrays_off_their_grid_and_doses_of_nan_are_refused() -> None:
    mask = np.ones(GRID.shape_zyx, bool)
    with pytest.raises(BadInput, match="the dose has"):
        sampled_dose(np.ones((2, 2, 2)), GRID, mask, GRID, 1000)
    with pytest.raises(BadInput, match="not finite at"):
        sampled_dose(np.full(GRID.shape_zyx, np.nan), GRID, mask, GRID, 1000)
