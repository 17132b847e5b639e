"""A patient who comes for a dose: under which protocol, and from which ROIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom import Dataset

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Protocol
from doseledger.core.schema import load_block
from doseledger.dicom.read_structures import read_rois
from doseledger.ingest.patient.roi_names import match_names


def protocol_of_prediction(protocol: Protocol, prescription_gy: Mapping[str, float], fractions: int | None) -> Protocol:
    """Return the protocol without dose and plan, with another prescription where one is given.

    It asks for no pseudonyms either: patients come here under their own names, and leave under them.

    Raises
    ------
    BadInput
        If the protocol reads no DICOM, or prescribes to no such target.
    """
    if protocol.source != "dicom":
        raise BadInput(f"protocol {protocol.name} reads {protocol.source}, no DICOM; wanted a clinic's protocol")
    strangers = sorted(set(prescription_gy) - set(protocol.target_names))
    if strangers:
        raise BadInput(
            f"--prescription names {', '.join(strangers)}; targets of {protocol.name}: "
            f"{', '.join(protocol.target_names)}"
        )
    changes: dict[str, Any] = {"objects": ["ct", "rtstruct"]}
    if prescription_gy:
        changes["prescription_gy"] = dict(prescription_gy)
    if fractions is not None:
        changes["n_fractions"] = fractions
    changed = load_block(Protocol, {**protocol.model_dump(), **changes}, protocol.name)
    return changed.model_copy(update={"phi": None})


def roi_numbers(rtstruct: Dataset, protocol: Protocol, case_id: str) -> dict[str, int]:
    """Return the number of the ROI that each structure of a protocol is taken from, by the structure's name."""
    rois = read_rois(rtstruct, case_id)
    empty = {roi.name for roi in rois if not roi.items}
    numbers = {roi.name: roi.number for roi in rois}
    chosen = match_names([roi.name for roi in rois], empty, protocol, case_id).chosen
    return {structure: numbers[name] for structure, name in chosen.items()}
