"""Preflight passes a model that learns one batch, and stops one that can't load, can't learn or explodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doseledger.core.case import Case, write_npz
from doseledger.core.files import sha256_of_file
from doseledger.core.settings import load_settings
from doseledger.core.tables import SPLITS, read_table, write_table
from doseledger.gates.digests import CohortFiles
from doseledger.gates.limits import PreflightLimits, load_thresholds
from doseledger.gates.model.machine import Machine
from doseledger.gates.model.preflight import judge_preflight, judge_probe
from doseledger.gates.run_digest import run_digest
from doseledger.gates.verdict import Verdict, write_verdict
from doseledger.learn.families.dose import DOSE
from doseledger.learn.recipes.dose import load_recipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.probe import ProbeResult

MACHINE = Machine("ext4", 100.0, 32.0, 8.0, has_nvidia_driver=False, torch_cuda=None, cuda_available=False)
PROBE = ProbeResult([1.0, 0.5], True, ["case_0001"], (1, 9, 16, 24, 32), (1, 1, 16, 24, 32), 1000)


@pytest.fixture
def limits(repository: Path) -> PreflightLimits:
    return load_thresholds(repository / "validation" / "thresholds.yaml").preflight


@pytest.fixture
def run(repository: Path) -> TrainingRun:
    block: dict[str, Any] = load_settings(repository / "params.yaml").model("dose_unet")
    block["sampling"] |= {"patch_zyx": [16, 24, 32], "batch_size": 2}
    block["network"] |= {"channels": [4, 8], "convolutions": [1, 1], "embedding": 8}
    recipe = load_recipe(block, "test")
    return TrainingRun("dose_unet", recipe, lr=0.01, seed=1, fold=0, repeat=0, token={}, provenance={}, family=DOSE)


@pytest.fixture
def files(write_cohort: Callable[[list[Case]], CohortFiles], healthy: Callable[[int], Case]) -> CohortFiles:
    torch.set_num_threads(1)
    return write_cohort([healthy(i) for i in range(1, 7)])


def judged(run: TrainingRun, files: CohortFiles, machine: Machine = MACHINE) -> Verdict:
    told: list[str] = []
    return judge_preflight(run, files.cases_dir, files.splits_csv, files.thresholds, tell=told.append, machine=machine)


def test_a_model_that_learns_its_first_batch_passes(
    run: TrainingRun, files: CohortFiles, limits: PreflightLimits
) -> None:
    verdict = judged(run, files)
    assert verdict.ok, verdict.findings
    assert len(verdict.details["losses"]) == 21
    assert verdict.digest == run_digest(run, files.splits_csv, limits)
    assert verdict.digest != run_digest(replace(run, lr=0.02), files.splits_csv, limits)


def test_a_case_that_changed_since_the_splits_stops_it(
    run: TrainingRun, files: CohortFiles, healthy: Callable[[int], Case]
) -> None:
    for number in range(1, 5):
        healthy(number + 20).save(files.cases_dir / f"case_{number + 20:04d}.npz")
        (files.cases_dir / f"case_{number + 20:04d}.npz").replace(files.cases_dir / f"case_{number:04d}.npz")
    (finding,) = judged(run, files).errors
    assert finding.gate == "first_batch"
    assert "dose_unet can't take its first batch: case_000" in finding.message


def test_a_case_that_breaks_the_contract_stops_it_and_both_files_are_written(
    run: TrainingRun, files: CohortFiles, tmp_path: Path
) -> None:
    splits = read_table(files.splits_csv, SPLITS)
    for case_id in splits.loc[splits["split"] == "train", "case_id"]:
        path = files.cases_dir / f"{case_id}.npz"
        with np.load(path) as npz:
            arrays = {**npz, "format_version": np.asarray(99)}
        write_npz(path, arrays)
        # The splits know the file as it is: only its form is wrong.
        splits.loc[splits["case_id"] == case_id, "sha256"] = sha256_of_file(path)
    write_table(files.splits_csv, splits, SPLITS)
    verdict = judged(run, files)
    write_verdict(verdict, tmp_path / "preflight.json", tmp_path / "preflight_findings.json")
    (finding,) = json.loads((tmp_path / "preflight_findings.json").read_text())["findings"]
    assert finding["gate"] == "first_batch"
    assert "has format 99, wanted" in finding["message"]
    assert json.loads((tmp_path / "preflight.json").read_text())["ok"] is False


def test_a_rate_of_nothing_learns_nothing(run: TrainingRun, files: CohortFiles) -> None:
    (finding,) = judged(replace(run, lr=1e-12), files).errors
    assert finding.gate == "does_not_learn"
    assert "20 steps on one batch bring its loss to 1.00 of what it was" in finding.message


def test_a_loss_that_is_not_finite_stops_it(limits: PreflightLimits) -> None:
    (finding,) = judge_probe("dose_unet", replace(PROBE, losses=[1.0, float("nan")], finite=False), limits)
    assert finding.gate == "not_finite"
    assert "not finite within 20 steps" in finding.message


def test_half_the_loss_is_enough(limits: PreflightLimits) -> None:
    assert judge_probe("dose_unet", PROBE, limits) == []


def test_a_full_disk_fails_preflight_and_a_slow_mount_only_warns(run: TrainingRun, files: CohortFiles) -> None:
    verdict = judged(run, files, replace(MACHINE, data_mount="9p", free_disk_gb=0.1))
    assert [finding.gate for finding in verdict.errors] == ["disk"]
    assert "slow_mount" in {finding.gate for finding in verdict.findings}
    assert not any("0.1" in finding.message for finding in verdict.findings)
