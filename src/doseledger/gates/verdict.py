"""A gate's verdict: findings, pass or fail, digest of what was judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from doseledger.core.damage import refuse_damage
from doseledger.core.errors import GateFailed, NotReady
from doseledger.core.files import all_or_none, read_json, read_mapping, write_json
from doseledger.core.project.layout import VerdictPaths
from doseledger.core.text.lists import bulleted

Severity = Literal["error", "warning"]
# Words that explain a limit and judge nothing: to mend one must not make a verdict stale.
EXPLANATIONS = frozenset({"source", "notes", "advice", "title", "reason"})
# How many findings an error message spells out; the rest are in the findings file.
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that a gate saw.

    Parameters
    ----------
    gate
        Name of the check, e.g. `sdf_sign`; the site's page of checks explains each.
    case_id
        Whose data; empty where it concerns the cohort or a table.
    severity
        An `error` fails the gate, a `warning` is for the reader.
    message
        Whom it concerns, what is wrong, what would be right, and how to mend it.
    numbers
        The figures behind the message.
    """

    gate: str
    case_id: str
    severity: Severity
    message: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a gate says about what it was shown.

    Parameters
    ----------
    gate
        Name of the gate.
    digest
        SHA256 of what was judged.
    findings
        In order of severity, gate and case.
    details
        More for the report, as JSON values: counts, tables, each expectation's result.
    """

    gate: str
    digest: str
    findings: tuple[Finding, ...]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that fail the gate."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether nothing was found that fails the gate."""
        return not self.errors


def make_verdict(gate: str, digest: str, findings: Iterable[Finding], details: dict[str, Any]) -> Verdict:
    """Return a verdict with its findings in a fixed order, so that equal data give equal bytes."""
    ordered = sorted(findings, key=lambda f: (f.severity, f.gate, f.case_id, f.message))
    return Verdict(gate, digest, tuple(ordered), details)


def write_verdict(verdict: Verdict, paths: VerdictPaths) -> None:
    """Write the token that later stages depend on, and the findings that only the report reads.

    Both are written whether the gate passed or not; `enforce` comes after.
    """
    with all_or_none():
        write_json(paths.findings, verdict_as_json(verdict))
        write_json(paths.token, {"ok": verdict.ok, "digest": verdict.digest})


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON values."""
    n_errors = len(verdict.errors)
    return {
        "gate": verdict.gate,
        "ok": verdict.ok,
        "digest": verdict.digest,
        "counts": {"error": n_errors, "warning": len(verdict.findings) - n_errors},
        "findings": [asdict(finding) for finding in verdict.findings],
        "details": verdict.details,
    }


def read_verdict(paths: VerdictPaths) -> Verdict:
    """Return a verdict as it was written.

    Raises
    ------
    NotReady
        If there is none, its two files say different things, or one is not of a verdict's form.
    """
    token, found = (_read_judged(path) for path in (paths.token, paths.findings))
    if any(token.get(name) != found.get(name) for name in ("ok", "digest")):
        raise NotReady(f"{paths.token} and {paths.findings} say different things; run `dvc repro`")
    return read_findings(paths.findings)


def _read_judged(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise NotReady(f"no {path}: nothing has been judged yet; run `dvc repro`")
    return read_mapping(path)


def read_findings(path: Path) -> Verdict:
    """Return the verdict that a gate's file of findings holds.

    Raises
    ------
    NotReady
        If there is none, or it is not of a verdict's form.
    """
    found = _read_judged(path)
    with refuse_damage(lambda reason: NotReady(f"{path}: no findings of a gate ({reason}); run `dvc repro`")):
        findings = tuple(_finding(**item) for item in found["findings"])
        verdict = Verdict(found["gate"], found["digest"], findings, dict(found["details"]))
        if not isinstance(verdict.gate, str) or not isinstance(verdict.digest, str):
            raise TypeError("gate and digest are text")
    return verdict


def _finding(gate: str, case_id: str, severity: Severity, message: str, numbers: dict[str, Any]) -> Finding:
    words = (gate, case_id, message)
    if not all(isinstance(word, str) for word in words) or severity not in ("error", "warning"):
        raise TypeError(f"a finding of {gate!r:.40} is not in words, or of no severity")
    return Finding(gate, case_id, severity, message, dict(numbers))


def enforce(verdict: Verdict, findings_path: Path | None = None) -> None:
    """Do nothing if the gate passed.

    Raises
    ------
    GateFailed
        Spelling out the first findings, and where the rest are.
    """
    if verdict.ok:
        return
    lines = [f"[{finding.gate}] {finding.message}" for finding in verdict.errors]
    where = f"\nAll findings: {findings_path}" if findings_path else ""
    raise GateFailed(f"the {verdict.gate} gate found {len(verdict.errors)} error(s):{bulleted(lines, SHOWN)}{where}")


def passed_token(token_path: Path, gate: str) -> dict[str, Any]:
    """Return a gate's token, `{"ok": true, "digest": …}`.

    Raises
    ------
    NotReady
        If there is none.
    GateFailed
        If the gate said no.
    """
    if not token_path.is_file():
        raise NotReady(f"the {gate} gate has not judged yet: no {token_path}; run `dvc repro`")
    token = read_json(token_path)
    if not isinstance(token, dict) or set(token) != {"ok", "digest"}:
        raise NotReady(f"{token_path} is no token of a gate (wanted ok and digest); run `dvc repro`")
    if token["ok"] is not True:
        raise GateFailed(f"{token_path}: the {gate} gate failed; read its findings and mend what they name")
    return token


def require_token(token_path: Path, expected_digest: str, gate: str) -> dict[str, Any]:
    """Return a gate's token if it says that exactly this was judged, and passed.

    Parameters
    ----------
    expected_digest
        The digest of what is about to be used, made anew by the caller.

    Raises
    ------
    NotReady
        If there is no token, or it is about something else: running a stage alone is no way round a gate.
    GateFailed
        If the gate said no.
    """
    token = passed_token(token_path, gate)
    if token["digest"] != expected_digest:
        raise NotReady(
            f"{token_path}: the {gate} gate judged something else ({str(token['digest'])[:12]}…) than what is here "
            f"now ({expected_digest[:12]}…): data, splits, limits or the gate changed since; run `dvc repro`"
        )
    return token


def without_explanations(value: Any) -> Any:
    """Return JSON values without the words that only explain them (`source`, `notes` and the like)."""
    if isinstance(value, dict):
        return {key: without_explanations(item) for key, item in value.items() if key not in EXPLANATIONS}
    if isinstance(value, (list, tuple)):
        return [without_explanations(item) for item in value]
    return value
