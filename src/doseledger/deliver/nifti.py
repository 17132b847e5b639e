"""NIfTI images segmented by a trained model, on their own voxels."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import atomic_path, sha256_of_bytes, sha256_of_file, write_json
from doseledger.core.grid import Grid, resample_linear
from doseledger.core.pool.cluster import HERE
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.protocol import Protocol
from doseledger.core.types import Array, Tell
from doseledger.ingest.nifti.case import assemble
from doseledger.ingest.nifti.files import find_images, read_file
from doseledger.ingest.nifti.volume import Volume, read_volume
from doseledger.ingest.patient.case import Origin
from doseledger.learn.data.inputs import open_case, save_case
from doseledger.learn.predict.predictor import Predictor

RECORD = "segmentations.json"


def segment_images(predictor: Predictor, protocol: Protocol, source: Path, out: Path, tell: Tell) -> dict[str, Any]:
    """Return what became of each image of a file or folder, after writing a label volume for each.

    Parameters
    ----------
    predictor
        A segmentation.
    protocol
        How images are read: modality and grid; and which value each structure has in a label volume.
    source
        One `.nii` or `.nii.gz`, or a folder of them (or of `images`).
    out
        Folder that gets `<name>.nii.gz`, and `segmentations.json`: model, settings and digests.

    Raises
    ------
    BadInput
        If there is no image, or the model is no segmentation.
    """
    refuse_dose_model(predictor)
    _refuse_other_scale(protocol)
    images = find_images(source)
    (out / RECORD).unlink(missing_ok=True)
    arguments = {name: (path, name, predictor, protocol, out / f"{name}.nii.gz") for name, path in images.items()}
    outcome = over_cases(segment_image, arguments, HERE, tell=tell, note=_found)
    failed = {name: error.reason for name, error in outcome.failed.items()}
    record = record_of(predictor, outcome.done, failed)
    record["labels"] = label_values(predictor.checkpoint.structure_names, protocol)
    write_json(out / RECORD, record)
    return record


def segment_image(path: Path, name: str, predictor: Predictor, protocol: Protocol, out: Path) -> dict[str, Any]:
    """Return how many voxels each label of an image has, and the digests of both files, after writing its labels.

    Raises
    ------
    BadCase
        If the file is no image, or as `segment_volume`.
    """
    content = read_file(path)
    volume = read_volume(content, path.name, name)
    labels = segment_volume(predictor, protocol, volume, Origin(name))
    write_labels(out, labels, volume)
    voxels = {str(value): int(n) for value, n in zip(*np.unique(labels, return_counts=True), strict=True) if value}
    return {"voxels": voxels, "image_sha256": sha256_of_bytes(content), "label_sha256": sha256_of_file(out)}


def _found(labelled: Mapping[str, Any]) -> str:
    n_voxels = sum(labelled["voxels"].values())
    return f"{n_voxels} voxels labelled" if n_voxels else "nothing was found on it"


def refuse_dose_model(predictor: Predictor) -> None:
    """Refuse a model that says no label maps.

    Raises
    ------
    BadInput
        If it predicts a dose.
    """
    if not predictor.says_labels:
        raise BadInput(f"{predictor.checkpoint.model} predicts a dose; segment takes a model of kind segmentation")


def _refuse_other_scale(protocol: Protocol) -> None:
    if protocol.source == "dicom" and protocol.modality != "CT":
        raise BadInput(
            f"protocol {protocol.name} reads {protocol.modality} of DICOM in the scanner's units, which a NIfTI file "
            "need not keep; give the DICOM series"
        )


def record_of(predictor: Predictor, done: Mapping[str, Any], failed: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept of a run of `segment`: model, digest and settings, and what became of each image."""
    return {
        "model": predictor.checkpoint.model,
        "checkpoint_sha256": predictor.sha256,
        "settings": predictor.settings,
        "segmented": dict(done),
        "failed": dict(failed),
    }


def label_values(names: tuple[str, ...], protocol: Protocol) -> dict[str, int]:
    """Return the value of each structure in label volumes: the protocol's, else its place among them from 1 on."""
    known = {structure.name: structure.label for structure in protocol.structures}
    if all(known.get(name) for name in names):
        return {name: int(known[name] or 0) for name in names}
    return {name: place for place, name in enumerate(names, start=1)}


def segment_volume(predictor: Predictor, protocol: Protocol, volume: Volume, origin: Origin) -> Array:
    """Return the label volume of an image (z, y, x) on its own grid, uint8 or uint16, with the protocol's values.

    Raises
    ------
    BadCase
        If the image can't be one of the protocol's, or does not fit what the model was trained on.
    """
    # Whose an image is, is told by names of the cohort; this one is new.
    rules = protocol.model_copy(update={"patient": None})
    case = assemble(volume, {}, origin, rules, {"source_sha256": "0" * 64})
    with tempfile.TemporaryDirectory(prefix="segment_") as folder:
        arrays = predictor.predict(open_case(save_case(case, Path(folder))))
    names = tuple(str(name) for name in arrays["structure_names"])
    labels = on_image_grid(arrays["labels"], case, volume.grid, rules)
    values = label_values(names, protocol)
    table = np.asarray([0, *(values[name] for name in names)])
    return table.astype(np.uint8 if table.max() < 256 else np.uint16)[labels]


def on_image_grid(labels: Array, case: Case, image: Grid, protocol: Protocol) -> Array:
    """Return a case's label map on the grid of the image that it was made of.

    Notes
    -----
    On another grid each structure's mask is interpolated, and a voxel is the structure's that has most of it, if the
    structures have half of it together.
    """
    whole = np.zeros(case.full_shape_zyx, dtype=labels.dtype)
    whole[case.crop] = labels
    if protocol.spacing_mm == "native":
        return whole
    grid = image.resampled(protocol.spacing_mm)
    if grid.same_as(image):
        return whole
    most, best = np.zeros(image.shape_zyx, dtype=np.float32), np.zeros(image.shape_zyx, dtype=labels.dtype)
    together = np.zeros(image.shape_zyx, dtype=np.float32)
    for value in np.unique(labels[labels > 0]):
        share = resample_linear(whole == value, grid, image, 0.0)
        best[share > most] = value
        most, together = np.maximum(most, share), together + share
    best[together < 0.5] = 0
    return best


def write_labels(path: Path, labels: Array, volume: Volume) -> None:
    """Write a label volume with the header of its image: axes, affine, sform and qform with their codes, units.

    Equal labels give equal bytes.
    """
    import gzip

    import nibabel

    header = volume.header.copy()
    header.set_data_dtype(labels.dtype)
    header.set_slope_inter(1, 0)
    # nibabel finds the place behind this header by itself.
    header["cal_max"] = header["cal_min"] = header["vox_offset"] = 0
    turned = np.ascontiguousarray(volume.in_file_axes(labels))
    header.set_data_shape(turned.shape)
    kind: Any = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    content: bytes = kind(turned, header.get_best_affine(), header).to_bytes()
    with atomic_path(path) as part:
        part.write_bytes(gzip.compress(content, mtime=0))


def describe_failures(failed: Mapping[str, str]) -> str:
    """Return in one line which images were not segmented, and why."""
    return "not segmented: " + "; ".join(f"{name}: {why}" for name, why in failed.items())
