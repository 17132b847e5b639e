"""Clues to an ROI beside its name: type, side, prescribed dose."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pydicom

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.plan.read import TargetDose, read_prescription
from doseledger.dicom.read_structures import Roi, read_contours
from doseledger.dicom.values import MALFORMED
from doseledger.ingest.body import find_body_roi
from doseledger.ingest.names.hints import Clue
from doseledger.ingest.names.nomenclature import Side, read_name


@dataclass(frozen=True)
class Clues:
    """What is known of a patient's ROIs beside their names, and every dose that the plan prescribes to a target."""

    rois: dict[str, Clue]
    targets: list[TargetDose]

    def of(self, name: str) -> Clue:
        """Return what is known of an ROI, its name if nothing more."""
        return self.rois.get(name, Clue(name))


NO_CLUES = Clues({}, [])


def gather_clues(
    rois: Sequence[Roi], rtplan: pydicom.Dataset | None, protocol: Protocol, case_id: str, asked: Collection[str]
) -> Clues:
    """Return what DICOM says of the ROIs that are asked for, and the plan's prescription.

    Parameters
    ----------
    rois
        All of the structure set.
    rtplan
        None where the protocol asks for none.
    protocol
        Whose names the outline has.
    asked
        Names of ROIs; only their contours are read, and only where the name tells no side.

    Notes
    -----
    What can't be read is left out: a hint is never a reason to refuse.
    """
    targets: list[TargetDose] = []
    if rtplan is not None:
        try:
            targets = read_prescription(rtplan, case_id).targets
        except (BadCase, BadInput, *MALFORMED):
            targets = []
    middle_mm = _middle_x_mm(list(rois), protocol, case_id)
    found = {}
    for roi in rois:
        if roi.name not in asked:
            continue
        side: Side = ""
        if not read_name(roi.name).side and middle_mm is not None:
            side = find_side(roi, middle_mm, case_id)
        doses = tuple(target.dose_gy for target in targets if target.roi_number == roi.number)
        found[roi.name] = Clue(roi.name, roi.interpreted_type, side, doses)
    return Clues(found, targets)


def _middle_x_mm(rois: list[Roi], protocol: Protocol, case_id: str) -> float | None:
    """The body's middle from right to left in mm; None without an outline."""
    outline = find_body_roi(rois, protocol)
    extent = None if outline is None else extent_x_mm(outline, case_id)
    return None if extent is None else (extent[0] + extent[1]) / 2.0


def find_side(roi: Roi, middle_mm: float, case_id: str) -> Side:
    """Return on which side of the body's middle an ROI lies: L or R where it lies there whole, else both.

    Notes
    -----
    In LPS +x is the patient's left, however he lies.
    """
    extent = extent_x_mm(roi, case_id)
    if extent is None:
        return ""
    return "L" if extent[0] > middle_mm else "R" if extent[1] < middle_mm else "both"


def extent_x_mm(roi: Roi, case_id: str) -> tuple[float, float] | None:
    """Return the least and the largest x of an ROI's closed contours in mm; None where there is none to read."""
    try:
        polygons = read_contours(roi, case_id).polygons
    except (BadCase, BadInput, *MALFORMED):
        return None
    if not polygons:
        return None
    x_mm = np.concatenate([points[:, 0] for _, points in polygons])
    return float(x_mm.min()), float(x_mm.max())
