"""Commands for structures: masks written as RTSTRUCT and DICOM SEG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import JUDGE, Json, show
from doseledger.core.errors import BadInput

app = typer.Typer()
structures_app = typer.Typer(no_args_is_help=True, help="Structures of single files.")
app.add_typer(structures_app, name="structures", rich_help_panel=JUDGE)


@structures_app.command("write")
@audited("structures write", inputs=("masks",), outputs=("out",), reads="images")
def write(
    masks: Annotated[Path, typer.Argument(help="NPZ of a case, or of a prediction that holds masks.")],
    images: Annotated[Path, typer.Argument(help="Folder or zip with the image series that they came from.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets rtstruct.dcm, seg.dcm and structures.json.")],
    formats: Annotated[list[str] | None, typer.Option("--format", help="rtstruct or seg; else both.")] = None,
    structure: Annotated[list[str] | None, typer.Option(help="This one alone; repeat for more.")] = None,
    largest_part: Annotated[
        list[str] | None, typer.Option(help="Keep the largest part of this structure; `all` for each.")
    ] = None,
    fill_holes: Annotated[
        list[str] | None, typer.Option(help="Fill the holes of this structure; `all` for each.")
    ] = None,
    own_names: Annotated[bool, typer.Option("--own-names", help="Keep names where TG-263 has others.")] = False,
    identity: Annotated[
        bool, typer.Option("--identity", help="Copy the patient's name and dates from the image.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write masks as RTSTRUCT and DICOM SEG.

    Example: doseledger structures write data/cases/phantom/case_0001.npz data/raw/phantom/case_0001.zip out/
    """
    from doseledger.deliver.structures import StructuresRequest, check_formats, write_structures

    request = StructuresRequest(
        formats=check_formats(formats or []),
        only=tuple(structure or ()),
        largest_part=tuple(largest_part or ()),
        fill_holes=tuple(fill_holes or ()),
        own_names=own_names,
        identity=identity,
    )
    found = write_structures(masks, images, out, request)
    lines = [f"warning: {line}" for line in found["warnings"]]
    done = {name: row for name, row in found["structures"].items() if "reason" not in row}
    lines += [f"{row['name']}: {row['image_volume_cc']:.2f} cm³" for row in done.values()]
    show(found, as_json, "\n".join([*lines, f"{len(done)} structures in {out}: {', '.join(found['files'])}"]))
    left_out = {name: row["reason"] for name, row in found["structures"].items() if "reason" in row}
    if left_out:
        raise BadInput("not written: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()))
