"""Resume states: the fingerprint of a run, and where states are kept."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import read_mapping, sha256_of_json, write_json

PARTS_FILE = "fingerprint.json"
LIGHTNING_FILE = "last.ckpt"


@dataclass(frozen=True)
class ResumeState:
    """The folder of one run's resume state, and whether there is something in it to go on from."""

    folder: Path
    found: bool
    why: str

    @property
    def lightning(self) -> Path:
        """Lightning's own checkpoint: weights, optimiser, schedule, progress, callbacks."""
        return self.folder / LIGHTNING_FILE


def open_state(root: Path, model: str, parts: dict[str, Any], *, fresh: bool) -> ResumeState:
    """Return the resume state of the run that has these parts, and in words why it goes on or starts anew.

    Parameters
    ----------
    root
        Folder of all resume states; each run has `<root>/<model>/<fingerprint>`.
    parts
        All that decides the result, as JSON values: recipe, lr, seed, fold, splits, cases, code, data gate.
    fresh
        Throw away what is there.
    """
    folder = root / model / sha256_of_json(parts)[:16]
    if fresh and folder.exists():
        shutil.rmtree(folder)
    if (folder / LIGHTNING_FILE).is_file():
        return ResumeState(folder, True, "settings, data and code are those of the interrupted run")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PARTS_FILE, parts)
    others = [other for other in list_states(root, model) if other != folder]
    if fresh:
        why = "a fresh start was asked for"
    elif others:
        changed = changed_parts(read_mapping(others[0] / PARTS_FILE), parts)
        why = f"the interrupted run of {model} differs: {'; '.join(changed)}"
    else:
        why = f"there is no interrupted run of {model}"
    return ResumeState(folder, False, why)


def join_state(root: Path, model: str, parts: dict[str, Any], *, fresh: bool) -> ResumeState:
    """Return the resume state that the main one of several processes opens, and change nothing.

    An interrupted run's state stays as it was until the first epoch has ended, which takes all of them: they agree.
    """
    folder = root / model / sha256_of_json(parts)[:16]
    return ResumeState(folder, not fresh and (folder / LIGHTNING_FILE).is_file(), "")


def list_states(root: Path, model: str | None = None) -> list[Path]:
    """Return the folders of interrupted runs, of one model or all, those touched last first."""
    states = [file.parent for file in root.glob(f"{model or '*'}/*/{LIGHTNING_FILE}")]
    return sorted(states, key=lambda folder: (folder / LIGHTNING_FILE).stat().st_mtime, reverse=True)


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
