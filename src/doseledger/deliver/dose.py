"""A patient's CT and RTSTRUCT to a predicted dose, as NPZ and RTDOSE.

Neither dose nor plan is needed, and neither is read: what the folder holds of them changes nothing. The files are the
clinic's own and so is the answer: the RTDOSE carries the patient's name, the NPZ nothing but the case's.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from doseledger.core.case import Case
from doseledger.core.code import code_digest
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import (
    all_or_none,
    atomic_path,
    sha256_of_bytes,
    sha256_of_json,
    write_json,
)
from doseledger.core.grid import Grid, resample_linear
from doseledger.core.pool.cluster import HERE
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.protocol import Beams, Protocol
from doseledger.core.types import Array, Tell
from doseledger.deliver.deliverable import refuse_undeliverable, undeliverable_gy
from doseledger.deliver.measured import Yardstick, measure_dose
from doseledger.deliver.patient import protocol_of_prediction as protocol_of_prediction
from doseledger.deliver.patient import roi_numbers
from doseledger.deliver.seen import SeenCases
from doseledger.dicom.read import CaseObjects, gather_objects
from doseledger.dicom.source import in_file, lenient, malformed_as_bad_case, read_source, source_digest
from doseledger.dicom.values import text_of
from doseledger.dicom.write.objects import to_bytes
from doseledger.dicom.write.prediction import PredictedBy, make_heading, make_predicted_dose, make_predicted_plan
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.ingest.physics import with_physics
from doseledger.ingest.raw import find_sources
from doseledger.learn.data.inputs import open_case, save_case
from doseledger.learn.predict.predictor import Predictor

RECORD_FILE, PAGE_FILE, PDF_FILE = "prediction.json", "report.html", "report.pdf"
# Writes a page and the same as PDF to two files; returns why the PDF is only a note, or nothing.
PageWriter = Callable[[Path, Path], str]
TARGET_DOSE = re.compile(r"^(?P<name>[^=]+)=(?P<gy>\d+(?:\.\d+)?)$")


@dataclass(frozen=True, eq=False)
class PredictedPatient:
    """A patient with the predicted dose: the case, what the model gave, and the record of both as JSON values."""

    case: Case
    arrays: Mapping[str, Array]
    record: dict[str, Any]


@dataclass(frozen=True)
class DicomRequest:
    """How patients are predicted.

    Parameters
    ----------
    protocol
        Of `protocol_of_prediction`.
    grid_mm
        Spacing of the RTDOSE's voxels along every axis in mm; None for the protocol's own grid.
    yardstick
        What each dose is measured with; None measures nothing.
    page
        From a patient to what writes the page and its PDF beside the dose; None writes none.
    origin
        What else the records say of model and code, as JSON values.
    """

    predictor: Predictor
    protocol: Protocol
    seen: SeenCases
    grid_mm: float | None
    bits: Literal[16, 32]
    yardstick: Yardstick | None = None
    page: Callable[[PredictedPatient], PageWriter] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def common(self) -> dict[str, Any]:
        """Return what the records of all patients say alike."""
        checkpoint = self.predictor.checkpoint
        return {
            "model": checkpoint.model,
            "epoch": checkpoint.epoch,
            "checkpoint_sha256": self.predictor.sha256,
            "program": version("doseledger"),
            "code_sha256": code_digest(__name__),
            **self.origin,
            "protocol": self.protocol.name,
            "protocol_sha256": sha256_of_json(self.protocol.model_dump(mode="json")),
            "prescription_gy": dict(self.protocol.prescription_gy),
            "n_fractions": self.protocol.n_fractions,
            "settings": self.predictor.settings,
            "seen_before_was_judged_by": self.seen.compared,
        }


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
    """Return what came of every patient, after writing each one's NPZ, DICOM, record and page.

    Parameters
    ----------
    out
        Gets `<name>.npz` and `<name>/`: `rtdose.dcm`, `rtplan.dcm`, `prediction.json`, `report.html`, `report.pdf`; of
        a patient who can't be predicted the record alone, with the reason.
    tell
        Takes a line a patient, and a line for each that the model has seen before.
    """
    for name in sources:
        for path in (*_places(out, name), *_papers(out, name)):
            path.unlink(missing_ok=True)
    arguments = {name: (source, name, request, out, tell) for name, source in sources.items()}
    outcome = over_cases(predict_patient, arguments, HERE, tell=tell)
    common = request.common()
    for name, error in outcome.failed.items():
        write_json(_papers(out, name)[0], {"case_id": name, **common, "failed": error.reason})
    failed = {name: error.reason for name, error in outcome.failed.items()}
    return {**common, "predicted": outcome.done, "failed": failed}


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
        placed = save_case(case, Path(folder))
        opened = open_case(with_physics(placed, request.predictor.checkpoint.beams, Path(folder)))
        arrays = request.predictor.predict(opened)
        arrays = _with_distance(case, arrays, request.protocol.beams)
        with malformed_as_bad_case(name):
            delivered = _dicom_of(case, arrays["dose_gy"], objects, request, digest)
        found = {
            **_numbers_of(case, arrays, request),
            "seen_before": seen,
            "warnings": case.meta["warnings"],
            "input_sha256": digest,
            "case_sha256": placed.sha256,
        }
        npz, *places = _places(out, name)
        record_file, *pages = _papers(out, name)
        record = {"case_id": name, **request.common(), **found}
        page = _page_of(PredictedPatient(case, arrays, record), request, tell)
        with all_or_none():
            for file, dataset in zip(places, delivered, strict=True):
                with atomic_path(file) as part:
                    part.write_bytes(to_bytes(dataset))
            request.predictor.save(npz, opened, arrays)
            write_json(record_file, record)
            if page and (note := page(*pages)):
                tell(f"WARNING: {name}: {note}")
    return found


def _with_distance(case: Case, arrays: Mapping[str, Array], beams: Beams | None) -> dict[str, Array]:
    """What was predicted, with its distance from what beams can give; refused where nothing could deliver it.

    A projected dose is one that beams give, and says itself how far the model's own was.
    """
    if beams is None or "undeliverable_gy" in arrays:
        return dict(arrays)
    apart_gy = undeliverable_gy(case, arrays["dose_gy"], beams)
    refuse_undeliverable(case, apart_gy, beams)
    return {**arrays, "undeliverable_gy": np.asarray(apart_gy)}


def _numbers_of(case: Case, arrays: Mapping[str, Array], request: DicomRequest) -> dict[str, Any]:
    """Highest dose, means of the targets, statistics, goals, and how far the model's own dose was from this one."""
    dose_gy, apart_gy = arrays["dose_gy"], arrays.get("undeliverable_gy")
    measured = {} if request.yardstick is None else measure_dose(case, arrays, request.protocol, request.yardstick)
    return {
        "highest_gy": round(float(dose_gy.max()), 3),
        "mean_gy": {target: round(float(dose_gy[case.mask(target)].mean()), 3) for target in case.prescription_gy},
        "undeliverable_gy": None if apart_gy is None else round(float(apart_gy), 3),
        **measured,
    }


def _page_of(patient: PredictedPatient, request: DicomRequest, tell: Tell) -> PageWriter | None:
    """None where no page is wanted, or the patient can't be drawn: the dose is written all the same."""
    if request.page is None:
        return None
    try:
        return request.page(patient)
    except BadCase as error:
        tell(f"WARNING: {patient.case.case_id}: no page: {error.reason}")
        return None


def _places(out: Path, name: str) -> tuple[Path, Path, Path]:
    return out / f"{name}.npz", out / name / "rtplan.dcm", out / name / "rtdose.dcm"


def _papers(out: Path, name: str) -> tuple[Path, Path, Path]:
    return out / name / RECORD_FILE, out / name / PAGE_FILE, out / name / PDF_FILE


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
