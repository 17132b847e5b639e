"""The DICOM factory as a fixture: importlib mode puts no test folder on the path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load_factory() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "dicom" / "factory.py"
    if "dicom_factory" not in sys.modules:
        spec = importlib.util.spec_from_file_location("dicom_factory", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["dicom_factory"] = module
        spec.loader.exec_module(module)
    return sys.modules["dicom_factory"]


@pytest.fixture(scope="session")
def factory() -> ModuleType:
    """tests/dicom/factory.py: tiny DICOM patients of known geometry."""
    return load_factory()
