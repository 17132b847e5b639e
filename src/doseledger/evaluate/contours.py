"""Dose on predicted contours against dose on drawn ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.layout import ModelLayout
from doseledger.core.project.protocol import GoalSet
from doseledger.core.tables import SPLITS, read_table, rows_of_fold
from doseledger.core.types import Array, GyArray, Mask
from doseledger.dicom.distance import signed_distance
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.statistics import reached_dose
from doseledger.dosimetry.goals import GoalResult, evaluate_goals
from doseledger.evaluate.case import ABOVE_FRACTION, plan_dose
from doseledger.evaluate.predictions import LabelPrediction, load_labels, load_prediction
from doseledger.evaluate.refusals import load_unseen, refuse_unfit, require_unseen
from doseledger.evaluate.shortcuts.labels import mean_dice
from doseledger.evaluate.shortcuts.measure import predict_by

if TYPE_CHECKING:
    from doseledger.core.types import Tell
    from doseledger.learn.predict.predictor import Predictor

COVERAGE = "D95%"
DIGITS = 4


@dataclass(frozen=True)
class Loop:
    """What goes round: which dose model, which segmentation, and what the doses are judged by.

    Parameters
    ----------
    dose, segmentation
        Where the predictions of both models lie, of one cohort.
    """

    dose: ModelLayout
    segmentation: ModelLayout
    goals: GoalSet
    clip_mm: float
    fold: int
    repeat: int


def measure_contours(loop: Loop, predictor: Predictor, tell: Tell) -> dict[str, Any]:
    """Return how far the dose of each test case moves when it is predicted on predicted contours, as JSON.

    Structures that the segmentation does not say stay as they were drawn.

    Returns
    -------
    dict
        `checkpoint_sha256` and `contours_sha256` of both models, `contours_by`, `structures` that were put in, means
        of `summarise_contours`, and under `cases` the row of each.

    Raises
    ------
    BadInput
        If one of the models is not of its kind, or there is no test case.
    BadCase
        If a prediction of either is absent, stale or of a case that its model has seen.
    """
    if predictor.says_labels:
        raise BadInput(f"{loop.dose.name} says contours; name a dose model, whose dose on contours is asked for")
    mine = rows_of_fold(read_table(loop.dose.layout.splits, SPLITS), loop.fold, loop.repeat, "test")
    if mine.empty:
        raise BadInput(f"{loop.dose.layout.splits}: no test case in fold {loop.fold}, repeat {loop.repeat}")
    rows: dict[str, Any] = {}
    seen: set[str] = set()
    structures: tuple[str, ...] = ()
    for case_id, sha256 in sorted(zip(mine["case_id"], mine["sha256"], strict=True)):
        case, dose_gy, found = _load(loop, str(case_id), str(sha256), predictor.sha256)
        seen.add(found.checkpoint_sha256)
        structures = found.structure_names
        altered = with_contours(case, found, loop.clip_mm)
        moved_gy = predict_by(predictor)(altered)
        refuse_unfit(case, moved_gy, case.grid)
        dice = mean_dice(found.labels, case, structures)
        row = compare_case(case, altered, dose_gy, moved_gy, loop.goals)
        rows[case.case_id] = row | {"dice": dice if math.isfinite(dice) else None}
        tell(f"{case_id}: {row['mae_body_gy']:.2f} Gy in the body, {row['n_flipped']} of {row['n_goals']} goals flip")
    if len(seen) > 1:
        raise BadInput(f"the contours of {loop.segmentation.name} come from different checkpoints; predict them again")
    return {
        "model": loop.dose.name,
        "checkpoint_sha256": predictor.sha256,
        "contours_by": loop.segmentation.name,
        "contours_sha256": seen.pop(),
        "structures": list(structures),
        **summarise_contours(list(rows.values())),
        "cases": rows,
    }


def _load(loop: Loop, case_id: str, sha256: str, checkpoint: str) -> tuple[Case, GyArray, LabelPrediction]:
    """A test case, its dose on drawn contours, and its predicted contours."""
    path = loop.dose.layout.cases / f"{case_id}.npz"
    prediction = load_prediction(loop.dose.predictions / f"{case_id}.npz")
    found = load_labels(loop.segmentation.predictions / f"{case_id}.npz")
    require_unseen(path, sha256, found)
    case = load_unseen(path, sha256, prediction)
    if prediction.checkpoint_sha256 != checkpoint:
        raise BadCase(case_id, f"{loop.dose.name} predicted it with another checkpoint; predict it again")
    refuse_unfit(case, prediction.dose_gy, prediction.grid)
    if not found.grid.same_as(case.grid):
        raise BadCase(case_id, f"{loop.segmentation.name} segmented it on another grid; predict it again")
    strangers = [name for name in found.structure_names if name not in case.structure_names]
    if strangers:
        raise BadCase(case_id, f"has no {', '.join(strangers)}, which {loop.segmentation.name} segments")
    return case, prediction.dose_gy, found


def with_contours(case: Case, found: LabelPrediction, clip_mm: float) -> Case:
    """Return the case with predicted structures in place of its own: masks, distances and presence.

    Parameters
    ----------
    clip_mm
        At which distance those of the case are clipped.

    Notes
    -----
    Distances are taken on the grid before cropping, as ingest does: a crop's edge is no surface.
    """
    masks, sdf_mm = case.masks.copy(), case.sdf_mm.copy()
    whole = np.zeros(case.full_shape_zyx, dtype=np.bool_)
    for value, name in enumerate(found.structure_names, start=1):
        place = case.structure_names.index(name)
        masks[place] = found.labels == value
        whole[case.crop] = masks[place]
        sdf_mm[place] = signed_distance(whole, case.full_grid, clip_mm)[case.crop]
    return replace(case, masks=masks, sdf_mm=sdf_mm, present=np.asarray(masks.any(axis=(1, 2, 3))))


def compare_case(case: Case, altered: Case, drawn_gy: GyArray, moved_gy: GyArray, goals: GoalSet) -> dict[str, Any]:
    """Return how far the dose of a case moves with its contours.

    Parameters
    ----------
    drawn_gy, moved_gy
        Dose (z, y, x) that the model predicts on each.

    Returns
    -------
    dict
        `mae_body_gy` and `mae_above_10_percent_gy` (of the highest prescription, by the dose on drawn contours), of one
        dose from the other; `plan_mae_body_gy`, of each from the plan; `d95_gy`, by target on drawn contours with each
        dose; `n_goals`, and under `flipped` those that one dose meets and the other does not. Both doses are judged on
        the drawn contours; `seen_flipped` are those that flip for whoever judges the second dose on the predicted
        contours, that is without drawn ones.
    """
    off = np.abs(moved_gy - drawn_gy)
    high = drawn_gy > ABOVE_FRACTION * max(case.prescription_gy.values())
    doses = {"drawn": drawn_gy, "predicted": moved_gy}
    first, second, seen = (
        _judge(one, dose_gy, goals) for one, dose_gy in ((case, drawn_gy), (case, moved_gy), (altered, moved_gy))
    )
    return {
        "mae_body_gy": _mean(off, case.body),
        "mae_above_10_percent_gy": _mean(off, high & case.body),
        "plan_mae_body_gy": {who: _mean(np.abs(gy - plan_dose(case)), case.body) for who, gy in doses.items()},
        "d95_gy": {target: {who: _d95(case, target, gy) for who, gy in doses.items()} for target in _targets(case)},
        "n_goals": sum(result.met is not None for result in first),
        "n_flipped": len(_flips(first, second)),
        "flipped": _flips(first, second),
        "seen_flipped": _flips(first, seen),
    }


def _targets(case: Case) -> list[str]:
    return [name for name in case.prescription_gy if case.mask(name).any()]


def _mean(values: Array, mask: Mask) -> float | None:
    return round(float(values[mask].mean(dtype=np.float64)), DIGITS) if mask.any() else None


def _d95(case: Case, target: str, dose_gy: GyArray) -> float | None:
    samples = reached_dose(dose_gy, case.mask(target), case.grid.voxel_volume_cc, case.reach)
    value = samples.measure(parse_statistic(COVERAGE), case.prescription_gy[target], None).value
    return round(value, DIGITS) if math.isfinite(value) else None


def _judge(case: Case, dose_gy: GyArray, goals: GoalSet) -> list[GoalResult]:
    masks = {name: case.mask(name) for name in case.structure_names}
    return evaluate_goals(dose_gy, masks, case.grid.spacing_mm, case.prescription_gy, goals, case.reach)


def _flips(first: Sequence[GoalResult], second: Sequence[GoalResult]) -> list[dict[str, Any]]:
    """Goals that are met with one and not with the other, or can't be judged any more: the structure was not found."""
    return [
        {"goal": a.name, "gating": a.goal.gating, "drawn": _rounded(a.value), "predicted": _rounded(b.value)}
        for a, b in zip(first, second, strict=True)
        if a.met is not None and b.met is not a.met
    ]


def _rounded(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None


def summarise_contours(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over cases, the largest changes, and how many goals flip.

    Returns
    -------
    dict
        `n_cases`; the mean and the largest of `mae_body_gy` and `mae_above_10_percent_gy`; mean `plan_mae_body_gy` of
        both doses; by target, mean and largest absolute change of D95 in Gy; `n_goals`, `n_flipped`,
        `n_seen_flipped`, and how often each goal flips.
    """
    summary: dict[str, Any] = {"n_cases": len(rows)}
    for name in ("mae_body_gy", "mae_above_10_percent_gy", "dice"):
        values = [row[name] for row in rows if row.get(name) is not None]
        worst = min if name == "dice" else max
        summary[name] = round(float(np.mean(values)), DIGITS) if values else None
        summary[f"{name}_worst"] = worst(values) if values else None
    summary["plan_mae_body_gy"] = {
        who: round(float(np.mean([row["plan_mae_body_gy"][who] for row in rows])), DIGITS)
        for who in ("drawn", "predicted")
    }
    targets = dict.fromkeys(target for row in rows for target in row["d95_gy"])
    summary["d95_change_gy"] = {target: _change([row["d95_gy"].get(target) for row in rows]) for target in targets}
    summary["n_goals"] = sum(row["n_goals"] for row in rows)
    summary["n_flipped"] = sum(row["n_flipped"] for row in rows)
    summary["n_seen_flipped"] = sum(len(row["seen_flipped"]) for row in rows)
    summary["flips"] = dict(sorted(Counter(flip["goal"] for row in rows for flip in row["flipped"]).items()))
    return summary


def _change(pairs: Sequence[Mapping[str, float | None] | None]) -> dict[str, float] | None:
    changes = [
        pair["predicted"] - pair["drawn"]
        for pair in pairs
        if pair is not None and pair["predicted"] is not None and pair["drawn"] is not None
    ]
    if not changes:
        return None
    largest = max(changes, key=abs)
    return {"mean": round(float(np.mean(changes)), DIGITS), "largest": round(largest, DIGITS)}


def describe_contours(found: Mapping[str, Any]) -> list[str]:
    """Return what was measured in lines: how far the dose moves, the targets' D95, goals that flip.

    Examples
    --------
    >>> print(describe_contours({
    ...     "contours_by": "seg", "n_cases": 3, "mae_body_gy": 0.2, "mae_body_gy_worst": 0.3, "d95_change_gy":
    ...     {"PTV70": {"mean": -0.1, "largest": -0.4}}, "n_goals": 30, "n_flipped": 1, "n_seen_flipped": 2})[0])
    3 test cases on contours of seg: the dose moves by 0.20 Gy in the body in the mean, 0.30 Gy in the worst case
    """
    lines = [
        f"{found['n_cases']} test cases on contours of {found['contours_by']}: the dose moves by "
        f"{found['mae_body_gy']:.2f} Gy in the body in the mean, {found['mae_body_gy_worst']:.2f} Gy in the worst case"
    ]
    for target, change in found["d95_change_gy"].items():
        if change is not None:
            lines.append(f"D95% of {target}: {change['mean']:+.2f} Gy in the mean, {change['largest']:+.2f} at most")
    lines.append(
        f"{found['n_flipped']} of {found['n_goals']} goals flip on the drawn contours, "
        f"{found['n_seen_flipped']} for whoever sees the predicted ones alone"
    )
    return lines
