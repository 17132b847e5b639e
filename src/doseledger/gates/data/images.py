"""Image and dose of a case against its contours and from slice to slice."""

from __future__ import annotations

from doseledger.core.case import Case
from doseledger.core.project.protocol import Protocol
from doseledger.gates.data.placement import (
    judge_dose_mirrored,
    judge_dose_place,
    judge_placement,
    measure_placement,
)
from doseledger.gates.data.slices import judge_slices, measure_slices
from doseledger.gates.features import Row
from doseledger.gates.limits import ImageLimits
from doseledger.gates.verdict import Finding


def judge_image(case: Case, protocol: Protocol, limits: ImageLimits) -> tuple[list[Finding], Row]:
    """Return what is wrong with a case's image, and the measures behind it by name, for the report.

    Parameters
    ----------
    case
        A loaded case with a body; its image in HU.
    """
    places, slices = measure_placement(case, protocol), measure_slices(case)
    row: Row = {}
    for what, place in places.items():
        row |= {f"{what}_fit": place.fit, f"{what}_place_share": place.share}
    row |= {"slice_jump_ratio": slices.jump_ratio, "slice_air_percent": slices.air_percent}
    row |= {"dose_jump_gy": slices.dose_jump_gy}
    findings = [*judge_placement(case, places, limits), *judge_slices(case, slices, limits)]
    if "dose" in places:
        findings += judge_dose_place(case, places["dose"], limits.dose_share)
        findings += judge_dose_mirrored(case, places["dose_skin"], limits.least_dose_skin_share)
    return findings, row
