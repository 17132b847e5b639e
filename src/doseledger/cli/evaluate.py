"""Commands that measure and judge predictions: evaluate, shortcuts, judge, gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.record.runs import refresh_runs
from doseledger.cli.shared import (
    GATES,
    JUDGE,
    Cohort,
    Json,
    Model,
    ScaleAt,
    describe_standing,
    network_scale,
    project,
    show,
    show_table,
    stage,
    tell,
    write_verdict_of,
)
from doseledger.core.errors import BadInput

app = typer.Typer()


@app.command(rich_help_panel=JUDGE)
@audited(
    "evaluate",
    inputs=("predictions", "cases_csv", "splits", "protocol", "goals", "params"),
    outputs=("out|metrics",),
    reads="part",
)
def evaluate(
    model: Model,
    cohort: Cohort = None,
    predictions: Annotated[Path | None, typer.Option(help="Another folder of predictions.")] = None,
    out: Annotated[Path | None, typer.Option(help="Another folder of tables.")] = None,
    part: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    scale: ScaleAt = None,
    as_json: Json = False,
) -> None:
    """Measure predictions: MAE, DVH, gamma; or Dice.

    Example: doseledger evaluate dose_unet
    """
    from doseledger.core.files import write_json
    from doseledger.core.project.layout import VALIDATION
    from doseledger.core.project.protocol import load_goals, load_protocol
    from doseledger.evaluate.calibration import DrawnSets, calibrate_cohort
    from doseledger.evaluate.case import Yardsticks
    from doseledger.evaluate.cohort import TestSet, evaluate_cohort
    from doseledger.evaluate.segmentation import evaluate_segmentations
    from doseledger.report.tables.results import summary_table

    elsewhere = predictions is not None or out is not None or part != "test"
    if elsewhere and out is None:
        raise BadInput("other predictions or another part: name another folder too, with --out")
    at = project(cohort) if elsewhere else stage("evaluate", cohort, model)
    layout, settings, paths = at.layout, at.settings, at.layout.model(model)
    yardsticks = Yardsticks(load_protocol(layout.protocol), load_goals(layout.goals), settings.evaluate)
    source, target = predictions or paths.predictions, out or paths.metrics
    fold, repeat = settings.fold, settings.repeat
    test_set = TestSet(layout.cases, source, layout.splits, part, fold, repeat)
    gamma_out, at_scale = None if elsewhere else paths.gamma, settings.scale.asked(scale)
    if settings.model(model)["kind"] == "segmentation":
        measured = evaluate_segmentations(
            test_set, target, settings.evaluate, gamma_out=gamma_out, scale=at_scale, tell=tell
        )
    else:
        measured = evaluate_cohort(test_set, target, yardsticks, gamma_out=gamma_out, scale=at_scale, tell=tell)
    found = {}
    if (source / VALIDATION).is_dir() and part == "test":
        sets = DrawnSets(layout.cases, layout.splits, source / VALIDATION, source, fold, repeat)
        found = calibrate_cohort(sets, tell=tell)
    write_json(target / "calibration.json", found)
    show_table(measured, as_json, summary_table(measured))


@app.command(rich_help_panel=JUDGE)
@audited(
    "shortcuts",
    inputs=("checkpoint", "predictions", "cases_csv", "splits", "params"),
    outputs=("shortcuts",),
    reads="train and test",
)
def shortcuts(model: Model, cohort: Cohort = None, scale: ScaleAt = None, as_json: Json = False) -> None:
    """Measure a model with inputs spoiled.

    Example: doseledger shortcuts dose_unet
    """
    from doseledger.core.files import write_json
    from doseledger.evaluate.shortcuts.measure import measure_shortcuts, shortcut_numbers
    from doseledger.learn.kinds import open_predictor, recipe_of
    from doseledger.learn.predict.predictor import Opener

    at = stage("shortcuts", cohort, model)
    settings, paths = at.settings, at.layout.model(model)
    opener = Opener(open_predictor, paths.checkpoint, recipe_of(settings, model).quick())
    fold, repeat, at_scale = settings.fold, settings.repeat, network_scale(settings, scale)
    measured = measure_shortcuts(paths, opener, fold=fold, repeat=repeat, scale=at_scale, tell=tell)
    write_json(paths.shortcuts, measured)
    lines = [f"{name}: {value:.3g}" for name, value in shortcut_numbers(measured).items()]
    show(measured, as_json, "\n".join(lines))


@app.command(rich_help_panel=JUDGE)
@audited(
    "contours",
    inputs=("checkpoint", "predictions", "cases_csv", "splits", "protocol", "goals", "params"),
    outputs=("contours",),
    reads="test",
)
def contours(
    model: Model,
    by: Annotated[str | None, typer.Option(help="The segmentation; else as the settings' `contours` say.")] = None,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Measure a dose on predicted contours.

    The dose of each test case is predicted again with the contours of a segmentation, and compared with that on drawn
    ones: error, D95 of the targets, goals that flip. The report of the dose model shows it.

    Example: doseledger contours dose_unet --by seg_organs
    """
    from doseledger.core.files import write_json
    from doseledger.core.project.protocol import load_goals, load_protocol
    from doseledger.evaluate.contours import Loop, describe_contours, measure_contours
    from doseledger.ingest.physics import projected
    from doseledger.learn.kinds import open_predictor, recipe_of

    at = stage("contours", cohort, model)
    layout, settings, paths = at.layout, at.settings, at.layout.model(model)
    drawer = by or settings.contours.get(model)
    if drawer is None:
        raise BadInput(f"whose contours? Name a segmentation with --by, or under `contours` in {layout.params}")
    clip_mm, goals = load_protocol(layout.protocol).sdf_clip_mm, load_goals(layout.goals)
    loop = Loop(paths, layout.model(drawer), goals, clip_mm, settings.fold, settings.repeat)
    predictor = projected(open_predictor(paths.checkpoint, recipe_of(settings, model)))
    measured = measure_contours(loop, predictor, tell)
    write_json(paths.contours, measured)
    show(measured, as_json, "\n".join(describe_contours(measured)))


@app.command(rich_help_panel=JUDGE)
@audited(
    "judge",
    inputs=("metrics", "splits", "checkpoint", "thresholds|cohorts", "drift_verdict", "params"),
    outputs=("model_verdict",),
)
def judge(model: Model, cohort: Cohort = None, as_json: Json = False) -> None:
    """Judge a model: metrics, shortcuts, drift.

    It succeeds whatever it finds, so that the report comes of it; `gate` enforces it.

    Example: doseledger judge dose_unet
    """
    from doseledger.gates.model.judge import judge_model

    at = stage("judge", cohort, model)
    paths = at.layout.model(model)
    verdict = judge_model(paths, fold=at.settings.fold, repeat=at.settings.repeat)
    write_verdict_of(verdict, paths.model_verdict, as_json)


@app.command(rich_help_panel=GATES)
@audited("gate", inputs=("model_verdict",))
def gate(model: Model, cohort: Cohort = None) -> None:
    """Exit 1 if a model was judged unfit.

    Example: doseledger gate dose_unet
    """
    from doseledger.gates.verdict import enforce, read_verdict

    at = stage("gate", cohort, model)
    verdict = read_verdict(at.layout.model(model).model_verdict)
    try:
        print("\n".join(describe_standing(verdict)))
        enforce(verdict, at.layout.model(model).model_verdict.findings)
    finally:
        # Here and in no stage of its own: the page speaks of commits and experiments too.
        refresh_runs()
    print(f"{model}: no gate failed")
