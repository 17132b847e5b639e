from __future__ import annotations

import dataclasses
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
