"""A complete run copied into one folder, every byte listed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import sha256_of_file, write_json
from doseledger.gates.verdict import Verdict
from doseledger.ledger.bundle.parts import scratch_folder
from doseledger.ledger.provenance.recorded import settings_of_run, stages_of_model
from doseledger.ledger.provenance.stamp import LOCK_FILE
from doseledger.ledger.runs.files import EXAMPLES, MANIFEST, RunFiles, run_id
from doseledger.ledger.runs.recompute import cases_to_measure
from doseledger.ledger.runs.record import RunRecord

FORMAT_VERSION = 1
# What DVC recorded of the run's stages: commands, hashes, settings.
STAGES_FILE = "stages.json"
README = """# {name}

Model `{model}` on cohort `{cohort}`, run {id}, archived {archived_at} by doseledger {version}.
Code: commit {commit}{dirty}. Checklist: {checklist}.

| File | What it is |
|---|---|
| `report.html`, `report.pdf` | the report; read it first |
| `metrics_summary.json`, `metrics/` | the numbers of the test set: summary, per case, DVH, clinical goals |
| `checkpoints/` | best and last weights |
| `run.json`, `config_resolved.yaml`, `dataset_summary.json`, `history.csv`, `train.log` | how it was trained |
| `splits.csv`, `stages.json` | who was in which part; every stage's command, hashes and settings |
| `verdicts/` | what each gate said |
| `examples/` | predicted doses and figures of some test cases |
| `manifest.json` | SHA256 and size of every file here |

`doseledger runs check {name}` goes through the checklist again.
"""


def folder_name(when: datetime) -> str:
    """Return `run_YYYYMMDD_HHMMSS` of a moment."""
    return f"run_{when:%Y%m%d_%H%M%S}"


def archive_run(
    files: RunFiles,
    verdict: Verdict,
    target: Path,
    *,
    when: datetime,
    examples: Sequence[str],
    audit: Mapping[str, int | str] | None = None,
) -> Path:
    """Return the folder that now holds a complete run, after copying it there.

    Parameters
    ----------
    verdict
        The checklist's verdict on it; it goes into the manifest, a failed one too.
    target
        Where `run_YYYYMMDD_HHMMSS` is made.
    when
        The moment that it is named by, in UTC. No file of a run holds a clock, so that equal runs have equal bytes:
        the moment of archiving is the one that is known.
    examples
        Cases whose predicted dose goes along.
    audit
        Head of the audit log, as `anchors.anchor_values` gives it: the log is held to the manifest that has it.

    Raises
    ------
    NotReady
        If a file of the run, or a prediction, is absent.
    BadInput
        If the folder is there already.
    """
    folder = target / folder_name(when)
    if folder.exists():
        raise BadInput(f"{folder} is there already, and an archived run is never overwritten; archive again")
    sources = files.by_name() | _example_files(files, examples)
    missing = [f"{name} ({path})" for name, path in sources.items() if not path.is_file()]
    if missing:
        raise NotReady(f"the run of {files.model} is not complete: no {', '.join(missing)}; run `dvc repro` first")
    with scratch_folder(folder) as part:
        for name, path in sources.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part / name)
        root = files.root
        lock = root / LOCK_FILE if root is not None else None
        write_json(part / STAGES_FILE, stages_of_model(lock, files.cohort, files.model) if lock is not None else {})
        head = _head(files, verdict, when)
        (part / "README.md").write_text(_readme(folder.name, head), encoding="utf-8")
        anchored = {} if audit is None else {"audit": dict(audit)}
        write_json(part / MANIFEST, {**head, **anchored, "files": list_files(part)})
        os.replace(part, folder)
    return folder


def example_cases(files: RunFiles, how_many: int) -> list[str]:
    """Return which cases' predictions go along: the worst, which a checklist measures again, the best, then others.

    Raises
    ------
    BadInput
        If the table of cases is absent or not of its form.
    """
    record = RunRecord(files)
    ordered = cases_to_measure(record.tables)
    return list(dict.fromkeys([*ordered[:1], *ordered[-1:], *ordered[1:]]))[:how_many]


def list_files(folder: Path) -> list[dict[str, Any]]:
    """Return path, size in bytes and SHA256 of every file below a folder, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        {"path": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "sha256": sha256_of_file(path)}
        for path in paths
    ]


def _example_files(files: RunFiles, examples: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    if files.predictions is not None:
        found |= {f"{EXAMPLES}/{case_id}.npz": files.predictions / f"{case_id}.npz" for case_id in examples}
    if files.figures is not None:
        found |= {f"{EXAMPLES}/{path.name}": path for path in sorted(files.figures.glob("*.png"))}
    return found


def _head(files: RunFiles, verdict: Verdict, when: datetime) -> dict[str, Any]:
    record = RunRecord(files)
    git = record.run.get("provenance", {}).get("git", {})
    root = files.root
    stages = stages_of_model(root / LOCK_FILE, files.cohort, files.model) if root is not None else {}
    settings = settings_of_run(record.config, record.predict_settings, stages)
    return {
        "format_version": FORMAT_VERSION,
        "id": run_id(files.cohort, files.model, sha256_of_file(files.best_checkpoint), record.summary),
        "cohort": files.cohort,
        "model": files.model,
        "archived_at": f"{when:%Y-%m-%dT%H:%M:%S}+00:00",
        "commit": git.get("commit"),
        "dirty": git.get("dirty", True),
        "doseledger": metadata.version("doseledger"),
        "settings": settings,
        "check": {
            "ok": verdict.ok,
            "digest": verdict.digest,
            "checks": verdict.details["checks"],
            "errors": [finding.message for finding in verdict.errors],
        },
    }


def _readme(name: str, head: Mapping[str, Any]) -> str:
    return README.format(
        name=name,
        model=head["model"],
        cohort=head["cohort"],
        id=head["id"],
        archived_at=head["archived_at"],
        version=head["doseledger"],
        commit=head["commit"] or "none",
        dirty=", **DIRTY TREE**" if head["dirty"] else "",
        checklist="passed" if head["check"]["ok"] else f"**FAILED**, {len(head['check']['errors'])} error(s)",
    )
