"""Audit entries of a command: one as it begins, one as it ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from doseledger.core.errors import BadInput, DoseledgerError
from doseledger.core.files import read_json, sha256_of_file, sha256_of_json
from doseledger.ledger.audit.log import append_entry
from doseledger.ledger.provenance.git import head_commit, identity

# A folder of cases is named by its table, which holds the SHA256 of each.
CASES_TABLE = "cases.csv"
# A message of thousands of lines is in the findings; the log keeps its beginning.
ERROR_CHARACTERS = 1000
# What tells one process of a distributed training from another.
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


@dataclass(frozen=True)
class Footprint:
    """What a command is about to do, as its arguments say.

    Parameters
    ----------
    command
        Its name: `train`, `check data`.
    reads
        Which cases' data it opens, in words (`train and val`); empty where none.
    """

    command: str
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    reads: str = ""


# The facts that the running command adds to its last entry; None while none runs.
_facts: ContextVar[dict[str, Any] | None] = ContextVar("doseledger_audit_facts", default=None)


def note_fact(name: str, value: Any) -> None:
    """Add a fact (a promotion, a sign-off) to the last entry of the command that runs; without one, do nothing."""
    facts = _facts.get()
    if facts is not None:
        facts[name] = value


@contextmanager
def record_command(log: Path, root: Path, footprint: Footprint) -> Iterator[None]:
    """Record a command in the audit log: what it was given as it begins, what it made and how it ended.

    Parameters
    ----------
    root
        The folder whose Git identity and commit are recorded.

    Raises
    ------
    BadInput
        If the log can't be written, before the command does anything; or after it, so that a stage of the pipeline
        whose record is missing counts as failed.

    Notes
    -----
    Two entries and not one: a command that is killed has still left what it had opened. Where an argument names the
    same file twice, it is hashed twice.
    """
    began, started = _began(root, footprint), time.monotonic()
    number = append_entry(log, began).length
    facts: dict[str, Any] = {}
    token = _facts.set(facts)
    ending = {"event": "ended", "began": number, "who": began["who"], "command": footprint.command}

    def end(status: str, error: str | None) -> None:
        entry = {
            **ending,
            "status": status,
            "error": error,
            "seconds": round(time.monotonic() - started, 3),
            "outputs": _digests(footprint.outputs),
            "verdicts": _verdicts(footprint.outputs),
            **facts,
        }
        append_entry(log, _json_values(entry))

    try:
        yield
    except BaseException as error:
        status, message = _describe_end(error)
        try:
            end(status, message)
        except BadInput as problem:
            # The command's own error is the one to show first.
            sys.stderr.write(f"warning: {problem}\n")
        raise
    else:
        end("done", None)
    finally:
        _facts.reset(token)


def digest_of(path: Path) -> dict[str, Any]:
    """Return what a file or folder held, by hash.

    Returns
    -------
    dict
        `path` as it was named, and `sha256`: of a file's bytes; of a folder of cases' table (`of`: cases.csv), which
        holds the SHA256 of each case; of another folder's list of files with the SHA256 of each (`of`: files, with
        `n`). Where there is nothing, `sha256` is None.
    """
    named: dict[str, Any] = {"path": str(path), "sha256": None}
    if path.is_file():
        return {**named, "sha256": sha256_of_file(path)}
    if not path.is_dir():
        return named
    if (path / CASES_TABLE).is_file():
        return {**named, "sha256": sha256_of_file(path / CASES_TABLE), "of": CASES_TABLE}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = {os.fsencode(file.relative_to(path)).hex(): sha256_of_file(file) for file in files}
    return {**named, "sha256": sha256_of_json(listing), "of": "files", "n": len(files)}


def _began(root: Path, footprint: Footprint) -> dict[str, Any]:
    ranks = {name: os.environ[name] for name in RANK_VARIABLES if name in os.environ}
    entry = {
        "event": "began",
        "who": identity(root),
        "commit": head_commit(root),
        "command": footprint.command,
        "arguments": {name: value for name, value in footprint.arguments.items() if value is not None},
        "inputs": _digests(footprint.inputs),
        "reads": footprint.reads or None,
        **({"rank": ranks} if ranks else {}),
    }
    return _json_values(entry)


def _digests(paths: Mapping[str, Path]) -> dict[str, Any]:
    return {name: digest_of(path) for name, path in paths.items()}


def _verdicts(outputs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What the tokens among a command's outputs say: a gate writes {ok, digest} and nothing else."""
    found = []
    for path in outputs.values():
        content = read_json(path) if path.suffix == ".json" and path.is_file() else None
        if isinstance(content, dict) and set(content) == {"ok", "digest"}:
            found.append({"token": str(path), **content})
    return found


def _describe_end(error: BaseException) -> tuple[str, str | None]:
    """How a command ended that raised: its status, and its message."""
    # click's Exit carries the status of `raise typer.Exit(0)`.
    code = getattr(error, "exit_code", getattr(error, "code", None))
    if not isinstance(error, DoseledgerError) and code == 0:
        return "done", None
    status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
    return status, f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]


def _json_values(entry: dict[str, Any]) -> dict[str, Any]:
    """Plain JSON values: paths as text, no NaN."""
    values: dict[str, Any] = to_jsonable_python(entry, inf_nan_mode="null")
    return values
