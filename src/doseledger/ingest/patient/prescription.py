"""The plan's prescription against the protocol's."""

from __future__ import annotations

import pydicom

from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Protocol, folded
from doseledger.dicom.plan.read import TargetDose, read_prescription
from doseledger.dicom.read_structures import Roi
from doseledger.ingest.names.hints import DOSE_TOLERANCE_GY
from doseledger.ingest.patient.roi_names import NameMatch

CGY_PER_GY = 100.0


def check_prescription(
    rtplan: pydicom.Dataset, rois: list[Roi], match: NameMatch, protocol: Protocol, case_id: str
) -> tuple[int, list[str]]:
    """Return the plan's fractions, and warnings, after checking its prescription against the protocol's.

    A dose that the plan gives for a target (by ROI, or by a description that is a name of the target) must be that
    target's; one that it gives for none in particular must be one of the protocol's.

    Raises
    ------
    BadCase
        If fractions or a dose differ: what the plan says, what the protocol says.
    """
    plan = read_prescription(rtplan, case_id)
    warnings = []
    fractions = sum(plan.n_fractions.values())
    if len(plan.n_fractions) > 1:
        warnings.append(f"the RTPLAN has {len(plan.n_fractions)} fraction groups; their fractions were added")
    if protocol.n_fractions is not None and fractions != protocol.n_fractions:
        if fractions == 0:
            raise BadCase(
                case_id,
                f"the RTPLAN has no NumberOfFractionsPlanned, wanted {protocol.n_fractions}; export the plan again",
            )
        raise BadCase(
            case_id,
            f"wrong prescription: the RTPLAN has {fractions} fractions, {protocol.name} has {protocol.n_fractions}; "
            "move the case to its own cohort",
        )
    if not plan.targets:
        warnings.append("the RTPLAN prescribes no dose to a target; only its fractions were checked")
    for target in plan.targets:
        _check_target(target, rois, match, protocol, case_id)
    return fractions, warnings


def _check_target(target: TargetDose, rois: list[Roi], match: NameMatch, protocol: Protocol, case_id: str) -> None:
    name = _structure_of(target, rois, match, protocol)
    wanted = [protocol.prescription_gy[name]] if name else list(protocol.prescription_gy.values())
    if not wanted or any(abs(target.dose_gy - dose) <= DOSE_TOLERANCE_GY for dose in wanted):
        return
    hint = ""
    if any(abs(target.dose_gy / CGY_PER_GY - dose) <= DOSE_TOLERANCE_GY for dose in wanted):
        hint = " (is it in cGy?)"
    doses = " or ".join(f"{dose:g}" for dose in wanted)
    raise BadCase(
        case_id,
        f"wrong prescription: the RTPLAN gives {name or 'a target'} {target.dose_gy:g} Gy{hint}, {protocol.name} has "
        f"{doses} Gy; move the case to its own cohort",
    )


def _structure_of(target: TargetDose, rois: list[Roi], match: NameMatch, protocol: Protocol) -> str | None:
    """The target of the protocol that a prescribed dose is for, if the plan says."""
    names = {roi.name for roi in rois if roi.number == target.roi_number}
    for name, roi_name in match.chosen.items():
        if name in protocol.prescription_gy and roi_name in names:
            return name
    for structure in protocol.structures:
        if structure.name in protocol.prescription_gy and folded(target.description) in structure.folded_names:
            return structure.name
    return None
