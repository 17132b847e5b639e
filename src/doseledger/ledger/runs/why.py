"""Stages that would run: what changed, what it reaches, what it cost last time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.damage import UNREADABLE
from doseledger.core.project.layout import LOCK_FILE, PARAMS_FILE, PIPELINE_FILE, Layout, Machine
from doseledger.core.settings import Settings
from doseledger.core.text.sheet import as_text, make_table, plural
from doseledger.ledger.audit.log import read_entries
from doseledger.ledger.provenance.dvc_files import entries, read_lock, read_pipeline
from doseledger.ledger.provenance.dvc_project import StageState, pipeline_state
from doseledger.ledger.provenance.git import ask_git
from doseledger.ledger.provenance.recorded import flatten
from doseledger.ledger.provenance.stages import code_files, cohort_files, model_files

# They write the small files that the others depend on: of those is told, not of them.
WRITERS = ("code", "settings", "model_settings")
SMALL_FILES = {"reports/code/": "code", "reports/settings/": "settings"}
# How many commits back a small file is looked for, and how many of its changes are told.
COMMITS, SHOWN = 50, 6
GB = 1e9


@dataclass(frozen=True)
class Rerun:
    """A stage that would run.

    Parameters
    ----------
    stage
        Its name in DVC, `train@phantom-dose_unet`.
    changes
        In words, what of its own dependencies is not as it was; empty where only a stage before it would run.
    seconds
        How long it took last time, by the audit log of this machine; None where that does not know.
    """

    stage: str
    changes: tuple[str, ...]
    reaches: tuple[str, ...]
    seconds: float | None


def find_reruns(layout: Layout, settings: Settings, machine: Machine) -> list[Rerun]:
    """Return the stages that `dvc repro` would run, in its order, with the reason of each.

    Notes
    -----
    Code and settings are read as they are now, not as the small files of the last run have them.

    Raises
    ------
    BadInput
        If the settings or the pipeline can't be read.
    """
    now = _small_files(layout, settings)
    states = [state for state in pipeline_state(layout.root) if _stem(state.name) not in WRITERS]
    changed = {state.name: tuple(_changes(layout.root, state, now)) for state in states}
    direct = {name for name, changes in changed.items() if changes}
    after = {name for state in states if state.name in direct for name in state.reaches}
    seconds = _last_seconds(machine.audit_log)
    return [
        Rerun(state.name, changed[state.name], state.reaches, seconds.get(state.command))
        for state in states
        if state.name in direct | after
    ]


def describe_reruns(reruns: list[Rerun]) -> list[str]:
    """Return the stages that would run as lines for people."""
    if not reruns:
        return ["nothing would run"]
    lines = []
    for one in reruns:
        cost = "" if one.seconds is None else f" (last time {_duration(one.seconds)})"
        why = "" if one.changes else ": a stage before it runs"
        lines += [f"{one.stage}{cost}{why}", *(f"  {change}" for change in one.changes)]
    known = [one.seconds for one in reruns if one.seconds is not None]
    if known:
        lines.append(f"{len(reruns)} stages; the {len(known)} of known cost took {_duration(sum(known))}")
    return lines


def describe_plan(reruns: list[Rerun], root: Path) -> list[str]:
    """Return what a repro will do as lines for people: each stage with its time last time, and the disk it needs.

    Notes
    -----
    Disk is what the outs of these stages took last time, in the folder and once more in DVC's cache where that can't
    share blocks with it. A part of it may be there already.
    """
    if not reruns:
        return ["nothing to do: every stage is up to date"]
    rows = []
    for one in reruns:
        # A stage of another dvc.yaml bears its path.
        told = read_pipeline(root / (one.stage.rpartition(":")[0] or PIPELINE_FILE))
        words = str(told.get(_stem(one.stage), {}).get("desc", "")).partition(";")[0]
        rows.append((one.stage, "not known" if one.seconds is None else _duration(one.seconds), words))
    table = make_table("What would run", ("Stage", "#Last time", "What"), rows)
    known = [one.seconds for one in reruns if one.seconds is not None]
    took = f"; those of known cost took {_duration(sum(known))} last time" if known else ""
    return [*as_text(table, colour=False).splitlines(), f"{plural(len(reruns), 'stage')}{took}", _disk(reruns, root)]


def _disk(reruns: list[Rerun], root: Path) -> str:
    """What the stages' outs took on disk last time, and what is free."""
    lock, names = read_lock(root / LOCK_FILE), {one.stage for one in reruns}
    outs = {out["path"]: out.get("size") for name in names & set(lock) for out in entries(lock[name], "outs", name)}
    n_bytes = sum(int(size) for size in outs.values() if size)
    free = f"{shutil.disk_usage(root).free / GB:.1f} GB are free"
    if not n_bytes:
        return f"disk: not known before a first run (the shipped cohort takes about 3 GB with DVC's cache); {free}"
    return f"disk: the outs took {n_bytes / GB:.2f} GB last time, up to twice that with DVC's cache; {free}"


def _small_files(layout: Layout, settings: Settings) -> dict[str, Any]:
    """What `code` and `settings` would write now, by path from the root."""
    files: dict[Path, Any] = {**code_files(layout, settings), **cohort_files(layout)}
    for model in settings.models:
        files |= model_files(layout.model(model), settings)
    return {path.relative_to(layout.root).as_posix(): json.loads(json.dumps(value)) for path, value in files.items()}


def _changes(root: Path, state: StageState, now: Mapping[str, Any]) -> Iterator[str]:
    if not state.recorded:
        yield "it has not run yet"
        return
    for path, md5 in state.recorded.items():
        if path in now:
            before = _content(root, path, md5)
            if before is None:
                # What it held is in no commit: only that it differs can be told, by the file on disk.
                if path in state.changed:
                    yield f"{_name(path)}: {state.changed[path]}; no commit holds what it was"
            elif before != now[path]:
                yield from _differences(path, before, now[path])
    for path, how in state.changed.items():
        if path not in now and path != PARAMS_FILE:
            yield f"{path}: {how}"
    for key, (before, after) in state.settings.items():
        yield f"{PARAMS_FILE}: {key}: {before} → {after}"


def _differences(path: str, before: Any, after: Any) -> Iterator[str]:
    """Words on what differs between two versions of a small file."""
    old, new = dict(flatten(before)), dict(flatten(after))
    words = []
    name = _name(path)
    is_code = name == "code"
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key) and (key in old) == (key in new):
            continue
        state = "is new" if key not in old else "is gone" if key not in new else "was edited"
        change = f"{old.get(key, 'not set')} → {new.get(key, 'not set')}"
        words.append(f"code: {key} {state}" if is_code else f"{name}: {key}: {change}")
    yield from words[:SHOWN]
    if len(words) > SHOWN:
        yield f"{name}: and {len(words) - SHOWN} more"


def _name(path: str) -> str:
    """What a small file holds, in a word; the path of any other."""
    return next((word for folder, word in SMALL_FILES.items() if path.startswith(folder)), path)


def _content(root: Path, path: str, md5: str) -> Any:
    """The JSON that had this MD5: from the folder, else from the commits that touched it; None where it is nowhere."""
    texts = _versions(root, path)
    found = next((text for text in texts if hashlib.md5(text.encode()).hexdigest() == md5), None)
    return None if found is None else json.loads(found)


def _versions(root: Path, path: str) -> Iterator[str]:
    if (root / path).is_file():
        yield (root / path).read_text(encoding="utf-8")
    commits = ask_git(root, "log", f"-{COMMITS}", "--format=%H", "--", path) or ""
    for commit in commits.split():
        text = ask_git(root, "show", f"{commit}:./{path}")
        if text is not None:
            yield text


def _last_seconds(log: Path) -> dict[str, float]:
    """How long each command took when it last ended well, by its words."""
    began: dict[int, str] = {}
    found: dict[str, float] = {}
    try:
        for entry in read_entries(log):
            if entry.get("event") == "began":
                said = entry.get("arguments", {})
                words = ["doseledger", entry["command"], said.get("model")]
                words += ["--cohort", said["cohort"]] if said.get("cohort") else []
                began[entry["n"]] = " ".join(word for word in words if word)
            elif entry.get("status") == "done" and entry.get("began") in began:
                found[began[entry["began"]]] = float(entry["seconds"])
    except UNREADABLE:
        return {}
    return found


def _stem(stage: str) -> str:
    return stage.rpartition(":")[2].partition("@")[0]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
