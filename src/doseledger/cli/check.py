"""The gates: data and preflight before training, metrics after it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.runs import refresh_runs
from doseledger.cli.shared import (
    PARAMS,
    Cases,
    Cohort,
    DataToken,
    Findings,
    Json,
    Lock,
    Params,
    Protocols,
    RunsPage,
    RunsTemplates,
    Splits,
    Suites,
    Thresholds,
    Token,
    Workers,
    cohort_files,
    deliver,
    need_both,
    settings_of,
    tell,
    training_run,
    workers_of,
)

app = typer.Typer()
check_app = typer.Typer(no_args_is_help=True, help="The gates: data before training, metrics after it.")
app.add_typer(check_app, name="check")


@check_app.command("data")
@audited(
    "check data",
    inputs=("cases", "splits", "protocols", "suites", "thresholds", "lock", "params"),
    outputs=("token", "findings", "html"),
    reads="all",
)
def check_data(
    cases: Annotated[Path, typer.Argument(help="Folder of cases.")],
    splits: Annotated[Path, typer.Argument(help="Table of splits.")],
    cohort: Cohort,
    protocols: Protocols,
    suites: Suites,
    thresholds: Thresholds,
    lock: Lock,
    token: Token = None,
    findings: Findings = None,
    html: Annotated[Path | None, typer.Option(help="Page of the findings to write, with --template.")] = None,
    template: Annotated[Path | None, typer.Option(help="Template of that page.")] = None,
    workers: Workers = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Judge a cohort before anything trains on it; exit 1 if it may not be trained on.

    Example: doseledger check data data/cases/phantom data/splits/phantom.csv --cohort phantom
    --protocols validation/protocols --suites validation/suites --thresholds validation/thresholds.yaml
    --lock validation/test_sets/phantom.csv
    """
    from doseledger.gates.data.cohort import judge_cohort
    from doseledger.report.findings_page import write_page

    need_both(html, template, "--html and --template")
    need_both(token, findings, "--token and --findings")
    settings = settings_of(params)
    files = cohort_files(settings, cohort, cases, splits, (protocols, suites, thresholds, lock))
    verdict = judge_cohort(files, settings.ingest.accept_failed, workers=workers_of(settings, workers), tell=tell)
    if html is not None and template is not None:
        write_page(verdict, template, html)
    deliver(verdict, token, findings, as_json)


@check_app.command("metrics")
@audited(
    "check metrics", inputs=("metrics", "splits", "checkpoint", "thresholds", "params"), outputs=("token", "findings")
)
def check_metrics(
    metrics: Annotated[Path, typer.Argument(help="Folder that `evaluate` wrote.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    cohort: Cohort,
    splits: Splits,
    checkpoint: Annotated[Path, typer.Option(help="The model that was evaluated.")],
    thresholds: Thresholds,
    token: Token = None,
    findings: Findings = None,
    runs_page: RunsPage = None,
    templates: RunsTemplates = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Judge a model's metrics against its thresholds; exit 1 if it may not be released.

    Example: doseledger check metrics reports/metrics/phantom/dose_unet --model dose_unet --cohort phantom
    --splits data/splits/phantom.csv --checkpoint models/phantom/dose_unet/checkpoints/best.ckpt
    --thresholds validation/thresholds.yaml
    """
    from doseledger.gates.model.metrics import MetricsFiles, judge_metrics

    need_both(token, findings, "--token and --findings")
    need_both(runs_page, templates, "--runs-page and --templates")
    settings = settings_of(params)
    files = MetricsFiles(metrics, splits, checkpoint, thresholds, cohort, model)
    verdict = judge_metrics(files, fold=settings.fold, repeat=settings.repeat)
    try:
        deliver(verdict, token, findings, as_json)
    finally:
        # Here and in no stage of its own: the page speaks of commits and experiments too, which no stage depends on.
        refresh_runs(runs_page, templates)


@app.command()
@audited(
    "preflight",
    inputs=("cases", "splits", "thresholds", "data_token", "params"),
    outputs=("token", "findings"),
    reads="train",
)
def preflight(
    model: Annotated[str, typer.Argument(help="A block of the settings.")],
    cases: Cases,
    splits: Splits,
    thresholds: Thresholds,
    data_token: DataToken,
    token: Token = None,
    findings: Findings = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Try real loaders and 20 steps of a model on one fixed batch, and look at the machine.

    Example: doseledger preflight dose_unet --cases data/cases/phantom --splits data/splits/phantom.csv
    --thresholds validation/thresholds.yaml --data-token reports/verdicts/phantom/data.json
    """
    from doseledger.gates.model.preflight import judge_preflight

    need_both(token, findings, "--token and --findings")
    run = training_run(settings_of(params), model, params, data_token)
    verdict = judge_preflight(run, cases, splits, thresholds, tell=tell)
    deliver(verdict, token, findings, as_json)
