"""Points of a checklist: what, found, wanted, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from doseledger.core.errors import DoseledgerError
from doseledger.gates.verdict import Finding, Severity


def fault(what: str, found: str, wanted: str, do: str, case_id: str = "", severity: Severity = "error") -> Finding:
    """Return what is not as the contract asks, as a gate's finding; `run_checks` gives it the name of its check.

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
    message = f"{what}: found {found}, wanted {wanted}. {do[:1].upper()}{do[1:]}."
    # The four parts stand in its numbers too, for machines.
    return Finding("", case_id, severity, message, {"what": what, "found": found, "wanted": wanted, "do": do})


@dataclass(frozen=True)
class Check:
    """One point of the checklist: its name, what it makes sure of, and the function that finds what is wrong."""

    name: str
    title: str
    find: Callable[[], Iterable[Finding]]


def run_checks(checks: Iterable[Check]) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Return everything that the checks found, and the checklist with a tick or a cross at each point.

    A check that can't see its files fails: it never skips. What keeps several checks from seeing is told once, by the
    first; the others say in `blocked_by` which that was.
    """
    findings: list[Finding] = []
    points: list[dict[str, Any]] = []
    told: dict[str, str] = {}
    for check in checks:
        mine, obstacle = _found_by(check)
        blocked_by = told.get(obstacle, "") if obstacle else ""
        if obstacle and not blocked_by:
            told[obstacle] = check.name
            do = "mend what the message names, and check again"
            mine.append(replace(fault(check.title, obstacle, "a file that can be read", do), gate=check.name))
        errors = sum(one.severity == "error" for one in mine)
        ok = not errors and not obstacle
        points.append({"check": check.name, "title": check.title, "ok": ok, "errors": errors, "blocked_by": blocked_by})
        findings += mine
    return findings, points


def _found_by(check: Check) -> tuple[list[Finding], str]:
    """What a check found before it was done, or before something kept it from seeing more; and what that was."""
    found: list[Finding] = []
    try:
        for one in check.find():
            found.append(replace(one, gate=check.name))
    except DoseledgerError as error:
        return found, str(error)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        # A record of another form is a finding and no crash: JSON has no schema that would have caught it before.
        return found, f"a record of another form than training and evaluation write ({type(error).__name__}: {error})"
    return found, ""
