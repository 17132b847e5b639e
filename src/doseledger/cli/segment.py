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
    source: Annotated[Path, typer.Argument(help="A .nii or .nii.gz, or a folder of them.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <name>.nii.gz and segmentations.json.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Another checkpoint than the model's best.")] = None,
    protocol: Protocol = None,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Segment NIfTI images; labels on their own voxels.

    An image that can't be segmented is listed with its reason, the rest goes on.

    Example: doseledger segment seg_unet3d images/ labels/
    """
    from doseledger.core.protocol import load_protocol
    from doseledger.deliver.nifti import describe_failures, segment_images
    from doseledger.learn.kinds import open_predictor, recipe_of

    at = project(cohort)
    predictor = open_predictor(checkpoint or at.layout.model(model).checkpoint, recipe_of(at.settings, model))
    found = segment_images(predictor, load_protocol(protocol or at.layout.protocol), source, out, tell)
    text = f"{len(found['segmented'])} segmented, {len(found['failed'])} failed: {out}"
    show(found, as_json, text)
    if found["failed"]:
        raise BadInput(describe_failures(found["failed"]))
