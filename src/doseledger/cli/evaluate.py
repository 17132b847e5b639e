"""What a dose is worth: evaluation, gamma, DVH, challenge scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import (
    PARAMS,
    Cases,
    Cohort,
    Goals,
    Json,
    Params,
    Protocols,
    Splits,
    goals_of,
    protocol_of,
    settings_of,
    show,
    tell,
)
from doseledger.core.errors import BadInput

if TYPE_CHECKING:
    from doseledger.evaluate.files.gamma import Engine

app = typer.Typer()
score_app = typer.Typer(no_args_is_help=True, help="Scores as a challenge defines them.")
app.add_typer(score_app, name="score")


@app.command()
@audited(
    "evaluate",
    inputs=("predictions", "cases", "splits", "protocols", "goals", "params"),
    outputs=("out",),
    reads="part",
)
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder that `predict` wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of tables and summary to write.")],
    cases: Cases,
    splits: Splits,
    cohort: Cohort,
    protocols: Protocols,
    goals: Goals,
    part: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Measure predictions against the plans: MAE under named masks, DVH, clinical goals and gamma.

    Example: doseledger evaluate data/predictions/phantom/dose_unet metrics/ --cases data/cases/phantom
    --splits data/splits/phantom.csv --cohort phantom --protocols validation/protocols --goals validation/goals
    """
    from doseledger.core.files import to_json
    from doseledger.evaluate.case import Yardsticks
    from doseledger.evaluate.cohort import TestSet, evaluate_cohort

    settings = settings_of(params)
    yardsticks = Yardsticks(
        protocol_of(settings, cohort, protocols), goals_of(settings, cohort, goals), settings.evaluate
    )
    test_set = TestSet(cases, predictions, splits, part, settings.fold, settings.repeat)
    summary = evaluate_cohort(test_set, out, yardsticks, tell=tell)
    show(summary, as_json, to_json(summary))


@app.command()
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
    as_json: Json = False,
) -> None:
    """Compare two doses by gamma index; a point passes at gamma ≤ 1.

    Example: doseledger gamma plan.dcm recomputed.dcm --percent 3 --mm 3 --json
    """
    from doseledger.dosimetry.gamma.criteria import GammaCriteria
    from doseledger.evaluate.files.gamma import ENGINES, gamma_of_files

    if engine not in ("auto", *ENGINES):
        raise BadInput(f"engine {engine!r}: wanted one of auto, {', '.join(ENGINES)}")
    criteria = GammaCriteria(percent, mm, cutoff, local, interp, max_gamma, normalisation_gy)
    found = gamma_of_files(reference, evaluation, criteria, engine=cast("Engine", engine), verify=verify)
    kind = "local" if local else "global"
    text = (
        f"gamma {percent:g} %/{mm:g} mm {kind}, cutoff {cutoff:g} %: {found['pass_rate_percent']:.2f} % of "
        f"{found['n_points']} points pass (mean {found['mean_gamma']:.3f}, highest {found['highest_gamma']:.3f})"
    )
    if found["n_without"]:
        text += f"; {found['n_without']} more have no gamma (out of the evaluation's reach) and are not counted"
    if found["differ"]:
        text += f"; the two files are of different {' and '.join(found['differ'])}: make sure that they belong together"
    if verify:
        text += f"; largest difference from pymedphys {found['largest_difference_from_pymedphys']:.1e}"
    show(found, as_json, text)


@app.command()
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
    """Measure the DVH of every structure; on an RTDOSE of one plane, of the area that it cuts out of each.

    Example: doseledger dvh RS.dcm RD.dcm --statistic D95% --statistic mean --json
    """
    from doseledger.evaluate.files.dvh import STATISTICS, describe_lines, dvh_of_case, dvh_of_rtdose

    wanted = statistic or list(STATISTICS)
    if structures.suffix == ".npz":
        found = dvh_of_case(structures, wanted, dose_path=dose)
    elif dose is None:
        raise BadInput("an RTSTRUCT needs an RTDOSE beside it: doseledger dvh RS.dcm RD.dcm")
    else:
        found = dvh_of_rtdose(structures, dose, wanted, prescription_gy=prescription_gy)
    show(found, as_json, "\n".join(describe_lines(found)))


@score_app.command("openkbp")
def score_openkbp(
    predictions: Annotated[Path, typer.Argument(help="Folder of predictions: pt_N.npz, pt_N.csv or pt_N/dose.csv.")],
    reference: Annotated[Path, typer.Argument(help="Folder of patients: the challenge's, or cases.")],
    as_json: Json = False,
) -> None:
    """Score predictions as the OpenKBP challenge does: dose score and DVH score in Gy.

    Example: doseledger score openkbp predictions/ validation-pats/ --json
    """
    from doseledger.evaluate.openkbp import score_openkbp as score

    scores = score(predictions, reference)
    text = f"dose score {scores['dose_score']:.4f} Gy, DVH score {scores['dvh_score']:.4f} Gy"
    show(scores, as_json, text)
