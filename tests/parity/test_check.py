"""Data sets held to their contracts: each fault is seeded, seen and named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.case import write_npz
from doseledger.core.errors import BadInput
from doseledger.parity.check import check_data_set
from doseledger.parity.contract import load_contract

Rewrite = Callable[..., None]


def findings(folder: Path, contract: Path) -> list[str]:
    return check_data_set(folder, load_contract(contract)).lines


def test_healthy_sets_of_three_kinds_keep_their_contracts(
    project: Path, make_ptychography: Callable[..., Path], make_stamps: Callable[..., Path], contracts: Path
) -> None:
    assert findings(project / "data/cases/toy", contracts / "case.yaml") == []
    assert findings(make_ptychography(), contracts / "ptychography.yaml") == []
    assert findings(make_stamps(), contracts / "image_stamps.yaml") == []


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        (
            {"diff3d": None},
            "data_p1e5.npz: no array diff3d, which the contract ptychography requires; there are probeGuess",
        ),
        ({"probeGuess": np.ones((16, 16))}, "probeGuess: is float64, wanted complex values"),
        ({"scan_index": np.zeros(11, int)}, "scan_index: has 11 along position, but diff3d has 12"),
        (
            {"diff3d": np.zeros((12, 256), np.float32)},
            "diff3d: has the shape (12, 256), wanted (position, row, column)",
        ),
        ({"scan_index": np.full(12, -1)}, "scan_index: the least value is -1, wanted at least 0"),
        ({"extra": np.ones(3)}, "extra: the contract ptychography knows no such array"),
        ({"xcoords": np.full(12, np.inf)}, "xcoords: 12 values are infinite in position 0, 1, 2, 3, 4 and 7 more"),
    ],
)
def test_each_fault_of_a_ptychography_file_is_named(
    changes: dict[str, np.ndarray | None], finding: str, make_ptychography: Callable[..., Path], rewrite: Rewrite,
    contracts: Path,
) -> None:  # fmt: skip
    folder = make_ptychography()
    rewrite(folder / "data_p1e5.npz", **changes)
    found = findings(folder, contracts / "ptychography.yaml")
    assert [line for line in found if finding in line], found
    assert all("data_p1e5" in line for line in found)


def test_optional_arrays_may_be_absent_and_a_photon_dose_may_not(
    make_ptychography: Callable[..., Path], rewrite: Rewrite, contracts: Path
) -> None:
    folder = make_ptychography()
    optional = ("objectGuess", "ground_truth_patches", "xcoords", "ycoords", "xcoords_start", "ycoords_start")
    rewrite(folder / "data_p1e9.npz", **dict.fromkeys(optional))
    assert findings(folder, contracts / "ptychography.yaml") == []
    (folder / "data_p1e9.npz").rename(folder / "data_p2e9.npz")
    found = findings(folder, contracts / "ptychography.yaml")
    assert any(line.startswith("data_p2e9.npz: not a file of the contract") for line in found)
    assert "data_p1e9.npz: the contract ptychography asks for this file" in found


def test_one_nan_in_the_last_sample_of_the_last_file_is_found(
    make_ptychography: Callable[..., Path], rewrite: Rewrite, contracts: Path
) -> None:
    folder = make_ptychography()
    with np.load(folder / "data_p1e9.npz") as npz:
        values = npz["diff3d"]
    values[11, 15, 15] = np.nan
    rewrite(folder / "data_p1e9.npz", diff3d=values)
    assert findings(folder, contracts / "ptychography.yaml") == [
        "data_p1e9.npz: diff3d: 1 values are NaN in position 11"
    ]


def test_sizes_must_agree_between_files_too(
    make_stamps: Callable[..., Path], rewrite: Rewrite, contracts: Path
) -> None:
    folder = make_stamps()
    rewrite(folder / "south.npz", images=np.ones((20, 2, 12, 12)), band_present=np.ones((20, 2), bool), band_names=None)
    found = findings(folder, contracts / "image_stamps.yaml")
    assert found == [
        "axis band must have one size in all files, found 2 in south.npz (images), 3 in north.npz (images)"
    ]


def stamps_with(
    folder: Path, rewrite: Rewrite, change: Callable[[np.ndarray, np.ndarray], None], *, flags: bool
) -> None:
    with np.load(folder / "north.npz") as npz:
        images, present = npz["images"], npz["band_present"]
    change(images, present)
    rewrite(folder / "north.npz", images=images, band_present=present if flags else None)


def set_value(value: float, at: tuple[int, ...]) -> Callable[[np.ndarray, np.ndarray], None]:
    def change(images: np.ndarray, present: np.ndarray) -> None:
        images[at] = value

    return change


def drop_all_bands(images: np.ndarray, present: np.ndarray) -> None:
    images[4], present[4] = np.nan, False


@pytest.mark.parametrize(
    ("change", "flags", "finding"),
    [
        (set_value(np.nan, (19, 1, 3, 3)), True, "1 values are NaN in sample 19"),
        (set_value(np.inf, (0, 0, 0, 0)), True, "1 values are infinite in sample 0"),
        (set_value(np.nan, (19, 1)), True, "144 values are NaN in sample 19"),
        (set_value(0.5, (2, 0)), True, "1 slices hold values although band_present says that they are missing"),
        (set_value(0.5, (2, 0, 3, 3)), True, "1 slices hold values although band_present"),
        (drop_all_bands, True, "fewer than 1 slices are there in sample 4"),
        (set_value(np.nan, (19, 1, 3, 3)), False, "1 values are NaN in sample 19"),
        (drop_all_bands, False, "fewer than 1 slices are there in sample 4"),
    ],
)
def test_a_missing_band_is_told_from_a_bad_value(
    change: Callable[[np.ndarray, np.ndarray], None], flags: bool, finding: str, make_stamps: Callable[..., Path],
    rewrite: Rewrite, contracts: Path,
) -> None:  # fmt: skip
    folder = make_stamps()
    stamps_with(folder, rewrite, change, flags=flags)
    found = findings(folder, contracts / "image_stamps.yaml")
    assert len(found) == 1, found
    assert found[0].startswith(f"north.npz: images: {finding}")


def test_without_flags_a_band_of_nan_throughout_counts_as_missing(
    make_stamps: Callable[..., Path], rewrite: Rewrite, contracts: Path
) -> None:
    folder = make_stamps()
    stamps_with(folder, rewrite, set_value(np.nan, (19, 1)), flags=False)
    assert findings(folder, contracts / "image_stamps.yaml") == []


@pytest.mark.parametrize(
    ("flags", "of"),
    [
        (np.ones((19, 3), bool), r"bool and shape \(19, 3\)"),
        (np.ones(20, bool), r"bool and shape \(20,\)"),
        (np.full((20, 3), "yes"), r"<U3 and shape \(20, 3\)"),
        (np.ones((20, 3), complex), r"complex128 and shape \(20, 3\)"),
    ],
    ids=["a row too few", "an axis too few", "text", "complex"],
)
@pytest.mark.parametrize("flags_last", [True, False])
def test_flags_that_do_not_fit_are_a_finding_wherever_they_stand(
    flags: np.ndarray, of: str, flags_last: bool, make_stamps: Callable[..., Path], contracts: Path
) -> None:
    folder = make_stamps()
    with np.load(folder / "north.npz") as npz:
        arrays = {name: npz[name] for name in npz.files if name != "band_present"}
    order = {**arrays, "band_present": flags} if flags_last else {"band_present": flags, **arrays}
    write_npz(folder / "north.npz", order)
    found = findings(folder, contracts / "image_stamps.yaml")
    assert found
    assert all(line.startswith("north.npz: ") for line in found)
    if flags_last:
        wanted = rf"images: has the flags band_present of {of}, which do not fit; wanted booleans of shape \(20, 3\)$"
        assert any(re.search(wanted, line) for line in found), found


def test_a_damaged_file_is_a_finding_and_the_others_are_checked(project: Path, contracts: Path) -> None:
    folder = project / "data/cases/toy"
    (folder / "case_0001.npz").write_bytes((folder / "case_0001.npz").read_bytes()[:9000])
    check = check_data_set(folder, load_contract(contracts / "case.yaml"))
    assert list(check.files) == ["case_0001.npz", "case_0002.npz"]
    assert len(check.lines) == 1
    assert check.lines[0].startswith("case_0001.npz: case_0001.npz can't be read")


def test_faults_are_found_in_whichever_block_they_lie(
    monkeypatch: pytest.MonkeyPatch, make_ptychography: Callable[..., Path], rewrite: Rewrite, contracts: Path
) -> None:
    folder = make_ptychography()
    with np.load(folder / "data_p1e4.npz") as npz:
        values = npz["diff3d"]
    values[[1, 10], 2, 2] = np.nan, -1.0
    rewrite(folder / "data_p1e4.npz", diff3d=values)
    whole = findings(folder, contracts / "ptychography.yaml")
    monkeypatch.setattr("doseledger.parity.arrays.iterate_blocks.__defaults__", (1024,))
    assert findings(folder, contracts / "ptychography.yaml") == whole
    assert whole == [
        "data_p1e4.npz: diff3d: 1 values are NaN in position 1",
        "data_p1e4.npz: diff3d: the least value is -1, wanted at least 0",
    ]


def test_an_absent_folder_is_an_error(contracts: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        check_data_set(tmp_path / "nowhere", load_contract(contracts / "case.yaml"))
