"""The command that segments images with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import MODEL, Cohort, Json, Model, Protocol, project, show, tell
from doseledger.core.errors import BadInput

app = typer.Typer()


@app.command(rich_help_panel=MODEL)
@audited("segment", inputs=("checkpoint", "source", "protocol", "params"), outputs=("out",), reads="source")
def segment(
    model: Model,
    source: Annotated[
        Path, typer.Argument(help="A .nii or .nii.gz, a folder of them; or folder or zip of a patient's DICOM.")
    ],
    out: Annotated[
        Path, typer.Argument(help="Folder that gets <name>.nii.gz or <name>/rtstruct.dcm, and segmentations.json.")
    ],
    batch: Annotated[bool, typer.Option("--batch", help="SOURCE holds one DICOM folder or zip a patient.")] = False,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="Of DICOM: rtstruct or seg; repeat for both. Else rtstruct.")
    ] = None,
    own_names: Annotated[bool, typer.Option("--own-names", help="Of DICOM: no names of TG-263.")] = False,
    identity: Annotated[
        bool, typer.Option("--identity", help="Of DICOM: copy the patient's name and dates from the image.")
    ] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Another checkpoint than the model's best.")] = None,
    protocol: Protocol = None,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Segment images: NIfTI labels, or RTSTRUCT.

    NIfTI gives NIfTI, and a DICOM series RTSTRUCT or DICOM SEG, on the image's own voxels. An image that can't be
    segmented is listed with its reason, the rest goes on.

    Example: doseledger segment seg_organs patients/anon_1 structures/
    """
    from doseledger.core.project.protocol import load_protocol
    from doseledger.deliver.dose import find_patients
    from doseledger.deliver.nifti import describe_failures, segment_images
    from doseledger.deliver.series import SeriesRequest, describe_structures, segment_patients
    from doseledger.deliver.structures import StructuresRequest, check_formats
    from doseledger.ingest.nifti.files import holds_nifti
    from doseledger.learn.kinds import open_predictor, recipe_of

    at = project(cohort)
    rules = load_protocol(protocol or at.layout.protocol)
    of_dicom = batch or identity or own_names or bool(formats)
    written = StructuresRequest(check_formats(formats or ["rtstruct"]), own_names=own_names, identity=identity)
    if of_dicom and holds_nifti(source):
        raise BadInput(f"{source} holds NIfTI; --batch, --format, --own-names and --identity are for DICOM")
    predictor = open_predictor(checkpoint or at.layout.model(model).checkpoint, recipe_of(at.settings, model))
    if holds_nifti(source):
        found = segment_images(predictor, rules, source, out, tell)
        lines = []
    else:
        patients = find_patients(source, batch=batch)
        found = segment_patients(patients, SeriesRequest(predictor, rules, written), out, tell)
        lines = describe_structures(found)
    lines.append(f"{len(found['segmented'])} segmented, {len(found['failed'])} failed: {out}")
    show(found, as_json, "\n".join(lines))
    if found["failed"]:
        raise BadInput(describe_failures(found["failed"]))
