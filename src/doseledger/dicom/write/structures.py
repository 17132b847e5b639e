"""Structure sets as RTSTRUCT: masks and surfaces as contours on image slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import RTStructureSetStorage

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.frames import Plane, is_localizer, planes_of
from doseledger.dicom.structure_names import Code, Colour, InterpretedType
from doseledger.dicom.write.objects import Study, decimal, new_object, refer_to, reference_item
from doseledger.dicom.write.outlines import DECIMALS, Polygon, find_outlines

# Detached Study Management SOP class, retired: the value that PS3.3 C.8.8.5 asks for in RT Referenced Study Sequence.
DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
COLOURS = ((255, 0, 0), (0, 128, 255), (255, 200, 0), (150, 75, 0), (0, 200, 200), (0, 160, 0), (160, 0, 200))
# Where no mark can be mistaken for a contour: off every pixel centre by so many pixels along x and y, and so small.
MARK_AT_PIXELS, MARK_MM = (0.37, 0.41), 0.02
# Values of LO and SH (PS3.5 6.2).
LONG_STRING, SHORT_STRING = 64, 16


@dataclass(frozen=True)
class Roi:
    """A structure to write: its name, surface (mask, or field negative inside) and kind.

    Parameters
    ----------
    name, interpreted_type
        ROI Name and RT ROI Interpreted Type.
    surface
        None for a structure that is listed without contours.
    smooth
        Whether a mask's contours leave out the steps of its pixels.
    algorithm
        AUTOMATIC, SEMIAUTOMATIC or MANUAL; empty where nobody knows.
    technique, description
        How it came about (64 characters), and what else is to be said of it; empty to leave out.
    colour, code
        How it is shown, and what it is; None for one of our own, and for none.
    """

    name: str
    surface: NDArray[Any] | None
    interpreted_type: InterpretedType
    smooth: bool = False
    algorithm: str = "AUTOMATIC"
    technique: str = ""
    description: str = ""
    colour: Colour | None = None
    code: Code | None = None


def slices_from_below(images: Sequence[Dataset]) -> list[Plane]:
    """Return the planes of a series, enhanced images' too and scout views left out, from the feet to the head."""
    planes = [plane for image in images if not is_localizer(image) for plane in planes_of(image)]
    return sorted(planes, key=lambda plane: float(plane.place.ImagePositionPatient[2]))


def make_structure_set(
    study: Study, rois: Sequence[Roi], grid: Grid, images: Sequence[Dataset], label: str = "STRUCTURES"
) -> Dataset:
    """Return the structure set of an image series.

    Parameters
    ----------
    study
        Identity and links.
    rois
        Structures in order; ROI numbers count from 1.
    grid
        Grid of every surface: the images'.
    images
        The CT series that the contours lie on.
    label
        At most 16 characters.

    Raises
    ------
    BadInput
        If images and grid have different numbers of slices.

    Notes
    -----
    DICOM PS3.3 C.8.8.5, C.8.8.6 and C.8.8.8. Where a mask ends and begins anew above itself, the empty slices at
    either end hold a contour of 0.02 mm, smaller than any voxel: without one they would be taken as not drawn, and
    filled in.
    """
    planes = slices_from_below(images)
    if len(planes) != grid.shape_zyx[0]:
        raise BadInput(f"{study.patient_id}: {len(planes)} images for {grid.shape_zyx[0]} slices of contours")
    ds = new_object(study, RTStructureSetStorage, "RTSTRUCT", "rtstruct")
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = label[:SHORT_STRING], "", ""
    ds.InstanceNumber = 1
    frame, series = Dataset(), Dataset()
    rt_study = reference_item(DETACHED_STUDY, study.study_uid)
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [refer_to(image) for image in images if not is_localizer(image)]
    rt_study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = study.frame_of_reference_uid, [rt_study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, roi in enumerate(rois, 1):
        contours = Dataset()
        contours.ReferencedROINumber = number
        contours.ROIDisplayColor = list(roi.colour or COLOURS[(number - 1) % len(COLOURS)])
        if roi.surface is not None:
            contours.ContourSequence = _contours(roi, grid, planes)
        ds.StructureSetROISequence.append(_entry(number, roi, study))
        ds.ROIContourSequence.append(contours)
        ds.RTROIObservationsSequence.append(_observation(number, roi))
    return ds


def _entry(number: int, roi: Roi, study: Study) -> Dataset:
    entry = Dataset()
    entry.ROINumber, entry.ROIName = number, roi.name
    entry.ReferencedFrameOfReferenceUID = study.frame_of_reference_uid
    entry.ROIGenerationAlgorithm = roi.algorithm
    if roi.technique:
        entry.ROIGenerationDescription = roi.technique[:LONG_STRING]
    if roi.description:
        entry.ROIDescription = roi.description
    return entry


def _observation(number: int, roi: Roi) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType, observation.ROIInterpreter = roi.interpreted_type, ""
    if roi.code is not None:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = roi.code
        observation.RTROIIdentificationCodeSequence = [code]
    return observation


def _contours(roi: Roi, grid: Grid, planes: Sequence[Plane]) -> list[Dataset]:
    items = []
    surface = np.asarray(roi.surface)
    outlines = find_outlines(surface, grid, smooth=roi.smooth)
    for k, mark in _marks(surface, grid) if surface.dtype == np.bool_ else ():
        outlines.setdefault(k, []).append(mark)
    for k in sorted(outlines):
        plane = planes[k]
        z = decimal(float(plane.place.ImagePositionPatient[2]), DECIMALS + 2)
        image = refer_to(plane.file)
        if plane.file is not plane.place:
            image.ReferencedFrameNumber = plane.index + 1
        for polygon in outlines[k]:
            item = Dataset()
            item.ContourImageSequence = [image]
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(polygon)
            text = "\\".join(f"{x:.{DECIMALS}f}\\{y:.{DECIMALS}f}\\{z}" for x, y in polygon).encode()
            text += b" " * (len(text) % 2)
            # Ready bytes: a DS object for each of a hundred thousand numbers would take seconds.
            tag = Tag("ContourData")
            item[tag] = RawDataElement(tag, "DS", len(text), text, 0, False, True)
            items.append(item)
    return items


def _marks(inside: NDArray[np.bool_], grid: Grid) -> Iterator[tuple[int, Polygon]]:
    """What says that slices between two parts, one above the other, are empty: the slice and a contour of no size."""
    there = np.flatnonzero(inside.any(axis=(1, 2))).tolist()
    for low, high in pairwise(there):
        shared = inside[low] & inside[high]
        if high - low < 2 or not shared.any():
            continue
        row, column = np.argwhere(shared)[0]
        x = grid.origin_mm[2] + grid.spacing_mm[2] * (column + MARK_AT_PIXELS[0])
        y = grid.origin_mm[1] + grid.spacing_mm[1] * (row + MARK_AT_PIXELS[1])
        mark = np.asarray([(x, y), (x + MARK_MM, y), (x, y + MARK_MM)])
        for k in sorted({low + 1, high - 1}):
            yield k, mark
