"""Bit rot: recorded files and cache objects, hashed again.

DVC trusts a file whose size and time did not change, and a cache object by its name: neither checkout, status nor pull
notices a bit that has flipped on disk. Reading everything again does.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_yaml
from doseledger.core.types import Tell
from doseledger.ledger.provenance.dvc_files import (
    DIR,
    entries,
    folder_files,
    object_path,
    read_lock,
    read_pipeline,
)

LOCK = "dvc.lock"


@dataclass(frozen=True)
class Recorded:
    """A file, or a folder, that DVC answers for.

    Parameters
    ----------
    path
        Where it belongs, relative to the project.
    md5
        Its hash as recorded; a folder's ends in `.dir`.
    stage
        The stage, or the `.dvc` file, that it is an out of.
    """

    path: str
    md5: str
    stage: str


@dataclass(frozen=True)
class RotReport:
    """What reading everything again found.

    Parameters
    ----------
    n_read, n_bytes
        Copies that were read, a hard link counted once, and their size.
    absent
        Recorded files of which there is no copy here, neither in the cache nor in the workspace.
    """

    findings: list[str] = field(default_factory=list)
    n_files: int = 0
    n_read: int = 0
    n_bytes: int = 0
    absent: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def recorded_outs(root: Path) -> list[Recorded]:
    """Return every out of the lock files and the `.dvc` files below a project, folders as one entry.

    Raises
    ------
    BadInput
        If such a file is not of its form.
    """
    found: list[Recorded] = []
    for path in _record_files(root):
        relative = path.relative_to(root)
        if path.name == LOCK:
            described = read_pipeline(path.with_suffix(".yaml"))
            # DVC names a stage of a pipeline file below the root by that file and its own name.
            prefix = "" if relative.parent == Path() else f"{relative.with_suffix('.yaml').as_posix()}:"
            stages = {
                f"{prefix}{name}": (stage, str(described.get(name.partition("@")[0], {}).get("wdir") or "."))
                for name, stage in read_lock(path).items()
            }
        else:
            content = read_yaml(path) or {}
            if not isinstance(content, dict):
                raise BadInput(f"{path}: no mapping, so no file that `dvc add` wrote; run that again")
            stages = {relative.as_posix(): (content, str(content.get("wdir") or "."))}
        for stage, (record, folder) in stages.items():
            for out in entries(record, "outs", f"{path}: {stage}"):
                if not (out.get("md5") or out.get("hash")):
                    raise BadInput(f"{path}: an out of {stage} has no path or no md5; run `dvc repro` again")
                if "md5" in out:
                    place = os.path.normpath(relative.parent / folder / str(out["path"]))
                    found.append(Recorded(Path(place).as_posix(), str(out["md5"]), stage))
    return found


def _record_files(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        found += [Path(folder, name) for name in names if name == LOCK or name.endswith(".dvc")]
    return sorted(found)


def expand_out(out: Recorded, cache: Path) -> list[Recorded] | None:
    """Return the single files of an out; None for a folder that the cache has no list of.

    Raises
    ------
    BadInput
        If the list is damaged.
    """
    if not out.md5.endswith(DIR):
        return [out]
    listed = folder_files(cache, out.md5, out.path)
    if listed is None:
        return None
    return [Recorded(f"{out.path}/{name}", md5, out.stage) for name, md5 in listed.items()]


def recorded_files(root: Path, cache: Path) -> dict[str, Recorded]:
    """Return every file and folder that DVC answers for, by path; what is in a folder only if the cache has its list.

    Raises
    ------
    BadInput
        If a list is damaged.
    """
    found: dict[str, Recorded] = {}
    for out in recorded_outs(root):
        found[out.path] = out
        found.update({file.path: file for file in expand_out(out, cache) or []})
    return found


def verify_recorded(root: Path, cache: Path, tell: Tell) -> RotReport:
    """Return what of the recorded files has another hash than it should, in the cache and in the workspace.

    Parameters
    ----------
    cache
        Its cache of objects by MD5; see `cache_folder`.

    Raises
    ------
    NotReady
        If there is nothing here that could be read.
    """
    outs = recorded_outs(root)
    hashed: dict[tuple[int, int], tuple[str, int]] = {}
    findings: list[str] = []
    absent: list[str] = []
    n_files = 0
    for out in outs:
        try:
            files = expand_out(out, cache)
        except BadInput as error:
            findings.append(str(error))
            continue
        if files is None:
            absent.append(out.path)
            continue
        n_files += len(files)
        for file in files:
            places = {"cache": object_path(cache, file.md5), "workspace": root / file.path}
            there = {place: path for place, path in places.items() if path.is_file()}
            if not there:
                absent.append(file.path)
            good = {place: _hash_once(path, hashed) == file.md5 for place, path in there.items()}
            findings += [_finding(file, place, good) for place, is_good in good.items() if not is_good]
        tell(f"{out.path}: {len(files)} file(s) of {out.stage}")
    if not hashed and not findings:
        raise NotReady(
            f"{root}: {len(outs)} outs are recorded and no copy of any is here; run `dvc pull` or `dvc repro`"
        )
    return RotReport(findings, n_files, len(hashed), sum(size for _, size in hashed.values()), absent)


def verify_objects(cache: Path) -> RotReport:
    """Return which objects of a whole cache are not what their name says, whatever experiment they belong to."""
    hashed: dict[tuple[int, int], tuple[str, int]] = {}
    findings = [
        f"cache object {prefix}/{rest}: its content has another hash; delete it, then `dvc pull` or make it again"
        for prefix, rest, path in _objects(cache)
        if _hash_once(path, hashed) != (prefix + rest).removesuffix(DIR)
    ]
    return RotReport(findings, len(hashed), len(hashed), sum(size for _, size in hashed.values()))


def _objects(cache: Path) -> Iterator[tuple[str, str, Path]]:
    for path in sorted(cache.glob("[0-9a-f][0-9a-f]/*")):
        # Temporary files of a fetch that was stopped are no objects.
        if re.fullmatch(rf"[0-9a-f]{{30}}({re.escape(DIR)})?", path.name):
            yield path.parent.name, path.name, path


def _hash_once(path: Path, hashed: dict[tuple[int, int], tuple[str, int]]) -> str:
    # A workspace linked from the cache is one file on disk under two names.
    status = path.stat()
    key = (status.st_dev, status.st_ino)
    if key not in hashed:
        # The hash that DVC names things by; it is no protection against intent.
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        hashed[key] = (digest.hexdigest(), status.st_size)
    return hashed[key][0]


def _finding(file: Recorded, place: str, good: dict[str, bool]) -> str:
    if place == "cache":
        cure = (
            f"delete that object and run `dvc commit {file.path}`: the workspace has the right content"
            if good.get("workspace")
            else f"delete both, then `dvc pull {file.path}`, or make it again with `dvc repro`"
        )
        return f"{file.path} ({file.stage}): the cache's copy {file.md5[:2]}/{file.md5[2:]} is damaged; {cure}"
    cure = (
        f"if nobody edited it, it is damaged: delete it and run `dvc checkout {file.path}`, the cache's copy is right"
        if good.get("cache")
        else "if nobody edited it, it is damaged; delete it, then `dvc pull`, or make it again with `dvc repro`"
    )
    return f"{file.path} ({file.stage}): the workspace's copy is not what was recorded (md5 {file.md5}); {cure}"
