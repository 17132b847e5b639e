"""The gates that doubt: what a model has not learned, what gives a label away, what is unlike the training cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.check import check_app
from doseledger.cli.runs import refresh_runs
from doseledger.cli.shared import (
    PARAMS,
    Cases,
    Cohort,
    Findings,
    Json,
    Params,
    Protocols,
    RunsPage,
    RunsTemplates,
    Splits,
    Thresholds,
    Token,
    Workers,
    cohort_of,
    deliver,
    need_both,
    protocol_of,
    settings_of,
    show,
    tell,
    workers_of,
)
from doseledger.core.errors import BadInput

Seed = Annotated[int, typer.Option(help="Seed by which the probe's folds are dealt.")]
# The same stack or cohort always gives the same verdict.
PROBE_SEED = 20250801

app = typer.Typer()


@app.command()
@audited(
    "shortcuts",
    inputs=("checkpoint", "predictions", "cases", "splits", "params"),
    outputs=("out",),
    reads="train and test",
)
def shortcuts(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt of a run.")],
    predictions: Annotated[Path, typer.Argument(help="Folder of its predictions of the test cases.")],
    out: Annotated[Path, typer.Argument(help="JSON to write.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    cases: Cases,
    splits: Splits,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Measure a dose model beside trivial models, and with its inputs spoiled one by one; `check shortcuts` judges.

    Example: doseledger shortcuts models/phantom/dose_unet/checkpoints/best.ckpt data/predictions/phantom/dose_unet
    shortcuts.json --model dose_unet --cases data/cases/phantom --splits data/splits/phantom.csv
    """
    from doseledger.core.files import write_json
    from doseledger.evaluate.shortcuts.measure import ShortcutFiles, measure_shortcuts
    from doseledger.evaluate.shortcuts.numbers import shortcut_numbers
    from doseledger.learn.recipes.dose import load_recipe

    settings = settings_of(params)
    recipe = load_recipe(settings.model(model), f"{params}: {model}").predict
    files = ShortcutFiles(checkpoint, predictions, cases, splits)
    measured = measure_shortcuts(files, recipe, fold=settings.fold, repeat=settings.repeat, tell=tell)
    write_json(out, measured)
    lines = [f"{name}: {value:.3g}" for name, value in shortcut_numbers(measured).items()]
    show(measured, as_json, "\n".join(lines))


@check_app.command("shortcuts")
@audited(
    "check shortcuts",
    inputs=("measured", "checkpoint", "splits", "thresholds", "params"),
    outputs=("token", "findings"),
    reads="none",
)
def check_shortcuts(
    measured: Annotated[Path, typer.Argument(help="What `doseledger shortcuts` wrote.")],
    checkpoint: Annotated[Path, typer.Option(help="The model that was measured.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    cohort: Cohort,
    splits: Splits,
    thresholds: Thresholds,
    token: Token = None,
    findings: Findings = None,
    runs_page: RunsPage = None,
    templates: RunsTemplates = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Judge whether a model looks at the patient, by its shortcut limits; exit 1 if it may not be released.

    Example: doseledger check shortcuts shortcuts.json --checkpoint models/phantom/dose_unet/checkpoints/best.ckpt
    --model dose_unet --cohort phantom --splits data/splits/phantom.csv --thresholds validation/thresholds.yaml
    """
    from doseledger.gates.model.shortcuts import JudgedFiles, judge_shortcuts

    need_both(token, findings, "--token and --findings")
    need_both(runs_page, templates, "--runs-page and --templates")
    settings = settings_of(params)
    files = JudgedFiles(measured, checkpoint, splits, thresholds, cohort, model)
    verdict = judge_shortcuts(files, fold=settings.fold, repeat=settings.repeat)
    try:
        deliver(verdict, token, findings, as_json)
    finally:
        refresh_runs(runs_page, templates)


@check_app.command("stack")
@audited("check stack", inputs=("stack", "thresholds"), outputs=("token", "findings"), reads="the stack")
def check_stack(
    stack: Annotated[
        Path, typer.Argument(help="NPZ with images (n, [z,] y, x), labels (n,) and, where known, groups.")
    ],
    thresholds: Thresholds,
    region: Annotated[str, typer.Option(help="core, border or both.")] = "both",
    token: Token = None,
    findings: Findings = None,
    seed: Seed = PROBE_SEED,
    as_json: Json = False,
) -> None:
    """Judge whether the labels of a stack of images can be told from the core or the border alone.

    Example: doseledger check stack images.npz --thresholds validation/thresholds.yaml --region border --json
    """
    import numpy as np

    from doseledger.gates.drift.stacks import REGIONS, judge_stack
    from doseledger.gates.limits import load_thresholds

    need_both(token, findings, "--token and --findings")
    regions = tuple(name for name in REGIONS if region in (name, "both"))
    if not regions:
        raise BadInput(f"region {region!r}: wanted {', '.join(REGIONS)} or both")
    verdict = judge_stack(stack, regions, load_thresholds(thresholds).probes, np.random.default_rng(seed))
    deliver(verdict, token, findings, as_json)


@check_app.command("metadata")
@audited(
    "check metadata",
    inputs=("cases", "protocols", "thresholds", "params"),
    outputs=("token", "findings"),
    reads="all",
)
def check_metadata(
    cases: Annotated[Path, typer.Argument(help="Folder of cases.")],
    cohort: Cohort,
    protocols: Protocols,
    thresholds: Thresholds,
    token: Token = None,
    findings: Findings = None,
    workers: Workers = None,
    seed: Seed = PROBE_SEED,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Judge whether site, scanner or the order of cases can be told from what a model is given.

    Example: doseledger check metadata data/cases/phantom --cohort phantom --protocols validation/protocols
    --thresholds validation/thresholds.yaml
    """
    import numpy as np

    from doseledger.gates.drift.metadata import judge_metadata
    from doseledger.gates.limits import load_thresholds

    need_both(token, findings, "--token and --findings")
    settings = settings_of(params)
    protocol = protocol_of(settings, cohort, protocols)
    limits, rng = load_thresholds(thresholds).probes, np.random.default_rng(seed)
    verdict = judge_metadata(cases, protocol, limits, rng, workers=workers_of(settings, workers), tell=tell)
    deliver(verdict, token, findings, as_json)


@check_app.command("drift")
@audited(
    "check drift",
    inputs=("new", "reference", "splits", "protocols", "thresholds", "params"),
    outputs=("token", "findings", "html", "markdown"),
    reads="the new cases and train",
)
def check_drift(
    new: Annotated[Path, typer.Argument(help="Folder of new cases.")],
    reference: Annotated[Path, typer.Option(help="Folder of the cases that were trained on.")],
    splits: Splits,
    cohort: Cohort,
    protocols: Protocols,
    thresholds: Thresholds,
    part: Annotated[str | None, typer.Option(help="Of the new cases only this part of the splits: test.")] = None,
    token: Token = None,
    findings: Findings = None,
    html: Annotated[Path | None, typer.Option(help="Page to write, with --template.")] = None,
    template: Annotated[Path | None, typer.Option(help="Template of that page.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The same as Markdown to write.")] = None,
    workers: Workers = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Judge whether new cases are of the kind that was trained on, one by one and as a batch; exit 1 if not.

    Example: doseledger check drift new_cases/ --reference data/cases/phantom --splits data/splits/phantom.csv
    --cohort phantom --protocols validation/protocols --thresholds validation/thresholds.yaml
    --html drift.html --template reports/templates/drift.html.j2
    """
    from doseledger.core.files import write_text
    from doseledger.gates.drift.judge import DriftFiles, judge_drift
    from doseledger.report.findings_page import write_page
    from doseledger.report.gate_pages import describe_drift

    need_both(html, template, "--html and --template")
    need_both(token, findings, "--token and --findings")
    settings = settings_of(params)
    protocol = protocols / f"{cohort_of(settings, cohort).protocol}.yaml"
    files = DriftFiles(new, part, reference, splits, protocol, thresholds, cohort)
    workers = workers_of(settings, workers)
    verdict = judge_drift(files, fold=settings.fold, repeat=settings.repeat, workers=workers, tell=tell)
    if html is not None and template is not None:
        write_page(verdict, template, html)
    if markdown is not None:
        write_text(markdown, "\n".join(describe_drift(verdict)) + "\n")
    deliver(verdict, token, findings, as_json)
