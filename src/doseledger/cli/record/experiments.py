"""Commands for experiments: a clean tree, a note with criteria, leftovers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audited, this_machine
from doseledger.cli.record.runs import Archives, gather
from doseledger.cli.shared import MODEL, RECORD, START, Cohort, Json, Model, project, show, tell
from doseledger.core.errors import GateFailed

if TYPE_CHECKING:
    from doseledger.ledger.runs.prerun import Readiness
    from doseledger.ledger.runs.sweep import Value

app = typer.Typer()
experiment_app = typer.Typer(no_args_is_help=True, help="Dated notes: hypothesis first, results after.")
app.add_typer(experiment_app, name="experiment", rich_help_panel=RECORD)


@experiment_app.command("ready")
def ready(as_json: Json = False) -> None:
    """Say whether a run begun now would count.

    Committed code, the locked packages; exit 1 if not.

    Example: doseledger experiment ready && dvc exp run -S lr=1e-4
    """
    from doseledger.ledger.runs.prerun import examine_readiness

    layout = project().layout
    readiness = examine_readiness(layout.root, layout.packages)
    found = {
        "ready": not readiness.findings,
        "problems": [finding.numbers for finding in readiness.findings],
        "seeds": readiness.seeds,
        "provenance": readiness.provenance,
    }
    show(found, as_json, _describe(readiness))
    readiness.refuse_unless_ready()


@experiment_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens; DVC's experiment gets it too.")],
    model: Annotated[str, typer.Option(help="The model that is trained.")],
    notes: Annotated[Path, typer.Option(help="Folder of notes.")],
    hypothesis: Annotated[str, typer.Option(help="What is expected, and why.")] = "",
    criterion: Annotated[
        list[str] | None, typer.Option(help='Condition that decides: "mae_gy < 3"; can be given several times.')
    ] = None,
) -> None:
    """Write an experiment's note before it is run.

    Example: doseledger experiment new dvh-term --model dose_unet --notes docs/experiments
    --hypothesis "a DVH term lowers the error of D95%" --criterion "dvh_PTV70_D95% < 2"
    """
    from datetime import date

    from doseledger.ledger.runs.experiment import Plan, new_note
    from doseledger.ledger.runs.prerun import examine_readiness

    layout = project().layout
    plan = Plan(name, model, hypothesis, tuple(criterion or []))
    path = new_note(notes, plan, examine_readiness(layout.root, layout.packages), layout.root, date.today())
    print(f"{path} written: fill in what is left, commit it, then dvc exp run --name {name}")


@experiment_app.command("fill")
def fill(
    note: Annotated[Path, typer.Argument(help="A note of `experiment new`.")],
    run: Annotated[str, typer.Option(help="The run: its id, experiment, tag or archived folder.")],
    archives: Archives = None,
) -> None:
    """Write a run's results into its note.

    Example: doseledger experiment fill docs/experiments/2026-03-01-dvh-term.md --run dvh-term
    """
    from doseledger.ledger.runs.experiment import fill_note
    from doseledger.ledger.runs.listing.tables import find_run

    row = find_run(gather(archives), run)
    fill_note(note, row)
    print(f"{note}: results of run {row.id} written in; the conclusion is yours")


@app.command("doctor", rich_help_panel=START)
def doctor(as_json: Json = False) -> None:
    """Find what killed runs left behind; change nothing.

    Exit 1 if a person is needed.

    Example: doseledger doctor --json
    """
    from doseledger.ledger.runs.doctor import examine

    machine = this_machine()
    found = examine(machine.root, machine.states)
    lines = []
    for symptom in found:
        lines.append(f"{symptom.severity}: {symptom.what}: {symptom.found}")
        lines += [f"      it means: {symptom.means}", f"      to do: {symptom.do}"]
    show([asdict(symptom) for symptom in found], as_json, "\n".join(lines) or "nothing was left behind")
    needed = [symptom for symptom in found if symptom.severity == "mend"]
    if needed:
        raise GateFailed(f"{len(needed)} thing(s) that a killed run left behind need a person; see above")


@app.command(rich_help_panel=MODEL)
@audited("sweep", inputs=("params", "splits"), reads="train and val")
def sweep(
    model: Model,
    space: Annotated[list[str], typer.Option(help="KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B; several times.")],
    name: Annotated[str, typer.Option(help="Of the search; one of that name goes on.")] = "sweep",
    trials: Annotated[int, typer.Option(help="How many more.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the sampler.")] = 1,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Search settings by Optuna, as DVC experiments.

    Chosen on validation cases alone: each trial trains, and predicts no test case. Asks for doseledger[sweep].

    Example: doseledger sweep dose_unet --space lr=1e-4:1e-2:log --space dose_unet.loss.target_weight=1.0:8.0
    """
    from doseledger.core.files import sha256_of_file
    from doseledger.core.tables import SPLITS, read_table, rows_of_fold
    from doseledger.ledger.runs.sweep import Search, describe_sweep, read_range, run_trial
    from doseledger.ledger.runs.sweep import sweep as run_sweep

    at, machine = project(cohort), this_machine()
    paths, ranges = at.layout.model(model), [read_range(text) for text in space]
    fold = rows_of_fold(read_table(at.layout.splits, SPLITS), at.settings.fold, at.settings.repeat)
    counts = fold["split"].value_counts()
    message = f"{name}: a trial, chosen on {counts.get('val', 0)} validation cases"

    def run(trial: str, values: Mapping[str, Value]) -> float:
        return run_trial(machine.root, paths, trial, values, message=message)

    part = f"fold {at.settings.fold}, repeat {at.settings.repeat}"
    of = f"{model} on {at.layout.cohort}, {part} of splits {sha256_of_file(at.layout.splits)[:12]}"
    found = run_sweep(Search(name, ranges, trials, seed, machine.sweeps, of), run, tell)
    show(found, as_json, "\n".join(describe_sweep(found, int(counts.get("val", 0)), int(counts.get("test", 0)))))


def _describe(readiness: Readiness) -> str:
    made = readiness.provenance
    packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    seeds = ", ".join(f"{name} {value}" for name, value in readiness.seeds.items())
    return f"commit {made['git']['commit']}\nseeds: {seeds}\nPython {made['python']}, {made['platform']}; {packages}"
