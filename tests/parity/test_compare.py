"""Two data sets side by side: every file and array, normalised and grouped; page, JSON, tables and the gate."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.gates.parity import judge_parity
from doseledger.parity.compare import ALL_FILES, MOST_GROUPS, ParityResult, compare_sets
from doseledger.parity.contract import load_contract
from doseledger.report.parity_page import write_parity

Make = Callable[..., Path]


def silent(line: str) -> None:
    """Tell nobody."""


def compare(a: Path, b: Path, contract: Path, limit: int | None = None) -> ParityResult:
    return compare_sets((a, b), load_contract(contract), limit=limit, scenario="S-1", tell=silent)


def rows(result: ParityResult, **wanted: str) -> list[dict[str, Any]]:
    return [row for row in result.statistics if all(row[key] == value for key, value in wanted.items())]


def test_every_photon_dose_is_described_and_not_the_first_alone(make_ptychography: Make, contracts: Path) -> None:
    a, b = make_ptychography("a"), make_ptychography("b", seed=4)
    result = compare(a, b, contracts / "ptychography.yaml")
    for side, folder in (("a", a), ("b", b)):
        for exponent in range(3, 10):
            row = rows(result, side=side, file=f"data_p1e{exponent}.npz", array="diff3d", stage="raw")[0]
            with np.load(folder / f"data_p1e{exponent}.npz") as npz:
                values = npz["diff3d"].astype(np.float64)
            assert row["mean"] == pytest.approx(values.mean())
            assert row["p99"] == pytest.approx(np.percentile(values, 99))
    described = {row["array"] for row in result.statistics}
    assert described == {
        "diff3d", "probeGuess", "scan_index", "objectGuess", "ground_truth_patches", "xcoords", "ycoords",
        "xcoords_start", "ycoords_start",
    }  # fmt: skip


def test_normalised_and_grouped_statistics_are_those_of_the_values(make_ptychography: Make, contracts: Path) -> None:
    folder = make_ptychography()
    result = compare(folder, folder, contracts / "ptychography.yaml")
    with np.load(folder / "data_p1e6.npz") as npz:
        values, index = npz["diff3d"].astype(np.float64), npz["scan_index"]
    of_file = {"side": "b", "file": "data_p1e6.npz", "array": "diff3d"}
    normal = rows(result, **of_file, stage="normalised")[0]
    assert normal["mean"] == pytest.approx(values.mean() / np.sqrt((values**2).mean()))
    assert normal["rms"] == pytest.approx(1.0)
    groups = rows(result, **of_file, stage="grouped")
    assert {row["group"]: row["mean"] for row in groups} == pytest.approx(
        {str(i): values[index == i].mean() for i in (0, 1)}
    )
    overall = rows(result, side="b", file=ALL_FILES, array="diff3d")[0]
    assert overall["n"] == 7 * 12 * 16 * 16


def test_doses_are_grouped_by_structure(project: Path, contracts: Path) -> None:
    folder = project / "data/cases/toy"
    result = compare(folder, folder, contracts / "case.yaml")
    from doseledger.core.case import Case

    case = Case.load(folder / "case_0002.npz")
    assert case.dose_gy is not None
    found = rows(result, side="a", file="case_0002.npz", array="dose_gy", stage="grouped")
    assert {row["group"] for row in found} == set(case.present_names)
    rectum = next(row for row in found if row["group"] == "Rectum")
    assert rectum["mean"] == pytest.approx(float(case.dose_gy[case.mask("Rectum")].mean()), rel=1e-6)
    assert rectum["n"] == int(case.mask("Rectum").sum())
    masks = rows(result, side="a", file="case_0002.npz", array="masks", stage="grouped")
    assert next(row for row in masks if row["group"] == "Rectum")["mean"] == pytest.approx(case.mask("Rectum").mean())


def test_a_set_equals_itself_and_its_images_are_alike(make_ptychography: Make, contracts: Path) -> None:
    folder = make_ptychography()
    result = compare(folder, folder, contracts / "ptychography.yaml")
    assert all(row["equal"] for row in result.pairs)
    assert {row["ssim"] for row in result.pairs if "ssim" in row} == {1.0}
    assert {row["psnr_db"] for row in result.pairs if "psnr_db" in row} == {math.inf}
    assert judge_parity(result.pairs, result.unpaired, load_contract(contracts / "ptychography.yaml")).ok


def test_a_change_in_the_last_file_alone_is_seen(
    make_ptychography: Make, rewrite: Callable[..., None], contracts: Path
) -> None:
    a, b = make_ptychography("a"), make_ptychography("b")
    with np.load(b / "data_p1e9.npz") as npz:
        probe, diff = npz["probeGuess"], npz["diff3d"]
    rng = np.random.default_rng(0)
    rewrite(
        b / "data_p1e9.npz", probeGuess=probe + rng.normal(0, 0.2, probe.shape).astype(np.float32), diff3d=diff * 1.5
    )
    rules = load_contract(contracts / "ptychography.yaml")
    result = compare(a, b, contracts / "ptychography.yaml")
    changed = {(row["file"], row["array"]) for row in result.pairs if not row["equal"]}
    assert changed == {("data_p1e9.npz", "probeGuess"), ("data_p1e9.npz", "diff3d")}
    errors = judge_parity(result.pairs, result.unpaired, rules).errors
    assert [finding.case_id for finding in errors] == ["data_p1e9.npz", "data_p1e9.npz"]


def test_what_stands_alone_or_does_not_fit_is_listed(
    make_ptychography: Make, rewrite: Callable[..., None], contracts: Path
) -> None:
    a, b = make_ptychography("a"), make_ptychography("b")
    (b / "data_p1e3.npz").unlink()
    rewrite(b / "data_p1e4.npz", objectGuess=None)
    rewrite(b / "data_p1e5.npz", probeGuess=np.ones((8, 8), complex))
    result = compare(a, b, contracts / "ptychography.yaml")
    assert result.unpaired == [
        "data_p1e3.npz: only in a",
        "data_p1e4.npz: objectGuess is only in a",
        "data_p1e5.npz: probeGuess is complex64 (16, 16) in a, complex128 (8, 8) in b",
    ]
    assert rows(result, side="a", file="data_p1e3.npz", array="diff3d", stage="raw")


def test_missing_bands_are_counted_and_no_fault(
    make_stamps: Make, rewrite: Callable[..., None], contracts: Path
) -> None:
    a, b = make_stamps("a"), make_stamps("b")
    result = compare(a, b, contracts / "image_stamps.yaml")
    images = [row for row in result.pairs if row["array"] == "images"]
    assert [(row["n_images"], row["n_images_missing"], row["n_images_one_sided"]) for row in images] == [(58, 2, 0)] * 2
    with np.load(b / "north.npz") as npz:
        values = npz["images"]
    values[5, 1] = np.nan
    rewrite(b / "north.npz", images=values)
    found = next(row for row in compare(a, b, contracts / "image_stamps.yaml").pairs if row["array"] == "images")
    assert (found["n_images"], found["n_images_missing"], found["n_images_one_sided"]) == (57, 2, 1)
    assert (found["n_one_sided"], found["equal"]) == (144, False)


def test_many_labels_are_put_together(make_stamps: Make, rewrite: Callable[..., None], contracts: Path) -> None:
    folder = make_stamps()
    for name in ("north.npz", "south.npz"):
        images = np.ones((200, 1, 4, 4), np.float32)
        rewrite(folder / name, images=images, label=np.arange(200), band_present=None, band_names=None)
    found = rows(compare(folder, folder, contracts / "image_stamps.yaml"), side="a", file="north.npz", stage="grouped")
    assert len(found) == MOST_GROUPS
    assert found[0]["group"] == "0 to 3"
    assert sum(row["n"] for row in found) == 200 * 16


def test_page_json_and_tables_say_the_same(
    make_ptychography: Make, contracts: Path, templates: Path, tmp_path: Path
) -> None:
    a, b = make_ptychography("a"), make_ptychography("b", seed=9)
    result = compare(a, b, contracts / "ptychography.yaml")
    verdict = judge_parity(result.pairs, result.unpaired, load_contract(contracts / "ptychography.yaml"))
    write_parity(tmp_path / "out", result, verdict, templates)
    content = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert content["scenario"] == "S-1"
    assert content["verdict"]["ok"] is verdict.ok
    with (tmp_path / "out" / "statistics.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == len(content["statistics"]) == len(result.statistics)
    with (tmp_path / "out" / "pairs.csv").open(newline="") as stream:
        pairs = list(csv.DictReader(stream))
    probe = [row for row in pairs if row["array"] == "probeGuess" and row["part"] == "magnitude"]
    assert {row["psnr_db"] for row in probe} == {"inf"}
    page = (tmp_path / "out" / "parity.md").read_text()
    assert "# Parity of a (a) and b (b)" in page
    assert "data_p1e9.npz" in page
    assert str(tmp_path) not in page + (tmp_path / "out" / "parity.json").read_text()


def test_a_look_at_some_says_so(make_ptychography: Make, contracts: Path, templates: Path, tmp_path: Path) -> None:
    folder = make_ptychography()
    result = compare(folder, folder, contracts / "ptychography.yaml", limit=2)
    assert (result.n_compared, result.n_files) == (2, 7)
    write_parity(tmp_path / "out", result, None, templates)
    assert "2 of 7 files; **the others were not looked at**" in (tmp_path / "out" / "parity.md").read_text()


def test_folders_without_such_files_are_an_error(make_stamps: Make, contracts: Path, tmp_path: Path) -> None:
    folder = make_stamps()
    with pytest.raises(BadInput, match="no such folder"):
        compare(folder, tmp_path / "nowhere", contracts / "image_stamps.yaml")
    with pytest.raises(BadInput, match=r"no file matches data_p1e\[3-9\]"):
        compare(folder, folder, contracts / "ptychography.yaml")


def test_labels_that_do_not_fit_are_an_error(make_stamps: Make, rewrite: Callable[..., None], contracts: Path) -> None:
    folder = make_stamps()
    shutil.copytree(folder, folder.with_name("other"))
    rewrite(folder / "north.npz", label=np.zeros(7, int))
    with pytest.raises(BadInput, match=r"north\.npz: label is \(7,\), wanted one label for each of 20 rows"):
        compare(folder, folder.with_name("other"), contracts / "image_stamps.yaml")
