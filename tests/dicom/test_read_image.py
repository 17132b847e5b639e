"""CT geometry: every way that a stack of slices can lie is read right, or refused with what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.read_image import _odd_ones, read_image, read_scanner
from doseledger.dicom.source import lenient

SPACING, ORIGIN = (3.0, 2.5, 2.0), (-10.0, -20.0, 5.0)


@pytest.fixture
def volume() -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.integers(-1000, 2000, size=(6, 7, 9)).astype(float)


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR"])
def test_every_patient_position_gives_the_same_ascending_lps_volume(factory, volume, position):
    slices = factory.make_ct(volume, SPACING, ORIGIN, position=position)
    image = read_image(slices[::-1], "case_1")
    np.testing.assert_array_equal(image.values, volume)
    assert image.grid.same_as(Grid((6, 7, 9), SPACING, ORIGIN))


def test_slices_are_sorted_by_position_and_not_by_number_or_file_order(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    rng = np.random.default_rng(1)
    for item, number in zip(slices, rng.permutation(len(slices)), strict=True):
        item.InstanceNumber = int(number)
    shuffled = [slices[i] for i in rng.permutation(len(slices))]
    np.testing.assert_array_equal(read_image(shuffled, "case_1").values, volume)


def test_hu_follow_slope_and_intercept_of_each_slice(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN, slope=1.0, intercept=-1024.0)
    other = factory.make_ct(volume, SPACING, ORIGIN, slope=2.0, intercept=-1000.0)
    values = read_image([*slices[:3], *other[3:]], "case_1").values
    np.testing.assert_array_equal(values[:3], volume[:3])
    assert np.abs(values[3:] - volume[3:]).max() <= 1


def test_the_scanner_is_told_as_far_as_the_slices_name_it(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    for item in slices:
        item.Manufacturer, item.ManufacturerModelName, item.KVP = "ACME ", "", "120"
        item.ConvolutionKernel = ["B30f", "3"]
    slices[0].ConvolutionKernel = "B70f"
    assert read_scanner(slices) == {"manufacturer": "ACME", "kernel": "B30f\\3 | B70f", "kvp": "120"}
    for item in slices:
        del item.Manufacturer, item.ManufacturerModelName, item.KVP, item.ConvolutionKernel
    assert read_scanner(slices) == {}


def test_declared_padding_becomes_air(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN, intercept=-8192.0)
    for item in slices:
        pixels = np.frombuffer(item.PixelData, np.uint16).reshape(7, 9).copy()
        pixels[0, 0] = 6192
        item.PixelData, item.PixelPaddingValue = pixels.tobytes(), 6192
    image = read_image(slices, "case_1")
    assert image.n_padded == 6
    assert np.all(image.values[:, 0, 0] == -1000)


def test_row_and_column_spacing_are_not_swapped(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    assert [float(v) for v in slices[0].PixelSpacing] == [2.5, 2.0]
    assert read_image(slices, "case_1").grid.spacing_mm == (3.0, 2.5, 2.0)


def test_one_slice_is_refused_with_what_else_is_missing(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    with pytest.raises(BadCase, match=r"case_1: 1 image slice found, wanted at least 2.*97 of the 98"):
        read_image(slices[:1], "case_1", "97 of the 98 images that the RTSTRUCT names are absent")


def test_missing_slices_inside_the_stack_are_counted(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    with pytest.raises(BadCase, match=r"2 slices of the usual 3 mm are missing between positions -7.00 and 2.00 mm"):
        read_image([*slices[:2], *slices[4:]], "case_1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: setattr(s[3], "ImagePositionPatient", [5, -20, 0.4]), "positions are irregular"),
        (lambda s: setattr(s[3], "ImagePositionPatient", s[2].ImagePositionPatient), "two slices at position"),
        (lambda s: setattr(s[3], "PixelSpacing", [2.5, 2.5]), "different PixelSpacing"),
        (lambda s: setattr(s[3], "ImageOrientationPatient", [1, 0, 0, 0, 0, 1]), "different ImageOrientationPatient"),
        (lambda s: setattr(s[3], "Rows", 8), "slices of 7×9 and 8×9 pixels"),
        (lambda s: setattr(s[0], "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "two unit vectors at a right angle"),
        (
            lambda s: delattr(s[2], "ImagePositionPatient"),
            "ImagePositionPatient of the CT is missing, wanted 3 numbers",
        ),
        (lambda s: setattr(s[2], "PhotometricInterpretation", "RGB"), "wanted MONOCHROME2"),
        pytest.param(
            lambda s: setattr(s[2], "PhotometricInterpretation", "9" * 9999),
            "pixels are 9{200}…, wanted MONOCHROME2",
            marks=pytest.mark.filterwarnings("ignore:The value length"),
        ),
    ],
)
def test_a_stack_that_is_no_even_stack_is_refused(factory, volume, change, message):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    change(slices)
    with pytest.raises(BadCase, match=message):
        read_image(slices, "case_1")


def test_a_drift_that_no_single_step_shows_is_refused(factory):
    slices = factory.make_ct(np.zeros((40, 3, 3)), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    for k, item in enumerate(slices):
        item.ImagePositionPatient = [0, 0, k + 0.0004 * k * k]
    with pytest.raises(BadCase, match="positions are irregular"):
        read_image(slices, "case_1")


def test_positions_rounded_to_a_hundredth_are_even(factory, volume):
    slices = factory.make_ct(volume, (3.27, 2.5, 2.0), ORIGIN)
    for item in slices:
        item.ImagePositionPatient = [round(float(v), 2) for v in item.ImagePositionPatient]
    assert read_image(slices, "case_1").grid.spacing_mm[0] == pytest.approx(3.27, abs=1e-9)


def test_a_tilted_stack_is_refused(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    tilt = np.radians(5.0)
    for k, item in enumerate(slices):
        item.ImageOrientationPatient = [1, 0, 0, 0, np.cos(tilt), np.sin(tilt)]
        item.ImagePositionPatient = [5, -20 - 3 * k * np.sin(tilt), -10 + 3 * k * np.cos(tilt)]
    with lenient(), pytest.raises(BadCase, match=r"tilted by 5.00 degrees"):
        read_image(slices, "case_1")


def test_gantry_tilt_that_shears_the_stack_is_refused(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    for k, item in enumerate(slices):
        item.ImagePositionPatient = [5, -20 + 0.3 * k, -10 + 3 * k]
    with pytest.raises(BadCase, match=r"shifted sideways by up to 1.50 mm \(gantry tilt\)"):
        read_image(slices, "case_1")


def test_rows_turned_in_the_plane_are_refused(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    c, s = np.cos(np.radians(5)), np.sin(np.radians(5))
    for item in slices:
        item.ImageOrientationPatient = [c, s, 0, -s, c, 0]
    with lenient(), pytest.raises(BadCase, match=r"tilted by 5.00 degrees"):
        read_image(slices, "case_1")


def test_sagittal_planes_are_refused(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    for k, item in enumerate(slices):
        item.ImageOrientationPatient, item.ImagePositionPatient = [0, 1, 0, 0, 0, -1], [3 * k, 0, 0]
    with pytest.raises(BadCase, match="not axial"):
        read_image(slices, "case_1")


def test_pixels_that_cannot_be_decoded_name_the_transfer_syntax(factory, volume):
    slices = factory.make_ct(volume, SPACING, ORIGIN)
    slices[2].PixelData = slices[2].PixelData[:-10]
    with pytest.raises(BadCase, match=r"pixels \(Explicit VR Little Endian\) can't be decoded"):
        read_image(slices, "case_1")


@pytest.mark.parametrize(("said", "note"), [
    ("aaa", []), ("aab", ["2 of 3 slices have a, but b in 2.dcm"]),
    ("aaabc", ["3 of 5 slices have a, but b, c in 3.dcm, 4.dcm"]),
    ("aaacb", ["3 of 5 slices have a, but b, c in 3.dcm, 4.dcm"]),
    ("aaabcd", ["3 of 6 slices differ from a"]),
    ("aaaaabbbb", ["5 of 9 slices have a, but b in 5.dcm, 6.dcm, 7.dcm and 1 more"]),
])  # fmt: skip
def test_slices_that_say_otherwise_than_most_are_told(said: str, note: list[str]) -> None:
    assert _odd_ones(list(said), [f"{k}.dcm" for k in range(len(said))]) == note
