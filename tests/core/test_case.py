from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.case import Case, map_member, read_meta, write_npz
from doseledger.core.errors import BadCase, BadInput

MakeCase = Callable[..., Case]


def test_a_case_comes_back_from_disk_as_it_went(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case()
    case.save(tmp_path / "case_0001.npz")
    back = Case.load(tmp_path / "case_0001.npz")
    for field in dataclasses.fields(Case):
        before, after = getattr(case, field.name), getattr(back, field.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
        else:
            assert before == after
    assert back.masks.dtype == np.bool_, "a uint8 mask would make ~mask 254 and 255"


def test_the_same_case_gives_the_same_bytes(make_case: MakeCase, tmp_path: Path) -> None:
    make_case().save(tmp_path / "a" / "case_0001.npz")
    make_case().save(tmp_path / "b" / "case_0001.npz")
    assert (tmp_path / "a/case_0001.npz").read_bytes() == (tmp_path / "b/case_0001.npz").read_bytes()


def test_masks_are_0_and_1_as_uint8_on_disk(make_case: MakeCase, tmp_path: Path) -> None:
    make_case().save(tmp_path / "case_0001.npz")
    with np.load(tmp_path / "case_0001.npz") as npz:
        assert npz["masks"].dtype == np.uint8
        assert set(np.unique(npz["masks"])) == {0, 1}


def test_a_member_is_mapped_without_reading_the_file(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case()
    case.save(tmp_path / "case_0001.npz")
    for name in ("ct_hu", "sdf_mm", "dose_gy"):
        mapped = map_member(tmp_path / "case_0001.npz", name)
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, getattr(case, name))
    with pytest.raises(ValueError, match="read-only"):
        mapped[0, 0, 0] = 1.0


def test_a_mapped_case_is_the_loaded_one_with_its_volumes_on_disk(make_case: MakeCase, tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    loaded, mapped = Case.load(path), Case.mapped(path)
    for field in dataclasses.fields(Case):
        one, two = getattr(loaded, field.name), getattr(mapped, field.name)
        if not isinstance(one, np.ndarray):
            assert one == two
            continue
        assert (one.dtype, isinstance(two, np.memmap)) == (two.dtype, field.name != "present")
        np.testing.assert_array_equal(one, two)
    assert not mapped.masks.flags.writeable


@pytest.mark.parametrize("key", ["ct_hu", "masks", "body", "dose_gy"])
def test_a_case_of_another_type_or_shape_is_not_mapped(key: str, make_case: MakeCase, tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    with np.load(path) as npz:
        arrays = dict(npz)
    for wrong in (arrays[key].astype(np.float64), arrays[key][..., :-1]):
        write_npz(path, arrays | {key: wrong})
        with pytest.raises(BadCase, match=r"wanted .*; ingest it again"):
            Case.mapped(path)
    del arrays["masks"]
    write_npz(path, arrays)
    with pytest.raises(BadCase, match=r"has no key .*masks"):
        Case.mapped(path)


def test_a_compressed_member_is_not_mapped(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "case_0001.npz", ct_hu=np.zeros((2, 2, 2), np.int16))
    with pytest.raises(BadCase, match="ct_hu is compressed"):
        map_member(tmp_path / "case_0001.npz", "ct_hu")


def test_meta_is_read_without_the_volumes(make_case: MakeCase, tmp_path: Path) -> None:
    make_case("case_0007").save(tmp_path / "case_0007.npz")
    assert read_meta(tmp_path / "case_0007.npz")["case_id"] == "case_0007"


def test_a_file_cut_short_is_a_bad_case(make_case: MakeCase, tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BadCase, match=r"case_0001: .*can't be read"):
        Case.load(path)


def test_a_byte_changed_on_disk_is_a_bad_case(make_case: MakeCase, tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(BadCase, match="can't be read"):
        Case.load(path)


def test_a_missing_array_is_named(make_case: MakeCase, tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    with np.load(path) as npz:
        arrays = {key: npz[key] for key in npz.files if key != "sdf_mm"}
    write_npz(path, arrays)
    with pytest.raises(BadCase, match="no key 'sdf_mm"):
        Case.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dose_gy": np.zeros((24, 40, 48), np.float64)}, "dose_gy is float64 .* wanted float32"),
        ({"ct_hu": np.zeros((24, 40, 47), np.int16)}, r"body is bool \(24, 40, 48\), wanted bool \(24, 40, 47\)|ct_hu"),
        ({"masks": np.zeros((8, 24, 40, 48), np.uint8)}, "masks is uint8"),
        ({"structure_names": tuple("AABCDEFG")}, "named twice"),
        ({"crop_start_zyx": (1, 0, 0)}, "reaches beyond the full grid"),
    ],
)
def test_a_case_that_breaks_the_contract_is_never_written(
    make_case: MakeCase, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(BadCase, match=message):
        dataclasses.replace(make_case(), **change).save(tmp_path / "case_0001.npz")
    assert not list(tmp_path.iterdir())


def test_a_renamed_file_is_noticed(make_case: MakeCase, tmp_path: Path) -> None:
    make_case("case_0001").save(tmp_path / "case_0002.npz")
    with pytest.raises(BadCase, match="the file says it is case_0001"):
        Case.load(tmp_path / "case_0002.npz")


def test_masks_of_255_are_refused(make_case: MakeCase, tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    with np.load(path) as npz:
        arrays = {key: npz[key] for key in npz.files}
    arrays["masks"] = ~arrays["masks"]
    write_npz(path, arrays)
    with pytest.raises(BadCase, match="masks must hold 0 and 1 as uint8, found uint8 up to 255"):
        Case.load(path)


def test_an_unknown_structure_is_named_with_those_there_are(make_case: MakeCase) -> None:
    case = make_case()
    assert case.mask("Rectum").any()
    assert "Bowel" not in case.present_names
    with pytest.raises(BadInput, match="no structure Rectom; there are PTV70"):
        case.mask("Rectom")


def test_the_main_target_is_the_one_of_the_highest_prescription_that_is_there(make_case: MakeCase) -> None:
    case = make_case()
    assert case.main_target == "PTV70"
    assert dataclasses.replace(case, prescription_gy={"PTV70": 50.0, "PTV56": 56.0}).main_target == "PTV56"
    masks = case.masks.copy()
    masks[case.structure_names.index("PTV70")] = False
    assert dataclasses.replace(case, masks=masks).main_target == "PTV56"
    assert dataclasses.replace(case, prescription_gy={"Bowel": 30.0}).main_target is None


def test_an_absent_file_is_a_bad_case(tmp_path: Path) -> None:
    with pytest.raises(BadCase, match="no such file"):
        Case.load(tmp_path / "case_0009.npz")


def test_members_are_stored_with_a_fixed_date(make_case: MakeCase, tmp_path: Path) -> None:
    make_case().save(tmp_path / "case_0001.npz")
    with zipfile.ZipFile(tmp_path / "case_0001.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_raw_data_given_for_a_case_are_named_as_such(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "case_0001.zip", "w") as archive:
        archive.writestr("CT/0001.dcm", b"DICM")
    with pytest.raises(BadCase, match=r"case_0001\.zip is no case \(NPZ\); of raw data: `doseledger survey`"):
        Case.load(tmp_path / "case_0001.zip")


def cut(case: Case) -> Case:
    """The case as a part of a larger grid."""
    return dataclasses.replace(case, full_shape_zyx=(30, 45, 60), crop_start_zyx=(6, 2, 12))


def test_a_cropped_case_knows_where_it_lay(make_case: MakeCase, tmp_path: Path) -> None:
    case = cut(make_case())
    assert case.full_grid.shape_zyx == (30, 45, 60)
    assert case.full_grid.origin_mm == (-70.0 - 36.0, -117.0 - 12.0, -141.0 - 72.0)
    assert case.full_grid.spacing_mm == case.grid.spacing_mm
    assert case.crop == (slice(6, 30), slice(2, 42), slice(12, 60))
    case.save(tmp_path / "case_0001.npz")
    assert Case.load(tmp_path / "case_0001.npz").crop == case.crop


@pytest.mark.parametrize(
    ("full", "start", "is_refused"),
    [
        ((24, 40, 48), (0, 0, 0), False), ((25, 40, 48), (1, 0, 0), False), ((24, 41, 48), (1, 0, 0), True),
        ((24, 40, 49), (0, 1, 0), True), ((30, 50, 60), (0, 0, -1), True), ((23, 40, 48), (0, 0, 0), True),
    ],
)  # fmt: skip
def test_a_crop_lies_within_its_full_grid(
    full: tuple, start: tuple, is_refused: bool, make_case: MakeCase, tmp_path: Path
) -> None:
    changed = dataclasses.replace(make_case(), full_shape_zyx=full, crop_start_zyx=start)
    if is_refused:
        with pytest.raises(BadCase, match="reaches beyond the full grid"):
            changed.save(tmp_path / "case_0001.npz")
        return
    changed.save(tmp_path / "case_0001.npz")


def test_the_reach_of_a_dose_is_its_own_grid_and_all_where_nobody_noted_it(make_case: MakeCase) -> None:
    case = make_case()
    whole = (slice(0, 24), slice(0, 40), slice(0, 48))
    assert dataclasses.replace(case, meta={"case_id": "a"}).reach == whole
    assert dataclasses.replace(case, meta={"case_id": "a", "native_dose_grid": None}).reach == whole
    native = {"shape_zyx": [4, 6, 8], "spacing_mm": [6.0, 6.0, 6.0], "origin_mm": [-70.0, -111.0, -123.0]}
    assert dataclasses.replace(case, meta={"native_dose_grid": native}).reach == (
        slice(0, 4), slice(1, 7), slice(3, 11),
    )  # fmt: skip
    far = {**native, "origin_mm": [5000.0, 0.0, 0.0]}
    assert dataclasses.replace(case, meta={"native_dose_grid": far}).reach == (slice(0, 0),) * 3


def test_what_a_case_lacks_is_not_in_its_file(make_case: MakeCase, tmp_path: Path) -> None:
    case = dataclasses.replace(make_case(), dose_gy=None, prescription_gy={}, n_fractions=None)
    case.save(tmp_path / "case_0001.npz")
    with np.load(tmp_path / "case_0001.npz") as npz:
        assert list(npz.files) == [
            "format_version", "ct_hu", "masks", "sdf_mm", "present", "body", "valid_dose", "structure_names",
            "spacing_mm", "origin_mm", "full_shape_zyx", "crop_start_zyx", "meta",
        ]  # fmt: skip
        assert (int(npz["format_version"]), npz["format_version"].dtype, npz["spacing_mm"].dtype) == (1, "i4", "f8")
        assert npz["crop_start_zyx"].dtype == npz["full_shape_zyx"].dtype == np.int32
    for back in (Case.load(tmp_path / "case_0001.npz"), Case.mapped(tmp_path / "case_0001.npz")):
        assert (back.dose_gy, back.prescription_gy, back.n_fractions) == (None, {}, None)
    with zipfile.ZipFile(tmp_path / "case_0001.npz") as archive:
        assert {info.external_attr for info in archive.infolist()} == {0o644 << 16}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", np.int32(2), "has format 2, wanted 1; ingest it again"),
        ("meta", np.asarray("[1]"), "meta names no case_id"),
        ("meta", np.asarray("{}"), "meta names no case_id"),
        ("masks", np.full((8, 24, 40, 48), 2, np.uint8), "masks must hold 0 and 1 as uint8, found uint8 up to 2"),
        ("body", np.zeros((24, 40, 48), np.int16), "body must hold 0 and 1 as uint8, found int16"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused_for_what_it_holds(
    key: str, value: np.ndarray, message: str, make_case: MakeCase, tmp_path: Path
) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    with np.load(path) as npz:
        write_npz(path, dict(npz) | {key: value})
    with pytest.raises(BadCase, match=message):
        Case.load(path)


def test_masks_that_were_written_as_bool_are_read_too(make_case: MakeCase, tmp_path: Path) -> None:
    path, case = tmp_path / "case_0001.npz", make_case()
    case.save(path)
    with np.load(path) as npz:
        write_npz(path, dict(npz) | {"body": npz["body"].astype(bool)})
    for back in (Case.load(path), Case.mapped(path)):
        np.testing.assert_array_equal(back.body, case.body)


def test_a_number_of_the_meta_that_is_none_is_never_written(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case()
    with pytest.raises(BadCase, match="its meta holds NaN or infinity"):
        dataclasses.replace(case, meta={**case.meta, "parity": float("nan")}).save(tmp_path / "case_0001.npz")
    named = {**case.meta, "warnings": ["größer"]}
    dataclasses.replace(case, meta=named).save(tmp_path / "case_0001.npz")
    with np.load(tmp_path / "case_0001.npz") as npz:
        assert '"warnings": ["größer"]' in str(npz["meta"])
        assert list(json.loads(str(npz["meta"]))) == sorted(named)


def test_an_array_in_fortrans_order_is_mapped_in_its_own(tmp_path: Path) -> None:
    values = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    np.savez(tmp_path / "case_0001.npz", other=np.zeros(3), ct_hu=values)
    mapped = map_member(tmp_path / "case_0001.npz", "ct_hu")
    np.testing.assert_array_equal(mapped, values)
    with pytest.raises(BadCase, match=r"case_0001: .*has no key .*none"):
        map_member(tmp_path / "case_0001.npz", "none")


def test_the_target_of_the_highest_dose_comes_first_whatever_the_order(make_case: MakeCase) -> None:
    case = make_case()
    assert dataclasses.replace(case, prescription_gy={"PTV56": 56.0, "PTV70": 70.0}).main_target == "PTV70"
    assert case.full_grid.same_as(case.grid)
    empty = dataclasses.replace(case, masks=np.zeros_like(case.masks))
    assert (empty.main_target, empty.lacks_dose("PTV70")) == (None, False)
