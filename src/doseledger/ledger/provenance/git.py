"""Questions to Git through its own command, in English and without a lock.

DVC needs that command anyhow, it answers in milliseconds where gitpython or dulwich (which DVC brings along) cost an
import of half a second, and its plumbing has been stable for decades.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# A hook's own variables would point Git elsewhere.
HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
NO_GIT = 127


def git_environment() -> dict[str, str]:
    """Return this process's environment as Git is asked in: messages in English, no lock, no prompt, no hook's own."""
    outer = {name: value for name, value in os.environ.items() if name not in HOOK_VARIABLES}
    return {**outer, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def run_git(root: Path, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Return what a Git command answered in a folder, given `text`; exit status 127 where no Git is installed."""
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=git_environment(), input=text,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, NO_GIT, "", "the git command is not installed")


def ask_git(root: Path, *arguments: str, text: str | None = None) -> str | None:
    """Return what a Git command answered in a folder; None where it failed, or no Git is installed."""
    done = run_git(root, *arguments, text=text)
    return done.stdout if done.returncode == 0 else None


def head_commit(root: Path) -> str | None:
    """Return the full hash of HEAD; None without a repository or a commit."""
    return (ask_git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}") or "").strip() or None


def identity(root: Path) -> dict[str, str | None]:
    """Return who Git says is working here, {"name", "email"}; None for what it does not know.

    Notes
    -----
    It is what a person wrote into Git's configuration, or GIT_AUTHOR_NAME and GIT_AUTHOR_EMAIL: a statement, no proof.
    Git's guess from the machine's name is never taken.
    """
    found: dict[str, str | None] = {}
    for key in ("name", "email"):
        told = os.environ.get(f"GIT_AUTHOR_{key.upper()}", "").strip()
        found[key] = told or (ask_git(root, "config", "--get", f"user.{key}") or "").strip() or None
    return found


def changed_files(root: Path, *revisions: str) -> list[str] | None:
    """Return the tracked files below a folder that differ between revisions, relative to it; None if Git can't say."""
    answer = ask_git(
        root, "diff", "--name-only", "--no-renames", "--no-ext-diff", "--relative", "-z", *revisions, "--", "."
    )
    return None if answer is None else [path for path in answer.split("\0") if path]
