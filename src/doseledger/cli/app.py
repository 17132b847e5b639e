"""The command line: one command a stage, and tools for single files; no logic.

Whatever a command needs is imported inside it, so that `doseledger --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from doseledger.cli import (
    check,
    cohort,
    compare,
    data,
    deliver,
    dose,
    evaluate,
    project,
    reports,
    segment,
    structures,
    survey,
    train,
    watchdog,
)
from doseledger.cli.record import audit, bundle, experiments, registry, runs
from doseledger.core.errors import DoseledgerError

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", help=__doc__.split("\n")[0]
)
for subject in (
    project,
    survey,
    cohort,
    data,
    check,
    train,
    evaluate,
    dose,
    compare,
    deliver,
    segment,
    structures,
    reports,
    runs,
    experiments,
    registry,
    audit,
    bundle,
    watchdog,
):
    app.add_typer(subject.app)

# What a command is called now; it is told, and done.
RENAMED = {
    "gamma": "dose gamma",
    "dvh": "dose dvh",
    "recompute-dose": "dose recompute",
    "score openkbp": "dose score",
    "plan-figure": "plan figure",
    "inspect": "case show",
    "pack": "raw pack",
    "deidentify": "raw deidentify",
    "predict-dicom": "deliver dose",
    "splits lock": "test-set lock",
    "splits unlock": "test-set unlock",
    "runs search": "runs list",
}
# What an option with a value is written as now: whole words where the value is this one, else with the value put in.
FORMER_OPTIONS = {
    "--workers": ({"0": "--scale here"}, "--scale local:{}"),
    "--cluster": ({}, "--scale dask:{}"),
}
# What took the place of a command that is gone.
GONE = {
    "train-diffusion": "doseledger train MODEL: the kind stands in the model's block",
    "preflight-diffusion": "doseledger preflight MODEL: the kind stands in the model's block",
    "predict-diffusion": "doseledger predict MODEL: the kind stands in the model's block",
    "calibrate": "doseledger evaluate MODEL, which calibrates drawn doses too",
    "check metrics": "doseledger judge MODEL, and doseledger gate MODEL to fail with it",
    "check shortcuts": "doseledger judge MODEL, and doseledger gate MODEL to fail with it",
}


def main() -> NoReturn:
    """Run the command line; an error that a person can mend is one message on stderr and exit 1."""
    _run_the_folders_own_code()
    # Threads that wait for each other by spinning take the cores from other processes; OpenMP reads this at its start.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        sys.argv[1:] = _present_options(_present_name(sys.argv[1:]))
        app(prog_name="doseledger")
    except DoseledgerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        from doseledger.core.files import disk_fault

        if not disk_fault(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        what = f"written: {disk_fault(error)}"
        if isinstance(error, PermissionError):
            what = "read or written: there is no right to it; mend the rights of the file and its folder"
        print(f"error: {where}can't be {what}, and run the command again", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _run_the_folders_own_code() -> None:
    """Become the program of the project that the working folder is, where another one's was started.

    An editable install points at one clone. In another one, a worktree or the folder of an experiment, that clone's
    modules would run, and DVC would record this folder's.
    """
    own, running = Path("src/doseledger").resolve(), Path(__file__).resolve().parents[1]
    if not (own / "cli/app.py").is_file() or own == running:
        return
    source = str(own.parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if paths[0] == source:
        return
    os.environ["PYTHONPATH"] = os.pathsep.join([source, *filter(None, paths)])
    os.execv(sys.executable, [sys.executable, "-m", "doseledger.cli.app", *sys.argv[1:]])


def _present_name(words: list[str]) -> list[str]:
    """The command line with a former name replaced, which is told; one that is gone ends here."""
    for length in (2, 1):
        old = " ".join(words[:length])
        if old in GONE and len(words) >= length:
            print(f"error: `doseledger {old}` is gone; now: {GONE[old]}", file=sys.stderr)
            sys.exit(2)
        if old in RENAMED and len(words) >= length:
            print(f"`doseledger {old}` is called `doseledger {RENAMED[old]}` now", file=sys.stderr)
            return [*RENAMED[old].split(), *words[length:]]
    return words


def _present_options(words: list[str]) -> list[str]:
    """The command line with former options replaced, which is told."""
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        name, is_joined, value = word.partition("=")
        if name not in FORMER_OPTIONS:
            found.append(word)
            continue
        value = value if is_joined else next(rest, "")
        known, form = FORMER_OPTIONS[name]
        now = known.get(value, form.format(value))
        print(f"`{name} {value}` is `{now}` now", file=sys.stderr)
        found += now.split()
    return found


if __name__ == "__main__":
    main()
