"""Diffusion of the dose: preflight, training, drawn doses, and whether their spread is calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import (
    PARAMS,
    Cases,
    Cohort,
    DataToken,
    Devices,
    Findings,
    Json,
    Lock,
    Nodes,
    Params,
    Protocols,
    Splits,
    Suites,
    Thresholds,
    Token,
    cohort_files,
    deliver,
    judged_run,
    make_run,
    need_both,
    project_root,
    settings_of,
    show,
    tell,
)
from doseledger.cli.watchdog import watched

if TYPE_CHECKING:
    from doseledger.core.settings import Settings
    from doseledger.learn.run import TrainingRun

app = typer.Typer()

Model = Annotated[str, typer.Argument(help="A block of the settings, of kind diffusion.")]
Base = Annotated[Path, typer.Option(help="Checkpoint of the dose model whose residual is diffused.")]


def diffusion_run(settings: Settings, model: str, params: Path, data_token: Path, base: Path) -> TrainingRun:
    """Return a diffusion's training as the settings, the data gate's verdict and its base make it."""
    from doseledger.learn.families.diffusion import diffusion_family
    from doseledger.learn.recipes.diffusion import load_diffusion

    recipe = load_diffusion(settings.model(model), f"{params}: {model}")
    return make_run(settings, model, recipe, diffusion_family(recipe, base), data_token)


@app.command()
@audited(
    "preflight-diffusion",
    inputs=("cases", "splits", "base", "data_token", "params"),
    outputs=("token", "findings"),
    reads="train",
)
def preflight_diffusion(
    model: Model,
    cases: Cases,
    splits: Splits,
    thresholds: Thresholds,
    base: Base,
    data_token: DataToken,
    token: Token = None,
    findings: Findings = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Try real loaders and 20 steps of a diffusion on one fixed batch, and look at the machine.

    Example: see the preflight_diffusion stage in dvc.yaml; `dvc repro preflight_diffusion@dose_diffusion` runs it.
    """
    from doseledger.gates.model.preflight import judge_preflight

    need_both(token, findings, "--token and --findings")
    run = diffusion_run(settings_of(params), model, params, data_token, base)
    verdict = judge_preflight(run, cases, splits, thresholds, tell=tell)
    deliver(verdict, token, findings, as_json)


@app.command()
@watched
@audited(
    "train-diffusion",
    inputs=("cases", "splits", "lock", "base", "data_token", "preflight_token", "params"),
    outputs=("out",),
    reads="train and val",
)
def train_diffusion(
    model: Model,
    out: Annotated[Path, typer.Argument(help="Folder of the run to write.")],
    cases: Cases,
    splits: Splits,
    cohort: Cohort,
    protocols: Protocols,
    suites: Suites,
    thresholds: Thresholds,
    lock: Lock,
    base: Base,
    data_token: DataToken,
    preflight_token: Annotated[Path, typer.Option(help="Preflight's verdict on exactly this model.")],
    state: Annotated[Path, typer.Option(help="Root of resume states, below the project's root.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw an interrupted run's state away.")] = False,
    devices: Devices = None,
    nodes: Nodes = None,
    params: Params = PARAMS,
) -> None:
    """Train a diffusion on the cases that passed the data gate; an interrupted run of the same settings goes on.

    Example: see the train_diffusion stage in dvc.yaml; `dvc repro train_diffusion@dose_diffusion` runs it.
    """
    from dataclasses import replace

    from doseledger.learn.training.train import Places, train

    settings = settings_of(params)
    files = cohort_files(settings, cohort, cases, splits, (protocols, suites, thresholds, lock))
    run, limits = judged_run(
        files, data_token, preflight_token, lambda: diffusion_run(settings, model, params, data_token, base)
    )
    run = replace(run, devices=devices or run.devices, nodes=nodes or run.nodes)
    places = Places(cases, splits, out, project_root() / state)
    train(run, places, fresh=fresh, tell=tell, red_flags=limits.training, wandb=settings.train.wandb)


@app.command()
@audited("predict-diffusion", inputs=("checkpoint", "cases", "splits", "params"), outputs=("out",), reads="part")
def predict_diffusion(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a diffusion's run.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <case>.npz.")],
    cases: Cases,
    splits: Splits,
    model: Annotated[str, typer.Option(help="The block of the settings whose `predict` holds.")],
    part: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    params: Params = PARAMS,
) -> None:
    """Draw doses of the test cases: their mean, their spread and the samples, each on the case's own grid.

    Example: doseledger predict-diffusion models/phantom/dose_diffusion/checkpoints/best.ckpt predictions/
    --model dose_diffusion --cases data/cases/phantom --splits data/splits/phantom.csv
    """
    from doseledger.learn.predict.cases import SplitPart
    from doseledger.learn.predict.draws import predict_diffusion as draw_cases
    from doseledger.learn.recipes.diffusion import load_diffusion

    settings = settings_of(params)
    recipe = load_diffusion(settings.model(model), f"{params}: {model}").predict
    chosen = SplitPart(cases, splits, part, settings.fold, settings.repeat)
    draw_cases(checkpoint, chosen, out, recipe=recipe, tell=tell)


@app.command()
@audited(
    "calibrate",
    inputs=("val", "test", "cases", "splits", "params"),
    outputs=("out", "figures"),
    reads="val and test",
)
def calibrate(
    out: Annotated[Path, typer.Argument(help="Folder that gets calibration.json and calibration_details.json.")],
    val: Annotated[Path, typer.Option(help="Drawn doses of the validation cases: the factors are fitted on these.")],
    test: Annotated[Path, typer.Option(help="Drawn doses of the test cases: coverage is told of these.")],
    cases: Cases,
    splits: Splits,
    figures: Annotated[
        Path | None, typer.Option(help="Folder that gets the picture, calibration.png and so on.")
    ] = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Hold the spread of drawn doses against the plan: coverage of 50, 80 and 95 % intervals.

    Example: doseledger calibrate reports/metrics/phantom/dose_diffusion --val data/predictions/phantom/val
    --test data/predictions/phantom/dose_diffusion --cases data/cases/phantom --splits data/splits/phantom.csv
    """
    from doseledger.evaluate.calibration import DrawnSets, calibrate_cohort

    settings = settings_of(params)
    sets = DrawnSets(cases, splits, val, test, settings.fold, settings.repeat)
    summary = calibrate_cohort(sets, out, tell=tell)
    if figures is not None:
        from doseledger.report.figures.uncertainty import write_calibration_figure

        write_calibration_figure(out, figures, dpi=settings.report.figure_dpi)
    show(summary, as_json, "\n".join(f"{name} {value:.2f}" for name, value in summary.items()))
