"""The index of runs: workspace, revisions, experiments, archives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from doseledger.core.code import code_digest
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_mapping, sha256_of_file, write_json
from doseledger.core.project.layout import Layout
from doseledger.learn.training.resume import PARTS_FILE
from doseledger.learn.watch.heartbeat import BEAT_FILE, read_beat
from doseledger.ledger.provenance.dvc_project import cache_folder, queued_experiments
from doseledger.ledger.provenance.recorded import COMMON_SETTINGS, declared_settings, flatten
from doseledger.ledger.provenance.revisions import Revision, read_blobs, recorded_revisions
from doseledger.ledger.provenance.snapshot import HEAD_FILES, Snapshot, snapshot_of, workspace_snapshot
from doseledger.ledger.runs.files import MANIFEST, files_of_archive, files_of_model, read_manifest
from doseledger.ledger.runs.listing.rows import RunRow, merge_rows, paths_of_rows, row_of_manifest, rows_of_snapshot

# Where DVC's objects would lie by default, where there is no project of DVC (any more) that could be asked.
CACHE = Path(".dvc") / "cache" / "files" / "md5"


def gather_runs(
    root: Path, archives: Iterable[Path] = (), *, states: Path | None = None, store: Path | None = None
) -> list[RunRow]:
    """Return every run, each once with all the places where it is found; the newest first.

    Parameters
    ----------
    archives
        Folders that hold archived runs.
    states
        Root of resume states: what is being trained, and what was stopped.
    store
        File that keeps what was read of commits, which never change; None reads them again.

    Raises
    ------
    BadInput
        If dvc.yaml can't be read.
    """
    rows = [*rows_of_workspace(root)]
    if states is not None:
        rows += rows_of_states(states)
    try:
        revisions = recorded_revisions(root)
    except NotReady:
        # A folder without a repository (a rehydrated bundle) has a workspace and archives.
        revisions = []
    rows += rows_of_revisions(root, revisions, store)
    rows += rows_of_queue(root)
    for folder in archives:
        rows += rows_of_archives(folder)
    return merge_rows(rows)


def rows_of_workspace(root: Path) -> list[RunRow]:
    """Return the runs whose files lie in the working folder now."""
    rows = []
    for row in rows_of_snapshot(workspace_snapshot(root)):
        files = files_of_model(Layout(root, row.cohort).model(row.model))
        known = files.summary if files.summary.is_file() else files.run / "run.json"
        moment = datetime.fromtimestamp(known.stat().st_mtime, UTC) if known.is_file() else datetime.now(UTC)
        row = replace(row, date=f"{moment:%Y-%m-%dT%H:%M:%S}+00:00", where=("workspace",))
        rows.append(row if _is_one_run(files.best_checkpoint, files.tables["cases"]) else _mixed(row))
    return rows


def rows_of_experiment_at_work(folder: Path, name: str) -> list[RunRow]:
    """Return the runs of an experiment that DVC will save when the stage that asks has ended.

    Parameters
    ----------
    folder
        Where it runs: the workspace, or a temporary folder.
    """
    return [replace(row, where=(f"experiment {name}",)) for row in rows_of_workspace(folder)]


def _is_one_run(checkpoint: Path, cases: Path) -> bool:
    """Whether the metrics that lie there are those of the checkpoint that lies there."""
    if not (checkpoint.is_file() and cases.is_file()):
        return True
    return sha256_of_file(checkpoint).encode() in cases.read_bytes()


def _mixed(row: RunRow) -> RunRow:
    return replace(row, status="incomplete", note="its metrics are of an earlier checkpoint; run `dvc repro`")


def rows_of_states(states: Path) -> list[RunRow]:
    """Return the trainings that are at work, and those that were stopped and can go on."""
    rows = []
    for file in sorted(states.glob(f"*/*/{PARTS_FILE}")):
        parts = read_mapping(file)
        beat = read_beat(file.parent / BEAT_FILE)
        alive = beat is not None and is_alive(beat.pid, "doseledger")
        epoch = f"in epoch {beat.epoch}" if beat is not None else "before its first epoch"
        # The file of parts is written once, when the training begins.
        began = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        settings, recipe = {name: parts.get(name) for name in COMMON_SETTINGS}, parts.get("recipe")
        rows.append(
            RunRow(
                id=file.parent.name[:10],
                date=f"{began:%Y-%m-%dT%H:%M:%S}+00:00",
                cohort="",
                model=file.parent.parent.name,
                status="running" if alive else "interrupted",
                where=("resume state",),
                settings=settings | dict(flatten(recipe if isinstance(recipe, dict) else {})),
                note=f"{epoch}; `dvc repro` goes on" if not alive else epoch,
            )
        )
    return rows


def is_alive(pid: int, program: str) -> bool:
    """Return whether a process runs whose command line names a program.

    Numbers of processes are used again: another program may have this one by now.
    """
    try:
        return any(program in word for word in psutil.Process(pid).cmdline())
    except (psutil.Error, TypeError, ValueError, OverflowError):
        # A number that no process can have, of a damaged file.
        return False


def rows_of_revisions(root: Path, revisions: Sequence[Revision], store: Path | None) -> list[RunRow]:
    """Return the runs that commits and experiments hold.

    A commit never changes, so what was read of one stays true; only whether DVC's cache has its run.json may change,
    and without that a row is read again.
    """
    kept = _read_store(store)
    fresh = [revision for revision in revisions if revision.commit not in kept]
    found = _read_revisions(root, fresh)
    known = {commit: rows for commit, rows in found.items() if all(row.dirty is not None for row in rows)}
    if store is not None and known:
        _write_store(store, kept | known)
    rows = []
    for revision in revisions:
        for row in (kept | found).get(revision.commit, []):
            # DVC writes an experiment's message itself: it says nothing.
            note = "" if revision.experiment else revision.subject
            rows.append(replace(row, date=revision.date, where=_where(revision), note=note))
    return rows


def _where(revision: Revision) -> tuple[str, ...]:
    if revision.experiment:
        return (f"experiment {revision.experiment}",)
    return revision.names or (f"commit {revision.commit[:10]}",)


def _read_revisions(root: Path, revisions: Sequence[Revision]) -> dict[str, list[RunRow]]:
    if not revisions:
        # All is in the store: DVC, which is slow to load, need not be asked where its cache lies.
        return {}
    commits = list(dict.fromkeys(revision.commit for revision in revisions))
    heads = read_blobs(root, [(commit, name) for commit in commits for name in HEAD_FILES])
    cache = cache_folder(root) or root / CACHE
    snapshots: dict[str, Snapshot] = {}
    blobs: dict[tuple[str, str], bytes] = {}
    for commit in commits:
        mine = {name: heads[commit, name] for name in HEAD_FILES if (commit, name) in heads}
        # The name is bound now: a commit's snapshot reads that commit.
        snapshots[commit] = snapshot_of(mine, lambda path, commit=commit: blobs.get((commit, path)), cache)  # type: ignore[misc]
    readable = {commit: snapshot for commit, snapshot in snapshots.items() if _is_ours(snapshot)}
    blobs |= read_blobs(root, [(c, path) for c, snapshot in readable.items() for path in paths_of_rows(snapshot)])
    # One that can't be read holds no run, which stays true as well: it is kept, and not looked at again.
    return {commit: rows_of_snapshot(readable[commit]) if commit in readable else [] for commit in commits}


def _is_ours(snapshot: Snapshot) -> bool:
    """Whether a commit's pipeline is one that can be read: an early one may have had other stages."""
    try:
        paths_of_rows(snapshot)
    except (BadInput, NotReady, KeyError, IndexError):
        return False
    return True


def rows_of_queue(root: Path) -> list[RunRow]:
    """Return the experiments that wait in DVC's queue, that it runs, or that failed there."""
    rows = []
    for entry in queued_experiments(root):
        params = _read_revision_params(root, entry.revision)
        rows += [
            RunRow(
                id=entry.revision[:10],
                date=entry.date,
                cohort=str(params.get("cohort", "")),
                model=str(model),
                status=entry.status,
                where=(f"experiment {entry.name}",),
                settings=declared_settings(params, str(model)),
                note="in DVC's queue",
            )
            for model in params.get("models") or []
        ]
    return rows


def _read_revision_params(root: Path, commit: str) -> Mapping[str, Any]:
    blobs = read_blobs(root, [(commit, name) for name in HEAD_FILES])
    return snapshot_of({name: blobs.get((commit, name), b"") for name in HEAD_FILES}, lambda path: None, root).params


def rows_of_archives(folder: Path) -> list[RunRow]:
    """Return the archived runs in a folder.

    Raises
    ------
    BadInput
        If there is no such folder, or a manifest in it is none.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder of archived runs")
    rows = []
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        files = files_of_archive(path.parent)
        verdicts = {gate: _json_or_none(files.verdicts[gate].token) for gate in files.verdicts}
        rows.append(
            row_of_manifest(read_manifest(path.parent), _json_or_none(files.summary), verdicts, path.parent.name)
        )
    return rows


def _json_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return read_mapping(path)
    except BadInput:
        return None


def _version() -> str:
    return code_digest(__name__)


def _read_store(store: Path | None) -> dict[str, list[RunRow]]:
    content = _json_or_none(store) if store is not None else None
    if not isinstance(content, dict) or content.get("version") != _version():
        return {}
    return {
        commit: [RunRow(**{**row, "where": tuple(row["where"])}) for row in rows]
        for commit, rows in content["rows"].items()
    }


def _write_store(store: Path, rows: Mapping[str, list[RunRow]]) -> None:
    plain = {commit: [asdict(row) for row in its] for commit, its in rows.items()}
    write_json(store, {"version": _version(), "rows": plain})
