from __future__ import annotations

from pathlib import Path

from doseledger.core.files import write_text
from doseledger.parity.check import find_npz


def test_files_of_a_data_set_are_sorted_and_a_folder_of_such_a_name_is_none(tmp_path: Path) -> None:
    for name in ("b/2.npz", "b/10.npz", "a.npz", "c.csv"):
        write_text(tmp_path / name, "")
    (tmp_path / "folder.npz").mkdir()
    assert find_npz(tmp_path) == ["a.npz", "b/10.npz", "b/2.npz"]
