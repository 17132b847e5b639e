"""The packed form of a raw case: equal members give equal bytes."""

import zipfile
from pathlib import Path

from doseledger.core.files import sha256_of_file, write_stored_zip


def test_members_are_stored_sorted_and_undated(tmp_path: Path) -> None:
    write_stored_zip(tmp_path / "a.zip", {"RS.dcm": b"two", "CT/0001.dcm": b"one"})
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["CT/0001.dcm", "RS.dcm"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.read("RS.dcm") == b"two"


def test_equal_members_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    write_stored_zip(tmp_path / "a.zip", {"b": b"2", "a": b"1"})
    write_stored_zip(tmp_path / "b.zip", {"a": b"1", "b": b"2"})
    assert sha256_of_file(tmp_path / "a.zip") == sha256_of_file(tmp_path / "b.zip")
