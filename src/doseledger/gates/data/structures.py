"""The masks of a case: present, in the body, apart, in anatomical order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.limit import keeps
from doseledger.core.project.protocol import Protocol
from doseledger.gates.limits import BodyLimits, DataLimits, Order
from doseledger.gates.verdict import Finding

AXES = {"z": 0, "y": 1, "x": 2}
SENSE = {"x": "more to the patient's left", "y": "more posterior", "z": "nearer the head"}


def judge_structures(case: Case, protocol: Protocol, limits: DataLimits) -> list[Finding]:
    """Return what is wrong with the structures of a case."""
    findings = _judge_names(case, protocol)
    if findings:
        return findings
    volumes = {name: int(case.mask(name).sum()) for name in case.structure_names}
    findings = _judge_presence(case, protocol, volumes)
    if not case.body.any():
        message = f"{case.case_id}: the body is empty; wanted the EXTERNAL contour or a threshold. Ingest it again"
        return [*findings, Finding("body_empty", case.case_id, "error", message)]
    findings += _judge_outside_body(case, protocol, limits.body, volumes)
    findings += _judge_twins(case, volumes)
    findings += _judge_overlaps(case, limits, volumes)
    findings += _judge_contained(case, limits, volumes)
    there = {name for name, volume in volumes.items() if volume}
    for order in limits.order:
        if {order.lower, order.higher} <= there:
            findings += _judge_order(case, order)
    return findings


def _judge_names(case: Case, protocol: Protocol) -> list[Finding]:
    if case.structure_names == protocol.structure_names:
        return []
    missing = [name for name in protocol.structure_names if name not in case.structure_names]
    what = f"lacks {', '.join(missing)}" if missing else "has them in another order, or has others"
    message = (
        f"{case.case_id}: structures are {', '.join(case.structure_names)}; protocol {protocol.name} wants "
        f"{', '.join(protocol.structure_names)}: the case {what}, so channels would be mixed up. Ingest it again"
    )
    return [Finding("missing_channel", case.case_id, "error", message, {"missing": missing})]


def _judge_presence(case: Case, protocol: Protocol, volumes: dict[str, int]) -> list[Finding]:
    findings = []
    for name, present in zip(case.structure_names, case.present, strict=True):
        if present and not volumes[name]:
            message = f"{case.case_id}: {name} is marked present, but its mask is empty; contour it, or ingest again"
            findings.append(Finding("mask_empty", case.case_id, "error", message, {"structure": name}))
        elif not present and volumes[name]:
            message = f"{case.case_id}: {name} is marked absent, but its mask has {volumes[name]} voxels; ingest again"
            findings.append(Finding("mask_absent", case.case_id, "error", message, {"structure": name}))
        elif not present and protocol.structure(name).required:
            message = (
                f"{case.case_id}: {name} is absent, and protocol {protocol.name} requires it; contour it, add its "
                "clinic name to the aliases, or take the case out"
            )
            findings.append(Finding("missing_structure", case.case_id, "error", message, {"structure": name}))
    return findings


def _judge_outside_body(case: Case, protocol: Protocol, limits: BodyLimits, volumes: dict[str, int]) -> list[Finding]:
    findings = []
    for name, volume in volumes.items():
        if not volume:
            continue
        outside = 100.0 * int((case.mask(name) & ~case.body).sum()) / volume
        is_target = protocol.structure(name).kind == "target"
        limit = limits.target_outside_percent if is_target else limits.organ_outside_percent
        if not keeps(outside, most=limit):
            message = (
                f"{case.case_id}: {outside:.1f} % of {name} lies outside the body, wanted at most {limit:g} %; is the "
                "contour of another scan, or the body cut? Look at it and contour again"
            )
            numbers = {"structure": name, "percent": outside, "limit": limit}
            findings.append(Finding("mask_outside_body", case.case_id, "error", message, numbers))
    return findings


def _judge_twins(case: Case, volumes: dict[str, int]) -> list[Finding]:
    """Find two structures with the very same voxels: one was copied over the other."""
    findings = []
    names = [name for name, volume in volumes.items() if volume]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if volumes[one] == volumes[other] and np.array_equal(case.mask(one), case.mask(other)):
                message = f"{case.case_id}: {one} and {other} are the very same voxels; one contour was copied. Mend it"
                findings.append(Finding("mask_twin", case.case_id, "error", message, {"structures": [one, other]}))
    return findings


def _judge_overlaps(case: Case, limits: DataLimits, volumes: dict[str, int]) -> list[Finding]:
    findings = []
    for pair in limits.exclusive:
        one, other = pair.structures
        smaller = min(volumes.get(one, 0), volumes.get(other, 0))
        if not smaller:
            continue
        overlap = 100.0 * int((case.mask(one) & case.mask(other)).sum()) / smaller
        if not keeps(overlap, most=pair.max_overlap_percent):
            message = (
                f"{case.case_id}: {one} and {other} overlap by {overlap:.1f} % of the smaller, wanted at most "
                f"{pair.max_overlap_percent:g} %: {pair.source}. Contour again"
            )
            numbers = {"structures": [one, other], "percent": overlap, "limit": pair.max_overlap_percent}
            findings.append(Finding("mask_overlap", case.case_id, "error", message, numbers))
    return findings


def _judge_contained(case: Case, limits: DataLimits, volumes: dict[str, int]) -> list[Finding]:
    findings = []
    for rule in limits.contains:
        if not volumes.get(rule.inner) or not volumes.get(rule.outer):
            continue
        held = 100.0 * int((case.mask(rule.inner) & case.mask(rule.outer)).sum()) / volumes[rule.inner]
        if not keeps(held, least=rule.min_percent):
            message = (
                f"{case.case_id}: {rule.outer} holds {held:.1f} % of {rule.inner}, wanted at least "
                f"{rule.min_percent:g} %: {rule.source}. Are the contours of one plan?"
            )
            numbers = {"inner": rule.inner, "outer": rule.outer, "percent": held, "limit": rule.min_percent}
            findings.append(Finding("mask_not_contained", case.case_id, "error", message, numbers))
    return findings


def _judge_order(case: Case, order: Order) -> list[Finding]:
    low, high = (_centre_mm(case, case.mask(name), order.axis) for name in (order.lower, order.higher))
    if low < high:
        return []
    message = (
        f"{case.case_id}: {order.higher} should lie {SENSE[order.axis]} than {order.lower}, but their centres are at "
        f"{order.axis} = {high:.0f} and {low:.0f} mm (LPS): {order.source}. Is the image flipped, or are names swapped?"
    )
    numbers = {"axis": order.axis, order.lower: low, order.higher: high}
    return [Finding("mask_order", case.case_id, order.severity, message, numbers)]


def _centre_mm(case: Case, mask: NDArray[np.bool_], axis: str) -> float:
    """Centre of a mask along one axis, in mm."""
    number = AXES[axis]
    counts = mask.sum(axis=tuple(a for a in range(3) if a != number))
    return float(np.average(case.grid.axes_mm()[number], weights=counts))
