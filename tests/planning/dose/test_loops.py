"""Compiled loops against the same in plain numpy: oblique frames, uneven spacings, points within and beyond reach."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from doseledger.planning.dose import loops
from doseledger.planning.dose.kernels import depth_table, spread_for
from doseledger.planning.dose.raytrace import Fan
from doseledger.planning.dose.stretch import Ladder, ladder_of
from doseledger.planning.dose.view import reach_mm, view_of
from doseledger.planning.machine.geometry import BeamFrame, beam_frame, turned
from doseledger.planning.machine.linac import Machine

# More than two blocks of the loop over points, and no multiple of one.
N = 2 * loops.BLOCK + 77
COLLIMATORS = (25.0, 340.0, 0.0)


@pytest.fixture(scope="module")
def scene(machine: Machine) -> SimpleNamespace:
    """One direction, oblique in every axis, a fan of random depths, three fields, and points about them."""
    rng = np.random.default_rng(4)
    arc: Any = SimpleNamespace(couch_deg=20.0, isocentre_xyz_mm=(7.0, -11.0, 23.0))
    frame = beam_frame(arc, 33.0, 1000.0)
    own_arc: Any = SimpleNamespace(couch_deg=8.0, isocentre_xyz_mm=(0.0, 0.0, 0.0))
    tilted = beam_frame(own_arc, 40.0, 1000.0)
    own = BeamFrame(frame.source_xyz_mm, tilted.across_xyz, tilted.along_xyz, tilted.down_xyz, 1000.0)
    depth = np.cumsum(rng.uniform(0.0, 30.0, (7, 9, 6)), axis=1).astype(np.float32)
    centre = own.project(np.array([[7.0, -11.0, 23.0]]))[0]
    fan = Fan(depth, own, centre - np.array([14.0, 11.0, 45.0]), np.array([5.0, 4.0, 11.0]))
    spreads = [spread_for(machine, (-31.0, 22.0 + k), (-17.0, 28.0), 3.0, 12.0) for k in range(3)]
    points = rng.uniform([-45, -60, -30], [60, 40, 75], (N, 3)).astype(np.float32)
    views = np.stack([view_of(frame, fan, s, c) for s, c in zip(spreads, COLLIMATORS, strict=True)])
    return SimpleNamespace(frame=frame, fan=fan, spreads=spreads, points=points, views=views, rng=rng,
                           rows=np.ascontiguousarray(points.T), table=depth_table(machine.beam),
                           ladder=ladder_of(machine.beam))  # fmt: skip


def in_fan(scene: SimpleNamespace, values: np.ndarray) -> np.ndarray:
    """A fan's values at the points; its edge holds beyond it."""
    seen = scene.fan.frame.project(scene.points)
    index = ((seen - scene.fan.start_mm) / scene.fan.spacing_mm).T
    return map_coordinates(values.astype(float), index[[0, 2, 1]], order=1, mode="nearest")


def weights_of(scene: SimpleNamespace) -> np.ndarray:
    """Depth dose times inverse square, (point, gaussian)."""
    square = (1000.0 / scene.frame.project(scene.points)[:, 2]) ** 2
    entry = in_fan(scene, scene.fan.depth_mm) / 1.0
    table = [np.interp(entry, np.arange(len(scene.table)), column) for column in scene.table.T]
    return square[:, None] * np.stack(table, axis=1)


def place_of(scene: SimpleNamespace, field: int) -> tuple[np.ndarray, np.ndarray]:
    """Line and column of the points on a field's map."""
    spread = scene.spreads[field]
    seen = turned(scene.frame.project(scene.points), COLLIMATORS[field])
    column, line = ((seen - spread.start_mm) / spread.spacing_mm).T
    return line, column


def corners(scene: SimpleNamespace, field: int, shape: tuple[int, ...]) -> list[tuple[np.ndarray, ...]]:
    """Points that see a map, and each of the four nodes about them with its share."""
    line, column = place_of(scene, field)
    seen = (line >= 0) & (line < shape[0] - 1) & (column >= 0) & (column < shape[1] - 1)
    y, x = np.floor(line[seen]).astype(int), np.floor(column[seen]).astype(int)
    down, across = line[seen] - y, column[seen] - x
    return [
        (np.flatnonzero(seen), y + j, x + i, (down if j else 1 - down) * (across if i else 1 - across))
        for j in (0, 1)
        for i in (0, 1)
    ]


def dose_of(scene: SimpleNamespace, field: int, weight: np.ndarray, maps: np.ndarray) -> np.ndarray:
    dose = np.zeros(N)
    for at, y, x, share in corners(scene, field, maps.shape):
        dose[at] += share * (weight[at] * maps[y, x]).sum(axis=1)
    return dose


def located(scene: SimpleNamespace, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    node, share = np.empty((3, N), np.int32), np.empty((3, 2, N), np.float32)
    for field in range(3):
        loops.locate(scene.rows, scene.views[field], shape, node[field], share[field])
    return node, share


def test_weights_are_the_depth_dose_at_the_depth_of_the_fan_times_the_inverse_square(scene: SimpleNamespace) -> None:
    found = np.empty((N, 4), np.float32)
    loops.weigh(scene.rows, scene.views[0], scene.fan.depth_mm, scene.table, found)
    assert found == pytest.approx(weights_of(scene), rel=2e-3, abs=1e-5)
    # Many points lie beyond the fan, and see its edge.
    index = (scene.fan.frame.project(scene.points) - scene.fan.start_mm) / scene.fan.spacing_mm
    beyond = (index < 0).any(axis=0) & (index > np.array(scene.fan.depth_mm.shape)[[0, 2, 1]] - 1).any(axis=0)
    assert beyond.all()


def test_beyond_the_table_of_depths_its_last_entry_holds(scene: SimpleNamespace) -> None:
    found = np.empty((N, 4), np.float32)
    loops.weigh(scene.rows, scene.views[0], np.full((7, 9, 6), 5000.0, np.float32), scene.table, found)
    square = (1000.0 / scene.frame.project(scene.points)[:, 2]) ** 2
    assert found == pytest.approx(square[:, None] * scene.table[-1], rel=1e-3)


def test_a_point_lies_between_four_nodes_of_a_map_or_out_of_reach(scene: SimpleNamespace) -> None:
    shape = scene.spreads[0].shape
    node, share = located(scene, shape)
    for field in range(3):
        line, column = place_of(scene, field)
        seen = (line >= 0) & (line < shape[0] - 1) & (column >= 0) & (column < shape[1] - 1)
        # At the very edge the last digit decides.
        sure = np.abs(np.stack([line, column, line - shape[0] + 1, column - shape[1] + 1])).min(axis=0) > 1e-3
        assert 100 < seen.sum() < N - 100
        assert np.array_equal((node[field] >= 0)[sure], seen[sure])
        both = seen & (node[field] >= 0)
        y, x = np.divmod(node[field][both] // 4, shape[1])
        assert (node[field][both] % 4 == 0).all()
        assert x + share[field, 0, both] == pytest.approx(column[both], abs=1e-3)
        assert y + share[field, 1, both] == pytest.approx(line[both], abs=1e-3)
        assert share[field].min() >= 0


def test_gathered_and_scattered_are_shares_of_four_nodes_and_four_gaussians(scene: SimpleNamespace) -> None:
    rng = np.random.default_rng(5)
    shape = scene.spreads[0].shape
    maps = rng.random((3, *shape, 4)).astype(np.float32)
    weight = rng.random((N, 4)).astype(np.float32)
    node, share = located(scene, shape)
    dose = np.full(N, 3.0, np.float32)
    loops.gather(node, share, weight, maps, dose)
    wanted = 3.0 + sum(dose_of(scene, field, weight, maps[field]) for field in range(3))
    assert dose == pytest.approx(wanted, abs=2e-3)
    chosen, slope = np.arange(1, N, 3, dtype=np.int32), rng.normal(size=N).astype(np.float32)
    few, rest = np.full(N, 3.0, np.float32), np.setdiff1d(np.arange(N), chosen)
    loops.gather_some(node[1], share[1], weight[chosen], chosen, maps[1], few)
    assert few[chosen] == pytest.approx(3.0 + dose_of(scene, 1, weight, maps[1])[chosen], abs=2e-3)
    assert (few[rest] == 3.0).all()
    wanted_maps = np.full((*shape, 4), 0.5)
    for at, y, x, part in corners(scene, 1, (*shape, 4)):
        kept = np.isin(at, chosen)
        value = (part * slope[at])[kept, None] * weight[at[kept]]
        np.add.at(wanted_maps, (y[kept], x[kept]), value)
    for scatter, own in ((loops.scatter, weight), (loops.scatter_some, weight[chosen])):
        found = np.full((*shape, 4), 0.5, np.float32)
        scatter(node[1], share[1], own, slope, chosen, found)
        assert found == pytest.approx(wanted_maps, abs=2e-3)


def test_dose_is_the_sum_over_fields_and_over_all_blocks_of_points(scene: SimpleNamespace) -> None:
    shape = scene.spreads[0].shape
    maps = np.random.default_rng(6).random((3, *shape, 4)).astype(np.float32)
    dose = np.ones(N, np.float32)
    loops.add_dose(scene.rows, scene.views, scene.fan.depth_mm, scene.table, maps, dose)
    weight = weights_of(scene)
    wanted = sum(dose_of(scene, field, weight, maps[field]) for field in range(3))
    assert dose - 1.0 == pytest.approx(wanted, rel=3e-3, abs=2e-3 * wanted.max())


def spread_out(scene: SimpleNamespace, stretch: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights in the beam's own and in the ladder's other widths, and how many points have any, by the paper's rule."""
    ladder: Ladder = scene.ladder
    variance, slot, what, (least, full) = ladder.rule
    own, free, part = what
    kept, wide, used = weight.astype(float), np.zeros((len(ladder.groups) - 1, N, 4)), 0
    for p, each in enumerate(np.stack([in_fan(scene, one) for one in stretch], axis=1)):
        each = np.where(each < full, 1 + (each - least) * (full - 1) / (full - least), each)
        used += bool((each > 1).any())
        for g in np.flatnonzero(each > 1):
            moved = part[g] * weight[p, g]
            kept[p, g] -= moved
            wanted = min(own[g] + free[g] * (each[g] ** 2 - 1), variance[-1])
            upper = min(max(int(np.searchsorted(variance, wanted)), 1), len(variance) - 1)
            share = (wanted - variance[upper - 1]) / (variance[upper] - variance[upper - 1])
            for s, amount in ((slot[upper - 1], moved * (1 - share)), (slot[upper], moved * share)):
                group = kept if s < 4 else wide[s // 4 - 1]
                group[p, s % 4] += amount
    return kept, wide, used


@pytest.fixture(scope="module")
def stretch(scene: SimpleNamespace) -> np.ndarray:
    """Stretch from nothing to beyond the ladder, another for each Gaussian."""
    most = np.array([1.15, 1.6, 3.0, 9.0])[:, None, None, None]
    return (1.0 + (most - 1.0) * scene.rng.random((4, 7, 9, 6)) ** 3).astype(np.float32)


def test_stretched_weights_go_to_the_two_widths_beside_theirs(scene: SimpleNamespace, stretch: np.ndarray) -> None:
    before = np.random.default_rng(7).random((N, 4)).astype(np.float32)
    weight, wide = before.copy(), np.zeros((len(scene.ladder.groups) - 1, N, 4), np.float32)
    used = loops.spread_out(scene.rows, scene.views[0], stretch, scene.ladder.rule, weight, wide)
    own, others, n_used = spread_out(scene, stretch, before)
    assert abs(used - n_used) <= 2
    assert 100 < used <= N
    assert weight == pytest.approx(own, abs=1e-2)
    assert wide == pytest.approx(others, abs=1e-2)
    assert (others.sum(axis=(1, 2)) > 0).all()


def test_where_nothing_is_stretched_no_weight_moves(scene: SimpleNamespace) -> None:
    before = np.random.default_rng(7).random((N, 4)).astype(np.float32)
    weight, wide = before.copy(), np.zeros((len(scene.ladder.groups) - 1, N, 4), np.float32)
    # Up to 1.1 nothing is stretched.
    flat = np.full((4, 7, 9, 6), 1.0999, np.float32)
    assert loops.spread_out(scene.rows, scene.views[0], flat, scene.ladder.rule, weight, wide) == 0
    assert np.array_equal(weight, before)
    assert not wide.any()


def test_dose_with_stretched_gaussians_takes_each_from_the_maps_of_its_width(
    scene: SimpleNamespace, stretch: np.ndarray
) -> None:
    rng, shape = np.random.default_rng(8), scene.spreads[0].shape
    groups = len(scene.ladder.groups) - 1
    own_maps = rng.random((3, *shape, 4)).astype(np.float32)
    wide_maps = rng.random((groups, 3, *shape, 4)).astype(np.float32)
    dose = np.ones(N, np.float32)
    how, fans = (scene.table, scene.ladder.rule), (scene.fan.depth_mm, stretch)
    loops.add_stretched_dose(scene.rows, scene.views, fans, how, (own_maps, wide_maps), dose)
    own, others, _ = spread_out(scene, stretch, weights_of(scene))
    wanted = sum(dose_of(scene, field, own, own_maps[field]) for field in range(3))
    wanted += sum(dose_of(scene, field, others[g], wide_maps[g, field]) for field in range(3) for g in range(groups))
    assert dose - 1.0 == pytest.approx(wanted, rel=5e-3, abs=3e-3 * wanted.max())


def test_maps_laid_side_by_side_and_parted_again_are_the_same() -> None:
    single = np.random.default_rng(9).random((4, 2, 3, 5)).astype(np.float32)
    together, again = np.empty((2, 3, 5, 4), np.float32), np.empty_like(single)
    loops.interleave(single, together)
    assert np.array_equal(together, np.moveaxis(single, 0, -1))
    loops.part(together, again)
    assert np.array_equal(again, single)


def test_the_maps_of_a_field_are_seen_as_far_as_their_farthest_corner(scene: SimpleNamespace) -> None:
    near: Any = SimpleNamespace(start_mm=(-30.0, -40.0), spacing_mm=2.0, shape=(21, 11))
    far: Any = SimpleNamespace(start_mm=(-10.0, -5.0), spacing_mm=3.0, shape=(31, 21))
    # 3 · 21 − 10 = 53 and 3 · 31 − 5 = 88 mm.
    assert reach_mm([near]) == pytest.approx(50.0)
    assert reach_mm([near, far]) == reach_mm([far, near]) == pytest.approx(np.hypot(53.0, 88.0))
