"""Plans of a test set, made of a model's predicted doses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import write_json
from doseledger.core.pool.cluster import Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.tables import SPLITS, read_table, rows_of_fold
from doseledger.core.types import Tell
from doseledger.deliver.gap import describe_delivery, summarise_deliveries
from doseledger.deliver.plan import PlanRequest, deliver_case
from doseledger.evaluate.refusals import refuse_changed
from doseledger.ingest.raw import find_sources


@dataclass(frozen=True)
class Delivered:
    """Where the cases of one part of the splits lie, and which fold and repeat."""

    raw: Path
    cases: Path
    predictions: Path
    splits: Path
    fold: int
    repeat: int


def deliver_cohort(
    part: Delivered, out: Path, metrics: Path, request: PlanRequest, *, scale: Scale, tell: Tell
) -> dict[str, Any]:
    """Return the metrics of the plans of a model's test cases, after writing each one's files and the metrics.

    Parameters
    ----------
    out
        Gets a folder a case: `rtplan.dcm`, `rtdose.dcm` and `plan.json`.

    Raises
    ------
    BadInput
        If there are no test cases, or not one of them could be planned. Some that could not are listed in the metrics.
    """
    if request.protocol.source != "dicom":
        raise BadInput(
            f"protocol {request.protocol.name} reads {request.protocol.source}: without CT and RTSTRUCT as DICOM "
            "there is nothing that a plan could refer to"
        )
    mine = rows_of_fold(read_table(part.splits, SPLITS), part.fold, part.repeat, "test")
    if mine.empty:
        raise BadInput(f"{part.splits}: no test cases in fold {part.fold}, repeat {part.repeat}")
    sources = find_sources(part.raw)
    wanted = dict(zip(mine["case_id"], mine["sha256"], strict=True))
    arguments = {case_id: (case_id, wanted[case_id], part, sources, request, out) for case_id in sorted(wanted)}
    outcome = over_cases(_deliver, arguments, scale, tell=tell)
    failed = {case_id: error.reason for case_id, error in outcome.failed.items()}
    if not outcome.done:
        raise BadInput("no test case could be planned: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    for one in outcome.done.values():
        for line in describe_delivery(one):
            tell(line)
    found = summarise_deliveries(outcome.done, failed)
    write_json(metrics, found)
    return found


def _deliver(
    case_id: str, sha256: str, part: Delivered, sources: Mapping[str, Path], request: PlanRequest, out: Path
) -> dict[str, Any]:
    case_path = part.cases / f"{case_id}.npz"
    refuse_changed(case_id, case_path, sha256)
    if case_id not in sources:
        raise BadCase(case_id, f"no folder or zip of its DICOM in {part.raw}; its plan could refer to nothing")
    return deliver_case(sources[case_id], case_path, part.predictions / f"{case_id}.npz", request, out / case_id)
