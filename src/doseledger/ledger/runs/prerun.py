"""Checks before a run that shall count: committed code, locked environment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.errors import NotReady
from doseledger.core.files import read_yaml
from doseledger.core.text.lists import first_of
from doseledger.gates.verdict import Finding
from doseledger.ledger.provenance.git import run_git
from doseledger.ledger.provenance.stamp import PARAMS_FILE, GitState, git_state, run_provenance
from doseledger.ledger.runs.checklist import fault

PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
CODE_SUFFIX = ".py"


@dataclass(frozen=True)
class Readiness:
    """What a run begun now would be made of.

    Parameters
    ----------
    findings
        Why a run begun now would not count; empty when it would.
    provenance
        Code, packages, platform, as a run records them.
    seeds
        Every seed of the settings, by name.
    """

    findings: tuple[Finding, ...]
    provenance: dict[str, Any]
    seeds: dict[str, int]

    def refuse_unless_ready(self) -> None:
        """Do nothing if a run may begin.

        Raises
        ------
        NotReady
            Naming every reason why not.
        """
        if self.findings:
            reasons = "\n".join(f"  - {finding.message}" for finding in self.findings)
            raise NotReady(f"a run begun now would not count:\n{reasons}")


def examine_readiness(root: Path, packages: Path) -> Readiness:
    """Return whether a run may begin, and what it would record.

    Parameters
    ----------
    packages
        The lock of Python packages (requirements.lock).

    Raises
    ------
    BadInput
        If there are no settings.
    """
    provenance = run_provenance(root, [], packages)
    findings = (
        *_dirty(git_state(root)),
        *_untracked_code(root),
        *_other_packages(provenance["packages"], packages),
    )
    return Readiness(findings, provenance, dict(_seeds(read_yaml(root / PARAMS_FILE))))


def _dirty(git: GitState) -> Iterator[Finding]:
    if git.dirty:
        wanted = "code that a commit describes"
        yield fault("the working tree", git.describe(), wanted, "commit or put back what changed")


def _untracked_code(root: Path) -> Iterator[Finding]:
    """Code that Git does not know can be imported all the same, and no commit would show it."""
    answer = run_git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", ".")
    code = sorted(path for path in answer.stdout.split("\0") if path.endswith(CODE_SUFFIX))
    if code:
        found = f"{len(code)} untracked: {first_of(code, 5)}"
        yield fault("code that Git does not know", found, "none", "`git add` and commit it, or move it away")


def _other_packages(installed: dict[str, str], lock: Path) -> Iterator[Finding]:
    if not lock.is_file():
        yield fault(str(lock), "no such file", "the lock of packages", "run from the project's root")
        return
    pinned = {name.lower().replace("_", "-"): version for name, version in PINNED.findall(lock.read_text("utf-8"))}
    for name, version in installed.items():
        wanted = pinned.get(name)
        if wanted is not None and wanted != version:
            yield fault(f"package {name}", version, f"{wanted}, as {lock.name} has it", "make the environment again")


def _seeds(settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in settings.items():
        if name == "seed":
            yield name, int(value)
        elif isinstance(value, dict) and isinstance(value.get("seed"), int):
            yield f"{name}.seed", value["seed"]
