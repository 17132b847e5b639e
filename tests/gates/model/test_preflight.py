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
from doseledger.core.files import read_yaml, sha256_of_file, write_json
from doseledger.core.project.layout import Layout
from doseledger.core.settings import load_settings
from doseledger.core.tables import SPLITS, read_table, write_table
from doseledger.gates.limits import PreflightLimits, load_thresholds
from doseledger.gates.model.machine import Machine
from doseledger.gates.model.preflight import judge_preflight, judge_probe
from doseledger.gates.run_digest import run_digest
from doseledger.gates.verdict import Verdict, write_verdict
from doseledger.learn.families.dose import DOSE
from doseledger.learn.kinds import full_block, load_recipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.probe import ProbeResult

MACHINE = Machine("ext4", 100.0, 32.0, 8.0, has_nvidia_driver=False, torch_cuda=None, cuda_available=False)
PROBE = ProbeResult([1.0, 0.5], True, ["case_0001"], (1, 9, 16, 24, 32), (1, 1, 16, 24, 32), 1000)


@pytest.fixture
def limits(repository: Path) -> PreflightLimits:
    return load_thresholds(Layout(repository, "phantom")).preflight


@pytest.fixture
def run(repository: Path) -> TrainingRun:
    settings = load_settings(repository / "params.yaml")
    block = full_block(settings.model("dose_unet"), settings.model_base, "test")
    block["sampling"] |= {"patch_zyx": [16, 24, 32], "batch_size": 2}
    block["inputs"]["physics"], block["prior"] = [], "mean_dose"
    block["network"] |= {"channels": [4, 8], "convolutions": [1, 1], "embedding": 8}
    recipe = load_recipe(block, {}, "test")
    return TrainingRun("dose_unet", recipe, lr=0.01, seed=1, fold=0, repeat=0, token={}, provenance={}, family=DOSE)


@pytest.fixture
def cohort(write_cohort: Callable[[list[Case]], Layout], healthy: Callable[[int], Case]) -> Layout:
    torch.set_num_threads(1)
    return write_cohort([healthy(i) for i in range(1, 7)])


def judged(run: TrainingRun, cohort: Layout, machine: Machine = MACHINE) -> Verdict:
    return judge_preflight(run, cohort.model(run.model), tell=lambda line: None, machine=machine)


def test_a_model_that_learns_its_first_batch_passes(run: TrainingRun, cohort: Layout, limits: PreflightLimits) -> None:
    verdict = judged(run, cohort)
    assert verdict.ok, verdict.findings
    assert len(verdict.details["losses"]) == 21
    assert verdict.digest == run_digest(run, cohort.splits, limits)
    assert verdict.digest != run_digest(replace(run, lr=0.02), cohort.splits, limits)


def test_a_case_that_changed_since_the_splits_stops_it(
    run: TrainingRun, cohort: Layout, healthy: Callable[[int], Case]
) -> None:
    for number in range(1, 5):
        healthy(number + 20).save(cohort.cases / f"case_{number + 20:04d}.npz")
        (cohort.cases / f"case_{number + 20:04d}.npz").replace(cohort.cases / f"case_{number:04d}.npz")
    (finding,) = judged(run, cohort).errors
    assert finding.gate == "first_batch"
    assert "dose_unet can't take its first batch: case_000" in finding.message


def test_a_case_that_breaks_the_contract_stops_it_and_both_files_are_written(run: TrainingRun, cohort: Layout) -> None:
    splits = read_table(cohort.splits, SPLITS)
    for case_id in splits.loc[splits["split"] == "train", "case_id"]:
        path = cohort.cases / f"{case_id}.npz"
        with np.load(path) as npz:
            arrays = {**npz, "format_version": np.asarray(99)}
        write_npz(path, arrays)
        # The splits know the file as it is: only its form is wrong.
        splits.loc[splits["case_id"] == case_id, "sha256"] = sha256_of_file(path)
    write_table(cohort.splits, splits, SPLITS)
    verdict = judged(run, cohort)
    paths = cohort.model("dose_unet").preflight_verdict
    write_verdict(verdict, paths)
    (finding,) = json.loads(paths.findings.read_text())["findings"]
    assert finding["gate"] == "first_batch"
    assert "has format 99, wanted" in finding["message"]
    assert json.loads(paths.token.read_text())["ok"] is False


def test_a_rate_of_nothing_learns_nothing(run: TrainingRun, cohort: Layout) -> None:
    (finding,) = judged(replace(run, lr=1e-12), cohort).errors
    assert finding.gate == "does_not_learn"
    assert "20 steps on one batch bring its loss to 1.00 of what it was" in finding.message


def test_a_loss_that_is_not_finite_stops_it(limits: PreflightLimits) -> None:
    (finding,) = judge_probe("dose_unet", replace(PROBE, losses=[1.0, float("nan")], finite=False), limits)
    assert finding.gate == "not_finite"
    assert "not finite within 1 steps on one batch" in finding.message


def test_half_the_loss_is_enough(limits: PreflightLimits) -> None:
    assert judge_probe("dose_unet", PROBE, limits) == []


def test_a_full_disk_fails_preflight_and_a_slow_mount_only_warns(run: TrainingRun, cohort: Layout) -> None:
    verdict = judged(run, cohort, replace(MACHINE, data_mount="9p", free_disk_gb=0.1))
    assert [finding.gate for finding in verdict.errors] == ["disk"]
    assert "slow_mount" in {finding.gate for finding in verdict.findings}
    assert not any("0.1" in finding.message for finding in verdict.findings)


def change_limits(cohort: Layout, **blocks: Any) -> None:
    path = cohort.cohorts / "phantom/thresholds.yaml"
    write_json(path, {**read_yaml(path), **blocks})  # JSON is YAML too


@pytest.mark.parametrize("block", ["metrics", "shortcuts"])
def test_a_model_without_limits_is_not_trained(block: str, run: TrainingRun, cohort: Layout) -> None:
    limits = read_yaml(cohort.cohorts / "phantom/thresholds.yaml")[block]["default"]
    change_limits(cohort, **{block: {"other_model": limits}})
    (finding,) = judged(run, cohort).errors
    assert (finding.gate, finding.severity) == ("limits", "error")
    assert finding.message.startswith(f"dose_unet: no limits under {block}.dose_unet, nor under {block}.default")
    change_limits(cohort, **{block: {"dose_unet": limits}})
    assert judged(run, cohort).ok


def test_limits_that_do_not_say_what_a_model_must_beat_stop_it_too(run: TrainingRun, cohort: Layout) -> None:
    limit = {"metric": "template_mae_ratio", "operator": "<=", "limit": 1.0, "severity": "error", "source": "x"}
    change_limits(cohort, metrics={}, shortcuts={"default": [limit]})
    first, second = judged(run, cohort).errors
    assert {first.gate, second.gate} == {"limits"}
    assert "no limits under metrics.dose_unet" in first.message
    assert "shortcuts of dose_unet have no limit of distance_mae_ratio" in second.message
