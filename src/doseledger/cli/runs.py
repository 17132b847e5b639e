"""Runs: the checklist of one, its archive, and the index of all."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doseledger.cli.audited import audit_log, audited
from doseledger.cli.shared import (
    PARAMS,
    Json,
    Params,
    Templates,
    goals_of,
    project_root,
    protocol_of,
    settings_of,
    show,
    tell,
)
from doseledger.core.errors import BadInput, DoseledgerError, GateFailed

if TYPE_CHECKING:
    from doseledger.core.settings import Settings
    from doseledger.gates.verdict import Verdict
    from doseledger.ledger.runs.files import RunFiles
    from doseledger.ledger.runs.recompute import Recompute
    from doseledger.ledger.runs.rows import RunRow

app = typer.Typer()
runs_app = typer.Typer(no_args_is_help=True, help="Is a run whole and honest, where are all runs, which is best.")
app.add_typer(runs_app, name="runs")

# Below the project's root, left alone by Git and DVC: what interrupted trainings left, and what was read of commits.
STATES = Path(".doseledger/resume")
STORE = Path(".doseledger/runs.json")

Where = Annotated[str, typer.Option(help="Only runs for which this holds: \"mae_gy < 3 and model == 'dose_unet'\".")]
Sort = Annotated[str, typer.Option(help="Column to sort by; the newest come first without it.")]
Descending = Annotated[bool, typer.Option("--descending", help="With --sort: the largest first.")]
Metric = Annotated[list[str] | None, typer.Option(help="Metric to show; can be given several times.")]
Archives = Annotated[list[Path] | None, typer.Option(help="Folder of archived runs; can be given several times.")]
Form = Annotated[str, typer.Option("--format", help="table, markdown, csv or json.")]


@runs_app.command("check")
@audited("runs check", inputs=("cases", "params"), reads="test, as many as --recompute says")
def check(
    target: Annotated[
        str | None, typer.Argument(help="A model, or the folder of an archived run; every model without it.")
    ] = None,
    recompute: Annotated[
        str,
        typer.Option(help="How many cases to measure again from their predictions, the worst first: 0, 1 … or all."),
    ] = "0",
    cases: Annotated[Path | None, typer.Option(help="Folder of cases; the pipeline's own without it.")] = None,
    protocols: Annotated[Path | None, typer.Option(help="Folder of protocols, with --recompute.")] = None,
    goals: Annotated[Path | None, typer.Option(help="Folder of clinical goals, with --recompute.")] = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Go through the checklist of a run: files, settings, epochs, metrics, checkpoints, verdicts, code.

    Exit 1 if a point of it is not met.

    Example: doseledger runs check dose_unet --recompute 1 --protocols validation/protocols --goals validation/goals
    """
    from doseledger.gates.verdict import verdict_as_json
    from doseledger.ledger.runs.check import check_run
    from doseledger.ledger.runs.files import pipeline_models

    verdicts = {}
    for name in [target] if target is not None else pipeline_models(Path.cwd()):
        files = _files_of(name)
        again = None
        if recompute != "0":
            again = _recompute(recompute, cases, (protocols, goals), settings_of(params), files)
        verdicts[name] = check_run(files, recompute=again)
    values = {name: verdict_as_json(verdict) for name, verdict in verdicts.items()}
    text = "\n".join(line for verdict in verdicts.values() for line in _checklist(verdict))
    show(values[target] if target is not None else values, as_json, text)
    failed = [_points_failed(verdict) for verdict in verdicts.values() if not verdict.ok]
    if failed:
        raise GateFailed(f"a run is not what it should be ({'; '.join(failed)})")


@runs_app.command("archive")
@audited("runs archive")
def archive(
    model: Annotated[str, typer.Argument(help="A model of the pipeline.")],
    target: Annotated[Path, typer.Argument(help="Folder that gets run_YYYYMMDD_HHMMSS.")],
    examples: Annotated[
        int, typer.Option(help="How many predicted doses go along: best, worst, then others.", min=0)
    ] = 3,
    as_json: Json = False,
) -> None:
    """Copy a complete run out of the pipeline, with its report, verdicts, checklist and a manifest of every byte.

    Example: doseledger runs archive dose_unet ../archive
    """
    from datetime import UTC, datetime

    from doseledger.ledger.audit.anchors import anchor_values
    from doseledger.ledger.audit.recording import note_fact
    from doseledger.ledger.runs.archive import archive_run, example_cases
    from doseledger.ledger.runs.check import check_run

    files = _files_of(model)
    verdict = check_run(files)
    for finding in verdict.errors:
        tell(f"checklist: [{finding.gate}] {finding.message}")
    chosen = example_cases(files, examples)
    anchor = anchor_values(audit_log())
    folder = archive_run(files, verdict, target, when=datetime.now(UTC), examples=chosen, audit=anchor)
    note_fact("archived", str(folder))
    notes = "" if verdict.ok else f"; its checklist has {len(verdict.errors)} error(s), which the manifest holds"
    show({"folder": str(folder), "ok": verdict.ok, "examples": chosen}, as_json, f"archived in {folder}{notes}")


@runs_app.command("list")
def list_all(
    where: Where = "",
    sort: Sort = "",
    descending: Descending = False,
    metric: Metric = None,
    archives: Archives = None,
    form: Form = "table",
    columns: Annotated[bool, typer.Option("--columns", help="Only the names that --where and --sort know.")] = False,
) -> None:
    """List every run: of the workspace, of Git revisions, DVC experiments and archives, each once.

    Example: doseledger runs list --where "mae_gy < 3 and model == 'dose_unet'" --sort mae_gy
    """
    from doseledger.ledger.runs.tables import known_columns, select_runs

    rows = gather(archives)
    if columns:
        print("\n".join(sorted(known_columns(rows))))
        return
    _print_runs(select_runs(rows, where=where, sort=sort, descending=descending), metric, form)


@runs_app.command("search")
def search(
    words: Annotated[list[str], typer.Argument(help="Each must occur: in id, place, note, or a setting as lr=0.001.")],
    where: Where = "",
    sort: Sort = "",
    descending: Descending = False,
    metric: Metric = None,
    archives: Archives = None,
    form: Form = "table",
) -> None:
    """Find runs by words.

    Example: doseledger runs search lr=0.001 dose_unet
    """
    from doseledger.ledger.runs.tables import select_runs

    rows = gather(archives)
    _print_runs(select_runs(rows, where=where, words=words, sort=sort, descending=descending), metric, form)


@runs_app.command("compare")
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more: ids, tags, branches, experiments, archived folders.")],
    every_metric: Annotated[
        bool, typer.Option("--all", help="With the ends of intervals and the worst cases.")
    ] = False,
    archives: Archives = None,
    form: Form = "table",
) -> None:
    """Put runs side by side: every setting that differs, and the metrics with the step from the first.

    Example: doseledger runs compare main workspace
    """
    from doseledger.ledger.runs.tables import comparison_table, find_run, format_runs

    rows = gather(archives)
    if len(runs) < 2:
        raise BadInput(f"found one run to compare ({runs[0]}), wanted two or more")
    chosen = [find_run(rows, name) for name in runs]
    table = comparison_table(chosen, every_metric=every_metric)
    print(format_runs(chosen, table, _form(form), colour=_colour()), end="")


@runs_app.command("index")
def index(
    page: Annotated[Path, typer.Argument(help="HTML page to write, from the main repository's root.")],
    templates: Templates,
    archives: Archives = None,
) -> None:
    """Write the page of all runs; within a stage of an experiment it names that too, which DVC saves only later.

    Example: doseledger runs index reports/runs.html --templates reports/templates
    """
    print(f"{refresh_page(page, templates, archives)} runs in {page}")


def refresh_page(page: Path, templates: Path, archives: list[Path] | None = None) -> int:
    """Write the page of all runs, below the main repository's root, and return how many it shows."""
    from doseledger.ledger.runs.index import rows_of_experiment_at_work
    from doseledger.ledger.runs.rows import merge_rows
    from doseledger.report.runs import write_index

    rows = gather(archives)
    experiment = os.environ.get("DVC_EXP_NAME")
    if experiment:
        rows = merge_rows([*rows, *rows_of_experiment_at_work(Path.cwd(), experiment)])
    write_index(rows, project_root() / page, templates, project_root())
    return len(rows)


def refresh_runs(page: Path | None, templates: Path | None) -> None:
    """Write the page of all runs where a stage asks for it; no gate fails because that can't be done."""
    if page is None or templates is None:
        return
    try:
        tell(f"{refresh_page(page, templates)} runs in {page}")
    except DoseledgerError as error:
        tell(f"warning: {page} was not written: {error}")


def _files_of(target: str) -> RunFiles:
    from doseledger.ledger.runs.files import MANIFEST, files_of_archive, files_of_pipeline

    root = Path.cwd()
    folder = Path(target)
    if (folder / MANIFEST).is_file() or (folder.is_dir() and folder.name.startswith("run_")):
        return files_of_archive(folder, root if (root / ".git").exists() else None)
    return files_of_pipeline(root, target)


def _recompute(
    how_many: str, cases: Path | None, folders: tuple[Path | None, Path | None], settings: Settings, files: RunFiles
) -> Recompute:
    from doseledger.evaluate.case import Yardsticks
    from doseledger.ledger.runs.recompute import Recompute

    if how_many != "all" and not how_many.isdigit():
        raise BadInput(f"--recompute {how_many}: wanted a number of cases, or all")
    protocols, goals = folders
    where = cases or files.cases
    if protocols is None or goals is None or where is None or files.predictions is None:
        raise BadInput("--recompute needs --protocols and --goals; for an archived run --cases as well")
    yardsticks = Yardsticks(
        protocol_of(settings, files.cohort, protocols), goals_of(settings, files.cohort, goals), settings.evaluate
    )
    return Recompute(where, files.predictions, yardsticks, None if how_many == "all" else int(how_many))


def _points_failed(verdict: Verdict) -> str:
    names = [point["check"] for point in verdict.details["checks"] if not point["ok"]]
    return f"{verdict.details['model']}: {', '.join(names)}"


def _checklist(verdict: Verdict) -> list[str]:
    lines = [f"{verdict.details['model']} on {verdict.details['cohort']}"]
    for point in verdict.details["checks"]:
        blocked = f" (can't be seen: {point['blocked_by']})" if point["blocked_by"] else ""
        lines.append(f"  {'ok  ' if point['ok'] else 'FAIL'}  {point['check']:<11}{point['title']}{blocked}")
    if verdict.details["recomputed_cases"]:
        lines.append(f"  measured again: {', '.join(verdict.details['recomputed_cases'])}")
    return [*lines, *(f"  [{finding.gate}] {finding.message}" for finding in verdict.findings)]


def gather(archives: list[Path] | None) -> list[RunRow]:
    """Return every run that the project knows of, and those of archives."""
    from doseledger.ledger.runs.index import gather_runs

    root = project_root()
    return gather_runs(root, archives or [], states=root / STATES, store=root / STORE)


def _form(form: str) -> Any:
    if form not in ("table", "markdown", "csv", "json"):
        raise BadInput(f"--format {form}: wanted table, markdown, csv or json")
    return form


def _colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _print_runs(rows: list[RunRow], metrics: list[str] | None, form: str) -> None:
    from doseledger.ledger.runs.tables import HEADLINE, format_runs, runs_table

    table = runs_table(rows, metrics or HEADLINE)
    print(format_runs(rows, table, _form(form), colour=_colour()), end="")
