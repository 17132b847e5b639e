"""Signed distances held against the mask: mm, negative inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.spatial import cKDTree

from doseledger.core.case import Case
from doseledger.core.grid import Triple, box_around
from doseledger.core.limit import breaks, keeps
from doseledger.gates.limits import SdfLimits
from doseledger.gates.verdict import Finding

# How many voxels inside, and how many outside, are measured for each structure.
SAMPLES = 400
# float16 near 50 mm steps by 0.03 mm.
ROUNDING_MM = 0.05
# Share by which a distance from contours may differ from one between voxel centres, besides one voxel.
SLACK = 0.1


def judge_distances(case: Case, sdf_clip_mm: float, limits: SdfLimits) -> list[Finding]:
    """Return what is wrong with the signed distances of a case.

    Parameters
    ----------
    sdf_clip_mm
        Where the protocol clips distances, in mm.
    """
    findings = []
    for index, name in enumerate(case.structure_names):
        sdf = case.sdf_mm[index]
        finite = np.isfinite(sdf)
        if not finite.all():
            findings.append(_not_finite(case, name, int(finite.size - finite.sum())))
        elif not case.masks[index].any():
            findings += _judge_absent(case, name, sdf, sdf_clip_mm)
        else:
            sign = _judge_sign(case, name, index)
            findings += sign or _judge_scale(case, index, sdf_clip_mm, limits)
    return findings


def _not_finite(case: Case, name: str, count: int) -> Finding:
    message = f"{case.case_id}: the SDF of {name} has {count} NaN or infinite voxels, wanted none; ingest it again"
    return Finding("nan", case.case_id, "error", message, {"voxels": count})


def _judge_absent(case: Case, name: str, sdf: NDArray[np.float16], clip_mm: float) -> list[Finding]:
    if not breaks(sdf, least=clip_mm - ROUNDING_MM, most=clip_mm + ROUNDING_MM).any():
        return []
    message = (
        f"{case.case_id}: {name} is absent, but its SDF runs from {sdf.min():.1f} to {sdf.max():.1f} mm; wanted "
        f"{clip_mm:g} mm everywhere, so that absence is never taken for a boundary. Ingest it again"
    )
    return [Finding("sdf_absent", case.case_id, "error", message, {"min_mm": float(sdf.min())})]


def _judge_sign(case: Case, name: str, index: int) -> list[Finding]:
    mask, sdf = case.masks[index], case.sdf_mm[index]
    inside = sdf[mask].astype(np.float32)
    # Half a voxel: a distance measured from the contour may cross zero on either side of a voxel's centre.
    doubt = np.float32(max(case.grid.spacing_mm) / 2.0)
    wrong_inside = int((inside > doubt).sum())
    wrong_outside = int(((sdf < -doubt) & ~mask).sum())
    numbers = {"structure": name, "wrong_inside": wrong_inside, "wrong_outside": wrong_outside}
    # A median, because doubt at the surface is not doubt about the sign.
    if wrong_inside + wrong_outside == 0 and float(np.median(inside)) <= 0.0:
        return []
    if float(sdf.min()) >= 0.0:
        what = f"is nowhere negative, though {name} holds {len(inside)} voxels (was the mask negated as uint8?)"
        gate = "sdf_all_positive"
    elif float(np.median(inside)) > 0.0 and wrong_outside > 0:
        what, gate = "is positive inside and negative outside: its sign is turned round", "sdf_sign"
    else:
        what = f"has the wrong sign in {wrong_inside} voxels inside and {wrong_outside} outside the mask"
        gate = "sdf_sign"
    message = f"{case.case_id}: the SDF of {name} {what}; wanted negative inside, positive outside. Ingest it again"
    return [Finding(gate, case.case_id, "error", message, numbers)]


def _judge_scale(case: Case, index: int, clip_mm: float, limits: SdfLimits) -> list[Finding]:
    name, spacing = case.structure_names[index], case.grid.spacing_mm
    found, expected = _sampled_distances(case.masks[index], case.sdf_mm[index], spacing, clip_mm)
    if found.size == 0:
        message = (
            f"{case.case_id}: the SDF of {name} could not be held against its mask: each voxel is nearer to the "
            "image's edge than to the mask's; look at it, or crop less closely"
        )
        return [Finding("sdf_unjudged", case.case_id, "warning", message, {"structure": name})]
    # Between voxel centres on both sides of the surface lies the surface: the truth is up to one voxel less.
    least = np.minimum(expected - max(spacing), clip_mm) * (1.0 - SLACK) - ROUNDING_MM
    most = np.minimum(expected * (1.0 + SLACK) + ROUNDING_MM, clip_mm + ROUNDING_MM)
    wrong_percent = 100.0 * float(np.mean(breaks(found, least=least, most=most)))
    if keeps(wrong_percent, most=limits.max_wrong_percent):
        return []
    deep = (expected > 2.0 * max(spacing)) & (expected < clip_mm)
    ratio = float(np.median(found[deep] / expected[deep])) if deep.any() else float("nan")
    message = (
        f"{case.case_id}: the SDF of {name} is {ratio:.2f} times the distance measured from its mask (wanted about 1) "
        f"and disagrees at {wrong_percent:.0f} % of the voxels sampled; is it in voxels, normalised, or of another "
        f"mask? Wanted mm, clipped at {clip_mm:g}. Ingest it again"
    )
    numbers = {"structure": name, "ratio": ratio, "wrong_percent": wrong_percent}
    return [Finding("sdf_not_mm", case.case_id, "error", message, numbers)]


def _sampled_distances(
    mask: NDArray[np.bool_], sdf: NDArray[np.float16], spacing_mm: Triple, clip_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return |SDF| and the distance to the nearest voxel centre across the surface, at evenly picked voxels, in mm."""
    reach = [int(np.ceil(clip_mm / step)) + 1 for step in spacing_mm]
    box = box_around(mask, (reach[0], reach[1], reach[2]))
    mask, sdf = mask[box], sdf[box]
    step = np.asarray(spacing_mm)
    edges = (mask & ~binary_erosion(mask, border_value=1), binary_dilation(mask) & ~mask)
    touches = any(mask.take(end, axis=axis).any() for axis in range(3) for end in (0, -1))
    found, expected = [np.empty(0)], [np.empty(0)]
    for region, across in ((~mask, edges[0]), (mask, edges[1])):
        if not across.any():
            continue
        flat = np.flatnonzero(region)
        # Every n-th voxel: the same ones on every run, and no random numbers.
        picked = np.stack(np.unravel_index(flat[:: max(1, len(flat) // SAMPLES)], mask.shape), axis=-1)
        distance, _ = cKDTree(np.argwhere(across) * step).query(picked * step)
        if touches:
            # What lies beyond the image can be nearer than what lies in it: only the voxels that can't be are judged.
            to_edge = np.minimum(picked * step, (np.asarray(mask.shape) - 1 - picked) * step).min(axis=1)
            picked, distance = picked[to_edge >= distance], distance[to_edge >= distance]
        expected.append(distance)
        found.append(np.abs(sdf[tuple(picked.T)].astype(np.float64)))
    return np.concatenate(found), np.concatenate(expected)
