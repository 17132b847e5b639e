"""A NIfTI image and its labels -> one Case without dose, in LPS."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, SkippedCase
from doseledger.core.files import sha256_of_json
from doseledger.core.grid import Grid, box_around, resample_linear
from doseledger.core.limit import keeps
from doseledger.core.project.protocol import Crop, Protocol
from doseledger.core.text.lists import first_of
from doseledger.core.types import Array, HuArray, Mask, Singles
from doseledger.dicom.distance import signed_distance
from doseledger.dicom.read_image import AIR_HU
from doseledger.ingest.body import fill_body
from doseledger.ingest.nifti.files import IMAGE, LABEL, label_names, read_case_files, structure_values, volume_digest
from doseledger.ingest.nifti.volume import Volume, read_volume
from doseledger.ingest.patient.case import Origin

# Raised when the same raw data give another case; part of every case's meta.
CONVERTER_VERSION = "nifti-1"
# An MR image has no unit: it is kept in thousandths of the way between these two of its own percentiles, so that images
# of any scanner's scale are alike. nnU-Net clips CT at the same two.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
STEPS = 1000.0
# A value that so large a part of the volume's faces has is what was put where nothing was scanned.
FILLED_SHARE = 0.05
# Among masks on their way to another grid: no structure has such a name.
SUPPORT = ""


def convert_case(source: Path, origin: Origin, protocol: Protocol) -> Case:
    """Return the case of one pair of image and label.

    Parameters
    ----------
    source
        As `nifti_files.find_volumes` gives it.
    origin
        Its name, which is its pseudonym too unless the protocol says whose it is, and what else is known of it.
    protocol
        Which structures there are, by label value, of which modality, and the grid they go onto.

    Raises
    ------
    SkippedCase
        If the protocol's `skip_when` covers it.
    BadCase
        If image or label is absent or unreadable, they don't lie on one grid, or the labels are none: not integers,
        not the data set's, empty.
    """
    case_id = origin.case_id
    image, label = read_pair(source, case_id)
    try:
        names = label_names(source)
        masks = read_labels(label, structure_values(protocol, names), names, case_id)
    except BadInput as error:
        raise BadCase(case_id, str(error)) from error
    _refuse_absent(masks, protocol, case_id)
    sha256 = origin.sha256 or sha256_of_pair(source, case_id)
    return assemble(image, masks, origin, protocol, {"source_sha256": sha256})


def sha256_of_pair(source: Path, case_id: str) -> str:
    """Return one digest of a case's files, whatever way they are packed."""
    return sha256_of_json(volume_digest(source, case_id))


def read_pair(source: Path, case_id: str) -> tuple[Volume, Volume]:
    """Return image and label of a case, which lie on one grid.

    Raises
    ------
    BadCase
        If one is absent or unreadable, or they lie on different grids.
    """
    files = read_case_files(source)
    for role, other in ((IMAGE, LABEL), (LABEL, IMAGE)):
        if role not in files:
            there = files[other][0] if other in files else "nothing"
            raise BadCase(case_id, f"no {role} beside {there}; copy it again, or take the case out")
    image, label = (read_volume(data, name, case_id) for name, data in (files[IMAGE], files[LABEL]))
    if image.grid.shape_zyx != label.grid.shape_zyx:
        raise BadCase(
            case_id,
            f"the image has {_xyz(image.grid.shape_zyx)} voxels along LPS, the label {_xyz(label.grid.shape_zyx)}; "
            "wanted one grid, draw on this image or resample the label to it",
        )
    if not image.grid.same_as(label.grid) or not keeps(abs(image.tilt_deg - label.tilt_deg), most=0.1):
        off_mm = float(np.abs(np.subtract(image.grid.extent_mm, label.grid.extent_mm)).max())
        mirrored = f", and its axes run {label.axes}, the image's {image.axes}" if image.axes != label.axes else ""
        raise BadCase(
            case_id,
            f"the label lies {off_mm:.2f} mm off the image by its affine{mirrored}; wanted one grid, find out which is "
            "right and copy it over",
        )
    return image, label


def _xyz(shape_zyx: tuple[int, ...]) -> str:
    return " × ".join(str(n) for n in shape_zyx[::-1])


def read_labels(label: Volume, values: dict[str, int], known: dict[int, str] | None, case_id: str) -> dict[str, Mask]:
    """Return the mask (z, y, x) of each structure by its label value.

    Parameters
    ----------
    values
        Label value of each structure.
    known
        All values that the data set has, with their names; None where nobody says, and `values` are all.

    Raises
    ------
    BadCase
        If a value is no integer or not known, or there is nothing but background.
    """
    whole = np.rint(label.values)
    if not np.array_equal(whole, label.values):
        odd = float(label.values[whole != label.values].flat[0])
        why = "it was interpolated or is no label"
        raise BadCase(case_id, f"the label holds {odd:g}, wanted integers: {why}; draw it again")
    found = {int(value) for value in np.unique(whole)} - {0}
    allowed = set(known) if known is not None else set(values.values())
    strangers = sorted(found - allowed)
    if strangers:
        raise BadCase(
            case_id,
            f"the label holds {first_of(strangers, 5)}; wanted 0 (background) and "
            f"{', '.join(map(str, sorted(allowed)))}. Add it to dataset.json or the protocol, or draw it again",
        )
    if not found:
        raise BadCase(case_id, "the label is empty: 0 everywhere; draw it, or take the case out")
    return {name: whole == value for name, value in values.items()}


def _refuse_absent(masks: dict[str, Mask], protocol: Protocol, case_id: str) -> None:
    absent = [name for name, mask in masks.items() if not mask.any()]
    rule = protocol.skip_when
    covered = [name for name in absent if rule and name in rule.any_absent]
    if rule and covered:
        raise SkippedCase(case_id, f"{rule.reason}: no voxel of {', '.join(covered)}")
    lacking = [name for name in absent if protocol.structure(name).required]
    if lacking:
        raise BadCase(
            case_id, f"no voxel of {', '.join(lacking)}; draw it, or make it optional (required: false) in the protocol"
        )


def assemble(
    image: Volume, masks: dict[str, Mask], origin: Origin, protocol: Protocol, further: dict[str, Any]
) -> Case:
    """Return a case of an image and the masks on its grid; a structure without a mask is absent.

    Parameters
    ----------
    masks
        (z, y, x) by structure.
    further
        What else its meta says.

    Raises
    ------
    BadCase
        If the image is tilted by more than the protocol allows, is one value, or has a value that no image has.
    """
    case_id = origin.case_id
    if not keeps(image.tilt_deg, most=protocol.most_tilt_deg):
        raise BadCase(
            case_id,
            f"the image is oblique: an axis is {image.tilt_deg:.1f}° off the patient's, the protocol allows "
            f"{protocol.most_tilt_deg:g}°; resample it to the patient's axes, or raise most_tilt_deg to keep its own",
        )
    support = find_support(image.values)
    stored, intensity = stored_image(image.values, support, protocol, case_id)
    grid = image.grid if protocol.spacing_mm == "native" else image.grid.resampled(protocol.spacing_mm)
    placed = {**masks, SUPPORT: support}
    if not grid.same_as(image.grid):
        outside = AIR_HU if protocol.modality == "CT" else 0.0
        stored = np.rint(resample_linear(stored, image.grid, grid, outside)).astype(np.int16)
        placed = {name: resample_linear(mask, image.grid, grid, 0.0) >= 0.5 for name, mask in placed.items()}
    body = fill_body(stored, case_id) if protocol.modality == "CT" else placed[SUPPORT]
    box = tuple(slice(0, n) for n in grid.shape_zyx)
    if isinstance(protocol.crop, Crop):
        z, y, x = (int(np.ceil(protocol.crop.margin_mm / step)) for step in grid.spacing_mm)
        box = box_around(body, (z, y, x))
    inside = (box[0], box[1], box[2])
    nothing = np.zeros(grid.shape_zyx, dtype=np.bool_)
    all_masks = [placed.get(name, nothing) for name in protocol.structure_names]
    kept = np.stack([mask[inside] for mask in all_masks])
    sdf_mm = np.stack([signed_distance(mask, grid, protocol.sdf_clip_mm)[inside] for mask in all_masks])
    seen = np.ascontiguousarray(body[inside])
    return Case(
        grid=grid.inside(inside),
        ct_hu=np.ascontiguousarray(stored[inside]),
        structure_names=protocol.structure_names,
        masks=kept,
        sdf_mm=sdf_mm,
        present=np.asarray(kept.any(axis=(1, 2, 3))),
        body=seen,
        valid_dose=seen,
        full_shape_zyx=grid.shape_zyx,
        crop_start_zyx=(inside[0].start, inside[1].start, inside[2].start),
        meta=_meta(image, origin, protocol, intensity) | further,
    )


def stored_image(values: Array, support: Mask, protocol: Protocol, case_id: str) -> tuple[HuArray, dict[str, float]]:
    """Return an image as a case keeps it, int16, and which of its values are 0 and 1000 there; of CT it is HU.

    Raises
    ------
    BadCase
        If it is one value everywhere, or no CT has such values.
    """
    most = float(np.iinfo(np.int16).max)
    low, high = (float(value) for value in np.percentile(values[support], (LOW_PERCENTILE, HIGH_PERCENTILE)))
    if protocol.modality == "CT":
        low, high = 0.0, STEPS
        if not keeps(float(np.abs(values).max()), most=most):
            found = f"{float(values.min()):.4g} to {float(values.max()):.4g}"
            raise BadCase(case_id, f"the image holds {found}, which is no CT in HU; export it with its rescale slope")
    if not high > low:
        raise BadCase(case_id, f"the image is {low:g} almost everywhere: it shows nothing; copy it again")
    steps: Singles = (np.asarray(values, dtype=np.float32) - np.float32(low)) / np.float32((high - low) / STEPS)
    return np.rint(np.clip(steps, -most, most)).astype(np.int16), {"low": low, "high": high}


def find_support(image: Array) -> Mask:
    """Return where an image (z, y, x) shows anything: everywhere but where its faces' filling value goes on inwards."""
    from scipy import ndimage

    faces = [side for axis in range(3) for side in (image.take(0, axis), image.take(-1, axis))]
    values, counts = np.unique(np.concatenate([face.ravel() for face in faces]), return_counts=True)
    filling = values[counts.argmax()]
    if counts.max() < FILLED_SHARE * counts.sum():
        return np.ones(image.shape, dtype=np.bool_)
    pieces, _ = ndimage.label(image == filling)
    outer = {int(n) for axis in range(3) for end in (0, -1) for n in np.unique(pieces.take(end, axis))} - {0}
    support: Mask = ~np.isin(pieces, sorted(outer))
    return support if support.any() else np.ones(image.shape, dtype=np.bool_)


def patient_of(case_id: str, protocol: Protocol) -> str:
    """Return whose a case is.

    Raises
    ------
    BadCase
        If the protocol's rule can't tell.
    """
    if protocol.patient is None:
        return case_id
    patient = protocol.patient.patient_of(case_id)
    if patient is None:
        raise BadCase(case_id, f"its name does not match patient.pattern {protocol.patient.pattern!r}: whose is it?")
    return patient


def _meta(image: Volume, origin: Origin, protocol: Protocol, intensity: dict[str, float]) -> dict[str, Any]:
    warnings = []
    if image.tilt_deg:
        warnings.append(f"the image is oblique by {image.tilt_deg:.1f}°: it is kept along its own axes")
    grid: Grid = image.grid
    return {
        "case_id": origin.case_id,
        "pseudonym": patient_of(origin.case_id, protocol),
        "group": origin.group,
        "site": origin.site,
        "modality": protocol.modality,
        "protocol": protocol.name,
        "converter": CONVERTER_VERSION,
        "body_source": "threshold" if protocol.modality == "CT" else "support",
        "aliases_used": {},
        "native_image_grid": {key: list(value) for key, value in asdict(grid).items()},
        "file_axes": image.axes,
        "tilt_deg": round(image.tilt_deg, 3),
        # What the file holds where the case holds 0 and 1000.
        "intensity": intensity,
        "warnings": warnings,
        "parity": {},
    }
