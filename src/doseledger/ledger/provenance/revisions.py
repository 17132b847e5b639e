"""The project at a Git revision: commits, branches, tags, experiments."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from doseledger.core.errors import NotReady
from doseledger.ledger.provenance.git import git_environment, run_git
from doseledger.ledger.provenance.stamp import LOCK_FILE

# DVC keeps an experiment as refs/exps/<2 digits>/<38 digits of its baseline>/<its name>.
EXPERIMENTS = "refs/exps/"
# Refs of DVC's own below that folder, which are no experiments.
NO_EXPERIMENTS = ("exec", "stash", "celery")
SEPARATOR = "\x1f"
# What a commit that records a run changes, wherever the pipeline puts its metrics.
RECORDS = (LOCK_FILE, ":(glob)**/details.json")


@dataclass(frozen=True)
class Revision:
    """One commit that may hold a run.

    Parameters
    ----------
    names
        Tags and branches that point at it.
    experiment
        Name of DVC's experiment that it is; empty for a commit of a branch.
    """

    commit: str
    date: str
    subject: str
    names: tuple[str, ...] = ()
    experiment: str = ""


def commit_is_known(root: Path, commit: str) -> bool | None:
    """Return whether a repository has a commit; None where there is no repository to ask."""
    if run_git(root, "rev-parse", "--git-dir").returncode != 0:
        return None
    return run_git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def _lines(root: Path, *arguments: str) -> list[list[str]]:
    answer = run_git(root, *arguments)
    if answer.returncode != 0:
        raise NotReady(f"git {arguments[0]} failed in {root}: {answer.stderr.strip()}")
    return [line.split(SEPARATOR) for line in answer.stdout.split("\n") if line]


def recorded_revisions(root: Path) -> list[Revision]:
    """Return the commits of all branches and tags that recorded a run, and DVC's experiments; the newest first.

    A commit that changes neither dvc.lock nor a summary of metrics records no other run than the one before it.

    Raises
    ------
    NotReady
        If there is no Git repository.
    """
    fields = SEPARATOR.join(("%H", "%cI", "%s"))
    options = ("--branches", "--tags", "--remotes", f"--format={fields}", "--", *RECORDS)
    commits = _lines(root, "log", *options)
    names = _names(root)
    found = [Revision(commit, date, subject, names.get(commit, ())) for commit, date, subject in commits]
    return sorted([*found, *experiments(root)], key=lambda revision: revision.date, reverse=True)


def _names(root: Path) -> dict[str, tuple[str, ...]]:
    """Tags and branches by the commit that they point at."""
    form = SEPARATOR.join(("%(refname:short)", "%(objectname)", "%(*objectname)"))
    found: dict[str, tuple[str, ...]] = {}
    for name, target, peeled in _lines(root, "for-each-ref", f"--format={form}", "refs/heads", "refs/tags"):
        commit = peeled or target
        found[commit] = (*found.get(commit, ()), name)
    return found


def experiments(root: Path) -> list[Revision]:
    """Return DVC's finished experiments."""
    form = SEPARATOR.join(("%(refname)", "%(objectname)", "%(committerdate:iso-strict)", "%(subject)"))
    found = []
    for name, commit, date, subject in _lines(root, "for-each-ref", f"--format={form}", EXPERIMENTS):
        parts = name.removeprefix(EXPERIMENTS).split("/")
        if len(parts) == 3 and parts[0] not in NO_EXPERIMENTS:
            found.append(Revision(commit, date, subject, experiment=parts[2]))
    return found


def experiment_commits(root: Path) -> dict[str, str]:
    """Return the commit of each of DVC's finished experiments, by its name."""
    return {revision.experiment: revision.commit for revision in experiments(root)}


def read_blobs(root: Path, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Return the content of files by (commit, path from the project's root); files that are not there are left out.

    One `git cat-file` answers for all of them.
    """
    pairs = list(wanted)
    if not pairs:
        return {}
    prefix = run_git(root, "rev-parse", "--show-prefix").stdout.strip()
    feed = "".join(f"{commit}:{prefix}{path}\n" for commit, path in pairs)
    # As bytes: sizes are in bytes, and a text's line ends would be translated.
    command = ["git", "-C", str(root), "cat-file", "--batch"]
    asked = subprocess.run(command, input=feed.encode(), capture_output=True, check=False, env=git_environment())
    answer = asked.stdout
    found: dict[tuple[str, str], bytes] = {}
    at = 0
    for pair in pairs:
        end = answer.index(b"\n", at)
        head = answer[at:end].rsplit(b" ", 2)
        if len(head) == 3 and head[1] == b"blob":
            size = int(head[2])
            found[pair] = answer[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        elif len(head) == 3 and head[2].isdigit():
            # A folder or a tag of that name.
            at = end + 1 + int(head[2]) + 1
        else:
            at = end + 1
    return found
