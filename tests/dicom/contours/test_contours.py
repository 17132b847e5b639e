"""Contours to masks: known shapes, the even-odd rule, gaps between slices, and another program's mask to the voxel."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import points_in_poly

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.contours import fill, rasterise, stack_contours
from doseledger.dicom.read_image import read_image
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.dicom.source import lenient, read_source

PLANE = Grid((1, 40, 50), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
IMAGE = Grid((30, 40, 50), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def square(low: float, high: float) -> np.ndarray:
    return np.array([(low, low), (high, low), (high, high), (low, high)], dtype=float)


def test_a_square_holds_the_pixel_centres_inside_it():
    mask = rasterise([square(4.5, 9.5)], PLANE)
    assert mask.sum() == 25
    assert mask[5:10, 5:10].all()


def test_the_half_open_rule_gives_each_centre_on_a_shared_edge_to_one_neighbour():
    left = np.array([(2, 2), (7, 2), (7, 9), (2, 9)], dtype=float)
    right = np.array([(7, 2), (12, 2), (12, 9), (7, 9)], dtype=float)
    one, other = rasterise([left], PLANE), rasterise([right], PLANE)
    assert not np.any(one & other)
    assert (one | other).sum() == 70
    assert one.sum() == 35


def test_a_contour_inside_another_is_a_hole_and_one_inside_that_is_filled_again():
    mask = rasterise([square(1.5, 30.5), square(5.5, 25.5), square(10.5, 20.5)], PLANE)
    assert mask.sum() == 29 * 29 - 20 * 20 + 10 * 10
    assert not mask[7, 7]
    assert mask[15, 15]


def test_a_keyhole_makes_the_same_hole_as_a_contour_of_its_own():
    outer, hole = square(1.5, 30.5), square(10.5, 20.5)[::-1]
    keyhole = np.vstack([outer, outer[:1], hole[[2, 3, 0, 1, 2]], outer[:1]])
    np.testing.assert_array_equal(rasterise([keyhole], PLANE), rasterise([outer, hole], PLANE))


def test_two_parts_on_one_slice_are_both_there():
    far = square(20.5, 30.5)
    assert rasterise([square(1.5, 4.5), far], PLANE).sum() == 9 + 100


def test_contours_that_leave_the_grid_are_cut_at_its_edge():
    mask = rasterise([square(-100.0, 100.0)], PLANE)
    assert mask.all()
    assert not rasterise([square(60.0, 80.0)], PLANE).any()
    assert rasterise([square(-100.0, 4.5)], PLANE).sum() == 25


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-3, 52), st.floats(-3, 43)).map(lambda p: (round(p[0], 2) + 0.003, round(p[1], 2) + 0.003)),
        min_size=3,
        max_size=12,
        unique=True,
    )
)
def test_any_polygon_agrees_with_skimage_at_every_pixel_centre(points):
    polygon = np.array(points)
    y, x = np.mgrid[0:40, 0:50]
    reference = points_in_poly(np.column_stack([x.ravel(), y.ravel()]), polygon).reshape(40, 50)
    # Who owns a centre that lies on an edge is each program's own choice.
    start, along = polygon[:, None], (np.roll(polygon, -1, axis=0) - polygon)[:, None]
    centres = np.column_stack([x.ravel(), y.ravel()])[None]
    share = np.clip(((centres - start) * along).sum(-1) / (along**2).sum(-1), 0, 1)
    clear = (np.linalg.norm(start + share[..., None] * along - centres, axis=-1).min(axis=0) > 2e-3).reshape(40, 50)
    np.testing.assert_array_equal(rasterise([polygon], PLANE)[clear], reference[clear])


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 0.7), st.integers(0, 10))
def test_a_small_structures_area_is_unbiased_over_sub_pixel_shifts(radius_share, seed):
    # Filling that rounds vertices outwards makes small structures 5 to 6 % too large.
    rng = np.random.default_rng(seed)
    radius = 10 * radius_share
    angle = 2 * np.pi * np.arange(60) / 60
    areas = []
    for _ in range(60):
        cx, cy = 20 + rng.uniform(0, 1, 2)
        polygon = np.column_stack([cx + radius * np.cos(angle), cy + radius * np.sin(angle)])
        areas.append(rasterise([polygon], PLANE).sum())
    true = 0.5 * 60 * radius**2 * np.sin(2 * np.pi / 60)
    assert np.mean(areas) == pytest.approx(true, rel=0.02)


def planes(z_mm, polygon):
    return [(float(z), polygon) for z in z_mm]


def test_a_structures_volume_is_the_same_on_a_grid_of_another_spacing():
    angle = 2 * np.pi * np.arange(120) / 120
    contours = []
    for z in np.arange(9.0, 70.0, 3.0):
        radius = np.sqrt(max(33.0**2 - (z - 39.0) ** 2, 1.0)) / 2
        contours.append((z, np.column_stack([24.3 + radius * np.cos(angle), 19.6 + radius * np.sin(angle)])))
    stack, notes = stack_contours(contours, IMAGE, "case_1", "Bladder")
    native = fill(stack, IMAGE).sum() * IMAGE.voxel_volume_cc
    for spacing in ((3.0, 2.5, 2.5), (1.0, 1.0, 1.0), (5.0, 2.0, 2.0), (2.0, 0.7, 1.3)):
        grid = IMAGE.resampled(spacing)
        assert fill(stack, grid).sum() * grid.voxel_volume_cc == pytest.approx(native, rel=0.015), spacing
    assert notes == []


def test_the_first_and_the_last_slice_hold_for_half_a_slice():
    stack, _ = stack_contours(planes([30.0, 33.0], square(5.5, 9.5)), IMAGE, "case_1", "Rectum")
    fine = IMAGE.resampled((0.5, 1.0, 1.0))
    z = fine.axes_mm()[0][fill(stack, fine).any(axis=(1, 2))]
    assert z.min() > 28.5
    assert z.max() < 34.5
    assert len(z) * 0.5 == pytest.approx(6.0)


def test_a_missing_slice_between_contours_is_interpolated_and_said():
    small, large = square(15.5, 21.5), square(12.5, 24.5)
    contours = [*planes([9.0, 12.0], small), *planes([18.0, 21.0], large)]
    stack, notes = stack_contours(contours, IMAGE, "case_1", "Rectum")
    mask = fill(stack, IMAGE)
    assert notes == ["Rectum has no contour on 1 slices inside it; its shape was interpolated there"]
    assert mask[4].sum() == 36
    assert mask[6].sum() == 144
    assert 64 <= mask[5].sum() <= 100


def test_too_many_missing_slices_are_refused():
    contours = planes([9.0, 30.0], square(5.5, 9.5))
    with pytest.raises(BadCase, match=r"Rectum has no contour on 6 slices between z 9.0 and 30.0 mm, wanted at most 4"):
        stack_contours(contours, IMAGE, "case_1", "Rectum")


def test_separate_parts_leave_the_gap_between_them_empty_and_say_so():
    contours = [*planes([9.0, 12.0], square(5.5, 9.5)), *planes([18.0, 21.0], square(25.5, 29.5))]
    stack, notes = stack_contours(contours, IMAGE, "case_1", "PTV56")
    mask = fill(stack, IMAGE)
    assert not mask[5].any()
    assert mask.any(axis=(1, 2)).sum() == 4
    assert notes == ["PTV56 has separate parts: nothing is drawn between z 12.0 and 18.0 mm"]


def test_contours_between_the_slices_are_used_where_they_are():
    contours = planes([10.5, 13.5], square(5.5, 9.5))
    stack, notes = stack_contours(contours, IMAGE, "case_1", "Rectum")
    mask = fill(stack, IMAGE)
    assert notes == []
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() in ([3, 4], [4, 5])


def test_contours_that_cross_are_said_to_and_holes_and_neighbours_are_not():
    crossing = [*planes([9.0, 12.0], square(5.5, 15.5)), *planes([12.0], square(10.5, 20.5))]
    _, notes = stack_contours(crossing, IMAGE, "case_1", "PTV56")
    assert notes == ["contours of PTV56 cross at z 12.0 mm: what they share counts as outside"]
    for second in (square(8.5, 10.5), square(15.5, 20.5), square(5.5, 10.5)):
        assert stack_contours([*planes([12.0], square(5.5, 15.5)), (12.0, second)], IMAGE, "case_1", "P")[1] == []


def test_a_vertex_on_a_pixel_centre_stays_there_far_from_the_origin():
    far = Grid((1, 300, 400), (3.0, 0.7, 0.9), (0.0, -231.4, 87.3))
    corners = np.array([(87.3 + 0.9 * i, -231.4 + 0.7 * j) for i, j in ((123, 77), (223, 77), (223, 177), (123, 177))])
    mask = rasterise([corners], far)
    assert mask.sum() == 100 * 100


def test_contours_more_than_half_a_slice_beyond_the_image_are_refused():
    inside = planes([87.0, 88.4], square(5.5, 9.5))
    stack_contours(inside, IMAGE, "case_1", "Rectum")
    with pytest.raises(BadCase, match=r"1 of 2 contours of Rectum lie beyond the image: z from 87.0 to 88.7 mm"):
        stack_contours(planes([87.0, 88.7], square(5.5, 9.5)), IMAGE, "case_1", "Rectum")


def test_repeated_points_and_open_contours_are_counted_and_left_out(factory):
    rtstruct = factory.make_rtstruct({"Rectum": planes([0.0, 3.0], square(5.5, 9.5))}, [], {})
    sequence = rtstruct.ROIContourSequence[0].ContourSequence
    sequence.append(factory.make_contour(3.0, square(5.5, 9.5)))
    sequence.append(factory.make_contour(3.0, square(5.5, 9.5)[:1], "POINT"))
    sequence.append(factory.make_contour(3.0, square(5.5, 9.5), "OPEN_PLANAR"))
    contours = read_contours(read_rois(rtstruct, "case_1")[0], "case_1")
    assert (len(contours.polygons), contours.n_ignored, contours.n_repeated) == (2, 2, 1)


def test_a_contour_that_is_not_axial_is_refused(factory):
    rtstruct = factory.make_rtstruct({"Rectum": planes([0.0], square(5.5, 9.5))}, [], {})
    rtstruct.ROIContourSequence[0].ContourSequence[0].ContourData = [0, 0, 0, 10, 0, 0, 10, 10, 2]
    with pytest.raises(BadCase, match=r"a contour of Rectum spans 2.00 mm in z"):
        read_contours(read_rois(rtstruct, "case_1")[0], "case_1")


def test_contour_data_that_are_no_triples_are_refused(factory):
    rtstruct = factory.make_rtstruct({"Rectum": planes([0.0], square(5.5, 9.5))}, [], {})
    rtstruct.ROIContourSequence[0].ContourSequence[0].ContourData = [0, 0, 0, 10, 0, 0, 10, 10]
    with pytest.raises(BadCase, match="ContourData of Rectum is not a list of"):
        read_contours(read_rois(rtstruct, "case_1")[0], "case_1")


def test_sts_001_gives_the_mask_that_another_program_made_to_the_voxel(shared_data):
    files, _ = read_source(shared_data / "dicom" / "sts_001")
    with lenient():
        image = read_image([f.dataset for f in files if f.dataset.Modality == "CT"], "sts_001")
        rtstruct = next(f.dataset for f in files if f.dataset.Modality == "RTSTRUCT")
        contours = read_contours(read_rois(rtstruct, "sts_001")[0], "sts_001")
    stack, notes = stack_contours(contours.polygons, image.grid, "sts_001", "GTV")
    mask = fill(stack, image.grid)
    raw = gzip.decompress((shared_data / "nifti" / "sts_001" / "CT" / "nifti" / "mask" / "mask.nii.gz").read_bytes())
    columns, rows, slices = np.frombuffer(raw, "<i2", 3, 42)
    offset = int(np.frombuffer(raw, "<f4", 1, 108)[0])
    nifti = np.frombuffer(raw, np.uint8, int(columns) * int(rows) * int(slices), offset).reshape(slices, rows, columns)
    assert mask.sum() == 117_145
    np.testing.assert_array_equal(mask, nifti.astype(bool))
    assert notes == []


@pytest.mark.parametrize(("off_mm", "is_the_plane"), [(0.149, True), (-0.149, True), (0.151, False)])
def test_a_layer_within_a_twentieth_of_a_slice_has_its_planes_own_shape(off_mm, is_the_plane):
    drawn = [(3.0 * k, square(20.0 - half, 20.0 + half)) for k, half in enumerate((3.0, 3.0, 13.0, 13.0))]
    stack, _ = stack_contours(drawn, Grid((4, 160, 160), (3.0, 0.25, 0.25), (0.0, 0.0, 0.0)), "case_0001", "Rectum")
    (near,) = fill(stack, Grid((1, 160, 160), (3.0, 0.25, 0.25), (3.0 + off_mm, 0.0, 0.0)))
    (plane,) = fill(stack, Grid((1, 160, 160), (3.0, 0.25, 0.25), (3.0, 0.0, 0.0)))
    assert np.array_equal(near, plane) is is_the_plane
