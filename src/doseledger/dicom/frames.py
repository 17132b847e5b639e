"""Image planes, one a file or many: classic and enhanced CT and MR read alike."""

from __future__ import annotations

from dataclasses import dataclass

import pydicom

from doseledger.core.errors import BadInput
from doseledger.dicom.source import label_of
from doseledger.dicom.values import items_of, text_of

# Functional groups that say where a frame lies and how its values are scaled (PS3.3 C.7.6.16.2), with the attributes
# that a classic image has at its top.
GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
}
LOCALIZER = "LOCALIZER"


@dataclass(frozen=True)
class Plane:
    """One image plane.

    Parameters
    ----------
    place
        Data set with the attributes of a classic image: where it lies, its spacing and its scale.
    file
        Data set that holds its pixels.
    index
        Which frame of the file it is, from 0.
    """

    place: pydicom.Dataset
    file: pydicom.Dataset
    index: int


def planes_of(dataset: pydicom.Dataset) -> list[Plane]:
    """Return the planes of an image file: itself, or each frame of an enhanced image.

    Raises
    ------
    BadInput
        If functional groups are malformed.

    Notes
    -----
    DICOM PS3.3 C.7.6.16: a frame's own functional groups come before those that all frames share.
    """
    frames = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    if not frames:
        return [Plane(dataset, dataset, 0)]
    shared = items_of(dataset, "SharedFunctionalGroupsSequence")
    return [Plane(_classic(dataset, [frame, *shared[:1]]), dataset, index) for index, frame in enumerate(frames)]


def is_localizer(dataset: pydicom.Dataset) -> bool:
    """Return whether a file is a scout view, by Image Type (0008,0008): no part of a stack of slices."""
    return LOCALIZER in text_of(dataset, "ImageType").split("\\")


def has_place(dataset: pydicom.Dataset) -> bool:
    """Return whether a file says where its pixels lie; a screen capture or a report does not."""
    return "ImagePositionPatient" in dataset or "PerFrameFunctionalGroupsSequence" in dataset


def _classic(dataset: pydicom.Dataset, groups: list[pydicom.Dataset]) -> pydicom.Dataset:
    place = pydicom.Dataset()
    for keyword in ("Modality", "Rows", "Columns", "BitsStored"):
        if keyword in dataset:
            place[keyword] = dataset[keyword]
    place.file_label = label_of(dataset)
    for sequence, keywords in GROUPS.items():
        found = next((items for items in (items_of(group, sequence) for group in groups) if items), [])
        if len(found) > 1:
            raise BadInput(f"{sequence} has {len(found)} items, wanted one")
        for keyword in keywords:
            if found and keyword in found[0]:
                place[keyword] = found[0][keyword]
    return place
