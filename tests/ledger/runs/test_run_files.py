"""The contract of a run's files finds them in the project's own pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_text
from doseledger.core.project.layout import Layout
from doseledger.ledger.runs.files import files_of_model, files_of_pipeline, trained_models, verdict_speaks_of


def test_the_contract_finds_its_files_in_the_projects_own_pipeline(repository: Path) -> None:
    for model in read_yaml(repository / "params.yaml")["models"]:
        names = files_of_pipeline(Layout(repository, "phantom"), model).by_name()
        assert {"run.json", "metrics_summary.json", "verdicts/model_findings.json", "report.pdf"} <= set(names)
        assert names["checkpoints/best.ckpt"].parts[-4:-2] == ("phantom", model)
        # All numbers, not the few that are shown first.
        assert names["metrics_summary.json"].name == "details.json"


def test_a_model_that_is_not_trained_is_told_with_those_that_are(repository: Path) -> None:
    with pytest.raises(BadInput, match=r"trains no 'nobody'; params\.yaml names: dose_trees, dose_unet"):
        files_of_pipeline(Layout(repository, "phantom"), "nobody")


def test_a_model_of_any_kind_and_cohort_has_its_files_in_folders_of_its_own() -> None:
    files = files_of_model(Layout(Path("x"), "prostate").model("dose_diffusion"))
    assert files.run == Path("x/models/prostate/dose_diffusion")
    assert files.predictions == Path("x/data/predictions/prostate/dose_diffusion")
    assert list(files.verdicts) == ["data", "preflight", "model"]
    assert files.verdicts["data"].token == Path("x/reports/verdicts/prostate/data.json")
    assert files.verdicts["model"].findings == Path("x/reports/verdicts/prostate/dose_diffusion/model_findings.json")


@pytest.mark.parametrize("content", ["lr: 1\n", "models: dose_unet\n", "models: []\n", "- dose_unet\n"])
def test_settings_that_name_no_models_are_refused(tmp_path: Path, content: str) -> None:
    write_text(tmp_path / "params.yaml", content)
    with pytest.raises(BadInput, match=r"params\.yaml: wanted a list of `models`"):
        trained_models(tmp_path / "params.yaml")


@pytest.mark.parametrize("details", [[], "x", 3, {"metrics": []}, {"metrics": {"details": []}}])
def test_a_verdict_of_another_form_speaks_of_no_metrics(details: object) -> None:
    assert not verdict_speaks_of({"details": details}, {"n_cases": 3})
