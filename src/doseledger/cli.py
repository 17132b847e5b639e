"""The command line: one command per stage, plus the tools a physicist uses alone; no logic.

Whatever a command needs is imported inside it, so that `doseledger --help` answers at once. All paths are arguments:
dvc.yaml is the one place that knows where things lie.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from doseledger.core.errors import BadInput, DoseledgerError

if TYPE_CHECKING:
    from doseledger.cohort.dose_gamma import Engine
    from doseledger.core.protocol import GoalSet, Protocol
    from doseledger.core.settings import CohortSettings, Settings
    from doseledger.gates.digests import CohortFiles
    from doseledger.gates.verdict import Verdict
    from doseledger.learn.train import TrainingRun

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__.split("\n")[0]
)
check_app = typer.Typer(no_args_is_help=True, help="The gates: data before training, metrics after it.")
splits_app = typer.Typer(no_args_is_help=True, help="Lock or unlock a cohort's test set.")
score_app = typer.Typer(no_args_is_help=True, help="Scores as a challenge defines them.")
resume_app = typer.Typer(no_args_is_help=True, help="What interrupted trainings have left behind.")
app.add_typer(check_app, name="check")
app.add_typer(splits_app, name="splits")
app.add_typer(score_app, name="score")
app.add_typer(resume_app, name="resume")

Params = Annotated[Path, typer.Option(help="The settings file.")]
Workers = Annotated[int | None, typer.Option(help="Processes; 0 works in this one. Default: the settings'.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Cohort = Annotated[str, typer.Option(help="A key of `cohorts` in the settings.")]
Protocols = Annotated[Path, typer.Option(help="Folder of protocols.")]
Cases = Annotated[Path, typer.Option(help="Folder of cases (NPZ, cases.csv, skipped.csv).")]
Splits = Annotated[Path, typer.Option(help="Table of splits.")]
Suites = Annotated[Path, typer.Option(help="Folder of suites of expectations.")]
Thresholds = Annotated[Path, typer.Option(help="The limits.")]
Lock = Annotated[Path, typer.Option(help="The locked test set; a header alone means unlocked.")]
PARAMS = Path("params.yaml")


def main() -> NoReturn:
    """Run the command line; an error that a person can mend is one message on stderr and exit 1."""
    # Threads that wait for each other by spinning take the cores from other processes; OpenMP reads this at its start.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(prog_name="doseledger")
    except DoseledgerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _tell(line: str) -> None:
    # Progress goes to stderr: stdout holds a command's result alone, whole JSON with --json.
    print(line, file=sys.stderr, flush=True)


def _show(value: Any, as_json: bool, text: str) -> None:
    if as_json:
        from doseledger.core.files import to_json

        print(to_json(value), end="")
    else:
        print(text)


def _settings(params: Path) -> Settings:
    from doseledger.core.settings import load_settings

    return load_settings(params)


def _cohort(settings: Settings, cohort: str) -> CohortSettings:
    if cohort not in settings.cohorts:
        raise BadInput(f"cohort {cohort!r} is not in the settings' cohorts: {', '.join(settings.cohorts)}")
    return settings.cohorts[cohort]


def _protocol(settings: Settings, cohort: str, protocols: Path) -> Protocol:
    from doseledger.core.protocol import load_protocol

    return load_protocol(protocols / f"{_cohort(settings, cohort).protocol}.yaml")


def _goals(settings: Settings, cohort: str, goals: Path) -> GoalSet:
    from doseledger.core.protocol import load_goals

    return load_goals(goals / f"{_cohort(settings, cohort).goals}.yaml")


def _project_root() -> Path:
    # Where an interrupted run's state lies: DVC_ROOT is the main repository in temporary and queued runs too, whose own
    # folder is thrown away. What describes the code, the commit above all, is that of the working folder instead.
    return Path(os.environ.get("DVC_ROOT", "."))


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder of packed cases to write.")],
    raw_list: Annotated[Path, typer.Option(help="Table of the cases and their SHA256 to write.")],
    goals: Annotated[Path, typer.Option(help="Clinical goals that every plan must pass.")],
    params: Params = PARAMS,
) -> None:
    """Plan the synthetic cohort and write it as DICOM-RT.

    Example: doseledger phantom data/raw/phantom --raw-list data/raw/phantom.csv
    --goals validation/goals/prostate_sib.yaml
    """
    from doseledger.cohort.phantom import make_cohort, tabulate_goals
    from doseledger.core.protocol import load_goals

    wanted = load_goals(goals)
    made = make_cohort(out, raw_list, _settings(params).phantom, wanted, tell=_tell)
    print(tabulate_goals(made, wanted).to_string(index=False))


@app.command()
def pack(
    raw: Annotated[Path, typer.Argument(help="Folder with one folder or one zip a case.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <case>.zip.")],
    raw_list: Annotated[Path, typer.Option(help="Table of the cases and their SHA256 to write.")],
) -> None:
    """Pack raw cases as one deterministic, stored zip each, and list them.

    Example: doseledger pack raw/ data/raw/prostate --raw-list data/raw/prostate.csv
    """
    from doseledger.cohort.pack import pack as pack_cases

    count = pack_cases(raw, out, raw_list, _tell)
    print(f"{count} cases packed into {out}, listed in {raw_list}")


@app.command()
def ingest(
    raw: Annotated[Path, typer.Argument(help="Folder with one folder or one zip a case.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <case>.npz, cases.csv and skipped.csv.")],
    protocol: Annotated[Path | None, typer.Option(help="The protocol's file.")] = None,
    cohort: Annotated[str | None, typer.Option(help="Or the cohort, whose protocol the settings name.")] = None,
    protocols: Annotated[Path | None, typer.Option(help="Folder of protocols, with --cohort.")] = None,
    raw_list: Annotated[Path | None, typer.Option(help="Table of the cases that must be there.")] = None,
    index: Annotated[Path | None, typer.Option(help="Record of earlier conversions, below the project's root.")] = None,
    cache: Annotated[Path | None, typer.Option(help="DVC's store by MD5, below the project's root.")] = None,
    workers: Workers = None,
    shard: Annotated[str | None, typer.Option(help="Only every n-th case from the i-th on: i/n.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Address of a Dask scheduler.")] = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Convert raw cases to NPZ on the protocol's grid; bad cases are listed with their reason, the rest goes on.

    Example: doseledger ingest raw/ cases/ --protocol validation/protocols/prostate_sib.yaml
    """
    from doseledger.cohort.ingest import IngestRun
    from doseledger.cohort.ingest import ingest as ingest_cohort
    from doseledger.core.protocol import load_protocol

    if protocol is not None:
        chosen = load_protocol(protocol)
        workers = workers or 0
    elif cohort is not None and protocols is not None:
        settings = _settings(params)
        chosen = _protocol(settings, cohort, protocols)
        workers = settings.ingest.workers if workers is None else workers
    else:
        raise BadInput("name the protocol's file with --protocol, or --cohort and --protocols")
    root = _project_root()
    run = IngestRun(
        workers=workers,
        raw_list=raw_list,
        index=root / index if index else None,
        cache_dir=root / cache if cache else None,
        shard=shard,
        cluster=cluster,
    )
    count = ingest_cohort(raw, out, chosen, run, _tell)
    text = f"{count.converted} converted, {count.reused} unchanged, {count.skipped} skipped, {count.failed} failed"
    more = "" if not count.skipped + count.failed else f"; reasons in {out / 'skipped.csv'}"
    _show(dataclasses.asdict(count), as_json, text + more)


@app.command()
def deidentify(
    raw: Annotated[Path, typer.Argument(help="Folder with one folder or one zip a case.")],
    out: Annotated[Path, typer.Argument(help="Folder for the clean copies.")],
    protocol: Annotated[Path, typer.Option(help="The protocol, whose `phi` block says what may stay.")],
    salt: Annotated[Path, typer.Option(help="Secret of this cohort, made once; keep it, and keep it private.")],
) -> None:
    """Write copies without what could identify a patient: UIDs stay linked, dates are shifted.

    Example: doseledger deidentify raw/ clean/ --protocol validation/protocols/prostate_sib.yaml
    --salt ~/prostate.salt
    """
    from doseledger.cohort.deidentify import deidentify as deidentify_cases
    from doseledger.cohort.deidentify import read_salt
    from doseledger.core.protocol import load_protocol

    written = deidentify_cases(raw, out, load_protocol(protocol), read_salt(salt), _tell)
    print(f"clean copies written to {out}: {len(written)}")


@app.command()
def split(
    cases_csv: Annotated[Path, typer.Argument(help="Table of cases.")],
    out: Annotated[Path, typer.Argument(help="Table of splits to write.")],
    lock: Annotated[Path, typer.Option(help="The locked test set; a header alone means unlocked.")],
    params: Params = PARAMS,
) -> None:
    """Deal patients to train, val and test.

    Example: doseledger split data/cases/phantom/cases.csv data/splits/phantom.csv
    --lock validation/test_sets/phantom.csv
    """
    from doseledger.cohort.splits import make_splits

    make_splits(cases_csv, lock, out, _settings(params).splits, _tell)


@splits_app.command("lock")
def lock_splits(
    lock: Annotated[Path, typer.Argument(help="The locked test set to write.")],
    cases: Annotated[Path, typer.Option(help="Table of cases.")],
    splits: Splits,
    reason: Annotated[str, typer.Option(help="Why it is locked now.")],
    by_name: Annotated[bool, typer.Option("--by-name", help="Without digests: synthetic patients only.")] = False,
) -> None:
    """Lock the test patients of the present splits: from now on they never move.

    Example: doseledger splits lock validation/test_sets/phantom.csv --cases data/cases/phantom/cases.csv
    --splits data/splits/phantom.csv --reason "first evaluation"
    """
    from datetime import date

    from doseledger.cohort.test_set import lock as lock_test_set

    today = date.today().isoformat()
    table = lock_test_set(lock, cases, splits, locked_on=today, reason=reason, by_name=by_name)
    print(f"{len(table)} test cases locked in {lock}; commit it")


@splits_app.command("unlock")
def unlock_splits(
    lock: Annotated[Path, typer.Argument(help="The locked test set.")],
    why: Annotated[str, typer.Option(help="Why the lock may be given up.")],
    pseudonym: Annotated[list[str] | None, typer.Option(help="Only these patients.")] = None,
) -> None:
    """Unlock a test set, or some of its patients.

    Example: doseledger splits unlock validation/test_sets/phantom.csv --why "cohort replaced"
    """
    from datetime import date

    from doseledger.cohort.test_set import unlock

    removed = unlock(lock, unlocked_on=date.today().isoformat(), why=why, pseudonyms=pseudonym)
    print(f"{len(removed)} rows unlocked, kept in {lock.with_suffix('.unlocked.csv')}; commit both files")


@check_app.command("data")
def check_data(
    cases: Annotated[Path, typer.Argument(help="Folder of cases.")],
    splits: Annotated[Path, typer.Argument(help="Table of splits.")],
    cohort: Cohort,
    protocols: Protocols,
    suites: Suites,
    thresholds: Thresholds,
    lock: Lock,
    token: Annotated[Path | None, typer.Option(help="Verdict {ok, digest} to write, for later stages.")] = None,
    findings: Annotated[Path | None, typer.Option(help="Findings to write, for the report.")] = None,
    html: Annotated[Path | None, typer.Option(help="Page of the findings to write, with --template.")] = None,
    template: Annotated[Path | None, typer.Option(help="Template of that page.")] = None,
    workers: Workers = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Judge a cohort before anything trains on it; exit 1 if it may not be trained on.

    Example: doseledger check data data/cases/phantom data/splits/phantom.csv --cohort phantom
    --protocols validation/protocols --suites validation/suites --thresholds validation/thresholds.yaml
    --lock validation/test_sets/phantom.csv
    """
    from doseledger.gates.cohort import judge_cohort
    from doseledger.gates.page import write_page

    settings = _settings(params)
    files = _cohort_files(settings, cohort, cases, splits, (protocols, suites, thresholds, lock))
    workers = settings.ingest.workers if workers is None else workers
    verdict = judge_cohort(files, settings.ingest.accept_failed, workers=workers, tell=_tell)
    if html is not None and template is not None:
        write_page(verdict, template, html)
    _deliver(verdict, token, findings, as_json)


@check_app.command("metrics")
def check_metrics(
    metrics: Annotated[Path, typer.Argument(help="Folder that `evaluate` wrote.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    cohort: Cohort,
    splits: Splits,
    checkpoint: Annotated[Path, typer.Option(help="The model that was evaluated.")],
    thresholds: Thresholds,
    token: Annotated[Path | None, typer.Option(help="Verdict {ok, digest} to write.")] = None,
    findings: Annotated[Path | None, typer.Option(help="Findings to write.")] = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Judge a model's metrics against its thresholds; exit 1 if it may not be released.

    Example: doseledger check metrics reports/metrics/phantom/dose_unet --model dose_unet --cohort phantom
    --splits data/splits/phantom.csv --checkpoint models/phantom/dose_unet/checkpoints/best.ckpt
    --thresholds validation/thresholds.yaml
    """
    from doseledger.gates.metrics import MetricsFiles, judge_metrics

    settings = _settings(params)
    files = MetricsFiles(metrics, splits, checkpoint, thresholds, cohort, model)
    verdict = judge_metrics(files, fold=settings.fold, repeat=settings.repeat)
    _deliver(verdict, token, findings, as_json)


@app.command()
def preflight(
    model: Annotated[str, typer.Argument(help="A block of the settings.")],
    cases: Cases,
    splits: Splits,
    thresholds: Thresholds,
    data_token: Annotated[Path, typer.Option(help="The data gate's verdict.")],
    token: Annotated[Path | None, typer.Option(help="Verdict {ok, digest} to write.")] = None,
    findings: Annotated[Path | None, typer.Option(help="Findings to write.")] = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Try real loaders and 20 steps of a model on one fixed batch, and look at the machine.

    Example: doseledger preflight dose_unet --cases data/cases/phantom --splits data/splits/phantom.csv
    --thresholds validation/thresholds.yaml --data-token reports/verdicts/phantom/data.json
    """
    from doseledger.gates.preflight import judge_preflight

    run = _training_run(_settings(params), model, params, data_token)
    verdict = judge_preflight(run, cases, splits, thresholds, tell=_tell)
    _deliver(verdict, token, findings, as_json)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A block of the settings.")],
    out: Annotated[Path, typer.Argument(help="Folder of the run to write.")],
    cases: Cases,
    splits: Splits,
    cohort: Cohort,
    protocols: Protocols,
    suites: Suites,
    thresholds: Thresholds,
    lock: Lock,
    data_token: Annotated[Path, typer.Option(help="The data gate's verdict on exactly these cases and splits.")],
    preflight_token: Annotated[Path, typer.Option(help="Preflight's verdict on exactly this model.")],
    state: Annotated[Path, typer.Option(help="Root of resume states, below the project's root.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw an interrupted run's state away.")] = False,
    params: Params = PARAMS,
) -> None:
    """Train a model on the cases that passed the data gate; an interrupted run of the same settings goes on.

    Example: see the train stage in dvc.yaml; `dvc repro train@dose_unet` runs it.
    """
    from doseledger.gates.digests import data_digest, run_digest
    from doseledger.gates.limits import load_thresholds
    from doseledger.gates.verdict import require_token
    from doseledger.learn.train import Places
    from doseledger.learn.train import train as train_model

    settings = _settings(params)
    files = _cohort_files(settings, cohort, cases, splits, (protocols, suites, thresholds, lock))
    require_token(data_token, data_digest(files), "data")
    run = _training_run(settings, model, params, data_token)
    require_token(preflight_token, run_digest(run, splits, load_thresholds(thresholds).preflight), "preflight")
    train_model(run, Places(cases, splits, out, _project_root() / state), fresh=fresh, tell=_tell)


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="best.ckpt or last.ckpt of a run.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <case>.npz.")],
    cases: Cases,
    splits: Splits,
    model: Annotated[str, typer.Option(help="The block of the settings whose `predict` holds.")],
    part: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    params: Params = PARAMS,
) -> None:
    """Predict the dose of the test cases, each on its own grid.

    Example: doseledger predict models/phantom/dose_unet/checkpoints/best.ckpt predictions/ --model dose_unet
    --cases data/cases/phantom --splits data/splits/phantom.csv
    """
    from doseledger.learn.predict import SplitPart
    from doseledger.learn.predict import predict as predict_cases
    from doseledger.learn.recipe import load_recipe

    settings = _settings(params)
    recipe = load_recipe(settings.model(model), f"{params}: {model}").predict
    chosen = SplitPart(cases, splits, part, settings.fold, settings.repeat)
    predict_cases(checkpoint, chosen, out, recipe=recipe, tell=_tell)


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder that `predict` wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of tables and summary to write.")],
    cases: Cases,
    splits: Splits,
    cohort: Cohort,
    protocols: Protocols,
    goals: Annotated[Path, typer.Option(help="Folder of clinical goals.")],
    part: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Measure predictions against the plans: MAE under named masks, DVH, clinical goals and gamma.

    Example: doseledger evaluate data/predictions/phantom/dose_unet metrics/ --cases data/cases/phantom
    --splits data/splits/phantom.csv --cohort phantom --protocols validation/protocols --goals validation/goals
    """
    from doseledger.cohort.evaluation import TestSet, evaluate_cohort
    from doseledger.core.files import to_json
    from doseledger.evaluate.metrics import Yardsticks

    settings = _settings(params)
    yardsticks = Yardsticks(_protocol(settings, cohort, protocols), _goals(settings, cohort, goals), settings.evaluate)
    test_set = TestSet(cases, predictions, splits, part, settings.fold, settings.repeat)
    summary = evaluate_cohort(test_set, out, yardsticks, tell=_tell)
    _show(summary, as_json, to_json(summary))


@app.command()
def report(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    html: Annotated[Path, typer.Option(help="Page to write.")],
    pdf: Annotated[Path, typer.Option(help="PDF to write.")],
    figures: Annotated[Path, typer.Option(help="Folder of figures to write.")],
    templates: Annotated[Path, typer.Option(help="Folder of templates.")],
    run: Annotated[Path, typer.Option(help="Folder that `train` wrote.")],
    metrics: Annotated[Path, typer.Option(help="Folder that `evaluate` wrote.")],
    predictions: Annotated[Path, typer.Option(help="Folder that `predict` wrote.")],
    cases: Cases,
    splits: Splits,
    lock: Lock,
    data_findings: Annotated[Path, typer.Option(help="What the data gate found.")],
    preflight_findings: Annotated[Path, typer.Option(help="What preflight found.")],
    cohort: Cohort,
    protocols: Protocols,
    goals: Annotated[Path, typer.Option(help="Folder of clinical goals.")],
    thresholds: Thresholds,
    params: Params = PARAMS,
) -> None:
    """Write the report of a model: one page and one PDF, tied to commit, data and settings.

    Example: see the report stage in dvc.yaml; `dvc repro report@dose_unet` runs it.
    """
    from doseledger.ledger.report import ReportOutputs, make_report
    from doseledger.ledger.sources import ReportInputs

    settings = _settings(params)
    names = _cohort(settings, cohort)
    inputs = ReportInputs(
        cohort=cohort,
        model=model,
        run=run,
        metrics=metrics,
        predictions=predictions,
        cases=cases,
        splits=splits,
        test_set=lock,
        data_findings=data_findings,
        preflight_findings=preflight_findings,
        protocol=protocols / f"{names.protocol}.yaml",
        goals=goals / f"{names.goals}.yaml",
        thresholds=thresholds,
        root=Path.cwd(),
    )
    make_report(inputs, ReportOutputs(html, pdf, figures), templates, settings.report, settings.evaluate, _tell)


@app.command()
def where(
    html: Annotated[Path, typer.Option(help="Folder of pages.")],
    pdf: Annotated[Path, typer.Option(help="Folder of PDFs.")],
    params: Params = PARAMS,
) -> None:
    """Say where the reports of the settings' cohort and models lie.

    Example: doseledger where --html reports/html --pdf reports/pdf
    """
    settings = _settings(params)
    for folder, name in ((html, "report.html"), (pdf, "report.pdf")):
        for model in settings.models:
            path = folder / settings.cohort / model / name
            print(f"{model}: {path.resolve() if path.is_file() else f'no report yet; dvc repro writes {path}'}")


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
    engine: Annotated[str, typer.Option(help="sampled, exact (continuous minimum) or pymedphys itself.")] = "sampled",
    verify: Annotated[int, typer.Option(help="Check so many random points against pymedphys.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Compare two doses by gamma index; a point passes at gamma ≤ 1.

    Example: doseledger gamma plan.dcm recomputed.dcm --percent 3 --mm 3 --json
    """
    from doseledger.cohort.dose_gamma import ENGINES, gamma_of_files
    from doseledger.evaluate.gamma import GammaCriteria

    if engine not in ENGINES:
        raise BadInput(f"engine {engine!r}: wanted one of {', '.join(ENGINES)}")
    criteria = GammaCriteria(percent, mm, cutoff, local, interp, max_gamma, normalisation_gy)
    found = gamma_of_files(reference, evaluation, criteria, engine=cast("Engine", engine), verify=verify)
    kind = "local" if local else "global"
    text = (
        f"gamma {percent:g} %/{mm:g} mm {kind}, cutoff {cutoff:g} %: {found['pass_rate_percent']:.2f} % of "
        f"{found['n_points']} points pass (mean {found['mean_gamma']:.3f}, highest {found['highest_gamma']:.3f})"
    )
    _show(found, as_json, text)


@app.command()
def dvh(
    structures: Annotated[Path, typer.Argument(help="RTSTRUCT, or the NPZ of a case.")],
    dose: Annotated[Path | None, typer.Argument(help="RTDOSE, or the NPZ of a prediction.")] = None,
    statistic: Annotated[
        list[str] | None, typer.Option(help="In the clinic's grammar: D95%, V70Gy, D2cc, mean.")
    ] = None,
    prescription_gy: Annotated[float | None, typer.Option(help="Dose of 100 % for V95% and the like.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the DVH of every structure.

    Example: doseledger dvh RS.dcm RD.dcm --statistic D95% --statistic mean --json
    """
    from doseledger.cohort.dicom_dvh import STATISTICS, describe_lines, dvh_of_case, dvh_of_rtdose

    wanted = statistic or list(STATISTICS)
    if structures.suffix == ".npz":
        found = dvh_of_case(structures, wanted, dose_path=dose)
    elif dose is None:
        raise BadInput("an RTSTRUCT needs an RTDOSE beside it: doseledger dvh RS.dcm RD.dcm")
    else:
        found = dvh_of_rtdose(structures, dose, wanted, prescription_gy=prescription_gy)
    _show(found, as_json, "\n".join(describe_lines(found)))


@app.command()
def inspect(
    case: Annotated[Path, typer.Argument(help="A case's NPZ.")],
    as_json: Json = False,
) -> None:
    """Show a case's grid, structures, dose, prescription and source.

    Example: doseledger inspect data/cases/phantom/case_0001.npz --json
    """
    from doseledger.cohort.inspect import describe_case
    from doseledger.core.case import Case
    from doseledger.core.files import to_json

    description = describe_case(Case.load(case))
    _show(description, as_json, to_json(description))


@score_app.command("openkbp")
def score_openkbp(
    predictions: Annotated[Path, typer.Argument(help="Folder of predictions: pt_N.npz, pt_N.csv or pt_N/dose.csv.")],
    reference: Annotated[Path, typer.Argument(help="Folder of patients: the challenge's, or cases.")],
    as_json: Json = False,
) -> None:
    """Score predictions as the OpenKBP challenge does: dose score and DVH score in Gy.

    Example: doseledger score openkbp predictions/ validation-pats/ --json
    """
    from doseledger.cohort.openkbp_scoring import score_openkbp as score

    scores = score(predictions, reference)
    text = f"dose score {scores['dose_score']:.4f} Gy, DVH score {scores['dvh_score']:.4f} Gy"
    _show(scores, as_json, text)


@resume_app.command("list")
def list_resume(
    state: Annotated[Path, typer.Option(help="Root of resume states, below the project's root.")],
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None,
) -> None:
    """List what interrupted trainings have left to go on from.

    Example: doseledger resume list --state .doseledger/resume
    """
    from doseledger.learn.resume import list_states

    for folder in list_states(_project_root() / state, model):
        print(f"{folder.parent.name} {folder.name}")


@resume_app.command("clear")
def clear_resume(
    model: Annotated[str, typer.Argument(help="The model.")],
    state: Annotated[Path, typer.Option(help="Root of resume states, below the project's root.")],
) -> None:
    """Throw a model's interrupted trainings away, so that the next one starts from the beginning.

    Example: doseledger resume clear dose_unet --state .doseledger/resume
    """
    from doseledger.learn.resume import clear_states

    print(f"{clear_states(_project_root() / state, model)} interrupted runs of {model} thrown away")


def _cohort_files(settings: Settings, cohort: str, cases: Path, splits: Path, limits: tuple[Path, ...]) -> CohortFiles:
    from doseledger.gates.digests import CohortFiles

    protocols, suites, thresholds, lock = limits
    protocol = _cohort(settings, cohort).protocol
    return CohortFiles(
        cases_dir=cases,
        splits_csv=splits,
        test_set_csv=lock,
        protocol=protocols / f"{protocol}.yaml",
        suite=suites / f"{protocol}.json",
        thresholds=thresholds,
        cohort=cohort,
    )


def _training_run(settings: Settings, model: str, params: Path, data_token: Path) -> TrainingRun:
    from doseledger.core.files import read_json
    from doseledger.learn.recipe import load_recipe
    from doseledger.learn.train import TrainingRun
    from doseledger.ledger.provenance import run_provenance

    return TrainingRun(
        model=model,
        recipe=load_recipe(settings.model(model), f"{params}: {model}"),
        lr=settings.lr,
        seed=settings.seed,
        fold=settings.fold,
        repeat=settings.repeat,
        token=read_json(data_token),
        provenance=run_provenance(Path.cwd(), sys.argv, Path("requirements.lock")),
    )


def _deliver(verdict: Verdict, token: Path | None, findings: Path | None, as_json: bool) -> None:
    from doseledger.gates.verdict import enforce, verdict_as_json, write_verdict

    if token is not None and findings is not None:
        write_verdict(verdict, token, findings)
    elif token is not None or findings is not None:
        raise BadInput("a verdict's two files are written together: give both --token and --findings, or neither")
    warnings = [f"warning: [{item.gate}] {item.message}" for item in verdict.findings if item.severity == "warning"]
    passed = f"the {verdict.gate} gate passed" if verdict.ok else f"the {verdict.gate} gate failed"
    _show(verdict_as_json(verdict), as_json, "\n".join([*warnings, passed]))
    enforce(verdict, findings)


if __name__ == "__main__":
    main()
