"""The gates that doubt: what a model has not learned, what gives a label away, what is unlike the training cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.commands.audited import audited
from doseledger.commands.judge import check_app
from doseledger.commands.shared import (
    PARAMS,
    Cases,
    Cohort,
    Json,
    Params,
    Splits,
    Thresholds,
    deliver,
    settings_of,
    tell,
)

# All of this module's commands are of the group `check`.
app = typer.Typer()


@check_app.command("shortcuts")
@audited(
    "check shortcuts",
    inputs=("checkpoint", "predictions", "cases", "splits", "thresholds", "params"),
    outputs=("token", "findings"),
    reads="train and test",
)
def check_shortcuts(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt of a run.")],
    predictions: Annotated[Path, typer.Argument(help="Folder of its predictions of the test cases.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    cohort: Cohort,
    cases: Cases,
    splits: Splits,
    thresholds: Thresholds,
    token: Annotated[Path | None, typer.Option(help="Verdict {ok, digest} to write.")] = None,
    findings: Annotated[Path | None, typer.Option(help="Findings to write.")] = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Judge whether a model looks at the patient: against trivial models, and with its inputs spoiled one by one.

    Example: doseledger check shortcuts models/phantom/dose_unet/checkpoints/best.ckpt
    data/predictions/phantom/dose_unet --model dose_unet --cohort phantom --cases data/cases/phantom
    --splits data/splits/phantom.csv --thresholds validation/thresholds.yaml
    """
    from doseledger.gates.shortcuts import ShortcutFiles, judge_shortcuts
    from doseledger.learn.recipe import load_recipe

    settings = settings_of(params)
    recipe = load_recipe(settings.model(model), f"{params}: {model}").predict
    files = ShortcutFiles(checkpoint, predictions, cases, splits, thresholds, cohort, model)
    verdict = judge_shortcuts(files, recipe, fold=settings.fold, repeat=settings.repeat, tell=tell)
    deliver(verdict, token, findings, as_json)
