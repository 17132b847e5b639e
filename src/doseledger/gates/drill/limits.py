"""Detection limits: from which size on a fault is seen, in half of the cases and in all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doseledger.gates.drill.faults import Fault
from doseledger.gates.verdict import Finding

HALF, ALL = 0.5, 1.0


@dataclass(frozen=True)
class Sight:
    """Names of the checks that a faulty copy set off and the case itself did not: as errors, and as warnings alone."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Sight:
        """Return the names of the checks behind some findings."""
        found = [(finding.severity, finding.gate) for finding in findings]
        errors = {gate for severity, gate in found if severity == "error"}
        return cls(tuple(sorted(errors)), tuple(sorted({gate for _, gate in found} - errors)))


def summarise_fault(fault: Fault, sights: Mapping[str, Sequence[Sight] | None]) -> dict[str, Any]:
    """Return the detection limits of one fault as JSON values.

    Parameters
    ----------
    fault
        Which.
    sights
        By case: what was seen at each size; None for a case that can't have the fault.

    Returns
    -------
    dict
        The fault, `tried` (cases), `seen` and `warned` (cases at each size, as an error and as a warning alone),
        `seen_in_half`, `seen_in_all` and `warned_in_half` (the least size from which on so many are; None if none),
        `gates` (the checks that failed, each with the least size at which it did), and `cases` with all of it.
    """
    tried = {case_id: found for case_id, found in sights.items() if found is not None}
    columns = list(zip(*tried.values(), strict=True)) or [()] * len(fault.sizes)
    seen = [sum(bool(sight.errors) for sight in column) for column in columns]
    told = [sum(bool(sight.errors or sight.warnings) for sight in column) for column in columns]
    gates: dict[str, float] = {}
    for size, column in zip(fault.sizes, columns, strict=True):
        for gate in sorted({name for sight in column for name in sight.errors}):
            gates.setdefault(gate, size)
    return {
        "name": fault.name,
        "group": fault.group,
        "title": fault.title,
        "when": fault.when,
        "unit": fault.unit,
        "sizes": list(fault.sizes),
        "tried": len(tried),
        "seen": seen,
        "warned": [both - errors for both, errors in zip(told, seen, strict=True)],
        "seen_in_half": _least(fault.sizes, seen, HALF * len(tried)),
        "seen_in_all": _least(fault.sizes, seen, ALL * len(tried)),
        "warned_in_half": _least(fault.sizes, told, HALF * len(tried)),
        "gates": gates,
        "cases": {
            case_id: [{"errors": list(sight.errors), "warnings": list(sight.warnings)} for sight in found]
            for case_id, found in tried.items()
        },
    }


def _least(sizes: Sequence[float], counts: Sequence[int], wanted: float) -> float | None:
    """The least size from which on no larger one is seen in fewer cases than wanted; None if there is none."""
    least = None
    for size, count in zip(reversed(sizes), reversed(counts), strict=True):
        if not 0 < count >= wanted:
            break
        least = size
    return least
