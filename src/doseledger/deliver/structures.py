"""Masks of a case or a prediction as RTSTRUCT and DICOM SEG, beside the image that they came from."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pydicom
from pydicom import Dataset

from doseledger.core.cleaning import Cleaning, clean
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import atomic_path, sha256_of_bytes, sha256_of_file, write_json
from doseledger.core.grid import Grid
from doseledger.core.limit import keeps
from doseledger.core.types import Mask
from doseledger.deliver.masks import MaskSet, check_image, mask_on_image, read_masks
from doseledger.dicom.contours import fill, stack_contours
from doseledger.dicom.geometry import Planes
from doseledger.dicom.objects import Study, to_bytes
from doseledger.dicom.read import gather_objects
from doseledger.dicom.read_image import arrange_slices, read_image, read_image_grid
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.dicom.source import in_file, lenient, malformed_as_bad_case, read_source
from doseledger.dicom.structure_names import Described, describe
from doseledger.dicom.values import text_of
from doseledger.dicom.write_prediction import LONG_STRING, share_study
from doseledger.dicom.write_segmentation import Frames, Segment, make_segmentation
from doseledger.dicom.write_structures import Roi, make_structure_set

Format = Literal["rtstruct", "seg"]
FORMATS: tuple[Format, ...] = get_args(Format)
# Contours must hold what the mask does, read back, to this part of its volume.
MOST_OFF_PERCENT = 1.0
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


@dataclass(frozen=True)
class _Image:
    """The image series: its files, their geometry, and its grid."""

    slices: list[Dataset]
    planes: Planes
    frames: Frames
    grid: Grid


@dataclass(frozen=True)
class _Structure:
    """A structure on the image's grid: as its cohort calls it, what it is, and what became of its mask."""

    name: str
    described: Described
    mask: Mask
    cleaned: str
    volume_cc: float


def write_structures(masks: Path, images: Path, out: Path, request: StructuresRequest) -> dict[str, Any]:
    """Return what became of each structure, after writing `rtstruct.dcm`, `seg.dcm` and `structures.json`.

    Parameters
    ----------
    masks
        NPZ of a case, or of a prediction that holds masks.
    images
        Folder or zip with the image series that they were made from; whatever else is there is left alone.
    out
        Folder that gets the files.
    request
        What is written, and how.

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
    found = read_masks(masks)
    wanted = _wanted(found, request)
    with lenient(), malformed_as_bad_case(found.case_id):
        image = _read_image(images, found)
        structures, reasons = _placed(wanted, image.grid, request)
        first = image.slices[0]
        with in_file(first, found.case_id):
            shares = request.identity or _is_pseudonymous(first, found)
            study = _study(first, found, structures, (sha256_of_file(masks), shares))
            objects: dict[str, Dataset] = {}
            written: dict[str, float] = {}
            if "rtstruct" in request.formats:
                structures, written, dataset = _contoured(structures, study, image, found, reasons)
                objects["rtstruct"] = dataset
            if "seg" in request.formats:
                objects["seg"] = _segmented(structures, study, image, found)
            for dataset in objects.values():
                _sign(dataset, first, found, shares)
    for name in FORMATS:
        (out / f"{name}.dcm").unlink(missing_ok=True)
    for name, dataset in objects.items():
        with atomic_path(out / f"{name}.dcm") as part:
            part.write_bytes(to_bytes(dataset))
    summary = _summary(found, structures, written, image.grid) | {
        "files": [f"{name}.dcm" for name in objects],
        "identity": "as in the image" if shares else "PatientID alone",
    }
    summary["structures"] |= {name: {"reason": reason} for name, reason in reasons.items()}
    write_json(out / "structures.json", summary)
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


def _read_image(images: Path, found: MaskSet) -> _Image:
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
    return _Image(slices, planes, Frames(stack, planes), grid)


def _placed(
    found: MaskSet, image_grid: Grid, request: StructuresRequest
) -> tuple[list[_Structure], dict[str, str]]:
    """The structures on the image's grid, and why some are not there."""
    described = {name: describe(name, found.prescription_gy.get(name)) for name in found.masks}
    names = Counter(item.name for item in described.values())
    structures, reasons = [], {}
    for name, mask in found.masks.items():
        what = described[name]
        if request.own_names or names[what.name] > 1:
            what = replace(what, name=name)
        how = Cleaning(*({name, EVERY} & set(asked) != set() for asked in (request.largest_part, request.fill_holes)))
        cleaned, said = clean(mask, how)
        on_image = mask_on_image(cleaned, found.grid, image_grid)
        if not on_image.any():
            reasons[name] = "no voxel centre of the image lies inside it: it is smaller than the image's voxels"
            continue
        volume_cc = float(np.count_nonzero(cleaned)) * found.grid.voxel_volume_cc
        structures.append(_Structure(name, what, on_image, said, volume_cc))
    if not structures:
        raise BadCase(found.case_id, f"no structure can be written: {'; '.join(reasons.values())}")
    return structures, reasons


def _is_pseudonymous(image: Dataset, found: MaskSet) -> bool:
    """Whether the image names nobody: it says so itself, or ingest found its PatientID to be a pseudonym."""
    removed = text_of(image, "PatientIdentityRemoved") == "YES"
    return removed or bool(found.pseudonym and text_of(image, "PatientID") == found.pseudonym)


def _study(image: Dataset, found: MaskSet, structures: list[_Structure], how: tuple[str, bool]) -> Study:
    """Identity and links; what is written, and of what, makes the UIDs."""
    what = [(s.name, s.described.name, s.cleaned, sha256_of_bytes(np.packbits(s.mask).tobytes())) for s in structures]
    key = f"structures/{text_of(image, 'SeriesInstanceUID')}/{found.model}/{how}/{what}"
    # Contours and masks lie in the patient's own axes: they are the same in every position.
    return replace(Study.of_image(image, key, position="HFS"), patient_name=text_of(image, "PatientID"), patient_sex="")


def _algorithm(found: MaskSet, structure: _Structure) -> str:
    if found.model:
        return "AUTOMATIC"
    return "SEMIAUTOMATIC" if structure.cleaned else "MANUAL"


def _said(found: MaskSet, structure: _Structure) -> str:
    """How a structure came about: words of `phi_attributes.OWN_TEXT`, which name nobody."""
    return f"{'predicted' if found.model else 'as in the case'}; {structure.cleaned or 'not cleaned'}"


def _contoured(
    structures: list[_Structure], study: Study, image: _Image, found: MaskSet, reasons: dict[str, str]
) -> tuple[list[_Structure], dict[str, float], Dataset]:
    """The structures whose contours hold what their masks do, the volumes of those, and the structure set."""
    written: dict[str, float] = {}
    kept = structures
    dataset = _structure_set(structures, study, image, found)
    back = read_back(dataset, image.grid, found.case_id)
    for structure in structures:
        volume = back[structure.described.name]
        off = 100.0 * abs(volume / (structure.mask.sum() * image.grid.voxel_volume_cc) - 1.0)
        written[structure.name] = volume
        if not keeps(off, most=MOST_OFF_PERCENT):
            reasons[structure.name] = f"its contours hold {volume:.3f} cm³, {off:.1f} % off its mask"
    if reasons.keys() & written.keys():
        kept = [structure for structure in structures if structure.name not in reasons]
        if not kept:
            raise BadCase(found.case_id, f"no structure can be written: {'; '.join(reasons.values())}")
        dataset = _structure_set(kept, study, image, found)
    return kept, written, dataset


def _structure_set(structures: list[_Structure], study: Study, image: _Image, found: MaskSet) -> Dataset:
    rois = [
        Roi(
            name=structure.described.name,
            surface=structure.mask,
            interpreted_type=structure.described.interpreted_type,
            smooth=True,
            algorithm=_algorithm(found, structure),
            technique=_said(found, structure),
            description=_said(found, structure),
            colour=structure.described.colour,
            code=structure.described.kind,
        )
        for structure in structures
    ]
    label = "PREDICTED" if found.model else "STRUCTURES"
    dataset = make_structure_set(study, rois, image.grid, image.slices, label)
    n_parts, n_holes = (sum(word in s.cleaned for s in structures) for word in ("largest", "holes"))
    how = f"cleaned: largest part of {n_parts}, holes of {n_holes} structures"
    dataset.StructureSetDescription = how if n_parts or n_holes else "not cleaned"
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _segmented(structures: list[_Structure], study: Study, image: _Image, found: MaskSet) -> Dataset:
    segments = [Segment(s.described, s.mask, _algorithm(found, s), _said(found, s)) for s in structures]
    maker = found.model or "doseledger"
    return make_segmentation(study, segments, image.frames, maker, version("doseledger"), case_id=found.case_id)


def read_back(dataset: Dataset, grid: Grid, case_id: str) -> dict[str, float]:
    """Return the volume in cm³ of each ROI of a structure set, read as a clinic's are.

    Parameters
    ----------
    grid
        The image's.
    """
    volumes = {}
    read = pydicom.dcmread(io.BytesIO(to_bytes(dataset)))
    for roi in read_rois(read, case_id):
        stack, _ = stack_contours(read_contours(roi, case_id).polygons, grid, case_id, roi.name)
        volumes[roi.name] = float(np.count_nonzero(fill(stack, grid))) * grid.voxel_volume_cc
    return volumes


def _sign(dataset: Dataset, image: Dataset, found: MaskSet, shares: bool) -> None:
    """Say what made an object, and whose it is."""
    if shares:
        share_study(dataset, image)
    dataset.SeriesDescription = "PREDICTED structures" if found.model else "Structures of a case"
    maker = f"STRUCTURES (research) {found.model}".strip()
    dataset.Manufacturer, dataset.ManufacturerModelName = "doseledger", maker[:LONG_STRING]
    dataset.SoftwareVersions = version("doseledger")[:LONG_STRING]


def _summary(
    found: MaskSet, structures: list[_Structure], written: Mapping[str, float], grid: Grid
) -> dict[str, Any]:
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
    if found.ct_hu is None:
        warnings.append("a prediction holds no image: only its place was compared with this one's")
    return {"case_id": found.case_id, "structures": rows, "absent": found.absent, "warnings": warnings}
