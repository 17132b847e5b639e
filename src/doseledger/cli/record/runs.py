"""Runs: the checklist of one, its archive, and the index of all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doseledger.cli.audited import audited, this_machine
from doseledger.cli.shared import RECORD, Cohort, Json, in_colour, line_width, project, show, tell
from doseledger.core.errors import BadInput, DoseledgerError, GateFailed

if TYPE_CHECKING:
    from doseledger.gates.verdict import Verdict
    from doseledger.ledger.runs.files import RunFiles
    from doseledger.ledger.runs.listing.rows import RunRow
    from doseledger.ledger.runs.recompute import Recompute

app = typer.Typer()
runs_app = typer.Typer(no_args_is_help=True, help="Runs: checked, archived, listed, compared.")
app.add_typer(runs_app, name="runs", rich_help_panel=RECORD)

Archives = Annotated[list[Path] | None, typer.Option(help="Folder of archived runs; can be given several times.")]
Form = Annotated[str, typer.Option("--format", help="table, markdown, csv or json.")]


@runs_app.command("check")
@audited("runs check", inputs=("cases|cases_csv", "params"), reads="test, as many as --recompute says")
def check(
    target: Annotated[
        str | None, typer.Argument(help="A model, or the folder of an archived run; every model without it.")
    ] = None,
    recompute: Annotated[
        str,
        typer.Option(help="How many cases to measure again from their predictions, the worst first: 0, 1 … or all."),
    ] = "0",
    cases: Annotated[Path | None, typer.Option(help="Folder of cases; the pipeline's own without it.")] = None,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Go through a run's checklist; exit 1 if not met.

    Files, settings, epochs, metrics, checkpoints, verdicts, code.

    Example: doseledger runs check dose_unet --recompute 1
    """
    from doseledger.gates.verdict import verdict_as_json
    from doseledger.ledger.runs.check import check_run

    verdicts = {}
    for name in [target] if target is not None else project(cohort).settings.models:
        files = run_files_of(name, cohort)
        again = None if recompute == "0" else _recompute(recompute, cases, files)
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
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Copy a complete run out, with a manifest.

    Report, verdicts and checklist go along, and a manifest of every byte.

    Example: doseledger runs archive dose_unet ../archive
    """
    from datetime import UTC, datetime

    from doseledger.ledger.audit.anchors import anchor_values
    from doseledger.ledger.audit.recording import note_fact
    from doseledger.ledger.runs.archive import archive_run, example_cases
    from doseledger.ledger.runs.check import check_run

    files = run_files_of(model, cohort)
    verdict = check_run(files)
    for finding in verdict.errors:
        tell(f"checklist: [{finding.gate}] {finding.message}")
    chosen = example_cases(files, examples)
    anchor = anchor_values(this_machine().audit_log)
    folder = archive_run(files, verdict, target, when=datetime.now(UTC), examples=chosen, audit=anchor)
    note_fact("archived", str(folder))
    notes = "" if verdict.ok else f"; its checklist has {len(verdict.errors)} error(s), which the manifest holds"
    show({"folder": str(folder), "ok": verdict.ok, "examples": chosen}, as_json, f"archived in {folder}{notes}")


@runs_app.command("list")
def list_all(
    words: Annotated[
        list[str] | None, typer.Argument(help="Each must occur: in id, place, note, or a setting as lr=0.001.")
    ] = None,
    where: Annotated[
        str, typer.Option(help="Only runs for which this holds: \"mae_gy < 3 and model == 'dose_unet'\".")
    ] = "",
    sort: Annotated[str, typer.Option(help="Column to sort by; the newest come first without it.")] = "",
    descending: Annotated[bool, typer.Option("--descending", help="With --sort: the largest first.")] = False,
    metric: Annotated[list[str] | None, typer.Option(help="Metric to show; can be given several times.")] = None,
    archives: Archives = None,
    form: Form = "table",
    columns: Annotated[bool, typer.Option("--columns", help="Only the names that --where and --sort know.")] = False,
) -> None:
    """List runs, each once: all, or those of some words.

    Of the workspace, Git revisions, DVC experiments and archives.

    Example: doseledger runs list lr=0.001 --where "mae_gy < 3 and model == 'dose_unet'" --sort mae_gy
    """
    from doseledger.ledger.runs.listing.query import unknown_column
    from doseledger.ledger.runs.listing.tables import (
        HEADLINE,
        format_runs,
        known_columns,
        runs_table,
        select_runs,
    )

    rows = gather(archives)
    if columns:
        print("\n".join(sorted(known_columns(rows))))
        return
    found = select_runs(rows, where=where, words=words or (), sort=sort, descending=descending)
    for name in sorted(set(metric or ()) - known_columns(rows)):
        raise BadInput(f"--metric: {unknown_column(name, known_columns(rows))}")
    table = runs_table(found, metric or HEADLINE)
    print(format_runs(found, table, _form(form), colour=in_colour(), width=line_width()), end="")


@runs_app.command("compare")
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more: ids, tags, branches, experiments, archived folders.")],
    every_metric: Annotated[
        bool, typer.Option("--all", help="With the ends of intervals and the worst cases.")
    ] = False,
    archives: Archives = None,
    form: Form = "table",
) -> None:
    """Put runs side by side: settings and metrics.

    Example: doseledger runs compare main workspace
    """
    from doseledger.ledger.runs.listing.tables import comparison_table, find_run, format_runs

    rows = gather(archives)
    if len(runs) < 2:
        raise BadInput(f"found one run to compare ({runs[0]}), wanted two or more")
    chosen = [find_run(rows, name) for name in runs]
    table = comparison_table(chosen, every_metric=every_metric)
    print(format_runs(chosen, table, _form(form), colour=in_colour(), width=line_width()), end="")


@runs_app.command("index")
def index(archives: Archives = None) -> None:
    """Write the page of all runs, reports/runs.html.

    Example: doseledger runs index
    """
    page = this_machine().runs_page
    print(f"{refresh_page(archives)} runs in {page}")


def refresh_page(archives: list[Path] | None = None) -> int:
    """Write the page of all runs, below the main repository, and return how many it shows.

    Within a stage of an experiment it names that too, which DVC saves only later.
    """
    from doseledger.ledger.runs.listing.index import rows_of_experiment_at_work
    from doseledger.ledger.runs.listing.rows import merge_rows
    from doseledger.report.runs import write_index

    rows, machine = gather(archives), this_machine()
    layout, experiment = project().layout, os.environ.get("DVC_EXP_NAME")
    if experiment:
        rows = merge_rows([*rows, *rows_of_experiment_at_work(layout.root, experiment)])
    write_index(rows, machine.runs_page, layout.templates, machine.root)
    return len(rows)


def refresh_runs() -> None:
    """Write the page of all runs; no gate fails because that can't be done."""
    try:
        tell(f"{refresh_page()} runs in {this_machine().runs_page}")
    except DoseledgerError as error:
        tell(f"warning: the page of all runs was not written: {error}")


def run_files_of(target: str, cohort: str | None = None) -> RunFiles:
    """Return the files of a run by what it was named: a model of the pipeline, or an archived folder."""
    from doseledger.ledger.runs.files import MANIFEST, files_of_archive, files_of_pipeline

    folder = Path(target)
    if (folder / MANIFEST).is_file() or (folder.is_dir() and folder.name.startswith("run_")):
        try:
            root = project().layout.root
        except DoseledgerError:
            return files_of_archive(folder, None)
        return files_of_archive(folder, root if (root / ".git").exists() else None)
    return files_of_pipeline(project(cohort).layout, target)


def metrics_of(target: str, cohort: str | None = None) -> Path:
    """Return the table of cases of a run: of a model, an archived run, or a folder of tables."""
    folder = Path(target)
    if folder.is_file() or (folder / "cases.csv").is_file():
        return folder
    from doseledger.ledger.provenance.outs import require_recorded

    files = run_files_of(target, cohort)
    if files.root is not None and files.manifest is None:
        require_recorded(files.root, ("evaluate",), files.cohort, files.model)
    return files.tables["cases"]


def _recompute(how_many: str, cases: Path | None, files: RunFiles) -> Recompute:
    from doseledger.core.project.protocol import load_goals, load_protocol
    from doseledger.evaluate.case import Yardsticks
    from doseledger.ledger.runs.recompute import Recompute

    if how_many != "all" and not how_many.isdigit():
        raise BadInput(f"--recompute {how_many}: wanted a number of cases, or all")
    folder = cases or files.cases
    if folder is None or files.predictions is None:
        raise BadInput("--recompute of an archived run needs --cases")
    at = project(files.cohort)
    rules = load_protocol(at.layout.protocol), load_goals(at.layout.goals)
    yardsticks = Yardsticks(*rules, at.settings.evaluate)
    return Recompute(folder, files.predictions, yardsticks, None if how_many == "all" else int(how_many))


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
    from doseledger.ledger.runs.listing.index import gather_runs

    machine = this_machine()
    return gather_runs(machine.root, archives or [], states=machine.states, store=machine.run_store)


def _form(form: str) -> Any:
    if form not in ("table", "markdown", "csv", "json"):
        raise BadInput(f"--format {form}: wanted table, markdown, csv or json")
    return form
