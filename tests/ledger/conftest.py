"""A finished run of small real files, as the stages leave them, for the tests of reports."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from doseledger.cohort.evaluation import TestSet, evaluate_cohort
from doseledger.core.case import Case, write_npz
from doseledger.core.files import read_yaml, sha256_of_file, write_json, write_text
from doseledger.core.protocol import load_goals, load_protocol
from doseledger.core.settings import EvaluateSettings, load_settings
from doseledger.core.tables import CASES, SKIPPED, SPLITS, TEST_SET, write_table
from doseledger.evaluate.metrics import Yardsticks
from doseledger.learn.checkpoint import Checkpoint, save_checkpoint
from doseledger.learn.recipe import load_recipe
from doseledger.ledger.sources import ReportInputs

MakeCase = Callable[..., Case]
PARTS = ("train", "train", "train", "train", "val", "test", "test", "test")
GOALS = """name: prostate_sib
protocol: prostate_sib
title: Prostate SIB, 70/56 Gy in 28 fractions
goals:
  - {structure: PTV70, statistic: V66.5Gy, operator: ">=", limit: 98, acceptable: 95, unit: "%", source: a test}
  - {structure: PTV70, statistic: D2%, operator: "<=", limit: 74.9, unit: Gy, source: a test}
  - {structure: Rectum, statistic: V45Gy, operator: "<=", limit: 45, unit: "%", source: a test}
  - {structure: Bladder, statistic: V65Gy, operator: "<=", limit: 15, unit: "%", gating: false, source: a test}
  - {structure: Bowel, statistic: D0.03cc, operator: "<=", limit: 52, unit: Gy, source: a test}
"""


@dataclass(frozen=True)
class FinishedRun:
    """Where the run's files lie, and with what it was evaluated."""

    inputs: ReportInputs
    evaluate: EvaluateSettings


@pytest.fixture(scope="session")
def run_cache() -> dict[str, FinishedRun]:
    """Runs that are made once a session; a test that changes a file makes its own."""
    return {}


@pytest.fixture
def build_run(make_case: MakeCase, repository: Path) -> Callable[[Path], FinishedRun]:
    """Factory of finished runs in a folder."""

    def build(root: Path) -> FinishedRun:
        inputs = places(root, repository)
        cases = write_cases(inputs, make_case)
        evaluate = load_settings(repository / "params.yaml").evaluate.model_copy(
            update={"workers": 0, "verify_gamma_points": 3}
        )
        write_training(inputs, cases, repository)
        write_metrics(inputs, [case for case, part in zip(cases, PARTS, strict=True) if part == "test"], evaluate)
        write_limits(inputs, repository)
        write_verdicts(inputs)
        return FinishedRun(inputs, evaluate)

    return build


@pytest.fixture
def finished_run(
    build_run: Callable[[Path], FinishedRun],
    run_cache: dict[str, FinishedRun],
    tmp_path_factory: pytest.TempPathFactory,
) -> FinishedRun:
    """A finished run that no test may change."""
    if "run" not in run_cache:
        run_cache["run"] = build_run(tmp_path_factory.mktemp("run"))
    return run_cache["run"]


def places(root: Path, repository: Path) -> ReportInputs:
    return ReportInputs(
        cohort="phantom",
        model="dose_unet",
        run=root / "models/phantom/dose_unet",
        metrics=root / "reports/metrics/phantom/dose_unet",
        predictions=root / "data/predictions/phantom/dose_unet",
        cases=root / "data/cases/phantom",
        splits=root / "data/splits/phantom.csv",
        test_set=root / "validation/test_sets/phantom.csv",
        data_findings=root / "reports/verdicts/phantom/data_findings.json",
        preflight_findings=root / "reports/verdicts/phantom/dose_unet/preflight_findings.json",
        protocol=repository / "validation/protocols/prostate_sib.yaml",
        goals=root / "validation/goals/prostate_sib.yaml",
        thresholds=root / "validation/thresholds.yaml",
        root=root,
    )


def write_cases(inputs: ReportInputs, make_case: MakeCase) -> list[Case]:
    cases = []
    rows, split_rows = [], []
    for number, part in enumerate(PARTS, start=1):
        case = make_case(f"case_{number:04d}", seed=number)
        path = inputs.cases / f"{case.case_id}.npz"
        case.save(path)
        cases.append(case)
        shared = {
            "case_id": case.case_id, "pseudonym": case.meta["pseudonym"], "group": "A", "sha256": sha256_of_file(path),
        }  # fmt: skip
        rows.append(
            {**shared, "site": "A", "source_sha256": case.meta["source_sha256"], "n_warnings": int(number == 2)}
        )
        split_rows.append({**shared, "repeat": 0, "fold": 0, "split": part})
    write_table(inputs.cases / "cases.csv", pd.DataFrame(rows), CASES)
    write_table(inputs.splits, pd.DataFrame(split_rows), SPLITS)
    skipped = [
        {"case_id": "case_0013", "status": "skipped", "reason": "not a simultaneous integrated boost"},
        {"case_id": "case_0014", "status": "failed", "reason": 'no ROI matches Rectum; nearest is "Rectm" & <others>'},
    ]
    write_table(inputs.cases / "skipped.csv", pd.DataFrame(skipped), SKIPPED)
    write_table(inputs.test_set, pd.DataFrame(columns=list(TEST_SET.columns)), TEST_SET)
    write_text(inputs.goals, GOALS)
    return cases


def predicted_dose(case: Case, seed: int) -> np.ndarray:
    """A blurred and slightly wrong plan, as a network gives it."""
    rng = np.random.default_rng(seed)
    assert case.dose_gy is not None
    field = gaussian_filter(rng.standard_normal(case.grid.shape_zyx), 3.0) * 10
    dose = gaussian_filter(case.dose_gy, 0.4 + 0.2 * seed) * (1.0 + 0.08 * field)
    return np.where(case.body, np.maximum(dose, 0.0), 0.0).astype(np.float32)


def write_metrics(inputs: ReportInputs, cases: list[Case], evaluate: EvaluateSettings) -> None:
    for seed, case in enumerate(cases):
        meta = {
            "case_id": case.case_id,
            "case_sha256": sha256_of_file(inputs.cases / f"{case.case_id}.npz"),
            "checkpoint_sha256": sha256_of_file(inputs.run / "checkpoints/best.ckpt"),
            "trained_on": [],
            "selected_on": [],
        }
        arrays = {
            "dose_gy": predicted_dose(case, seed),
            "spacing_mm": np.asarray(case.grid.spacing_mm),
            "origin_mm": np.asarray(case.grid.origin_mm),
            "meta": np.asarray(json.dumps(meta)),
        }
        path = inputs.predictions / f"{case.case_id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(path, arrays)
    yardsticks = Yardsticks(load_protocol(inputs.protocol), load_goals(inputs.goals), evaluate)
    test_set = TestSet(inputs.cases, inputs.predictions, inputs.splits, "test", fold=0, repeat=0)
    evaluate_cohort(test_set, inputs.metrics, yardsticks, tell=lambda line: None)


def write_checkpoint(inputs: ReportInputs, cases: list[Case], repository: Path) -> None:
    import torch

    block = load_settings(repository / "params.yaml").model("dose_unet")
    # Of this run, whatever is shipped.
    recipe = load_recipe({**block, "fit": {**block["fit"], "max_epochs": 15}}, "params.yaml")
    digests = {
        part: {
            case.case_id: sha256_of_file(inputs.cases / f"{case.case_id}.npz")
            for case, its in zip(cases, PARTS, strict=True)
            if its == part
        }
        for part in ("train", "val")
    }
    checkpoint = Checkpoint(
        model="dose_unet",
        recipe=recipe.trained_part(),
        settings={"lr": 0.002, "seed": 1, "fold": 0, "repeat": 0},
        structure_names=cases[0].structure_names,
        target_names=("PTV70", "PTV56"),
        spacing_range_mm=((6.0, 6.0, 6.0), (6.0, 6.0, 6.0)),
        trained_on=digests["train"],
        selected_on=digests["val"],
        epoch=30,
        scores={},
        weights={"w": torch.zeros(1)},
    )
    save_checkpoint(inputs.run / "checkpoints/best.ckpt", checkpoint)


def write_limits(inputs: ReportInputs, repository: Path, largest_mae_gy: float = 4.0) -> None:
    thresholds = read_yaml(repository / "validation/thresholds.yaml")
    limits = [
        {"metric": "mae_above_10_percent_gy", "operator": "<=", "limit": largest_mae_gy, "source": "a test"},
        {"metric": "gamma_3_3_global_percent", "operator": ">=", "limit": 50.0, "source": "a test"},
    ]
    # YAML holds JSON.
    write_json(inputs.thresholds, {**thresholds, "metrics": {"phantom": {"dose_unet": limits}}})


def write_training(inputs: ReportInputs, cases: list[Case], repository: Path) -> None:
    write_checkpoint(inputs, cases, repository)
    epoch = np.arange(1, 31)
    history = pd.DataFrame(
        {
            "epoch": epoch,
            "steps": 24 * epoch,
            "lr": 0.002 * np.cos(epoch / 31 * np.pi / 2),
            "train_loss": 0.3 * np.exp(-epoch / 8) + 0.02,
            "val_mae_valid_dose_gy": np.where(epoch % 3 == 0, 4 * np.exp(-epoch / 9) + 1 + 0.002 * epoch, np.nan),
            "val_mae_body_gy": np.where(epoch % 3 == 0, 3 * np.exp(-epoch / 9) + 0.8, np.nan),
            "seconds": 2.5,
        }
    )
    buffer = io.StringIO()
    history.to_csv(buffer, index=False)
    write_text(inputs.run / "history.csv", buffer.getvalue())
    write_text(inputs.run / "config_resolved.yaml", "model: dose_unet\nlr: 0.002\nseed: 1\nrecipe:\n  kind: dose\n")
    write_json(inputs.run / "dataset_summary.json", {"train": [{}] * 4, "val": [{}], "channels": 12})
    record = {
        "model": "dose_unet", "lr": 0.002, "seed": 1, "fold": 0, "repeat": 0, "cases_sha256": "c" * 64,
        "splits_sha256": "d" * 64, "device": "CPU (2 threads)", "versions": {"torch": "2.13.0", "python": "3.11.9"},
        "provenance": {
            "git": {"commit": "a" * 40, "branch": "main", "dirty": False, "dirty_paths": [], "note": ""},
            "command": ["doseledger", "train", "dose_unet", "models/phantom/dose_unet"], "python": "3.11.9",
            "platform": "Linux x86_64", "packages": {"numpy": "2.4.6"}, "lock_sha256": "e" * 64, "torch": "2.13.0",
            "cuda": None, "gpus": [],
        },
    }  # fmt: skip
    write_json(inputs.run / "run.json", record)


def write_verdicts(inputs: ReportInputs) -> None:
    warning = {
        "gate": "sdf_sign", "case_id": "case_0002", "severity": "warning", "message": "case_0002: a warning to read.",
        "numbers": {},
    }  # fmt: skip
    for path, gate, findings in (
        (inputs.data_findings, "data", [warning]),
        (inputs.preflight_findings, "preflight", []),
    ):
        counts = {"error": 0, "warning": len(findings)}
        verdict = {"gate": gate, "ok": True, "digest": "f" * 64, "counts": counts, "findings": findings, "details": {}}
        write_json(path, verdict)


def with_run(inputs: ReportInputs, **changes: object) -> ReportInputs:
    """The same run, with some of its places changed."""
    return replace(inputs, **changes)  # type: ignore[arg-type]
