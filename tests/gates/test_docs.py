"""The table of seeded faults in docs/reference/gates.md is whole, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "reference" / "gates.md").read_text()


def test_every_test_that_the_page_names_exists(repository: Path, page: str) -> None:
    named = set(re.findall(r"`((?:\w+/)?test_\w+\.py)::(test_\w+)", page))
    assert len(named) > 30
    for file, function in sorted(named):
        tree = ast.parse((repository / "tests" / "gates" / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, function)


@pytest.mark.parametrize("file", ["data/test_faults_of_cases.py", "test_suites.py"])
def test_every_seeded_fault_stands_on_the_page(file: str, repository: Path, page: str) -> None:
    for node in ast.parse((repository / "tests" / "gates" / file).read_text()).body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.value, ast.Dict)
            and ast.unparse(node.target) == "FAULTS"
        ):
            faults = [ast.literal_eval(key) for key in node.value.keys if key is not None]
    missing = [fault for fault in faults if f"| {fault} |" not in page]
    assert missing == []


def test_every_check_of_the_gates_stands_on_the_page(repository: Path, page: str) -> None:
    names: set[str] = set()
    for file in sorted((repository / "src" / "doseledger" / "gates").rglob("*.py")):
        text = file.read_text()
        names |= set(re.findall(r'Finding\(\s*"([a-z_0-9]+)"', text)) | set(re.findall(r'gate = "([a-z_]+)"', text))
    for suite in sorted((repository / "validation" / "cohorts").glob("*/suite.json")):
        names |= set(re.findall(r'"gate": "([a-z_]+)"', suite.read_text()))
    assert len(names) > 50
    assert sorted(name for name in names if f"`{name}`" not in page) == []
