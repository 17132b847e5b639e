"""Models: preflight, training, interrupted trainings, prediction."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audited, this_machine
from doseledger.cli.record.registry import kept_version
from doseledger.cli.shared import (
    GATES,
    MODEL,
    Cohort,
    Json,
    Model,
    Project,
    ScaleAt,
    network_scale,
    show,
    stage,
    tell,
    write_verdict_of,
)
from doseledger.cli.watchdog import is_further_process, watched

if TYPE_CHECKING:
    from doseledger.learn.recipes.dose import ModelRecipe
    from doseledger.learn.run import Parent, TrainingRun

app = typer.Typer()
resume_app = typer.Typer(no_args_is_help=True, help="Interrupted trainings.")
app.add_typer(resume_app, name="resume", rich_help_panel=MODEL)

DIRTY = (
    "What is trained now says so in red on every page and can't be registered. Stop here and commit, or put the files "
    "back, if it shall count; params.yaml, dvc.lock and outs of stages don't matter"
)
Devices = Annotated[int | None, typer.Option(help="Processes, one a GPU.", min=1)]
Nodes = Annotated[int | None, typer.Option(help="Machines.", min=1)]


def training_run(at: Project, model: str, devices: int | None = None, nodes: int | None = None) -> TrainingRun:
    """Return a model's training as the settings, its base and the data gate's verdict make it.

    A dirty tree is told first, before any time is spent on a model that nobody can register.

    Raises
    ------
    NotReady
        If the data gate has not judged exactly these data, the model that it starts from is not trained, or the
        library of the record that the settings ask for is absent.
    GateFailed
        If the data gate said no.
    """
    from doseledger.gates.digests import data_digest
    from doseledger.gates.verdict import require_token
    from doseledger.learn.kinds import make_family, recipe_of
    from doseledger.learn.run import TrainingRun
    from doseledger.learn.watch.loggers import require_logger
    from doseledger.ledger.provenance.stamp import git_state, run_provenance

    layout, settings = at.layout, at.settings
    require_logger(settings.train.logger)
    if (dirty := git_state(layout.root).describe()) and not is_further_process():
        tell(f"warning: {dirty}. {DIRTY}")
    token = require_token(layout.data_verdict.token, data_digest(layout), "data")
    recipe, base = recipe_of(settings, model), settings.bases.get(model)
    parts = {part: layout.model(part).checkpoint for part in settings.parts_of(model)}
    return TrainingRun(
        model=model,
        recipe=recipe,
        lr=settings.lr,
        seed=settings.seed,
        fold=settings.fold,
        repeat=settings.repeat,
        token=token,
        provenance=run_provenance(layout.root, sys.argv, layout.packages),
        family=make_family(recipe, layout.model(base).checkpoint if base else None, parts),
        devices=devices or settings.train.devices,
        nodes=nodes or settings.train.nodes,
        cohort=layout.cohort,
        parent=parent_in(at, model, recipe),
    )


def parent_in(at: Project, model: str, recipe: ModelRecipe) -> Parent | None:
    """Return the trained model that a recipe begins with; None where its weights are drawn.

    Raises
    ------
    BadInput
        If it is neither a model of the settings nor a version.
    NotReady
        If it is not trained, not registered, or neither cache nor remote has it.
    """
    from doseledger.core.errors import BadInput
    from doseledger.core.files import sha256_of_file
    from doseledger.learn.kinds import open_checkpoint
    from doseledger.learn.recipes.dose import FROM_NOTHING
    from doseledger.learn.training.parent import parent_of

    name, cohort = getattr(recipe, "init_from", FROM_NOTHING), at.layout.cohort
    if name == FROM_NOTHING:
        return None
    if "@" in name:
        path, cohort = kept_version(name)
    elif name in at.settings.models:
        path = at.layout.model(name).checkpoint
    else:
        trained = ", ".join(at.settings.models)
        raise BadInput(f"{model}: init_from names {name}, neither a model that is trained ({trained}) nor a version")
    return parent_of(open_checkpoint(path), name, cohort, sha256_of_file(path))


@app.command(rich_help_panel=GATES)
@audited(
    "preflight",
    inputs=("cases_csv", "splits", "thresholds|cohorts", "data_verdict", "params"),
    outputs=("preflight_verdict",),
    reads="train",
)
def preflight(model: Model, cohort: Cohort = None, as_json: Json = False) -> None:
    """Try 20 steps of a model, and look at the machine.

    Example: doseledger preflight dose_unet
    """
    from doseledger.gates.model.preflight import judge_preflight
    from doseledger.gates.verdict import enforce

    at = stage("preflight", cohort, model)
    paths = at.layout.model(model)
    verdict = judge_preflight(training_run(at, model), paths, tell=tell)
    write_verdict_of(verdict, paths.preflight_verdict, as_json)
    enforce(verdict, paths.preflight_verdict.findings)


@app.command(rich_help_panel=MODEL)
@watched
@audited(
    "train",
    inputs=("cases_csv", "splits", "test_set", "data_verdict", "preflight_verdict", "params"),
    outputs=("run",),
    reads="train and val",
)
def train(
    model: Model,
    cohort: Cohort = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw an interrupted run's state away.")] = False,
    devices: Devices = None,
    nodes: Nodes = None,
) -> None:
    """Train a model on cases that passed the gate.

    An interrupted run of the same settings, data and code goes on.

    Example: doseledger train dose_unet
    """
    from doseledger.gates.limits import load_thresholds
    from doseledger.gates.run_digest import run_digest
    from doseledger.gates.verdict import require_token
    from doseledger.learn.training.keeping import Kept
    from doseledger.learn.training.train import Places
    from doseledger.learn.training.train import train as train_model

    at = stage("train", cohort, model)
    layout, paths = at.layout, at.layout.model(model)
    run, limits = training_run(at, model, devices, nodes), load_thresholds(layout)
    judged = run_digest(run, layout.splits, limits.preflight)
    require_token(paths.preflight_verdict.token, judged, "preflight")
    places = Places(layout.cases, layout.splits, paths.run, this_machine().states, layout.physics)
    kept = Kept(at.settings.train.checkpoint_steps, at.settings.train.logger)
    train_model(run, places, fresh=fresh, tell=tell, red_flags=limits.training, kept=kept)


@app.command(rich_help_panel=MODEL)
@audited(
    "predict",
    inputs=("checkpoint", "cases_csv", "splits", "params"),
    outputs=("out|predictions",),
    reads="part",
)
def predict(
    model: Model,
    cohort: Cohort = None,
    part: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Another folder for <case>.npz.")] = None,
    scale: ScaleAt = None,
) -> None:
    """Predict the dose of the test cases.

    A model that draws doses predicts the validation cases too, to calibrate their spread.

    Example: doseledger predict dose_unet
    """
    from doseledger.core.project.layout import VALIDATION
    from doseledger.ingest.physics import projected
    from doseledger.learn.kinds import open_predictor, recipe_of
    from doseledger.learn.predict.predictor import Opener, SplitPart, predict_part

    at = stage("predict", cohort, model)
    layout, settings, paths = at.layout, at.settings, at.layout.model(model)
    opener = Opener(open_predictor, paths.checkpoint, recipe_of(settings, model), projected)
    folder = out or paths.predictions
    asked = SplitPart(layout.cases, layout.splits, part, settings.fold, settings.repeat, layout.physics)
    at_scale = network_scale(settings, scale)
    predict_part(opener, asked, folder, scale=at_scale, tell=tell)
    if opener().draws and part == "test":
        predict_part(opener, replace(asked, which="val"), folder / VALIDATION, scale=at_scale, tell=tell)


@resume_app.command("list")
def list_resume(
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None,
    as_json: Json = False,
) -> None:
    """List interrupted trainings, the latest first.

    Example: doseledger resume list
    """
    from doseledger.learn.training.resume import list_states
    from doseledger.learn.watch.heartbeat import describe_state

    found = [describe_state(folder) for folder in list_states(this_machine().states, model)]
    lines = [f"{one['model']} {one['fingerprint']}: epoch {one['epoch']}, step {one['step']}" for one in found]
    show(found, as_json, "\n".join(lines) or "no interrupted run")


@resume_app.command("clear")
def clear_resume(model: Model, as_json: Json = False) -> None:
    """Throw a model's interrupted trainings away.

    Example: doseledger resume clear dose_unet
    """
    from doseledger.learn.training.resume import clear_states

    n_cleared = clear_states(this_machine().states, model)
    text = f"{n_cleared} interrupted runs of {model} thrown away"
    show({"model": model, "cleared": n_cleared}, as_json, text)
