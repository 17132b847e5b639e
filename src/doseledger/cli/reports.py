"""Pages and PDFs: of a model, of a cohort, of runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.record.runs import run_files_of
from doseledger.cli.shared import REPORT, Cohort, Json, Model, ScaleAt, project, show, stage, tell
from doseledger.core.errors import BadInput

if TYPE_CHECKING:
    from doseledger.ledger.runs.compared_runs import ComparedRun

app = typer.Typer()


@app.command(rich_help_panel=REPORT)
@audited(
    "report",
    inputs=("run", "metrics", "predictions", "cases_csv", "splits", "test_set", "model_verdict"),
    outputs=("html", "pdf", "figures"),
    reads="test",
)
def report(model: Model, cohort: Cohort = None) -> None:
    """Write a model's report: one page and one PDF.

    Example: doseledger report dose_unet
    """
    from doseledger.report.model.run import make_report

    at = stage("report", cohort, model)
    make_report(at.layout.model(model), at.settings, tell)


@app.command("report-data", rich_help_panel=REPORT)
@audited(
    "report-data",
    inputs=("cases_csv", "splits", "test_set", "data_verdict", "drift_verdict"),
    outputs=("data_report", "data_report_pdf", "data_figures"),
    reads="all",
)
def report_data(cohort: Cohort = None, scale: ScaleAt = None) -> None:
    """Write a cohort's report: one page and one PDF.

    Example: doseledger report-data
    """
    from doseledger.report.data import make_data_report

    at = stage("report_data", cohort)
    make_data_report(at.layout, at.settings, tell, scale=at.settings.scale.asked(scale))


@app.command("report-compare", rich_help_panel=REPORT)
@audited("report-compare", inputs=("cases",), outputs=("out",), reads="test")
def report_compare(
    runs: Annotated[list[str], typer.Argument(help="Baseline, then others: models, archived runs, folders of tables.")],
    out: Annotated[Path, typer.Option(help="Folder for compare.html, .pdf and figures.")],
    cohort: Cohort = None,
    dvh: Annotated[bool, typer.Option(help="Draw DVHs of cases, where the cases are here.")] = True,
    predictions: Annotated[
        list[Path] | None, typer.Option(help="Folder of each run's predictions, in their order.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Name of each run, in their order.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Case whose DVHs are drawn; repeat it.")] = None,
) -> None:
    """Write a page that compares runs on one test set.

    Settings that differ, paired statistics, DVHs of each against the plan.

    Example: doseledger report-compare dose_unet dose_unet_large --out compare/
    """
    from doseledger.core.project.protocol import load_goals, load_protocol
    from doseledger.report.comparison import DrawnFrom, make_comparison
    from doseledger.report.page import ReportOutputs

    for name, given in (("--predictions", predictions), ("--label", label)):
        if given and len(given) != len(runs):
            raise BadInput(f"{len(runs)} runs and {len(given)} {name}; give {name} once a run, in their order")
    at, drawn = project(cohort), None
    layout = at.layout
    if dvh and layout.cases.is_dir():
        rules = load_protocol(layout.protocol), load_goals(layout.goals)
        drawn = DrawnFrom(layout.cases, *rules, tuple(case or ()))
    compared = []
    for number, name in enumerate(runs):
        own = predictions[number] if predictions else None
        compared.append(_compared(name, label[number] if label else Path(name).name, own, cohort))
    outputs = ReportOutputs(out / "compare.html", out / "compare.pdf", out / "figures")
    dpi = at.settings.report.figure_dpi
    make_comparison(compared, outputs, layout.templates, drawn, dpi=dpi, tell=tell)


def _compared(target: str, label: str, predictions: Path | None, cohort: str | None) -> ComparedRun:
    """A run by what it was named: an archived folder, a folder of metrics, or a model of the pipeline."""
    from dataclasses import replace

    from doseledger.ledger.runs.compared_runs import compared_run, run_of_metrics
    from doseledger.ledger.runs.files import MANIFEST

    folder = Path(target)
    if folder.is_dir() and not (folder / MANIFEST).is_file():
        return run_of_metrics(folder, label, predictions)
    files = run_files_of(target, cohort)
    return compared_run(files if predictions is None else replace(files, predictions=predictions), label)


@app.command(rich_help_panel=REPORT)
def where(cohort: Cohort = None, as_json: Json = False) -> None:
    """Say where the reports of the models lie.

    Example: doseledger where
    """
    at = project(cohort)
    found, lines = [], []
    for model in at.settings.models:
        paths = at.layout.model(model)
        for path in (paths.html, paths.pdf):
            there = path.is_file()
            found.append({"model": model, "path": str(path.resolve()), "exists": there})
            lines.append(f"{model}: {path.resolve() if there else f'no report yet; dvc repro writes {path}'}")
    show(found, as_json, "\n".join(lines))
