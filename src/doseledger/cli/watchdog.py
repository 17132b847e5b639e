"""The watchdog over a training, as a command and as the settings ask."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn, ParamSpec, TypeVar

import typer

from doseledger.cli.audited import this_machine
from doseledger.cli.shared import MODEL, project, tell
from doseledger.core.errors import BadInput

app = typer.Typer()

# Any of these above 0 marks a further process of a training that others began.
FURTHER = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
PROGRAM = (sys.executable, "-m", "doseledger.cli.app")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@app.command(rich_help_panel=MODEL)
def watchdog(
    command: Annotated[list[str], typer.Argument(help="After --: train and all its arguments.")],
) -> None:
    """Train under watch; restart what hangs.

    Example: doseledger watchdog -- train dose_unet
    """
    from doseledger.learn.watch.watchdog import WatchRules, watch

    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        raise BadInput(
            "the watchdog starts a training's processes itself, but torchrun or SLURM starts several of it; let these "
            "watch over them (torchrun --max-restarts, sbatch --requeue), set train.watchdog.enabled to false, "
            "and call train: it resumes by itself"
        )
    if command[0] != "train":
        raise BadInput(f"the watchdog watches a training (`watchdog -- train MODEL`), found: {' '.join(command)}")
    rules = project().settings.train.watchdog
    limits = WatchRules(rules.silence_seconds, rules.first_batch_seconds, rules.tries)
    child = [*PROGRAM, *command]
    sys.exit(watch(child, this_machine().states, limits, tell=tell))


def is_further_process() -> bool:
    """Return whether this process is a further one of a training that others began."""
    return any(int(os.environ.get(name, "0")) > 0 for name in FURTHER)


def watched(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a training command that puts itself under watch when the settings' `train.watchdog` is enabled.

    The process becomes the watchdog, which starts the very same command line as its child; so a stage of the pipeline
    needs no second command line, and nothing that training reaches hangs on the watchdog's code. Of several processes
    that train together the first alone is recorded by what the command is wrapped in: it is one training.
    """

    @functools.wraps(command)
    def maybe_watched(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        from doseledger.learn.watch.heartbeat import WATCHED_BY

        if WATCHED_BY not in os.environ and project().settings.train.watchdog.enabled:
            _become_watchdog()
        if is_further_process():
            return getattr(command, "__wrapped__", command)(*args, **kwargs)
        return command(*args, **kwargs)

    return maybe_watched


def _become_watchdog() -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    own = [*PROGRAM, "watchdog", "--", *sys.argv[1:]]
    os.execv(sys.executable, own)
