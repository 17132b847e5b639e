"""Calibration of drawn doses: a factor from validation, coverage on test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.tables import SPLITS, read_table, rows_of_fold
from doseledger.core.types import Tell
from doseledger.dosimetry.spread import (
    CaseSpread,
    calibration_curves,
    describe_spread,
    fit_factors,
    rank_shares,
    spread_against_error,
    summarise_calibration,
)
from doseledger.evaluate.predictions import load_prediction, load_samples
from doseledger.evaluate.refusals import load_unseen, refuse_unfit
from doseledger.evaluate.summary import DRAW_SEED

DECIMALS = 6


@dataclass(frozen=True)
class DrawnSets:
    """Where drawn doses lie, and of which cases.

    Parameters
    ----------
    val, test
        Folders of predictions: of the validation cases, which the factors are fitted on, and of the test cases, which
        they are judged on.
    """

    cases: Path
    splits: Path
    val: Path
    test: Path
    fold: int
    repeat: int


def calibrate_cohort(sets: DrawnSets, *, tell: Tell) -> dict[str, Any]:
    """Return the calibration of a diffusion on the test cases.

    Returns
    -------
    dict
        `summary`: numbers by name; `details`: curves, classes of spread, ranks and a row a case.

    Raises
    ------
    BadInput
        If a part has no cases, or the two parts come from different checkpoints.
    BadCase
        If a prediction can't be compared with its case, or the model has seen the case in training.
    """
    table = rows_of_fold(read_table(sets.splits, SPLITS), sets.fold, sets.repeat)
    found: dict[str, list[CaseSpread]] = {}
    checkpoints = set()
    for part, predictions in (("val", sets.val), ("test", sets.test)):
        rows = table[table["split"] == part]
        if rows.empty:
            raise BadInput(
                f"{sets.splits}: no {part} cases in fold {sets.fold}, repeat {sets.repeat}; calibration needs val and "
                "test"
            )
        found[part] = []
        for case_id, sha256 in zip(rows["case_id"], rows["sha256"], strict=True):
            files = sets.cases / f"{case_id}.npz", predictions / f"{case_id}.npz"
            spread, checkpoint = spread_of_files(*files, sha256, may_be_selected=part == "val")
            found[part].append(spread)
            checkpoints.add(checkpoint)
    if len(checkpoints) > 1:
        raise BadInput("the predictions of val and test come from different checkpoints; predict both again with one")
    factors = fit_factors(found["val"])
    summary = summarise_calibration(found["test"], factors, np.random.default_rng(DRAW_SEED))
    summary = {name: round(value, DECIMALS) for name, value in summary.items()}
    n_val, factor = len(found["val"]), factors.voxels[0.8]
    stretched = summary["coverage_80_voxels_stretched_percent"]
    tell(
        f"80 % intervals hold {summary['coverage_80_voxels_percent']:.1f} % of the voxels, "
        + (
            f"and are not stretched: {n_val} validation cases are too few, 5 are needed"
            if math.isnan(factor)
            else f"stretched by {factor:.2f} (from {n_val} validation cases) {stretched:.1f} %"
        )
    )
    details: dict[str, Any] = {
        "curves": calibration_curves(found["test"], factors),
        "spread_against_error": spread_against_error(found["test"]),
        "ranks": rank_shares(found["test"]),
        "cases": [
            {"case_id": case.case_id, "mae_gy": case.mae_gy, "expected_mae_gy": case.expected_mae_gy}
            for case in found["test"]
        ],
        "fitted_on": [case.case_id for case in found["val"]],
    }
    return {"summary": summary, "details": _rounded(details)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, DECIMALS) if isinstance(value, float) else value


def spread_of_files(
    case_path: Path, prediction_path: Path, sha256: str, *, may_be_selected: bool
) -> tuple[CaseSpread, str]:
    """Return what one case says of the spread of its drawn doses, and the SHA256 of the checkpoint that drew them.

    Parameters
    ----------
    sha256
        What the case's file must be, from the splits.
    may_be_selected
        Whether the case may be one that chose the epoch; one that was trained on never is.

    Raises
    ------
    BadCase
        If the two don't fit, or the model has seen the case.
    """
    prediction = load_prediction(prediction_path)
    case_id = prediction.case_id
    case = load_unseen(case_path, sha256, prediction, may_be_selected=may_be_selected)
    refuse_unfit(case, prediction.dose_gy, prediction.grid)
    samples_gy, sampled = load_samples(prediction_path)
    if sampled.shape != case.grid.shape_zyx or case.dose_gy is None:
        raise BadCase(case_id, f"doses were drawn on {sampled.shape} voxels, the case has {case.grid.shape_zyx}")
    masks = {name: case.mask(name)[sampled] for name in case.present_names if not case.lacks_dose(name)}
    return describe_spread(case_id, case.dose_gy[sampled], samples_gy, masks), prediction.checkpoint_sha256
