"""Parts of the sampling of structures, each for itself: interpolation, crossings, hot cells, numbers of points."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.grid import Grid
from doseledger.dosimetry.dvh import slab_dose, slabs, subvoxel
from doseledger.dosimetry.dvh.curves import Dvh, dvh_curves
from doseledger.dosimetry.dvh.slabs import make_slabs

GRID = Grid((12, 24, 28), (3.0, 2.5, 2.0), (-16.5, -28.75, -27.0))


def square(half_x: float, half_y: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return np.array(
        [[x - half_x, y - half_y], [x + half_x, y - half_y], [x + half_x, y + half_y], [x - half_x, y + half_y]]
    )


# --- interpolation ------------------------------------------------------------------------------------------------


def test_a_trilinear_value_weighs_eight_neighbours_and_is_constant_beyond_the_outermost() -> None:
    dose = np.random.default_rng(1).random((3, 4, 5))
    at = subvoxel.trilinear.py_func
    weights = np.einsum("i,j,k->ijk", [0.7, 0.3], [0.4, 0.6], [0.9, 0.1])
    assert at(dose, 1.3, 2.6, 3.1) == pytest.approx((dose[1:3, 2:4, 3:5] * weights).sum())
    assert at(dose, 0.3, 0.6, 0.1) == pytest.approx((dose[:2, :2, :2] * weights).sum())
    for axis, n in enumerate(dose.shape):
        for beyond, edge in ((-0.4, 0), (n - 0.6, n - 1)):
            index: list[float] = [1, 2, 3]
            index[axis] = edge
            wanted = dose[tuple(index)]
            index[axis] = beyond
            assert at(dose, *index) == wanted


def test_the_weights_of_a_catmull_rom_curve_are_those_of_the_books() -> None:
    assert subvoxel._catmull_rom.py_func(0.0) == (0.0, 1.0, 0.0, 0.0)
    assert subvoxel._catmull_rom.py_func(0.5) == pytest.approx((-0.0625, 0.5625, 0.5625, -0.0625))
    assert subvoxel._catmull_rom.py_func(0.25) == pytest.approx((-0.0703125, 0.8671875, 0.2265625, -0.0234375))


def test_a_cubic_value_meets_a_parabola_and_its_own_voxels_and_holds_the_edge() -> None:
    z, y, x = np.meshgrid(*[np.arange(n, dtype=float) for n in (6, 7, 8)], indexing="ij")

    def bowl(z, y, x):  # type: ignore[no-untyped-def]
        return 0.3 * z * z - 0.2 * y * y + 0.1 * x * x + 0.5 * z * y - 0.7 * x + 2.0

    field = bowl(z, y, x)
    for place in ((2.3, 3.6, 4.1), (1.0, 2.5, 5.9), (3.99, 1.2, 1.0)):
        assert subvoxel._cubic.py_func(field, *place) == pytest.approx(bowl(*place))
    line = np.arange(5.0)[None, None] ** 2
    # At the lower end the value beyond is 0 again; at the upper end 16.
    assert subvoxel._cubic.py_func(line, 0.0, 0.0, 0.5) == pytest.approx((0 + 9 * 0 + 9 * 1 - 4) / 16)
    assert subvoxel._cubic.py_func(line, 0.0, 0.0, 3.5) == pytest.approx((-4 + 9 * 9 + 9 * 16 - 16) / 16)
    for axis in range(3):
        turned = np.moveaxis(line, 2, axis)
        place = [0.0, 0.0, 0.0]
        place[axis] = 3.5
        assert subvoxel._cubic.py_func(turned, *place) == pytest.approx(205 / 16)


@pytest.mark.parametrize(("n_points", "per_voxel"), [(1, 1), (12, 1), (13, 2), (35, 3), (10**9, 4096)])
def test_each_voxel_gets_as_many_points_as_make_up_the_wanted_number(n_points: int, per_voxel: int) -> None:
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[3:5, 4:6, 7:10] = True
    dose = GRID.axes_mm()[0][:, None, None] + 0.0 * mask
    samples, outside_cc = subvoxel.sampled_dose(dose, GRID, mask, GRID, n_points)
    assert (len(samples.dose_gy), samples.weights, outside_cc) == (12 * per_voxel, None, 0.0)
    assert samples.volume_cc == pytest.approx(12 * 0.015)
    if per_voxel > 1000:
        # Slices at -7.5 and -4.5 mm, each 3 mm thick.
        assert (samples.dose_gy[0], samples.dose_gy[-1]) == pytest.approx((-9.0, -3.0), abs=0.01)
        assert samples.mean_gy() == pytest.approx(-6.0, abs=1e-3)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("side", "reached"), [(1, 0.75), (-1, 0.75)])
def test_a_dose_grid_reaches_half_a_voxel_beyond_its_centres_on_every_side(
    axis: int, side: int, reached: float
) -> None:
    fine = Grid((20, 20, 20), (1.0, 1.0, 1.0), (-9.5, -9.5, -9.5))
    origin = [-9.0, -9.0, -9.0]
    # Voxels of 2 mm from -10 to 10 mm, moved by 5 mm along one axis: a quarter of the structure lies beyond.
    origin[axis] += 5.0 * side
    coarse = Grid((10, 10, 10), (2.0, 2.0, 2.0), tuple(origin))
    mask = np.ones(fine.shape_zyx, bool)
    samples, outside_cc = subvoxel.sampled_dose(np.ones(coarse.shape_zyx), coarse, mask, fine, 64_000)
    assert samples.volume_cc == pytest.approx(8.0 * reached, rel=2e-3)
    assert samples.volume_cc + outside_cc == pytest.approx(8.0)
    ramp = np.broadcast_to(np.moveaxis(coarse.axes_mm()[axis][:, None, None], 0, axis), coarse.shape_zyx)
    found = subvoxel.sampled_dose(ramp.astype(float), coarse, mask, fine, 64_000).samples
    # From -5 to 10 mm, and as at its centre for the first of these.
    assert found.mean_gy() == pytest.approx((2.5 + 0.5 / 15) * side, abs=2e-3)


# --- contours -----------------------------------------------------------------------------------------------------


def edges_of(*contours: np.ndarray) -> np.ndarray:
    return np.concatenate([np.hstack([one, np.roll(one, -1, axis=0)]) for one in contours])


def test_a_line_crosses_contours_at_rising_places_and_an_edge_owns_its_lower_end() -> None:
    edges = edges_of(square(9.0, 6.0), square(2.0, 3.0, 4.0), np.array([[-7.0, -4.0], [-3.0, 0.0], [-7.0, 4.0]]))
    found = np.full(11, -99.0)
    assert slabs.crossings.py_func(edges, 1.0, found) == 6
    assert found[:6].tolist() == [-9.0, -7.0, -4.0, 2.0, 6.0, 9.0]
    assert slabs.crossings.py_func(edges, 5.0, found) == 2
    assert found[:2].tolist() == [-9.0, 9.0]
    # The lower side belongs to the square, the upper does not.
    counts = [slabs.crossings.py_func(edges_of(square(2.0, 3.0)), y, found) for y in (-3.1, -3.0, 2.999, 3.0, 3.1)]
    assert counts == [0, 2, 2, 0, 0]
    assert slabs.span.py_func(edges) == (-6.0, 6.0)
    assert slabs.span.py_func(np.empty((0, 4))) == (np.inf, -np.inf)


def test_the_area_of_contours_is_that_of_their_inside() -> None:
    ring = edges_of(square(5.0, 3.0, 1.0, 2.0), square(2.0, 1.5, 0.0, 2.0))
    assert slab_dose._area(ring, 64) == pytest.approx(60.0 - 12.0)
    assert slab_dose._area(edges_of(np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 6.0]])), 64) == pytest.approx(
        24.0, rel=1e-3
    )
    assert slab_dose._area(np.empty((0, 4)), 64) == 0.0


def test_slabs_lie_in_the_indices_of_a_grid() -> None:
    made = make_slabs(
        [(-2.0, [square(4.0, 5.0)]), (1.0, []), (2.5, [square(1.0, 1.0), square(2.0, 2.0, 9.0)])],
        np.array([3.0, 1.0, 2.0]),
    )
    assert (made.z_mm.tolist(), made.thickness_mm.tolist()) == ([-2.0, 1.0, 2.5], [3.0, 1.0, 2.0])
    assert made.starts.tolist() == [0, 4, 4, 12]
    assert made.edges_mm[:2].tolist() == [[-4.0, -5.0, 4.0, -5.0], [4.0, -5.0, 4.0, 5.0]]
    solid = made.in_voxels(Grid((4, 5, 6), (2.0, 2.5, 4.0), (-6.0, -10.0, -8.0)))
    assert (solid.z.tolist(), solid.thickness.tolist()) == ([2.0, 3.5, 4.25], [1.5, 0.5, 1.0])
    assert solid.edges[0].tolist() == [1.0, 2.0, 3.0, 2.0]
    assert solid.edges[7].tolist() == pytest.approx([(-1 + 8) / 4, (1 + 10) / 2.5, (-1 + 8) / 4, (-1 + 10) / 2.5])


@pytest.mark.parametrize("axis", [1, 2])
def test_a_cut_along_the_slabs_is_a_sheet_of_one_millimetre_of_every_run(axis: int) -> None:
    made = make_slabs([(0.0, [square(8.0, 9.0), square(2.0, 3.0)]), (3.0, [square(5.0, 4.0)])], 3.0)
    cut = made.cut(axis, 1.0)
    assert (cut.z_mm.tolist(), cut.thickness_mm.tolist(), cut.starts.tolist()) == ([0.0, 3.0], [3.0, 3.0], [0, 8, 12])
    outer, inner, upper = ((8.0, 2.0, 5.0), (9.0, 3.0, 4.0))[axis - 1]
    runs = {(-outer, -inner), (inner, outer), (-upper, upper)}
    along, across = (0, 1) if axis == 1 else (1, 0)
    boxes = [cut.edges_mm[first : first + 4, :2] for first in (0, 4, 8)]
    assert {(box[:, along].min(), box[:, along].max()) for box in boxes} == runs
    assert {(box[:, across].min(), box[:, across].max()) for box in boxes} == {(0.5, 1.5)}


# --- the hot end --------------------------------------------------------------------------------------------------


def test_the_cells_about_a_hot_voxel_are_hot_and_cells_count_from_below_the_first_centre() -> None:
    dose = np.zeros((3, 4, 5))
    dose[1, 2, 3] = 7.0
    hot = slab_dose._hot_cells.py_func(dose, 7.0)
    wanted = np.zeros((4, 5, 6), bool)
    wanted[1:3, 2:4, 3:5] = True
    assert np.array_equal(hot, wanted)
    assert not slab_dose._hot_cells.py_func(dose, 7.1).any()
    cells = [slab_dose._cell.py_func(index, 5) for index in (-3.0, -0.1, 0.0, 0.9, 1.0, 2.5, 3.0, 9.0)]
    assert cells == [0, 0, 1, 1, 2, 3, 4, 4]


def test_columns_are_hot_where_a_cell_between_two_heights_is() -> None:
    hot = np.zeros((5, 2, 3), bool)
    hot[1, 0, 0] = hot[2, 1, 1] = hot[4, 0, 2] = True
    layers = {
        (0.2, 0.9): [(0, 0)],
        (0.2, 1.0): [(0, 0), (1, 1)],
        (1.5, 1.9): [(1, 1)],
        (2.1, 9.0): [(0, 2)],
        (-5.0, -1.0): [],
    }
    for (bottom, top), wanted in layers.items():
        assert [*map(tuple, np.argwhere(slab_dose._hot_columns(hot, bottom, top)).tolist())] == wanted


def sloping(slope: float) -> np.ndarray:
    return 50.0 + slope * np.broadcast_to(GRID.axes_mm()[2], GRID.shape_zyx)


@pytest.mark.parametrize(
    ("n_points", "slope", "is_denser"),
    [
        # 12 cc: a point in 0.0005, 0.0007 or 0.0017 cc; a thousand points or less; a dose that does not vary.
        (24_000, 1.0, False), (17_000, 1.0, True), (7_000, 1.0, True), (900, 1.0, False), (7_000, 1e-3, False),
        (7_000, 2e-2, True),
    ],
)  # fmt: skip
def test_a_hot_end_is_sampled_again_where_the_points_are_too_few_for_it(
    n_points: int, slope: float, is_denser: bool
) -> None:
    body = make_slabs([(z, [square(20.0, 10.0)]) for z in (-6.0, -3.0, 0.0, 3.0, 6.0)], 3.0)
    samples, outside_cc = slab_dose.slab_dose(sloping(slope), GRID, body, n_points)
    assert samples.volume_cc == pytest.approx(12.0, rel=0.01)
    assert outside_cc == 0.0
    assert (samples.dose_gy[0], samples.dose_gy[-1]) == pytest.approx((50 - 20 * slope, 50 + 20 * slope), abs=1e-6)
    assert (samples.weights is not None) is is_denser
    assert np.all(np.diff(samples.dose_gy) >= 0)
    if is_denser:
        assert samples.weights is not None
        # A point in 0.0003 cc, of which there are 1,000 / n_points * 12 / 0.0003 above the level.
        dense = samples.weights < 1.0
        assert np.unique(samples.weights).tolist() == pytest.approx([0.0003 * n_points / 12.0, 1.0])
        assert np.count_nonzero(dense) == pytest.approx(1000 / n_points * 12.0 / 0.0003, rel=0.03)
        assert np.all(np.diff(dense.astype(int)) >= 0)
        level = 50.0 + slope * (20.0 - 40.0 * 1000 / n_points)
        assert samples.dose_gy[dense][0] == pytest.approx(level, abs=0.3 * slope)


def test_the_hot_end_has_no_more_points_than_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    body = make_slabs([(z, [square(20.0, 10.0)]) for z in (-6.0, -3.0, 0.0, 3.0, 6.0)], 3.0)
    monkeypatch.setattr(slab_dose, "MOST_POINTS", 6_000)
    samples, _ = slab_dose.slab_dose(sloping(1.0), GRID, body, 7_000)
    assert samples.weights is not None
    # Above the level of 14.29 mm lie 5.71 mm, in the cells that begin at 13 mm: 7 mm, 2.1 cc, a point in 0.00035 cc.
    assert samples.weights.min() == pytest.approx(2.1 / 6_000 / (12.0 / 7_000), rel=0.05)
    monkeypatch.setattr(slab_dose, "MOST_POINTS", 1_000)
    assert slab_dose.slab_dose(sloping(1.0), GRID, body, 7_000).samples.weights is None


# --- curves -------------------------------------------------------------------------------------------------------


def test_curves_of_more_voxels_than_are_counted_at_once_are_numpys() -> None:
    rng = np.random.default_rng(4)
    n = 2 * 8192 + 3 * 8 + 5
    dose = rng.uniform(0, 9, n).astype(np.float32)
    masks = np.zeros((6, n), bool)
    masks[0] = True
    # The last odd voxels of the last part, the first of the second, one word in a gap, two ends, none.
    masks[1, -3:] = True
    masks[2, 8192] = True
    masks[3, 8192 + 40 : 8192 + 48] = True
    masks[4, [0, 8191, 16383, n - 1]] = True
    for curve, mask, part in zip(
        dvh_curves(dose, masks, 0.5, 0.25), masks, dvh_curves(dose, masks * np.float32(0.5), 0.5, 0.25), strict=True
    ):
        counts, _ = np.histogram(dose[mask], bins=curve.edges_gy)
        assert curve.bin_cc.tolist() == (0.5 * counts).tolist()
        assert part.bin_cc.tolist() == (0.25 * counts).tolist()
        assert curve.edges_gy.tolist() == (0.25 * np.arange(int(dose.max() / 0.25) + 3)).tolist()


def test_both_curves_of_three_bins_are_written_out() -> None:
    curve = Dvh(np.array([0.0, 0.5, 1.5, 2.0]), np.array([1.0, 6.0, 3.0]))
    assert curve.volume_cc == 10.0
    assert curve.cumulative_cc.tolist() == [10.0, 9.0, 3.0, 0.0]
    assert curve.cumulative_percent.tolist() == pytest.approx([100.0, 90.0, 30.0, 0.0])
    assert curve.differential_percent_per_gy.tolist() == pytest.approx([20.0, 60.0, 60.0])
    absent = Dvh(np.array([0.0, 0.5, 1.5]), np.zeros(2))
    assert (len(absent.cumulative_percent), len(absent.differential_percent_per_gy)) == (3, 2)
    assert np.isnan(absent.cumulative_percent).all()
    assert np.isnan(absent.differential_percent_per_gy).all()


def test_the_first_bin_begins_at_nothing_and_edges_belong_to_the_bin_above() -> None:
    dose = np.array([0.0, 0.3, 0.6, 0.8999999, 0.9, 2.1])
    (curve,) = dvh_curves(dose, np.ones((1, 6), bool), 1.0, 0.3)
    assert curve.bin_cc.tolist() == np.histogram(dose, bins=curve.edges_gy)[0].tolist()
    (weighed,) = dvh_curves(dose, np.array([[0.5, 1.0, 0.25, 0.0, 1.0, 0.125]]), 2.0, 0.3)
    assert weighed.volume_cc == pytest.approx(2.0 * 2.875)
