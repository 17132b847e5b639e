"""An evaluated run of a Git revision: DVC's experiments, tags, branches."""

from __future__ import annotations

from pathlib import Path

from doseledger.core.errors import NotReady
from doseledger.core.files import write_text
from doseledger.core.project.layout import ModelLayout
from doseledger.evaluate.pooling import EvaluatedRun
from doseledger.ledger.provenance.dvc_project import fetch_file
from doseledger.ledger.provenance.git import run_git
from doseledger.ledger.provenance.revisions import experiment_commits, read_blobs


def recorded_run(root: Path, at: ModelLayout, name: str, out: Path) -> EvaluatedRun:
    """Return a run of another revision: its table of cases from Git, its checkpoint from DVC's cache or remote.

    Parameters
    ----------
    name
        Of a DVC experiment, a tag, a branch or a commit.

    Raises
    ------
    NotReady
        If there is no such revision, it records no evaluation of the model, or neither cache nor remote has its
        checkpoint.
    """
    commit = _commit_of(root, name)
    table, checkpoint = (str(path.relative_to(at.layout.root)) for path in (at.metrics / "cases.csv", at.checkpoint))
    found = read_blobs(root, [(commit, table)])
    if not found:
        raise NotReady(f"{name}: commit {commit[:12]} has no {table}; evaluate that run, or name another --model")
    write_text(out / "cases.csv", found[commit, table].decode())
    fetch_file(root, checkpoint, commit, out / "best.ckpt")
    return EvaluatedRun(out, checkpoint=out / "best.ckpt", name=name)


def _commit_of(root: Path, name: str) -> str:
    known = experiment_commits(root)
    if name in known:
        return known[name]
    answer = run_git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if answer.returncode != 0:
        there = ", ".join(sorted(known)) or "none"
        raise NotReady(f"{name}: no folder of tables, no experiment, tag, branch or commit; experiments here: {there}")
    return answer.stdout.strip()
