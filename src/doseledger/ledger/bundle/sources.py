"""Files of a bundle: names in it, DVC's records, summary of the test log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import read_json
from doseledger.ledger.bundle.bitrot import Recorded
from doseledger.ledger.bundle.manifest import Source

# Small files of the project by which the work can be done again.
PROVENANCE = ("dvc.lock", "dvc.yaml", "params.yaml", "requirements.lock")
NOTHING = "-"
SUMMARY = re.compile(r"=+ ((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.* =+\s*$", re.MULTILINE)


@dataclass(frozen=True)
class OpaqueFile:
    """A file that is taken as it is and never opened, with the JSON of its parameters and the stage that made it."""

    path: Path
    parameters: Path | None
    stage: str


@dataclass(frozen=True)
class Wanted:
    """What a bundle is made of.

    Parameters
    ----------
    data, runs, reports
        Folders or files; a path below the project keeps its place, so that a rehydrated bundle is laid out as the
        project is.
    """

    data: tuple[Path, ...] = ()
    runs: tuple[Path, ...] = ()
    reports: tuple[Path, ...] = ()
    files: tuple[OpaqueFile, ...] = ()
    evidence: tuple[Path, ...] = ()


def pair_files(files: list[Path], parameters: list[Path], stages: list[str]) -> tuple[OpaqueFile, ...]:
    """Return opaque files with what was said of each; "-" stands for nothing.

    Raises
    ------
    BadInput
        If parameters or stages are given for some of the files only: nobody could tell for which.
    """
    for option, given in (("--params", parameters), ("--stage", stages)):
        if given and len(given) != len(files):
            raise BadInput(
                f"{len(files)} --file and {len(given)} {option}: give one for each file, in the same order, - for none"
            )
    sidecars = [None if str(path) == NOTHING else path for path in parameters] or [None] * len(files)
    made_by = ["" if stage == NOTHING else stage for stage in stages] or [""] * len(files)
    return tuple(OpaqueFile(*item) for item in zip(files, sidecars, made_by, strict=True))


def gather(wanted: Wanted, root: Path, recorded: dict[str, Recorded]) -> list[Source]:
    """Return the files of a bundle, sorted by name.

    Parameters
    ----------
    recorded
        What DVC recorded, by path.

    Raises
    ------
    BadInput
        If a path is absent or a symbolic link, or there is nothing at all.
    """
    sources: list[Source] = []
    for role, paths in (("data", wanted.data), ("run", wanted.runs), ("report", wanted.reports)):
        for given in paths:
            for path, name in _below(given, bundle_name(given, root, role)):
                stage, md5 = _record_of(_relative(path, root), recorded)
                sources.append(Source(path, name, role, stage, md5))
    for item in wanted.files:
        parameters = _parameters(item.parameters) if item.parameters else None
        for path, name in _below(item.path, f"files/{item.path.name}"):
            stage, md5 = _record_of(_relative(path, root), recorded)
            sources.append(Source(path, name, "file", item.stage or stage, md5, parameters))
    for log in wanted.evidence:
        sources += [Source(path, name, "evidence") for path, name in _below(log, f"evidence/{log.name}")]
    if not sources:
        raise BadInput("nothing to pack: give --data, --run, --report or --file")
    for name in PROVENANCE:
        if (root / name).is_file():
            sources.append(Source(root / name, f"provenance/{name}", "provenance"))
    return sorted(sources, key=lambda source: source.name)


def _record_of(relative: str, recorded: dict[str, Recorded]) -> tuple[str, str]:
    """Which stage wrote a file, and its hash; the stage alone where only the folder that it lies in is known."""
    if relative in recorded:
        return recorded[relative].stage, recorded[relative].md5
    above = [str(folder) for folder in PurePosixPath(relative).parents if str(folder) in recorded]
    return (recorded[above[0]].stage, "") if above else ("", "")


def _relative(path: Path, root: Path) -> str:
    """Where a path lies below the project, whatever links lead to it; empty where it lies elsewhere."""
    project = root.resolve()
    # A folder of the project may itself be a link to another disk: then only the path as it is written lies below.
    for whole in (Path(os.path.realpath(path)), Path(os.path.abspath(path))):
        if whole.is_relative_to(project):
            return whole.relative_to(project).as_posix()
    return ""


def bundle_name(path: Path, root: Path, role: str) -> str:
    """Return where a folder or file goes in the bundle: to its place in the project, or below its role."""
    return _relative(path, root) or f"{role}/{path.name}"


def _below(given: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Each file of a folder, or the file itself; hidden files, which DVC and file browsers leave, stay behind."""
    if given.is_symlink():
        raise BadInput(f"{given}: a symbolic link; give the file or folder that it points to")
    if given.is_file():
        yield given, name
        return
    if not given.is_dir():
        raise BadInput(f"{given}: no such file or folder")
    for folder, below, files in os.walk(given):
        below[:] = sorted(part for part in below if not part.startswith("."))
        for part in sorted([*below, *files]):
            path = Path(folder, part)
            if path.is_symlink():
                raise BadInput(
                    f"{path}: a symbolic link, which would point nowhere at the receiver's; put the file itself there "
                    "(`dvc config cache.type reflink,hardlink,copy`, then `dvc checkout --relink`)"
                )
            if part in files and not part.startswith("."):
                if not path.is_file():
                    raise BadInput(f"{path}: neither a file nor a folder; take it away")
                yield path, f"{name}/{path.relative_to(given).as_posix()}"


def _parameters(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput(f"{path}: wanted a JSON object of parameters, found {type(value).__name__}")
    return value


def evidence_summary(path: Path) -> dict[str, Any]:
    """Return how a test run ended by its log: `line`, and `failed`, the number of tests that failed or broke.

    Raises
    ------
    BadInput
        If the log does not end as pytest's do.
    """
    found = SUMMARY.findall(path.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise BadInput(
            f"{path}: no summary of pytest in it (`==== 10 passed in 3.2s ====`); write the log of a whole run with "
            "`make test | tee pytest.log`"
        )
    line = str(found[-1])
    failed = sum(int(number) for number in re.findall(r"(\d+) (?:failed|errors?)\b", line))
    return {"line": line, "failed": failed}
