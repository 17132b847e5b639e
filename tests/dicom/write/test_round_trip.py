"""Masks written as contours and segments and read back: the same voxels, whatever their shape and the image's axes."""

from __future__ import annotations

import io
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from scipy.ndimage import gaussian_filter

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.contours import fill, rasterise, stack_contours
from doseledger.dicom.geometry import from_lps, to_lps
from doseledger.dicom.position import check_position
from doseledger.dicom.read_image import arrange_slices, read_image_grid
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.dicom.structure_names import describe
from doseledger.dicom.write.objects import Study, make_uid, to_bytes
from doseledger.dicom.write.outlines import find_outlines
from doseledger.dicom.write.segmentation import Frames, Segment, make_segmentation
from doseledger.dicom.write.structures import Roi, make_structure_set
from doseledger.dicom.write.volumes import make_ct

GRID = Grid((7, 18, 21), (3.0, 0.98, 1.17), (-612.5, 40.25, -31.0))
Mask = NDArray[np.bool_]


def study() -> Study:
    return Study("phantom_1", "phantom^1", "M", make_uid("s"), make_uid("f"), check_position("HFS"), "test")


IMAGES = make_ct(study(), np.zeros(GRID.shape_zyx, np.int16), GRID)


def written(mask: Mask, images: list[Dataset] = IMAGES, grid: Grid = GRID) -> Dataset:
    dataset = make_structure_set(study(), [Roi("Blob", mask, "ORGAN", smooth=True)], grid, images)
    return dcmread(io.BytesIO(to_bytes(dataset)))


def read_mask(dataset: Dataset, grid: Grid = GRID) -> Mask:
    contours = read_contours(read_rois(dataset, "case")[0], "case")
    assert (contours.n_ignored, contours.n_repeated) == (0, 0)
    return fill(stack_contours(contours.polygons, grid, "case", "Blob")[0], grid)


@st.composite
def blobs(draw: st.DrawFn) -> Mask:
    """Lumps, specks, sheets and lakes at any size, gaps between slices, and parts at the grid's border."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = gaussian_filter(rng.standard_normal(GRID.shape_zyx), draw(st.sampled_from([0.4, 0.8, 1.5, 3.0])))
    mask = noise > draw(st.sampled_from([-0.5, 0.0, 0.5, 1.5])) * noise.std()
    for k in draw(st.sets(st.integers(0, 6), max_size=4)):
        mask[k] = False
    if draw(st.booleans()):
        mask[:, 0, :], mask[:, :, -1] = True, True
    mask[draw(st.integers(0, 6)), draw(st.integers(0, 17)), draw(st.integers(0, 20))] = True
    return mask


@settings(max_examples=40, deadline=None)
@given(blobs())
def test_any_mask_comes_back_from_its_smooth_contours_voxel_for_voxel(mask: Mask) -> None:
    np.testing.assert_array_equal(read_mask(written(mask)), mask)


SHAPES = {
    "one voxel": [(3, 9, 10)],
    "a voxel in each corner": [(0, 0, 0), (0, 0, 20), (6, 17, 0), (6, 17, 20)],
    "parts above each other with one slice between": [(1, slice(4, 9), slice(4, 9)), (3, slice(4, 9), slice(4, 9))],
    "parts above each other with five slices between": [(0, slice(4, 9), slice(4, 9)), (6, slice(4, 9), slice(4, 9))],
    "a wall of one pixel": [(slice(0, 7), 5, slice(2, 19))],
    "pixels that touch at their corners": [(2, 3, 3), (2, 4, 4), (2, 5, 3)],
    "every voxel": [(slice(0, 7), slice(0, 18), slice(0, 21))],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_that_contours_find_hard_comes_back(shape: str) -> None:
    mask = np.zeros(GRID.shape_zyx, np.bool_)
    for at in SHAPES[shape]:
        mask[at] = True
    np.testing.assert_array_equal(read_mask(written(mask)), mask)


def test_a_shell_with_an_island_in_its_hole_comes_back() -> None:
    _, y, x = GRID.axes_mm()
    distance = np.hypot(y[:, None] - y.mean(), x[None, :] - x.mean())
    mask = np.broadcast_to((distance < 8.0) & (distance > 5.0) | (distance < 2.0), GRID.shape_zyx)
    np.testing.assert_array_equal(read_mask(written(mask)), mask)


def area(polygon: NDArray[np.float64]) -> float:
    x, y = polygon.T
    return 0.5 * abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)))


@pytest.mark.parametrize("radius_mm", [0.4, 3.0, 8.0, 20.0, 45.0])
def test_the_area_inside_a_smooth_contour_is_that_of_its_pixels(radius_mm: float) -> None:
    grid = Grid((1, 100, 110), (3.0, 1.1, 1.0), (0.0, -54.0, -55.0))
    mask = np.hypot(grid.axes_mm()[1][:, None] - 0.3, grid.axes_mm()[2][None, :] + 0.1)[None] <= max(radius_mm, 0.5)
    polygons = find_outlines(mask, grid, smooth=True)[0]
    assert sum(map(area, polygons)) == pytest.approx(mask.sum() * 1.1, rel=0.01)


def test_a_smooth_contour_of_a_circle_is_twice_as_near_to_it_as_its_pixels_edges() -> None:
    grid = Grid((1, 100, 110), (3.0, 1.1, 1.0), (0.0, -54.0, -55.0))
    mask = np.hypot(grid.axes_mm()[1][:, None], grid.axes_mm()[2][None, :])[None] < 35.2
    off = {}
    for smooth in (False, True):
        (ring,) = find_outlines(mask, grid, smooth=smooth)[0]
        off[smooth] = float(np.sqrt(np.mean((np.hypot(*ring.T) - 35.2) ** 2)))
    assert off[True] < 0.6 * off[False]
    assert off[True] < 0.2


def test_no_contour_number_is_longer_than_sixteen_characters() -> None:
    far = Grid(GRID.shape_zyx, (1.2345, 0.98, 1.17), (-9876.54321, -1234.5678, -8765.4321))
    images = make_ct(study(), np.zeros(GRID.shape_zyx, np.int16), far)
    mask = np.zeros(GRID.shape_zyx, np.bool_)
    mask[2:5, 3:9, 4:12] = True
    for item in written(mask, images, far).ROIContourSequence[0].ContourSequence:
        text = item.get_item("ContourData").value.decode()
        assert max(map(len, text.strip().split("\\"))) <= 16
    np.testing.assert_array_equal(read_mask(written(mask, images, far), far), mask)


ORIENTATIONS = ("HFS", "HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR")


@pytest.mark.parametrize("position", ORIENTATIONS)
def test_contours_and_segments_of_an_image_in_any_position_lie_where_the_mask_does(
    position: str, factory: ModuleType
) -> None:
    images = factory.make_ct(np.zeros(GRID.shape_zyx), GRID.spacing_mm, GRID.origin_mm, position=position)
    planes, stack, _ = arrange_slices(images, "case")
    grid = read_image_grid(images, "case")
    assert grid.same_as(GRID)
    mask = gaussian_filter(np.random.default_rng(5).standard_normal(GRID.shape_zyx), 1.2) > 0.05
    beside = Study.of_image(images[0], "key", position="HFS")
    dataset = make_structure_set(beside, [Roi("Blob", mask, "ORGAN", smooth=True)], grid, images)
    np.testing.assert_array_equal(read_mask(dcmread(io.BytesIO(to_bytes(dataset)))), mask)
    at = {str(image.SOPInstanceUID): float(image.ImagePositionPatient[2]) for image in images}
    for item in dcmread(io.BytesIO(to_bytes(dataset))).ROIContourSequence[0].ContourSequence:
        z = float(item.ContourData[2])
        assert at[item.ContourImageSequence[0].ReferencedSOPInstanceUID] == pytest.approx(z, abs=1e-3)
    segments = [Segment(describe("Rectum"), mask, "AUTOMATIC"), Segment(describe("PTV70"), ~mask, "MANUAL")]
    made = make_segmentation(beside, segments, Frames(stack, planes), "test", "1", case_id="case")
    np.testing.assert_array_equal(segmented(made, stack, planes, 0), mask)
    np.testing.assert_array_equal(segmented(made, stack, planes, 1), ~mask)


def segmented(dataset: Dataset, stack: list, planes: object, number: int) -> Mask:  # type: ignore[type-arg]
    """A segment as highdicom reads it, on the image's grid."""
    import highdicom

    read = highdicom.seg.segread(io.BytesIO(to_bytes(dataset)))
    uids = [plane.file.SOPInstanceUID for plane in stack]
    frames = read.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)[..., number] > 0
    return to_lps(frames, planes, "case", "segmentation")[0]  # type: ignore[arg-type]


def test_a_volume_turned_to_an_images_frames_and_back_is_itself(factory: ModuleType) -> None:
    volume = np.arange(np.prod(GRID.shape_zyx)).reshape(GRID.shape_zyx)
    for position in ORIENTATIONS:
        images = factory.make_ct(np.zeros(GRID.shape_zyx), GRID.spacing_mm, GRID.origin_mm, position=position)
        planes, _, _ = arrange_slices(images, "case")
        np.testing.assert_array_equal(to_lps(from_lps(volume, planes), planes, "case", "test")[0], volume)


def test_the_same_masks_give_the_same_bytes_of_a_segmentation_without_a_clock() -> None:
    planes, stack, _ = arrange_slices(IMAGES, "case")
    mask = np.zeros(GRID.shape_zyx, np.bool_)
    mask[2, 3:6, 4:9] = True
    segment = Segment(describe("Femur_L"), mask, "SEMIAUTOMATIC", "holes filled")
    first, again = (
        make_segmentation(study(), [segment], Frames(stack, planes), "test", "1", case_id="case") for _ in range(2)
    )
    assert to_bytes(first) == to_bytes(again)
    assert (first.PatientID, first.PatientName, first.ContentDate) == ("phantom_1", "phantom^1", "19000101")
    item = first.SegmentSequence[0]
    assert (item.SegmentLabel, item.SegmentDescription) == ("Femur_L", "holes filled")
    kind = item.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("71341001", "SCT", "Femur")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert first.FrameOfReferenceUID == IMAGES[0].FrameOfReferenceUID


def test_an_image_that_is_no_image_gets_no_segmentation_and_the_reason_says_what_to_do() -> None:
    planes, stack, _ = arrange_slices(IMAGES, "case")
    broken = [dcmread(io.BytesIO(to_bytes(image))) for image in IMAGES]
    for image in broken:
        del image.FrameOfReferenceUID
    bare = [type(plane)(image, image, 0) for plane, image in zip(stack, broken, strict=True)]
    segment = Segment(describe("Rectum"), np.ones(GRID.shape_zyx, np.bool_), "MANUAL")
    with pytest.raises(BadCase, match=r"case: no segmentation can be written .*write the RTSTRUCT alone"):
        make_segmentation(study(), [segment], Frames(bare, planes), "test", "1", case_id="case")


def test_an_empty_slice_between_two_parts_is_marked_by_a_contour_that_holds_no_voxel() -> None:
    mask = np.zeros(GRID.shape_zyx, np.bool_)
    mask[[1, 5], 4:9, 4:9] = True
    contours = read_contours(read_rois(written(mask), "case")[0], "case").polygons
    assert [round((z + 612.5) / 3.0) for z, _ in contours] == [1, 2, 4, 5]
    marks = [polygon for _, polygon in contours[1:3]]
    assert max(map(area, marks)) < 0.001
    assert not any(rasterise([mark], GRID).any() for mark in marks)
