"""Options and helpers that several commands share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doseledger.cli.progress import tell as tell
from doseledger.core.errors import DoseledgerError

if TYPE_CHECKING:
    from doseledger.core.pool.cluster import Scale
    from doseledger.core.project.layout import Layout, VerdictPaths
    from doseledger.core.settings import Settings
    from doseledger.core.text.sheet import State, Table
    from doseledger.gates.verdict import Verdict

# Groups of commands in --help.
START, DATA, GATES, MODEL = "Start", "Data", "Gates", "Model"
JUDGE, REPORT, RECORD = "Judge", "Report", "Record"


def complete_models(incomplete: str) -> list[str]:
    """Models of the project at work, for the shell's completion; none outside a project."""
    return _complete(lambda: project().settings.models, incomplete)


def complete_cohorts(incomplete: str) -> list[str]:
    """Cohorts of the project at work, for the shell's completion."""
    return _complete(lambda: sorted(path.name for path in project().layout.cohorts.iterdir()), incomplete)


def complete_versions(incomplete: str) -> list[str]:
    """Registered versions of the project at work, for the shell's completion."""

    def names() -> list[str]:
        from doseledger.core.project.layout import find_root
        from doseledger.ledger.registry.tag import read_versions

        return [version.name for version in read_versions(find_root())]

    return _complete(names, incomplete)


def _complete(names: Callable[[], list[str]], incomplete: str) -> list[str]:
    """Return the names that begin so; none where they can't be read: a shell that completes shows no error."""
    try:
        return [name for name in names() if name.startswith(incomplete)]
    except (DoseledgerError, OSError):
        return []


Model = Annotated[str, typer.Argument(help="A name of `models` in the settings.", autocompletion=complete_models)]
Cohort = Annotated[str | None, typer.Option(help="Another cohort than the settings'.", autocompletion=complete_cohorts)]
ScaleAt = Annotated[
    str | None, typer.Option("--scale", help="here, local:4, dask:ADDRESS, slurm:20; else the settings'.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Machine = Annotated[Path | None, typer.Option(help="Machine: generic, tissue, or its YAML.")]
Protocol = Annotated[Path | None, typer.Option(help="Another protocol than the cohort's.")]


@dataclass(frozen=True)
class Project:
    """The project at work: where the files of one cohort lie, and the settings."""

    layout: Layout
    settings: Settings


def project(cohort: str | None = None) -> Project:
    """Return the project that the working folder belongs to, and the cohort that was asked for or is set.

    Raises
    ------
    NotReady
        If there is no project here or above.
    BadInput
        If its settings can't be read.
    """
    from doseledger.core.project.layout import Layout, find_root
    from doseledger.core.settings import load_settings

    layout = Layout(find_root(), cohort or "")
    settings = load_settings(layout.params)
    return Project(Layout(layout.root, cohort or settings.cohort), settings)


def stage(name: str, cohort: str | None, model: str | None = None) -> Project:
    """Return the project, after making sure that what a stage depends on says what holds now.

    Raises
    ------
    NotReady
        If the files of its code and settings are absent or stale: what it made would be recorded under others. Also
        if a table, a verdict or weights that it reads are not what dvc.lock records of the stage that made them.
    """
    from doseledger.ledger.provenance.outs import READS, require_recorded
    from doseledger.ledger.provenance.stages import require_stage

    at = project(cohort)
    require_stage(at.layout, at.settings, name, model)
    require_recorded(at.layout.root, READS.get(name, ()), at.layout.cohort, model)
    return at


def show(value: Any, as_json: bool, text: str) -> None:
    """Print a result, as JSON or as text; long lines of text are folded on a terminal."""
    if as_json:
        from doseledger.core.files import to_json

        print(to_json(value), end="")
    else:
        from doseledger.core.text.sheet import folded

        print(folded(text, line_width()))


def in_colour() -> bool:
    """Return whether what is printed is coloured: on a terminal whose user has not asked for none (NO_COLOR)."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def line_width() -> int | None:
    """Return how many letters a line of the terminal holds; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def drawn(table: Table) -> str:
    """Return a table for the terminal: as wide as its line, states in colour; plain where there is none."""
    from doseledger.core.text.sheet import as_text

    return as_text(table, colour=in_colour(), width=line_width())


def painted(word: str, state: State) -> str:
    """Return a word in the colour of its state on a terminal; it says the same without."""
    from doseledger.core.text.sheet import coloured

    return coloured(word, state, colour=in_colour())


def show_table(value: Any, as_json: bool, table: Table, last: str = "") -> None:
    """Print a result, as JSON or as a table with a last line; states are coloured on a terminal, and words always."""
    show(value, as_json, f"{drawn(table)}{last}".rstrip())


def network_scale(settings: Settings, words: str | None) -> Scale:
    """Return where a network works: in this process for `local`, unless asked for, as torch takes all cores itself."""
    from doseledger.core.pool.cluster import HERE

    chosen = settings.scale.asked(words)
    return HERE if words is None and chosen.pool == "local" else chosen


def write_verdict_of(verdict: Verdict, paths: VerdictPaths, as_json: bool) -> None:
    """Write a verdict's two files and show it."""
    from doseledger.gates.verdict import write_verdict

    write_verdict(verdict, paths)
    show_verdict(verdict, as_json)


def show_verdict(verdict: Verdict, as_json: bool) -> None:
    """Print a verdict, with its warnings."""
    from doseledger.gates.verdict import verdict_as_json

    warnings = [
        f"{painted('warning', 'warn')}: [{item.gate}] {item.message}"
        for item in verdict.findings
        if item.severity == "warning"
    ]
    word = f"the {verdict.gate} gate {painted('passed', 'good') if verdict.ok else painted('failed', 'bad')}"
    show(verdict_as_json(verdict), as_json, "\n".join([*describe_standing(verdict), *warnings, word]))


def describe_standing(verdict: Verdict) -> list[str]:
    """Return a model's results as a sentence, and its badge with the reasons; nothing for another gate's verdict."""
    from doseledger.gates.model.standing import BADGE_STATES, read_standing
    from doseledger.gates.verdict import verdict_as_json

    standing = read_standing(verdict_as_json(verdict))
    if standing is None:
        return []
    badge = painted(standing.badge, BADGE_STATES[standing.state])
    return [standing.sentence, badge, *(f"  - {reason}" for reason in standing.reasons)]
