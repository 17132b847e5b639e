"""Leftovers of killed runs, and patients in Git: explained, never mended."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from doseledger.core.damage import DAMAGED
from doseledger.core.text.lists import first_of
from doseledger.ledger.provenance.git import run_git
from doseledger.ledger.provenance.staged import data_in_git
from doseledger.ledger.provenance.stamp import PARAMS_FILE
from doseledger.ledger.runs.listing.index import is_alive, rows_of_states

DVC_TEMPORARY = Path(".dvc") / "tmp"
# Refs that DVC sets while an experiment runs, and takes away when it ends; the one of the last result it keeps.
RUNNING_REFS = "refs/exps/exec/"
LAST_RESULT = "refs/exps/exec/EXEC_APPLY"
# Folders in which a half-written file can't be ours.
NOT_OURS = frozenset({".git", ".venv", ".dvc", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
# A file that is still being written changes; one process writes its own number into the name.
PART_SUFFIX = ".part"


@dataclass(frozen=True)
class Symptom:
    """One thing that a killed run left behind.

    Parameters
    ----------
    severity
        `mend` needs a person, a `note` is for the reader.
    what, found, means, do
        What it concerns, what is there, what that means, and what to do.
    """

    severity: Literal["mend", "note"]
    what: str
    found: str
    means: str
    do: str


def examine(root: Path, states: Path) -> list[Symptom]:
    """Return what killed runs have left behind in a project, and what Git should not hold; what needs a person first.

    Parameters
    ----------
    states
        Root of resume states.
    """
    root = root.resolve()
    at_work = dvc_at_work(root)
    found = [
        *_patients_in_git(root),
        *_busy(at_work),
        *_detached_head(root, at_work),
        *_stale_locks(root),
        *_orphan_folders(root),
        *_orphan_stages(root),
        *_git_lock(root),
        *_interrupted(states),
        *_parts(root),
    ]
    return sorted(found, key=lambda symptom: symptom.severity)


def dvc_at_work(root: Path) -> dict[int, str]:
    """Return the DVC commands that run in a project now, by process."""
    holders: dict[int, str] = {}
    for lock in [root / DVC_TEMPORARY / "rwlock", *_temporary_locks(root)]:
        holders |= {pid: command for pid, command in _lock_holders(lock).items() if is_alive(pid, "dvc")}
    return holders


def _temporary_locks(root: Path) -> list[Path]:
    return sorted((root / DVC_TEMPORARY / "exps").glob("*/*/.dvc/tmp/rwlock"))


def _lock_holders(lock: Path) -> dict[int, str]:
    """Who holds DVC's lock on files, by process; nobody of whom a damaged lock tells."""
    content = _json(lock)
    try:
        entries = list((content.get("write") or {}).values())
        entries += [entry for held in (content.get("read") or {}).values() for entry in held]
        return {int(entry["pid"]): str(entry["cmd"]) for entry in entries if {"pid", "cmd"} <= set(entry)}
    except DAMAGED:
        return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except DAMAGED:
        return {}
    return content if isinstance(content, dict) else {}


def _busy(at_work: dict[int, str]) -> Iterator[Symptom]:
    for pid, command in at_work.items():
        means = "what is described below may be its doing, and in order"
        yield Symptom("note", "DVC", f"process {pid} runs: {command}", means, "wait for it, then look again")


def _patients_in_git(root: Path) -> Iterator[Symptom]:
    if tracked := data_in_git(root):
        some = first_of(tracked, 3)
        folders = sorted({str(Path(path).parent) for path in tracked})
        yield Symptom(
            "mend",
            "files in Git that belong to DVC or to this machine",
            f"{len(tracked)} tracked: {some}",
            "patients, models or pages are part of the history, and go to everybody who clones it",
            f"`git rm -r --cached {' '.join(folders[:5])}` and commit; what was committed stays in the history until "
            "it is rewritten (git filter-repo), and in every clone: tell your data protection officer if it was pushed",
        )


def _detached_head(root: Path, at_work: dict[int, str]) -> Iterator[Symptom]:
    head = run_git(root, "rev-parse", "--short", "HEAD")
    if head.returncode != 0 or at_work:
        return
    refs = run_git(root, "for-each-ref", "--format=%(refname)", RUNNING_REFS).stdout.split()
    running = [ref for ref in refs if ref != LAST_RESULT]
    attached = run_git(root, "symbolic-ref", "--quiet", "HEAD").returncode == 0
    changed = run_git(root, "diff", "--quiet", "HEAD", "--", PARAMS_FILE).returncode == 1
    if running and not attached:
        branches = run_git(root, "branch", "--points-at", "HEAD", "--format=%(refname:short)").stdout.splitlines()
        named = [name for name in branches if not name.startswith("(")]
        params = f" and {PARAMS_FILE} holds the experiment's settings" if changed else ""
        gone = run_git(root, "diff", "--name-only", "--diff-filter=D", "--relative", "HEAD").stdout.split()
        # From HEAD and not from the index: DVC stages the settings of an experiment.
        lost = [*([PARAMS_FILE] if changed else []), *gone]
        restore = f", then `git checkout HEAD -- {' '.join(lost)}`" if lost else ""
        yield Symptom(
            "mend",
            "an experiment that was killed",
            f"HEAD is detached at {head.stdout.strip()}{params}",
            "`dvc exp run` sets both while it runs; a commit made now would belong to no branch",
            f"`git checkout {named[0] if named else 'BRANCH'}`{restore}, then `dvc checkout`; run the experiment again",
        )
    elif running:
        means = "marks of an experiment that was killed; the next one overwrites them"
        yield Symptom("note", "DVC's marks", f"{len(running)} refs below {RUNNING_REFS}", means, "nothing")
    elif not attached:
        means = "a commit made now would belong to no branch"
        yield Symptom("note", "Git", f"HEAD is detached at {head.stdout.strip()}", means, "`git checkout BRANCH`")


def _stale_locks(root: Path) -> Iterator[Symptom]:
    lock = root / DVC_TEMPORARY / "rwlock"
    for pid, command in _lock_holders(lock).items():
        if not is_alive(pid, "dvc"):
            found = f"held by process {pid} ({command}), which is gone"
            yield Symptom(
                "note", "DVC's lock on files", found, "it was killed", "nothing: the next DVC command clears it"
            )


def _orphan_folders(root: Path) -> Iterator[Symptom]:
    experiments = root / DVC_TEMPORARY / "exps"
    known = {str(info.get("root_dir")): info for path in experiments.rglob("*.run") if (info := _json(path))}
    for folder in sorted(path for path in experiments.glob("*/tmp*") if path.is_dir()):
        holders = _lock_holders(folder / DVC_TEMPORARY / "rwlock")
        if any(is_alive(pid, "dvc") for pid in holders):
            continue
        name = known.get(str(folder), {}).get("name") or "no name"
        size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        yield Symptom(
            "mend",
            "an experiment in a temporary folder that was killed",
            f"{folder.relative_to(root)} ({name}, {size_mb:.0f} MB), and no DVC at work in it",
            "`dvc exp show` goes on calling it Running, and nobody will clear the folder",
            f"`rm -r {folder.relative_to(root)}`, after saving what you need of it; run the experiment again",
        )


def _orphan_stages(root: Path) -> Iterator[Symptom]:
    """Stages that run on although the DVC that started them is gone: kill -9 reaches no child."""
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        try:
            folder = Path(process.info["cwd"] or "/")
            words = process.info["cmdline"] or []
            if not (folder == root or root in folder.parents):
                continue
            if not any(Path(word).name == "doseledger" for word in words[:2]) or "DVC_STAGE" not in process.environ():
                continue
            if any("dvc" in " ".join(parent.cmdline()[:2]) for parent in process.parents()):
                continue
            stage = process.environ()["DVC_STAGE"]
        except psutil.Error:
            continue
        yield Symptom(
            "mend",
            "a stage without its DVC",
            f"process {process.info['pid']} is still at work on {stage}",
            "its DVC was killed; it goes on writing outs that no dvc.lock will record",
            f"`kill {process.info['pid']}` (a training keeps its state), then `dvc repro`, which goes on",
        )


def _git_lock(root: Path) -> Iterator[Symptom]:
    answer = run_git(root, "rev-parse", "--git-path", "index.lock")
    lock = root / answer.stdout.strip()
    if answer.returncode == 0 and lock.is_file():
        means = "another git is at work, or one was killed; until it is gone no commit can be made"
        yield Symptom("mend", "Git's lock", f"{answer.stdout.strip()}", means, "if no git runs: delete that file")


def _interrupted(states: Path) -> Iterator[Symptom]:
    for row in rows_of_states(states):
        if row.status == "interrupted":
            found = f"{row.model}, state {row.id}, stopped {row.note.partition(';')[0]}"
            means = "with the same settings, data and code it goes on where it stopped; with others it is left alone"
            yield Symptom(
                "note",
                "an interrupted training",
                found,
                means,
                f"`dvc repro`, or `doseledger resume clear {row.model}`",
            )


def _parts(root: Path) -> Iterator[Symptom]:
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in NOT_OURS]
        for file in sorted(files):
            if file.endswith(PART_SUFFIX):
                path = Path(folder) / file
                writer = file.removesuffix(PART_SUFFIX).rpartition(".")[2]
                if not (writer.isdigit() and psutil.pid_exists(int(writer))):
                    found = f"{path.relative_to(root)} ({path.stat().st_size} bytes), whose writer is gone"
                    means = "a file that was not finished; the one of its name, if there is one, is whole"
                    yield Symptom("note", "a half-written file", found, means, f"`rm {path.relative_to(root)}`")
