"""The plan behind a dose: deliverable, as far as ingest could tell."""

from __future__ import annotations

from doseledger.core.case import Case
from doseledger.core.project.protocol import Protocol
from doseledger.gates.verdict import Finding


def judge_plan(case: Case, protocol: Protocol) -> list[Finding]:
    """Return an error for each fault of a case's RTPLAN; nothing where the protocol asks for none.

    Notes
    -----
    The RTPLAN itself is no part of a case, so this reads what ingest noted in the case's meta
    (docs/reference/rtplan-checks.md), and a case without that note is as bad as one with a fault.
    """
    if "rtplan" not in protocol.objects:
        return []
    plan = case.meta.get("plan")
    faults = plan.get("faults") if isinstance(plan, dict) else None
    if not isinstance(faults, list):
        message = f"{case.case_id}: nobody noted whether its RTPLAN is sound (meta plan.faults); ingest it again"
        return [Finding("plan_unknown", case.case_id, "error", message)]
    advice = "Export the plan again, or leave the case out"
    return [
        Finding("plan_faults", case.case_id, "error", f"{case.case_id}: its RTPLAN: {fault} {advice}")
        for fault in faults
    ]
