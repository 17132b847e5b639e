"""Calibration of a diffusion's predictions on disk: its numbers, the picture, and each refusal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file, to_json
from doseledger.core.tables import SPLITS, read_table, write_table
from doseledger.evaluate.calibration import DrawnSets, calibrate_cohort
from doseledger.evaluate.predictions import load_samples
from doseledger.report.model.spread import calibration_picture

CHECKPOINT, STEP_GY, N_SAMPLES, SAID = "c" * 64, 0.002, 8, 0.5
PARTS = {1: "train", 2: "val", 3: "val", 4: "test", 5: "test", 6: "test"}


def write_drawn(path: Path, case: Case, sha256: str, *, without: str = "", **changes: Any) -> None:
    """Drawn doses whose spread is half of what their errors are."""
    assert case.dose_gy is not None
    rng = np.random.default_rng(int(case.case_id[-1]))
    defined = case.body & case.valid_dose
    centre = case.dose_gy[defined] + 2.0 * rng.standard_normal(int(defined.sum())) + 10.0
    doses = np.maximum(centre - 10.0 + SAID * 2.0 * rng.standard_normal((N_SAMPLES, len(centre))), 0.0)
    mean = np.zeros(case.grid.shape_zyx, dtype=np.float32)
    mean[defined] = doses.mean(axis=0)
    meta = {
        "case_id": case.case_id, "case_sha256": sha256, "checkpoint_sha256": CHECKPOINT, "trained_on": ["e" * 64],
        "selected_on": [],
    }  # fmt: skip
    arrays = {
        "dose_gy": mean,
        "samples": np.rint(doses / STEP_GY).astype(np.uint16),
        "sampled": defined.astype(np.uint8),
        "sample_step_gy": np.asarray(STEP_GY),
        "spacing_mm": np.asarray(case.grid.spacing_mm),
        "origin_mm": np.asarray(case.grid.origin_mm),
        "meta": np.asarray(json.dumps(meta | changes)),
    }
    path.parent.mkdir(exist_ok=True)
    write_npz(path, {name: array for name, array in arrays.items() if name != without})


def make_sets(make_case: Callable[..., Case], tmp_path: Path, parts: dict[int, str]) -> DrawnSets:
    rows = []
    for number, part in parts.items():
        case = make_case(f"case_{number:04d}", seed=number)
        path = tmp_path / "cases" / f"{case.case_id}.npz"
        case.save(path)
        rows.append([0, 0, case.case_id, case.meta["pseudonym"], "A", part, sha256_of_file(path)])
        if part != "train":
            write_drawn(tmp_path / part / f"{case.case_id}.npz", case, sha256_of_file(path))
    write_table(tmp_path / "splits.csv", pd.DataFrame(rows, columns=list(SPLITS.columns)), SPLITS)
    return DrawnSets(tmp_path / "cases", tmp_path / "splits.csv", tmp_path / "val", tmp_path / "test", 0, 0)


@pytest.fixture
def sets(make_case: Callable[..., Case], tmp_path: Path) -> DrawnSets:
    return make_sets(make_case, tmp_path, PARTS)


def spoil(sets: DrawnSets, part: str, case_id: str, **changes: Any) -> None:
    path = sets.cases / f"{case_id}.npz"
    folder = sets.val if part == "val" else sets.test
    write_drawn(folder / f"{case_id}.npz", Case.load(path), sha256_of_file(path), **changes)


def test_a_spread_of_half_is_told_and_mended_by_validation_cases(sets: DrawnSets) -> None:
    told: list[str] = []
    found = calibrate_cohort(sets, tell=told.append)
    assert to_json(calibrate_cohort(sets, tell=told.append)) == to_json(found)
    assert set(found) == {"summary", "details"}
    summary, details = found["summary"], found["details"]
    assert summary["n_cases"] == 3
    assert summary["coverage_80_voxels_percent"] < 60
    # Of two validation cases and the one to come, 50 % are three quarters of the two: a half width too narrow by half
    # is twice that of 0.75 over that of 0.5.
    assert summary["factor_50_voxels"] == pytest.approx(2 * 1.254 / 0.711, rel=0.1)
    assert summary["coverage_50_voxels_stretched_percent"] == pytest.approx(75, abs=4)
    assert math.isnan(summary["factor_80_voxels"])
    assert math.isnan(summary["coverage_80_voxels_stretched_percent"])
    assert details["fitted_on"] == ["case_0002", "case_0003"]
    assert [row["case_id"] for row in details["cases"]] == ["case_0004", "case_0005", "case_0006"]
    assert len(details["ranks"]) == N_SAMPLES + 1
    assert told[-1].endswith(" % of the voxels, and are not stretched: 2 validation cases are too few, 5 are needed")


def test_five_validation_cases_stretch_80_percent_too(make_case: Callable[..., Case], tmp_path: Path) -> None:
    told: list[str] = []
    found = calibrate_cohort(
        make_sets(make_case, tmp_path, dict.fromkeys(range(2, 7), "val") | {7: "test"}), tell=told.append
    )
    summary = found["summary"]
    assert math.isnan(summary["factor_95_voxels"])
    assert told[-1] == (
        f"80 % intervals hold {summary['coverage_80_voxels_percent']:.1f} % of the voxels, stretched by "
        f"{summary['factor_80_voxels']:.2f} (from 5 validation cases) "
        f"{summary['coverage_80_voxels_stretched_percent']:.1f} %"
    )
    # 96 % of five cases' voxels.
    assert summary["coverage_80_voxels_stretched_percent"] == pytest.approx(96.0, abs=2.0)


def test_nothing_is_written_beside_the_drawn_doses(sets: DrawnSets, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    calibrate_cohort(sets, tell=print)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_picture_is_written_in_three_formats_and_the_same_each_time(sets: DrawnSets, tmp_path: Path) -> None:
    # As the report reads them: a level that has no factor is null.
    details = json.loads(to_json(calibrate_cohort(sets, tell=print)["details"]))
    assert None in [row["voxels_stretched"] for row in details["curves"]]
    pictures = [calibration_picture(details, tmp_path / name, dpi=60) for name in ("one", "other")]
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["calibration.pdf", "calibration.png", "calibration.svg"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert pictures[0] == pictures[1]
    assert "Intervals" in (tmp_path / "one" / "calibration.svg").read_text()


def test_a_case_that_the_model_has_seen_is_refused(sets: DrawnSets) -> None:
    table = read_table(sets.splits, SPLITS).set_index("case_id")["sha256"]
    # A validation case has chosen the epoch, and may still tell how far doses spread; a test case may not have.
    spoil(sets, "val", "case_0002", selected_on=[table["case_0002"]])
    calibrate_cohort(sets, tell=print)
    spoil(sets, "test", "case_0004", selected_on=[table["case_0004"]])
    with pytest.raises(BadCase, match="case_0004: the model was selected on this case"):
        calibrate_cohort(sets, tell=print)
    spoil(sets, "test", "case_0004")
    spoil(sets, "val", "case_0002", trained_on=[table["case_0002"]])
    with pytest.raises(BadCase, match="case_0002: the model was trained on this case"):
        calibrate_cohort(sets, tell=print)


def test_what_can_not_be_compared_is_refused(sets: DrawnSets) -> None:
    spoil(sets, "test", "case_0005", without="samples")
    with pytest.raises(BadCase, match="holds no drawn doses; only a diffusion's prediction has a spread"):
        calibrate_cohort(sets, tell=print)
    spoil(sets, "test", "case_0005", case_sha256="d" * 64)
    with pytest.raises(BadCase, match=r"case_0005: .*of the case as it was .dddddddddddd"):
        calibrate_cohort(sets, tell=print)
    spoil(sets, "test", "case_0005", checkpoint_sha256="d" * 64)
    with pytest.raises(BadInput, match="come from different checkpoints"):
        calibrate_cohort(sets, tell=print)
    with pytest.raises(BadInput, match="no val cases in fold 1"):
        calibrate_cohort(replace(sets, fold=1), tell=print)


def test_samples_come_back_in_gy_where_they_were_drawn(sets: DrawnSets) -> None:
    samples_gy, sampled = load_samples(sets.test / "case_0004.npz")
    case = Case.load(sets.cases / "case_0004.npz")
    assert case.dose_gy is not None
    assert samples_gy.shape == (N_SAMPLES, int(sampled.sum()))
    assert np.abs(samples_gy.mean(axis=0) - case.dose_gy[sampled]).mean() < 2.5
