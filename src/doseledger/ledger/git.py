"""Ask Git through its own command: answers of the installed Git, in English, with no lock taken and no prompt."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# A hook's own variables would point Git elsewhere.
HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
NO_GIT = 127


def run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what a Git command answered in a folder; exit status 127 where no Git is installed."""
    outer = {name: value for name, value in os.environ.items() if name not in HOOK_VARIABLES}
    environment = {**outer, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, NO_GIT, "", "the git command is not installed")


def head_commit(root: Path) -> str | None:
    """Return the full hash of HEAD; None without a repository or a commit."""
    return run_git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").stdout.strip() or None


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
        found[key] = told or run_git(root, "config", "--get", f"user.{key}").stdout.strip() or None
    return found
