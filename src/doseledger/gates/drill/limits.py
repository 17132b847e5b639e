"""Detection limits: the size from which on a fault is seen in half of the cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from doseledger.gates.drill.faults import Fault
from doseledger.gates.verdict import Finding

# Checks that a faulty copy set off and its case did not: as errors, and as warnings alone.
Sight = dict[str, list[str]]


def see(findings: Iterable[Finding]) -> Sight:
    """Return the names of the checks behind some findings, as `errors` and `warnings`."""
    found = [(finding.severity, finding.gate) for finding in findings]
    errors = {gate for severity, gate in found if severity == "error"}
    return {"errors": sorted(errors), "warnings": sorted({gate for _, gate in found} - errors)}


def summarise_fault(fault: Fault, sights: Mapping[str, Sequence[Sight] | None]) -> dict[str, Any]:
    """Return the detection limits of one fault as JSON values.

    Parameters
    ----------
    sights
        By case: one for each size; None for a case that can't have the fault.

    Returns
    -------
    dict
        The fault; `tried` (cases); `seen` and `warned` (cases at each size, as an error and as a
        warning alone); `seen_in_half`, `seen_in_all`, `warned_in_half` (the least size from which
        on so many are; None if none); `gates` (checks that failed, each with its least size);
        `cases` with all of it.
    """
    tried = {case_id: found for case_id, found in sights.items() if found is not None}
    columns = list(zip(*tried.values(), strict=True)) or [()] * len(fault.sizes)
    seen = [sum(bool(sight["errors"]) for sight in column) for column in columns]
    told = [sum(any(sight.values()) for sight in column) for column in columns]
    gates: dict[str, float] = {}
    for size, column in zip(fault.sizes, columns, strict=True):
        for gate in sorted({name for sight in column for name in sight["errors"]}):
            gates.setdefault(gate, size)
    return {
        **{key: getattr(fault, key) for key in ("name", "group", "title", "when", "unit")},
        "sizes": list(fault.sizes),
        "tried": len(tried),
        "seen": seen,
        "warned": [both - errors for both, errors in zip(told, seen, strict=True)],
        "seen_in_half": _least(fault.sizes, seen, len(tried) / 2),
        "seen_in_all": _least(fault.sizes, seen, len(tried)),
        "warned_in_half": _least(fault.sizes, told, len(tried) / 2),
        "gates": gates,
        "cases": tried,
    }


def _least(sizes: Sequence[float], counts: Sequence[int], wanted: float) -> float | None:
    """The least size from which on none is seen in fewer cases than wanted; None without one."""
    least = None
    for size, count in zip(reversed(sizes), reversed(counts), strict=True):
        if not 0 < count >= wanted:
            break
        least = size
    return least
