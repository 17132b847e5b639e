"""The command line: one command per stage, plus the tools a physicist uses alone; no logic.

Whatever a command needs is imported inside it, so that `doseledger --help` answers at once. All paths are arguments:
dvc.yaml is the one place that knows where things lie.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from doseledger.cli import (
    audit,
    bundle,
    compare,
    data,
    deliver,
    diffusion,
    experiments,
    plans,
    registry,
    reports,
    runs,
    shortcuts,
    watchdog,
)
from doseledger.cli import check as judge
from doseledger.cli import evaluate as measure
from doseledger.cli import survey as exports
from doseledger.cli import train as models
from doseledger.core.errors import DoseledgerError

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__.split("\n")[0]
)
for subject in (
    exports,
    data,
    judge,
    models,
    diffusion,
    measure,
    reports,
    runs,
    experiments,
    audit,
    registry,
    shortcuts,
    deliver,
    plans,
    bundle,
    compare,
    watchdog,
):
    app.add_typer(subject.app)


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


if __name__ == "__main__":
    main()
