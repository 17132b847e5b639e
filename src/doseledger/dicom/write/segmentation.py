"""Masks as DICOM Segmentation on the frames of an image, one segment a structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from doseledger.core.errors import BadCase
from doseledger.core.types import Mask
from doseledger.dicom.frames import Plane
from doseledger.dicom.geometry import Planes, from_lps
from doseledger.dicom.privacy.attributes import DUMMY_TEXT
from doseledger.dicom.structure_names import Code, Described
from doseledger.dicom.write.objects import SERIES_NUMBER, Study, new_object

# Content Date and Time must have a value (PS3.3 C.7.6.16), and this says openly that it is none.
NO_DATE, NO_TIME = "19000101", "000000"
LONG_STRING = 64
# What highdicom asks of a source image: where it lies, and whose it is.
GEOMETRY = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("DimensionOrganizationSequence", "DimensionIndexSequence", "InstanceNumber", "ImageType"),
)
PEOPLE = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
DATES = ("SeriesDate", "SeriesTime", "InstanceCreationDate", "InstanceCreationTime")


@dataclass(frozen=True)
class Segment:
    """A structure to write: what it is, its mask, and how it came about.

    Parameters
    ----------
    mask
        bool (z, y, x) on the image's grid.
    algorithm
        AUTOMATIC, SEMIAUTOMATIC or MANUAL.
    description
        What else is to be said of it; empty to leave out.
    """

    described: Described
    mask: Mask
    algorithm: str
    description: str = ""


@dataclass(frozen=True)
class Frames:
    """The frames of an image in order along their normal, and where they lie, of `arrange_slices`."""

    stack: Sequence[Plane]
    planes: Planes


def make_segmentation(
    study: Study, segments: Sequence[Segment], frames: Frames, maker: str, version: str, *, case_id: str
) -> Dataset:
    """Return the DICOM Segmentation of masks on an image, frame for frame in the image's own geometry.

    Parameters
    ----------
    study
        Identity and links.
    segments
        In order; segment numbers count from 1. Structures may overlap.
    frames
        The image.
    maker, version
        What made the masks.
    case_id
        Who the errors name.

    Raises
    ------
    BadCase
        If the image lacks an attribute that a segmentation of it needs.

    Notes
    -----
    DICOM PS3.3 A.51 and C.8.20, a segment a bit, made by highdicom. Frames without a voxel of a segment are left out,
    so that they are empty on reading. UIDs follow from the study's key, and nothing holds a clock.
    """
    import highdicom

    maker, version = maker[:LONG_STRING], version[:LONG_STRING]
    stacked = np.stack([from_lps(segment.mask, frames.planes) for segment in segments], axis=-1).astype(np.uint8)
    try:
        ds: Dataset = highdicom.seg.Segmentation(
            source_images=_sources(frames.stack),
            pixel_array=stacked[np.argsort([plane.index for plane in frames.stack], kind="stable")],
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_described(study, n, s, maker, version) for n, s in enumerate(segments, 1)],
            series_instance_uid=study.uid("seg"),
            series_number=SERIES_NUMBER["SEG"],
            sop_instance_uid=study.uid("seg", 1),
            instance_number=1,
            manufacturer="doseledger",
            manufacturer_model_name=maker,
            software_versions=version,
            device_serial_number=DUMMY_TEXT,
            content_label="STRUCTURES",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadCase(
            case_id, f"no segmentation can be written for this image ({error}); write the RTSTRUCT alone"
        ) from error
    _as_ours(ds, study)
    for item, segment in zip(ds.SegmentSequence, segments, strict=True):
        if segment.description:
            item.SegmentDescription = segment.description
        if segment.described.side is not None:
            kind = item.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [_item(segment.described.side)]
    return ds


def _sources(stack: Sequence[Plane]) -> list[Dataset]:
    """Headers of an image's files with what tells where they lie, and empty what tells whose they are."""
    found = []
    for file in {id(plane.file): plane.file for plane in stack}.values():
        header = Dataset()
        for keyword in GEOMETRY:
            if keyword in file:
                header[keyword] = file[keyword]
        for keyword in PEOPLE:
            setattr(header, keyword, "")
        found.append(header)
    return found


def _as_ours(ds: Dataset, study: Study) -> None:
    """Patient, study and series as our other objects have them; UIDs that follow from the study, and no clock."""
    ours = new_object(study, str(ds.SOPClassUID), "SEG", "seg")
    for element in ours:
        ds[element.tag] = element
    ds.Manufacturer = "doseledger"
    ds.ContentDate, ds.ContentTime = NO_DATE, NO_TIME
    ds.LongitudinalTemporalInformationModified = "REMOVED"
    for keyword in filter(ds.__contains__, DATES):
        del ds[keyword]
    for equipment in ds.get("ContributingEquipmentSequence", []):
        del equipment.ContributionDateTime, equipment.ContributionDescription
    organisation = study.uid("seg", "dimensions")
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation


def _described(study: Study, number: int, segment: Segment, maker: str, version: str) -> Any:
    import highdicom

    described = segment.described
    by = None
    if segment.algorithm != "MANUAL":
        family = highdicom.sr.CodedConcept("123104", "DCM", "Morphological Operations")
        if segment.algorithm == "AUTOMATIC":
            family = highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence")
        by = highdicom.AlgorithmIdentificationSequence(name=maker, family=family, version=version)
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=described.name,
        segmented_property_category=highdicom.sr.CodedConcept(*described.category),
        segmented_property_type=highdicom.sr.CodedConcept(*described.kind),
        algorithm_type=segment.algorithm,
        algorithm_identification=by,
        tracking_uid=study.uid("segment", described.name),
        tracking_id=described.name,
        display_color=highdicom.color.CIELabColor.from_rgb(*described.colour),
    )


def _item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item
