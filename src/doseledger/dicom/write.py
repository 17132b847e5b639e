"""CT series, structure sets and doses as DICOM, linked to one another.

Arrays come on ascending LPS grids (core.grid); images leave in the order that a scanner writes for the patient's
position. Plans are in `write_plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, RTDoseStorage, RTStructureSetStorage

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.objects import Study, decimal, decimals, new_object, refer_to, set_pixels
from doseledger.dicom.outlines import find_outlines
from doseledger.dicom.position import IMAGE_AXES, Position

# Detached Study Management SOP class, retired: the value that PS3.3 C.8.8.5 asks for in RT Referenced Study Sequence.
DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
# CT is stored unsigned: 0 is −1024 HU, as on most scanners.
CT_INTERCEPT = -1024
CONTOUR_DECIMALS = 2
InterpretedType = Literal["EXTERNAL", "PTV", "CTV", "ORGAN"]
COLOURS = ((255, 0, 0), (0, 128, 255), (255, 200, 0), (150, 75, 0), (0, 200, 200), (0, 160, 0), (160, 0, 200))


@dataclass(frozen=True)
class Roi:
    """A structure to write: its name, surface (mask, or field negative inside) and kind.

    `surface` is None for a structure that is listed without contours.
    """

    name: str
    surface: NDArray[Any] | None
    interpreted_type: InterpretedType


def _in_scanner_order(array: NDArray[Any], grid: Grid, position: Position) -> tuple[NDArray[Any], list[float], int]:
    """Return the array as frames, the first pixel's position (x, y, z) in mm, and the frames' step along z (±1)."""
    axes = IMAGE_AXES[position]
    along_x, along_y, along_z = int(axes[0]), int(axes[4]), int(axes[0] * axes[4])
    first, last = grid.extent_mm
    ends = [(first[2 - i], last[2 - i]) for i in range(3)]
    corner = [low if step > 0 else high for (low, high), step in zip(ends, (along_x, along_y, along_z), strict=True)]
    return array[::along_z, ::along_y, ::along_x], corner, along_z


def make_ct(study: Study, ct_hu: NDArray[np.int16], grid: Grid, body_part: str = "") -> list[Dataset]:
    """Return the images of a CT series in the scanner's order.

    Parameters
    ----------
    study
        Identity and links.
    ct_hu
        Hounsfield units, (z, y, x) on `grid`; below −1024 is cut.
    grid
        Where the voxels are.
    body_part
        Body Part Examined, of the unpaired ones (PELVIS, HEAD); empty if not known.
    """
    stored = np.clip(ct_hu.astype(np.int32) - CT_INTERCEPT, 0, 65535).astype("<u2")
    frames, corner, step = _in_scanner_order(stored, grid, study.position)
    images = []
    for k, frame in enumerate(frames):
        ds = new_object(study, CTImageStorage, "CT", "ct", k + 1)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ContentDate, ds.ContentTime = "", ""
        # Laterality may be left out only where the body part is known not to be paired (PS3.3 C.7.3.1).
        if body_part:
            ds.BodyPartExamined = body_part
        else:
            ds.Laterality = ""
        ds.PatientPosition = study.position
        ds.KVP, ds.AcquisitionNumber, ds.InstanceNumber = "120", 1, k + 1
        ds.SliceThickness = decimal(grid.spacing_mm[0], 4)
        ds.ImagePositionPatient = decimals([corner[0], corner[1], corner[2] + step * k * grid.spacing_mm[0]], 4)
        ds.ImageOrientationPatient = decimals(IMAGE_AXES[study.position], 1)
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(CT_INTERCEPT), "1", "HU"
        set_pixels(ds, frame, grid, bits=16)
        images.append(ds)
    return images


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
    """
    if len(images) != grid.shape_zyx[0]:
        raise BadInput(f"{study.patient_id}: {len(images)} images for {grid.shape_zyx[0]} slices of contours")
    ds = new_object(study, RTStructureSetStorage, "RTSTRUCT", "rtstruct")
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = label, "", ""
    ds.InstanceNumber = 1
    by_slice = sorted(images, key=lambda image: float(image.ImagePositionPatient[2]))
    frame, rt_study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [refer_to(image) for image in images]
    rt_study.ReferencedSOPClassUID, rt_study.ReferencedSOPInstanceUID = DETACHED_STUDY, study.study_uid
    rt_study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = study.frame_of_reference_uid, [rt_study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, roi in enumerate(rois, 1):
        entry, contours, observation = Dataset(), Dataset(), Dataset()
        entry.ROINumber, entry.ROIName = number, roi.name
        entry.ReferencedFrameOfReferenceUID = study.frame_of_reference_uid
        entry.ROIGenerationAlgorithm = "AUTOMATIC"
        contours.ReferencedROINumber = number
        contours.ROIDisplayColor = list(COLOURS[(number - 1) % len(COLOURS)])
        if roi.surface is not None:
            contours.ContourSequence = _contours(roi.surface, grid, by_slice)
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.RTROIInterpretedType, observation.ROIInterpreter = roi.interpreted_type, ""
        ds.StructureSetROISequence.append(entry)
        ds.ROIContourSequence.append(contours)
        ds.RTROIObservationsSequence.append(observation)
    return ds


def _contours(surface: NDArray[Any], grid: Grid, by_slice: Sequence[Dataset]) -> list[Dataset]:
    items = []
    for k, polygons in find_outlines(surface, grid).items():
        z = decimal(grid.origin_mm[0] + k * grid.spacing_mm[0], CONTOUR_DECIMALS + 2)
        for polygon in polygons:
            item = Dataset()
            item.ContourImageSequence = [refer_to(by_slice[k])]
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(polygon)
            text = "\\".join(f"{x:.{CONTOUR_DECIMALS}f}\\{y:.{CONTOUR_DECIMALS}f}\\{z}" for x, y in polygon).encode()
            text += b" " * (len(text) % 2)
            # Ready bytes: a DS object for each of a hundred thousand numbers would take seconds.
            tag = Tag("ContourData")
            item[tag] = RawDataElement(tag, "DS", len(text), text, 0, False, True)
            items.append(item)
    return items


def make_dose(
    study: Study,
    dose_gy: NDArray[np.floating[Any]],
    grid: Grid,
    *,
    plan: Dataset | None = None,
    structures: Dataset | None = None,
    bits: Literal[16, 32] = 32,
) -> Dataset:
    """Return a total plan dose.

    Parameters
    ----------
    study
        Identity and links.
    dose_gy
        Dose in Gy, (z, y, x) on `grid`; finite and not negative.
    grid
        Where the voxels are: its own, it need not be the CT's.
    plan, structures
        The plan that gives this dose, and the structure set, to be referred to; a plan names its structure set, and a
        second reference would ask for DVHs (RT DVH module, PS3.3 C.8.8.4), so give it where there is no plan.
    bits
        Bits of a stored value; a unit of the last bit is max / 2^bits.

    Raises
    ------
    BadInput
        If the dose is negative, not finite, or does not fit the grid.
    """
    if dose_gy.shape != grid.shape_zyx:
        raise BadInput(f"{study.patient_id}: a dose of {dose_gy.shape} voxels does not fit its grid {grid.shape_zyx}")
    if not np.all(np.isfinite(dose_gy)) or dose_gy.min() < 0:
        raise BadInput(f"{study.patient_id}: a dose must be finite and not negative to be written")
    ds = new_object(study, RTDoseStorage, "RTDOSE", "rtdose")
    scaling = f"{max(float(dose_gy.max()), 1e-3) / (2**bits - 2):.10E}"
    stored = np.rint(dose_gy.astype(np.float64) / float(scaling)).astype(f"<u{bits // 8}")
    frames, corner, _ = _in_scanner_order(stored, grid, study.position)
    ds.ContentDate, ds.ContentTime, ds.InstanceNumber = "", "", 1
    ds.ImagePositionPatient = decimals(corner, 4)
    ds.ImageOrientationPatient = decimals(IMAGE_AXES[study.position], 1)
    ds.SliceThickness = decimal(grid.spacing_mm[0], 4)
    ds.NumberOfFrames, ds.FrameIncrementPointer = len(frames), Tag("GridFrameOffsetVector")
    # Relative offsets run along the normal of the image axes, which is the frames' own order (PS3.3 C.8.8.3.2).
    ds.GridFrameOffsetVector = decimals(np.arange(len(frames)) * grid.spacing_mm[0], 4)
    ds.DoseUnits, ds.DoseType, ds.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    ds.DoseGridScaling, ds.TissueHeterogeneityCorrection = scaling, "IMAGE"
    if plan is not None:
        ds.ReferencedRTPlanSequence = [refer_to(plan)]
    if structures is not None:
        ds.ReferencedStructureSetSequence = [refer_to(structures)]
    set_pixels(ds, frames, grid, bits)
    return ds
