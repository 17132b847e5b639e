"""What the documentation names exists: commands and options, paths, settings, stages, tests, links."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer

from doseledger.cli.app import GONE, RENAMED, app
from doseledger.core.files import read_yaml
from doseledger.learn.kinds import merge_block

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "generated" not in path.parts
    if path.name != "CHANGELOG.md"
)
# Messages, pages and comments that name commands to a person.
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("src", "reports/templates", "validation", "models/recipes")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".j2", ".yaml"}
)
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
    "cohorts.<cohort>",
)
# Options of Git, DVC, pytest and torchrun that pages name by themselves.
FOREIGN = {
    "--queue",
    "--temp",
    "--max-restarts",
    "--requeue",
    "--build-arg",
    "--epochs",
    "--full",
    "--nthreads",
    "--signal",
    "--slice-mm",
    "--tls-cert",
}
# Examples: what a reader's own project holds.
EXAMPLES = ("docs/experiments", "validation/cohorts/mycohort", "validation/contracts/NAME.yaml")
# A part of a path that stands for any.
ANY = re.compile(r"<[\w ]+>|\*+|…|\{[\w,. ]*\}")


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text()


@cache
def blocks(page: str) -> list[str]:
    return re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text_of(page), re.M | re.S)


@cache
def spans(page: str) -> list[str]:
    """Code within sentences."""
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.M | re.S)
    return [one or two for two, one in re.findall(r"``(.+?)``(?!`)|`([^`\n]+)`", prose)]


@cache
def code(page: str) -> list[str]:
    """Lines of code blocks, a continued line as one, and code within sentences."""
    return [line.strip() for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()] + spans(page)


def faults_of(check: Callable[[str], Iterator[str]], pages: list[str] = PAGES) -> list[str]:
    return [f"{page}: {fault}" for page in pages for fault in check(page)]


# Commands


def called(line: str) -> Iterator[list[str]]:
    """Each call of our program in a line: the words behind its name."""
    for match in re.finditer(r"(?:^|[\s/`\"'])doseledger +([a-z-][^\n]*)", line):
        words = words_of(match[1].partition("`")[0])
        if words and re.fullmatch(r"[a-z][a-z-]*|--?[a-z-]+", words[0]):
            yield words


def words_of(line: str) -> list[str]:
    line = re.sub(r"\s#.*|\s*[|>;].*|\s&&.*", "", line)
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


@cache
def program() -> Any:
    return typer.main.get_command(app)


def options_of(command: Any) -> set[str]:
    return {"--help"} | {option for p in command.params for option in (*p.opts, *p.secondary_opts)}


def fault_of_call(words: list[str]) -> str:
    """A command or an option that is not there; nothing where all are."""
    command, rest = program(), list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return "" if name == "…" else f"no command `{' '.join(words)}`"
        command = command.commands[name]
    if command.name == "watchdog":
        return fault_of_call(rest[1:])
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - options_of(command)
    return f"`{' '.join(words)}` has no {', '.join(sorted(unknown))}" if unknown else ""


def wrong_calls(page: str) -> Iterator[str]:
    for line in code(page):
        if "is gone; now:" not in line:
            yield from filter(None, (fault_of_call(words) for words in called(line)))


def test_commands_on_pages_exist_with_their_options() -> None:
    assert faults_of(wrong_calls) == []


def wrong_names(page: str) -> Iterator[str]:
    former = {name for name in (*RENAMED, *GONE) if re.search(r"[ -]", name)} | {"deidentify", "calibrate"}
    groups = {name for name, command in program().commands.items() if hasattr(command, "commands")}
    for span in spans(page):
        first, _, second = span.partition(" ")
        if span.rstrip(" …") in former or (first in groups and re.match(r"[a-z-]+( |$)", second)):
            yield from filter(None, [fault_of_call(words_of(span))])


def test_commands_named_without_the_program_exist() -> None:
    assert faults_of(wrong_names) == []


def every_option(command: Any) -> set[str]:
    below = [every_option(one) for one in getattr(command, "commands", {}).values()]
    return options_of(command).union(*below)


def wrong_options(page: str) -> Iterator[str]:
    known = every_option(program()) | FOREIGN
    for span in spans(page):
        if (named := re.match(r"--[a-z][a-z0-9-]*", span)) and named[0] not in known:
            yield named[0]


def test_options_named_without_their_command_exist() -> None:
    assert faults_of(wrong_options) == []


def calls_in_source(source: str) -> Iterator[str]:
    for line in re.findall(r"`(doseledger [a-z][^`\n{]*)|Example: (doseledger [^\n]*)", text_of(source)):
        for words in called(line[0] or line[1]):
            if source != "src/doseledger/cli/app.py" and (fault := fault_of_call(words)):
                yield fault


def test_commands_in_messages_templates_and_examples_exist() -> None:
    assert faults_of(calls_in_source, SOURCES) == []


# Paths


@cache
def kept_paths() -> str:
    """Every file that Git keeps, and every folder of these, one a line."""
    folders = ("src", "docs", "tests", "benchmarks", "validation", "models/recipes", "reports/templates", "data/raw")
    found = {path for folder in folders for path in (ROOT / folder).rglob("*")}
    below = {parent for path in found for parent in path.parents if parent.is_relative_to(ROOT)}
    return "\n".join(path.relative_to(ROOT).as_posix() for path in found | below)


@cache
def made_paths() -> list[list[str]]:
    """Outs of stages, as an expression a part."""
    pipeline = read_yaml(ROOT / "dvc.yaml")
    outs = [
        "reports/runs.html",
        "reports/drill/${cohort}/drill.json",
        "data/raw/${cohort}",
        "data/raw/${cohort}.csv",
        "data/raw/${cohort}.dvc",
    ]
    for stage in [*pipeline["stages"].values(), *read_yaml(ROOT / "data/raw/dvc.yaml")["stages"].values()]:
        for kind in ("outs", "metrics", "plots"):
            outs += [next(iter(out)) if isinstance(out, dict) else out for out in stage.get("do", stage).get(kind, [])]
    return [[re.sub(r"\\\$\\{[^}]*\\}", "[^.]+", re.escape(part)) for part in out.split("/")] for out in outs]


def is_there(path: str) -> bool:
    path = path.rstrip("/.,:;")
    if path.startswith(EXAMPLES) or path.count("{") != path.count("}"):
        return True
    wanted = "".join(re.escape(part) if k % 2 == 0 else "[^/\n]*" for k, part in enumerate(split_any(path)))
    # The page of the gates names its tests from their folder.
    if re.search(rf"^(tests/gates/)?{wanted}$", kept_paths(), re.M):
        return True
    # A place that a stage fills: below an out, or a folder above one.
    parts = path.split("/")
    return any(
        all(ANY.search(part) or re.fullmatch(piece, part) for part, piece in zip(parts, out, strict=False))
        for out in made_paths()
    )


def split_any(path: str) -> list[str]:
    """A path taken apart at what stands for any; those at odd places."""
    return re.split(f"({ANY.pattern})", path)


def wrong_paths(page: str) -> Iterator[str]:
    folders = "src|docs|tests|benchmarks|validation|models|reports|data"
    for line in code(page):
        for match in re.finditer(rf"(?<![\w./~}}…-])(?:{folders})/[\w./<>*{{}},…-]*", line):
            if not is_there(match[0]):
                yield match[0]


def test_paths_on_pages_exist_or_are_made_by_a_stage() -> None:
    assert faults_of(wrong_paths) == []


def wrong_modules(page: str) -> Iterator[str]:
    folders = (ROOT, ROOT / "src/doseledger", ROOT / "tests", ROOT / "tests/gates")
    for span in spans(page):
        named = re.match(r"(?:[\w-]+/)+[\w-]+\.py(?=$|::)", span)
        if named and not any((folder / named[0]).is_file() for folder in folders):
            yield named[0]


def test_modules_on_pages_exist() -> None:
    assert faults_of(wrong_modules) == []


def wrong_dotted_names(page: str) -> Iterator[str]:
    """Names of Python below our packages: `planning.machine.check.check_plan(plan, machine)`."""
    rooms = "|".join(path.name for path in (ROOT / "src/doseledger").iterdir() if (path / "__init__.py").is_file())
    for span in spans(page):
        named = re.match(rf"(?:doseledger\.)?((?:{rooms})(?:\.\w+)+)(?=$|\()", span)
        if not named or re.search(r"\.(?:csv|html|json|md|pdf)$", span):
            continue
        found: Any = importlib.import_module("doseledger")
        for name in named[1].split("."):
            with contextlib.suppress(ImportError):
                importlib.import_module(f"{found.__name__}.{name}") if inspect.ismodule(found) else None
            if (found := getattr(found, name, None)) is None:
                break
        # A key of the settings may begin as a package does: phantom.seed.
        if found is None and not has(settings(), named[1]):
            yield span


def test_names_of_python_on_pages_exist() -> None:
    assert faults_of(wrong_dotted_names) == []


def wrong_globs(page: str) -> Iterator[str]:
    for span in spans(page):
        if re.fullmatch(r"(?:[\w-]+/)+[\w-]*\*[\w-]*\.py", span) and not list((ROOT / "src/doseledger").glob(span)):
            yield span


def test_groups_of_modules_on_pages_exist() -> None:
    assert faults_of(wrong_globs) == []


@cache
def names_of_tests() -> set[str]:
    files = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    return {name for text in files for name in re.findall(r"^def (test_\w+)", text, re.M)}


def wrong_tests(page: str) -> Iterator[str]:
    for span in spans(page):
        if (named := re.fullmatch(r"(?:\S+::)?(test(?:_[a-z0-9]+){4,})", span)) and named[1] not in names_of_tests():
            yield named[1]
    for path in re.findall(r"\| (tests/\S+\.py) \|", text_of(page)):
        if not (ROOT / path).is_file():
            yield path


def test_tests_on_pages_exist() -> None:
    assert faults_of(wrong_tests) == []


# Settings and stages


@cache
def settings() -> dict[str, Any]:
    """All settings, with each ready-made model, every block over what all share."""
    params = read_yaml(ROOT / "params.yaml")
    both = dict(params)
    for recipe in (ROOT / "models/recipes").glob("*.yaml"):
        both |= {name: block for name, block in read_yaml(recipe).items() if name != "bases"}
    models = {name: block for name, block in both.items() if isinstance(block, dict) and "kind" in block}
    return both | {name: merge_block(params["model_base"], block) for name, block in models.items()}


def has(place: Any, name: str) -> bool:
    for key in name.split("."):
        if not isinstance(place, dict) or key not in place:
            return False
        place = place[key]
    return True


def wrong_settings(page: str) -> Iterator[str]:
    models = [block for block in settings().values() if isinstance(block, dict) and "kind" in block]
    first = {key for place in (settings(), *models) for key, value in place.items() if isinstance(value, dict)}
    named = {key for line in code(page) for key in re.findall(r"-S '?\+?([\w.]+)=", line)}
    dotted = {span for span in spans(page) if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", span)}
    # A word with a dot may be a file, or a name of Python.
    dotted = {name for name in dotted if name.split(".")[0] in first and not re.search(r"\.[a-z]{2,4}$", name)}
    for name in sorted(named | dotted):
        if not any(has(place, name) for place in (settings(), *models)):
            yield name


def test_settings_on_pages_exist() -> None:
    assert faults_of(wrong_settings) == []


def wrong_stages(page: str) -> Iterator[str]:
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    shipped = (path.name for path in (ROOT / "validation/cohorts").iterdir())
    cohorts = "|".join([*shipped, *(Path(name).name for name in EXAMPLES if "cohorts/" in name)])
    for line in code(page):
        for stage, item in re.findall(r"(?<![\w.-])([a-z_]+)@([\w<>-]+)", line):
            per_model = "model" in stages.get(stage, {}).get("matrix", {})
            form = rf"(?:{cohorts}|<cohort>)" + (r"-(?:[a-z_]+|<model>)" if per_model else "")
            is_version = re.match(r"v\d|VERSION|example", item)
            if not is_version and (stage not in stages or not re.fullmatch(form, item)):
                yield f"{stage}@{item}"


def test_stages_on_pages_exist() -> None:
    # Of what was weighed and left.
    assert faults_of(wrong_stages, [page for page in PAGES if "decisions/0004" not in page]) == []


def former_words(page: str) -> Iterator[str]:
    yield from (name for name in FORMER if name in text_of(page))


def test_nothing_former_stands_on_pages() -> None:
    assert faults_of(former_words) == []


# Form


@cache
def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def wrong_links(page: str) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        is_outside = re.match(r"[a-z]+:", link)
        if not is_outside and (not target.exists() or (anchor and anchor not in anchors_of(target))):
            yield link


def test_links_on_pages_resolve() -> None:
    assert faults_of(wrong_links) == []


def open_places(page: str) -> Iterator[str]:
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.M | re.S)
    yield from re.findall(r"^[A-Z_ ]{4,}$|\b(?:TODO|FIXME|TBD|XXX)\b", prose, re.M)


def test_no_page_has_a_place_that_was_to_be_filled() -> None:
    assert faults_of(open_places) == []


def greedy_adds(page: str) -> Iterator[str]:
    yield from re.findall(r"git add (?:--all|-A\b|\.(?!\w))", text_of(page))


def test_no_page_adds_all_files_to_git() -> None:
    assert faults_of(greedy_adds) == []


def left_uncommitted(page: str) -> Iterator[str]:
    """Raw cases that a reader packs and does not commit: what is trained on them says that its tree was dirty."""
    for block in blocks(page):
        added = re.findall(r"raw pack .*--cohort (\w+)(?!.*#.*for the pipeline)", block)
        kept = "git commit" in block.partition("dvc add data/raw/")[2]
        yield from (cohort for cohort in added if not kept)


def test_whoever_packs_raw_cases_commits_them() -> None:
    assert faults_of(left_uncommitted) == []


def wide_lines(page: str) -> Iterator[str]:
    yield from (line for block in blocks(page) for line in block.splitlines() if len(line) > 100)


def test_code_on_pages_is_at_most_100_columns_wide() -> None:
    assert faults_of(wide_lines) == []


def test_every_page_is_listed() -> None:
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/") and page != "docs/README.md"]
    assert [page for page in pages if f"({page})" not in text_of("docs/README.md")] == []


# What lines of blocks begin with that are not ours, and why no test runs them as they stand.
NOT_OURS = {
    "dvc": "its stages run in tests/test_pipeline.py and tests/test_end_to_end.py",
    "git": "needs the reader's own repository and remote",
    "make": "its recipes run in CI (.github/workflows/ci.yml)",
    "pytest": "validation runs in tests/test_end_to_end.py",
    "cd": "the reader's own folder",
    "source": "the reader's own environment",
    "pip": "the network",
    "python": "a benchmark or a script of minutes",
    "gto": "the registry's tests call it",
    "torchrun": "tests/learn/training/test_ranks.py starts processes so",
    "srun": "SLURM", "sbatch": "SLURM", "export": "the reader's own environment", "env": "the reader's own environment",
    "rm": "the reader's own files", "cp": "the reader's own files", "mkdir": "the reader's own files",
    "tensorboard": "a logger that is not installed here", "mlflow": "a logger that is not installed here",
    "dask": "the scale tests start a scheduler of their own", "sudo": "root on the reader's own machine",
    "trap": "SLURM", "wait": "SLURM", "set": "SLURM", "clone": "SLURM", "[": "SLURM",
    "python3": "the reader's own environment", "docker": "a container", "apptainer": "a container",
    "printf": "damage on purpose, as tests/ledger do", "sed": "damage on purpose, as tests/ledger do",
    "dciodvfy": "tests/deliver/test_dose.py runs it", "for": "a loop over what is tested by itself",
}  # fmt: skip


def shell_lines(page: str) -> Iterator[str]:
    for block in re.findall(r"^ *```(?:bash|sh)\n(.*?)^ *```", text_of(page), re.M | re.S):
        block = re.sub(r"<<'(\w+)'.*?^\1$", "", block.replace("\\\n", " "), flags=re.M | re.S)
        yield from (line.strip() for line in block.splitlines() if line.strip() and not line.strip().startswith("#"))


def refused_calls(page: str) -> Iterator[str]:
    """Calls in command blocks that the command line would not take: a missing argument, a wrong type."""
    for line in shell_lines(page):
        for words in called(line):
            command, rest = program(), [word.strip('"') for word in words]
            while rest and hasattr(command, "commands"):
                command = command.commands.get(rest.pop(0), command)
            open_ended = any(mark in line for mark in ("…", "<", "--help", "--install-completion"))
            if open_ended or command is program():
                continue
            try:
                command.make_context(command.name, rest)
            except Exception as error:
                yield f"{line}: {error}"


def test_every_documented_call_is_one_that_the_program_takes() -> None:
    assert sum(1 for page in PAGES for line in shell_lines(page) for _ in called(line)) > 60
    assert faults_of(refused_calls) == []


def unknown_lines(page: str) -> Iterator[str]:
    for line in shell_lines(page):
        first = re.sub(r"^(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:time )?", "", line).split()[0].partition("=")[0]
        if first.rpartition("/")[2] not in {"doseledger", *NOT_OURS}:
            yield line


def test_every_line_of_a_command_block_is_tried_or_has_a_reason() -> None:
    assert faults_of(unknown_lines) == []
