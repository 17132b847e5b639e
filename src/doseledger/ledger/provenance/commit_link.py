"""The web page of a commit at the remote's host."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from doseledger.ledger.provenance.git import ask_git

# https://host/path, ssh://git@host:22/path and git@host:path; a name, password or token before the host is left out.
WEB = re.compile(r"(?:https?|ssh|git)://(?:[^@/]+@)?(?P<host>[^/:@]+)(?::(?P<port>\d+))?/(?P<path>.+)")
SCP = re.compile(r"(?:[^@/:]+@)(?P<host>[^/:]+):(?P<path>[^/].*)")


def commit_link(root: Path, commit: str | None) -> str:
    """Return the address of a commit's page at the remote `origin`; empty where there is none.

    A local path, which names this machine, gives no address.
    """
    if not commit:
        return ""
    return commit_address((ask_git(root, "config", "--get", "remote.origin.url") or "").strip(), commit)


def commit_address(remote: str, commit: str) -> str:
    """Return the address of a commit's page by the pattern of the remote's URL; empty where it has none.

    Examples
    --------
    >>> commit_address("git@github.com:clinic/dose.git", "abc")
    'https://github.com/clinic/dose/commit/abc'
    >>> commit_address("https://token@gitlab.clinic.org/rt/dose.git", "abc")
    'https://gitlab.clinic.org/rt/dose/-/commit/abc'
    >>> commit_address("/srv/git/dose.git", "abc")
    ''

    Notes
    -----
    GitLab shows commits at `/-/commit/`, Bitbucket at `/commits/`; GitHub, Gitea and Forgejo at `/commit/`, which is
    taken for a host that the name does not tell.
    """
    match = WEB.fullmatch(remote) or SCP.fullmatch(remote)
    if match is None:
        return ""
    host, path = match["host"], match["path"].removesuffix("/").removesuffix(".git").strip("/")
    # A port of https is the page's too, one of ssh is not.
    port = f":{match['port']}" if remote.startswith("http") and match["port"] else ""
    scheme = "http" if remote.startswith("http://") else "https"
    middle = "-/commit" if "gitlab" in host else "commits" if "bitbucket" in host else "commit"
    return f"{scheme}://{host}{port}/{quote(path)}/{middle}/{quote(commit)}"
