"""A patient's CT and RTSTRUCT to a predicted dose, as NPZ and RTDOSE.

Neither dose nor plan is needed, and neither is read: what the folder holds of them changes nothing. The files are the
clinic's own and so is the answer: the RTDOSE carries the patient's name, the NPZ nothing but the case's.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.fanout import run_cases
from doseledger.core.files import all_or_none, atomic_path, sha256_of_bytes, sha256_of_file, write_json
from doseledger.core.grid import Grid, resample_linear
from doseledger.core.protocol import Protocol
from doseledger.deliver.patient import protocol_of_prediction as protocol_of_prediction
from doseledger.deliver.patient import roi_numbers
from doseledger.deliver.seen import SeenCases
from doseledger.dicom.objects import to_bytes
from doseledger.dicom.read import CaseObjects, gather_objects
from doseledger.dicom.source import in_file, lenient, malformed_as_bad_case, read_source, source_digest
from doseledger.dicom.values import text_of
from doseledger.dicom.write_prediction import PredictedBy, make_heading, make_predicted_dose, make_predicted_plan
from doseledger.ingest.case import Origin, convert_case
from doseledger.ingest.physics import with_physics
from doseledger.ingest.raw import find_sources
from doseledger.learn.data.inputs import CaseFile, open_case
from doseledger.learn.predict.predictor import Predictor

SUMMARY_FILE = "predictions.json"
TARGET_DOSE = re.compile(r"^(?P<name>[^=]+)=(?P<gy>\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class DicomRequest:
    """How patients are predicted.

    Parameters
    ----------
    predictor
        The model, and how it predicts.
    protocol
        Of `protocol_of_prediction`.
    seen
        The cases that the model knows already.
    grid_mm
        Spacing of the RTDOSE's voxels along every axis in mm; None for the protocol's own grid.
    bits
        Bits of a stored value.
    """

    predictor: Predictor
    protocol: Protocol
    seen: SeenCases
    grid_mm: float | None
    bits: Literal[16, 32]


def read_prescription_options(options: list[str]) -> dict[str, float]:
    """Return the dose in Gy by target of options like `PTV70=70`.

    Raises
    ------
    BadInput
        If one is not of that form, or a target is named twice.
    """
    doses: dict[str, float] = {}
    for option in options:
        match = TARGET_DOSE.match(option.strip())
        if match is None or match["name"] in doses:
            raise BadInput(f"--prescription {option!r}: wanted TARGET=GY, each target once, for example PTV70=70")
        doses[match["name"]] = float(match["gy"])
    return doses


def predict_folder(
    sources: Mapping[str, Path], request: DicomRequest, out: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return what came of every patient, after writing each one's NPZ and DICOM and `predictions.json`.

    Parameters
    ----------
    sources
        Folder or zip of each patient by name.
    out
        Gets `<name>.npz` and `<name>/rtdose.dcm`, `<name>/rtplan.dcm`: all three, or nothing of a patient who can't be
        predicted.
    tell
        Takes a line a patient, and a line for each that the model has seen before.
    """
    for path in (out / SUMMARY_FILE, *(path for name in sources for path in _places(out, name))):
        path.unlink(missing_ok=True)
    arguments = {name: (source, name, request, out, tell) for name, source in sources.items()}
    outcome = run_cases(predict_patient, arguments, workers=0, tell=tell)
    summary = {
        "model": request.predictor.checkpoint.model,
        "checkpoint_sha256": request.predictor.sha256,
        "protocol": request.protocol.name,
        "prescription_gy": dict(request.protocol.prescription_gy),
        "n_fractions": request.protocol.n_fractions,
        "settings": request.predictor.settings,
        "seen_before_was_judged_by": request.seen.compared,
        "predicted": outcome.done,
        "failed": {name: error.reason for name, error in outcome.failed.items()},
    }
    write_json(out / SUMMARY_FILE, summary)
    return summary


def find_patients(folder: Path, *, batch: bool) -> dict[str, Path]:
    """Return the folder or zip of each patient by name: one, or with `batch` every folder and zip below.

    Raises
    ------
    BadInput
        If it is not there.
    """
    if batch:
        return find_sources(folder)
    if not folder.exists():
        raise BadInput(f"{folder}: no such folder or zip of a patient")
    whole = folder.resolve()
    return {whole.name if whole.is_dir() else whole.stem: whole}


def predict_patient(
    source: Path, name: str, request: DicomRequest, out: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return what is to be said of one patient's predicted dose, after writing it.

    Raises
    ------
    BadCase
        If image and structures do not suffice, or are not what the model was made for.
    """
    digest = source_digest(source)
    case = convert_case(source, Origin(name, sha256=digest), request.protocol)
    with lenient(), tempfile.TemporaryDirectory(prefix="doseledger_") as folder:
        files, _ = read_source(source)
        with malformed_as_bad_case(name):
            objects = gather_objects(files, request.protocol.objects, request.protocol.modality, name)
            patient_id = text_of(objects.slices[0], "PatientID")
        seen = request.seen.matches(case, patient_id)
        for note in seen:
            tell(f"WARNING: {name}: {note}")
        path = Path(folder) / f"{name}.npz"
        case.save(path)
        placed = CaseFile(name, path, sha256_of_file(path))
        opened = open_case(with_physics(placed, request.predictor.checkpoint.beams, Path(folder)))
        arrays = request.predictor.predict(opened)
        dose_gy: NDArray[np.float32] = arrays["dose_gy"]
        with malformed_as_bad_case(name):
            delivered = _dicom_of(case, dose_gy, objects, request, digest)
        npz, *places = _places(out, name)
        with all_or_none():
            for file, dataset in zip(places, delivered, strict=True):
                with atomic_path(file) as part:
                    part.write_bytes(to_bytes(dataset))
            request.predictor.save(npz, opened, arrays)
    targets = {target: float(dose_gy[case.mask(target)].mean()) for target in case.prescription_gy}
    return {
        "highest_gy": round(float(dose_gy.max()), 3),
        "mean_gy": {target: round(mean, 3) for target, mean in targets.items()},
        "seen_before": seen,
        "warnings": case.meta["warnings"],
    }


def _places(out: Path, name: str) -> tuple[Path, Path, Path]:
    return out / f"{name}.npz", out / name / "rtplan.dcm", out / name / "rtdose.dcm"


def _dicom_of(
    case: Case, dose_gy: NDArray[np.float32], objects: CaseObjects, request: DicomRequest, digest: str
) -> tuple[Dataset, Dataset]:
    """The plan without beams and the dose, in the order in which they are written."""
    if objects.rtstruct is None:
        raise BadCase(case.case_id, "no RTSTRUCT among the files; export the patient whole")
    written_gy, grid = dose_on_grid(case, dose_gy, request.grid_mm)
    model = request.predictor
    by = PredictedBy(model.checkpoint.model, model.sha256, version("doseledger"))
    # Another dose, model or setting is another object, and needs another UID.
    what = sha256_of_bytes(np.ascontiguousarray(written_gy).tobytes())
    key = f"{digest}/{model.sha256}/{what}/{request.bits}"
    numbers = roi_numbers(objects.rtstruct, request.protocol, case.case_id)
    prescribed = {numbers[target]: gy for target, gy in case.prescription_gy.items()}
    with in_file(objects.slices[0], case.case_id):
        heading = make_heading(objects.slices[0], by, key=key, case_id=case.case_id)
        plan = make_predicted_plan(heading, objects.rtstruct, prescribed, case.n_fractions)
        return plan, make_predicted_dose(heading, written_gy, grid, plan=plan, bits=request.bits)


def dose_on_grid(case: Case, dose_gy: NDArray[np.float32], grid_mm: float | None) -> tuple[NDArray[np.float32], Grid]:
    """Return the dose in Gy (z, y, x) over the whole image, not only the case's crop, and its grid.

    Parameters
    ----------
    dose_gy
        Dose on the case's grid, 0 outside the body.
    grid_mm
        Voxel spacing wanted along every axis; None keeps the case's voxels, and every value as it is.

    Notes
    -----
    Interpolation takes its mean over the voxels of the body alone: with the zeros of the air beside them, the dose
    under the skin would fall by up to a half. A voxel is inside where half of what it was drawn from is.
    """
    grid, place = case.full_grid, case.crop
    full_gy = np.zeros(grid.shape_zyx, dtype=np.float32)
    full_gy[place] = dose_gy
    if grid_mm is None:
        return full_gy, grid
    body = np.zeros(grid.shape_zyx, dtype=np.float32)
    body[place] = case.body
    wanted = grid.resampled((grid_mm, grid_mm, grid_mm))
    share = resample_linear(body, grid, wanted, 0.0)
    sums_gy = resample_linear(full_gy, grid, wanted, 0.0)
    inside = share >= 0.5
    return np.where(inside, sums_gy / np.maximum(share, np.float32(0.5)), np.float32(0.0)), wanted
