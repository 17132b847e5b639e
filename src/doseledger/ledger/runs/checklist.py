"""Points of a checklist: what, found, wanted, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from doseledger.core.errors import DoseledgerError
from doseledger.gates.verdict import Finding, Severity


@dataclass(frozen=True)
class Problem:
    """One thing that is not as the contract asks.

    Parameters
    ----------
    what
        What it concerns: a file, an epoch, a metric.
    found, wanted
        In words and numbers.
    do
        How to mend it.
    case_id
        Whose data; empty where it concerns the run.
    severity
        An `error` fails the run, a `warning` is for the reader.
    """

    what: str
    found: str
    wanted: str
    do: str
    case_id: str = ""
    severity: Severity = "error"

    def as_finding(self, check: str) -> Finding:
        """Return it as a gate's finding; the four parts stand in its numbers too, for machines."""
        message = f"{self.what}: found {self.found}, wanted {self.wanted}. {self.do[:1].upper()}{self.do[1:]}."
        parts = {"what": self.what, "found": self.found, "wanted": self.wanted, "do": self.do}
        return Finding(check, self.case_id, self.severity, message, parts)


@dataclass(frozen=True)
class Check:
    """One point of the checklist: its name, what it makes sure of, and the function that finds what is wrong."""

    name: str
    title: str
    find: Callable[[], Iterable[Problem]]


def run_checks(checks: Iterable[Check]) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Return everything that the checks found, and the checklist with a tick or a cross at each point.

    A check that can't see its files fails: it never skips. What keeps several checks from seeing is told once, by the
    first; the others say in `blocked_by` which that was.
    """
    findings: list[Finding] = []
    points: list[dict[str, Any]] = []
    told: dict[str, str] = {}
    for check in checks:
        mine, obstacle = _problems(check)
        blocked_by = told.get(obstacle, "") if obstacle else ""
        if obstacle and not blocked_by:
            told[obstacle] = check.name
            do = "mend what the message names, and check again"
            mine.append(Problem(check.title, obstacle, "a file that can be read", do).as_finding(check.name))
        errors = sum(finding.severity == "error" for finding in mine)
        ok = not errors and not obstacle
        points.append({"check": check.name, "title": check.title, "ok": ok, "errors": errors, "blocked_by": blocked_by})
        findings += mine
    return findings, points


def _problems(check: Check) -> tuple[list[Finding], str]:
    """What a check found before it was done, or before something kept it from seeing more; and what that was."""
    found: list[Finding] = []
    try:
        for problem in check.find():
            found.append(problem.as_finding(check.name))
    except DoseledgerError as error:
        return found, str(error)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        # A record of another form is a finding and no crash: JSON has no schema that would have caught it before.
        return found, f"a record of another form than training and evaluation write ({type(error).__name__}: {error})"
    return found, ""
