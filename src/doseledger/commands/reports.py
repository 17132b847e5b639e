"""Pages and PDFs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.commands.audited import audited
from doseledger.commands.shared import (
    PARAMS,
    Cases,
    Cohort,
    Json,
    Lock,
    Params,
    Protocols,
    Splits,
    Thresholds,
    cohort_of,
    settings_of,
    show,
    tell,
)

app = typer.Typer()


@app.command()
@audited(
    "report",
    inputs=("run", "metrics", "predictions", "cases", "splits", "lock"),
    outputs=("html", "pdf", "figures"),
    reads="test",
)
def report(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    html: Annotated[Path, typer.Option(help="Page to write.")],
    pdf: Annotated[Path, typer.Option(help="PDF to write.")],
    figures: Annotated[Path, typer.Option(help="Folder of figures to write.")],
    templates: Annotated[Path, typer.Option(help="Folder of templates.")],
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
    goals: Annotated[Path, typer.Option(help="Folder of clinical goals.")],
    thresholds: Thresholds,
    params: Params = PARAMS,
) -> None:
    """Write the report of a model: one page and one PDF, tied to commit, data and settings.

    Example: see the report stage in dvc.yaml; `dvc repro report@dose_unet` runs it.
    """
    from doseledger.ledger.report import ReportOutputs, make_report
    from doseledger.ledger.sources import ReportInputs

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
    make_report(inputs, ReportOutputs(html, pdf, figures), templates, settings.report, settings.evaluate, tell)


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
