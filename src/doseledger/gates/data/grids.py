"""Is a case on the protocol's grid, of the protocol's modality, and the one that the table says it is?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from doseledger.core.case import Case
from doseledger.core.protocol import Protocol
from doseledger.gates.verdict import Finding

# DICOM decimal strings carry about this much; a grid that is further off is another grid.
SAME_SPACING_MM = 1e-3
# What cases.csv and the case itself must agree on.
SHARED_COLUMNS = ("pseudonym", "group", "site", "source_sha256")


def judge_grid(case: Case, protocol: Protocol) -> list[Finding]:
    """Return what is wrong with the grid, image and form of a case."""
    findings = []
    if protocol.spacing_mm != "native":
        off = np.abs(np.subtract(case.grid.spacing_mm, protocol.spacing_mm))
        if off.max() > SAME_SPACING_MM:
            found = " × ".join(f"{value:g}" for value in case.grid.spacing_mm)
            wanted = " × ".join(f"{value:g}" for value in protocol.spacing_mm)
            message = (
                f"{case.case_id}: voxels are {found} mm (z × y × x), protocol {protocol.name} wants {wanted} mm; "
                "ingest it again"
            )
            numbers = {"found_mm": list(case.grid.spacing_mm), "wanted_mm": list(protocol.spacing_mm)}
            findings.append(Finding("grid", case.case_id, "error", message, numbers))
    if protocol.crop == "none" and case.grid.shape_zyx != case.full_shape_zyx:
        message = (
            f"{case.case_id}: the case has {case.grid.shape_zyx} of {case.full_shape_zyx} voxels, and protocol "
            f"{protocol.name} crops nothing; ingest it again"
        )
        findings.append(Finding("grid", case.case_id, "error", message))
    if int(case.ct_hu.min()) == int(case.ct_hu.max()):
        message = f"{case.case_id}: the image is {int(case.ct_hu.min())} everywhere: it is missing. Ingest it again"
        findings.append(Finding("image_constant", case.case_id, "error", message))
    return findings


def judge_identity(case: Case, protocol: Protocol, row: Mapping[str, object]) -> list[Finding]:
    """Return where a case and its row of cases.csv, or its protocol, disagree about who and what it is."""
    findings = []
    said = {name: str(case.meta.get(name)) for name in SHARED_COLUMNS}
    for name in SHARED_COLUMNS:
        if said[name] != str(row[name]):
            message = (
                f"{case.case_id}: the case says {name} {said[name]}, cases.csv says {row[name]}; they are not of one "
                "run of ingest. Ingest again"
            )
            findings.append(Finding("identity", case.case_id, "error", message, {"column": name}))
    for name, wanted in (("protocol", protocol.name), ("modality", protocol.modality)):
        if case.meta.get(name) != wanted:
            message = (
                f"{case.case_id}: the case was made with {name} {case.meta.get(name)}, wanted {wanted}; ingest it again"
            )
            findings.append(Finding("identity", case.case_id, "error", message, {"key": name}))
    return findings
