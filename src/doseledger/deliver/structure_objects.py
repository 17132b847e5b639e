"""Masks on an image as RTSTRUCT and DICOM SEG objects, read back once made."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import pydicom
from pydicom import Dataset

from doseledger.core.errors import BadCase
from doseledger.core.files import sha256_of_bytes
from doseledger.core.grid import Grid
from doseledger.core.limit import keeps
from doseledger.core.types import Mask
from doseledger.deliver.masks import MaskSet
from doseledger.dicom.contours import fill, stack_contours
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.dicom.structure_names import Described
from doseledger.dicom.values import text_of
from doseledger.dicom.write.objects import Study, to_bytes
from doseledger.dicom.write.prediction import LONG_STRING, share_study
from doseledger.dicom.write.segmentation import Frames, Segment, make_segmentation
from doseledger.dicom.write.structures import Roi, make_structure_set

# Contours must hold what the mask does, read back, to this part of its volume.
MOST_OFF_PERCENT = 1.0


@dataclass(frozen=True)
class ImageSeries:
    """An image series: its files, its frames and where they lie, and its grid."""

    files: list[Dataset]
    frames: Frames
    grid: Grid

    @property
    def first(self) -> Dataset:
        """A file of it, for what all have in common."""
        return self.frames.stack[0].file


@dataclass(frozen=True)
class Structure:
    """A structure on the image's grid: as its cohort calls it, what it is, and what became of its mask."""

    name: str
    described: Described
    mask: Mask
    cleaned: str
    volume_cc: float


def study_of(image: Dataset, found: MaskSet, structures: list[Structure], how: tuple[str, bool]) -> Study:
    """Return identity and links; what is written, of which file, makes the UIDs.

    Parameters
    ----------
    how
        SHA256 of the file of masks, and whether the image's identity is copied.
    """
    what = [(s.name, s.described.name, s.cleaned, sha256_of_bytes(np.packbits(s.mask).tobytes())) for s in structures]
    key = f"structures/{text_of(image, 'SeriesInstanceUID')}/{found.model}/{how}/{what}"
    # Contours and masks lie in the patient's own axes: they are the same in every position.
    return replace(Study.of_image(image, key, position="HFS"), patient_name=text_of(image, "PatientID"), patient_sex="")


def _algorithm(found: MaskSet, structure: Structure) -> str:
    if found.model:
        return "AUTOMATIC"
    return "SEMIAUTOMATIC" if structure.cleaned else "MANUAL"


def _said(found: MaskSet, structure: Structure) -> str:
    """How a structure came about: words of `phi_attributes.OWN_TEXT`, which name nobody."""
    return f"{'predicted' if found.model else 'as in the case'}; {structure.cleaned or 'not cleaned'}"


def contoured(
    structures: list[Structure], study: Study, image: ImageSeries, found: MaskSet, reasons: dict[str, str]
) -> tuple[list[Structure], dict[str, float], Dataset]:
    """Return the structures whose contours hold what their masks do, the volumes of all in cm³, and the structure set.

    Parameters
    ----------
    structures, study, image, found
        What is written, whose it is, where it lies, and where it comes from.
    reasons
        Gets why a structure is left out, by its cohort's name.

    Raises
    ------
    BadCase
        If none is left.
    """
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


def _structure_set(structures: list[Structure], study: Study, image: ImageSeries, found: MaskSet) -> Dataset:
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
    dataset = make_structure_set(study, rois, image.grid, image.files, label)
    n_parts, n_holes = (sum(word in s.cleaned for s in structures) for word in ("largest", "holes"))
    how = f"cleaned: largest part of {n_parts}, holes of {n_holes} structures"
    dataset.StructureSetDescription = how if n_parts or n_holes else "not cleaned"
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def segmented(structures: list[Structure], study: Study, image: ImageSeries, found: MaskSet) -> Dataset:
    """Return the DICOM Segmentation of structures on the frames of their image.

    Raises
    ------
    BadCase
        If none can be written for this image.
    """
    segments = [Segment(s.described, s.mask, _algorithm(found, s), _said(found, s)) for s in structures]
    maker = found.model or "doseledger"
    return make_segmentation(study, segments, image.frames, maker, version("doseledger"), case_id=found.case_id)


def read_back(dataset: Dataset, grid: Grid, case_id: str) -> dict[str, float]:
    """Return the volume in cm³ of each ROI of a structure set, read as a clinic's are."""
    volumes = {}
    read = pydicom.dcmread(io.BytesIO(to_bytes(dataset)))
    for roi in read_rois(read, case_id):
        stack, _ = stack_contours(read_contours(roi, case_id).polygons, grid, case_id, roi.name)
        volumes[roi.name] = float(np.count_nonzero(fill(stack, grid))) * grid.voxel_volume_cc
    return volumes


def sign(dataset: Dataset, image: Dataset, found: MaskSet, shares: bool) -> None:
    """Say what made an object, and whose it is."""
    if shares:
        share_study(dataset, image)
    dataset.SeriesDescription = "PREDICTED structures" if found.model else "Structures of a case"
    maker = f"STRUCTURES (research) {found.model}".strip()
    dataset.Manufacturer, dataset.ManufacturerModelName = "doseledger", maker[:LONG_STRING]
    dataset.SoftwareVersions = version("doseledger")[:LONG_STRING]
