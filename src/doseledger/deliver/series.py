"""DICOM image series segmented by a trained model, as RTSTRUCT and DICOM SEG."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.files import sha256_of_file, write_json
from doseledger.core.pool.cluster import HERE
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.protocol import Protocol
from doseledger.deliver.masks import read_masks
from doseledger.deliver.nifti import RECORD, record_of, refuse_dose_model
from doseledger.deliver.structures import StructuresRequest, write_masks
from doseledger.dicom.read import gather_objects
from doseledger.dicom.read_image import read_image
from doseledger.dicom.source import lenient, malformed_as_bad_case, read_source, source_digest
from doseledger.ingest.nifti.case import assemble
from doseledger.ingest.nifti.volume import Volume
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.learn.data.inputs import open_case, save_case
from doseledger.learn.predict.predictor import Predictor

OBJECTS = ("rtstruct.dcm", "seg.dcm", "structures.json")


@dataclass(frozen=True)
class SeriesRequest:
    """How patients are segmented.

    Parameters
    ----------
    predictor
        A segmentation.
    protocol
        The one that its cases were ingested by: modality, and the grid that the model works on.
    """

    predictor: Predictor
    protocol: Protocol
    written: StructuresRequest


def segment_patients(
    sources: Mapping[str, Path], request: SeriesRequest, out: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return what became of every patient, after writing `<name>/rtstruct.dcm` (and `seg.dcm`) and a record of all.

    Parameters
    ----------
    sources
        Folder or zip of each patient by name: an image series, and whatever else is there, which is left alone.
    out
        Gets a folder a patient, and `segmentations.json`.

    Raises
    ------
    BadInput
        If the model is no segmentation.
    """
    refuse_dose_model(request.predictor)
    for path in (out / RECORD, *(out / name / file for name in sources for file in OBJECTS)):
        path.unlink(missing_ok=True)
    arguments = {name: (source, name, request, out / name) for name, source in sources.items()}
    outcome = over_cases(segment_patient, arguments, HERE, tell=tell)
    failed = {name: error.reason for name, error in outcome.failed.items()}
    record = record_of(request.predictor, outcome.done, failed) | {"protocol": request.protocol.name}
    write_json(out / RECORD, record)
    return record


def segment_patient(source: Path, name: str, request: SeriesRequest, out: Path) -> dict[str, Any]:
    """Return what is to be said of one patient's structures, after writing them on the image's own voxels.

    Raises
    ------
    BadCase
        If there is no single image series, it is not what the model was made for, or no structure is found on it.
    """
    digest = source_digest(source)
    case = case_of_series(source, Origin(name, sha256=digest), request.protocol)
    with tempfile.TemporaryDirectory(prefix="doseledger_") as folder:
        opened, prediction = open_case(save_case(case, Path(folder))), Path(folder) / "prediction.npz"
        request.predictor.save(prediction, opened, request.predictor.predict(opened))
        sha256, modality = sha256_of_file(prediction), request.protocol.modality
        found = replace(read_masks(prediction), knows_image=True, modality=modality)
    if not found.masks:
        names = ", ".join(found.absent)
        raise BadCase(name, f"nothing of {names} was found; is this the part of the body that the model was made for?")
    summary = write_masks(found, sha256, source, out, request.written)
    return {**summary, "source_sha256": digest, "warnings": [*case.meta["warnings"], *summary["warnings"]]}


def case_of_series(source: Path, origin: Origin, protocol: Protocol) -> Case:
    """Return the case of an image series alone, made as the protocol makes those with structures.

    Patients come here under their own names, and leave under them.

    Raises
    ------
    BadCase
        If there is no single image series, or it can't be one of the protocol's.
    """
    if protocol.source == "dicom":
        return convert_case(source, origin, _of_images(protocol))
    rules = protocol.model_copy(update={"patient": None})
    with lenient(), malformed_as_bad_case(origin.case_id):
        files, _ = read_source(source)
        slices = gather_objects(files, ["ct"], protocol.modality, origin.case_id).slices
        image = read_image(slices, origin.case_id)
    as_it_is = np.stack([np.arange(3.0), np.ones(3)], axis=1)
    volume = Volume(image.values, image.grid, 0.0, None, as_it_is)
    return assemble(volume, {}, origin, rules, {"source_sha256": origin.sha256})


def _of_images(protocol: Protocol) -> Protocol:
    """A protocol of DICOM that asks for the image and nothing else."""
    structures = [item.model_copy(update={"required": False}) for item in protocol.structures]
    without: dict[str, Any] = dict.fromkeys(("phi", "skip_when", "beams", "n_fractions"))
    without |= {"prescription_gy": {}, "body_names": []}
    return protocol.model_copy(update={"objects": ["ct"], "structures": structures, **without})


def describe_structures(record: Mapping[str, Any]) -> list[str]:
    """Return a line a structure of each patient: volume, what was cleaned; then what is odd."""
    lines = []
    for name, done in record["segmented"].items():
        for structure, row in done["structures"].items():
            if "reason" in row:
                lines.append(f"{name}: {structure} is left out: {row['reason']}")
            else:
                cleaned = f" ({row['cleaned']})" if row["cleaned"] else ""
                lines.append(f"{name}: {row['name']} {row['image_volume_cc']:.2f} cm³{cleaned}")
        lines += [f"{name}: {structure} was not found" for structure in done["absent"]]
        lines += [f"WARNING: {name}: {text}" for text in done["warnings"]]
    return lines
