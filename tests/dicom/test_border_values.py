"""Values at the border: read right where the content suffices, else one sentence that names attribute and file."""

from __future__ import annotations

import copy
import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from doseledger.core.errors import BadCase, BadInput
from doseledger.dicom.pixels import padding_of, read_pixels
from doseledger.dicom.plan.check import check_rtplan
from doseledger.dicom.read_dose import read_dose
from doseledger.dicom.read_image import read_image
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.dicom.source import SourceFile, in_file, lenient, parse_dataset, scan_source
from doseledger.dicom.values import items_of, number_of, text_of, whole_of

SPACING, ORIGIN = (3.0, 2.5, 2.0), (-10.0, -20.0, 5.0)
SHAPE = (4, 7, 9)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(5).integers(-1000, 1500, size=SHAPE).astype(float)


@pytest.fixture
def slices(factory, volume):
    made = factory.make_ct(volume, SPACING, ORIGIN)
    for index, item in enumerate(made):
        item.file_label = f"CT{index}.dcm"
    return made


def signed(item: pydicom.Dataset, stored: np.ndarray) -> None:
    """Give a slice signed pixels."""
    item.PixelRepresentation, item.PixelData = 1, stored.astype("<i2").tobytes()
    item["PixelData"].VR = "OW"


def reread(dataset: pydicom.Dataset, syntax: str | None = None) -> pydicom.Dataset:
    """The data set as it comes back from a file."""
    if syntax:
        dataset.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    implicit = syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True, implicit_vr=implicit, little_endian=True)
    return parse_dataset(stream.getvalue())


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("how", ["empty", "missing"])
def test_a_ct_without_its_scale_is_refused_by_attribute_and_file(slices, keyword, how):
    if how == "empty":
        setattr(slices[2], keyword, None)
    else:
        delattr(slices[2], keyword)
    with pytest.raises(BadCase, match=rf"case_1: CT2\.dcm: {keyword} is {how}, wanted a number"):
        read_image(slices, "case_1")


@pytest.mark.parametrize("value", [None, "absent"])
def test_an_mr_without_a_scale_has_its_own_units(factory, slices, volume, value):
    for item in slices:
        item.Modality = "MR"
        for keyword in ("RescaleSlope", "RescaleIntercept"):
            delattr(item, keyword) if value else setattr(item, keyword, None)
    np.testing.assert_array_equal(read_image(slices, "case_1").values, volume + 1024)


@pytest.mark.parametrize(("vr", "value"), [("SS", -2000), ("US", 63536)])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_padding_is_the_same_bits_whatever_type_it_was_written_with(slices, volume, vr, value, syntax):
    read = []
    for item, plane in zip(slices, volume, strict=True):
        stored = (plane + 1024).astype(np.int16)
        stored[0, :3] = -2000
        signed(item, stored)
        item.add_new("PixelPaddingValue", vr, value)
        read.append(reread(item, syntax))
    image = read_image(read, "case_1")
    assert image.n_padded == 3 * len(slices)
    assert np.all(image.values[:, 0, :3] == -1000)
    np.testing.assert_array_equal(image.values[:, 1:], volume[:, 1:])


def test_negative_padding_of_unsigned_pixels_is_the_same_bits_too(slices):
    slices[0].add_new("PixelPaddingValue", "SS", -2000)
    slices[0].add_new("PixelPaddingRangeLimit", "SS", -1999)
    assert padding_of(slices[0]) == (63536, 63537)
    slices[0].add_new("PixelPaddingValue", "UL", 70000)
    with pytest.raises(BadInput, match="PixelPaddingValue is 70000, which 16 bits can't hold"):
        padding_of(slices[0])


def put(dataset: pydicom.Dataset, keyword: str, text: bytes) -> pydicom.Dataset:
    """The data set with the bytes of one value as some other program wrote them."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    raw = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), pydicom.datadict.dictionary_VR(tag), len(text), text, 0, False, True
    )
    dataset._dict[pydicom.tag.Tag(tag)] = raw
    return dataset


@pytest.mark.parametrize(
    ("keyword", "text", "message"),
    [
        ("RescaleSlope", b"1,5 ", r"RescaleSlope is '1,5', with a decimal comma where DICOM has a point"),
        ("RescaleIntercept", b"Anna", "RescaleIntercept is no number, wanted a number"),
        ("RescaleIntercept", b"1\\2 ", "RescaleIntercept is 2 values"),
        ("RescaleSlope", b"NaN ", "RescaleSlope is no number"),
        ("RescaleSlope", b"0 ", "RescaleSlope is 0"),
        ("RescaleSlope", b"-1", "RescaleSlope is -1.*turned over"),
        ("PixelSpacing", b"2,5\\2,0 ", "PixelSpacing of the CT has 0 finite values .*'2,5', with a decimal comma"),
        ("ImagePositionPatient", b"1\\2\\x ", "ImagePositionPatient of the CT has 2 finite values .one is no number"),
        ("RescaleIntercept", b"1e300 ", "after rescaling are no HU"),
        ("Rows", b"\x07", "Rows can't be read"),
        ("BitsStored", b"\x20\x00", "BitsAllocated is 16 and BitsStored 32"),
        ("HighBit", b"\x0b\x00", "HighBit is 11, wanted 15"),
        ("PixelRepresentation", b"\x02\x00", "PixelRepresentation is 2, wanted 0 or 1"),
        ("SamplesPerPixel", b"\x03\x00", "SamplesPerPixel is 3, wanted 1"),
        ("NumberOfFrames", b"xx", "NumberOfFrames is no number"),
        ("NumberOfFrames", b"1.5 ", "NumberOfFrames is '1.5', wanted a whole number"),
        ("NumberOfFrames", b"0 ", "NumberOfFrames is 0, wanted at least 1"),
        ("NumberOfFrames", b"99999999999 ", "more than any patient's"),
    ],
)
def test_a_value_that_can_not_be_is_named_with_its_file_and_no_text_is_repeated(slices, keyword, text, message):
    put(slices[1], keyword, text)
    with lenient(), pytest.raises(BadCase, match=rf"CT1\.dcm: .*{message}") as refused:
        read_image(slices, "case_1")
    assert "Anna" not in str(refused.value)


@pytest.mark.parametrize("extra", [12, 2, -2])
@pytest.mark.parametrize("where", ["before", "after"])
def test_pixel_data_of_another_length_than_its_header_is_refused(slices, factory, extra, where):
    dose = factory.make_rtdose(lambda z, y, x: 40.0 + x, (3, 6, 7), SPACING, ORIGIN)
    for item in (slices[2], dose):
        content, more = item.PixelData, bytes(max(extra, 0))
        content = content[:extra] if extra < 0 else more + content if where == "before" else content + more
        item.PixelData = content
        item["PixelData"].VR = "OW"
        wanted = 126 if item is slices[2] else 504
        with pytest.raises(BadInput, match=rf"PixelData has {wanted + extra} bytes, wanted {wanted} for"):
            read_pixels(item)
    with pytest.raises(BadCase, match=r"CT2\.dcm: pixels"):
        read_image(slices, "case_1")


def test_an_odd_number_of_bytes_is_padded_by_one(slices):
    item = slices[0]
    item.BitsAllocated, item.BitsStored, item.HighBit = 8, 8, 7
    item.PixelData = np.arange(63, dtype=np.uint8).tobytes() + b"\0"
    np.testing.assert_array_equal(read_pixels(item).ravel(), np.arange(63))


def test_a_changed_bits_stored_is_refused_where_it_would_cut_values_and_named_where_not(slices, volume):
    slices[1].BitsStored, slices[1].HighBit = 12, 11
    assert read_image(slices, "case_1").notes == ("3 of 4 slices have BitsStored 16, but BitsStored 12 in CT1.dcm",)
    pixels = np.frombuffer(slices[1].PixelData, np.uint16).reshape(7, 9).copy()
    pixels[2, 3] = 4096
    slices[1].PixelData = pixels.tobytes()
    with pytest.raises(BadCase, match=r"CT1\.dcm: BitsStored is 12, but 1 pixels lie outside 0 to 4095"):
        read_image(slices, "case_1")
    slices[1].PixelPaddingValue = 4096
    np.testing.assert_array_equal(read_image(slices, "case_1").values[0], volume[0])


def test_one_odd_rescale_among_slices_is_named(slices, volume):
    slices[3].RescaleIntercept = 0
    image = read_image(slices, "case_1")
    assert image.notes == ("3 of 4 slices have slope 1, intercept -1024, but slope 1, intercept 0 in CT3.dcm",)
    np.testing.assert_array_equal(image.values[3], volume[3] + 1024)


def test_a_slice_that_is_a_copy_of_the_one_before_is_named(slices):
    slices[2].PixelData = slices[1].PixelData
    assert read_image(slices, "case_1").notes == ("1 slices are copies of the one before: CT2.dcm",)


def test_run_lengths_are_read_and_too_few_of_them_refused(slices, volume):
    item = copy.deepcopy(slices[0])
    item.compress(RLELossless)
    np.testing.assert_array_equal(read_pixels(item)[0], volume[0] + 1024)
    item.Rows = item.Columns = 4000
    with pytest.raises(BadInput, match="too few for 32000000 bytes of pixels"):
        read_pixels(item)


def test_a_scout_view_in_the_series_is_left_out_and_listed(slices, volume, factory):
    scout = copy.deepcopy(slices[0])
    scout.ImageType, scout.file_label = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "CT9.dcm"
    scout.ImageOrientationPatient, scout.Rows = [0, 1, 0, 0, 0, -1], 3
    image = read_image([*slices, scout], "case_1")
    np.testing.assert_array_equal(image.values, volume)
    assert image.notes == ("1 scout views were left out (CT9.dcm)",)


def enhanced(slices: list[pydicom.Dataset]) -> pydicom.Dataset:
    """One file of all slices, as enhanced CT has it: what frames share apart from what each has."""
    item = copy.deepcopy(slices[0])
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(item, keyword)
    measures, orientation, scale, shared = (pydicom.Dataset() for _ in range(4))
    measures.PixelSpacing = slices[0].PixelSpacing
    orientation.ImageOrientationPatient = slices[0].ImageOrientationPatient
    scale.RescaleSlope, scale.RescaleIntercept = slices[0].RescaleSlope, slices[0].RescaleIntercept
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [scale]
    frames = []
    for plane in slices:
        frame, position = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = plane.ImagePositionPatient
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    item.SharedFunctionalGroupsSequence, item.PerFrameFunctionalGroupsSequence = [shared], frames
    item.NumberOfFrames, item.PixelData = len(slices), b"".join(plane.PixelData for plane in slices)
    item["PixelData"].VR, item.file_label = "OW", "CT.dcm"
    item.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    return item


def test_an_enhanced_ct_is_the_same_volume(slices, volume):
    whole = enhanced(slices[::-1])
    image = read_image([whole], "case_1")
    np.testing.assert_array_equal(image.values, volume)
    assert image.grid.same_as(read_image(slices, "case_1").grid)
    del whole.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    with pytest.raises(BadCase, match=r"CT\.dcm: RescaleSlope is missing"):
        read_image([whole], "case_1")


def test_an_enhanced_ct_of_another_number_of_frames_is_refused(slices):
    whole = enhanced(slices)
    whole.NumberOfFrames = 3
    whole.PixelData = whole.PixelData[: 3 * 126]
    with pytest.raises(BadCase, match=r"CT\.dcm: frame 4 is described, but there are pixels of 3 frames"):
        read_image([whole], "case_1")


@pytest.mark.parametrize("keyword", ["StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence"])
def test_an_item_without_its_roi_number_is_named_with_its_file(factory, keyword):
    rtstruct = factory.make_patient().rtstruct
    rtstruct.file_label = "RS.dcm"
    name = "ROINumber" if keyword == "StructureSetROISequence" else "ReferencedROINumber"
    delattr(getattr(rtstruct, keyword)[1], name)
    with pytest.raises(BadCase, match=rf"RS\.dcm: item 2 of {keyword}: {name} is missing, wanted a whole number"):
        read_rois(rtstruct, "case_1")
    delattr(rtstruct, keyword)
    rtstruct.add_new(keyword, "LO", "no sequence")
    with lenient(), pytest.raises(BadCase, match=f"{keyword} is no sequence"):
        read_rois(rtstruct, "case_1")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"1,5\\2\\3 ", "'1,5', with a decimal comma where DICOM has a point"), (b"Anna\\2\\3 ", "no number"),
        (b"1\\2 ", "2 numbers"), (b"nan\\2\\3 ", "no number"),
    ],
)  # fmt: skip
def test_contour_data_that_are_no_points_are_named_with_file_and_structure(factory, text, what):
    rtstruct = factory.make_patient().rtstruct
    rtstruct.file_label = "RS.dcm"
    roi = read_rois(rtstruct, "case_1")[1]
    put(roi.items[0], "ContourData", text)
    with pytest.raises(
        BadCase, match=rf"RS\.dcm: ContourData of {roi.name} is not a list .*there is {what}"
    ) as refused:
        read_contours(roi, "case_1")
    assert "Anna" not in str(refused.value)


def test_a_decimal_comma_in_a_plan_is_named_with_its_place_and_attribute(factory):
    rtplan = factory.make_patient().rtplan
    put(rtplan.BeamSequence[0].ControlPointSequence[0], "GantryAngle", b"0,5 ")
    put(rtplan.FractionGroupSequence[0].ReferencedBeamSequence[0], "BeamMeterset", b"300,5 ")
    comma = "with a decimal comma where DICOM has a point, wanted a number."
    with lenient():
        assert sorted(check_rtplan(rtplan)) == [
            f"Beam 1, control point 0: GantryAngle holds '0,5', {comma}",
            f"The plan, FractionGroup 1, ReferencedBeam 1: BeamMeterset holds '300,5', {comma}",
        ]


def test_an_roi_without_a_name_is_called_by_its_number(factory):
    rtstruct = factory.make_patient().rtstruct
    number = rtstruct.StructureSetROISequence[1].ROINumber
    rtstruct.StructureSetROISequence[1].ROIName = ""
    assert read_rois(rtstruct, "case_1")[1].name == f"ROI {number} without a name"


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("DoseGridScaling", "DoseGridScaling of the RTDOSE is {}, wanted a number"),
        ("GridFrameOffsetVector", "GridFrameOffsetVector of the RTDOSE is {}, wanted 3 numbers"),
        ("PixelSpacing", "PixelSpacing of the RTDOSE is {}, wanted 2 numbers"),
        ("DoseUnits", "RTDOSE has no DoseUnits, wanted GY"),
        ("NumberOfFrames", "NumberOfFrames is missing, though GridFrameOffsetVector has 3 values"),
    ],
)
def test_what_a_dose_lacks_is_named_for_missing_or_empty(factory, keyword, message):
    for how in ("empty", "missing"):
        dose = factory.make_rtdose(lambda z, y, x: 40.0 + x, (3, 6, 7), SPACING, ORIGIN)
        dose.file_label = "RD.dcm"
        setattr(dose, keyword, None) if how == "empty" else delattr(dose, keyword)
        with pytest.raises(BadCase, match=rf"RD\.dcm: .*{message.format(how)}"):
            read_dose(dose, "case_1")


def test_a_dose_is_refused_by_attribute_and_file(factory):
    dose = factory.make_rtdose(lambda z, y, x: 40.0 + x, (3, 6, 7), SPACING, ORIGIN)
    dose.file_label = "RD.dcm"
    put(dose, "DoseGridScaling", b"0,001 ")
    with pytest.raises(BadCase, match=r"RD\.dcm: DoseGridScaling of the RTDOSE has 0 finite values .*decimal comma"):
        read_dose(dose, "case_1")


def test_what_pydicom_raises_names_the_attribute_that_can_not_be_read(slices):
    put(slices[0], "PatientSize", b"\xff\xfe1")
    slices[0]._dict[pydicom.tag.Tag("PatientSize")] = slices[0].get_item("PatientSize")._replace(VR="FD")
    unread = r"CT0\.dcm: PatientSize \(0010,1020\) can't be read \(BytesLengthException\)"
    with pytest.raises(BadCase, match=unread), in_file(slices[0], "case_1"):
        _ = slices[0].PatientSize
    with pytest.raises(BadCase, match=r"CT0\.dcm: StudyID is missing"), in_file(slices[0], "case_1"):
        _ = slices[0].StudyID


def test_padding_of_texts_is_insignificant_and_emptiness_is_absence():
    item = pydicom.Dataset()
    item.PatientID, item.StudyID, item.SeriesNumber, item.PatientSize = "  a b \0", "  ", None, None
    assert (text_of(item, "PatientID"), text_of(item, "StudyID")) == ("a b", "")
    assert (whole_of(item, "SeriesNumber"), number_of(item, "PatientSize"), items_of(item, "BeamSequence")) == (
        None, None, []
    )  # fmt: skip


def test_warnings_of_pydicom_are_heard_by_category_and_without_values(factory, tmp_path):
    patient = factory.make_patient()
    folder = patient.save(tmp_path / "raw")
    content = bytearray((folder / "RTPLAN_022.dcm").read_bytes())
    at = content.index(b"\x08\x00\x18\x00UI") + 8
    content[at : at + 3] = b"A.2"
    (folder / "RTPLAN_022.dcm").write_bytes(content)
    with lenient() as heard:
        for file in scan_source(folder).files:
            text_of(file.dataset, "SOPInstanceUID")
    assert heard.notes() == ["the files hold values that break the form of their type"]


def test_files_are_called_by_name_only_where_the_name_names_nobody(tmp_path, factory):
    patient = factory.make_patient()
    folder = tmp_path / "raw"
    folder.mkdir()
    names = ["CT.1.2.840.113.dcm", "Doe_Jane.dcm", "image0001.ima"]
    for item, name in zip(patient.ct, names, strict=False):
        item.save_as(folder / name, enforce_file_format=True)
    labels = [file.label for file in scan_source(folder).files]
    assert labels == ["CT.1.2.840.113.dcm", "CT file no. 2", "image0001.ima"]
    assert SourceFile("a.dcm", pydicom.Dataset()).label == "a.dcm"
