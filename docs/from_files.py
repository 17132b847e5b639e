"""Pages made from schemas and from the files of a cohort: tables, names of numbers, limits with their sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandera.pandas as pa
from numpydoc.docscrape import NumpyDocString

from doseledger.core import tables
from doseledger.core.files import read_yaml
from doseledger.core.text.words import NAMED, REGIONS
from doseledger.gates.features import measure_case
from doseledger.ledger.registry.criteria import CHECKS

PANDERA = {
    r"^greater_than_or_equal_to\((.*)\)$": r"≥ \1",
    r"^greater_than\((.*)\)$": r"> \1",
    r"^in_range\((.*), (.*)\)$": r"\1 to \2",
    r"^isin\(\[(.*)\]\)$": r"\1",
    r"^str_length\(1, None\)$": "not empty",
}


def tables_page(root: Path) -> Iterator[str]:
    """Return the page of the tables that cross stages: each column with its type and what it is held to."""
    yield "# Tables\n"
    yield "CSV files that stages hand on, checked as they are written and as they are read.\n"
    text = (root / "src/doseledger/core/tables.py").read_text(encoding="utf-8")
    said = dict[str, str]()
    for comment, name in re.findall(r"((?:^# .*\n)+)(?:_SHARE.*\n)?([A-Z_]+) = _table\(", text, re.M):
        said[name] = " ".join(line.removeprefix("# ") for line in comment.splitlines())
    for name, schema in vars(tables).items():
        if isinstance(schema, pa.DataFrameSchema):
            yield f"## {str(schema.name).capitalize()}\n"
            yield f"{said.get(name, '')}\n"
            yield "| column | type | held to |\n|---|---|---|"
            for key, column in schema.columns.items():
                kind = str(column.dtype).partition("[")[0]
                yield f"| `{_pipes(key)}` | {kind} | {_held_to(column)} |"
            yield ""
    yield "## Features of a case\n"
    yield "Columns that the suites of Great Expectations judge.\n"
    yield "| column | meaning |\n|---|---|"
    yield from (f"| {', '.join(f'`{name}`' for name in names)} | {told} |" for names, told in features())
    yield ""
    yield "## Names of numbers\n"
    yield "What metrics and answers to spoiled inputs are called on pages.\n"
    yield "| name | in words |\n|---|---|"
    yield from (f"| `{name}` | {words} |" for name, words in NAMED.items())
    yield from (f"| `mae_{name}_gy` | MAE in Gy: {words} |" for name, words in REGIONS.items())
    yield ""


def features() -> Iterator[tuple[list[str], str]]:
    """Return the columns of the features of a case, and what they are."""
    for _, names, lines in NumpyDocString(measure_case.__doc__ or "")["Returns"]:
        yield re.split(r", (?![^{]*})", names), " ".join(lines)


def _held_to(column: pa.Column) -> str:
    checks = [_in_words(str(check.error or check.name)) for check in column.checks]
    more = [*checks, *(["may be empty"] if column.nullable else []), *([] if column.required else ["may be absent"])]
    return _pipes(", ".join(more))


def _pipes(text: str) -> str:
    return text.replace("|", "\\|")


def _in_words(check: str) -> str:
    """A check of pandera's own as a person writes it."""
    for pattern, words in PANDERA.items():
        check = re.sub(pattern, words, check)
    return check


def limits_page(root: Path) -> Iterator[str]:
    """Return the page of limits, goals and criteria: each block that gives a source, with its numbers."""
    yield "# Limits and goals\n"
    yield "Each with the source that its file gives; a cohort that is `like` another takes the rest from that one.\n"
    for file in ("thresholds.yaml", "goals.yaml"):
        for path in sorted((root / "validation/cohorts").glob(f"*/{file}")):
            yield f"## {path.parent.name}: {file}\n"
            yield from _sourced(read_yaml(path))
    yield "## exit_criteria.yaml\n"
    yield from _sourced(read_yaml(root / "validation/exit_criteria.yaml"))
    yield "| check | needs | met when |\n|---|---|---|"
    for name, (find, needs) in sorted(CHECKS.items()):
        yield f"| `{name}` | {', '.join(sorted(needs))} | {find.__doc__} |"


def _sourced(content: Any) -> Iterator[str]:
    yield "| what | value | source |\n|---|---|---|"
    for path, block, source in _blocks(content, ()):
        values = ", ".join(f"{key} {_shown(value)}" for key, value in block.items() if not isinstance(value, dict))
        yield f"| {_cell(' '.join(path))} | {_cell(values)} | {_cell(source)} |"
    yield ""


def _blocks(content: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any], str]]:
    if isinstance(content, list):
        for item in content:
            yield from _blocks(item, path)
    if isinstance(content, dict):
        if "source" in content:
            plain = {key: value for key, value in content.items() if key != "source" and not _is_sourced(value)}
            yield path, plain, str(content["source"])
        for key, value in content.items():
            yield from _blocks(value, (*path, str(key)))


def _is_sourced(value: Any) -> bool:
    return isinstance(value, dict) and "source" in value


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cell(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))
