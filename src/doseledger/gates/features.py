"""Features of a case, one row of numbers, as a plan sheet has them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from doseledger.core.case import Case
from doseledger.core.grid import box_around
from doseledger.core.project.protocol import Protocol

Row = dict[str, float | str]
# Below this an image shows air or lung, in HU.
AIR_HU = -500
# Less of a target is fall-off from its hotter neighbour.
LEAST_ALONE_CC = 5.0
# A hot spot counts from this volume on (ICRU 83 advises against the maximum of one voxel).
HOT_SPOT_CC = 2.0


def measure_case(case: Case, protocol: Protocol, anatomy: Row | None = None) -> Row:
    """Return the features of a case by name; NaN where a structure or the dose is absent.

    Parameters
    ----------
    anatomy
        What `measure_anatomy` says of it, if somebody asked before.

    Returns
    -------
    spacing_{z,y,x}_mm
        Voxel size.
    ct_min_hu, ct_max_hu
        Of the whole image. Of MR, which has no unit, the columns are called `mr_min`, `mr_median_body` and so on.
    ct_p01_body_hu, ct_median_body_hu, ct_p99_body_hu, ct_median_outside_hu
        Percentiles inside the body; median outside.
    body_air_percent
        Share of the body below −500 HU.
    body_volume_cc, body_extent_{z,y,x}_mm
        Of the body.
    <structure>_volume_cc, <structure>_median_hu
        Of each structure; of MR `<structure>_median`.
    <structure>_mean_gy
        Of each structure; empty where the dose grid cuts it.
    <target>_{d98,d95,d50,d2}_percent
        Dose, in percent of that target's prescription.
    <target>_v95_percent
        Volume that gets 95 % of its prescription.
    <target>_beyond_hotter_percent
        Median dose of what lies in no target of a higher prescription, in percent of its own; empty below 5 cc.
    dose_max_percent
        Of the highest prescription.
    dose_body_mean_gy
        Mean in the body.
    dose_beyond_targets_percent
        Least dose of the hottest 2 cc of the body beyond all targets, of the highest prescription.
    dose_outside_valid_max_gy
        Maximum outside `valid_dose`.
    plan_technique, scanner_kvp
        What the meta says of plan and tube voltage, as text (`describe_source`).
    image_range
        Of MR: from the 0.5th to the 99.5th percentile in the file's own numbers (`describe_source`).
    <structure>_parts, <structure>_largest_part_percent
        Connected parts, where there is no dose (`measure_parts`).

    Notes
    -----
    Dx% is the (100 − x)th percentile of the voxels' doses (ICRU 83). The site's page of tables shows this list.
    """
    row = anatomy or measure_anatomy(case)
    if protocol.has_dose and case.dose_gy is not None:
        row = row | _measure_dose(case, case.dose_gy, protocol)
    return row


def describe_source(case: Case) -> Row:
    """Return what a case says of where it comes from: the plan's technique, the tube voltage; NaN where nothing.

    Of an MR image from NIfTI also `image_range`, how far its 99.5th percentile lies from its 0.5th in the file's scale.
    """
    row: Row = {}
    for name, key in (("plan", "technique"), ("scanner", "kvp")):
        said = case.meta.get(name)
        value = said.get(key) if isinstance(said, dict) else None
        row[f"{name}_{key}"] = float("nan") if value is None else str(value)
    intensity = case.meta.get("intensity")
    if isinstance(intensity, dict) and is_mr(case):
        row["image_range"] = float(intensity["high"]) - float(intensity["low"])
    return row


def is_mr(case: Case) -> bool:
    """Return whether a case's image is MR, whose numbers have no unit."""
    return case.meta.get("modality") == "MR"


def measure_parts(case: Case) -> Row:
    """Return in how many parts each structure is, voxels that touch being one, and which share the largest holds."""
    row: Row = {}
    for name in case.structure_names:
        mask = case.mask(name)
        pieces, count = label(mask[box_around(mask)], np.ones((3, 3, 3))) if mask.any() else (mask, 0)
        row[f"{name}_parts"] = float(count) if count else float("nan")
        sizes = np.bincount(pieces.ravel())[1:] if count else np.zeros(0)
        row[f"{name}_largest_part_percent"] = 100.0 * float(sizes.max() / sizes.sum()) if count else float("nan")
    return row


def measure_anatomy(case: Case) -> Row:
    """Return those features of a case that are not of its dose."""
    return measure_image(case) | _measure_structures(case)


def measure_image(case: Case) -> Row:
    """Return those features of a case that are of its image and its grid."""
    row: Row = {"case_id": case.case_id}
    for axis, spacing in zip("zyx", case.grid.spacing_mm, strict=True):
        row[f"spacing_{axis}_mm"] = spacing
    inside, outside = case.ct_hu[case.body], case.ct_hu[~case.body]
    if inside.size == 0:
        return row
    image, unit = ("mr", "") if is_mr(case) else ("ct", "_hu")
    low, middle, high = np.percentile(inside, (1.0, 50.0, 99.0))
    box = box_around(case.body)
    extent = [(part.stop - part.start) * step for part, step in zip(box, case.grid.spacing_mm, strict=True)]
    air = {} if is_mr(case) else {"body_air_percent": 100.0 * float(np.mean(inside < AIR_HU))}
    return row | {
        f"{image}_min{unit}": float(case.ct_hu.min()),
        f"{image}_p01_body{unit}": float(low),
        f"{image}_median_body{unit}": float(middle),
        f"{image}_p99_body{unit}": float(high),
        f"{image}_max{unit}": float(case.ct_hu.max()),
        f"{image}_median_outside{unit}": float(np.median(outside)) if outside.size else float("nan"),
        **air,
        "body_volume_cc": float(inside.size) * case.grid.voxel_volume_cc,
        **{f"body_extent_{axis}_mm": value for axis, value in zip("zyx", extent, strict=True)},
    }


def _measure_structures(case: Case) -> Row:
    row: Row = {}
    for name in case.structure_names:
        mask = case.mask(name)
        count = int(mask.sum())
        median = f"{name}_median" if is_mr(case) else f"{name}_median_hu"
        row[f"{name}_volume_cc"] = count * case.grid.voxel_volume_cc if count else float("nan")
        row[median] = float(np.median(case.ct_hu[mask])) if count else float("nan")
    return row


def _measure_dose(case: Case, dose: NDArray[np.float32], protocol: Protocol) -> Row:
    highest = max(protocol.prescription_gy.values())
    targets = np.zeros(case.grid.shape_zyx, dtype=bool)
    row: Row = {}
    for name in case.structure_names:
        mask = case.mask(name)
        # A structure that the dose grid cuts has no dose as a whole: none is better than ingest's 0 Gy.
        inside = np.empty(0, dose.dtype) if case.lacks_dose(name) else dose[case.reach][mask[case.reach]]
        row[f"{name}_mean_gy"] = float(inside.mean(dtype=np.float64)) if inside.size else float("nan")
        prescribed = protocol.prescription_gy.get(name)
        if prescribed is not None:
            targets |= mask
            row |= _measure_target(name, inside, prescribed)
            row |= _measure_alone(case, dose, name, protocol.prescription_gy)
    beyond = case.body & ~targets
    row["dose_max_percent"] = 100.0 * float(dose.max()) / highest
    row["dose_body_mean_gy"] = float(dose[case.body].mean(dtype=np.float64)) if case.body.any() else float("nan")
    hottest = _hottest_gy(dose[beyond], case.grid.voxel_volume_cc)
    row["dose_beyond_targets_percent"] = 100.0 * hottest / highest
    stray = dose[~case.valid_dose]
    row["dose_outside_valid_max_gy"] = float(stray.max()) if stray.size else 0.0
    return row


def _measure_target(name: str, inside: NDArray[np.float32], prescribed_gy: float) -> Row:
    columns = ("d98_percent", "d95_percent", "d50_percent", "d2_percent")
    if not inside.size:
        return {f"{name}_{column}": float("nan") for column in (*columns, "v95_percent")}
    values = 100.0 * np.percentile(inside, (2.0, 5.0, 50.0, 98.0)) / prescribed_gy
    row: Row = {f"{name}_{column}": float(value) for column, value in zip(columns, values, strict=True)}
    row[f"{name}_v95_percent"] = 100.0 * float(np.mean(inside >= 0.95 * prescribed_gy))
    return row


def _measure_alone(case: Case, dose: NDArray[np.float32], name: str, prescription_gy: Mapping[str, float]) -> Row:
    """What a target gets beyond all hotter ones: where a plan has one level for all, it is theirs."""
    hotter = [one for one, dose_gy in prescription_gy.items() if dose_gy > prescription_gy[name]]
    if not hotter:
        return {}
    known = [case.mask(one) for one in hotter if one in case.structure_names]
    alone = case.mask(name) & ~np.logical_or.reduce([np.zeros_like(case.body), *known])
    inside = dose[case.reach][alone[case.reach]]
    is_told = inside.size * case.grid.voxel_volume_cc >= LEAST_ALONE_CC and not case.lacks_dose(name)
    median = 100.0 * float(np.median(inside)) / prescription_gy[name] if is_told else float("nan")
    return {f"{name}_beyond_hotter_percent": median}


def _hottest_gy(dose: NDArray[np.float32], voxel_cc: float) -> float:
    """Least dose of the hottest 2 cc."""
    count = max(1, round(HOT_SPOT_CC / voxel_cc))
    if dose.size < count:
        return float("nan")
    return float(np.partition(dose, dose.size - count)[dose.size - count])
