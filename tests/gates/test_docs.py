"""The page of the gates' checks, made from code and tests, is whole; every test that the written page names exists."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from from_files import features, limits_page  # noqa: E402
from from_tests import Check, checklist, checks, checks_page, readable, refusals, refusals_page  # noqa: E402

# Of these the suite or another check says the same, and a test of its own would seed the same fault.
UNSEEDED = {"cohort_size", "extent", "intensity_scale", "optional_organ", "parts", "technique", "unmeasured"}


@pytest.fixture(scope="module")
def found() -> dict[str, Check]:
    return {check.name: check for check in checks(ROOT)}


@pytest.mark.parametrize("file", ["data/test_faults_of_cases.py", "test_suites.py"])
def test_every_seeded_fault_stands_on_the_page(file: str, found: dict[str, Check]) -> None:
    faults: list[str] = []
    for node in ast.parse((ROOT / "tests" / "gates" / file).read_text()).body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.value, ast.Dict)
            and ast.unparse(node.target) == "FAULTS"
        ):
            faults = [ast.literal_eval(key) for key in node.value.keys if key is not None]
    told = {what for check in found.values() for what, _ in check.caught}
    assert len(faults) > 10
    assert [fault for fault in faults if fault not in told] == []


def test_every_check_has_its_meaning_and_a_fault_that_it_caught(found: dict[str, Check]) -> None:
    names: set[str] = set()
    for file in sorted((ROOT / "src/doseledger/gates").rglob("*.py")):
        text = file.read_text()
        names |= set(re.findall(r'Finding\(\s*"([a-z_0-9]+)"', text)) | set(re.findall(r'gate = "([a-z_]+)"', text))
    for suite in sorted((ROOT / "validation/cohorts").glob("*/suite.json")):
        names |= set(re.findall(r'"gate": "([a-z_]+)"', suite.read_text()))
    assert len(names) > 50
    assert sorted(names - set(found)) == []
    assert [name for name, check in found.items() if not any(check.judges)] == []
    assert {name for name, check in found.items() if not check.caught} <= UNSEEDED
    page = "\n".join(checks_page(ROOT))
    assert all(f"## `{name}`" in page for name in names)


def test_refusals_are_told_in_the_words_of_the_tests() -> None:
    told = "found … cells in ….csv; 3.1 Gy (at most 2)"
    assert readable(r"found \d+ cells in .*\.csv; 3\.1 Gy \(at most 2\)$") == told
    rows = [row for part in refusals(ROOT).values() for row in part]
    assert len(rows) > 500
    page = "\n".join(refusals_page(ROOT))
    assert "`an array of objects, which is a pickle" in page or "which is a pickle`" in page
    assert all(line.count("|") - line.count("\\|") == 4 for line in page.splitlines() if line.startswith("| "))


def test_every_column_that_a_suite_judges_is_told() -> None:
    told = []
    for names, meaning in features():
        assert meaning
        for name in names:
            either = re.sub(r"\\{(.*?)\\}", lambda found: f"({found[1].replace(',', '|')})", re.escape(name))
            told.append(re.sub(r"<\w+>", r"\\w+", either))
    columns = set()
    for suite in sorted((ROOT / "validation/cohorts").glob("*/suite.json")):
        for wanted in json.loads(suite.read_text())["expectations"]:
            columns |= {value for key, value in wanted["kwargs"].items() if key.startswith("column") and value}
    assert len(columns) > 50
    known = re.compile("|".join([*told, "case_id", "mr_.*", "<structure>_median"]))
    of_mr = re.compile(r"\w+_median")
    assert sorted(name for name in columns if not known.fullmatch(name) and not of_mr.fullmatch(name)) == []


def test_every_limit_stands_on_its_page_with_its_source() -> None:
    page = "\n".join(limits_page(ROOT)).replace("\\", "")
    sources = 0
    for path in sorted((ROOT / "validation/cohorts").glob("*/thresholds.yaml")):
        for line in re.findall(r"^ *(?:- )?source: ([^>|\"'\n]+)$", path.read_text(), re.M):
            sources += 1
            assert line in page
    assert sources > 40


def test_the_checklist_of_a_run_is_told_point_by_point() -> None:
    text = (ROOT / "src/doseledger/ledger/runs/check.py").read_text()
    points = re.findall(r"(?<![\w.])Check\(", text)
    assert len(points) == len(list(checklist(ROOT))) > 10
