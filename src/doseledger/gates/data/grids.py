"""The grid, modality and identity of a case against protocol and table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.grid import Grid
from doseledger.core.limit import breaks
from doseledger.core.project.protocol import Protocol
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
        if breaks(off, most=SAME_SPACING_MM).any():
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
    findings += _judge_place(case, protocol)
    if int(case.ct_hu.min()) == int(case.ct_hu.max()):
        message = f"{case.case_id}: the image is {int(case.ct_hu.min())} everywhere: it is missing. Ingest it again"
        findings.append(Finding("image_constant", case.case_id, "error", message))
    return findings


def _judge_place(case: Case, protocol: Protocol) -> list[Finding]:
    """Find a case that does not lie on the grid that its raw image had."""
    full = _full_grid(case, protocol)
    if full is None:
        message = (
            f"{case.case_id}: nobody noted where its raw image lies (meta native_image_grid), so nobody can tell "
            "whether the case lies there; ingest it again"
        )
        return [Finding("grid_unknown", case.case_id, "error", message)]
    wanted = None
    if full.shape_zyx == case.full_shape_zyx:
        wanted = full.cropped(case.crop_start_zyx, case.grid.shape_zyx)
        if wanted.same_as(case.grid):
            return []
    found = f"{case.full_shape_zyx} voxels of which the case begins at {_in_mm(case.grid)}"
    there = _in_mm(wanted) if wanted is not None else f"a grid of {full.shape_zyx} voxels"
    message = f"{case.case_id}: the case says {found}, its raw image's grid {there}; ingest it again"
    return [Finding("grid_place", case.case_id, "error", message)]


def _full_grid(case: Case, protocol: Protocol) -> Grid | None:
    """Return the grid of the whole image, as the raw data have it; None where the case does not say."""
    if protocol.source == "openkbp":
        # The challenge tells no position: the middle of its volume is at 0 mm.
        n, spacing = np.asarray(case.full_shape_zyx), np.asarray(case.grid.spacing_mm)
        z, y, x = (float(value) for value in -(n - 1) / 2.0 * spacing)
        return Grid(case.full_shape_zyx, case.grid.spacing_mm, (z, y, x))
    native: Any = case.meta.get("native_image_grid")
    if not isinstance(native, dict):
        return None
    image = Grid(**{key: tuple(value) for key, value in native.items()})
    return image if protocol.spacing_mm == "native" else image.resampled(protocol.spacing_mm)


def _in_mm(grid: Grid) -> str:
    return f"(z, y, x) = ({', '.join(f'{value:.1f}' for value in grid.origin_mm)}) mm"


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
