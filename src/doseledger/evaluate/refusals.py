"""Predictions that are never measured: another case's, or of seen patients."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.files import sha256_of_file
from doseledger.core.grid import Grid
from doseledger.core.limit import keeps
from doseledger.evaluate.predictions import LabelPrediction, Prediction


def refuse_changed(case_id: str, path: Path, sha256: str) -> None:
    """Refuse a case whose file is not the one that was split.

    Raises
    ------
    BadCase
        If the file is absent, or its SHA256 is not the one in the splits.
    """
    found = sha256_of_file(path) if path.is_file() else "absent"
    if found != sha256:
        raise BadCase(case_id, f"{path.name} is {found[:12]}, the splits say {sha256[:12]}; run ingest and split")


def load_unseen(
    path: Path, sha256: str, prediction: Prediction | LabelPrediction, *, may_be_selected: bool = False
) -> Case:
    """Return the case that a prediction is of, one that its model has not seen.

    Raises
    ------
    BadCase
        As `require_unseen`.
    """
    require_unseen(path, sha256, prediction, may_be_selected=may_be_selected)
    return Case.load(path)


def require_unseen(
    path: Path, sha256: str, prediction: Prediction | LabelPrediction, *, may_be_selected: bool = False
) -> None:
    """Do nothing if a prediction is of a case, as it is in the splits, that its model has not seen.

    Parameters
    ----------
    path, sha256
        The case's NPZ, and what its SHA256 must be by the splits.
    prediction
        Its predicted dose or labels.
    may_be_selected
        Whether the case may be one that chose the epoch; one that was trained on never is.

    Raises
    ------
    BadCase
        If the case or the prediction is not of these splits, or the model has seen the case.
    """
    case_id = prediction.case_id
    refuse_changed(case_id, path, sha256)
    if prediction.case_sha256 != sha256:
        raise BadCase(
            case_id, f"the prediction is of the case as it was ({prediction.case_sha256[:12]}…); predict it again"
        )
    refuse_seen(case_id, sha256, prediction.trained_on, () if may_be_selected else prediction.selected_on)


def refuse_unfit(case: Case, prediction_gy: NDArray[Any], grid: Grid) -> None:
    """Refuse a prediction that can't be compared with its case.

    Raises
    ------
    BadCase
        If the case has no finite dose and prescription, or the prediction lies on another grid, is not finite, or is
        negative.
    """
    if case.dose_gy is None or not case.prescription_gy:
        raise BadCase(case.case_id, "the case has no plan dose or no prescription to compare with; evaluate needs both")
    if not np.isfinite(case.dose_gy).all() or not all(keeps(gy, least=0.0) for gy in case.prescription_gy.values()):
        raise BadCase(case.case_id, "the plan's dose or prescription is not finite; ingest the case again")
    if not grid.same_as(case.grid) or prediction_gy.shape != case.grid.shape_zyx:
        raise BadCase(
            case.case_id,
            f"the prediction lies on another grid: {prediction_gy.shape} voxels of {grid.spacing_mm} mm from "
            f"{grid.origin_mm}, the case has {case.grid.shape_zyx} of {case.grid.spacing_mm} mm from "
            f"{case.grid.origin_mm}; predict this case again",
        )
    n_bad = int(np.count_nonzero(~np.isfinite(prediction_gy)))
    if n_bad:
        raise BadCase(case.case_id, f"the prediction is not finite in {n_bad} voxels; look at the checkpoint")
    if prediction_gy.min() < 0:
        raise BadCase(case.case_id, f"the prediction goes down to {prediction_gy.min():.3f} Gy; a dose is not negative")


def refuse_seen(case_id: str, case_sha256: str, trained_on: Collection[str], selected_on: Collection[str]) -> None:
    """Refuse to score a model on a case that it has seen.

    Parameters
    ----------
    trained_on, selected_on
        SHA256 of the cases that the weights were fitted to, and of those that chose among them.

    Raises
    ------
    BadCase
        If the case is among them: its score would flatter the model.
    """
    for seen, how in ((trained_on, "was trained on this case"), (selected_on, "was selected on this case")):
        if case_sha256 in seen:
            raise BadCase(
                case_id,
                f"the model {how} (SHA256 {case_sha256[:12]}…), so its score says nothing; evaluate on cases that are "
                "in neither train nor val of the split it was trained with",
            )
