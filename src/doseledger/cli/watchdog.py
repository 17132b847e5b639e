"""The watchdog over a training, as a command and as what a training command does by itself when the settings ask."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec, TypeVar

import typer

from doseledger.cli.shared import PARAMS, Params, project_root, settings_of, tell
from doseledger.core.errors import BadInput

app = typer.Typer()

# Any of these above 0 marks a further process of a training that others began.
FURTHER = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@app.command()
def watchdog(
    command: Annotated[list[str], typer.Argument(help="After --: train and all its arguments.")],
    params: Params = PARAMS,
) -> None:
    """Train under watch: what hangs or crashes is diagnosed, ended with its own processes alone, and started again.

    Example: doseledger watchdog -- train dose_unet models/phantom/dose_unet --state .doseledger/resume …
    """
    from doseledger.learn.watch.watchdog import WatchRules, watch

    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        raise BadInput(
            "the watchdog starts a training's processes itself, but torchrun or SLURM starts several of it; let these "
            "watch over them (torchrun --max-restarts, sbatch --requeue), set train.watchdog.enabled to false, "
            "and call train: it resumes by itself"
        )
    rules = settings_of(params).train.watchdog
    limits = WatchRules(rules.silence_seconds, rules.first_batch_seconds, rules.tries)
    child = [sys.executable, sys.argv[0], *command]
    sys.exit(watch(child, project_root() / _state_of(command), limits, tell=tell))


def watched(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a training command that puts itself under watch when the settings' `train.watchdog` is enabled.

    The process becomes the watchdog, which starts the very same command line as its child; so a stage of the pipeline
    needs no second command line, and nothing that training reaches hangs on the watchdog's code. Of several processes
    that train together the first alone is recorded by what the command is wrapped in: it is one training.
    """

    @functools.wraps(command)
    def maybe_watched(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        from doseledger.learn.watch.heartbeat import WATCHED_BY

        params = Path(str(kwargs["params"]))
        if WATCHED_BY not in os.environ and settings_of(params).train.watchdog.enabled:
            _become_watchdog(params)
        if any(int(os.environ.get(name, "0")) > 0 for name in FURTHER):
            return getattr(command, "__wrapped__", command)(*args, **kwargs)
        return command(*args, **kwargs)

    return maybe_watched


def _become_watchdog(params: Path) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    own = [sys.executable, sys.argv[0], "watchdog", "--params", str(params), "--", *sys.argv[1:]]
    os.execv(sys.executable, own)


def _state_of(command: list[str]) -> Path:
    """Where the command keeps its resume states, and with them its heartbeat."""
    for position, word in enumerate(command):
        if word == "--state" and position + 1 < len(command):
            return Path(command[position + 1])
        if word.startswith("--state="):
            return Path(word.removeprefix("--state="))
    raise BadInput(f"the watchdog watches a training, which has a --state; found: {' '.join(command) or 'nothing'}")
