from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.core import code
from doseledger.core.code import code_digest, reached_code
from doseledger.core.files import write_text


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree of three modules, of which `a` reaches `b`, and `b` the data beside it."""
    folder = tmp_path / "doseledger"
    write_text(folder / "__init__.py", "")
    write_text(
        folder / "a.py",
        '"""A."""\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from doseledger.c import C\n'
        'def run() -> int:\n    """Return one."""\n    from doseledger import b\n    return b.ONE\n',
    )
    write_text(folder / "b.py", 'ONE = 1\nNAME = "limits.yaml"\n')
    write_text(folder / "c.py", "class C: ...\n")
    write_text(folder / "limits.yaml", "one: 1\n")
    monkeypatch.setattr(code, "SOURCE", tmp_path)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_code_is_reached_through_imports_inside_functions_and_not_through_those_of_type_checkers(package: Path) -> None:
    assert list(reached_code("doseledger.a")) == ["doseledger.a", "doseledger.b", "doseledger/limits.yaml"]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"""A."""', '"""Another caption."""'), ("Return one.", "Return 1."), ("    return", "    # why\n    return")],
)
def test_comments_and_docstrings_leave_the_digest_as_it_is(package: Path, old: str, new: str) -> None:
    before = code_digest("doseledger.a")
    edit(package / "a.py", old, new)
    assert code_digest("doseledger.a") == before


@pytest.mark.parametrize(
    ("file", "old", "new"), [("a.py", "b.ONE", "b.ONE + 1"), ("b.py", "ONE = 1", "ONE = 2"), ("limits.yaml", "1", "2")]
)
def test_an_edit_of_code_or_of_named_data_changes_the_digest(package: Path, file: str, old: str, new: str) -> None:
    before = code_digest("doseledger.a")
    edit(package / file, old, new)
    assert code_digest("doseledger.a") != before


def test_an_edit_of_what_is_not_reached_leaves_the_digest_as_it_is(package: Path) -> None:
    before = code_digest("doseledger.a")
    edit(package / "c.py", "class C: ...", "class C:\n    one = 1")
    assert code_digest("doseledger.a") == before


def test_a_name_from_a_package_reaches_what_the_package_exports(package: Path) -> None:
    write_text(package / "d/__init__.py", "from doseledger.c import C\n")
    write_text(package / "e.py", "from doseledger.d import C\n")
    assert set(reached_code("doseledger.e")) == {"doseledger.e", "doseledger.d", "doseledger.c"}


def test_other_peoples_modules_reach_nothing() -> None:
    found = set(reached_code("doseledger.core.files", "numpy"))
    assert found == {f"doseledger.core.{name}" for name in ("files", "errors", "damage")}


def test_a_gate_reaches_none_of_the_code_that_it_judges() -> None:
    assert not [
        name for name in reached_code("doseledger.gates.data.cohort") if ".cohort." in name or ".learn." in name
    ]
