"""The documentation as a site: the pages as they lie here, and pages made from the code. Build it with `make site`."""

from __future__ import annotations

import csv
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from numpydoc.docscrape import NumpyDocString

from doseledger import core, dicom, dosimetry, evaluate, gates, ingest, learn, parity, phantom, planning
from doseledger.cli.app import app as command_line
from doseledger.core.project.protocol import GoalSet, Protocol
from doseledger.core.settings import Settings
from doseledger.gates.limits import Thresholds
from doseledger.learn import networks
from doseledger.learn.kinds import KINDS
from doseledger.ledger import audit, bundle
from doseledger.ledger.registry.criteria import ExitCriteria
from doseledger.parity.contract import Contract
from doseledger.planning.machine.linac import Machine

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from from_files import limits_page, tables_page  # noqa: E402
from from_tests import behaviour_page, checks_page, refusals_page  # noqa: E402

MADE = HERE / "generated"
PACKAGES = (
    core, dicom, dosimetry, evaluate, gates, ingest, learn, networks, parity, phantom, planning, audit, bundle,
)  # fmt: skip

project = "doseledger"
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
root_doc = "README"
html_theme = "furo"
html_title = "doseledger"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
# Links to files beside the pages are held by tests/test_docs.py; a site has no such files.
# A diagram stays its own source: what draws it comes from the network.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
nitpicky = False
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
# No fonts or scripts from elsewhere: the site is read offline.
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}


def setup(sphinx: Any) -> None:
    """Make the pages that come from the code before the others are read."""
    MADE.mkdir(exist_ok=True)
    (MADE / "commands.md").write_text("\n".join(_commands()), encoding="utf-8")
    (MADE / "settings.md").write_text("\n".join(_settings()), encoding="utf-8")
    (MADE / "api.md").write_text("\n".join(_api()), encoding="utf-8")
    for made in (behaviour_page, checks_page, limits_page, refusals_page, tables_page):
        name = made.__name__.removesuffix("_page")
        (MADE / f"{name}.md").write_text("\n".join(made(HERE.parent)), encoding="utf-8")
    (MADE / "detection-limits.md").write_text("\n".join(_detection_limits()), encoding="utf-8")
    sphinx.connect("source-read", _add_contents)


def _add_contents(_sphinx: Any, name: str, source: list[str]) -> None:
    """Hang every page below the first one."""
    if name != root_doc:
        return
    for title, folder in (
        ("Tutorial", "tutorial"), ("How-to", "how-to"), ("Reference", "reference"), ("From the code", "generated"),
        ("Explanation", "explanation"), ("Decisions", "decisions"),
    ):  # fmt: skip
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {title}\n:glob:\n\n{folder}/*\n```\n"


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    yield "Each also tells this with `--help`.\n"
    group: Any = typer.main.get_command(command_line)
    yield from _commands_of(group, ("doseledger",))


def _commands_of(group: Any, words: tuple[str, ...]) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands_of(command, (*words, name))
            continue
        yield f"## `{' '.join((*words, name))}`\n"
        text, _, example = (command.help or "").partition("Example: ")
        yield f"{text.strip()}\n\n`{' '.join(example.split())}`\n"
        for parameter in command.params:
            shown = " ".join(f"`{option}`" for option in parameter.opts)
            yield f"- {shown}: {getattr(parameter, 'help', None) or 'see above'}"
        yield ""


def _settings() -> Iterator[str]:
    yield "# Settings\n"
    yield "Every key, its type and what stands there where a file does not say.\n"
    yield "## params.yaml\n"
    yield from _keys(Settings.model_json_schema(), _comments(""))
    for kind, row in sorted(KINDS.items()):
        yield f"## A model of kind {kind}\n"
        yield from _keys(row.recipe.model_json_schema(), _comments("model_base.") if kind == "dose" else {})
    yield from _recipes()
    yield "## thresholds.yaml\n"
    yield from _keys(Thresholds.model_json_schema())
    others = {
        "protocol.yaml": Protocol, "goals.yaml": GoalSet, "A contract of NPZ files": Contract,
        "A machine": Machine, "exit_criteria.yaml": ExitCriteria,
    }  # fmt: skip
    for title, block in others.items():
        yield f"## {title}\n"
        yield f"{_doc(block.model_json_schema())}\n"
        yield from _keys(block.model_json_schema())


def _recipes() -> Iterator[str]:
    """The ready-made blocks, each with what its file says of it."""
    yield "## Ready-made models\n"
    yield "`doseledger recipe use NAME` puts one into `params.yaml`.\n"
    for path in sorted((HERE.parent / "models/recipes").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        said = re.match(r"(?:# .*\n)*", text)[0]  # type: ignore[index]
        yield f"### {path.stem}\n"
        yield " ".join(said.replace("# ", "").split()) + "\n"
        yield f"```yaml\n{text.removeprefix(said).strip()}\n```\n"


def _comments(below: str) -> dict[str, str]:
    """What comments of params.yaml say of the keys under a prefix."""
    found, above, path = {}, list[str](), list[tuple[int, str]]()
    # The first line is about the file, not about its first key.
    for line in (HERE.parent / "params.yaml").read_text(encoding="utf-8").splitlines()[1:]:
        if comment := re.match(r" *# (.*)", line):
            above.append(comment[1])
            continue
        if key := re.match(r"( *)([\w]+):", line):
            path = [one for one in path if one[0] < len(key[1])] + [(len(key[1]), key[2])]
            name = ".".join(part for _, part in path)
            if above and name.startswith(below):
                found[name.removeprefix(below)] = " ".join(above).replace("|", "\\|")
        above = []
    return found


def _keys(schema: dict[str, Any], comments: dict[str, str] | None = None) -> Iterator[str]:
    blocks = schema.get("$defs", {})
    yield "| key | what | type | default |\n|---|---|---|---|"
    yield from _rows(schema, blocks, "", comments or {})
    yield ""
    yield from dict.fromkeys(_notes(schema, blocks, ""))
    yield ""


def _rows(block: dict[str, Any], blocks: dict[str, Any], prefix: str, comments: dict[str, str]) -> Iterator[str]:
    told = _told(block)
    for key, value in block.get("properties", {}).items():
        below, inner = _inner(value, blocks)
        if inner is not None and "properties" in inner and prefix.count(".") < 3:
            yield from _rows(inner, blocks, f"{prefix}{key}{below}.", comments)
            continue
        default = f"`{value['default']}`" if "default" in value else ""
        what = told.get(key) or comments.get(f"{prefix}{key}", "")
        yield f"| `{prefix}{key}` | {what} | {_type_of(value, inner)} | {default} |"


def _inner(value: dict[str, Any], blocks: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """The block that a key holds, and what a path says between both: of a list, or of a mapping by name."""
    for below, of in (("", value), ("[]", value.get("items", {})), (".NAME", value.get("additionalProperties", {}))):
        if isinstance(of, dict) and "$ref" in of:
            return below, blocks.get(str(of["$ref"]).rpartition("/")[2])
    return "", None


def _doc(block: dict[str, Any]) -> str:
    """What a block's docstring says, without its parameters."""
    doc = NumpyDocString(block.get("description", ""))
    return " ".join(line.strip() for part in ("Summary", "Extended Summary", "Notes") for line in doc[part]).strip()


def _notes(block: dict[str, Any], blocks: dict[str, Any], name: str) -> Iterator[str]:
    """What the docstrings of a block and of those inside it say, a line each."""
    text = _doc(block)
    if name and text:
        yield f"- {name}: {text}"
    for key, value in block.get("properties", {}).items():
        for option in [value, *value.get("anyOf", []), *value.get("oneOf", [])]:
            _, inner = _inner(option, blocks)
            if inner is not None and "properties" in inner and name.count(".") < 3:
                variant = inner["properties"].get("name", {}).get("const", "")
                # Of two networks within one the line is that of the network itself.
                inside = "network" if variant else f"{name.strip('`')}.{key}".strip(".")
                yield from _notes(inner, blocks, f"`{inside}`" + (f" `{variant}`" if variant else ""))


def _told(block: dict[str, Any]) -> dict[str, str]:
    """What a block's docstring says of its keys."""
    found = {}
    for names, _, lines in NumpyDocString(block.get("description", ""))["Parameters"]:
        for name in names.split(", "):
            found[name] = " ".join(lines).replace("|", "\\|")
    return found


def _type_of(value: dict[str, Any], inner: dict[str, Any] | None) -> str:
    options = value.get("anyOf") or (inner or {}).get("enum") or value.get("enum")
    if options:
        return " or ".join(item.get("type", "block") if isinstance(item, dict) else str(item) for item in options)
    return str(value.get("type", "block"))


def _detection_limits() -> Iterator[str]:
    """The table that `doseledger drill` measured."""
    yield "# Detection limits\n"
    yield "From which size on a fault in a case is seen, on the synthetic cohort (`doseledger drill --cases 3`).\n"
    with (HERE / "reference/detection-limits.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    rows.insert(1, ["---"] * len(rows[0]))
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _api() -> Iterator[str]:
    yield "# Python\n"
    for package in PACKAGES:
        yield f"## {package.__name__}\n"
        for name in dir(package):
            found = getattr(package, name)
            kind = "autoclass" if isinstance(found, type) else "autofunction"
            importlib.import_module(found.__module__)
            yield f"```{{eval-rst}}\n.. {kind}:: {found.__module__}.{name}\n```\n"
