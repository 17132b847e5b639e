"""What several commands share: their options, the settings, and how results and verdicts leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doseledger.core.errors import BadInput

if TYPE_CHECKING:
    from doseledger.core.protocol import GoalSet, Protocol
    from doseledger.core.settings import CohortSettings, Settings
    from doseledger.gates.digests import CohortFiles
    from doseledger.gates.limits import Thresholds as Limits
    from doseledger.gates.verdict import Verdict
    from doseledger.learn.recipes.dose import CommonRecipe
    from doseledger.learn.run import Family, TrainingRun

Params = Annotated[Path, typer.Option(help="The settings file.")]
Workers = Annotated[int | None, typer.Option(help="Processes; 0 works in this one. Default: the settings'.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Cohort = Annotated[str, typer.Option(help="A key of `cohorts` in the settings.")]
Protocols = Annotated[Path, typer.Option(help="Folder of protocols.")]
Cases = Annotated[Path, typer.Option(help="Folder of cases (NPZ, cases.csv, skipped.csv).")]
Splits = Annotated[Path, typer.Option(help="Table of splits.")]
Suites = Annotated[Path, typer.Option(help="Folder of suites of expectations.")]
Thresholds = Annotated[Path, typer.Option(help="The limits.")]
Lock = Annotated[Path, typer.Option(help="The locked test set; a header alone means unlocked.")]
Goals = Annotated[Path, typer.Option(help="Folder of clinical goals.")]
Templates = Annotated[Path, typer.Option(help="Folder of templates.")]
Devices = Annotated[int | None, typer.Option(help="Processes, one a GPU. Default: the settings'.", min=1)]
Nodes = Annotated[int | None, typer.Option(help="Machines. Default: the settings'.", min=1)]
DataToken = Annotated[Path, typer.Option(help="The data gate's verdict on exactly these cases and splits.")]
Token = Annotated[Path | None, typer.Option(help="Verdict {ok, digest} to write, with --findings.")]
Findings = Annotated[Path | None, typer.Option(help="Findings to write, with --token.")]
RunsPage = Annotated[Path | None, typer.Option(help="Page of all runs to write anew, with --templates.")]
RunsTemplates = Annotated[Path | None, typer.Option(help="Folder of templates, with --runs-page.")]
PARAMS = Path("params.yaml")


def tell(line: str) -> None:
    """Print a line of progress to stderr: stdout holds a command's result alone, whole JSON with --json."""
    print(line, file=sys.stderr, flush=True)


def show(value: Any, as_json: bool, text: str) -> None:
    """Print a result, as JSON or as text."""
    if as_json:
        from doseledger.core.files import to_json

        print(to_json(value), end="")
    else:
        print(text)


def need_both(one: object, other: object, names: str) -> None:
    """Do nothing if two options were both given, or neither.

    Raises
    ------
    BadInput
        If one was given alone: what it asks for would silently not be done.
    """
    if (one is None) != (other is None):
        raise BadInput(f"{names} go together: give both, or neither")


def settings_of(params: Path) -> Settings:
    """Return the settings of a file."""
    from doseledger.core.settings import load_settings

    return load_settings(params)


def workers_of(settings: Settings, workers: int | None) -> int:
    """Return how many processes a command works in: as many as it was told, else the settings'."""
    return settings.ingest.workers if workers is None else workers


def cohort_of(settings: Settings, cohort: str) -> CohortSettings:
    """Return a cohort's block; a name that the settings do not hold is refused."""
    if cohort not in settings.cohorts:
        raise BadInput(f"cohort {cohort!r} is not in the settings' cohorts: {', '.join(settings.cohorts)}")
    return settings.cohorts[cohort]


def protocol_of(settings: Settings, cohort: str, protocols: Path) -> Protocol:
    """Return the protocol that the settings name for a cohort."""
    from doseledger.core.protocol import load_protocol

    return load_protocol(protocols / f"{cohort_of(settings, cohort).protocol}.yaml")


def goals_of(settings: Settings, cohort: str, goals: Path) -> GoalSet:
    """Return the clinical goals that the settings name for a cohort."""
    from doseledger.core.protocol import load_goals

    return load_goals(goals / f"{cohort_of(settings, cohort).goals}.yaml")


def project_root() -> Path:
    """Return the main repository's folder, in temporary and queued runs too."""
    # Where an interrupted run's state lies: DVC_ROOT is the main repository in temporary and queued runs too, whose own
    # folder is thrown away. What describes the code, the commit above all, is that of the working folder instead.
    return Path(os.environ.get("DVC_ROOT", "."))


def cohort_files(settings: Settings, cohort: str, cases: Path, splits: Path, limits: tuple[Path, ...]) -> CohortFiles:
    """Return what the data gate judges and by what; `limits`: protocols, suites, thresholds and lock."""
    from doseledger.gates.digests import CohortFiles

    protocols, suites, thresholds, lock = limits
    protocol = cohort_of(settings, cohort).protocol
    return CohortFiles(
        cases_dir=cases,
        splits_csv=splits,
        test_set_csv=lock,
        protocol=protocols / f"{protocol}.yaml",
        suite=suites / f"{protocol}.json",
        thresholds=thresholds,
        cohort=cohort,
    )


def training_run(settings: Settings, model: str, params: Path, data_token: Path) -> TrainingRun:
    """Return a dose model's training as the settings and the data gate's verdict make it."""
    from doseledger.learn.families.dose import DOSE
    from doseledger.learn.recipes.dose import load_recipe

    return make_run(settings, model, load_recipe(settings.model(model), f"{params}: {model}"), DOSE, data_token)


def make_run(settings: Settings, model: str, recipe: CommonRecipe, family: Family, data_token: Path) -> TrainingRun:
    """Return a training of any family as the settings and the data gate's verdict make it."""
    from doseledger.core.files import read_json
    from doseledger.learn.run import TrainingRun
    from doseledger.ledger.provenance.stamp import run_provenance

    return TrainingRun(
        model=model,
        recipe=recipe,
        lr=settings.lr,
        seed=settings.seed,
        fold=settings.fold,
        repeat=settings.repeat,
        token=read_json(data_token),
        provenance=run_provenance(Path.cwd(), sys.argv, Path("requirements.lock")),
        family=family,
        devices=settings.train.devices,
        nodes=settings.train.nodes,
    )


def judged_run(
    files: CohortFiles, data_token: Path, preflight_token: Path, make: Callable[[], TrainingRun]
) -> tuple[TrainingRun, Limits]:
    """Return a training that both gates before it have passed, and the limits.

    Parameters
    ----------
    files
        What the data gate judges.
    data_token, preflight_token
        The verdicts of both gates.
    make
        Makes the training; it is called once the data gate's verdict is known to be about these data.

    Raises
    ------
    NotReady
        If a gate has not judged, or judged something else.
    GateFailed
        If a gate said no.
    """
    from doseledger.gates.digests import data_digest
    from doseledger.gates.limits import load_thresholds
    from doseledger.gates.run_digest import run_digest
    from doseledger.gates.verdict import require_token

    require_token(data_token, data_digest(files), "data")
    run, limits = make(), load_thresholds(files.thresholds)
    require_token(preflight_token, run_digest(run, files.splits_csv, limits.preflight), "preflight")
    return run, limits


def deliver(verdict: Verdict, token: Path | None, findings: Path | None, as_json: bool) -> None:
    """Write a verdict's two files, show it, and refuse to go on if it failed."""
    from doseledger.gates.verdict import enforce, verdict_as_json, write_verdict

    if token is not None and findings is not None:
        write_verdict(verdict, token, findings)
    elif token is not None or findings is not None:
        raise BadInput("a verdict's two files are written together: give both --token and --findings, or neither")
    warnings = [f"warning: [{item.gate}] {item.message}" for item in verdict.findings if item.severity == "warning"]
    passed = f"the {verdict.gate} gate passed" if verdict.ok else f"the {verdict.gate} gate failed"
    show(verdict_as_json(verdict), as_json, "\n".join([*warnings, passed]))
    enforce(verdict, findings)
