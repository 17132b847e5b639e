"""Rows of the run index: what, when, how good, by which settings."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from doseledger.core.damage import DAMAGED
from doseledger.core.files import sha256_of_json
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.gates.model.standing import read_standing
from doseledger.ledger.provenance.outs import OF_A_RUN, full_names, recorded_outs
from doseledger.ledger.provenance.recorded import settings_of_run, stage_names
from doseledger.ledger.provenance.snapshot import ROOT, Snapshot, parse_yaml
from doseledger.ledger.runs.files import GATES, RunFiles, files_of_model, run_id, verdict_speaks_of

Status = Literal["complete", "failed", "incomplete", "running", "interrupted", "queued"]
# Of two words for one run, the first of these stands.
HARDEST_FIRST = ("failed", "running", "complete", "incomplete", "interrupted", "queued")
# A short name for the error that cases are ranked by (evaluate.summary.RANKED_BY, whose import would cost a second):
# the long one names its mask, and every table shows that.
SHORT_NAMES = {"mae_gy": "mae_above_10_percent_gy"}


@dataclass(frozen=True)
class RunRow:
    """One run.

    Parameters
    ----------
    id
        Its name, of weights and numbers (`runs.run_id`); of its settings while there are no numbers.
    date
        ISO 8601: of the commit or experiment that holds it, of archiving, or of its summary in the workspace.
    status
        `complete` has metrics and every gate passed; `failed` has a gate that said no; `incomplete` has no metrics, or
        a gate that has not judged it; the others are of what is at work, was stopped, or waits.
    where
        Where it is found: workspace, tags and branches, commits, experiments, archived runs.
    commit
        The code that trained it; empty where nobody knows.
    dirty
        Whether the tree was dirty then; None where nobody knows.
    verdicts
        Of each gate: passed, failed, or None for not judged (on these numbers).
    settings
        Flat, as recorded with the stages.
    note
        Message of the commit, or what a person should know.
    standing
        What its badge says: passed, provisional or failed; empty where nobody knows.
    """

    id: str
    date: str
    cohort: str
    model: str
    status: Status
    where: tuple[str, ...] = ()
    commit: str = ""
    dirty: bool | None = None
    verdicts: dict[str, bool | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    standing: str = ""

    def columns(self) -> dict[str, Any]:
        """Return everything by the name that conditions and tables call it by; a metric wins over a setting."""
        plain = asdict(self)
        flat = {**plain.pop("settings"), **plain.pop("metrics")}
        verdicts = plain.pop("verdicts")
        flat |= {f"{gate}_ok": verdicts.get(gate) for gate in (*GATES, *verdicts)}
        flat |= {short: flat.get(name) for short, name in SHORT_NAMES.items()}
        return {**flat, **plain, "where": ", ".join(self.where)}


def rows_of_snapshot(snapshot: Snapshot) -> list[RunRow]:
    """Return the runs of a state of the project, one for each model that it has trained or measured."""
    rows = [_row(snapshot, at) for at in _models(snapshot)]
    return [row for row in rows if row is not None]


def paths_of_rows(snapshot: Snapshot) -> list[str]:
    """Return the files that `rows_of_snapshot` will ask for, so that they can be read at one go."""
    wanted = [path for at in _models(snapshot) for path in _asked_for(at)]
    return [path.relative_to(ROOT).as_posix() for path in wanted]


def _models(snapshot: Snapshot) -> list[ModelLayout]:
    names = snapshot.params.get("models") or []
    layout = Layout(ROOT, str(snapshot.params.get("cohort")))
    return [layout.model(str(name)) for name in names] if isinstance(names, list) else []


def _asked_for(at: ModelLayout) -> list[Path]:
    files = files_of_model(at)
    verdicts = [path for place in files.verdicts.values() for path in (place.token, place.findings)]
    return [files.summary, files.tables["cases"], at.settings / "predict.json", *verdicts]


def _row(snapshot: Snapshot, at: ModelLayout) -> RunRow | None:
    def read(path: Path) -> bytes | None:
        return snapshot.read(path.relative_to(ROOT).as_posix())

    def read_json(path: Path) -> Any:
        return _json(read(path))

    files = files_of_model(at)
    known = snapshot.lock.get("stages") or {}
    stages = {name: known[name] for name in stage_names(files.cohort, files.model) if name in known}
    summary = read_json(files.summary)
    record = read_json(files.run / "run.json") or {}
    is_trained = f"train@{files.cohort}-{files.model}" in stages
    if summary is None and not record and not is_trained:
        return None
    verdicts = {gate: _verdict(read_json, files, gate, summary) for gate in files.verdicts}
    changed = _changed(read, snapshot.lock, at)
    if changed:
        verdicts["model"] = None
    git = (record.get("provenance") or {}).get("git") or {}
    config = parse_yaml(read(files.run / "config_resolved.yaml") or b"")
    settings = settings_of_run(config, read_json(at.settings / "predict.json") or {}, stages)
    return RunRow(
        id=_id(files, settings, summary, _checkpoint(read(files.tables["cases"]))),
        date="",
        cohort=files.cohort,
        model=files.model,
        status=status_of(verdicts, has_metrics=summary is not None),
        commit=str(git.get("commit") or ""),
        dirty=bool(git["dirty"]) if "dirty" in git else None,
        verdicts=verdicts,
        settings=settings,
        metrics=summary or {},
        standing=_standing(read_json, files) if verdicts["model"] is not None else "",
        note=f"changed since the stage that made it: {', '.join(changed)}" if changed else "",
    )


def _changed(read: Callable[[Path], bytes | None], lock: Mapping[str, Any], at: ModelLayout) -> list[str]:
    """The files that the row is made of and that are not those that dvc.lock records: they say nothing of a run."""
    recorded = recorded_outs(lock, full_names(OF_A_RUN, at.layout.cohort, at.name))
    names = {path.relative_to(ROOT).as_posix(): path for path in _asked_for(at)}
    return [
        name
        for name, path in names.items()
        if name in recorded
        and (content := read(path)) is not None
        and hashlib.md5(content, usedforsecurity=False).hexdigest() != recorded[name][1]
    ]


def status_of(verdicts: Mapping[str, bool | None], *, has_metrics: bool) -> Status:
    """Return what became of a run, by its gates (those that every run has, and its own) and whether it has metrics."""
    if any(verdict is False for verdict in verdicts.values()):
        return "failed"
    every = all(verdicts.get(gate) for gate in (*GATES, *verdicts))
    return "complete" if has_metrics and every else "incomplete"


def _verdict(read: Callable[[Any], Any], files: RunFiles, gate: str, summary: Any) -> bool | None:
    token, findings = read(files.verdicts[gate].token), read(files.verdicts[gate].findings)
    if not isinstance(token, dict) or "ok" not in token:
        return None
    # A gate that has not run since leaves its last word behind: it is not about these numbers.
    if gate == "model" and not verdict_speaks_of(findings or {}, summary or {}):
        return None
    return token["ok"] is True


def _standing(read: Callable[[Any], Any], files: RunFiles) -> str:
    told = read_standing(read(files.verdicts["model"].findings) or {})
    return told.state if told else ""


def _id(files: RunFiles, settings: Mapping[str, Any], summary: Any, checkpoint: str) -> str:
    if isinstance(summary, dict):
        return run_id(files.cohort, files.model, checkpoint, summary)
    return sha256_of_json([files.cohort, files.model, dict(settings)])[:10]


def _json(content: bytes | None) -> Any:
    try:
        value = json.loads(content) if content else None
    except DAMAGED:
        return None
    return value if isinstance(value, dict) else None


def _checkpoint(cases: bytes | None) -> str:
    """SHA256 of the checkpoint that was evaluated, as the table of cases has it."""
    rows = csv.DictReader(io.StringIO((cases or b"").decode("utf-8", "replace")))
    try:
        return next((str(row.get("checkpoint_sha256")) for row in rows), "")
    except DAMAGED:
        return ""


def row_of_manifest(manifest: Mapping[str, Any], summary: Any, verdicts: Mapping[str, Any], name: str) -> RunRow:
    """Return the run that an archived folder holds."""
    judged = {gate: bool(token.get("ok")) if token else None for gate, token in verdicts.items()}
    errors = (manifest.get("check") or {}).get("errors") or []
    return RunRow(
        id=str(manifest.get("id")),
        date=str(manifest.get("archived_at")),
        cohort=str(manifest["cohort"]),
        model=str(manifest["model"]),
        status=status_of(judged, has_metrics=bool(summary)),
        where=(f"archive {name}",),
        commit=str(manifest.get("commit") or ""),
        dirty=bool(manifest.get("dirty", True)),
        verdicts=judged,
        settings=dict(manifest.get("settings") or {}),
        metrics=dict(summary or {}),
        note=f"checklist: {errors[0]}" if errors else "",
    )


def merge_rows(rows: list[RunRow]) -> list[RunRow]:
    """Return each run once, with all the places where it is found; the newest first.

    Its date is the first at which it was recorded; what one place does not know (a dirty tree, a note) another may.
    """
    merged: dict[tuple[str, str], RunRow] = {}
    for row in rows:
        # Without numbers a run is what its place says: one that waits is not the one that was stopped.
        key = (row.id, "" if row.metrics else row.status)
        kept = merged.get(key)
        merged[key] = row if kept is None else _merged(kept, row)
    return sorted(merged.values(), key=lambda row: row.date, reverse=True)


def _merged(first: RunRow, second: RunRow) -> RunRow:
    known = {gate: verdict for gate, verdict in first.verdicts.items() if verdict is not None}
    verdicts = first.verdicts | second.verdicts | known
    return replace(
        first,
        date=min(filter(None, (first.date, second.date)), default=""),
        where=tuple(dict.fromkeys((*first.where, *second.where))),
        status=min(first.status, second.status, key=HARDEST_FIRST.index),
        verdicts=verdicts,
        commit=first.commit or second.commit,
        dirty=second.dirty if first.dirty is None else first.dirty,
        note=first.note or second.note,
        standing=first.standing or second.standing,
    )
