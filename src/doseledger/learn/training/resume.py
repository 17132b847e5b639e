"""Resume states: the fingerprint of a run, and where states are kept."""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_mapping, sha256_of_json, write_json
from doseledger.learn.watch.heartbeat import STATE_FILE

PARTS_FILE = "fingerprint.json"
LOCK_FILE = "lock"


@dataclass(frozen=True)
class ResumeState:
    """The folder of one run's resume state, and whether there is something in it to go on from."""

    folder: Path
    found: bool
    why: str
    # Descriptor of the lock that the process which works on it holds, for as long as it lives.
    lock: int | None = None

    @property
    def lightning(self) -> Path:
        """Lightning's own checkpoint: weights, optimiser, schedule, progress, callbacks."""
        return self.folder / STATE_FILE

    def release(self) -> None:
        """Leave the state to whoever comes next."""
        if self.lock is not None:
            os.close(self.lock)


def open_state(root: Path, model: str, parts: dict[str, Any], *, fresh: bool, twins: bool = True) -> ResumeState:
    """Return the resume state of the run that has these parts, and in words why it goes on or starts anew.

    Two processes that train the same at once (two experiments that differ in how they predict) have one each.

    Parameters
    ----------
    root
        Folder of all resume states; each run has `<root>/<model>/<fingerprint>`.
    parts
        All that decides the result, as JSON values: recipe, lr, seed, fold, splits, cases, code, data gate.
    fresh
        Throw away what is there.
    twins
        Whether a state of its own may be begun while another process works on this one.

    Raises
    ------
    NotReady
        If not, and another process does.
    """
    name = sha256_of_json(parts)[:16]
    for turn in count(1) if twins else [1]:
        folder = root / model / (name if turn == 1 else f"{name}-{turn}")
        lock = _lock(folder)
        if lock is not None:
            break
    else:
        raise NotReady(f"another process trains this very model now, with {root / model / name}; wait for its end")
    if fresh:
        for file in set(folder.iterdir()) - {folder / LOCK_FILE}:
            # Doses that trees have told lie in a folder.
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    if (folder / STATE_FILE).is_file():
        return ResumeState(folder, True, "settings, data and code are those of the interrupted run", lock)
    write_json(folder / PARTS_FILE, parts)
    others = [other for other in list_states(root, model) if not other.name.startswith(name)]
    if turn > 1:
        why = "another process trains the same now"
    elif fresh:
        why = "a fresh start was asked for"
    elif others:
        changed = changed_parts(read_mapping(others[0] / PARTS_FILE), parts)
        why = f"the interrupted run of {model} differs: {'; '.join(changed)}"
    else:
        why = f"there is no interrupted run of {model}"
    return ResumeState(folder, False, why, lock)


def _lock(folder: Path) -> int | None:
    """Take a state for this process, until it ends; None while another one has it.

    Notes
    -----
    By fcntl's record lock: a loader process that outlives a killed training holds none, other than flock's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == (folder / LOCK_FILE).stat().st_ino:
            return lock
    except OSError:
        # Another process has it, or has just ended and taken the folder away.
        pass
    os.close(lock)
    return None


def join_state(root: Path, model: str, parts: dict[str, Any], *, fresh: bool) -> ResumeState:
    """Return the resume state that the main one of several processes opens, and change nothing.

    An interrupted run's state stays as it was until the first epoch has ended, which takes all of them: they agree.
    """
    folder = root / model / sha256_of_json(parts)[:16]
    return ResumeState(folder, not fresh and (folder / STATE_FILE).is_file(), "")


def list_states(root: Path, model: str | None = None) -> list[Path]:
    """Return the folders of interrupted runs, of one model or all, those touched last first."""
    states = [file.parent for file in root.glob(f"{model or '*'}/*/{STATE_FILE}")]
    return sorted(states, key=lambda folder: (folder / STATE_FILE).stat().st_mtime, reverse=True)


def clear_states(root: Path, model: str) -> int:
    """Delete a model's resume states and return how many there were.

    Raises
    ------
    BadInput
        If the name is no plain name.
    """
    if not model or Path(model).name != model:
        raise BadInput(f"{model!r} is not a model's name")
    states = list_states(root, model)
    shutil.rmtree(root / model, ignore_errors=True)
    return len(states)


def changed_parts(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return in words what differs between two fingerprints, the deepest keys only.

    Examples
    --------
    >>> changed_parts({"lr": 0.1, "recipe": {"seed": 1}}, {"lr": 0.2, "recipe": {"seed": 1}})
    ['lr was 0.1, is 0.2']
    """
    changes: list[str] = []
    for key in sorted(set(old) | set(new)):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, dict) and isinstance(after, dict):
            changes += changed_parts(before, after, f"{name}.")
        elif before != after:
            changes.append(f"{name} was {_short(before)}, is {_short(after)}")
    return changes


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
