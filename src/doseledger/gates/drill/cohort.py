"""Detection limits of the data gate on a cohort: faults of rising size put into copies of its cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from doseledger.core.case import Case, check_form
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.fanout import run_cases
from doseledger.core.layout import Layout
from doseledger.core.types import Tell
from doseledger.gates.data.cohort import CaseReport, judge_loaded
from doseledger.gates.digests import data_digest
from doseledger.gates.drill.draw import Draw
from doseledger.gates.drill.faults import BEFORE, choose_faults
from doseledger.gates.drill.healthy import Healthy, read_healthy
from doseledger.gates.drill.limits import Sight, summarise_fault
from doseledger.gates.drill.noted import as_noted
from doseledger.gates.limits import DataLimits
from doseledger.gates.verdict import Finding

# A case and a fault.
Key = tuple[str, str]


@dataclass(frozen=True)
class Settings:
    """What is drilled: how many cases, which faults (all if none is named), and the seed of all that is drawn."""

    n_cases: int
    faults: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Copy:
    """What a faulty copy gave: the gate's report, or why it is no case that can be judged."""

    report: CaseReport | None
    unreadable: str = ""


def drill(layout: Layout, settings: Settings, *, workers: int, tell: Tell) -> dict[str, Any]:
    """Return from which size on the data gate sees each fault in copies of a cohort's cases, as JSON values.

    Parameters
    ----------
    layout
        Where cases, splits, protocol, suite and limits lie; nothing is written there.
    settings
        How many cases, which faults, which seed.
    workers
        Processes, each with one case at a time (two where a fault needs another patient); 0 works in this one.
    tell
        Called with one line a case and fault.

    Raises
    ------
    BadInput
        If a fault, a table or a limit can't be read, or no case is free of errors: what is red already shows nothing
        more.

    Notes
    -----
    Copies stay in memory and are judged by the gate's own functions. Expectations of the cohort as a whole (a mean, a
    share, a number of rows) are left out: one case of many hardly moves them.
    """
    faults = choose_faults(settings.faults)
    if settings.n_cases < 1:
        raise BadInput(f"{settings.n_cases} cases can't be drilled; wanted at least one")
    healthy = read_healthy(layout, settings.seed, workers=workers, tell=tell)
    known = healthy.judge()
    chosen = _choose_cases(healthy, known, settings)
    rows = {str(row["case_id"]): row for row in healthy.cases.to_dict("records")}
    arguments: dict[Key, tuple[Any, ...]] = {}
    for rank, case_id in enumerate(chosen):
        partner = _choose_partner(case_id, healthy, settings.seed)
        for fault in faults:
            other = layout.cases / f"{partner}.npz" if fault.needs_other and partner else None
            # Each case takes another axis, so that three show all.
            draw = Draw((settings.seed, _number(case_id), _number(fault.name)), rank % 3, healthy.protocol)
            path = layout.cases / f"{case_id}.npz"
            arguments[case_id, fault.name] = (path, other, fault.name, draw, rows[case_id], healthy.limits)
    lines = {" ".join(key): key for key in arguments}
    outcome = run_cases(try_fault, {line: arguments[key] for line, key in lines.items()}, workers=workers, tell=tell)
    if outcome.failed:
        raise BadInput("; ".join(str(error) for error in outcome.failed.values()))
    sights = _see(healthy, known, {lines[line]: found for line, found in outcome.done.items()})
    return {
        "cohort": layout.cohort,
        "digest": data_digest(layout),
        "seed": settings.seed,
        "cases": chosen,
        "n_others": len(healthy.reports) - 1,
        "faults": [summarise_fault(fault, {name: sights[name, fault.name] for name in chosen}) for fault in faults],
    }


def _number(name: str) -> int:
    return crc32(name.encode())


def _choose_cases(healthy: Healthy, known: list[Finding], settings: Settings) -> list[str]:
    """Draw cases that nothing is wrong with: of others nobody can tell what a fault adds."""
    red = {finding.case_id for finding in known if finding.severity == "error"}
    sound = sorted(name for name, report in healthy.reports.items() if report.row is not None and name not in red)
    if not sound:
        raise BadInput("no case passes the data gate, so nobody can tell what a fault adds; mend the cohort first")
    return sorted(np.random.default_rng(settings.seed).permutation(sound)[: settings.n_cases].tolist())


def _choose_partner(case_id: str, healthy: Healthy, seed: int) -> str | None:
    """Draw another case, of another part of the first fold where there is one."""
    splits = healthy.splits[(healthy.splits["repeat"] == 0) & (healthy.splits["fold"] == 0)]
    part = dict(zip(splits["case_id"], splits["split"], strict=True))
    others = sorted(name for name in healthy.reports if name != case_id)
    apart = [name for name in others if case_id in part and part.get(name, part[case_id]) != part[case_id]]
    names = apart or others
    return names[int(np.random.default_rng((seed, _number(case_id))).integers(len(names)))] if names else None


def try_fault(
    path: Path, other: Path | None, name: str, draw: Draw, row: Mapping[str, object], limits: DataLimits
) -> list[Copy] | None:
    """Return what the data gate says of a copy of a case with each size of a fault; None if it can't have the fault.

    Parameters
    ----------
    path
        The case.
    other
        Another patient's, where the fault needs one.
    name
        The fault's.
    draw
        What is drawn for it, without the other case.
    row
        The case's row of cases.csv.
    limits
        The gate's.

    Raises
    ------
    BadCase
        If a case can't be read.
    """
    (fault,) = choose_faults([name])
    case, copies = Case.load(path), []
    draw = replace(draw, other=Case.load(other) if other is not None else None)
    for size in fault.sizes:
        faulty = fault.put(case, size, draw)
        if faulty is None:
            return None
        if fault.when == BEFORE:
            faulty = as_noted(case, faulty)
        check_form(faulty)
        try:
            copies.append(Copy(judge_loaded(faulty, row, draw.protocol, limits)))
        except BadCase as error:
            copies.append(Copy(None, str(error)))
    return copies


def _see(
    healthy: Healthy, known: list[Finding], copies: Mapping[Key, list[Copy] | None]
) -> dict[Key, list[Sight] | None]:
    """What every judge sees of each copy that it does not see of the cohort as it is."""
    before = {(finding.gate, finding.severity, finding.case_id) for finding in known}
    rows = {
        _row_name(key, i): copy.report.row
        for key, items in copies.items()
        for i, copy in enumerate(items or [])
        if copy.report
    }
    by_row = healthy.judge_rows(rows)
    sights: dict[Key, list[Sight] | None] = dict.fromkeys(copies)
    for key, items in copies.items():
        if items is not None:
            found = [_judge_copy(healthy, key[0], copy, by_row.get(_row_name(key, i), [])) for i, copy in enumerate(items)]
            sights[key] = [
                Sight.of(item for item in findings if (item.gate, item.severity, item.case_id) not in before)
                for findings in found
            ]
    return sights


def _row_name(key: Key, size: int) -> str:
    return f"{' '.join(key)} {size}"


def _judge_copy(healthy: Healthy, case_id: str, copy: Copy, by_row: list[Finding]) -> list[Finding]:
    if copy.report is None:
        return [Finding("unreadable", case_id, "error", copy.unreadable)]
    own = [replace(item, case_id=case_id) for item in by_row]
    return [*copy.report.findings, *own, *healthy.judge_with(case_id, copy.report)]
