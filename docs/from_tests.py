"""Pages made from the tests: what is refused, and what each check of the gates was seen to catch."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ERRORS = frozenset({"BadInput", "BadCase", "NotReady", "GateFailed", "SkippedCase"})
# What stands in a pattern for letters and numbers that differ.
OPEN = re.compile(r"\.[*+]\??|\\[dSsw][*+]?(?:\{\d+\})?|\[[^\]]*\][*+]|\(\?:.*?\)")
ANCHORS = re.compile(r"^\^|\$$|\\b")
TITLES = {
    "cli": "Commands", "core": "Files and settings", "deliver": "Delivery", "dicom": "DICOM",
    "dosimetry": "DVH, gamma, goals",
    "evaluate": "Evaluation", "gates": "Gates", "ingest": "Ingest", "learn": "Training and prediction",
    "ledger": "Runs, bundles, registry, audit log", "parity": "Contracts and parity", "phantom": "Synthetic patients",
    "planning": "Plans", "report": "Pages",
}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """One refusal: what a test did, what was said, and where."""

    done: str
    said: str
    file: str


@dataclass(frozen=True)
class Check:
    """One check of the gates: what it judges, and what it was seen to catch, each with the test's file."""

    name: str
    judges: tuple[str, ...]
    caught: tuple[tuple[str, str], ...]


def refusals(root: Path) -> dict[str, list[Refusal]]:
    """Return the refusals that tests wait for, by the name of the package."""
    found = defaultdict(list)
    for path in sorted((root / "tests").rglob("test_*.py")):
        folder = path.relative_to(root / "tests").parts[0]
        for test in _tests(path):
            for call in ast.walk(test):
                if (said := _match_of(call)) and folder in TITLES:
                    place = path.relative_to(root).as_posix()
                    found[folder].append(Refusal(_sentence(test.name), readable(said), place))
    return found


def _tests(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def _match_of(call: ast.AST) -> str:
    """The pattern that a test wants in a message of ours; empty for anything else."""
    if not isinstance(call, ast.Call) or getattr(call.func, "attr", "") != "raises" or not call.args:
        return ""
    if getattr(call.args[0], "id", "") not in ERRORS:
        return ""
    values = [keyword.value for keyword in call.keywords if keyword.arg == "match"]
    value = values[0].value if values and isinstance(values[0], ast.Constant) else ""
    return value if isinstance(value, str) else ""


def _sentence(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def readable(pattern: str) -> str:
    """Return a pattern as the message that it fits, with … for what differs.

    Examples
    --------
    >>> readable(r"found \\d+ cells in .*\\.csv")
    'found … cells in ….csv'
    """
    open_ = OPEN.sub("…", ANCHORS.sub("", pattern))
    return re.sub(r"\\(.)", r"\1", open_)


def checks(root: Path) -> list[Check]:
    """Return the checks of the gates, by name."""
    judges = defaultdict(list)
    for path in sorted((root / "src/doseledger/gates").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for name in _names_of_checks(function):
                judges[name].append((ast.get_docstring(function) or ast.get_docstring(tree) or "").partition("\n")[0])
    for suite in sorted((root / "validation/cohorts").glob("*/suite.json")):
        for wanted in json.loads(suite.read_text(encoding="utf-8"))["expectations"]:
            meta, of = wanted["meta"], wanted["kwargs"].get("column", "")
            place = ", ".join(filter(None, (f"Suite of {suite.parent.name}", of)))
            advice = f" What to do: {meta['advice']}" if meta.get("advice") else ""
            judges[meta["gate"]].append(f"{place}: {meta['notes']}{advice}")
    caught = defaultdict(list)
    for path in sorted((root / "tests/gates").rglob("test_*.py")):
        place = path.relative_to(root).as_posix()
        for name, what in _caught(ast.parse(path.read_text(encoding="utf-8")), frozenset(judges)):
            caught[name].append((what, place))
    return [
        Check(name, tuple(dict.fromkeys(judges[name])), tuple(dict.fromkeys(caught[name]))) for name in sorted(judges)
    ]


def _names_of_checks(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        is_finding = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding" and node.args
        # A name that is put together is each part's own.
        if is_finding and isinstance(node.args[0], ast.Name):
            # A table of (check, …) that a loop goes through.
            for row in (inner for inner in ast.walk(function) if isinstance(inner, ast.Tuple) and inner.elts):
                yield from (name for name in _words(row.elts[0]) if "_" in name)
        elif is_finding and not isinstance(node.args[0], ast.JoinedStr):
            yield from _words(node.args[0])
        if isinstance(node, ast.Assign) and [getattr(one, "id", "") for one in node.targets] == ["gate"]:
            yield from _words(node.value)


def _words(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and re.fullmatch("[a-z_0-9]+", inner.value):
            yield inner.value


def _caught(tree: ast.Module, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Each check that a test or a line of a table of faults names, and the fault in words."""
    for node in tree.body:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict) and isinstance(node, (ast.Assign, ast.AnnAssign)):
            for key, item in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield from ((name, key.value) for name in _words(item) if name in names)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from ((name, _sentence(node.name)) for name in dict.fromkeys(_words(node)) if name in names)


def behaviour_page(root: Path) -> Iterator[str]:
    """Return the page of what reading does with what a clinic's data may hold, test by test."""
    yield "# Intake, test by test\n"
    yield "What reading and writing DICOM, NIfTI and OpenKBP was seen to do, in the words of the tests.\n"
    for folder in ("ingest", "dicom"):
        yield f"## {TITLES[folder]}\n"
        for path in sorted((root / "tests" / folder).rglob("test_*.py")):
            caption = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem).partition("\n")[0]
            yield f"**{_plain(caption)}** ({path.relative_to(root).as_posix()})\n"
            yield from (f"- {_plain(_sentence(test.name))}" for test in _tests(path))
            yield ""


def refusals_page(root: Path) -> Iterator[str]:
    """Return the page of refusals."""
    yield "# Refusals\n"
    yield (
        "Messages that the program ends with, as its tests wait for them; … stands for what differs. A message "
        "says who, what was found, what was wanted and what to do.\n"
    )
    for folder, rows in sorted(refusals(root).items(), key=lambda item: TITLES[item[0]]):
        yield f"## {TITLES[folder]}\n\n| What a test does | What is said | Test |\n|---|---|---|"
        yield from (f"| {row.done} | {_code(row.said)} | {row.file} |" for row in rows)
        yield ""


def checks_page(root: Path) -> Iterator[str]:
    """Return the page of the gates' checks."""
    yield "# Checks of the gates\n"
    yield (
        "Each check by the name that a finding bears, what it judges, and what it was seen to catch: faults that tests "
        "put into healthy data. A finding's message says what to do.\n"
    )
    for check in checks(root):
        yield f"## `{check.name}`\n"
        yield "\n\n".join(_plain(line) for line in check.judges if line) + "\n"
        yield from (f"- {_plain(what)} ({place})" for what, place in check.caught)
        yield "" if check.caught else "No test seeds it alone.\n"
    yield "## The checklist of a run\n"
    yield "Points of `doseledger runs check`.\n"
    yield from (f"- `{name}`: {title}" for name, title in checklist(root))


def checklist(root: Path) -> Iterator[tuple[str, str]]:
    """Return the points of the checklist of a run, and what each makes sure of."""
    text = (root / "src/doseledger/ledger/runs/check.py").read_text(encoding="utf-8")
    yield from re.findall(r'Check\(\s*"(\w+)", "([^"]+)"', text)


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)


def _code(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
