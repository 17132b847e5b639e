"""Grids of gamma: the posed problem written out, points that are asked, search offsets, lattices, threads."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest

from doseledger.dosimetry.gamma import grids, lattices, samples, threads
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair, pose_problem
from doseledger.dosimetry.gamma.points import Bounds, fill_points, open_points
from doseledger.dosimetry.gamma.reference import _window

CRITERIA = GammaCriteria(3.0, 2.0, 20.0, local=False, interp_fraction=10, max_gamma=2.0)


def volume_pair() -> DosePair:
    """Reference voxels of 4, 3, 5 mm on an evaluation grid of 2, 3, 2.5 mm that begins elsewhere."""
    reference = np.arange(60.0).reshape(3, 4, 5)
    evaluation = np.arange(336.0).reshape(6, 7, 8)
    axes = [4.0 * np.arange(3) + 2, 3.0 * np.arange(4) - 6, 5.0 * np.arange(5)]
    others = [2.0 * np.arange(6), 3.0 * np.arange(7) - 9, 2.5 * np.arange(8) + 5]
    return DosePair(axes, reference, others, evaluation)


def test_a_posed_problem_has_every_number_of_its_grids_and_criteria() -> None:
    problem = pose_problem(volume_pair(), CRITERIA)
    assert problem._replace(reference=0, evaluation=0, axis0_mm=0, axis1_mm=0, axis2_mm=0)[5:] == (
        (3, 4, 5), (6, 7, 8), (0.0, -9.0, 5.0), (10.0, 9.0, 22.5), (2.0, 3.0, 2.5), (2, 1, 2),
        pytest.approx(0.03 * 59), 0.03, pytest.approx(0.2 * 59),
    )  # fmt: skip
    assert [axis.tolist() for axis in problem.axes_mm] == [[2, 6, 10], [-6, -3, 0, 3], [0, 5, 10, 15, 20]]
    assert (problem.reference.shape, problem.evaluation.shape) == ((60,), (336,))
    assert problem.evaluation[:9].tolist() == list(range(9))
    local = pose_problem(volume_pair(), replace(CRITERIA, local=True, normalisation_gy=50.0))
    assert (local.threshold_gy, local.local_fraction, local.cutoff_gy) == (0.0, 0.03, pytest.approx(10.0))


@pytest.mark.parametrize(
    ("step_mm", "stride"),
    [
        ((4.0, 3.0, 5.0), (2, 1, 2)),
        ((3.0, 3.0, 5.0), (0, 0, 0)),
        ((4.0, 2.0, 5.0), (0, 0, 0)),
        ((4.0, 3.0, 4.0), (0, 0, 0)),
    ],
)
def test_grids_are_commensurate_on_all_axes_or_on_none(step_mm, stride) -> None:
    pair = volume_pair()
    axes = [step * np.arange(n) for step, n in zip(step_mm, (3, 4, 5), strict=True)]
    assert pose_problem(replace(pair, axes_reference_mm=axes), CRITERIA).stride == stride


def test_a_plane_has_a_missing_first_axis_and_keeps_the_order_of_the_others() -> None:
    pair = volume_pair()
    plane = DosePair(
        pair.axes_reference_mm[1:], pair.reference_gy[2], pair.axes_evaluation_mm[1:], pair.evaluation_gy[1]
    )
    problem = pose_problem(plane, CRITERIA)
    assert (problem.reference_shape, problem.evaluation_shape) == ((1, 4, 5), (1, 7, 8))
    assert (problem.start_mm, problem.stop_mm, problem.spacing_mm) == ((0, -9, 5), (0, 9, 22.5), (1, 3, 2.5))
    assert problem.axis0_mm.tolist() == [0.0]


def test_distances_to_the_evaluation_grid_are_those_to_its_box() -> None:
    problem = pose_problem(volume_pair(), CRITERIA)
    # x from 5 to 22.5 mm, y from -9 to 9, z from 0 to 10: only x = 0 lies beside it.
    assert grids.distance_to_evaluation_mm(problem, np.array([0, 1, 59, 40])).tolist() == [5.0, 0.0, 0.0, 5.0]
    beside = problem._replace(start_mm=(4.0, -2.0, 5.0), stop_mm=(5.0, 2.0, 9.0))
    # (2, -6, 0): 2, 4 and 5 mm off; (10, 3, 20): 5, 1 and 11 mm.
    found = grids.distance_to_evaluation_mm(beside, np.array([0, 59]))
    assert found.tolist() == pytest.approx([45**0.5, 147**0.5])
    inside = problem._replace(start_mm=(0.0, -9.0, 0.0))
    assert grids.distance_to_evaluation_mm(inside, np.array([0])) is None


def test_the_farthest_point_of_the_evaluation_grid_is_at_the_far_corner() -> None:
    # z: 2 to 10 and 10 to 0: 10; y: -6 to 9: 15; x: 0 to 22.5: 22.5.
    found = grids.farthest_mm(pose_problem(volume_pair(), CRITERIA))
    assert found == pytest.approx((10**2 + 15**2 + 22.5**2) ** 0.5)


def test_the_reference_begins_at_a_voxel_of_the_evaluation_grid_or_shares_none() -> None:
    problem = pose_problem(volume_pair(), CRITERIA)
    assert grids.shift_voxels(problem).tolist() == [1.0, 1.0, -2.0]
    assert grids.shared_voxel(problem) == (1, 1, -2)
    assert grids.shared_voxel(problem._replace(start_mm=(0.0, -8.0, 5.0))) is None
    assert grids.shared_voxel(problem._replace(stride=(0, 0, 0))) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_at_the_cutoff_are_counted_and_those_below_it_are_not(dtype: type) -> None:
    dose = np.array([[7.0, 6.999, 70.0], [0.0, 7.001, 30.0]], dtype)
    pair = DosePair.on_one_grid(dose, dose, (1.0, 1.0))
    criteria = replace(CRITERIA, cutoff_percent=10.0)
    assert grids.counted_points(pair, criteria).tolist() == [0, 2, 4, 5]
    mask = np.array([[True, True, False], [True, True, True]])
    assert grids.counted_points(replace(pair, mask=mask), criteria).tolist() == [0, 4, 5]
    assert grids.counted_points(pair, replace(criteria, normalisation_gy=300.0)).tolist() == [2, 5]
    # A third of 0.3 Gy is no number of float32: what lies just below it is below it in either type.
    third = dtype(0.1)
    near = np.array([np.nextafter(third, dtype(0)), third, np.nextafter(third, dtype(1)), dtype(0.3)])
    line = DosePair.on_one_grid(near, near, (1.0,))
    limit = replace(criteria, cutoff_percent=100.0, normalisation_gy=0.1)
    assert grids.counted_points(line, limit).tolist() == [i for i in range(4) if np.float64(near[i]) >= 0.1]


@pytest.mark.parametrize("part_points", [7, 100_000])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(("stride", "first"), [((2, 1, 2), (1, 1, -2)), ((1, 1, 1), (-1, 2, 3)), ((1, 2, 1), None)])
def test_open_points_are_those_that_their_own_voxel_does_not_finish(
    part_points, local, stride, first, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doseledger.dosimetry.gamma.points.PART_POINTS", part_points)
    rng = np.random.default_rng(3)
    reference, evaluation = rng.integers(0, 6, (3, 4, 5)).astype(float), rng.integers(0, 6, (6, 7, 8)).astype(float)
    problem = pose_problem(replace(volume_pair(), reference_gy=reference, evaluation_gy=evaluation), CRITERIA)
    threshold = 0.0 if local else 2.0
    problem = problem._replace(
        stride=stride, threshold_gy=threshold, local_fraction=0.5, cutoff_gy=0.0 if local else 1.0
    )
    mask = rng.random(60) < 0.8
    gamma, bounds = np.full(60, np.nan), Bounds(4.0, 0.3)
    found = open_points(problem, mask, bounds, first, gamma)
    counted, asked, points = 0, 0, []
    wanted = np.full(60, np.nan)
    for n, index in enumerate(itertools.product(range(3), range(4), range(5))):
        dose = reference[index]
        if not mask[n] or dose < problem.cutoff_gy:
            continue
        counted += 1
        if local and dose == 0:
            continue
        asked += 1
        squared = 4.0
        if first is not None:
            voxel = tuple(f + i * s for f, i, s in zip(first, index, stride, strict=True))
            if all(0 <= v < size for v, size in zip(voxel, evaluation.shape, strict=True)):
                squared = min(4.0, ((evaluation[voxel] - dose) / (0.5 * dose if local else 2.0)) ** 2)
        points += [n] if squared > 0.3 else []
        wanted[n] = squared if squared > 0.3 else squared**0.5
    assert (found.points.tolist(), found.n_counted, found.n_asked) == (points, counted, asked)
    assert gamma == pytest.approx(wanted, nan_ok=True)
    everyone = open_points(problem, np.empty(0, bool), bounds, first, np.empty(0))
    assert everyone.n_counted == np.count_nonzero(reference >= problem.cutoff_gy)


def test_found_points_are_laid_out_with_their_root_and_unreached_ones_are_nan() -> None:
    gamma = np.zeros(6)
    fill_points(gamma, np.array([1, 2, 4, 5]), np.array([0.25, 1e300, 9.0, 1e299]), 2.0)
    assert gamma == pytest.approx([0.0, 0.5, np.nan, 0.0, 2.0, 2.0], nan_ok=True)


# --- search offsets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gamma_mm", "fraction", "reach_mm", "wanted"),
    [
        (3.0, 4.5, 4.0, [0, 2 / 3, 4 / 3, 2, 8 / 3, 3, 11 / 3]),
        (2.0, 2.0, 3.5, [0, 1, 2, 3]), (2.0, 2.0, 4.0, [0, 1, 2, 3, 4]),
        # Ten steps of 0.1 stop short of 1, which follows as a shell of its own.
        (1.0, 10.0, 1.15, [0, *(0.1 * k for k in range(1, 10)), 1.0 - 1.1e-16, 1.0, 1.1]),
    ],
)  # fmt: skip
def test_search_distances_rise_by_steps_and_meet_the_criterion(gamma_mm, fraction, reach_mm, wanted) -> None:
    found = list(samples.search_distances_mm(gamma_mm, fraction, reach_mm))
    assert found == pytest.approx(wanted)
    assert gamma_mm in found


def test_offsets_of_a_line_a_circle_and_a_sphere() -> None:
    assert [piece.tolist() for piece in samples._shell_pieces(0.0, 0.5, 1)] == [[[0.0], [0.0], [0.0]]]
    assert [piece.tolist() for piece in samples._shell_pieces(1.5, 0.5, 1)] == [[[0, 0], [0, 0], [1.5, -1.5]]]
    (circle,) = samples._shell_pieces(1.0, 0.5, 2)
    # ceil(4 π) + 1 = 14 directions.
    angle = 2 * np.pi * np.arange(14) / 14
    assert circle == pytest.approx(np.stack([np.zeros(14), np.cos(angle), np.sin(angle)]))
    (sphere,) = samples._shell_pieces(1.0, 0.5, 3)
    # ceil(2 π) + 1 = 8 rows from pole to pole, each with ceil(4 π sin) + 1 places.
    rows = np.linspace(0, np.pi, 8)
    counts = [int(np.ceil(4 * np.pi * np.sin(row))) + 1 for row in rows]
    assert sphere.shape == (3, sum(counts))
    assert sphere[2] == pytest.approx(np.repeat(np.cos(rows), counts))
    at = int(np.cumsum(counts)[2])
    azimuth = 2 * np.pi * np.arange(counts[3]) / counts[3]
    assert sphere[0, at : at + counts[3]] == pytest.approx(np.sin(rows[3]) * np.cos(azimuth))
    assert sphere[1, at : at + counts[3]] == pytest.approx(np.sin(rows[3]) * np.sin(azimuth))


def test_a_large_sphere_comes_in_pieces_of_whole_rows_that_make_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = samples._sphere_pieces(3.0, 0.5)
    monkeypatch.setattr(samples, "BLOCK_SAMPLES", 60)
    pieces = list(samples._sphere_pieces(3.0, 0.5))
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)
    assert len(pieces) > 5
    assert all(piece.shape[1] <= 60 for piece in pieces)
    assert all(len(np.unique(np.round(piece[2], 9))) > 1 or piece.shape[1] > 25 for piece in pieces[1:-1])


def test_blocks_hold_about_as_many_samples_as_they_may_and_all_shells_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "BLOCK_SAMPLES", 300)
    blocks = list(samples.sample_blocks(3.0, 4.5, 4.0, 2, first_samples=20))
    sizes = [len(block.shell) for block in blocks]
    # Circles of 1, 8, 14, 20, 27, 30 and 36 directions: the first block is full after 23, the second takes the rest.
    assert sizes == [23, 113]
    shells = np.concatenate([block.shell for block in blocks])
    assert np.bincount(shells).tolist() == [1, 8, 14, 20, 27, 30, 36]
    squared = np.concatenate([block.distance_squared for block in blocks])
    offsets = np.concatenate([block.offsets_mm for block in blocks], axis=1)
    assert squared == pytest.approx((offsets**2).sum(axis=0) / 9)
    assert {block.shells_per_gamma for block in blocks} == {4.5}
    later = list(samples.sample_blocks(3.0, 4.5, 4.0, 2, from_mm=1.3, first_samples=1000))
    assert [sorted(set(block.shell.tolist())) for block in later] == [[2, 3, 4, 5, 6]]


def test_samples_are_grouped_by_cell_nearest_first_and_filled_up_to_whole_chunks() -> None:
    block = next(samples.sample_blocks(3.0, 4.5, 4.0, 3, first_samples=100_000))
    spacing, shift = np.array([2.0, 3.0, 2.5]), np.array([0.3, 0.0, -2.25])
    table = samples.group_by_cell(block, shift, spacing, 3.0)
    position = block.offsets_mm / spacing[:, None] + shift[:, None]
    cell_of = np.floor(position).astype(int)
    assert table.sigma == (2 / 3, 1.0, 2.5 / 3)
    assert (table.first_shell, table.shells_per_gamma) == (0, 4.5)
    assert table.distances == pytest.approx(np.array([0, 2 / 3, 4 / 3, 2, 8 / 3, 3, 11 / 3]) / 3)
    assert len(table.cells) == len(np.unique(cell_of.T, axis=0))
    assert np.all(np.diff(table.nearest_squared) >= 0)
    for number, cell in enumerate(table.cells):
        inside = np.flatnonzero((cell_of == cell[:, None]).all(axis=0))
        first, last = table.starts[number : number + 2]
        assert (last - first) % samples.CHUNK == 0
        assert 0 <= last - first - len(inside) < samples.CHUNK
        found = table.samples[:, first : first + len(inside)]
        assert found[:3] == pytest.approx(position[:, inside] - cell[:, None] - 0.5)
        assert found[3] == pytest.approx(block.distance_squared[inside])
        assert found[4:] == pytest.approx(block.offsets_mm[:, inside])
        assert np.all(table.samples[:, first + len(inside) : last] == found[:, -1:])
        assert table.nearest_squared[number] == block.distance_squared[inside].min()
        wanted = [np.count_nonzero(block.shell[inside] < k) for k in range(8)]
        assert table.counts[number].tolist() == wanted
        assert table.centres[number] == pytest.approx(shift - cell - 0.5)


def test_a_near_table_holds_the_eight_cells_mirrored_and_a_sample_for_every_bin() -> None:
    block = next(samples.sample_blocks(3.0, 6.0, 4.0, 3, first_samples=100_000))
    spacing = np.array([2.0, 3.0, 0.4])
    near = samples.near_table(block, (1, -1, 2), spacing, 3.0)
    assert sorted(map(tuple, (near.table.cells - (1, -1, 2)).tolist())) == list(itertools.product((-1, 0), repeat=3))
    # A search step is 0.5 mm: 4, 6 and 0.8 of them along a cell.
    assert (near.bins, near.first_cell) == ((4, 6, 1), (1, -1, 2))
    sides = np.repeat((near.table.cells - (1, -1, 2)).T, np.diff(near.table.starts), axis=1)
    assert near.samples[:3] == pytest.approx(np.where(sides < 0, -1, 1) * near.table.samples[:3])
    assert near.samples[3] == pytest.approx(near.table.samples[3])
    assert samples.near_table(block, (0, 0, 0), np.array([30.0, 3.0, 2.0]), 3.0).bins == (8, 6, 4)
    guess = near.guess.reshape(8, 4, 6, 1)
    for cell in range(8):
        first, last = near.table.starts[cell : cell + 2]
        assert guess[cell].min() >= first
        assert guess[cell].max() < last
        place = near.samples[:3, first:last]
        bins = np.minimum(((place + 0.5) * [[4], [6], [1]]).astype(int), [[3], [5], [0]])
        for k, at in enumerate(itertools.product(range(4), range(6), range(1))):
            here = np.flatnonzero((bins == np.array(at)[:, None]).all(axis=0))
            before = guess[cell].ravel()[k - 1] if k else first
            assert guess[cell][at] == (first + here[-1] if len(here) else before)


def test_what_is_far_is_what_the_near_table_does_not_hold() -> None:
    block = next(samples.sample_blocks(3.0, 4.5, 4.0, 3, first_samples=100_000))
    spacing = np.array([2.0, 3.0, 2.5])
    inner = block._replace(
        offsets_mm=block.offsets_mm[:, block.shell < 4], shell=block.shell[block.shell < 4],
        distance_squared=block.distance_squared[block.shell < 4],
    )  # fmt: skip
    near = samples.near_table(inner, (2, 1, 0), spacing, 3.0)
    far = samples.far_samples(block, near, spacing)
    cell = np.floor(block.offsets_mm / spacing[:, None])
    is_near = ((cell >= -1) & (cell <= 0)).all(axis=0) & (block.shell < 4)
    assert np.array_equal(far.offsets_mm, block.offsets_mm[:, ~is_near])
    assert np.array_equal(far.shell, block.shell[~is_near])
    assert np.array_equal(far.distance_squared, block.distance_squared[~is_near])
    outer = block._replace(
        offsets_mm=block.offsets_mm[:, block.shell > 3], shell=block.shell[block.shell > 3],
        distance_squared=block.distance_squared[block.shell > 3],
    )  # fmt: skip
    assert samples.far_samples(outer, near, spacing) is outer


# --- lattices and threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step_mm", "size", "period"),
    [
        (2.5, 13, 6),
        (2.5, 12, 6),
        (2.5, 11, 0),
        (2.0, 9, 3),
        (3.0, 9, 1),
        (6.0, 9, 1),
        (1.0, 6, 3),
        (1.0, 5, 0),
        (np.pi, 40, 0),
        (1.0, 1, 1),
    ],
)
def test_an_axis_meets_a_spacing_of_3_mm_alike_after_its_period(step_mm: float, size: int, period: int) -> None:
    assert lattices._period(0.7 + step_mm * np.arange(size), 3.0) == period


@pytest.mark.parametrize(("size", "n_cuts"), [(600, 3), (599, 0)])
def test_lattices_are_cut_where_each_has_two_hundred_points(size: int, n_cuts: int) -> None:
    pair = DosePair([2.0 * np.arange(size)], np.ones(size), [3.0 * np.arange(500)], np.ones(500))
    cuts = lattices.lattice_cuts(pose_problem(pair, CRITERIA), 1)
    assert cuts == [(slice(first, None, 3),) for first in range(n_cuts)]
    alike = replace(pair, axes_evaluation_mm=[2.0 * np.arange(500)])
    assert lattices.lattice_cuts(pose_problem(alike, CRITERIA), 1) == []


def test_threads_are_as_many_as_points_and_cores_are_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", 4)
    assert [threads._n_threads(n) for n in (0, 4_999, 5_000, 10_000, 1_000_000)] == [0, 0, 1, 2, 4]
    where = threading.get_ident()
    assert threads.call_on_parts(lambda part: threading.get_ident() == where, [1, 2], n_points=9_999) == [True, True]
    assert threads.call_on_parts(lambda part: threading.get_ident() == where, [1, 2], n_points=10_000) == [False, False]
    assert threads.call_on_parts(lambda part: -part, [3, 1, 2], n_points=10_000) == [-3, -1, -2]


@pytest.mark.parametrize(("n", "n_parts"), [(9_999, 1), (10_000, 16), (20_000, 32)])
def test_a_search_is_cut_into_eight_parts_a_thread_and_lowers_in_place(n, n_parts, monkeypatch) -> None:
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", 4)
    seen: list[int] = []

    def search(points: np.ndarray, best: np.ndarray, by: float) -> None:
        seen.append(len(points))
        best -= by * points

    points, best = np.arange(n), np.zeros(n)
    threads.search_in_threads(search, points, best, 2.0)
    assert len(seen) == n_parts
    assert best.tolist() == (-2.0 * points).tolist()


# --- the window of a check by pymedphys ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place_mm", "reach_mm", "window"),
    [
        (20.0, 6.0, (5, 15)),
        (20.0, 0.0, (8, 12)),
        (1.0, 3.0, (0, 4)),
        (38.5, 1.0, (17, 20)),
        (-50.0, 5.0, (0, 2)),
        (90.0, 5.0, (18, 20)),
    ],
)
def test_a_window_holds_what_is_within_reach_and_two_positions_more(place_mm, reach_mm, window) -> None:
    assert _window(2.0 * np.arange(20), place_mm, reach_mm) == slice(*window)
