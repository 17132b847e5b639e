"""Forms of the files that DVC writes and reads: dvc.lock, dvc.yaml and `.dvc`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from doseledger.core import files
from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml

# A folder's MD5, which is that of the list of its files, ends so.
DIR = ".dir"
Stages = dict[str, dict[str, Any]]


def read_lock(path: Path) -> Stages:
    """Return the entries of a dvc.lock by stage; none where there is no such file.

    Raises
    ------
    BadInput
        If it is no dvc.lock.
    """
    return lock_stages(read_yaml(path), path) if path.is_file() else {}


def lock_stages(content: Any, where: Path | str) -> Stages:
    """Return the entries of a dvc.lock by stage; each dep and out is a mapping with a path.

    Raises
    ------
    BadInput
        If the content is not of that form; an empty file has no stage.
    """
    stages = _stages(content, where, "dvc.lock")
    for name, stage in stages.items():
        for kind in ("deps", "outs"):
            entries(stage, kind, f"{where}: {name}")
        params = stage.get("params") or {}
        if not isinstance(params, dict) or not all(isinstance(item or {}, dict) for item in params.values()):
            raise BadInput(f"{where}: {name}: params is no mapping of mappings; run `dvc repro` again")
    return stages


def read_pipeline(path: Path) -> Stages:
    """Return the stages of a dvc.yaml; none where there is no such file. One under `foreach` or `matrix` is its `do`.

    Raises
    ------
    BadInput
        If it is no dvc.yaml.
    """
    stages = _stages(read_yaml(path), path, "dvc.yaml") if path.is_file() else {}
    bodies = {name: stage.get("do", stage) for name, stage in stages.items()}
    for name, body in bodies.items():
        if not isinstance(body, dict):
            raise BadInput(f"{path}: the stage {name} is no mapping; mend it, or check it out again")
    return bodies


def entries(record: Mapping[str, Any], kind: str, where: str) -> list[dict[str, Any]]:
    """Return the deps or outs of a stage in dvc.lock, or of a `.dvc` file.

    Raises
    ------
    BadInput
        If one is no mapping, or has no path.
    """
    found = record.get(kind) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) and "path" in item for item in found):
        raise BadInput(f"{where}: one of its {kind} has no path; run `dvc repro` again, or check the file out again")
    return found


def _stages(content: Any, where: Path | str, name: str) -> Stages:
    if content is None:
        return {}
    stages = content.get("stages", {}) if isinstance(content, dict) else None
    if stages is None and isinstance(content, dict):
        return {}
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise BadInput(f"{where}: not a {name} (no mapping of stages); run `dvc repro` again, or check it out again")
    return {str(name): stage for name, stage in stages.items()}


@lru_cache(maxsize=256)
def _yaml_text(content: bytes) -> Any:
    try:
        return files.parse_yaml(content.decode("utf-8", "replace"), "a file")
    except BadInput:
        # An old commit may hold a file with conflict marks in it; it then holds no run.
        return None


def parse_yaml(content: bytes) -> dict[str, Any]:
    """Return a file's mapping; empty where it holds none."""
    value = _yaml_text(content)
    return value if isinstance(value, dict) else {}


def object_path(cache: Path, md5: str) -> Path:
    """Return where the cache keeps an object."""
    return cache / md5[:2] / md5[2:]


def folder_files(cache: Path, md5: str, path: str) -> dict[str, str] | None:
    """Return the MD5 of each file of a recorded folder, by its place there; None where the cache has no list of them.

    Parameters
    ----------
    md5
        The folder's, which ends in `.dir`.
    path
        The folder, for the message.

    Raises
    ------
    BadInput
        If the list is damaged.
    """
    listing = object_path(cache, md5)
    if not listing.is_file():
        return None
    content = listing.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() + DIR != md5:
        raise BadInput(
            f"{path}: the cache's list of its files is damaged ({md5[:2]}/{md5[2:]}); delete it and fetch it again "
            f"(`dvc pull {path}`), or run `dvc commit {path}` if the folder itself is right"
        )
    return {str(item["relpath"]): str(item["md5"]) for item in json.loads(content) if "md5" in item}
