"""What `pytest validation` looks at: the cohort and models that params.yaml names, where dvc.yaml puts them.

The gates run here as they do in the pipeline: nothing is skipped. A gate whose data are not there fails and says which
stage writes them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core.settings import Settings, load_settings
from doseledger.gates.digests import CohortFiles
from doseledger.gates.model.metrics import MetricsFiles

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = load_settings(ROOT / "params.yaml")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a `model` once for each of params.yaml; diffusions too where it asks so."""
    if "model" in metafunc.fixturenames:
        more = SETTINGS.diffusion_models if "every_kind" in metafunc.fixturenames else []
        metafunc.parametrize("model", [*SETTINGS.models, *more])


@pytest.fixture
def every_kind() -> None:
    """Asked for by what judges a prediction, whatever kind of model made it."""


@pytest.fixture(scope="session")
def settings() -> Settings:
    """All of params.yaml."""
    return SETTINGS


@pytest.fixture(scope="session")
def cohort_files(settings: Settings) -> CohortFiles:
    """The files that the data gate judges."""
    cohort, validation = settings.cohort, ROOT / "validation"
    protocol = settings.cohorts[cohort].protocol
    return CohortFiles(
        cases_dir=ROOT / "data" / "cases" / cohort,
        splits_csv=ROOT / "data" / "splits" / f"{cohort}.csv",
        test_set_csv=validation / "test_sets" / f"{cohort}.csv",
        protocol=validation / "protocols" / f"{protocol}.yaml",
        suite=validation / "suites" / f"{protocol}.json",
        thresholds=validation / "thresholds.yaml",
        cohort=cohort,
    )


def checkpoint_of(cohort: str, model: str) -> Path:
    """Return where a model's best checkpoint lies."""
    return ROOT / "models" / cohort / model / "checkpoints" / "best.ckpt"


@pytest.fixture
def base(settings: Settings) -> Path:
    """The checkpoint that diffusions stand on."""
    return checkpoint_of(settings.cohort, settings.diffusion_base)


@pytest.fixture
def metrics_files(model: str, cohort_files: CohortFiles) -> MetricsFiles:
    """The files that the metrics gate judges."""
    cohort = cohort_files.cohort
    return MetricsFiles(
        metrics_dir=ROOT / "reports" / "metrics" / cohort / model,
        splits_csv=cohort_files.splits_csv,
        checkpoint=checkpoint_of(cohort, model),
        thresholds=cohort_files.thresholds,
        cohort=cohort,
        model=model,
    )


@pytest.fixture(scope="session")
def verdicts(settings: Settings) -> Path:
    """Folder of the cohort's verdicts."""
    return ROOT / "reports" / "verdicts" / settings.cohort
