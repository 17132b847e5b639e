"""Tables, verdicts, weights and predictions held to the hashes in dvc.lock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.project.layout import HASHED_FOLDERS, LOCK_FILE
from doseledger.core.text.lists import first_of
from doseledger.ledger.provenance.dvc_files import DIR, folder_files, lock_stages
from doseledger.ledger.provenance.dvc_project import cache_folder
from doseledger.ledger.provenance.recorded import MODEL_STAGES
from doseledger.ledger.provenance.snapshot import LOCK_DEPS, parse_yaml

# Of which stages a stage's command reads tables, verdicts, weights or predictions; a test holds it to dvc.yaml.
READS: dict[str, tuple[str, ...]] = {
    "check_data": ("split",),
    "drift": ("split", "check_data"),
    "report_data": ("split", "check_data", "drift"),
    "preflight": ("split", "check_data"),
    "train": ("split", "check_data", "preflight"),
    "predict": ("split", "train"),
    "evaluate": ("split", "predict"),
    "shortcuts": ("split", "train", "predict"),
    "judge": ("split", "check_data", "drift", "train", "evaluate", "shortcuts"),
    "report": ("split", "check_data", "preflight", "train", "predict", "evaluate", "shortcuts", "judge"),
    "gate": ("judge",),
}
# All that is read of a finished run.
OF_A_RUN = ("split", "check_data", "drift", "preflight", "train", "predict", "evaluate", "shortcuts", "judge")
TABLES = frozenset({".csv", ".json"})
# So many files of a folder are named.
MOST_NAMED = 3


@dataclass(frozen=True)
class ChangedOut:
    """A file, or a folder of weights or predictions, that is not what dvc.lock records of the stage that made it."""

    stage: str
    path: str
    found: str
    recorded: str
    # Of a folder: the files of it that differ, as far as the cache knows what they were.
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as a clause of a message."""
        which = f" (in {first_of(self.files, MOST_NAMED)})" if self.files else ""
        return f"{self.path} has the MD5 {self.found[:12]}…, {self.recorded[:12]}… was recorded of {self.stage}{which}"


def full_names(stages: Sequence[str], cohort: str, model: str | None) -> list[str]:
    """Return the names that stages have in dvc.lock.

    Examples
    --------
    >>> full_names(["split", "evaluate"], "phantom", "dose_unet")
    ['split@phantom', 'evaluate@phantom-dose_unet']
    """
    return [f"{name}@{cohort}-{model}" if name in MODEL_STAGES else f"{name}@{cohort}" for name in stages]


def recorded_outs(lock: Mapping[str, Any], stages: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return (stage, MD5) by path of what a dvc.lock records of stages: tables, verdicts, weights, predictions."""
    known = lock.get("stages")
    found = {}
    for name in stages:
        stage = known.get(name) if isinstance(known, dict) else None
        for out in (stage.get("outs") or []) if isinstance(stage, dict) else []:
            path = PurePosixPath(str(out["path"]))
            if out.get("md5") and (path.suffix in TABLES or str(path).startswith(HASHED_FOLDERS)):
                found[str(path)] = (name, str(out["md5"]))
    return found


def recorded_of(lock_file: Path, stages: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return what `recorded_outs` says of a dvc.lock on disk; nothing where there is none.

    Raises
    ------
    BadInput
        If it is no dvc.lock.
    """
    content = lock_file.read_bytes() if lock_file.is_file() else b""
    lock = parse_yaml(LOCK_DEPS.sub(b"", content))
    if content and not isinstance(lock.get("stages"), dict):
        raise BadInput(f"{lock_file}: not a dvc.lock (no mapping of stages); run `dvc repro` again")
    return recorded_outs({"stages": lock_stages(lock, lock_file)}, stages)


def changed_outs(root: Path, stages: Sequence[str]) -> list[ChangedOut]:
    """Return the files here that are not those that dvc.lock records; one that is absent is left to who wants it.

    Parameters
    ----------
    root
        The project's folder, which the lock's paths are relative to.
    stages
        Names as dvc.lock has them; one that it does not know has recorded nothing.

    Raises
    ------
    BadInput
        If dvc.lock is none.

    Notes
    -----
    DVC writes a stage's entry as soon as it has run, before the next stage starts, in experiments too: whatever reads
    the outs of stages before it finds them recorded. DVC itself trusts size and time of a file and would not look.
    """
    found = []
    for path, (stage, recorded) in recorded_of(root / LOCK_FILE, stages).items():
        place = root / path
        if place.exists() and (now := md5_of(place)) != recorded:
            files = _changed_files(root, place, recorded) if recorded.endswith(DIR) else ()
            found.append(ChangedOut(stage, path, now, recorded, files))
    return found


def _changed_files(root: Path, folder: Path, recorded: str) -> tuple[str, ...]:
    """The files of a folder that are not those that were recorded; none where the cache can't tell."""
    cache = cache_folder(root)
    try:
        wanted = folder_files(cache, recorded, folder.name) if cache is not None else None
    except BadInput:
        return ()
    here = {item["relpath"]: item["md5"] for item in _listed(folder)}
    known = wanted or here
    return tuple(sorted(name for name in known.keys() | here.keys() if known.get(name) != here.get(name)))


def md5_of(path: Path) -> str:
    """Return the MD5 that DVC gives a file, or a folder: that of the list of its files, with `.dir` behind it.

    Notes
    -----
    It is the name that DVC gives things, and no protection against intent: for that dvc.lock is committed, and the
    commit pushed.
    """
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    listed = sorted(_listed(path), key=lambda item: item["relpath"])
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + DIR


def _listed(folder: Path) -> Iterator[dict[str, str]]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield {"md5": md5_of(file), "relpath": file.relative_to(folder).as_posix()}


def require_recorded(root: Path, stages: Sequence[str], cohort: str, model: str | None = None) -> None:
    """Do nothing if what stages made is what dvc.lock records of them.

    Parameters
    ----------
    root
        The project's folder, which the lock's paths are relative to.
    stages
        Names without cohort and model: `READS` of a stage.

    Raises
    ------
    NotReady
        Naming each file that was changed since, and what to run.
    """
    changed = changed_outs(root, full_names(stages, cohort, model))
    if changed:
        told = "; ".join(str(item) for item in changed)
        raise NotReady(f"changed since the stage that made it ran: {told}: {cure(changed)}")


def cure(changed: Sequence[ChangedOut]) -> str:
    """Return what to do about files that were changed."""
    stages = " ".join(sorted({item.stage for item in changed}))
    return f"never edit what a stage wrote; make it again with `dvc repro --force --single-item {stages}`"
