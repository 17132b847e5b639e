"""The hook by which a command is recorded in the audit log: one decorator, which names its arguments."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from doseledger.ledger.audit.recording import Footprint, record_command

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
# Below the project's root, where it is no one's dependency: Git and DVC both leave this folder alone.
AUDIT_LOG = Path(".doseledger/audit.jsonl")
# Where pages lie that hold a head of the log.
REPORTS = Path("reports")


def audit_root() -> Path:
    """Return the project whose log a command writes, wherever in it the command is called.

    In a stage it is the main repository (DVC_ROOT), in temporary and queued runs too; else the nearest folder above
    with `.dvc`, else with `.git`, else this folder.
    """
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"])
    here = Path.cwd()
    for mark in (".dvc", ".git"):
        for folder in (here, *here.parents):
            if (folder / mark).exists():
                return folder
    return here


def audit_log() -> Path:
    """Return the audit log of the project."""
    return audit_root() / AUDIT_LOG


def audited(
    name: str, *, inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = (), reads: str = ""
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Return a decorator that records a command in the audit log as it begins and as it ends.

    Parameters
    ----------
    name
        The command as a person types it, without the program's name.
    inputs, outputs
        Names of the command's arguments that hold paths which it reads and writes; one that is None is left out.
    reads
        Which cases' data it opens, in words; or the name of the argument that says it.
    """

    def decorate(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(command)
        def recorded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            footprint = Footprint(
                command=name,
                arguments=kwargs,
                inputs=_paths(kwargs, inputs),
                outputs=_paths(kwargs, outputs),
                reads=str(kwargs.get(reads, reads) or ""),
            )
            with record_command(audit_log(), Path.cwd(), footprint):
                return command(*args, **kwargs)

        # A test holds these against the command line.
        recorded.__dict__["audited_as"] = (name, (*inputs, *outputs))
        return recorded

    return decorate


def _paths(arguments: dict[str, Any], names: tuple[str, ...]) -> dict[str, Path]:
    return {name: Path(arguments[name]) for name in names if arguments[name] is not None}
