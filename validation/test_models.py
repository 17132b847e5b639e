"""Preflight and the metrics gate on each model of params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core.settings import Settings
from doseledger.gates.digests import CohortFiles
from doseledger.gates.model.metrics import MetricsFiles, judge_metrics
from doseledger.gates.model.preflight import judge_preflight
from doseledger.gates.model.shortcuts import JudgedFiles, judge_shortcuts
from doseledger.gates.verdict import enforce, passed_token, require_token
from doseledger.learn.families.diffusion import diffusion_family
from doseledger.learn.families.dose import DOSE
from doseledger.learn.recipes.diffusion import load_diffusion
from doseledger.learn.recipes.dose import CommonRecipe, load_recipe
from doseledger.learn.run import Family, TrainingRun


def recipe_and_family(model: str, settings: Settings, base: Path) -> tuple[CommonRecipe, Family]:
    """Return a model's block and what trains it; a diffusion stands on `base`."""
    block, where = settings.model(model), f"params.yaml: {model}"
    if model in settings.diffusion_models:
        diffusion = load_diffusion(block, where)
        return diffusion, diffusion_family(diffusion, base)
    return load_recipe(block, where), DOSE


@pytest.mark.usefixtures("every_kind")
def test_the_model_passes_preflight(
    model: str, cohort_files: CohortFiles, settings: Settings, verdicts: Path, base: Path
) -> None:
    """The first batch loads and is learned, on this machine."""
    recipe, family = recipe_and_family(model, settings, base)
    run = TrainingRun(
        model=model,
        recipe=recipe,
        lr=settings.lr,
        seed=settings.seed,
        fold=settings.fold,
        repeat=settings.repeat,
        token=passed_token(verdicts / "data.json", "data"),
        provenance={},
        family=family,
    )
    enforce(judge_preflight(run, cohort_files.cases_dir, cohort_files.splits_csv, cohort_files.thresholds, tell=print))


@pytest.mark.usefixtures("every_kind")
def test_the_model_passes_the_metrics_gate(
    model: str, metrics_files: MetricsFiles, settings: Settings, verdicts: Path
) -> None:
    """Its metrics keep their limits, on cases that it never saw; and the verdict on disk is about them."""
    verdict = judge_metrics(metrics_files, fold=settings.fold, repeat=settings.repeat)
    enforce(verdict)
    require_token(verdicts / model / "metrics.json", verdict.digest, "metrics")


def test_the_model_passes_the_shortcut_gate(
    model: str, metrics_files: MetricsFiles, settings: Settings, verdicts: Path
) -> None:
    """It knows more than a mean dose and distances tell, and the verdict on disk is about it."""
    its = metrics_files
    files = JudgedFiles(
        its.metrics_dir / "shortcuts.json", its.checkpoint, its.splits_csv, its.thresholds, its.cohort, model
    )
    verdict = judge_shortcuts(files, fold=settings.fold, repeat=settings.repeat)
    enforce(verdict)
    require_token(verdicts / model / "shortcuts.json", verdict.digest, "shortcuts")
