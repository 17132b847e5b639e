"""Commands for the clinic: a predicted dose and its plan as DICOM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import (
    MODEL,
    Cohort,
    Json,
    Machine,
    Protocol,
    ScaleAt,
    project,
    show,
    show_table,
    stage,
    tell,
)
from doseledger.core.errors import BadInput

if TYPE_CHECKING:
    from doseledger.core.project.layout import Layout
    from doseledger.core.project.protocol import GoalSet

app = typer.Typer()
deliver_app = typer.Typer(no_args_is_help=True, help="Back to the clinic: predicted doses and plans as DICOM.")
app.add_typer(deliver_app, name="deliver", rich_help_panel=MODEL)


def _goals_beside(layout: Layout, protocol: Path | None) -> GoalSet | None:
    """Return the cohort's goals; none where a protocol from elsewhere comes without a cohort."""
    from doseledger.core.project.protocol import load_goals

    has_cohort = (layout.cohorts / layout.cohort).is_dir()
    return load_goals(layout.goals) if protocol is None or has_cohort else None


@deliver_app.command("dose")
@audited("deliver dose", inputs=("checkpoint", "protocol", "params"), outputs=("out",), reads="folder")
def predict_dicom(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    folder: Annotated[Path, typer.Argument(help="Folder or zip of one patient's DICOM; with --batch, of patients.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <name>.npz, and <name>/ with DICOM, record, page.")],
    batch: Annotated[bool, typer.Option("--batch", help="FOLDER holds one folder or zip a patient.")] = False,
    prescription: Annotated[
        list[str] | None, typer.Option(help="TARGET=GY in place of the protocol's; repeat for each target.")
    ] = None,
    fractions: Annotated[int | None, typer.Option(help="In place of the protocol's.", min=1)] = None,
    grid_mm: Annotated[float | None, typer.Option(help="Voxels of the RTDOSE in mm; else the protocol's.")] = None,
    bits: Annotated[int, typer.Option(help="16 or 32 bits a voxel.")] = 16,
    cases: Annotated[Path | None, typer.Option(help="The model's own cases, to know its patients again.")] = None,
    page: Annotated[bool, typer.Option(help="A page a patient: slices, DVH, goals, provenance.")] = True,
    protocol: Protocol = None,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Predict patients from CT and RTSTRUCT, as RTDOSE.

    Example: doseledger deliver dose models/phantom/dose_unet/checkpoints/best.ckpt patient/ predicted/
    """
    from doseledger.core.project.protocol import load_protocol
    from doseledger.deliver.dose import (
        DicomRequest,
        find_patients,
        predict_folder,
        protocol_of_prediction,
        read_prescription_options,
    )
    from doseledger.deliver.measured import Yardstick
    from doseledger.deliver.seen import seen_cases
    from doseledger.ingest.physics import projected
    from doseledger.learn.kinds import open_predictor, recipe_of
    from doseledger.learn.training.checkpoint import model_of
    from doseledger.ledger.registry.tag import model_origin
    from doseledger.report.prediction import page_maker, predictions_table

    if bits not in (16, 32) or (grid_mm is not None and grid_mm <= 0):
        raise BadInput(f"--bits {bits}, --grid-mm {grid_mm}: wanted 16 or 32 bits, and a spacing above 0 mm")
    doses = read_prescription_options(prescription or [])
    at = project(cohort)
    rules = load_protocol(protocol or at.layout.protocol)
    wanted = protocol_of_prediction(rules, doses, fractions)
    predictor = projected(open_predictor(checkpoint, recipe_of(at.settings, model_of(checkpoint))))
    seen = seen_cases(predictor.checkpoint.all_trained_on, predictor.checkpoint.all_selected_on, cases)
    goals = _goals_beside(at.layout, protocol)
    make_page = page_maker(at.layout.templates, wanted, goals, at.settings.report.figure_dpi)
    if page and not at.layout.templates.is_dir():
        tell(f"WARNING: no page: {at.layout.templates} is absent; take it over from the program's own repository")
    request = DicomRequest(
        predictor,
        wanted,
        seen,
        grid_mm,
        cast("Literal[16, 32]", bits),
        yardstick=Yardstick(at.settings.evaluate.dvh_statistics, rules, goals),
        page=make_page if page and at.layout.templates.is_dir() else None,
        origin=model_origin(at.layout.root, predictor.sha256),
    )
    found = predict_folder(find_patients(folder, batch=batch), request, out, tell)
    show_table(found, as_json, predictions_table(found), f"in {out}: a folder a patient with DICOM, record and page")
    if found["failed"]:
        raise BadInput("no dose for " + "; ".join(f"{name}: {why}" for name, why in found["failed"].items()))


@deliver_app.command("plan")
@audited(
    "deliver plan",
    inputs=("prediction", "machine", "protocol", "goals", "params"),
    outputs=("out",),
    reads="what",
)
def deliver_plan(
    what: Annotated[
        str, typer.Argument(help="A model: all its test cases. Or a case, or the folder or zip of a patient's DICOM.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of one patient's files; else the model's plans.")] = None,
    prediction: Annotated[Path | None, typer.Option(help="NPZ of the predicted dose; else the model's.")] = None,
    model: Annotated[str | None, typer.Option(help="Whose prediction of a case; else the first one's.")] = None,
    goal: Annotated[
        list[str] | None, typer.Option(help="Wanted for this patient: 'Rectum V65Gy < 10 %'; repeat for more.")
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Compute it with set-up errors and other densities too.")
    ] = False,
    mu_weight: Annotated[float | None, typer.Option(help="In place of the settings'; 0: off.", min=0.0)] = None,
    edge_weight: Annotated[float | None, typer.Option(help="In place of the settings'; 0: off.", min=0.0)] = None,
    outline_margin_mm: Annotated[float | None, typer.Option(help="In place of the settings'; 0: off.", min=0.0)] = None,
    machine: Machine = None,
    protocol: Protocol = None,
    cohort: Cohort = None,
    scale: ScaleAt = None,
    as_json: Json = False,
) -> None:
    """Make deliverable plans of predicted doses.

    Example: doseledger deliver plan case_0011 --out delivered/case_0011
    """
    from doseledger.core.files import read_json
    from doseledger.core.pool.cluster import local
    from doseledger.core.pool.fanout import over_cases
    from doseledger.core.project.protocol import load_goals, load_protocol
    from doseledger.deliver.cohort import Delivered, deliver_cohort
    from doseledger.deliver.gap import describe_delivery
    from doseledger.deliver.plan import ROBUSTNESS_FILE, PlanRequest, deliver_named
    from doseledger.deliver.robustness import describe_robustness
    from doseledger.deliver.wishes import read_wishes, with_wishes
    from doseledger.planning.machine.linac import load_machine

    at = project(cohort)
    layout, settings = at.layout, at.settings
    rules = load_protocol(protocol or layout.protocol)
    wishes = read_wishes(goal or [], rules)
    options = {"mu_weight": mu_weight, "edge_weight": edge_weight, "outline_margin_mm": outline_margin_mm}
    asked = {name: value for name, value in options.items() if value is not None}
    chosen = settings.deliver.model_copy(update=asked)
    goals = with_wishes(load_goals(layout.goals), wishes)
    request = PlanRequest(rules, goals, chosen, load_machine(machine or chosen.machine), tuple(wishes), robustness)
    if what in settings.models:
        if goal or robustness or asked or out or prediction or model or protocol or machine:
            raise BadInput(f"{what} is a model, whose plans are a stage; the options are for one patient")
        stage("deliver", cohort, what)
        paths = layout.model(what)
        part = Delivered(layout.raw, layout.cases, paths.predictions, layout.splits, settings.fold, settings.repeat)
        found = deliver_cohort(part, paths.plans, paths.delivery, request, scale=settings.scale.asked(scale), tell=tell)
        show(found, as_json, f"{found['n_cases']} plans in {paths.plans}, {found['n_failed']} failed: {paths.delivery}")
        return
    if out is None:
        raise BadInput("name the folder of the patient's files with --out")
    of_model = layout.model(model or settings.models[0])
    folders = (layout.raw, layout.cases, of_model.predictions)
    # A process of its own, with one thread: those of BLAS would only wait for one another.
    done = over_cases(deliver_named, {what: (what, folders, prediction, request, out)}, local(1), tell=tell)
    judged = done.complete()[what]
    lines = describe_delivery(judged)
    if robustness:
        lines += describe_robustness(read_json(out / ROBUSTNESS_FILE))
    for warning in judged["plan"]["warnings"]:
        tell(f"WARNING: {what}: {warning}")
    show(judged, as_json, "\n".join([*lines, f"  {out}: RTPLAN, RTDOSE, plan.json"]))
