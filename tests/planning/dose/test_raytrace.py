"""Densities in blocks by hand, fans by their geometry, and depths against a plain sum along each ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from doseledger.core.grid import Grid
from doseledger.planning.dose.raytrace import DensityMap, Fan, density_map, fan_step_mm, trace_fan
from doseledger.planning.dose.stretch import MOST_STRETCH, by_rank, ladder_of, stretch_fan
from doseledger.planning.machine.geometry import beam_frame
from doseledger.planning.machine.linac import Machine, load_machine

BOX = np.array([[-12.0, 4.0, -30.0], [25.0, 70.0, 18.0]])


def frame_of(gantry_deg: float, couch_deg: float = 0.0, isocentre: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Any:
    arc: Any = SimpleNamespace(couch_deg=couch_deg, isocentre_xyz_mm=isocentre)
    return beam_frame(arc, gantry_deg, 1000.0)


def test_fine_voxels_are_averaged_over_blocks_and_air_is_cut_away_but_for_a_voxel(machine: Machine) -> None:
    # Blocks of 2 × 4 × 1 voxels; one slice and one line are left over.
    grid = Grid((9, 13, 7), (2.0, 1.0, 4.5), (10.0, 20.0, 30.0))
    ct_hu = np.full(grid.shape_zyx, -1000, np.int16)
    ct_hu[2:4, 4:8, 3] = 0
    ct_hu[2, 4:8, 3] = -500
    found = density_map(ct_hu, grid, machine.density)
    assert found.relative.dtype == np.float32
    assert found.grid == Grid((3, 3, 3), (4.0, 4.0, 4.5), (11.0, 21.5, 39.0))
    wanted = np.zeros((3, 3, 3))
    wanted[1, 1, 1] = machine.density.of(np.array([-500, 0])).mean()
    assert found.relative == pytest.approx(wanted)
    assert found.relative.transpose(1, 2, 0).flags.c_contiguous


def test_values_beyond_the_table_of_densities_are_its_ends_and_air_alone_is_left_whole(machine: Machine) -> None:
    grid = Grid((5, 5, 5), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))
    ct_hu = np.zeros(grid.shape_zyx, np.int16)
    ct_hu[2, 2, :4] = (-2000, -1024, 4095, 30_000)
    found = density_map(ct_hu, grid, machine.density)
    assert found.grid == grid
    assert found.relative[2, 2, :4] == pytest.approx(machine.density.of(np.array([-1024, -1024, 4095, 4095])))
    air = density_map(np.full(grid.shape_zyx, -1000, np.int16), grid, machine.density)
    assert air.grid == grid
    assert not air.relative.any()


def depths_of(density: DensityMap, fan: Fan) -> np.ndarray:
    """Depth at each node, by the trapezoid rule along its ray; vacuum outside the voxels."""
    nx, nt, ny = fan.depth_mm.shape
    x, y, t = (fan.start_mm[k] + fan.spacing_mm[k] * np.arange(n) for k, n in enumerate((nx, ny, nt)))
    out = np.zeros((nx, nt, ny))
    for i in range(nx):
        for j in range(ny):
            ray = fan.frame.down_xyz + (x[i] * fan.frame.across_xyz + y[j] * fan.frame.along_xyz) / 1000.0
            at = fan.frame.source_xyz_mm + t[:, None] * ray
            index = density.grid.mm_to_index(at[:, ::-1]).T
            there = np.all((index >= -0.5) & (index <= np.array(density.grid.shape_zyx)[:, None] - 0.5), axis=0)
            value = np.where(there, map_coordinates(density.relative.astype(float), index, order=1, mode="nearest"), 0)
            mean = 0.5 * (value + np.append(0.0, value[:-1]))
            out[i, :, j] = np.cumsum(mean) * fan.spacing_mm[2] * np.linalg.norm(ray)
    return out


@pytest.mark.parametrize(("gantry", "couch"), [(30.0, 0.0), (200.0, 35.0), (88.0, 91.0), (70.0, 60.0)])
def test_depths_are_sums_along_each_ray_from_where_the_ct_begins(gantry: float, couch: float) -> None:
    rng = np.random.default_rng(3)
    grid = Grid((12, 15, 11), (6.0, 5.0, 7.0), (-40.0, -25.0, -37.0))
    # Smooth, but for its edges; no two axes alike.
    coarse = rng.uniform(0.2, 1.6, (4, 5, 3))
    index = np.stack(np.meshgrid(*(np.linspace(0, n - 1, m) for n, m in zip(coarse.shape, grid.shape_zyx, strict=True)),
                                 indexing="ij"))  # fmt: skip
    density = DensityMap(map_coordinates(coarse, index, order=1).astype(np.float32), grid)
    frame = frame_of(gantry, couch, (3.0, 2.0, -5.0))
    fan = trace_fan(density, frame, BOX, 40.0, 3.0)
    wanted = depths_of(density, fan)
    assert fan.depth_mm.dtype == np.float32
    # At the rim of the voxels a last digit decides whether a sample counts: half a step.
    off = np.abs(fan.depth_mm - wanted)
    assert np.mean(off < 1e-2) > 0.97
    assert off.max() < 5.0
    assert wanted.max() > 50.0
    # The fan's planes hold the axis that the beam crosses most squarely.
    axis = int(np.argmin(np.abs(frame.down_xyz)))
    assert fan.frame.along_xyz.tolist() == np.eye(3)[axis].tolist()
    assert fan.frame.source_xyz_mm.tolist() == frame.source_xyz_mm.tolist()
    axes = np.stack([fan.frame.across_xyz, fan.frame.along_xyz, -fan.frame.down_xyz])
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1.0)


def test_a_fan_covers_the_points_within_reach_and_begins_before_the_ct() -> None:
    grid = Grid((5, 40, 5), (50.0, 5.0, 50.0), (-100.0, -50.0, -100.0))
    water = DensityMap(np.ones(grid.shape_zyx, np.float32), grid)
    fan = trace_fan(water, frame_of(0.0), BOX, 20.0)
    # Planes hold x, so that the fan's own x is -z. From the source 1 m before the isocentre -12 mm at y = 4 are -11.95
    # in its plane and 18 mm -17.93; 25 and -30 mm are beyond the reach of 20 mm at any depth.
    assert fan.start_mm == pytest.approx([-18.0 / 1.004, -12.0 / 1.004, 1000.0 - 50.0 - 4.0])
    assert fan.spacing_mm.tolist() == [4.0, 4.0, 4.0]
    ends = fan.start_mm + fan.spacing_mm * (np.array(fan.depth_mm.shape)[[0, 2, 1]] - 1)
    # The last voxels' centres lie at 145 mm, beyond the box.
    assert np.all(ends >= [20.0, 20.0, 1070.0])
    assert np.all(ends - fan.spacing_mm < [20.0, 20.0, 1070.0])
    middle = fan.depth_mm[3, :, 5]
    # Surface at y = -52.5 mm; the sum is as deep as the way through water.
    at = fan.start_mm[2] + 4.0 * np.arange(len(middle)) - 1000.0
    assert middle[at > -45] == pytest.approx(at[at > -45] + 52.5, abs=2.5)
    # Where the CT begins beyond the points, rays begin at the points.
    deep = DensityMap(water.relative, Grid((5, 40, 5), (50.0, 5.0, 50.0), (-100.0, 150.0, -100.0)))
    assert trace_fan(deep, frame_of(0.0), BOX, 20.0, 2.0).start_mm[2] == pytest.approx(1004.0)
    point = trace_fan(deep, frame_of(0.0), np.array([[0.0, 200.0, 0.0]] * 2), 20.0)
    assert point.depth_mm.shape[0] == point.depth_mm.shape[2] == 2


def test_beams_with_electrons_are_sampled_twice_as_densely(machine: Machine) -> None:
    assert (fan_step_mm(machine.beam), fan_step_mm(load_machine("tissue").beam)) == (4.0, 2.0)


def test_the_ladder_has_two_three_and_two_widths_more_in_even_ratios(machine: Machine) -> None:
    beam = machine.beam.model_copy(update={"sigma_mm": [16.0, 2.0, 8.0, 54.0]})
    ladder = ladder_of(beam)
    # One between 2 and 8, three between 8 and 16, two between 16 and 54, two beyond.
    more = [4.0, *(8.0 * 2 ** (k / 4) for k in (1, 2, 3)), 24.0, 36.0, 54 * 1.8, 54 * 1.8**2]
    assert sum(ladder.groups, ()) == pytest.approx((16.0, 2.0, 8.0, 54.0, *more))
    assert [len(group) for group in ladder.groups] == [4, 4, 4]
    assert np.sqrt(ladder.variance) == pytest.approx(sorted([16.0, 2.0, 8.0, 54.0, *more]))
    assert ladder.slot.tolist() == [1, 4, 2, 5, 6, 7, 0, 8, 9, 3, 10, 11]
    variance, slot, what, stretched = ladder.rule
    assert variance is ladder.variance
    assert slot is ladder.slot
    own = np.array([256.0, 4.0, 64.0, 2916.0])
    assert what == pytest.approx(np.stack([own, 0.49 * own, [1.0, 0.47, 1.0, 1.0]]))
    assert stretched == pytest.approx([1.1, 1.2])
    assert by_rank([1, 2, 3, 4], [16.0, 2.0, 8.0, 54.0]).tolist() == [3, 1, 2, 4]


def test_stretch_follows_the_density_step_by_step_and_begins_under_the_skin(machine: Machine) -> None:
    sigma = [16.0, 2.0, 8.0, 54.0]
    beam = machine.beam.model_copy(update={"sigma_mm": sigma, "follows_density": True})
    rng = np.random.default_rng(6)
    steps = rng.choice([0.0, 0.004, 0.1, 0.5, 1.1], size=(3, 40, 2)) * 5.0
    # One column stands at just 5 mm, which is still skin.
    steps[:, :3] = 4.0
    steps[:, :2, 1] = 5.0
    depth = np.cumsum(steps, axis=1).astype(np.float32)
    fan = Fan(depth, frame_of(0.0), np.array([-300.0, 200.0, 900.0]), np.array([250.0, 90.0, 5.0]))
    found = stretch_fan(fan, beam)
    assert found is not None
    assert (found.shape, found.dtype) == ((4, 3, 40, 2), np.float32)
    for g, length in enumerate((17.8, 1.65, 1.65, 52.2)):
        for i, x in enumerate((-300.0, -50.0, 200.0)):
            for j, y in enumerate((200.0, 290.0)):
                way, wanted = 5.0 * np.sqrt(1 + (x**2 + y**2) / 1e6), [1.0]
                for k in range(1, 40):
                    lost = (depth[i, k, j] - depth[i, k - 1, j]) / length
                    mean = (1 - np.exp(-lost)) / lost if lost > 1e-6 else 1.0
                    grown = min(max(wanted[-1] * np.exp(-lost) + way / length * mean, 1.0), MOST_STRETCH)
                    wanted.append(grown if depth[i, k - 1, j] > 5.0 else 1.0)
                assert found[g, i, :, j] == pytest.approx(wanted, rel=1e-3), g
    water = Fan(np.cumsum(np.full((3, 40, 2), 5.5), axis=1).astype(np.float32), fan.frame, fan.start_mm, fan.spacing_mm)
    assert stretch_fan(water, beam) is None
    assert stretch_fan(fan, machine.beam) is None
