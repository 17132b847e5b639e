"""A state of the project: the working folder, or a commit with DVC's cache."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from doseledger.core.damage import DAMAGED
from doseledger.core.errors import BadInput
from doseledger.ledger.provenance.dvc_files import lock_stages
from doseledger.ledger.provenance.dvc_files import parse_yaml as parse_yaml
from doseledger.ledger.provenance.stamp import LOCK_FILE, PARAMS_FILE, PIPELINE_FILE

# Paths inside a snapshot hang below this, so that code for folders serves commits too.
ROOT = Path("/project")
# What stages read, as DVC lays it out in dvc.lock: nine tenths of the file, and no run is told from another by it.
LOCK_DEPS = re.compile(rb"^    deps:\n(?:    - .*\n(?:      .*\n)*)+", re.MULTILINE)
HEAD_FILES = (PIPELINE_FILE, PARAMS_FILE, LOCK_FILE)


@dataclass(frozen=True)
class Snapshot:
    """A state of the project: the three files that say what it is, and how any other is read.

    Parameters
    ----------
    pipeline, params, lock
        Content of dvc.yaml, params.yaml and dvc.lock (without what stages read); empty where there is none.
    read
        Returns a file's bytes by its path from the root; None where it is not to be had without a network.
    """

    pipeline: dict[str, Any]
    params: dict[str, Any]
    lock: dict[str, Any]
    read: Callable[[str], bytes | None]


def snapshot_of(heads: Mapping[str, bytes], read: Callable[[str], bytes | None], cache: Path) -> Snapshot:
    """Return a state of the project.

    Parameters
    ----------
    heads
        Bytes of dvc.yaml, params.yaml and dvc.lock.
    read
        How its other files are read; what this has not is looked for in DVC's cache.
    cache
        DVC's cache of files by MD5.
    """
    pipeline, params, lock = (_head(name, heads) for name in HEAD_FILES)

    def read_anywhere(path: str) -> bytes | None:
        found = read(path)
        return cached_file(cache, lock, path) if found is None else found

    return Snapshot(pipeline, params, lock, read_anywhere)


def workspace_snapshot(root: Path) -> Snapshot:
    """Return the state of the working folder, as its files are now."""

    def read(path: str) -> bytes | None:
        file = root / path
        return file.read_bytes() if file.is_file() else None

    heads = {name: content for name in HEAD_FILES if (content := read(name)) is not None}
    pipeline, params, lock = (_head(name, heads) for name in HEAD_FILES)
    return Snapshot(pipeline, params, lock, read)


def _head(name: str, heads: Mapping[str, bytes]) -> dict[str, Any]:
    content = heads.get(name, b"")
    if name != LOCK_FILE:
        return parse_yaml(content)
    try:
        lock = parse_yaml(LOCK_DEPS.sub(b"", content))
        return lock | {"stages": lock_stages(lock, name)}
    except BadInput:
        return {}


def cached_file(cache: Path, lock: Mapping[str, Any], path: str) -> bytes | None:
    """Return a file that DVC keeps, as a dvc.lock names it by hash; None if it is not in the cache of this machine."""
    for stage in (lock.get("stages") or {}).values():
        for out in stage.get("outs") or []:
            folder = PurePosixPath(str(out.get("path")))
            md5 = str(out.get("md5") or "")
            if str(folder) == path:
                return _cached(cache, md5)
            if md5.endswith(".dir") and folder in PurePosixPath(path).parents:
                inside = str(PurePosixPath(path).relative_to(folder))
                try:
                    listing = json.loads(_cached(cache, md5) or b"[]")
                    return next((_cached(cache, item["md5"]) for item in listing if item["relpath"] == inside), None)
                except DAMAGED:
                    return None
    return None


def _cached(cache: Path, md5: str) -> bytes | None:
    file = cache / md5[:2] / md5[2:]
    return file.read_bytes() if len(md5) > 2 and file.is_file() else None
