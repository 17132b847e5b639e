"""Metrics of a test set's segmentations: tables and summary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.files import write_json, write_text
from doseledger.core.pool.cluster import HERE, Scale
from doseledger.core.settings import EvaluateSettings
from doseledger.core.tables import DVH_METRICS, GOAL_METRICS, SEGMENT_METRICS, write_table
from doseledger.core.types import Tell
from doseledger.dosimetry.intervals import bootstrap_interval
from doseledger.evaluate.cohort import DECIMALS, TestSet, measure_cases, write_rows
from doseledger.evaluate.overlap import MORE_IS_BETTER, masks_of, mean_overlap, measure_of, measure_overlap
from doseledger.evaluate.predictions import LabelPrediction, load_labels
from doseledger.evaluate.refusals import load_unseen
from doseledger.evaluate.summary import DETAILS, DRAW_SEED, SUMMARY, WORST_PART

NO_GAMMA = "none.txt"
# What cases are ranked by.
RANKED_BY_OVERLAP = "dice"
HEADLINE = ("n_cases", "dice", "iou", "hd95_mm", "surface_dice")
# Limits of agreement hold 95 % of differences (Bland & Altman, Lancet 327:307, 1986).
AGREEMENT_SPREADS = 1.96


def evaluate_segmentations(
    test_set: TestSet,
    out: Path,
    settings: EvaluateSettings,
    *,
    gamma_out: Path | None = None,
    scale: Scale = HERE,
    tell: Tell,
) -> dict[str, Any]:
    """Return all numbers of a model's segmentations, after writing `cases.csv`, `details.json` and `summary.json`.

    `dvh.csv` and `goals.csv` are written without rows, and `gamma_out` gets a note in place of maps: all kinds of model
    write the same files.

    Parameters
    ----------
    test_set, out, scale, tell
        As `cohort.evaluate_cohort` takes them.
    settings
        Tolerance of surfaces.

    Raises
    ------
    BadInput
        If there are no cases, or naming each one that can't be compared and why.
    """
    rows = measure_cases(evaluate_case_labels, test_set, settings, scale, tell)
    details = summarise_segmentations(rows, np.random.default_rng(DRAW_SEED))
    details = {key: round(value, DECIMALS) if isinstance(value, float) else value for key, value in details.items()}
    write_rows(out / "cases.csv", rows, SEGMENT_METRICS)
    for name, schema in (("dvh.csv", DVH_METRICS), ("goals.csv", GOAL_METRICS)):
        write_table(out / name, pd.DataFrame(columns=list(schema.columns)), schema)
    write_json(out / DETAILS, details)
    write_json(out / SUMMARY, {name: details[name] for name in HEADLINE if details.get(name) is not None})
    if gamma_out is not None:
        # DVC warns of an empty folder each time it sees one.
        write_text(gamma_out / NO_GAMMA, "Label maps have no gamma.\n")
    return details


def evaluate_case_labels(
    case_path: Path, prediction_path: Path, sha256: str, settings: EvaluateSettings
) -> dict[str, Any]:
    """Return what one segmentation is worth: a row of `core.tables.SEGMENT_METRICS`.

    Parameters
    ----------
    sha256
        What the case's file must be, from the splits.
    settings
        Tolerance of surfaces.

    Raises
    ------
    BadCase
        If the prediction can't be compared with the case honestly.
    """
    found = load_labels(prediction_path)
    case = load_unseen(case_path, sha256, found)
    measured = measure_labels(case, found, settings.surface_tolerance_mm)
    row: dict[str, Any] = {
        "case_id": found.case_id,
        "case_sha256": sha256,
        "checkpoint_sha256": found.checkpoint_sha256,
        "surface_tolerance_mm": settings.surface_tolerance_mm,
        **mean_overlap(list(measured.values())),
    }
    for name, values in measured.items():
        row |= {f"{measure}_{name}": value for measure, value in values.items()}
    for name, (ours, theirs) in zip(found.structure_names, volumes_cc(case, found), strict=True):
        row |= {f"volume_cc_reference_{name}": theirs, f"volume_cc_prediction_{name}": ours}
    return row


def measure_labels(case: Case, found: LabelPrediction, tolerance_mm: float) -> dict[str, dict[str, float]]:
    """Return each measure of each structure that a model says, by structure.

    Raises
    ------
    BadCase
        If the prediction lies on another grid, or the case has no such structure.
    """
    if not found.grid.same_as(case.grid):
        raise BadCase(case.case_id, f"segmented on {found.grid}, the case lies on {case.grid}; predict it again")
    strangers = [name for name in found.structure_names if name not in case.structure_names]
    if strangers:
        raise BadCase(case.case_id, f"has no {', '.join(strangers)}, which the model segments; predict it again")
    masks = masks_of(found.labels, len(found.structure_names))
    return {
        name: measure_overlap(mask, case.mask(name), case.grid.spacing_mm, tolerance_mm)
        for name, mask in zip(found.structure_names, masks, strict=True)
    }


def volumes_cc(case: Case, found: LabelPrediction) -> list[tuple[float, float]]:
    """Return the volume of each structure in cc: as segmented, and as drawn."""
    voxel_cc = case.grid.voxel_volume_cc
    return [
        (float(mask.sum()) * voxel_cc, float(case.mask(name).sum()) * voxel_cc)
        for name, mask in zip(found.structure_names, masks_of(found.labels, len(found.structure_names)), strict=True)
    ]


def summarise_segmentations(rows: Sequence[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    """Return flat, JSON-ready figures of a test set.

    Returns
    -------
    dict
        For every measure, over all structures and of each: the mean over cases under its own name, the ends of its 95 %
        interval as `…_low` and `…_high`, the worst as `…_worst`. Of each structure the mean difference of its volume
        from the one drawn, `volume_bias_cc_…`, with limits of agreement. The names of the worst case and the worst
        tenth by Dice. None stands for a number that there is not.
    """
    ordered = sorted(rows, key=lambda row: str(row["case_id"]))
    summary: dict[str, Any] = {"n_cases": len(ordered)}
    for column in ordered[0]:
        measure = measure_of(column)
        if measure is None:
            continue
        values = np.asarray([row[column] for row in ordered], dtype=np.float64)
        known = values[~np.isnan(values)]
        worst = np.min if measure in MORE_IS_BETTER else np.max
        summary[column] = float(known.mean()) if len(known) else math.nan
        summary[f"{column}_low"], summary[f"{column}_high"] = bootstrap_interval(values, rng)
        summary[f"{column}_worst"] = float(worst(known)) if len(known) else math.nan
    for name in structures_of(ordered[0]):
        found, drawn = (
            np.asarray([row[f"volume_cc_{who}_{name}"] for row in ordered]) for who in ("prediction", "reference")
        )
        summary |= {f"{key}_{name}": value for key, value in agreement(found, drawn).items()}
    ranked = sorted(ordered, key=lambda row: -1.0 if math.isnan(row[RANKED_BY_OVERLAP]) else row[RANKED_BY_OVERLAP])
    names = [str(row["case_id"]) for row in ranked[: max(1, math.ceil(WORST_PART * len(ranked)))]]
    summary |= {"worst_case": names[0], "worst_decile": ", ".join(names)}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in summary.items()}


def agreement(found: np.ndarray[Any, Any], drawn: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the mean difference of volumes in cc, and the limits that hold 95 % of differences (Bland & Altman)."""
    difference = found - drawn
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else math.nan
    bias = float(difference.mean())
    return {
        "volume_bias_cc": bias,
        "volume_agreement_low_cc": bias - AGREEMENT_SPREADS * spread,
        "volume_agreement_high_cc": bias + AGREEMENT_SPREADS * spread,
    }


def structures_of(row: Any) -> list[str]:
    """Return the structures that a row of cases.csv has, in order."""
    prefix = f"{RANKED_BY_OVERLAP}_"
    return [str(name).removeprefix(prefix) for name in row if str(name).startswith(prefix)]
