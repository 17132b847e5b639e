"""A finished run as a candidate for the registry, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from doseledger.core.errors import DoseledgerError, NotReady
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.project.layout import SYNTHETIC_COHORT, Layout, ModelLayout
from doseledger.core.tables import CASES, TEST_SET, read_table
from doseledger.core.text.lists import first_of
from doseledger.gates.model.standing import standing_of_run
from doseledger.ledger.provenance.dvc_project import changed_stages
from doseledger.ledger.provenance.git import ask_git, changed_files, head_commit, identity
from doseledger.ledger.provenance.recorded import dvc_hashes, stage_names
from doseledger.ledger.provenance.stamp import LOCK_FILE, repro_changes, stage_outs
from doseledger.ledger.registry.model_card import model_card
from doseledger.ledger.runs.check import check_run, run_digest
from doseledger.ledger.runs.facts import load_facts
from doseledger.ledger.runs.files import RunFiles, files_of_pipeline
from doseledger.ledger.runs.record import RunRecord

# How many names a message spells out.
SHOWN = 5
# Words that no program reads, and where DVC keeps its data: both may change between a run and its registration.
NO_CODE = ("docs", ".dvc")


@dataclass(frozen=True)
class Release:
    """A model's run in the pipeline's own folders."""

    at: ModelLayout
    files: RunFiles

    @property
    def root(self) -> Path:
        """The project."""
        return self.at.layout.root

    @property
    def cohort(self) -> str:
        """What was trained on."""
        return self.at.layout.cohort

    @property
    def model(self) -> str:
        """What was trained."""
        return self.at.name

    @property
    def own_stages(self) -> list[str]:
        """The stages that the run went through, in the order of the pipeline."""
        return stage_names(self.cohort, self.model)


def open_release(layout: Layout, model: str) -> Release:
    """Return the run of a model.

    Raises
    ------
    BadInput
        If the pipeline trains no such model.
    """
    return Release(layout.model(model), files_of_pipeline(layout, model))


def missing_for_version(release: Release) -> list[str]:
    """Return everything that keeps a run from being registered, each with what to do; empty where nothing does."""
    return [*_tree(release), *_lock(release), *_run(release), *_code(release)]


def _tree(release: Release) -> Iterator[str]:
    if None in identity(release.root).values():
        yield (
            "Git does not know who registers; set `git config user.name` and `git config user.email`, which the tag "
            "and the audit log name"
        )
    # A rename would be told as one entry with its old name in a field of its own; so it is two changes, by name.
    status = ask_git(release.root, "status", "--porcelain", "--untracked-files=all", "--no-renames", "-z")
    if status is None:
        yield "no Git repository: versions are tags of Git; `git init` and commit"
        return
    changed = [entry[3:] for entry in status.split("\0") if entry]
    if changed:
        yield (
            f"the tree is not clean, {len(changed)} file(s) changed or unknown to Git: {_some(changed)}; commit them "
            "(the run's dvc.lock, metrics and verdicts too), or name them in .gitignore"
        )


def _lock(release: Release) -> Iterator[str]:
    if ask_git(release.root, "cat-file", "-e", f"HEAD:./{LOCK_FILE}") is None:
        yield f"{LOCK_FILE} is not committed, so no commit names the checkpoint; `git add {LOCK_FILE}` and commit"
        return
    hashes = dvc_hashes(release.root / LOCK_FILE, release.own_stages)
    never = [stage for stage in release.own_stages if stage not in hashes]
    if never:
        yield f"{LOCK_FILE} knows no result of {_some(never)}; run `dvc repro` and commit {LOCK_FILE}"
        return
    stale = changed_stages(release.root, release.own_stages)
    if stale:
        yield (
            f"the files here are not those that {LOCK_FILE} records: {_some(stale)}; run `dvc repro` (or `dvc pull`, "
            "if they were never here) and commit"
        )


def _run(release: Release) -> Iterator[str]:
    for finding in check_run(release.files).errors:
        yield f"[{finding.gate}] {finding.message}"


def _code(release: Release) -> Iterator[str]:
    """Whether HEAD's code is the run's; a run without a commit is told by the checklist."""
    try:
        commit = RunRecord(release.files).run["provenance"]["git"]["commit"]
    except (DoseledgerError, KeyError, TypeError):
        return
    if not commit or head_commit(release.root) is None:
        return
    changed = changed_files(release.root, commit, "HEAD")
    if changed is None:
        return
    outs = stage_outs(release.root)
    code = [path for path in changed if _is_code(path, outs)]
    if code:
        yield (
            f"the code here is not the run's: {len(code)} file(s) differ from commit {commit[:12]}: {_some(code)}; "
            "`dvc repro` with this code, or register from a branch that has the run's"
        )


def _is_code(path: str, outs: frozenset[str]) -> bool:
    """Whether a file could change a result: not what a repro writes itself, nor documentation."""
    pure = PurePosixPath(path)
    return not (repro_changes(path, outs) or pure.suffix == ".md" or pure.parts[0] in NO_CODE)


def version_record(release: Release, reproduced: dict[str, Any]) -> dict[str, Any]:
    """Return what the tag of a version records of its run, as JSON values.

    Parameters
    ----------
    release
        A run that lacks nothing.
    reproduced
        How a prediction made again compared with the recorded one, and on which machine.
    """
    record, files = RunRecord(release.files), release.files
    root = release.root
    predictions = release.at.predictions.relative_to(root).as_posix()
    stages = dvc_hashes(root / LOCK_FILE, release.own_stages).values()
    facts = load_facts(release.at)
    standing = standing_of_run(facts.model_findings, ())
    card = model_card(facts, standing, synthetic=release.cohort == SYNTHETIC_COHORT)
    return {
        "model": release.model,
        "cohort": release.cohort,
        "commit": head_commit(root),
        "run": {"commit": record.run["provenance"]["git"]["commit"], "digest": run_digest(files)},
        "checkpoint": _hashed(root, files.best_checkpoint),
        "predictions": {
            "path": predictions,
            "md5": next(stage["outs"][predictions] for stage in stages if predictions in stage["outs"]),
        },
        "report": {"html": _hashed(root, files.html), "pdf": _hashed(root, files.pdf)},
        "metrics": {**_hashed(root, files.summary), "summary": record.summary},
        "verdicts": {gate: record.verdict(gate)[0] for gate in files.verdicts},
        "standing": standing.as_json(),
        "verdict_files": {gate: place.token.relative_to(root).as_posix() for gate, place in files.verdicts.items()},
        "cases_sha256": record.run["cases_sha256"],
        "splits_sha256": record.run["splits_sha256"],
        "test_set": _test_set(release, record),
        "reproduced": reproduced,
        "card": [{"title": part.title, "lines": list(part.lines)} for part in card],
    }


def _hashed(root: Path, path: Path) -> dict[str, str]:
    return {"path": path.relative_to(root).as_posix(), "sha256": sha256_of_file(path)}


def _test_set(release: Release, record: RunRecord) -> dict[str, Any]:
    """How many test cases there are, how many of them are locked, and the digest of which they are."""
    test = record.fold[record.fold["split"] == "test"]
    locked = read_table(release.at.layout.test_set, TEST_SET)
    cases = read_table(release.at.layout.cases_csv, CASES)
    sources = dict(zip(cases["case_id"], cases["source_sha256"], strict=True))
    by_digest = set(locked["source_sha256"].dropna()) - {""}
    return {
        "cases": len(test),
        "locked": int(test["pseudonym"].isin(set(locked["pseudonym"])).sum()),
        "locked_by_digest": sum(sources.get(case_id) in by_digest for case_id in test["case_id"]),
        "digest": sha256_of_json(sorted(test["sha256"])),
    }


def first_test_case(release: Release) -> str:
    """Return the test case that is predicted again when a version is registered: the first by name.

    Raises
    ------
    NotReady
        If there is none.
    """
    fold = RunRecord(release.files).fold
    names = sorted(fold.loc[fold["split"] == "test", "case_id"])
    if not names:
        raise NotReady(
            f"{release.files.splits}: no test case, so there is nothing to reproduce; deal splits with a test set"
        )
    return str(names[0])


def _some(names: list[str]) -> str:
    return first_of(names, SHOWN)
