"""Commands for the clinic: a predicted dose as DICOM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import MODEL, Cohort, Json, Protocol, project, show, tell
from doseledger.core.errors import BadInput

app = typer.Typer()
deliver_app = typer.Typer(no_args_is_help=True, help="Back to the clinic: predicted dose as DICOM.")
app.add_typer(deliver_app, name="deliver", rich_help_panel=MODEL)


@deliver_app.command("dose")
@audited("deliver dose", inputs=("checkpoint", "protocol", "params"), outputs=("out",), reads="folder")
def predict_dicom(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    folder: Annotated[Path, typer.Argument(help="Folder or zip of one patient's DICOM; with --batch, of patients.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <name>.npz, <name>/rtdose.dcm and rtplan.dcm.")],
    batch: Annotated[bool, typer.Option("--batch", help="FOLDER holds one folder or zip a patient.")] = False,
    prescription: Annotated[
        list[str] | None, typer.Option(help="TARGET=GY in place of the protocol's; repeat for each target.")
    ] = None,
    fractions: Annotated[int | None, typer.Option(help="In place of the protocol's.", min=1)] = None,
    grid_mm: Annotated[float | None, typer.Option(help="Voxels of the RTDOSE in mm; else the protocol's.")] = None,
    bits: Annotated[int, typer.Option(help="16 or 32 bits a voxel.")] = 16,
    cases: Annotated[Path | None, typer.Option(help="The model's own cases, to know its patients again.")] = None,
    protocol: Protocol = None,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Predict patients from CT and RTSTRUCT, as RTDOSE.

    Example: doseledger deliver dose models/phantom/dose_unet/checkpoints/best.ckpt patient/ predicted/
    """
    from doseledger.core.protocol import load_protocol
    from doseledger.deliver.dose import (
        DicomRequest,
        find_patients,
        predict_folder,
        protocol_of_prediction,
        read_prescription_options,
    )
    from doseledger.deliver.seen import seen_cases
    from doseledger.ingest.physics import projected
    from doseledger.learn.kinds import open_predictor, recipe_of
    from doseledger.learn.training.checkpoint import model_of

    if bits not in (16, 32) or (grid_mm is not None and grid_mm <= 0):
        raise BadInput(f"--bits {bits}, --grid-mm {grid_mm}: wanted 16 or 32 bits, and a spacing above 0 mm")
    doses = read_prescription_options(prescription or [])
    at = project(cohort)
    rules = load_protocol(protocol or at.layout.protocol)
    wanted = protocol_of_prediction(rules, doses, fractions)
    predictor = projected(open_predictor(checkpoint, recipe_of(at.settings, model_of(checkpoint))))
    seen = seen_cases(predictor.checkpoint.trained_on, predictor.checkpoint.selected_on, cases)
    request = DicomRequest(predictor, wanted, seen, grid_mm, cast("Literal[16, 32]", bits))
    found = predict_folder(find_patients(folder, batch=batch), request, out, tell)
    show(found, as_json, f"{len(found['predicted'])} predicted, {len(found['failed'])} failed: {out}/predictions.json")
    if found["failed"]:
        raise BadInput("no dose for " + "; ".join(f"{name}: {why}" for name, why in found["failed"].items()))
