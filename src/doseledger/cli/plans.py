"""A finished plan looked at: its dose recomputed from the file, and a picture of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import Json, show
from doseledger.core.errors import BadInput

app = typer.Typer()


@app.command("recompute-dose")
@audited("recompute-dose", reads="all")
def recompute_dose(
    cases: Annotated[list[Path], typer.Argument(help="Folders or zips of one case each: CT, RTPLAN and RTDOSE.")],
    limit_gy: Annotated[float, typer.Option(help="Exit 1 where a voxel differs by more.", min=0.0)] = 0.01,
    as_json: Json = False,
) -> None:
    """Compute the dose of RTPLANs on disk anew, and compare it with the RTDOSE beside them.

    Example: doseledger recompute-dose data/raw/phantom/case_0001.zip
    """
    from dataclasses import asdict

    from doseledger.evaluate.files.plan_dose import recompute_dose as recompute

    found = [recompute(case) for case in cases]
    lines = [
        f"{one.case_id}: {one.n_voxels} voxels up to {one.greatest_gy:.2f} Gy; off by at most {one.worst_gy:.4f} Gy, "
        f"on average {one.mean_gy:.5f} Gy"
        for one in found
    ]
    show([asdict(one) for one in found], as_json, "\n".join(lines))
    beyond = [f"{one.case_id} ({one.worst_gy:.4f} Gy)" for one in found if one.worst_gy > limit_gy]
    if beyond:
        raise BadInput(f"RTDOSE is not the dose of its RTPLAN to {limit_gy:g} Gy: {', '.join(beyond)}")


@app.command("plan-figure")
@audited("plan-figure", inputs=("protocol",), outputs=("out",), reads="all")
def plan_figure(
    case: Annotated[Path, typer.Argument(help="Folder or zip of one case: CT, RTSTRUCT, RTPLAN and RTDOSE.")],
    out: Annotated[Path, typer.Argument(help="The PNG to write.")],
    protocol: Annotated[Path, typer.Option(help="The protocol's file: names of the structures.")],
) -> None:
    """Draw a plan: isodoses on three slices through the isocentre, and apertures of its first arc.

    Example: doseledger plan-figure data/raw/phantom/case_0001.zip case_0001.png
    --protocol validation/protocols/prostate_sib.yaml
    """
    from doseledger.core.protocol import load_protocol
    from doseledger.report.figures.plan_figure import plot_plan

    plot_plan(case, load_protocol(protocol), out)
    print(out)
