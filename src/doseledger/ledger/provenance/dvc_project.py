"""DVC's Python API: cache, pipeline, fetching, the queue."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from doseledger.core.errors import BadInput, NotReady
from doseledger.ledger.provenance.git import run_git

QueueState = Literal["queued", "running", "failed"]
# DVC makes it with the first queued experiment.
QUEUE_FOLDER = Path(".dvc") / "tmp" / "exps" / "celery"


@contextmanager
def _opened(root: Path) -> Iterator[Any]:
    """Open DVC's repository.

    Raises
    ------
    NotReady
        If DVC's own databases can't be read or written.
    """
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            yield repo
    except sqlite3.Error as error:
        raise NotReady(
            f"{root}: DVC's own databases can't be read or written ({error}): the disk is full, a file may not grow so "
            "large, or one is damaged; make room, or remove .dvc/tmp, and run the command again"
        ) from error


def cache_folder(root: Path) -> Path | None:
    """Return the folder of DVC's cache that holds objects by MD5, as the configuration says; None without a project.

    Raises
    ------
    BadInput
        If the configuration can't be read.
    """
    from dvc.config import ConfigError
    from dvc.exceptions import NotDvcRepoError

    try:
        with _opened(root) as repo:
            return Path(repo.cache.local.path)
    except NotDvcRepoError:
        return None
    except ConfigError as error:
        raise BadInput(f"{root}: DVC can't read its configuration ({error}); mend the file that it names") from error


def changed_stages(root: Path, stages: list[str]) -> list[str]:
    """Return what `dvc status` says of some stages, in words; empty where nothing changed."""
    from dvc.exceptions import DvcException

    try:
        with _opened(root) as repo:
            status = repo.status(targets=stages)
    except DvcException as error:
        return [f"DVC can't tell ({error})"]
    words = []
    for stage, changes in status.items():
        for change in changes:
            if isinstance(change, str):
                words.append(f"{stage}: {change}")
                continue
            for kind, paths in change.items():
                words += [f"{stage}: {kind}: {path} ({how})" for path, how in paths.items()]
    return words


@dataclass(frozen=True)
class StageState:
    """A stage as DVC knows it, against its record in dvc.lock.

    Parameters
    ----------
    recorded
        MD5 of each dependency of its last run, by path; empty where it has not run.
    changed
        In DVC's words, what of its files is not as recorded, by path.
    settings
        Recorded and present value of each setting that differs.
    """

    name: str
    command: str
    recorded: Mapping[str, str]
    changed: Mapping[str, str]
    settings: Mapping[str, tuple[Any, Any]]
    reaches: tuple[str, ...]


def pipeline_state(root: Path) -> list[StageState]:
    """Return every stage of the pipeline, each after those that it depends on.

    Raises
    ------
    BadInput
        If DVC can't read the pipeline.
    """
    from dvc.exceptions import DvcException
    from networkx import ancestors, topological_sort

    try:
        with _opened(root) as repo:
            status, graph = repo.status(), repo.index.graph
            # An edge leads from a stage to what it depends on.
            ordered = [stage for stage in reversed(list(topological_sort(graph))) if stage.cmd]
            place = {stage.addressing: number for number, stage in enumerate(ordered)}
            return [
                _stage_state(
                    stage,
                    status.get(stage.addressing, []),
                    tuple(sorted((other.addressing for other in ancestors(graph, stage)), key=place.__getitem__)),
                )
                for stage in ordered
            ]
    except DvcException as error:
        raise BadInput(f"{root}: DVC can't read the pipeline ({error})") from error


def _stage_state(stage: Any, status: list[Any], reaches: tuple[str, ...]) -> StageState:
    changed: dict[str, str] = {}
    settings: dict[str, tuple[Any, Any]] = {}
    known = {str(dep): dep for dep in stage.deps}
    for change in status:
        if isinstance(change, str):
            changed["command"] = change
            continue
        for path, how in (item for paths in change.values() for item in paths.items()):
            if isinstance(how, dict):
                dep = known[path]
                before, after = dep.hash_info.value or {}, dep.read_params()
                settings |= {key: (before.get(key), after.get(key)) for key in how}
            else:
                changed[path] = how
    recorded = {path: str(dep.hash_info.value) for path, dep in known.items() if isinstance(dep.hash_info.value, str)}
    return StageState(stage.addressing, str(stage.cmd), recorded, changed, settings, reaches)


def fetch_file(root: Path, path: str, revision: str, out: Path) -> None:
    """Bring a file of a commit from this clone's cache, else from its remote, as it is configured now.

    Raises
    ------
    NotReady
        If neither has it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError
    from dvc_data.index import DataIndexDirError

    unfetched = (DvcException, SCMError, DataIndexDirError, OSError, sqlite3.Error)
    found: Exception | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for source in _sources(root):
            try:
                Repo.get(str(root.resolve()), path, out=os.fspath(out.resolve()), rev=revision, force=True, **source)
                return
            except unfetched as error:
                # What the cache does not have the remote may; the last one's error is told.
                found = error
    except unfetched as error:
        found = error
    raise NotReady(
        f"{path} is neither in the cache nor in a remote ({found}); name the remote (`dvc remote add -d …`), or "
        "`dvc push` where the model was registered"
    ) from found


def _sources(root: Path) -> list[dict[str, Any]]:
    """The cache, and the default remote where there is one, as `dvc get` takes them."""
    # The configuration of the tag's commit may not name the remote, or name one that has moved since.
    with _opened(root) as repo:
        name = repo.config["core"].get("remote")
        sources = [{"remote": "this-cache", "remote_config": {"url": repo.cache.local_cache_dir}}]
        if name:
            sources.append({"remote": name, "remote_config": dict(repo.config["remote"][name])})
    return sources


@dataclass(frozen=True)
class QueuedExperiment:
    """One experiment of the queue.

    Parameters
    ----------
    name
        Its name; the beginning of its hash where it has none.
    revision
        Commit of the stash that holds its settings.
    """

    name: str
    revision: str
    status: QueueState
    date: str


def queued_experiments(root: Path) -> list[QueuedExperiment]:
    """Return the experiments of DVC's queue that have no result; none where nothing was ever queued."""
    if not (root / QUEUE_FOLDER).is_dir():
        return []

    found = []
    with _opened(root) as repo:
        queue = repo.experiments.celery_queue
        states: list[tuple[QueueState, Any]] = [
            ("queued", queue.iter_queued()),
            ("running", queue.iter_active()),
            ("failed", (result.entry for result in queue.iter_failed())),
        ]
        for state, entries in states:
            for entry in entries:
                revision = str(getattr(entry, "stash_rev", ""))
                name = str(getattr(entry, "name", None) or revision[:7])
                date = run_git(root, "show", "--no-patch", "--format=%cI", revision).stdout.strip()
                found.append(QueuedExperiment(name, revision, state, date))
    return found
