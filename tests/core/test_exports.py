"""Public names of the packages: they import, cost nothing before, and hide no module from the walk over the code."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = (
    "doseledger.core",
    "doseledger.dicom",
    "doseledger.ingest",
    "doseledger.evaluate",
    "doseledger.gates",
    "doseledger.learn",
    "doseledger.dosimetry",
    "doseledger.parity",
    "doseledger.planning",
    "doseledger.phantom",
    "doseledger.learn.networks",
    "doseledger.ledger.bundle",
    "doseledger.ledger.audit",
)
HEAVY = ("numba", "torch", "scipy", "pandas", "pydicom", "dvc", "monai")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_imports_and_none_is_a_modules_name(package: str) -> None:
    module = importlib.import_module(package)
    names = dir(module)
    assert len(names) >= 3
    for name in names:
        assert getattr(module, name).__name__ == name
        assert importlib.util.find_spec(f"{package}.{name}") is None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_the_short_imports_of_the_reference_work() -> None:
    from doseledger.dosimetry import GammaCriteria, dvh_statistics, gamma_map

    assert (GammaCriteria.__name__, gamma_map.__name__, dvh_statistics.__name__) == (
        "GammaCriteria", "gamma_map", "dvh_statistics",
    )  # fmt: skip


def test_importing_the_packages_loads_no_heavy_library() -> None:
    script = f"import sys, {', '.join(PACKAGES)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_our_own_code_imports_from_the_modules_so_that_the_walk_over_it_sees_them(repository: Path) -> None:
    lazy = {(package, name) for package in PACKAGES for name in dir(importlib.import_module(package))}
    for path in (repository / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not {(node.module, alias.name) for alias in node.names} & lazy, f"{path}: import from the module"


def test_an_alias_has_one_meaning_wherever_it_is_defined(repository: Path) -> None:
    def aliases(path: Path) -> dict[str, str]:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        plain = [node for node in body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
        return {node.targets[0].id: ast.unparse(node.value) for node in plain}

    shared = aliases(repository / "src" / "doseledger" / "core" / "types.py")
    assert {"GyArray", "Mask", "Sdf", "Tell", "Box"} <= set(shared)
    for path in (repository / "src").rglob("*.py"):
        for name, meaning in aliases(path).items():
            assert shared.get(name, meaning) == meaning, f"{path}: {name} is another thing in core/types.py"
