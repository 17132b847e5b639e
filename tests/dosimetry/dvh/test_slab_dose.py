"""Contours as slabs on clinical grids in 1 Gy/mm, against the integral over those very slabs; holes, rims, hot ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.optimize import brentq

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.slab_dose import slab_dose
from doseledger.dosimetry.dvh.slabs import extremes, make_slabs
from doseledger.dosimetry.dvh.statistics import StructureDose

N_POINTS = 200_000
SLICE_MM = 3.0
CENTRE_GY = 400.0
# Where the axis of a shape is, and where its slices are: in step with nothing.
AXIS_YX = (-0.21, 0.13)
OFFSETS_MM = (0.4, 1.1)
RADII: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "sphere": lambda z, r: np.sqrt(np.maximum(r**2 - z**2, 0)),
    "cylinder": lambda z, r: np.where(abs(z) <= 1.07 * r, r, 0.0),
    "cone": lambda z, r: np.where(abs(z) <= 1.07 * r, r * (1.07 * r - z) / (2.14 * r), 0.0),
}
GRADIENTS = {"z": (1.0, 0.0, 0.0), "x": (0.0, 0.0, 1.0), "-x": (0.0, 0.0, -1.0), "oblique": (0.6, 0.5, np.sqrt(0.39))}


def circle(radius: float, n: int = 360) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return np.c_[radius * np.cos(angle) + AXIS_YX[1], radius * np.sin(angle) + AXIS_YX[0]]


def stack_of(shape: str, radius: float, offset_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Heights and radii of the contours that slices of 3 mm show of a shape."""
    z = np.arange(-55, 56) * SLICE_MM + offset_mm
    radii = RADII[shape](z, radius)
    return z[radii > 0], radii[radii > 0]


def linear_dose(grid: Grid, gradient: tuple[float, float, float]) -> np.ndarray:
    z, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij", sparse=True)
    dose = CENTRE_GY + gradient[0] * z + gradient[1] * (y - AXIS_YX[0]) + gradient[2] * (x - AXIS_YX[1])
    return dose.astype(np.float32)


def grid_about(radius: float, spacing_mm: float) -> Grid:
    n, start = int(np.ceil((2.14 * radius + 14) / spacing_mm)), -1.07 * radius - 6.3
    return Grid((n, n, n), (spacing_mm,) * 3, (start, start - 0.7, start + 0.4))


def volume_above(level_gy: float, z: np.ndarray, radii: np.ndarray, gradient: tuple[float, float, float]) -> float:
    """Volume in cc of stacked discs with at least a dose: segments of a circle, integrated over the slabs' height."""
    n = 400
    height = (z[:, None] + ((np.arange(n) + 0.5) / n - 0.5) * SLICE_MM).ravel()
    r, across = np.repeat(radii, n), np.hypot(gradient[1], gradient[2])
    missing = level_gy - CENTRE_GY - gradient[0] * height
    c = np.clip(missing / (across * r), -1, 1) if across else np.where(missing <= 0, -1.0, 1.0)
    return float((r**2 * (np.arccos(c) - c * np.sqrt(1 - c**2))).sum() * SLICE_MM / n / 1000)


def wanted_of(z: np.ndarray, radii: np.ndarray, gradient: tuple[float, float, float]) -> dict[str, float]:
    reach = [
        CENTRE_GY + gradient[0] * (z + side * SLICE_MM / 2) + turn * np.hypot(gradient[1], gradient[2]) * radii
        for side, turn in product((-1, 1), (-1, 1))
    ]
    low, high = float(np.min(reach)), float(np.max(reach))
    whole = float((np.pi * radii**2).sum() * SLICE_MM / 1000)

    def hottest(cc: float) -> float:
        return brentq(lambda level: volume_above(level, z, radii, gradient) - cc, low, high, xtol=1e-4)

    found = {"min": low, "max": high, "D0.03cc": hottest(0.03)}
    return found | {"D2cc": hottest(2.0)} | {f"D{p}%": hottest(p / 100 * whole) for p in (98, 95, 50, 2)}


def value(samples: StructureDose, name: str) -> float:
    return samples.measure(parse_statistic(name)).value


@pytest.mark.parametrize(("shape", "axis", "radius"), list(product(RADII, GRADIENTS, (14.2, 56.8))))
def test_slabs_have_the_dvh_of_their_own_integral(shape: str, axis: str, radius: float) -> None:
    gradient = GRADIENTS[axis]
    for spacing_mm, offset_mm in product((2.5, 3.0), OFFSETS_MM):
        z, radii = stack_of(shape, radius, offset_mm)
        slabs = make_slabs([(level, [circle(r)]) for level, r in zip(z, radii, strict=True)], SLICE_MM)
        grid = grid_about(radius, spacing_mm)
        samples, outside_cc = slab_dose(linear_dose(grid, gradient), grid, slabs, N_POINTS)
        assert outside_cc == 0.0
        assert samples.volume_cc == pytest.approx((np.pi * radii**2).sum() * SLICE_MM / 1000, rel=0.001)
        for name, wanted in wanted_of(z, radii, gradient).items():
            slack = 0.005 if name in ("min", "max") else 0.05
            assert value(samples, name) == pytest.approx(wanted, abs=slack), (name, spacing_mm, offset_mm)


def test_d003cc_of_a_body_is_sampled_apart_from_its_litres() -> None:
    # 200 000 points in 18 litres are one in 0.09 cc: D0.03cc of those alone would be the hottest of them, 0.5 Gy off.
    z, radii = stack_of("cylinder", 140.0, 0.4)
    slabs = make_slabs([(level, [circle(r, 720)]) for level, r in zip(z, radii, strict=True)], SLICE_MM)
    grid = grid_about(140.0, 3.0)
    samples, _ = slab_dose(linear_dose(grid, GRADIENTS["oblique"]), grid, slabs, N_POINTS)
    wanted = wanted_of(z, radii, GRADIENTS["oblique"])
    for name in ("min", "max", "D0.03cc", "D2cc"):
        assert value(samples, name) == pytest.approx(wanted[name], abs=0.06), name
    assert samples.volume_cc == pytest.approx((np.pi * radii**2).sum() * SLICE_MM / 1000, rel=0.001)


def test_a_contour_finer_than_any_pixel_counts() -> None:
    # The tip of a cone: 0.1 mm across, 3 mm nearer to the maximum than the contour before it.
    grid = grid_about(14.2, 2.5)
    slabs = make_slabs([(0.0, [circle(4.0)]), (3.0, [circle(0.05)])], SLICE_MM)
    samples, _ = slab_dose(linear_dose(grid, GRADIENTS["z"]), grid, slabs, N_POINTS)
    assert value(samples, "max") == pytest.approx(CENTRE_GY + 4.5, abs=1e-4)


def test_the_extremes_are_those_of_the_trilinear_dose_and_not_of_samples() -> None:
    rng = np.random.default_rng(3)
    grid = Grid((9, 11, 10), (3.0, 2.5, 2.5), (-12.0, -12.0, -11.0))
    square = np.array([[-6.3, -5.2], [5.1, -7.4], [6.8, 4.9], [-4.4, 6.1]])
    slabs = make_slabs([(-2.0, [square]), (1.0, [0.8 * square])], SLICE_MM)
    for _ in range(5):
        dose = rng.uniform(0, 70, grid.shape_zyx)
        low, high = extremes(dose, slabs.in_voxels(grid))
        samples, _ = slab_dose(dose, grid, slabs, 2_000_000)
        # Many points come near the extremes, and never beyond them.
        inside = samples.dose_gy[1:-1]
        assert low <= inside.min() < low + 2.0
        assert high - 2.0 < inside.max() <= high
        assert (value(samples, "min"), value(samples, "max")) == (low, high)


def test_a_hole_is_left_out_and_a_part_apart_is_not() -> None:
    grid = grid_about(14.2, 2.5)
    contours = [circle(10.0), circle(4.0), circle(2.0) + 9.5]
    slabs = make_slabs([(0.0, contours)], SLICE_MM)
    samples, outside_cc = slab_dose(linear_dose(grid, (0, 0, 0)), grid, slabs, N_POINTS)
    area = np.pi * (10.0**2 - 4.0**2 + 2.0**2)
    assert samples.volume_cc == pytest.approx(area * SLICE_MM / 1000, rel=0.001)
    assert outside_cc == 0.0
    above = Grid((2, 60, 60), (2.5, 2.5, 2.5), (1.75, -70.0, -70.0))
    samples, outside_cc = slab_dose(linear_dose(above, (0, 0, 0)), above, slabs, N_POINTS)
    # The dose begins at 0.5 mm: a third of the slab, and the other two thirds are told.
    assert samples.volume_cc == pytest.approx(area * 1.0 / 1000, rel=0.002)
    assert outside_cc == pytest.approx(area * 2.0 / 1000, rel=0.002)


# In the slab of the ring; 3 mm off its axis, a chord of the ring without the hole's and one of the disc above; 6 mm
# off, where there is no hole.
CUTS = {0: np.pi * (100 - 16), 1: (4 * np.sqrt(91) - 2 * np.sqrt(7)) * SLICE_MM, 2: 2 * 8.0 * 2 * SLICE_MM}


@pytest.mark.parametrize("axis", CUTS)
def test_a_cut_has_the_area_of_what_the_plane_meets(axis: int) -> None:
    slabs = make_slabs([(0.0, [circle(10.0, 3600), circle(4.0, 3600)]), (3.0, [circle(10.0, 3600)])], SLICE_MM)
    position = {0: 0.0, 1: AXIS_YX[0] + 3.0, 2: AXIS_YX[1] + 6.0}[axis]
    shape, spacing, origin = [60, 60, 60], [1.0, 1.0, 1.0], [-30.0, -30.0, -30.0]
    shape[axis], origin[axis] = 1, position
    grid = Grid(tuple(shape), tuple(spacing), tuple(origin))
    samples, outside_cc = slab_dose(np.ones(grid.shape_zyx), grid, slabs.cut(axis, position), N_POINTS)
    assert 1000 * samples.volume_cc == pytest.approx(CUTS[axis], rel=0.002)
    assert outside_cc == 0.0


@pytest.mark.parametrize("position_mm", [1.5, 1.5 - 1e-9, 1.5 + 1e-9])
def test_a_plane_between_two_slabs_meets_one_of_them(position_mm: float) -> None:
    slabs = make_slabs([(0.0, [circle(10.0)]), (3.0, [circle(10.0)])], SLICE_MM)
    assert len(slabs.cut(0, position_mm).z_mm) == 1
    assert len(slabs.cut(0, 4.6).z_mm) == 0


def test_an_empty_structure_has_no_samples_and_a_dose_of_nan_is_refused() -> None:
    grid = grid_about(14.2, 2.5)
    assert len(slab_dose(linear_dose(grid, (0, 0, 0)), grid, make_slabs([], SLICE_MM), 1000).samples.dose_gy) == 0
    slabs = make_slabs([(0.0, [circle(5.0)])], SLICE_MM)
    with pytest.raises(BadInput, match="not finite at"):
        slab_dose(np.full(grid.shape_zyx, np.nan), grid, slabs, 1000)
    with pytest.raises(BadInput, match="the dose has"):
        slab_dose(np.ones((2, 2, 2)), grid, slabs, 1000)
