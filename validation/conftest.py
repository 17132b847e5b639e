"""What `pytest validation` looks at: the cohort and models that params.yaml names.

The gates run here as they do in the pipeline: nothing is skipped. A gate whose data are not there fails and says which
stage writes them.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from doseledger.core.errors import DoseledgerError
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.core.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = load_settings(ROOT / "params.yaml")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """End with what a gate found, in its own words, and with no traceback of ours."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, DoseledgerError):
        report.longrepr = str(call.excinfo.value)
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Show no lines of progress under a failure: what a gate found says all."""
    config.option.showcapture = "no"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a model once for each of params.yaml."""
    if "at" in metafunc.fixturenames:
        metafunc.parametrize("at", SETTINGS.models, indirect=True)


@pytest.fixture(scope="session")
def settings() -> Settings:
    """All of params.yaml."""
    return SETTINGS


@pytest.fixture(scope="session")
def layout(settings: Settings) -> Layout:
    """Where the cohort's files lie."""
    return Layout(ROOT, settings.cohort)


@pytest.fixture
def at(request: pytest.FixtureRequest, layout: Layout) -> ModelLayout:
    """Where a model's files lie."""
    return layout.model(request.param)
