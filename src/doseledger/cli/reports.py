"""Pages and PDFs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audit_log, audited
from doseledger.cli.shared import (
    PARAMS,
    Cases,
    Cohort,
    Goals,
    Json,
    Lock,
    Params,
    Protocols,
    Splits,
    Templates,
    Thresholds,
    cohort_of,
    goals_of,
    protocol_of,
    settings_of,
    show,
    tell,
)

if TYPE_CHECKING:
    from doseledger.ledger.runs.compared_runs import ComparedRun

app = typer.Typer()
Html = Annotated[Path, typer.Option(help="Page to write.")]
Pdf = Annotated[Path, typer.Option(help="PDF to write.")]
Figures = Annotated[Path, typer.Option(help="Folder of figures to write.")]


@app.command()
@audited(
    "report",
    inputs=("run", "metrics", "predictions", "cases", "splits", "lock"),
    outputs=("html", "pdf", "figures"),
    reads="test",
)
def report(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    html: Html,
    pdf: Pdf,
    figures: Figures,
    templates: Templates,
    run: Annotated[Path, typer.Option(help="Folder that `train` wrote.")],
    metrics: Annotated[Path, typer.Option(help="Folder that `evaluate` wrote.")],
    predictions: Annotated[Path, typer.Option(help="Folder that `predict` wrote.")],
    cases: Cases,
    splits: Splits,
    lock: Lock,
    data_findings: Annotated[Path, typer.Option(help="What the data gate found.")],
    preflight_findings: Annotated[Path, typer.Option(help="What preflight found.")],
    cohort: Cohort,
    protocols: Protocols,
    goals: Goals,
    thresholds: Thresholds,
    params: Params = PARAMS,
) -> None:
    """Write the report of a model: one page and one PDF, tied to commit, data and settings.

    Example: see the report stage in dvc.yaml; `dvc repro report@dose_unet` runs it.
    """
    from doseledger.ledger.runs.facts import ReportInputs
    from doseledger.report.page import ReportOutputs
    from doseledger.report.run import make_report

    settings = settings_of(params)
    names = cohort_of(settings, cohort)
    inputs = ReportInputs(
        cohort=cohort,
        model=model,
        run=run,
        metrics=metrics,
        predictions=predictions,
        cases=cases,
        splits=splits,
        test_set=lock,
        data_findings=data_findings,
        preflight_findings=preflight_findings,
        protocol=protocols / f"{names.protocol}.yaml",
        goals=goals / f"{names.goals}.yaml",
        thresholds=thresholds,
        root=Path.cwd(),
    )
    outputs = ReportOutputs(html, pdf, figures, audit_log())
    make_report(inputs, outputs, templates, settings.report, settings.evaluate, tell)


@app.command("report-compare")
@audited("report-compare", inputs=("cases",), outputs=("html", "pdf", "figures"), reads="test")
def report_compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="The baseline, then others: models, archived run folders, folders that `evaluate` wrote."),
    ],
    html: Html,
    pdf: Pdf,
    figures: Figures,
    templates: Templates,
    cases: Annotated[Path | None, typer.Option(help="Folder of cases: DVHs are drawn from them.")] = None,
    cohort: Annotated[str | None, typer.Option(help="A key of `cohorts` in the settings; needed with --cases.")] = None,
    protocols: Annotated[Path | None, typer.Option(help="Folder of protocols; needed with --cases.")] = None,
    goals: Annotated[Path | None, typer.Option(help="Folder of clinical goals; needed with --cases.")] = None,
    predictions: Annotated[
        list[Path] | None, typer.Option(help="Folder of predictions of each run, in the order of the runs.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="What each run is called, in the order of the runs.")] = None,
    case: Annotated[
        list[str] | None, typer.Option(help="Case whose DVHs are drawn; can be given several times.")
    ] = None,
    params: Params = PARAMS,
) -> None:
    """Compare runs on the same test cases: settings that differ, paired statistics, DVHs of each against the plan.

    Example: doseledger report-compare dose_unet archive/run_20260131_120000 --html compare.html --pdf compare.pdf
    --figures figures --templates reports/templates
    """
    from doseledger.core.errors import BadInput
    from doseledger.report.comparison import DrawnFrom, make_comparison
    from doseledger.report.page import ReportOutputs

    for name, given in (("--predictions", predictions), ("--label", label)):
        if given and len(given) != len(runs):
            raise BadInput(f"{len(runs)} runs and {len(given)} {name}; give {name} once a run, in their order")
    settings, drawn = settings_of(params), None
    if cases is not None:
        if cohort is None or protocols is None or goals is None:
            raise BadInput(
                "DVHs are drawn with structures and goals: give --cohort, --protocols and --goals to --cases"
            )
        protocol = protocol_of(settings, cohort, protocols)
        drawn = DrawnFrom(cases, protocol, goals_of(settings, cohort, goals), tuple(case or ()))
    compared = [_compared(name, number, label, predictions) for number, name in enumerate(runs)]
    outputs = ReportOutputs(html, pdf, figures, audit_log())
    make_comparison(compared, outputs, templates, drawn, dpi=settings.report.figure_dpi, tell=tell)


def _compared(
    target: str, number: int, labels: Sequence[str] | None, predictions: Sequence[Path] | None
) -> ComparedRun:
    """A run by what it was named: an archived folder, a folder of metrics, or a model of the pipeline."""
    from dataclasses import replace

    from doseledger.ledger.runs.compared_runs import compared_run, run_of_metrics
    from doseledger.ledger.runs.files import MANIFEST, files_of_archive, files_of_pipeline

    folder = Path(target)
    label = labels[number] if labels else folder.name
    own = predictions[number] if predictions else None
    if folder.is_dir() and not (folder / MANIFEST).is_file():
        return run_of_metrics(folder, label, own)
    files = files_of_archive(folder) if folder.is_dir() else files_of_pipeline(Path.cwd(), target)
    return compared_run(files if own is None else replace(files, predictions=own), label)


@app.command("report-data")
@audited(
    "report-data",
    inputs=("cases", "splits", "lock", "data_findings", "drift_findings"),
    outputs=("html", "pdf", "figures"),
    reads="all",
)
def report_data(
    cases: Annotated[Path, typer.Argument(help="Folder of cases (NPZ, cases.csv, skipped.csv).")],
    splits: Annotated[Path, typer.Argument(help="Table of splits.")],
    html: Html,
    pdf: Pdf,
    figures: Figures,
    templates: Templates,
    lock: Lock,
    cohort: Cohort,
    protocols: Protocols,
    data_findings: Annotated[Path, typer.Option(help="What the data gate found.")],
    drift_findings: Annotated[Path | None, typer.Option(help="What the drift gate found of the test cases.")] = None,
    page: Annotated[list[Path] | None, typer.Option(help="A gate's own page to lead to; can be given again.")] = None,
    params: Params = PARAMS,
) -> None:
    """Write the report of a cohort: cases and hashes, splits, features by part, findings, drift of the test cases.

    Example: doseledger report-data data/cases/phantom data/splits/phantom.csv --cohort phantom --html data.html
    --pdf data.pdf --figures figures --templates reports/templates --lock validation/test_sets/phantom.csv
    --protocols validation/protocols --data-findings reports/verdicts/phantom/data_findings.json
    """
    from doseledger.report.data import DataInputs, make_data_report
    from doseledger.report.page import ReportOutputs

    settings = settings_of(params)
    inputs = DataInputs(
        cohort=cohort,
        cases=cases,
        splits=splits,
        test_set=lock,
        protocol=protocol_of(settings, cohort, protocols),
        data_findings=data_findings,
        drift_findings=drift_findings,
        pages=tuple(page or ()),
        fold=settings.fold,
        repeat=settings.repeat,
    )
    outputs = ReportOutputs(html, pdf, figures, audit_log())
    make_data_report(inputs, outputs, templates, dpi=settings.report.figure_dpi, tell=tell)


@app.command()
def where(
    html: Annotated[Path, typer.Option(help="Folder of pages.")],
    pdf: Annotated[Path, typer.Option(help="Folder of PDFs.")],
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Say where the reports of the settings' cohort and models lie.

    Example: doseledger where --html reports/html --pdf reports/pdf
    """
    settings = settings_of(params)
    found, lines = [], []
    for folder, name in ((html, "report.html"), (pdf, "report.pdf")):
        for model in settings.models:
            path = folder / settings.cohort / model / name
            there = path.is_file()
            found.append({"model": model, "path": str(path.resolve()), "exists": there})
            lines.append(f"{model}: {path.resolve() if there else f'no report yet; dvc repro writes {path}'}")
    show(found, as_json, "\n".join(lines))
