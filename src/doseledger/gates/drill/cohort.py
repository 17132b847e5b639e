"""A drill on a cohort: faulty copies of some sound cases, judged by the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from doseledger.core.case import Case, check_form
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.pool.cluster import Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.layout import Layout
from doseledger.core.types import Tell
from doseledger.gates.data.cohort import CaseReport, judge_loaded
from doseledger.gates.digests import data_digest
from doseledger.gates.drill.faults import BEFORE, choose_faults
from doseledger.gates.drill.healthy import Healthy, read_healthy
from doseledger.gates.drill.limits import Sight, see, summarise_fault
from doseledger.gates.drill.noted import as_noted
from doseledger.gates.drill.trial import Trial
from doseledger.gates.verdict import Finding

# A copy that could be judged, or why it is no case.
Copy = CaseReport | str


def drill(
    layout: Layout, n_cases: int, faults: Sequence[str], seed: int, *, scale: Scale, tell: Tell
) -> dict[str, Any]:
    """Return the size from which on the gates see each fault in a cohort's cases, as JSON values.

    Parameters
    ----------
    layout
        Where cases, splits, protocol, suite and limits lie; nothing is written there.
    faults
        Names; all for none.
    scale
        Where; each process holds one case at a time, two where a fault needs another patient.

    Raises
    ------
    BadInput
        If a fault, a table or a limit can't be read, or no case is free of errors: what is red
        already shows nothing more.

    Notes
    -----
    Copies stay in memory and are judged by the gates' own functions. Expectations of the cohort as
    a whole (a mean, a share, a number of rows) are left out: one case of many hardly moves them.
    """
    if n_cases < 1:
        raise BadInput(f"{n_cases} cases can't be drilled; wanted at least one")
    wanted = choose_faults(faults)
    healthy = read_healthy(layout, seed, scale=scale, tell=tell)
    known = _choose_cases(healthy, n_cases, seed)
    rows = {str(row["case_id"]): row for row in healthy.cases.to_dict("records")}
    arguments: dict[str, tuple[Any, ...]] = {}
    for rank, case_id in enumerate(known):
        paths = [layout.cases / f"{name}.npz" for name in _pair(case_id, healthy, seed)]
        for fault in wanted:
            # Each case takes another axis, so that three show all.
            drawn = rank % 3, (seed, _number(case_id), _number(fault.name)), healthy.protocol
            last = rows[case_id], healthy.limits.data
            arguments[f"{case_id} {fault.name}"] = (paths, fault.name, drawn, *last)
    outcome = over_cases(_try_fault, arguments, scale, tell=tell)
    if outcome.failed:
        raise BadInput("; ".join(str(error) for error in outcome.failed.values()))
    sights: dict[str, dict[str, list[Sight] | None]] = {fault.name: {} for fault in wanted}
    for case_id, said in known.items():
        tried = {fault.name: outcome.done[f"{case_id} {fault.name}"] for fault in wanted}
        for name, seen in _see(healthy, case_id, said, tried).items():
            sights[name][case_id] = seen
    return {
        "cohort": layout.cohort,
        "digest": data_digest(layout),
        "seed": seed,
        "cases": list(known),
        "n_others": len(healthy.reports) - 1,
        "faults": [summarise_fault(fault, sights[fault.name]) for fault in wanted],
    }


def _number(name: str) -> int:
    return crc32(name.encode())


def _choose_cases(healthy: Healthy, n_cases: int, seed: int) -> dict[str, list[Finding]]:
    """Draw cases without an error of the data gate, each with all that is said of it as it is.

    Of others nobody can tell what a fault adds.
    """
    found: dict[str, list[Finding]] = {}
    for case_id in np.random.default_rng(seed).permutation(sorted(healthy.reports)).tolist():
        said = healthy.judge(case_id, {case_id: healthy.reports[case_id]})[case_id]
        own = [item for item in said if item.case_id == case_id and item.severity == "error"]
        if all(item.gate.startswith("drift_") for item in own):
            found[case_id] = said
        if len(found) == n_cases:
            break
    if not found:
        why = "so nobody can tell what a fault adds; mend the cohort first"
        raise BadInput(f"no case passes the data gate, {why}")
    return dict(sorted(found.items()))


def _pair(case_id: str, healthy: Healthy, seed: int) -> list[str]:
    """A case and a drawn other one, of another part of the first fold where there is one."""
    others, part = sorted(set(healthy.reports) - {case_id}), healthy.part_of(case_id)
    names = [name for name in others if healthy.part_of(name) != part] or others
    drawn = np.random.default_rng((seed, _number(case_id))).permutation(names).tolist()
    return [case_id, *drawn[:1]]


def _try_fault(
    paths: Sequence[Path], name: str, drawn: tuple[Any, ...], row: Mapping[str, object], limits: Any
) -> list[Copy] | None:
    """Judge a case's copy with each size of a fault by itself; None if it can't have the fault."""
    (fault,) = choose_faults([name])
    case = Case.load(paths[0])
    other = Case.load(paths[1]) if fault.needs_other and paths[1:] else case
    copies: list[Copy] = []
    for size in fault.sizes:
        trial = Trial(case, other, size, *drawn)
        faulty = fault.put(trial)
        if faulty is None:
            return None
        try:
            check_form(faulty)
            noted = as_noted(case, faulty) if fault.when == BEFORE else faulty
            copies.append(judge_loaded(noted, row, trial.protocol, limits))
        except BadCase as error:
            copies.append(str(error))
    return copies


def _see(
    healthy: Healthy,
    case_id: str,
    before: Sequence[Finding],
    tried: Mapping[str, list[Copy] | None],
) -> dict[str, list[Sight] | None]:
    """What the gates see of each copy that they do not see of the case itself, by fault."""
    known = {(item.gate, item.severity, item.case_id) for item in before}
    copies = {(name, at): c for name, all_ in tried.items() for at, c in enumerate(all_ or [])}
    fit = {f"{name} {at}": c for (name, at), c in copies.items() if isinstance(c, CaseReport)}
    judged = healthy.judge(case_id, fit)
    sights: dict[str, Any] = {name: None if all_ is None else [] for name, all_ in tried.items()}
    for (name, at), copy in copies.items():
        unfit = Finding("unreadable", case_id, "error", str(copy))
        found = judged.get(f"{name} {at}", [unfit])
        new = [item for item in found if (item.gate, item.severity, item.case_id) not in known]
        sights[name].append(see(new))
    return sights
