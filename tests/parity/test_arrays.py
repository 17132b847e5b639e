"""NPZ read as data and never as code."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.parity.arrays import array_heads, iterate_blocks, read_member


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, (str(self.path), "w")  # type: ignore[return-value]


def test_heads_say_shape_and_type_without_reading_values(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((3, 4), np.float16), name=np.asarray(["x", "yz"]), one=np.int64(7))
    heads = array_heads(tmp_path / "a.npz")
    assert {name: (head.shape, str(head.dtype)) for name, head in heads.items()} == {
        "image": ((3, 4), "float16"), "name": ((2,), "<U2"), "one": ((), "int64")
    }  # fmt: skip


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "values",
    [
        np.arange(60, dtype=np.int16).reshape(5, 3, 4),
        np.asfortranarray(np.arange(60.0).reshape(5, 12)),
        np.arange(4) + 1j,
        np.float32(3.5),
        np.empty((0, 3)),
        np.empty((3, 0)),
    ],
    ids=["3d", "fortran", "complex", "scalar", "no rows", "empty rows"],
)
def test_blocks_put_together_are_the_array(save: object, values: np.ndarray, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", v=values)  # type: ignore[operator]
    blocks = list(iterate_blocks(tmp_path / "a.npz", "v", block_bytes=32))
    whole = read_member(tmp_path / "a.npz", "v")
    np.testing.assert_array_equal(whole, values)
    assert whole.dtype == np.asarray(values).dtype
    if np.ndim(values) and np.size(values):
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), values)
        rows = np.cumsum([0, *(len(block) for _, block in blocks)])
        assert [start for start, _ in blocks] == rows[:-1].tolist()


def test_an_array_of_objects_is_refused_before_its_pickle_is_read(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    objects = np.empty(1, object)
    objects[0] = Bomb(trap)
    np.savez(tmp_path / "a.npz", good=np.zeros(2), bad=objects)
    with pytest.raises(BadInput, match="bad is an array of objects, which is a pickle"):
        array_heads(tmp_path / "a.npz")
    with pytest.raises(BadInput, match="never opened"):
        read_member(tmp_path / "a.npz", "bad")
    assert not trap.exists()
    pickle.loads(pickle.dumps(objects))[0].close()
    assert trap.exists()


def test_a_record_array_and_a_member_that_is_no_array_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", rows=np.zeros(2, [("x", "f4")]))
    with pytest.raises(BadInput, match=r"rows holds .*, wanted numbers or text"):
        array_heads(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("../evil.txt", "x")
    with pytest.raises(BadInput, match=r"'../evil.txt' is no array"):
        array_heads(tmp_path / "b.npz")


@pytest.mark.parametrize(("characters", "is_read"), [(255, True), (256, False)])
@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_the_name_of_an_array_has_at_most_255_characters(
    characters: int, is_read: bool, suffix: str, tmp_path: Path
) -> None:
    name = "x" * (characters - (0 if suffix == ".npy" else len(suffix)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open(f"{name}{suffix}", "w") as member:
        np.lib.format.write_array(member, np.arange(3.0))
    if is_read and suffix == ".npy":
        assert list(array_heads(tmp_path / "a.npz")) == [name]
        return
    message = "is no array" if is_read else r"a\.npz: an array's name has 256 characters, wanted at most 255; it begins"
    with pytest.raises(BadInput, match=message) as refused:
        array_heads(tmp_path / "a.npz")
    assert len(str(refused.value)) < 600


def test_a_shape_that_does_not_fit_the_bytes_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"shape": (10**9,), "fortran_order": False, "descr": "<f8"})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("v.npy", out.getvalue() + bytes(16))
    with pytest.raises(BadInput, match="which is 8000000000 bytes, but 16 follow"):
        array_heads(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,",
        b"(" * 400,
        b"'''",
        b"{[]: 3}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 1: 2}",
        b"  a\n b\n",
        b"-" * 9000 + b"1",
    ],
    ids=["cut short", "brackets", "open text", "unhashable", "keys of two kinds", "indented", "nested too deep"],
)
def test_a_header_that_is_no_header_is_refused_by_name(header: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("v.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24))
    for read in (array_heads, lambda path: read_member(path, "v")):
        with pytest.raises(BadInput, match=r"v has a header that can't be read .*; write the file again"):
            read(tmp_path / "a.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_refused_however_it_was_compressed(compression: int, tmp_path: Path) -> None:
    path, out = tmp_path / "a.npz", io.BytesIO()
    np.save(out, np.random.default_rng(1).random(1000))
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("v.npy", out.getvalue())
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"v can't be read .* damaged or cut short"):
        read_member(path, "v")


def test_a_flipped_bit_is_noticed_by_the_members_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, v=np.zeros(1000))
    content = bytearray(path.read_bytes())
    content[content.index(b"\x93NUMPY") + 500] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"v can't be read \(Bad CRC-32"):
        read_member(path, "v")


def test_a_file_cut_short_and_one_that_is_absent_are_told_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", v=np.zeros(1000))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    with pytest.raises(BadInput, match="damaged or cut short"):
        array_heads(tmp_path / "a.npz")
    with pytest.raises(BadInput, match="no such file"):
        array_heads(tmp_path / "b.npz")
