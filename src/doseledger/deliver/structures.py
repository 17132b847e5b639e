"""Masks of a case or prediction as RTSTRUCT and DICOM SEG, beside their image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydicom import Dataset

from doseledger.core.cleaning import Cleaning, clean
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import all_or_none, atomic_path, sha256_of_file, write_json
from doseledger.core.grid import Grid
from doseledger.core.limit import keeps
from doseledger.deliver.masks import MaskSet, check_image, mask_on_image, read_masks
from doseledger.deliver.structure_objects import ImageSeries, Structure, contoured, segmented, sign, study_of
from doseledger.dicom.read import gather_objects
from doseledger.dicom.read_image import arrange_slices, read_image, read_image_grid
from doseledger.dicom.source import in_file, lenient, malformed_as_bad_case, read_source
from doseledger.dicom.structure_names import describe
from doseledger.dicom.values import text_of
from doseledger.dicom.write.objects import to_bytes
from doseledger.dicom.write.segmentation import Frames

Format = Literal["rtstruct", "seg"]
FORMATS: tuple[Format, ...] = get_args(Format)
EVERY = "all"
# A volume that another grid changes by more than this is worth a word.
WORTH_A_WORD_PERCENT = 1.0


@dataclass(frozen=True)
class StructuresRequest:
    """What is written of a set of masks, and how.

    Parameters
    ----------
    formats
        RTSTRUCT, DICOM SEG, or both.
    only
        These structures alone, by the names that the masks have; empty for all.
    largest_part, fill_holes
        Names of structures that are cleaned so; `all` for each of them.
    own_names
        Whether structures keep their names where TG-263 has others.
    identity
        Whether the patient's name, dates and the like are copied from an image that names a person.
    """

    formats: tuple[Format, ...] = FORMATS
    only: tuple[str, ...] = ()
    largest_part: tuple[str, ...] = ()
    fill_holes: tuple[str, ...] = ()
    own_names: bool = False
    identity: bool = False


def write_structures(masks: Path, images: Path, out: Path, request: StructuresRequest) -> dict[str, Any]:
    """Return what became of each structure, after writing `rtstruct.dcm`, `seg.dcm` and `structures.json`.

    Parameters
    ----------
    masks
        NPZ of a case, or of a prediction that holds masks.
    images
        Folder or zip with the image series that they were made from; whatever else is there is left alone.

    Returns
    -------
    dict
        `structures`: by the cohort's name `name`, `volume_cc` (of the mask, cleaned), `image_volume_cc` (on the
        image's voxels), `written_volume_cc` (of its contours, read back) and `cleaned`; or `reason`, where it can't be
        written. `absent`, `files`, `warnings`, `identity`.

    Raises
    ------
    BadCase
        If masks or image can't be read, don't belong together, or no structure can be written.
    BadInput
        If the request names what is not there.
    """
    return write_masks(read_masks(masks), sha256_of_file(masks), images, out, request)


def write_masks(found: MaskSet, sha256: str, images: Path, out: Path, request: StructuresRequest) -> dict[str, Any]:
    """Return what became of each mask of a set, after writing it: `write_structures` of masks in memory."""
    wanted = _wanted(found, request)
    with lenient(), malformed_as_bad_case(found.case_id):
        image = _read_image(images, found)
        structures, reasons = _placed(wanted, image.grid, request)
        first = image.first
        with in_file(first, found.case_id):
            shares = request.identity or _is_pseudonymous(first, found)
            study = study_of(first, found, structures, (sha256, shares))
            objects: dict[str, Dataset] = {}
            written: dict[str, float] = {}
            if "rtstruct" in request.formats:
                structures, written, dataset = contoured(structures, study, image, found, reasons)
                objects["rtstruct"] = dataset
            if "seg" in request.formats:
                objects["seg"] = segmented(structures, study, image, found)
            for dataset in objects.values():
                sign(dataset, first, found, shares)
    summary = _summary(found, structures, written, image.grid) | {
        "files": [f"{kind}.dcm" for kind in objects],
        "identity": "as in the image" if shares else "PatientID alone",
    }
    summary["structures"] |= {name: {"reason": reason} for name, reason in reasons.items()}
    with all_or_none():
        for kind, dataset in objects.items():
            with atomic_path(out / f"{kind}.dcm") as part:
                part.write_bytes(to_bytes(dataset))
        write_json(out / "structures.json", summary)
    for name in set(FORMATS) - set(objects):
        (out / f"{name}.dcm").unlink(missing_ok=True)
    return summary


def check_formats(names: list[str]) -> tuple[Format, ...]:
    """Return the formats of that name, each once; all where none is named.

    Raises
    ------
    BadInput
        If there is no such format.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise BadInput(f"--format {unknown[0]!r}: wanted {' or '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names or not names)


def _wanted(found: MaskSet, request: StructuresRequest) -> MaskSet:
    """The masks that were asked for."""
    asked = {*request.only, *request.largest_part, *request.fill_holes} - {EVERY}
    unknown = sorted(asked - set(found.masks) - set(found.absent))
    if unknown:
        raise BadInput(f"{found.case_id}: no structure {', '.join(unknown)}; there are {', '.join(found.masks)}")
    masks = {name: mask for name, mask in found.masks.items() if not request.only or name in request.only}
    if not masks:
        raise BadCase(found.case_id, "none of the structures that were asked for is there; nothing is written")
    return replace(found, masks=masks)


def _read_image(images: Path, found: MaskSet) -> ImageSeries:
    files, _ = read_source(images)
    slices = gather_objects(files, ["ct"], found.modality, found.case_id).slices
    planes, stack, _ = arrange_slices(slices, found.case_id)
    if found.ct_hu is None:
        grid = read_image_grid(slices, found.case_id)
        check_image(found, np.zeros(grid.shape_zyx, np.int16), grid)
    else:
        image = read_image(slices, found.case_id)
        grid = image.grid
        check_image(found, image.values, grid)
    missing = [name for name in ("StudyInstanceUID", "FrameOfReferenceUID") if not text_of(slices[0], name)]
    if missing:
        raise BadCase(found.case_id, f"the image has no {' and no '.join(missing)}: structures could not be linked")
    return ImageSeries(slices, Frames(stack, planes), grid)


def _placed(found: MaskSet, image_grid: Grid, request: StructuresRequest) -> tuple[list[Structure], dict[str, str]]:
    """The structures on the image's grid, and why some are not there."""
    described = {name: describe(name, found.prescription_gy.get(name)) for name in found.masks}
    names = Counter(item.name for item in described.values())
    structures, reasons = [], {}
    for name, mask in found.masks.items():
        what = described[name]
        if request.own_names or names[what.name] > 1:
            what = replace(what, name=name)
        how = Cleaning(*({name, EVERY} & set(asked) != set() for asked in (request.largest_part, request.fill_holes)))
        cleaned, words = clean(mask, how)
        said = ", ".join(filter(None, (found.cleaned.get(name), words)))
        on_image = mask_on_image(cleaned, found.grid, image_grid)
        if not on_image.any():
            reasons[name] = "no voxel centre of the image lies inside it: it is smaller than the image's voxels"
            continue
        volume_cc = float(np.count_nonzero(cleaned)) * found.grid.voxel_volume_cc
        structures.append(Structure(name, what, on_image, said, volume_cc))
    if not structures:
        raise BadCase(found.case_id, f"no structure can be written: {'; '.join(reasons.values())}")
    return structures, reasons


def _is_pseudonymous(image: Dataset, found: MaskSet) -> bool:
    """Whether the image names nobody: it says so itself, or ingest found its PatientID to be a pseudonym."""
    removed = text_of(image, "PatientIdentityRemoved") == "YES"
    return removed or bool(found.pseudonym and text_of(image, "PatientID") == found.pseudonym)


def _summary(found: MaskSet, structures: list[Structure], written: Mapping[str, float], grid: Grid) -> dict[str, Any]:
    rows, warnings = {}, []
    for structure in structures:
        on_image = float(structure.mask.sum()) * grid.voxel_volume_cc
        rows[structure.name] = {
            "name": structure.described.name,
            "volume_cc": round(structure.volume_cc, 4),
            "image_volume_cc": round(on_image, 4),
            "written_volume_cc": round(written[structure.name], 4) if structure.name in written else None,
            "cleaned": structure.cleaned,
        }
        change = 100.0 * (on_image / structure.volume_cc - 1.0)
        if not keeps(abs(change), most=WORTH_A_WORD_PERCENT):
            warnings.append(f"{structure.name}: the image's voxels change its volume by {change:+.1f} %")
        if not structure.described.is_standard:
            warnings.append(f"{structure.described.name} is no name of TG-263")
    if found.ct_hu is None and not found.knows_image:
        warnings.append("a prediction holds no image: only its place was compared with this one's")
    return {"case_id": found.case_id, "structures": rows, "absent": found.absent, "warnings": warnings}
