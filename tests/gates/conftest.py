"""A small cohort on disk that passes the data gate; each test spoils one thing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures import projects
from fixtures.projects import copy_cohorts
from scipy.ndimage import gaussian_filter

from doseledger.core.case import Case
from doseledger.core.files import sha256_of_file, write_json
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.tables import CASES, SKIPPED, SPLITS, STRUCTURES, TEST_SET, write_table
from doseledger.gates.data.cohort import CaseReport, judge_case
from doseledger.gates.limits import DataLimits, load_thresholds

SPLIT_OF = {1: "train", 2: "train", 3: "train", 4: "train", 5: "val", 6: "test"}

# Two expectations in place of the forty that ship: tests of the tables need no more.
LIGHT_SUITE = {
    "name": "light",
    "expectations": [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "Rectum_volume_cc", "min_value": 15, "max_value": 350},
            "severity": "critical",
            "meta": {"gate": "volume", "notes": "A rectum."},
        },
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "dose_max_percent", "min_value": 100, "max_value": 130},
            "severity": "warning",
            "meta": {"gate": "dose_range", "notes": "A plan."},
        },
    ],
}


def as_ingested(case: Case) -> Case:
    """Return a case whose meta holds its own DVH, as if nothing had moved in resampling, and a plan without fault."""
    assert case.dose_gy is not None
    parity = {
        name: {
            "D95%": float(np.percentile(case.dose_gy[case.mask(name)], 5.0)),
            "mean": float(case.dose_gy[case.mask(name)].mean(dtype=np.float64)),
            "volume_cc": float(case.mask(name).sum()) * case.grid.voxel_volume_cc,
        }
        for name in case.present_names
    }
    return replace(case, meta={**case.meta, "parity": parity, "plan": {"faults": []}})


@pytest.fixture
def healthy(make_case: Callable[..., Case]) -> Callable[[int], Case]:
    """Factory of cases as different as patients are: healthy(3) is case_0003."""

    def make(number: int) -> Case:
        case = make_case(f"case_{number:04d}", seed=number)
        assert case.dose_gy is not None
        rng = np.random.default_rng(1000 + number)
        tissue, beams = (gaussian_filter(rng.standard_normal(case.grid.shape_zyx), 2.0) for _ in range(2))
        ct = case.ct_hu + np.where(
            case.body & ~case.masks.any(axis=0), 150.0 * tissue / tissue.std(), 0.0
        ).round().astype(np.int16)
        in_target = case.mask("PTV56")
        beams = np.where(in_target, 0.02, 0.6) * beams / np.abs(beams).max()
        dose = (case.dose_gy * (1.0 + beams) * 1.02).astype(np.float32)
        return as_ingested(replace(case, ct_hu=ct, dose_gy=dose))

    return make


@pytest.fixture
def layout(repository: Path, tmp_path: Path) -> Layout:
    """A project in the test's folder with the files of every cohort, the protocol on the coarse grid of the cases."""
    return copy_cohorts(repository, tmp_path)


@pytest.fixture
def enter_project(repository: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the project one that commands run in, and the working folder."""
    return lambda: projects.enter_project(repository, layout, monkeypatch)


@pytest.fixture
def protocol(layout: Layout) -> Protocol:
    """The prostate protocol, on the coarse grid of the test cases."""
    return load_protocol(layout.protocol)


@pytest.fixture
def limits(layout: Layout) -> DataLimits:
    """The limits that ship."""
    return load_thresholds(layout).data


@pytest.fixture
def judge(protocol: Protocol, limits: DataLimits, tmp_path: Path) -> Callable[[Case], CaseReport]:
    """Save a case and judge the file."""

    def run(case: Case) -> CaseReport:
        path = tmp_path / f"{case.case_id}.npz"
        case.save(path)
        return judge_case(path, row_of(case, path), protocol, limits)

    return run


def row_of(case: Case, path: Path) -> dict[str, object]:
    shared = {name: case.meta[name] for name in ("pseudonym", "group", "site", "source_sha256")}
    return {"case_id": case.case_id, **shared, "sha256": sha256_of_file(path), "n_warnings": 0}


@pytest.fixture
def write_cohort(layout: Layout) -> Callable[[list[Case]], Layout]:
    """Write cases and the tables that go with them; the sixth is the test set."""

    def write(cases: list[Case]) -> Layout:
        rows = []
        for case in cases:
            case.save(layout.cases / f"{case.case_id}.npz")
            rows.append(row_of(case, layout.cases / f"{case.case_id}.npz"))
        table = pd.DataFrame(rows)
        write_table(layout.cases_csv, table, CASES)
        nobody = pd.DataFrame(columns=list(SKIPPED.columns), dtype=str)
        write_table(layout.cases / "skipped.csv", nobody, SKIPPED)
        counted = {"structure": "Bowel", "required": False, "may_be_cases": 0, "may_be": ""}
        counts = pd.DataFrame([{**counted, "cases": len(cases), "found": len(cases)}])
        write_table(layout.cases / "structures.csv", counts, STRUCTURES)
        parts = [SPLIT_OF[i] for i in range(1, len(cases) + 1)]
        write_table(layout.splits, table.assign(repeat=0, fold=0, split=parts)[list(SPLITS.columns)], SPLITS)
        write_table(layout.test_set, pd.DataFrame(columns=list(TEST_SET.columns), dtype=str), TEST_SET)
        write_json(layout.suite, LIGHT_SUITE)
        return layout

    return write
