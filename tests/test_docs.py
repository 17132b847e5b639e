"""What the documentation names exists: commands and options, paths, settings, stages, links."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from doseledger.cli.app import GONE, RENAMED, app
from doseledger.core.files import read_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if path.name != "CHANGELOG.md"
)
# Where commands are named to a person besides.
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("src", "reports/templates", "validation", "models/recipes", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".j2", ".yaml", ".cpp"}
)
# Kept by Git as they are: what is named below these is there.
KEPT = ("src", "docs", "tests", "benchmarks", "validation", "models/recipes", "reports/templates")
# Folders that stages fill.
MADE = ("data", "models", "reports")
# Former stages, settings and places.
FORMER = (
    "check_metrics",
    "check_shortcuts",
    "check_drift",
    "diffusion_models",
    "diffusion_base",
    "validation/protocols",
    "validation/suites",
    "validation/goals",
    "validation/test_sets",
    "validation/thresholds.yaml",
    "learn/recipes",
    "cohorts.<cohort>",
)
# One name, when it stands for any.
ANY = re.compile(r"<[\w ]+>|\*+|…|\{[\w,. ]*\}")


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def fenced(page: str) -> list[str]:
    """Lines of code blocks, a continued line in one."""
    blocks = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text_of(page), re.M | re.S)
    indented = re.findall(r"(?:^ {4}\S.*\n)+", re.sub(r"```.*?```", "", text_of(page), flags=re.S), re.M)
    return [line.strip() for block in blocks + indented for line in block.replace("\\\n", " ").splitlines()]


def spans(page: str) -> list[str]:
    """Code within sentences."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.M | re.S))


def code(page: str) -> list[str]:
    return fenced(page) + spans(page)


def words_of(line: str) -> list[str]:
    line = re.sub(r" #.*| *[|>;].*| &&.*", "", line)
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def called(line: str) -> Iterator[list[str]]:
    """Each call of our program in a line: the words behind its name."""
    for match in re.finditer(r"(?:^|[\s/`\"'])doseledger((?: +[\w.@=/\[<-][^\n]*)?)", line):
        words = words_of(match[1])
        if words and re.fullmatch(r"[a-z][a-z-]*|--?[a-z-]+", words[0]):
            yield words


def fault_of_call(words: list[str]) -> str:
    """What is wrong with a call: a command or an option that is not there."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if rest[0] in {"…", "VERB"}:
            return ""
        if rest[0] not in command.commands:
            return f"no command {' '.join(words[: len(words) - len(rest) + 1])}"
        command = command.commands[rest.pop(0)]
    if command.name == "watchdog":
        return fault_of_call(rest[1:])
    known = {"--help"} | {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    unknown = [word for word in rest if word.startswith("--") and word.split("=")[0] not in known]
    return f"{' '.join(words)}: no option {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_a_page_exist_with_their_options(page: str) -> None:
    faults = [fault_of_call(words) for line in code(page) for words in called(line)]
    assert [fault for fault in faults if fault] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_calls_no_command_by_a_former_name(page: str) -> None:
    former = {name for name in (*RENAMED, *GONE) if re.search(r"[ -]", name)} | {"deidentify"}
    assert [s for s in spans(page) if s.rstrip(" …") in former] == []


def test_commands_named_in_messages_and_pages_exist() -> None:
    faults = []
    for source in SOURCES:
        for line in re.findall(r"`(doseledger [a-z][^`\n{]*)|Example: (doseledger [^\n]*)", text_of(source)):
            for words in called(next(filter(None, line))):
                if words[0] not in RENAMED and (fault := fault_of_call(words)):
                    faults.append(f"{source}: {fault}")
    assert faults == []


@cache
def tracked_paths() -> list[str]:
    found = []
    for folder in (*KEPT, "data/raw", ".ci", "models", "reports"):
        for path, _, files in os.walk(ROOT / folder):
            found += [Path(path, file).relative_to(ROOT).as_posix() for file in files]
    return found


@cache
def made_paths() -> list[str]:
    """Outs of stages, as expressions."""
    pipeline = read_yaml(ROOT / "dvc.yaml")
    outs: list[str] = []
    for stage in [*pipeline["stages"].values(), *read_yaml(ROOT / "data/raw/dvc.yaml")["stages"].values()]:
        stage = stage.get("do", stage)
        for kind in ("outs", "metrics", "plots"):
            outs += [next(iter(out)) if isinstance(out, dict) else out for out in stage.get(kind, [])]
    outs += [f"data/raw/{end}" for end in ("${cohort}", "${cohort}.csv", "${cohort}.dvc")]
    outs += ["reports/runs.html", *map(str, pipeline["metrics"])]
    return [re.sub(r"\$\{[^}]*\}", "[^/]+", out) for out in outs]


def is_there(path: str) -> bool:
    path = path.removeprefix("./").rstrip("/.,:;")
    if path in MADE:
        return True
    wanted = re.compile(ANY.sub("[^/]*", re.escape(path).replace(r"\*", "*").replace(r"\{", "{").replace(r"\}", "}")))
    if any(wanted.match(kept) for kept in tracked_paths() if re.match(wanted.pattern + "(/|$)", kept)):
        return True
    if not path.startswith(MADE):
        return False
    # A place that a stage fills: below an out, or a folder above one.
    parts = path.split("/")
    for out in made_paths():
        pattern = out.split("/[^/]+")[0].split("/") if False else re.split(r"/(?!\])", out)
        pairs = list(zip(parts, pattern, strict=False))
        if all(ANY.search(part) or re.fullmatch(piece, part) for part, piece in pairs):
            return True
    return False


def paths_in(line: str) -> Iterator[str]:
    start = "|".join(re.escape(folder) for folder in ("src/", "docs/", "tests/", "benchmarks/", "validation/", "models/"))
    pattern = rf"(?<![\w./-])(?:{start}|reports/|data/)[\w./<>*{{}},…-]*"
    for match in re.finditer(pattern, line):
        if not line[: match.start()].endswith(("~/", "}/", "… ")):
            yield match[0]


@pytest.mark.parametrize("page", PAGES)
def test_paths_on_a_page_exist_or_are_made_by_a_stage(page: str) -> None:
    assert [path for line in code(page) for path in paths_in(line) if not is_there(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_on_a_page_exist(page: str) -> None:
    folders = (ROOT, ROOT / "src/doseledger", ROOT / "tests")
    named = {m for span in spans(page) for m in re.findall(r"^(?:[\w-]+/)+[\w-]+\.py(?=$|::)", span)}
    assert sorted(name for name in named if not any((folder / name).is_file() for folder in folders)) == []


@cache
def settings() -> dict[str, Any]:
    """All settings, each ready-made model in it."""
    params = read_yaml(ROOT / "params.yaml")
    blocks = {k: v for k, v in params.items() if isinstance(v, dict) and "kind" in v}
    for recipe in (ROOT / "models/recipes").glob("*.yaml"):
        blocks |= {k: v for k, v in read_yaml(recipe).items() if k != "bases"}
    merged = {name: merge(params["model_base"], block) for name, block in blocks.items()}
    return params | merged


def merge(base: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in block.items():
        both[key] = merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return both


def is_setting(name: str) -> bool:
    """Whether params.yaml, or a model's block by itself, has this key."""
    models = [block for block in settings().values() if isinstance(block, dict) and "kind" in block]
    for place in [settings(), *models]:
        for key in name.split("."):
            if not isinstance(place, dict) or key not in place:
                break
            place = place[key]
        else:
            return True
    return False


@pytest.mark.parametrize("page", PAGES)
def test_settings_on_a_page_exist(page: str) -> None:
    named = {key for line in code(page) for key in re.findall(r"-S '?([\w.]+)=", line)}
    first = {key for key, value in settings().items() if isinstance(value, dict)}
    first |= {key for block in first for key, value in settings()[block].items() if isinstance(value, dict)}
    dotted = {s for s in spans(page) if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", s) and s.split(".")[0] in first}
    dotted = {name for name in dotted if not re.search(r"\.(py|yaml|json|csv|md|html|pdf|npz|ckpt|toml|log)$", name)}
    assert sorted(name for name in named | dotted if not is_setting(name)) == []


@pytest.mark.parametrize("page", PAGES)
def test_stages_on_a_page_exist(page: str) -> None:
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    cohorts = "|".join(path.name for path in (ROOT / "validation/cohorts").iterdir())
    faults = []
    for line in code(page):
        for stage, item in re.findall(r"(?<![\w.-])([a-z_]+)@([\w<>-]+)(?![\w.<>-]*@)", line):
            if re.match(r"v\d|example", item):
                continue
            per_model = "model" in stages.get(stage, {}).get("matrix", {})
            form = rf"(?:{cohorts}|<cohort>)" + (r"-(?:[a-z_]+|<model>)" if per_model else "")
            if stage not in stages or not re.fullmatch(form, item):
                faults.append(f"{stage}@{item}")
    assert faults == []


@pytest.mark.parametrize("page", PAGES)
def test_nothing_former_stands_on_a_page(page: str) -> None:
    assert [name for name in FORMER if name in text_of(page)] == []


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_on_a_page_resolve(page: str) -> None:
    faults = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            faults.append(link)
    assert faults == []


@pytest.mark.parametrize("page", PAGES)
def test_no_page_adds_all_files_to_git(page: str) -> None:
    assert re.findall(r"git add (?:--all|-A\b|\.(?!\w))", text_of(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_code_on_a_page_is_at_most_100_columns_wide(page: str) -> None:
    blocks = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text_of(page), re.M | re.S)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 100] == []


def test_every_page_is_listed() -> None:
    listed = text_of("docs/README.md")
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/") and page != "docs/README.md"]
    assert [page for page in pages if f"({page})" not in listed] == []
