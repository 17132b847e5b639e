"""DVC's queue of experiments: what waits, what runs, what failed there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from doseledger.ledger.provenance.dvc_project import QueueState, queue_entries
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
    """

    name: str
    revision: str
    status: QueueState
    date: str


def queued_experiments(root: Path) -> list[QueuedExperiment]:
    """Return the experiments of DVC's queue that have no result; none where nothing was ever queued."""
    if not (root / QUEUE_FOLDER).is_dir():
        return []
    return [
        QueuedExperiment(
            name=name or revision[:7],
            revision=revision,
            status=status,
            date=run_git(root, "show", "--no-patch", "--format=%cI", revision).stdout.strip(),
        )
        for status, name, revision in queue_entries(root)
    ]
