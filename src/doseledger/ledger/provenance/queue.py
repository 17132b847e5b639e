"""DVC's queue of experiments: what waits, what runs, what failed there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from doseledger.ledger.provenance.git import run_git

# DVC makes it with the first queued experiment.
QUEUE_FOLDER = Path(".dvc") / "tmp" / "exps" / "celery"


@dataclass(frozen=True)
class QueuedExperiment:
    """One experiment of the queue.

    Parameters
    ----------
    name
        Its name; the beginning of its hash where it has none.
    revision
        Commit of the stash that holds its settings.
    status
        Waiting, running, or failed.
    date
        When it was queued, ISO 8601.
    """

    name: str
    revision: str
    status: Literal["queued", "running", "failed"]
    date: str


def queued_experiments(root: Path) -> list[QueuedExperiment]:
    """Return the experiments of DVC's queue that have no result; none where nothing was ever queued."""
    if not (root / QUEUE_FOLDER).is_dir():
        return []
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        queue = repo.experiments.celery_queue
        entries: list[tuple[Literal["queued", "running", "failed"], Iterable[object]]] = [
            ("queued", queue.iter_queued()),
            ("running", queue.iter_active()),
            ("failed", (result.entry for result in queue.iter_failed())),
        ]
        return [_entry(root, entry, status) for status, found in entries for entry in found]


def _entry(root: Path, entry: object, status: Literal["queued", "running", "failed"]) -> QueuedExperiment:
    revision = str(getattr(entry, "stash_rev", ""))
    return QueuedExperiment(
        name=str(getattr(entry, "name", None) or revision[:7]),
        revision=revision,
        status=status,
        date=run_git(root, "show", "--no-patch", "--format=%cI", revision).stdout.strip(),
    )
