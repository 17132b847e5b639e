"""Commands for single files: gamma, DVH, recomputed dose, scores, pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import JUDGE, Cohort, Json, Machine, Protocol, in_colour, line_width, project, show, tell
from doseledger.core.errors import BadInput

if TYPE_CHECKING:
    from doseledger.core.text.sheet import Table
    from doseledger.evaluate.files.gamma import Engine

# Resolution of a page's pictures.
PAGE_DPI = 150

app = typer.Typer()
dose_app = typer.Typer(no_args_is_help=True, help="Doses of single files.")
plan_app = typer.Typer(no_args_is_help=True, help="Plans of single files.")
app.add_typer(dose_app, name="dose", rich_help_panel=JUDGE)
app.add_typer(plan_app, name="plan", rich_help_panel=JUDGE)
machine_app = typer.Typer(no_args_is_help=True, help="Treatment machines.")
app.add_typer(machine_app, name="machine", rich_help_panel=JUDGE)


@dose_app.command("gamma")
def gamma(
    reference: Annotated[Path, typer.Argument(help="RTDOSE, or NPZ of a case or prediction: its points are asked.")],
    evaluation: Annotated[Path, typer.Argument(help="The dose that is judged, on any grid.")],
    percent: Annotated[float, typer.Option(help="Dose criterion in percent.")] = 3.0,
    mm: Annotated[float, typer.Option(help="Distance criterion in mm.")] = 3.0,
    cutoff: Annotated[float, typer.Option(help="Points below this percent of the normalisation are left out.")] = 10.0,
    local: Annotated[
        bool, typer.Option("--local", help="Percent of each point's own dose, not of the maximum.")
    ] = False,
    interp: Annotated[int, typer.Option(help="Search steps per distance criterion.")] = 10,
    max_gamma: Annotated[float, typer.Option(help="Gamma is searched up to this.")] = 2.0,
    normalisation_gy: Annotated[
        float | None, typer.Option(help="Dose of 100 %; the reference's maximum if absent.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="sampled; torch (the same on a GPU); auto (torch for volumes where there is a GPU); exact (continuous "
            "minimum); pymedphys itself."
        ),
    ] = "auto",
    verify: Annotated[int, typer.Option(help="Check so many random points against pymedphys.", min=0)] = 0,
    page: Annotated[Path | None, typer.Option(help="HTML page to write, and a PDF of the same name beside it.")] = None,
    rtdose: Annotated[Path | None, typer.Option(help="RTDOSE to write with the gamma map, for a viewer.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two doses by gamma index (passes at ≤ 1).

    Example: doseledger dose gamma plan.dcm recomputed.dcm --percent 3 --mm 3 --json
    """
    from doseledger.dosimetry.gamma.criteria import GammaCriteria
    from doseledger.evaluate.files.gamma import (
        ENGINES,
        compare_doses,
        gamma_words,
        require_rtdose,
        write_gamma_map,
    )

    if engine not in ("auto", *ENGINES):
        raise BadInput(f"engine {engine!r}: wanted one of auto, {', '.join(ENGINES)}")
    criteria = GammaCriteria(percent, mm, cutoff, local, interp, max_gamma, normalisation_gy)
    # What can't be written is told before a search of minutes.
    beside = require_rtdose(reference) if rtdose else None
    templates = project().layout.templates if page else None
    if page and page.suffix != ".html":
        raise BadInput(f"--page {page}: wanted a name that ends in .html; the PDF is written beside it")
    compared = compare_doses(reference, evaluation, criteria, engine=cast("Engine", engine), verify=verify)
    found = compared.found
    if rtdose and beside is not None:
        write_gamma_map(compared, beside, rtdose)
        tell(f"wrote {rtdose}")
    if page and templates is not None:
        from doseledger.report.gamma import write_gamma_page

        write_gamma_page(compared, (reference, evaluation), templates, page, tell, dpi=PAGE_DPI)
    text = (
        f"{gamma_words(criteria)}: {found['pass_rate_percent']:.2f} % of "
        f"{found['n_points']} points pass (mean {found['mean_gamma']:.3f}, highest {found['highest_gamma']:.3f})"
    )
    if found["n_without"]:
        text += f"; {found['n_without']} more have no gamma (out of the evaluation's reach) and are not counted"
    if found["differ"]:
        text += f"; the two files are of different {' and '.join(found['differ'])}: make sure that they belong together"
    if verify:
        text += f"; largest difference from pymedphys {found['largest_difference_from_pymedphys']:.1e}"
    show(found, as_json, text)


@dose_app.command("dvh")
def dvh(
    structures: Annotated[Path, typer.Argument(help="RTSTRUCT, or the NPZ of a case.")],
    dose: Annotated[
        Path | None, typer.Argument(help="RTDOSE, a volume or one plane, or the NPZ of a prediction.")
    ] = None,
    statistic: Annotated[
        list[str] | None, typer.Option(help="In the clinic's grammar: D95%, V70Gy, D2cc, mean.")
    ] = None,
    prescription_gy: Annotated[float | None, typer.Option(help="Dose of 100 % for V95% and the like.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the DVH of every structure.

    On an RTDOSE of one plane it is that of the area that the plane cuts out of each.

    Example: doseledger dose dvh RS.dcm RD.dcm --statistic D95% --statistic mean --json
    """
    from doseledger.evaluate.files.dvh import STATISTICS, describe_lines, dvh_of_case, dvh_of_rtdose

    wanted = statistic or list(STATISTICS)
    if structures.suffix == ".npz":
        found = dvh_of_case(structures, wanted, dose_path=dose)
    elif dose is None:
        raise BadInput("an RTSTRUCT needs an RTDOSE beside it: doseledger dose dvh RS.dcm RD.dcm")
    else:
        found = dvh_of_rtdose(structures, dose, wanted, prescription_gy=prescription_gy)
    show(found, as_json, "\n".join(describe_lines(found, _where_it_fits)))


def _where_it_fits(table: Table) -> str:
    """Return a table for a terminal that is wide enough; nothing for another, and for a log."""
    from doseledger.core.text.sheet import as_text

    text, width = as_text(table, colour=in_colour()), line_width() or 0
    return text if max(map(len, text.splitlines()), default=0) <= width else ""


@dose_app.command("score")
def score_openkbp(
    predictions: Annotated[Path, typer.Argument(help="Folder of predictions: pt_N.npz, pt_N.csv or pt_N/dose.csv.")],
    reference: Annotated[Path, typer.Argument(help="Folder of patients: the challenge's, or cases.")],
    as_json: Json = False,
) -> None:
    """Score predictions as the OpenKBP challenge does.

    Example: doseledger dose score predictions/ validation-pats/ --json
    """
    from doseledger.evaluate.openkbp import score_openkbp as score

    scores = score(predictions, reference)
    text = f"dose score {scores['dose_score']:.4f} Gy, DVH score {scores['dvh_score']:.4f} Gy"
    show(scores, as_json, text)


@dose_app.command("recompute")
@audited("dose recompute", reads="all")
def recompute_dose(
    cases: Annotated[list[Path], typer.Argument(help="Folders or zips of one case each: CT, RTPLAN and RTDOSE.")],
    limit_gy: Annotated[float, typer.Option(help="Exit 1 where a voxel differs by more.", min=0.0)] = 0.01,
    machine: Machine = None,
    as_json: Json = False,
) -> None:
    """Recompute RTPLANs and compare with their RTDOSE.

    Example: doseledger dose recompute data/raw/phantom/case_0001.zip
    """
    from dataclasses import asdict

    from doseledger.core.limit import keeps
    from doseledger.evaluate.files.plan_dose import recompute_dose as recompute
    from doseledger.planning.machine.linac import load_machine

    beam = load_machine(machine) if machine else None
    found = [recompute(case, beam) for case in cases]
    for one in found:
        if one.warning:
            tell(f"WARNING: {one.case_id}: {one.warning}")
    lines = [
        f"{one.case_id}: {one.n_voxels} voxels up to {one.greatest_gy:.2f} Gy; off by at most {one.worst_gy:.4f} Gy, "
        f"on average {one.mean_gy:.5f} Gy"
        for one in found
    ]
    show([asdict(one) for one in found], as_json, "\n".join(lines))
    beyond = [f"{one.case_id} ({one.worst_gy:.4f} Gy)" for one in found if not keeps(one.worst_gy, most=limit_gy)]
    if beyond:
        raise BadInput(f"RTDOSE is not the dose of its RTPLAN to {limit_gy:g} Gy: {', '.join(beyond)}")


@plan_app.command("complexity")
def complexity(
    files: Annotated[list[Path], typer.Argument(help="RTPLAN files, of any system.")],
    machine: Machine = None,
    as_json: Json = False,
) -> None:
    """Measure the complexity of plans.

    MU per Gy, modulation score, small gaps, leaf travel, edge over area, and, with --json, speeds at each control
    point.

    Example: doseledger plan complexity RP.dcm --json
    """
    from doseledger.evaluate.files.plan_complexity import complexity_of_files, describe_complexity
    from doseledger.planning.machine.linac import load_machine

    plans, failed = complexity_of_files(files, load_machine(machine))
    show(plans, as_json, "\n".join(line for plan in plans for line in describe_complexity(plan)))
    if failed:
        raise BadInput("; ".join(failed))


@plan_app.command("control-points")
@audited("plan control-points", inputs=("machine",), outputs=("out",), reads="all")
def control_points(
    files: Annotated[list[Path], typer.Argument(help="RTPLAN files; each gives an NPZ of its name.")],
    out: Annotated[Path, typer.Option(help="Folder of the NPZ files.")],
    machine: Machine = None,
    as_json: Json = False,
) -> None:
    """Write plans' leaves, meterset and fluence as NPZ.

    Example: doseledger plan control-points RP.dcm --out control_points
    """
    from doseledger.evaluate.files.control_points import write_control_points
    from doseledger.planning.machine.linac import load_machine

    found: dict[str, dict[str, int]] = {}
    failed = []
    twice = sorted(name for name, n in Counter(path.stem for path in files).items() if n > 1)
    if twice:
        raise BadInput(f"{len(twice)} names are there twice ({', '.join(twice)}), and would be one NPZ; rename a file")
    for path in files:
        try:
            found |= write_control_points(path, out, load_machine(machine))
        except BadInput as error:
            failed.append(str(error))
    lines = [f"{name}: {one['beams']} beams, {one['segments']} segments" for name, one in found.items()]
    show(found, as_json, "\n".join([*lines, f"{len(found)} plans in {out}"]))
    if failed:
        raise BadInput("; ".join(failed))


@plan_app.command("figure")
@audited("plan figure", inputs=("protocol",), outputs=("out",), reads="all")
def plan_figure(
    case: Annotated[Path, typer.Argument(help="Folder or zip of one case: CT, RTSTRUCT, RTPLAN and RTDOSE.")],
    out: Annotated[Path, typer.Argument(help="The PNG to write.")],
    protocol: Protocol = None,
    cohort: Cohort = None,
) -> None:
    """Draw a plan: isodoses and apertures.

    Example: doseledger plan figure data/raw/phantom/case_0001.zip case_0001.png
    """
    from doseledger.core.project.protocol import load_protocol
    from doseledger.report.figures.plan_figure import plot_plan

    rules = load_protocol(protocol or project(cohort).layout.protocol)
    plot_plan(case, rules, out)
    print(out)


@machine_app.command("fit")
@audited("machine fit", inputs=("like",), outputs=("out",), reads="all")
def machine_fit(
    scans: Annotated[list[Path], typer.Argument(help="Depth doses, profiles, output factors: .csv, .asc or .mcc.")],
    out: Annotated[Path, typer.Option(help="The machine's YAML to write.")],
    name: Annotated[str, typer.Option(help="As TreatmentMachineName of its plans says.")],
    like: Annotated[Path | None, typer.Option(help="Machine whose leaves and speeds it has; else generic.")] = None,
    gy_per_mu: Annotated[
        float | None, typer.Option(help="Gy/MU at the isocentre, 100 mm deep, 100 mm field.", min=1e-5)
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a machine's beam to measurements.

    Example: doseledger machine fit scans.mcc outputs.csv --name Linac1 --out linac1.yaml
    """
    from doseledger.core.files import sha256_of_file, write_text
    from doseledger.planning.commissioning.fit import fit_machine, machine_as_yaml
    from doseledger.planning.commissioning.scans import read_scans
    from doseledger.planning.machine.linac import load_machine

    curves, left_out = read_scans(scans)
    for line in left_out:
        tell(f"left out: {line}")
    fit = fit_machine(curves, load_machine(like), name=name, gy_per_mu=gy_per_mu)
    write_text(out, machine_as_yaml(fit.machine, {path.name: sha256_of_file(path) for path in scans}))
    load_machine(out)
    lines = [
        f"{row['kind']} of {row['side_mm']:g} mm"
        + (f", {row['depth_mm']:g} mm deep" if row["depth_mm"] else "")
        + f": off by {row['worst_percent']:.2f} % of the maximum at worst, {row['rms_percent']:.2f} % rms"
        for row in fit.rows
    ]
    found = {"machine": name, "out": str(out), "curves": fit.rows, "left_out": left_out}
    show(found, as_json, "\n".join([*lines, f"{out}: {name}, fitted to {len(fit.rows)} curves"]))
