"""`valid_dose`: the voxels in which a case's dose is defined."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from doseledger.core.case import Case
from doseledger.core.grid import Grid
from doseledger.core.limit import keeps
from doseledger.core.project.protocol import Protocol
from doseledger.gates.limits import ValidDoseLimits
from doseledger.gates.verdict import Finding

# As in resampling: a voxel belongs to the dose grid up to half a dose voxel beyond its outermost centres.
EDGE_VOXELS = 0.5 + 1e-6


def judge_valid_dose(
    case: Case, dose: NDArray[np.float32], protocol: Protocol, limits: ValidDoseLimits
) -> list[Finding]:
    """Return what is wrong with `valid_dose`: empty, not where the dose grid meets the body, targets cut, dose of 0.

    Parameters
    ----------
    dose
        Its dose, finite, (z, y, x) in Gy.
    protocol
        Where its cases come from, and which structures are targets.
    limits
        How much of a target, of the body and of the valid voxels may be wrong.

    Notes
    -----
    Of DICOM the case's meta tells the dose grid, so that where the dose is defined is known without the array judged.
    OpenKBP gives a mask alone: it may have any outline, but no closed holes, and lies in the body.
    """
    valid, n_body = case.valid_dose, int(case.body.sum())
    if not valid.any():
        message = f"{case.case_id}: valid_dose is empty, so the dose would count and be judged nowhere; ingest it again"
        return [Finding("valid_dose_empty", case.case_id, "error", message)]
    expected = _expected(case, protocol)
    if expected is None:
        message = (
            f"{case.case_id}: nobody noted where its dose grid lies (meta native_dose_grid), so nobody can tell "
            "whether valid_dose is right; ingest it again"
        )
        return [Finding("valid_dose_unknown", case.case_id, "error", message)]
    findings = []
    wrong = 100.0 * int((valid != expected).sum()) / n_body
    if not keeps(wrong, most=limits.wrong_percent):
        message = (
            f"{case.case_id}: valid_dose is wrong at {wrong:.2f} % of the body's voxels (holes, or beyond body and "
            f"dose grid), wanted at most {limits.wrong_percent:g} %; ingest it again"
        )
        findings.append(Finding("valid_dose", case.case_id, "error", message, {"percent": wrong}))
    for name in (name for name in case.present_names if protocol.structure(name).kind == "target"):
        mask = case.mask(name)
        outside = 100.0 * int((mask & ~valid).sum()) / max(int(mask.sum()), 1)
        if not keeps(outside, most=limits.target_outside_percent):
            message = (
                f"{case.case_id}: {outside:.2f} % of {name} lies where no dose is defined (valid_dose), wanted at most "
                f"{limits.target_outside_percent:g} %; compute the dose on a grid that holds it, and ingest again"
            )
            numbers = {"structure": name, "percent": outside, "limit": limits.target_outside_percent}
            findings.append(Finding("valid_dose_target", case.case_id, "error", message, numbers))
    zero = 100.0 * float(np.mean(dose[valid] == 0.0))
    if not keeps(zero, most=limits.zero_percent):
        message = (
            f"{case.case_id}: the dose is 0 in {zero:.1f} % of the voxels where it is defined, wanted at most "
            f"{limits.zero_percent:g} %: part of it is missing. Export the dose again"
        )
        findings.append(Finding("dose_zero", case.case_id, "error", message, {"percent": zero}))
    return findings


def _expected(case: Case, protocol: Protocol) -> NDArray[np.bool_] | None:
    """Return where the dose should be defined; None where nothing but the array itself says so."""
    if protocol.source == "openkbp":
        return np.asarray(binary_fill_holes(case.valid_dose) & case.body, dtype=np.bool_)
    native: Any = case.meta.get("native_dose_grid")
    if not isinstance(native, dict):
        return None
    dose_grid = Grid(**{key: tuple(value) for key, value in native.items()})
    inside = []
    for positions, start, step, n in zip(
        case.grid.axes_mm(), dose_grid.origin_mm, dose_grid.spacing_mm, dose_grid.shape_zyx, strict=True
    ):
        index = (positions - start) / step
        inside.append((index >= -EDGE_VOXELS) & (index <= n - 1 + EDGE_VOXELS))
    return np.asarray(case.body & inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :])
