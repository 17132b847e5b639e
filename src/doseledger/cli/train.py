"""Training, what interrupted trainings left behind, and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import (
    PARAMS,
    Cases,
    Cohort,
    DataToken,
    Devices,
    Json,
    Lock,
    Nodes,
    Params,
    Protocols,
    Splits,
    Suites,
    Thresholds,
    cohort_files,
    judged_run,
    project_root,
    settings_of,
    show,
    tell,
    training_run,
)
from doseledger.cli.watchdog import watched

app = typer.Typer()
resume_app = typer.Typer(no_args_is_help=True, help="What interrupted trainings have left behind.")
app.add_typer(resume_app, name="resume")


@app.command()
@watched
@audited(
    "train",
    inputs=("cases", "splits", "lock", "data_token", "preflight_token", "params"),
    outputs=("out",),
    reads="train and val",
)
def train(
    model: Annotated[str, typer.Argument(help="A block of the settings.")],
    out: Annotated[Path, typer.Argument(help="Folder of the run to write.")],
    cases: Cases,
    splits: Splits,
    cohort: Cohort,
    protocols: Protocols,
    suites: Suites,
    thresholds: Thresholds,
    lock: Lock,
    data_token: DataToken,
    preflight_token: Annotated[Path, typer.Option(help="Preflight's verdict on exactly this model.")],
    state: Annotated[Path, typer.Option(help="Root of resume states, below the project's root.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw an interrupted run's state away.")] = False,
    devices: Devices = None,
    nodes: Nodes = None,
    params: Params = PARAMS,
) -> None:
    """Train a model on the cases that passed the data gate; an interrupted run of the same settings goes on.

    Example: see the train stage in dvc.yaml; `dvc repro train@dose_unet` runs it.
    """
    from dataclasses import replace

    from doseledger.learn.training.train import Places
    from doseledger.learn.training.train import train as train_model

    settings = settings_of(params)
    files = cohort_files(settings, cohort, cases, splits, (protocols, suites, thresholds, lock))
    run, limits = judged_run(
        files, data_token, preflight_token, lambda: training_run(settings, model, params, data_token)
    )
    run = replace(run, devices=devices or run.devices, nodes=nodes or run.nodes)
    places = Places(cases, splits, out, project_root() / state)
    train_model(run, places, fresh=fresh, tell=tell, red_flags=limits.training, wandb=settings.train.wandb)


@app.command()
@audited("predict", inputs=("checkpoint", "cases", "splits", "params"), outputs=("out",), reads="part")
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <case>.npz.")],
    cases: Cases,
    splits: Splits,
    model: Annotated[str, typer.Option(help="The block of the settings whose `predict` holds.")],
    part: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    params: Params = PARAMS,
) -> None:
    """Predict the dose of the test cases, each on its own grid.

    Example: doseledger predict models/phantom/dose_unet/checkpoints/best.ckpt predictions/ --model dose_unet
    --cases data/cases/phantom --splits data/splits/phantom.csv
    """
    from doseledger.learn.predict.cases import SplitPart
    from doseledger.learn.predict.cases import predict as predict_cases
    from doseledger.learn.recipes.dose import load_recipe

    settings = settings_of(params)
    recipe = load_recipe(settings.model(model), f"{params}: {model}").predict
    chosen = SplitPart(cases, splits, part, settings.fold, settings.repeat)
    predict_cases(checkpoint, chosen, out, recipe=recipe, tell=tell)


@resume_app.command("list")
def list_resume(
    state: Annotated[Path, typer.Option(help="Root of resume states, below the project's root.")],
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None,
    as_json: Json = False,
) -> None:
    """List what interrupted trainings have left to go on from, the latest first.

    Example: doseledger resume list --state .doseledger/resume
    """
    from doseledger.learn.training.resume import list_states
    from doseledger.learn.watch.heartbeat import describe_state

    found = [describe_state(folder) for folder in list_states(project_root() / state, model)]
    lines = [f"{one['model']} {one['fingerprint']}: epoch {one['epoch']}, step {one['step']}" for one in found]
    show(found, as_json, "\n".join(lines) or "no interrupted run")


@resume_app.command("clear")
def clear_resume(
    model: Annotated[str, typer.Argument(help="The model.")],
    state: Annotated[Path, typer.Option(help="Root of resume states, below the project's root.")],
    as_json: Json = False,
) -> None:
    """Throw a model's interrupted trainings away, so that the next one starts from the beginning.

    Example: doseledger resume clear dose_unet --state .doseledger/resume
    """
    from doseledger.learn.training.resume import clear_states

    n_cleared = clear_states(project_root() / state, model)
    show({"model": model, "cleared": n_cleared}, as_json, f"{n_cleared} interrupted runs of {model} thrown away")
