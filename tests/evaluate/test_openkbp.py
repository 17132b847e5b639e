"""OpenKBP scores of folders, on real patients: equal to the definitions written out in a few lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.project.protocol import load_protocol
from doseledger.evaluate.openkbp import score_openkbp
from doseledger.ingest.openkbp.case import convert_case
from doseledger.ingest.patient.case import Origin

CONSTANT_GY = 20.0
ORGANS = ["Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible"]


@pytest.fixture(scope="module")
def challenge(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real patients of each part, written out as the challenge does."""
    out = tmp_path_factory.mktemp("openkbp")
    script = shared_data / "openkbp" / "expand.py"
    subprocess.run([sys.executable, str(script), str(out), "--patients", "3"], check=True)
    return out


def dense(path: Path) -> np.ndarray:
    """A sparse CSV in the challenge's own axes, read by other means than the package's."""
    frame = pd.read_csv(path, index_col=0)
    flat = np.zeros(128**3)
    flat[frame.index] = 1.0 if frame["data"].isna().all() else frame["data"]
    return flat


def straight_scores(patients: list[Path], constant_gy: float) -> tuple[float, float]:
    """The definitions of the data set's README, one after the other, in the challenge's own axes."""
    dose_errors, dvh_errors = [], []
    for folder in patients:
        reference, possible = dense(folder / "dose.csv"), dense(folder / "possible_dose_mask.csv") > 0
        prediction = np.where(possible, constant_gy, 0.0)
        dose_errors.append(np.abs(reference - prediction).sum() / possible.sum())
        voxel_mm3 = np.loadtxt(folder / "voxel_dimensions.csv").prod()
        for roi in [*ORGANS, "PTV70", "PTV63", "PTV56"]:
            path = folder / f"{roi}.csv"
            inside = dense(path) > 0 if path.exists() else np.zeros(128**3, bool)
            if not inside.any():
                continue
            pair = []
            for dose in (reference[inside], prediction[inside]):
                if roi in ORGANS:
                    n = max(1, round(100 / voxel_mm3))
                    pair.append([np.percentile(dose, 100 - n / len(dose) * 100), dose.mean()])
                else:
                    pair.append([np.percentile(dose, 1), np.percentile(dose, 5), np.percentile(dose, 99)])
            dvh_errors += np.abs(np.subtract(*pair)).tolist()
    return float(np.mean(dose_errors)), float(np.nanmean(dvh_errors))


def write_constant(folder: Path, out: Path) -> None:
    index = np.flatnonzero(dense(folder / "possible_dose_mask.csv"))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(",data\n" + "".join(f"{i},{CONSTANT_GY}\n" for i in index))


def write_prediction(path: Path, case: Case, trained_on: list[str]) -> None:
    meta = {
        "case_id": case.case_id, "case_sha256": "0" * 64, "checkpoint_sha256": "1" * 64, "trained_on": trained_on,
        "selected_on": [],
    }  # fmt: skip
    arrays = {
        "dose_gy": np.where(case.valid_dose, CONSTANT_GY, 0.0).astype(np.float32),
        "spacing_mm": np.asarray(case.grid.spacing_mm),
        "origin_mm": np.asarray(case.grid.origin_mm),
        "meta": np.asarray(json.dumps(meta)),
    }
    write_npz(path, arrays)


def test_a_constant_prediction_scores_what_the_definitions_say(challenge: Path, tmp_path: Path) -> None:
    patients = sorted(challenge.glob("*-pats/pt_*"))
    for folder in patients:
        write_constant(folder, tmp_path / f"{folder.name}.csv")
    dose_score, dvh_score = straight_scores(patients, CONSTANT_GY)
    found = score_openkbp(tmp_path, challenge)
    assert found["n_patients"] == 6
    assert found["dose_score"] == pytest.approx(dose_score, abs=1e-5)
    assert found["dvh_score"] == pytest.approx(dvh_score, abs=1e-5)
    assert found["dose_score"] > 1.0


def test_cases_and_npz_predictions_score_the_same_as_csv(challenge: Path, tmp_path: Path, repository: Path) -> None:
    protocol = load_protocol(repository / "validation/cohorts/openkbp/protocol.yaml")
    folder = sorted((challenge / "validation-pats").glob("pt_*"))[0]
    case = convert_case(folder, Origin(folder.name), protocol)
    case.save(tmp_path / "cases" / f"{folder.name}.npz")
    (tmp_path / "predictions").mkdir()
    prediction = tmp_path / "predictions" / f"{folder.name}.npz"
    write_prediction(prediction, case, trained_on=[])
    write_constant(folder, tmp_path / "folders" / folder.name / "dose.csv")
    ours = score_openkbp(tmp_path / "predictions", tmp_path / "cases")
    mixed = score_openkbp(tmp_path / "folders", tmp_path / "cases")
    dose_score, dvh_score = straight_scores([folder], CONSTANT_GY)
    assert ours["dose_score"] == mixed["dose_score"] == pytest.approx(dose_score, abs=1e-5)
    assert ours["dvh_score"] == mixed["dvh_score"] == pytest.approx(dvh_score, abs=1e-5)
    write_prediction(prediction, case, trained_on=[sha256_of_file(tmp_path / "cases" / prediction.name)])
    with pytest.raises(BadCase, match="the model was trained on this case"):
        score_openkbp(tmp_path / "predictions", tmp_path / "cases")


def test_patients_that_stand_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "pt_2").mkdir(parents=True)
    with pytest.raises(BadInput, match="0 predictions"):
        score_openkbp(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "pt_1.csv").write_text(",data\n")
    with pytest.raises(BadInput, match="pt_1, pt_2 stand alone"):
        score_openkbp(tmp_path / "a", tmp_path / "b")
    with pytest.raises(BadInput, match="no such folder of references"):
        score_openkbp(tmp_path / "a", tmp_path / "c")
    (tmp_path / "a" / "pt_1.csv").rename(tmp_path / "a" / "pt_2.csv")
    (tmp_path / "b" / "pt_2" / "dose.csv").write_text(",data\n")
    with pytest.raises(BadCase, match="pt_2: no ct"):
        score_openkbp(tmp_path / "a", tmp_path / "b")
