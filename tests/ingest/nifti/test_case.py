"""NIfTI pairs to cases: every way a volume can lie, each kind of dirt, and what a good one becomes."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, SkippedCase
from doseledger.core.project.protocol import Protocol, SkipWhen
from doseledger.core.schema import load_block
from doseledger.core.tables import CASES, SKIPPED, read_table
from doseledger.ingest.cohort import IngestCount, IngestRun, ingest
from doseledger.ingest.nifti.case import convert_case
from doseledger.ingest.nifti.files import find_volumes, read_label_names, volume_digest
from doseledger.ingest.nifti.volume import read_volume
from doseledger.ingest.pack import pack
from doseledger.ingest.patient.case import Origin

SHAPE = (6, 8, 10)
AFFINE = np.array([[-2.0, 0, 0, 30], [0, -1.5, 0, 40], [0, 0, 3.0, -50], [0, 0, 0, 1]])


def protocol_of(**changes: Any) -> Protocol:
    block = {
        "name": "brain",
        "title": "made-up structures",
        "source": "nifti",
        "modality": "MR",
        "spacing_mm": "native",
        "crop": "none",
        "sdf_clip_mm": 10.0,
        "structures": [
            {"name": "Front", "kind": "organ", "label": 1, "aliases": ["Anterior"]},
            {"name": "Back", "kind": "organ", "label": 2, "required": False},
        ],
    }
    return load_block(Protocol, {**block, **changes}, "protocol")


def picture(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Image and label along the file's axes, no two voxels alike."""
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 2:5, 3:6], label[4, 5:7, 7:9] = 1, 2
    return (100 + 400 * rng.random(SHAPE) + 300 * (label > 0)).astype(np.float32), label


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, **header: Any) -> Path:
    image = nibabel.Nifti1Image(array, affine)
    image.set_qform(affine, code=1, strip_shears=True)
    for key, value in header.items():
        image.header[key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def without_code(path: Path, *names: str) -> Path:
    """Take sform or qform out of a file: nibabel itself would write one of them anew."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    for name in names:
        at = {"qform": 252, "sform": 254}[name]
        content[at : at + 2] = b"\0\0"
    path.write_bytes(gzip.compress(bytes(content), mtime=0))
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        image, label = picture(number)
        write(tmp_path / f"raw/images/brain_{number}.nii.gz", image)
        label[0, 0, number] = 1
        write(tmp_path / f"raw/labels/brain_{number}.nii.gz", label)
    return tmp_path / "raw"


def convert(raw: Path, name: str = "brain_1", **changes: Any) -> Case:
    return convert_case(find_volumes(raw)[name], Origin(name), protocol_of(**changes))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_a_volume_stored_along_any_axes_is_the_same_in_lps_and_goes_back_as_it_was(order: Any, flips: Any) -> None:
    image, _ = picture()
    straight = read_volume(nibabel.Nifti1Image(image, AFFINE).to_bytes(), "x", "x")
    turn = nibabel.orientations.apply_orientation(image, np.stack([order, flips], axis=1))
    affine = AFFINE @ nibabel.orientations.inv_ornt_aff(np.stack([order, flips], axis=1), SHAPE)
    found = read_volume(nibabel.Nifti1Image(turn, affine).to_bytes(), "x", "x")
    np.testing.assert_array_equal(found.values, straight.values)
    assert found.grid.same_as(straight.grid)
    np.testing.assert_array_equal(found.in_file_axes(found.values), turn)


def test_a_voxel_lies_where_the_affine_says_with_x_and_y_turned_from_ras_to_lps() -> None:
    image, _ = picture()
    volume = read_volume(nibabel.Nifti1Image(image, AFFINE).to_bytes(), "x", "x")
    i, j, k = 2, 3, 4
    x, y, z = (AFFINE @ [i, j, k, 1])[:3] * [-1, -1, 1]
    index = np.rint(volume.grid.mm_to_index(np.array([z, y, x]))).astype(int)
    assert volume.values[tuple(index)] == image[i, j, k]
    assert volume.grid.spacing_mm == (3.0, 1.5, 2.0)
    assert volume.axes == "LPS"


def test_slope_and_intercept_are_applied() -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE)
    image.header["scl_slope"], image.header["scl_inter"] = 2.0, -7.0
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array([2.0, -7.0], "<f4").tobytes()
    assert sorted(read_volume(bytes(raw), "x", "x").values.ravel()) == [2.0 * n - 7.0 for n in range(24)]


def tilted(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([1.0, 2.0, 3.0]), (5.0, -4.0, 3.0)
    return affine


def test_an_oblique_image_is_refused_by_name_and_kept_along_its_own_axes_where_the_protocol_lets_it(
    raw: Path,
) -> None:
    image, label = picture()
    for folder, array in (("images", image), ("labels", label)):
        write(raw / folder / "brain_1.nii.gz", array, tilted(12.0))
    with pytest.raises(BadCase, match=r"brain_1: the image is oblique: an axis is 12\.0° off the patient's.*allows 0°"):
        convert(raw)
    case = convert(raw, most_tilt_deg=20.0)
    assert case.grid.spacing_mm == pytest.approx((3.0, 2.0, 1.0))
    assert case.meta["tilt_deg"] == 12.0
    assert "oblique by 12.0°" in case.meta["warnings"][0]


SHEARED = AFFINE.copy()
SHEARED[0, 1] = 0.5
BROKEN_HEADERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "4D": (
        lambda p: write(p, np.zeros((*SHAPE, 2), np.float32)),
        r"has 4 dimensions \[6, 8, 10, 2\]; wanted one volume",
    ),
    "2D": (lambda p: write(p, np.zeros(SHAPE[:2], np.float32)), r"has 2 dimensions"),
    "RGB": (lambda p: write(p, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])), r"holds colours \(RGB\)"),
    "complex": (lambda p: write(p, np.zeros(SHAPE, np.complex64)), "holds complex numbers"),
    "shear": (lambda p: write(p, picture()[0], SHEARED, qform_code=0), "not at right angles"),
    "no place": (lambda p: without_code(write(p, picture()[0]), "sform", "qform"), "neither sform nor qform"),
    "micrometres": (lambda p: write(p, picture()[0], xyzt_units=3), "lengths in micrometres, wanted mm"),
    "NaN": (lambda p: write(p, np.where(np.indices(SHAPE)[0] == 2, np.nan, 1.0)), "has 80 voxels that are NaN"),
    "text": (lambda p: _bytes(p, b"a table of numbers" * 50), "is no NIfTI in one file"),
    "nothing": (lambda p: _bytes(p, b""), "is no NIfTI in one file"),
    "no gzip": (lambda p: _bytes(p, b"\x1f\x8b" + b"\0" * 600), "can't be unpacked"),
}


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("make", "said"), BROKEN_HEADERS.values(), ids=BROKEN_HEADERS)
def test_a_file_that_is_no_single_volume_of_numbers_in_a_known_place_is_refused(
    raw: Path, make: Callable[[Path], Path], said: str
) -> None:
    make(raw / "images/brain_1.nii.gz")
    with pytest.raises(BadCase, match=rf"brain_1: images/brain_1.nii.gz .*{said}"):
        convert(raw)


def test_a_place_by_sform_that_is_not_that_by_qform_is_refused_with_the_distance(raw: Path) -> None:
    image = nibabel.Nifti1Image(picture()[0], AFFINE)
    other = AFFINE.copy()
    other[2, 3] += 4.0
    image.set_qform(other, code=1)
    nibabel.save(image, raw / "images/brain_1.nii.gz")
    with pytest.raises(BadCase, match=r"by its sform 4\.0 mm away from its qform"):
        convert(raw)


@pytest.mark.parametrize("code", ["sform", "qform"])
def test_one_of_sform_and_qform_is_enough(raw: Path, code: str) -> None:
    for folder in ("images", "labels"):
        without_code(raw / folder / "brain_1.nii.gz", code)
    assert convert(raw).grid.spacing_mm == (3.0, 1.5, 2.0)


def test_an_axis_of_one_voxel_beyond_the_third_says_nothing(raw: Path) -> None:
    image, _ = picture()
    whole = convert(raw)
    write(raw / "images/brain_1.nii.gz", image[..., None])
    np.testing.assert_array_equal(convert(raw).ct_hu, whole.ct_hu)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_that_was_cut_or_had_a_byte_changed_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    whole = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE).to_bytes()
    broken = bytearray(gzip.compress(whole, mtime=0) if data.draw(st.booleans()) else whole)
    if data.draw(st.booleans()):
        del broken[data.draw(st.integers(0, len(broken) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] ^= data.draw(st.integers(1, 255))
    with suppress(BadCase, BadInput):
        assert read_volume(bytes(broken), "x.nii", "x").values.ndim == 3


def test_a_header_that_promises_a_huge_volume_asks_for_no_memory() -> None:
    content = bytearray(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), AFFINE).to_bytes())
    content[42:48] = np.array([32767] * 3, "<i2").tobytes()
    with pytest.raises(BadCase, match="which no scan has"):
        read_volume(bytes(content), "x.nii", "x")


@pytest.mark.parametrize(("shape", "dtype", "said"), [
    ((512, 512, 1025), np.float64, "which no scan has"),
    ((512, 512, 1024), np.float64, "was cut: 352 of 2147484000 bytes"),
    ((512, 1024, 1025), np.int8, "which no scan has"),
    ((512, 1024, 1024), np.int8, "was cut"),
])  # fmt: skip
def test_a_packed_volume_of_more_than_2_gib_or_of_more_voxels_than_any_scan_is_not_unpacked(
    shape: tuple[int, int, int], dtype: Any, said: str
) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with pytest.raises(BadCase, match=said):
        read_volume(gzip.compress(header.binaryblock + bytes(4), mtime=0), "x.nii.gz", "x")


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("at", [352, 352 + 20, 352 + 48])
def test_bytes_too_many_move_all_voxels_behind_them_and_are_refused(at: int, is_packed: bool) -> None:
    whole = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE).to_bytes()
    longer = whole[:at] + b"\0\0" + whole[at:]
    with pytest.raises(BadCase, match=r"x.nii goes on behind the 400 bytes that its header counts; copy it again"):
        read_volume(gzip.compress(longer) if is_packed else longer, "x.nii", "x")


@pytest.mark.parametrize(("field", "value", "said"), [
    ("bitpix", 8, "bitpix does not match"),
    ("vox_offset", 16, "vox offset 16 too low"),
    ("datatype", 4096, "not recognized"),
    ("sform_code", 77, "sform_code 77 not valid"),
    ("scl_inter", np.inf, "invalid intercept inf"),
])  # fmt: skip
def test_a_header_that_nibabel_would_mend_is_refused_with_what_is_wrong_and_nothing_is_logged(
    field: str, value: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    header = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), AFFINE).header
    header["magic"], header["vox_offset"], header["scl_slope"] = b"n+1", 352, 2.0
    header[field] = value
    with pytest.raises(BadCase, match=f"x.nii has a header that can't be .*{said}.*convert it again"):
        read_volume(header.binaryblock + bytes(52), "x.nii", "x")
    assert not caplog.records


def test_voxels_that_begin_within_the_header_are_refused() -> None:
    header = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), AFFINE).header
    header["magic"], header["vox_offset"] = b"n+1", 0
    with pytest.raises(BadCase, match=r"x.nii says that its numbers begin at byte 0; convert it again"):
        read_volume(header.binaryblock[:348], "x.nii", "x")


def test_an_offset_that_another_program_can_not_map_and_a_turn_of_0_are_no_faults() -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE)
    header = image.header.copy()
    header["magic"], header["vox_offset"] = b"n+1", 356
    header["pixdim"][0] = 0
    volume = read_volume(header.binaryblock + bytes(8) + np.asarray(image.dataobj).tobytes("F"), "x.nii", "x")
    np.testing.assert_array_equal(volume.values, read_volume(image.to_bytes(), "x.nii", "x").values)


def test_a_turn_of_0_is_read_as_1_where_the_place_is_that_of_the_qform() -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), None)
    image.set_qform(np.diag([-2.0, -1.5, 3.0, 1.0]), code=1)
    wanted = read_volume(image.to_bytes(), "x.nii", "x")
    content = bytearray(image.to_bytes())
    assert np.frombuffer(content[76:80], "<f4") == 1.0
    content[76:80] = bytes(4)
    volume = read_volume(bytes(content), "x.nii", "x")
    assert volume.grid == wanted.grid
    np.testing.assert_array_equal(volume.values, wanted.values)


def test_a_pair_becomes_a_case_without_dose(raw: Path) -> None:
    case = convert(raw)
    image, label = picture()
    label[0, 0, 1] = 1
    assert case.dose_gy is None
    assert case.prescription_gy == {}
    assert case.mask("Front").sum() == (label == 1).sum()
    # AFFINE is LPS already: only the order of the axes is another.
    np.testing.assert_array_equal(case.mask("Back"), (label == 2).transpose(2, 1, 0))
    assert case.present_names == ("Front", "Back")
    assert case.meta["modality"] == "MR"
    low, high = np.percentile(image, (0.5, 99.5))
    wanted = np.rint(1000 * (image - low) / (high - low)).transpose(2, 1, 0)
    assert np.abs(case.ct_hu - wanted).max() <= 1
    assert case.meta["intensity"] == pytest.approx({"low": low, "high": high}, rel=1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(0.01, 0.0), (2500.0, 0.0), (3.0, -777.0)])
def test_an_mr_image_on_another_scale_becomes_the_same_case(raw: Path, gain: float, offset: float) -> None:
    whole = convert(raw)
    write(raw / "images/brain_1.nii.gz", (picture()[0].astype(np.float64) * gain + offset).astype(np.float32))
    assert np.abs(convert(raw).ct_hu - whole.ct_hu).max() <= 1


def test_an_image_in_eight_bits_and_one_hot_voxel_keep_the_rest_apart(raw: Path) -> None:
    image = picture()[0].copy()
    image[0, 0, 0] = 1e9
    write(raw / "images/brain_1.nii.gz", image)
    case = convert(raw)
    assert case.ct_hu.max() == np.iinfo(np.int16).max
    assert len(np.unique(case.ct_hu)) > 200


def test_ct_keeps_its_hu_and_one_beyond_any_hu_is_refused(raw: Path) -> None:
    hu = np.where(np.indices(SHAPE)[0] < 1, -1000, 40).astype(np.float32)
    write(raw / "images/brain_1.nii.gz", hu)
    case = convert(raw, modality="CT")
    assert set(np.unique(case.ct_hu)) == {-1000, 40}
    write(raw / "images/brain_1.nii.gz", hu * 1000)
    with pytest.raises(BadCase, match=r"-1e\+06 to 4e\+04, which is no CT in HU"):
        convert(raw, modality="CT")


def test_a_constant_image_shows_nothing(raw: Path) -> None:
    write(raw / "images/brain_1.nii.gz", np.full(SHAPE, 7.0, np.float32))
    with pytest.raises(BadCase, match="the image is 7 almost everywhere: it shows nothing"):
        convert(raw)


def test_what_fills_the_faces_is_not_the_image_and_a_hole_within_is(raw: Path) -> None:
    image = picture()[0].copy()
    image[0], image[:, :, -1], image[3, 3, 3] = 0, 0, 0
    write(raw / "images/brain_1.nii.gz", image)
    case = convert(raw)
    assert int((~case.body).sum()) == int((image == 0).sum()) - 1


def test_a_label_along_other_axes_in_the_same_place_is_the_same(raw: Path) -> None:
    whole = convert(raw)
    path = raw / "labels/brain_1.nii.gz"
    turned = nibabel.as_closest_canonical(nibabel.load(path))
    nibabel.save(turned, path)
    np.testing.assert_array_equal(convert(raw).masks, whole.masks)


MOVED = AFFINE.copy()
MOVED[0, 3] += 2.5
LABELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "shape": (
        lambda p: write(p, np.ones((6, 8, 9), np.uint8)),
        "the image has 6 × 8 × 10 voxels along LPS, the label 6 × 8 × 9; wanted one grid",
    ),
    "moved": (lambda p: write(p, picture()[1], MOVED), r"the label lies 2\.50 mm off"),
    "mirrored": (
        lambda p: write(p, picture()[1], AFFINE @ np.diag([-1.0, 1, 1, 1])),
        "and its axes run RPS, the image's LPS",
    ),
    "interpolated": (lambda p: write(p, picture()[1] * np.float32(0.4)), r"holds 0\.4, wanted integers"),
    "unknown": (lambda p: write(p, picture()[1] * 3), r"the label holds 3, 6; wanted 0 \(background\) and 1, 2"),
    "negative": (lambda p: write(p, -picture()[1].astype(np.int16)), r"the label holds -2, -1"),
    "empty": (lambda p: write(p, np.zeros(SHAPE, np.uint8)), "the label is empty: 0 everywhere"),
    "required": (lambda p: write(p, (picture()[1] == 2) * np.uint8(2)), "no voxel of Front; draw it"),
    "absent": (lambda p: p.unlink(), r"no label beside images/brain_1.nii.gz"),
}


@pytest.mark.parametrize(("make", "said"), LABELS.values(), ids=LABELS)
def test_a_label_that_does_not_fit_is_refused_with_what_was_found(
    raw: Path, make: Callable[[Path], object], said: str
) -> None:
    make(raw / "labels/brain_1.nii.gz")
    with pytest.raises(BadCase, match=f"brain_1: .*{said}"):
        convert(raw)


def test_labels_in_single_precision_that_are_integers_are_labels(raw: Path) -> None:
    whole = convert(raw)
    path = raw / "labels/brain_1.nii.gz"
    write(path, np.asanyarray(nibabel.load(path).dataobj).astype(np.float32))
    np.testing.assert_array_equal(convert(raw).masks, whole.masks)


def test_an_optional_structure_may_be_absent_and_one_that_skip_when_names_skips_the_case(raw: Path) -> None:
    write(raw / "labels/brain_1.nii.gz", (picture()[1] == 1) * np.uint8(1))
    case = convert(raw)
    assert case.present.tolist() == [True, False]
    assert (case.sdf_mm[1] == np.float16(10.0)).all()
    with pytest.raises(SkippedCase, match="one side only: no voxel of Back"):
        convert(raw, skip_when=SkipWhen(any_absent=["Back"], reason="one side only"))


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "Anterior", "2": "Back", "3": "Skull"},
        {"background": 0, "front": 1, "Back": 2, "Skull": 3},
    ],
)
def test_dataset_json_says_which_values_there_are_and_what_they_are_called(raw: Path, labels: dict[str, Any]) -> None:
    (raw / "dataset.json").write_text(json.dumps({"labels": labels}))
    label = picture()[1]
    label[5, 7, 9] = 3
    write(raw / "labels/brain_1.nii.gz", label)
    assert convert(raw).present_names == ("Front", "Back")
    label[5, 7, 9] = 4
    write(raw / "labels/brain_1.nii.gz", label)
    with pytest.raises(BadCase, match=r"holds 4; wanted 0 \(background\) and 1, 2, 3"):
        convert(raw)


def test_a_protocol_that_calls_a_label_otherwise_than_dataset_json_is_refused(raw: Path) -> None:
    (raw / "dataset.json").write_text(json.dumps({"labels": {"1": "Back", "2": "Front"}}))
    with pytest.raises(BadCase, match=r"calls label 1 Front, dataset\.json Back; mend `label`, or add the alias"):
        convert(raw)


@pytest.mark.parametrize("content", ["[]", '{"labels": {}}', '{"labels": {"both": [1, 2]}}'])
def test_a_dataset_json_without_single_values_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(BadInput, match=r"no `labels`|a label is no single value"):
        read_label_names(tmp_path / "dataset.json")


def test_resampling_keeps_volumes_and_places(raw: Path) -> None:
    whole, fine = convert(raw), convert(raw, spacing_mm=(1.5, 1.5, 1.0))
    assert fine.grid.spacing_mm == (1.5, 1.5, 1.0)
    for name in ("Front", "Back"):
        volumes = [case.mask(name).sum() * case.grid.voxel_volume_cc for case in (whole, fine)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.02)
        centres = [case.grid.index_to_mm(np.argwhere(case.mask(name)).mean(axis=0)) for case in (whole, fine)]
        np.testing.assert_allclose(centres[0], centres[1], atol=0.3)


@pytest.mark.parametrize(
    "layout", [("images", "labels", ""), ("imagesTr", "labelsTr", ""), ("imagesTr", "labelsTr", "_0000")]
)
def test_pairs_are_found_in_the_decathlons_layout_and_in_bare_folders(raw: Path, layout: tuple[str, str, str]) -> None:
    images, labels, channel = layout
    for path in sorted((raw / "images").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii.gz", f"{channel}.nii.gz")))
    (raw / "images").rename(raw / images)
    (raw / "labels").rename(raw / labels)
    (raw / images / "._brain_1.nii.gz").write_bytes(b"a shadow")
    (raw / images / "notes.txt").write_text("no volume")
    assert list(find_volumes(raw)) == ["brain_1", "brain_2", "brain_3"]
    assert convert(raw, "brain_2").present.all()


def test_a_case_that_is_there_twice_is_refused(raw: Path) -> None:
    write(raw / "images/brain_1.nii", picture()[0])
    with pytest.raises(BadInput, match=r"brain_1 is there as brain_1\.nii and as brain_1\.nii\.gz; keep one"):
        find_volumes(raw)


def test_dirt_is_listed_with_its_reason_and_the_rest_goes_on(raw: Path, tmp_path: Path) -> None:
    image, label = picture(4)
    write(raw / "images/alone.nii.gz", image)
    # That its label is another's too says nothing of the other.
    (raw / "labels/orphan.nii.gz").write_bytes((raw / "labels/brain_1.nii.gz").read_bytes())
    # The same image packed otherwise, and drawn anew: no copy of the file, a copy of the image.
    write(raw / "images/twin.nii", np.asanyarray(nibabel.load(raw / "images/brain_2.nii.gz").dataobj))
    label[5, 5, 5] = 1
    write(raw / "labels/twin.nii", label)
    write(raw / "images/borrowed.nii.gz", picture(5)[0])
    (raw / "labels/borrowed.nii.gz").write_bytes((raw / "labels/brain_3.nii.gz").read_bytes())
    count = ingest(raw, tmp_path / "cases", protocol_of(), IngestRun(), lambda line: None)
    assert count == IngestCount(converted=2, reused=0, skipped=0, failed=5)
    reasons = read_table(tmp_path / "cases/skipped.csv", SKIPPED).set_index("case_id")["reason"]
    assert "no label beside images/alone.nii.gz" in reasons["alone"]
    assert "no image beside labels/orphan.nii.gz" in reasons["orphan"]
    assert "its image is that of brain_2, byte for byte" in reasons["twin"]
    assert "its labels are those of brain_3, byte for byte, and the images are not" in reasons["borrowed"]
    assert "its labels are those of borrowed" in reasons["brain_3"]
    assert read_table(tmp_path / "cases/cases.csv", CASES)["case_id"].tolist() == ["brain_1", "brain_2"]


def test_cases_of_one_patient_have_his_pseudonym(raw: Path) -> None:
    assert convert(raw, "brain_2").meta["pseudonym"] == "brain_2"
    rule = {"pattern": r"brain_(\d+)", "cases": 2}
    found = [convert(raw, f"brain_{n}", patient=rule).meta["pseudonym"] for n in (1, 2, 3)]
    assert found == ["patient_1", "patient_1", "patient_2"]
    with pytest.raises(BadCase, match=r"does not match patient\.pattern 'mind_"):
        convert(raw, patient={"pattern": r"mind_(\d+)", "cases": 1})
    with pytest.raises(BadInput, match="needs one group in brackets"):
        protocol_of(patient={"pattern": r"brain_\d+", "cases": 1})


def test_a_packed_cohort_has_the_digests_and_the_cases_of_the_loose_one(raw: Path, tmp_path: Path) -> None:
    (raw / "dataset.json").write_text(json.dumps({"labels": {"1": "Front", "2": "Back"}}))
    out = tmp_path / "data/raw/brain"
    assert pack(raw, out, tmp_path / "data/raw/brain.csv", lambda line: None, "nifti") == 3
    loose, packed = find_volumes(raw), find_volumes(out)
    assert list(loose) == list(packed)
    assert [volume_digest(loose[n], n) for n in loose] == [volume_digest(packed[n], n) for n in packed]
    run = IngestRun(raw_list=tmp_path / "data/raw/brain.csv")
    for folder in (raw, out):
        ingest(folder, tmp_path / folder.name, protocol_of(), run, lambda line: None)
    for name in loose:
        assert (tmp_path / "raw" / f"{name}.npz").read_bytes() == (tmp_path / "brain" / f"{name}.npz").read_bytes()


def test_a_label_that_dataset_json_learns_of_makes_a_failed_case_whole(raw: Path, tmp_path: Path) -> None:
    label = picture()[1]
    label[5, 7, 9] = 3
    write(raw / "labels/brain_1.nii.gz", label)
    run = IngestRun(index=tmp_path / "index.json")
    first = ingest(raw, tmp_path / "cases", protocol_of(), run, lambda line: None)
    assert (first.converted, first.failed) == (2, 1)
    again = ingest(raw, tmp_path / "cases", protocol_of(), run, lambda line: None)
    assert (again.reused, again.failed) == (2, 1)
    (raw / "dataset.json").write_text(json.dumps({"labels": {"1": "Front", "2": "Back", "3": "Skull"}}))
    assert ingest(raw, tmp_path / "cases", protocol_of(), run, lambda line: None).converted == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"structures": [{"name": "A", "kind": "organ"}]}, r"a label of its own for each structure, found \[None\]"),
        (
            {"structures": [{"name": n, "kind": "organ", "label": 1} for n in "AB"]},
            r"a label of its own for each structure, found \[1, 1\]",
        ),
        ({"objects": ["ct"]}, "has no objects, prescription_gy, phi or body_names"),
    ],
)
def test_a_protocol_of_nifti_names_labels_and_nothing_of_dicom(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        protocol_of(**changes)


def test_the_sarcoma_drawn_by_another_program_has_its_voxels_in_lps(shared_data: Path, tmp_path: Path) -> None:
    nifti = shared_data / "nifti/sts_001/CT/nifti"
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images/sts_001.nii.gz").symlink_to(nifti / "image/image.nii.gz")
    (tmp_path / "labels/sts_001.nii.gz").symlink_to(nifti / "mask/mask.nii.gz")
    structures = [{"name": "GTV", "kind": "target", "label": 1}]
    case = convert_case(
        find_volumes(tmp_path)["sts_001"], Origin("sts_001"), protocol_of(modality="CT", structures=structures)
    )
    assert int(case.mask("GTV").sum()) == 117_145
    assert case.grid.spacing_mm == pytest.approx((3.27, 0.976562, 0.976562))
    assert case.meta["file_axes"] == "LPS"


def test_the_dirt_of_the_hippocampus_is_found_and_named(shared_data: Path, tmp_path: Path, repository: Path) -> None:
    source = shared_data / "nifti/msd_task04_hippocampus"
    wanted = ("003", "004", "010", "118", "281", "044", "180")
    for folder in ("images", "labels"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for path in source.glob(f"{folder}/*.nii.gz"):
            if path.name.removesuffix(".nii.gz").endswith(wanted):
                (tmp_path / "raw" / folder / path.name).symlink_to(path)
    protocol = protocol_of(
        structures=[
            {"name": "Anterior", "kind": "organ", "label": 1},
            {"name": "Posterior", "kind": "organ", "label": 2},
        ]
    )
    count = ingest(tmp_path / "raw", tmp_path / "cases", protocol, IngestRun(), lambda line: None)
    assert (count.converted, count.failed) == (4, 3)
    reasons = read_table(tmp_path / "cases/skipped.csv", SKIPPED).set_index("case_id")["reason"]
    assert "no image beside labels/hippocampus_010.nii.gz" in reasons["hippocampus_010"]
    assert "no label beside images/hippocampus_118.nii.gz" in reasons["hippocampus_118"]
    cases = [Case.load(tmp_path / f"cases/hippocampus_{number}.npz") for number in ("003", "044", "180")]
    # Scales that differ 400-fold, on one in the cases.
    assert [400 < np.median(case.ct_hu) < 700 for case in cases] == [True] * 3
    assert [case.meta["intensity"]["high"] > 1e5 for case in cases] == [False, True, True]
