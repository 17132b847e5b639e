"""OpenKBP scores of folders: NPZ or CSV predictions against references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.text.lists import first_of
from doseledger.dosimetry.openkbp_scores import PatientScore, combine_scores, score_patient
from doseledger.evaluate.predictions import load_prediction
from doseledger.evaluate.refusals import refuse_seen
from doseledger.ingest.openkbp.files import Patient, read_dose_csv, read_patient


def score_openkbp(predictions: Path, reference: Path) -> dict[str, Any]:
    """Return the challenge's dose and DVH score of a folder of predictions, in Gy, and each patient's dose error.

    Parameters
    ----------
    predictions
        Folder of `pt_N.npz` as predict writes them, of `pt_N.csv` as the challenge asks for them, or of
        `pt_N/dose.csv`.
    reference
        Folder of cases (`pt_N.npz`), or of the challenge's patient folders, directly or in `*-pats` folders below.

    Returns
    -------
    dict
        `dose_score`, `dvh_score` (Gy), `n_patients`, `n_dvh_pairs` and `patients`: {pt_N: {dose_gy, dvh_gy}}.

    Raises
    ------
    BadInput
        If there is nothing to score, or a prediction and a reference stand alone, or do not fit each other.
    BadCase
        If a file breaks its contract, or the model was trained or selected on a case that it is scored on.
    """
    doses, references = _find(predictions, "predictions"), _find(reference, "references")
    alone = sorted(set(doses) ^ set(references))
    if not doses or alone:
        raise BadInput(
            f"{len(doses)} predictions in {predictions} and {len(references)} references in {reference}: "
            + (f"{first_of(alone, 8)} stand alone; both folders must hold the same patients" if alone else "none")
        )
    scores: dict[str, PatientScore] = {}
    for patient in sorted(doses):
        dose, possible, masks, voxel_mm3 = _load_reference(references[patient], patient)
        prediction = _load_dose(doses[patient], patient, references[patient])
        try:
            scores[patient] = score_patient(dose, prediction, masks, possible, voxel_mm3)
        except BadInput as error:
            raise BadInput(f"{patient}: {error}") from error
    total = combine_scores(list(scores.values()))
    return {
        "dose_score": total.dose_score_gy,
        "dvh_score": total.dvh_score_gy,
        "n_patients": total.n_patients,
        "n_dvh_pairs": total.n_dvh_pairs,
        "patients": {
            patient: {"dose_gy": score.dose_gy, "dvh_gy": float(np.mean(list(score.dvh_gy.values() or [np.nan])))}
            for patient, score in scores.items()
        },
    }


def _find(folder: Path, what: str) -> dict[str, Path]:
    """Return the file or folder of each patient, by name."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder of {what}")
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("pt_*"), *folder.glob("*-pats/pt_*")]):
        name = path.stem if path.suffix in (".npz", ".csv") else path.name
        if name in found:
            raise BadInput(f"{name} is there twice: {found[name]} and {path}; keep one")
        found[name] = path
    return found


def _load_reference(
    path: Path, patient: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_], dict[str, NDArray[np.bool_]], float]:
    """Return a reference's dose, possible-dose mask, masks and voxel volume in mm³."""
    source: Case | Patient
    if path.suffix == ".npz":
        source = case = Case.load(path)
        masks = {name: case.mask(name) for name in case.present_names}
        whole = case.grid.shape_zyx == case.full_shape_zyx
        if not whole:
            raise BadInput(f"{patient}: the case is cropped; the score is defined on the whole volume")
    else:
        source = read_patient(path, patient)
        masks = source.masks
    if source.dose_gy is None:
        raise BadInput(f"{patient}: the reference {path} has no dose")
    return source.dose_gy, source.valid_dose, masks, source.grid.voxel_volume_cc * 1000.0


def _load_dose(path: Path, patient: str, reference: Path) -> NDArray[np.float32]:
    """Return a predicted dose; one that knows what its model was trained on must not have seen the reference."""
    if path.suffix == ".npz":
        prediction = load_prediction(path)
        if reference.suffix == ".npz":
            refuse_seen(patient, sha256_of_file(reference), prediction.trained_on, prediction.selected_on)
        return prediction.dose_gy
    csv = path if path.suffix == ".csv" else path / "dose.csv"
    return read_dose_csv(csv, patient)
