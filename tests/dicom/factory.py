"""Tiny DICOM-RT patients of known geometry, written with pydicom alone: no code under test makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

SOP_CLASS = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
    "RTPLAN": "1.2.840.10008.5.1.4.1.1.481.5",
}
FRAME, STUDY, CT_SERIES = "1.2.3.100", "1.2.3.200", "1.2.3.300"
AXES = {
    "HFS": (1, 0, 0, 0, 1, 0),
    "HFP": (-1, 0, 0, 0, -1, 0),
    "FFS": (-1, 0, 0, 0, 1, 0),
    "FFP": (1, 0, 0, 0, -1, 0),
    "HFDL": (0, -1, 0, 1, 0, 0),
    "HFDR": (0, 1, 0, -1, 0, 0),
    "FFDL": (0, 1, 0, 1, 0, 0),
    "FFDR": (0, -1, 0, -1, 0, 0),
}
Contour = tuple[float, np.ndarray]


def rectangle(x0: float, x1: float, y0: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def circle(x: float, y: float, radius: float, n: int = 180) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)])


def stacked(polygon: np.ndarray, z_mm: np.ndarray) -> list[Contour]:
    return [(float(z), polygon) for z in z_mm]


@dataclass
class Patient:
    """A patient whose files can be changed before they are written."""

    ct: list[Dataset]
    rtstruct: Dataset
    rtdose: Dataset
    rtplan: Dataset
    patient_id: str = "anon_007"
    extra: list[Dataset] = field(default_factory=list)

    @property
    def all(self) -> list[Dataset]:
        return [*self.ct, self.rtstruct, self.rtdose, self.rtplan, *self.extra]

    def roi(self, name: str) -> Dataset:
        return next(roi for roi in self.rtstruct.StructureSetROISequence if roi.ROIName == name)

    def drop_roi(self, name: str) -> None:
        number = self.roi(name).ROINumber
        ds = self.rtstruct
        ds.StructureSetROISequence = [r for r in ds.StructureSetROISequence if r.ROINumber != number]
        ds.ROIContourSequence = [r for r in ds.ROIContourSequence if r.ReferencedROINumber != number]
        ds.RTROIObservationsSequence = [r for r in ds.RTROIObservationsSequence if r.ReferencedROINumber != number]

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for index, ds in enumerate(self.all):
            ds.save_as(folder / f"{ds.Modality}_{index:03d}.dcm", enforce_file_format=True)
        return folder


def base(modality: str, uid: str, patient_id: str = "anon_007") -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = SOP_CLASS[modality]
    ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = SOP_CLASS[modality], uid, modality
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = STUDY, FRAME
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.StudyDate = patient_id, patient_id, "", ""
    return ds


def make_ct(
    volume: np.ndarray,
    spacing_zyx: tuple[float, float, float],
    origin_zyx: tuple[float, float, float],
    slope: float = 1.0,
    intercept: float = -1024.0,
    position: str = "HFS",
) -> list[Dataset]:
    """Slices of a (z, y, x) volume in HU, rows and columns turned as a scanner writes them in that position."""
    axes = np.array(AXES[position], dtype=float)
    stored, first, row_mm, column_mm, direction = _turned(volume, spacing_zyx, origin_zyx, axes)
    slices = []
    for k, plane in enumerate(stored):
        ds = base("CT", f"1.2.3.300.{k + 1}")
        ds.SeriesInstanceUID, ds.InstanceNumber, ds.PatientPosition = CT_SERIES, k + 1, position
        ds.ImagePositionPatient = [*first[:2], first[2] + direction * k * spacing_zyx[0]]
        ds.ImageOrientationPatient = list(axes)
        ds.PixelSpacing, ds.SliceThickness = [row_mm, column_mm], spacing_zyx[0]
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        _set_pixels(ds, np.rint((plane - intercept) / slope).astype(np.uint16))
        slices.append(ds)
    return slices


def _turned(volume, spacing, origin, axes):
    """(plane, row, column) of a (z, y, x) volume for given direction cosines, and where its first pixel is."""
    row, column = axes[:3], axes[3:]
    normal = np.cross(row, column)
    first, order, step = np.zeros(3), [], []
    array = volume
    for direction in (normal, column, row):
        world = int(np.argmax(np.abs(direction)))
        order.append(2 - world)
    for direction in (normal, column, row):
        world = int(np.argmax(np.abs(direction)))
        axis = 2 - world
        low, n, d = origin[axis], volume.shape[axis], spacing[axis]
        first[world] = low if direction[world] > 0 else low + (n - 1) * d
        if direction[world] < 0:
            array = np.flip(array, axis)
        step.append(d)
    return np.transpose(array, order), first, step[1], step[2], float(normal[2])


def _set_pixels(ds: Dataset, pixels: np.ndarray) -> None:
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 8 * pixels.dtype.itemsize
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    ds["PixelData"].VR = "OW"


def make_rtstruct(rois: dict[str, list[Contour]], ct: list[Dataset], types: dict[str, str]) -> Dataset:
    ds = base("RTSTRUCT", "1.2.3.400.1")
    ds.SeriesInstanceUID, ds.StructureSetLabel = "1.2.3.400", ""
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = CT_SERIES, [_reference(item) for item in ct]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", STUDY
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = FRAME, [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn, seen = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, FRAME
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [make_contour(z, polygon) for z, polygon in contours]
        seen.ObservationNumber, seen.ReferencedROINumber = number, number
        seen.RTROIInterpretedType = types.get(name, "ORGAN")
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
        ds.RTROIObservationsSequence.append(seen)
    return ds


def make_contour(z: float, polygon: np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(polygon)
    item.ContourData = [round(float(v), 4) for x, y in polygon for v in (x, y, z)]
    return item


def _reference(ds: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return item


def make_rtdose(
    dose: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    shape_zyx: tuple[int, int, int],
    spacing_zyx: tuple[float, float, float],
    origin_zyx: tuple[float, float, float],
    position: str = "HFS",
) -> Dataset:
    """RTDOSE of a function of z, y, x in mm, offsets relative to the first plane."""
    axes_mm = [o + s * np.arange(n) for o, s, n in zip(origin_zyx, spacing_zyx, shape_zyx, strict=True)]
    values = dose(*np.meshgrid(*axes_mm, indexing="ij"))
    scaling = 1e-6
    axes = np.array(AXES[position], dtype=float)
    stored, first, row_mm, column_mm, _ = _turned(values, spacing_zyx, origin_zyx, axes)
    ds = base("RTDOSE", "1.2.3.500.1")
    ds.SeriesInstanceUID = "1.2.3.500"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = list(first), list(axes)
    ds.PixelSpacing, ds.NumberOfFrames = [row_mm, column_mm], len(stored)
    ds.FrameIncrementPointer = 0x3004000C
    ds.GridFrameOffsetVector = [float(k * spacing_zyx[0]) for k in range(len(stored))]
    ds.DoseUnits, ds.DoseType, ds.DoseSummationType, ds.DoseGridScaling = "GY", "PHYSICAL", "PLAN", scaling
    _set_pixels(ds, np.rint(stored / scaling).astype(np.uint32))
    return ds


def make_rtplan(n_fractions: int, doses: list[tuple[float, int | None]]) -> Dataset:
    """RTPLAN of one static field; `doses` are (Gy, ROI number or None)."""
    ds = base("RTPLAN", "1.2.3.600.1")
    ds.SeriesInstanceUID, ds.RTPlanLabel = "1.2.3.600", ""
    ds.DoseReferenceSequence = []
    for number, (dose, roi) in enumerate(doses, start=1):
        item = Dataset()
        item.DoseReferenceNumber, item.DoseReferenceType = number, "TARGET"
        item.DoseReferenceStructureType, item.TargetPrescriptionDose = "SITE" if roi is None else "VOLUME", dose
        if roi is not None:
            item.ReferencedROINumber = roi
        ds.DoseReferenceSequence.append(item)
    group, used = Dataset(), Dataset()
    used.ReferencedBeamNumber, used.BeamMeterset = 1, 200.0
    group.FractionGroupNumber, group.NumberOfFractionsPlanned = 1, n_fractions
    group.NumberOfBeams, group.ReferencedBeamSequence = 1, [used]
    ds.FractionGroupSequence, ds.BeamSequence = [group], [make_beam()]
    return ds


def make_beam(weights: tuple[float, ...] = (0.0, 1.0)) -> Dataset:
    beam = Dataset()
    beam.BeamNumber, beam.BeamName, beam.BeamType, beam.RadiationType = 1, "AP", "STATIC", "PHOTON"
    beam.TreatmentMachineName, beam.TreatmentDeliveryType = "", "TREATMENT"
    beam.NumberOfWedges = beam.NumberOfCompensators = beam.NumberOfBoli = beam.NumberOfBlocks = 0
    beam.FinalCumulativeMetersetWeight, beam.NumberOfControlPoints = weights[-1], len(weights)
    beam.BeamLimitingDeviceSequence, beam.ControlPointSequence = [], []
    for kind, pairs in (("ASYMX", 1), ("ASYMY", 1), ("MLCX", 4)):
        device = Dataset()
        device.RTBeamLimitingDeviceType, device.NumberOfLeafJawPairs = kind, pairs
        if pairs > 1:
            device.LeafPositionBoundaries = [-40.0, -20.0, 0.0, 20.0, 40.0]
        beam.BeamLimitingDeviceSequence.append(device)
    for index, weight in enumerate(weights):
        point = Dataset()
        point.ControlPointIndex, point.CumulativeMetersetWeight = index, weight
        if index == 0:
            point.NominalBeamEnergy, point.GantryAngle, point.GantryRotationDirection = 6.0, 10.0, "NONE"
            point.BeamLimitingDeviceAngle, point.PatientSupportAngle = 5.0, 0.0
            point.IsocenterPosition = [1.0, 2.0, 3.0]
            point.BeamLimitingDevicePositionSequence = [
                make_positions("ASYMX", [-30, 40]),
                make_positions("ASYMY", [-50, 60]),
                make_positions("MLCX", [-10, -11, -12, -13, 10, 11, 12, 13]),
            ]
        beam.ControlPointSequence.append(point)
    return beam


def make_positions(kind: str, positions: list[float]) -> Dataset:
    item = Dataset()
    item.RTBeamLimitingDeviceType, item.LeafJawPositions = kind, positions
    return item


# The patient of `make_patient`: 20 slices of 3 mm, 50 × 60 pixels of 2.5 × 2 mm.
SHAPE, SPACING, ORIGIN = (20, 50, 60), (3.0, 2.5, 2.0), (-30.0, -60.0, -59.0)
Z_MM = ORIGIN[0] + SPACING[0] * np.arange(SHAPE[0])
BODY = (-50.2, 50.2, -50.2, 50.2)


def ramp_gy(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """70 Gy on the axis, falling by 0.25 Gy a mm to +x and 0.1 Gy a mm to +z: linear, so no interpolation errs."""
    return 60.0 - 0.25 * x - 0.1 * z + 0.0 * y


def make_patient(position: str = "HFS") -> Patient:
    """PTV70 inside PTV56, a Rectum behind them, a body box, a ramp of dose, 70/56 Gy in 28 fractions."""
    z, y, x = np.meshgrid(
        *(o + s * np.arange(n) for o, s, n in zip(ORIGIN, SPACING, SHAPE, strict=True)), indexing="ij"
    )
    inside = (x > BODY[0]) & (x < BODY[1]) & (y > BODY[2]) & (y < BODY[3])
    volume = np.where(inside, 40.0 + 0.0 * z, -1000.0)
    ct = make_ct(volume, SPACING, ORIGIN, position=position)
    rois = {
        "BODY": stacked(rectangle(*BODY), Z_MM),
        "PTV_70": stacked(circle(0.3, -10.1, 12.0), Z_MM[7:13]),
        "PTV56": stacked(circle(0.3, -10.1, 20.0), Z_MM[5:15]),
        "Rect": stacked(circle(0.2, 30.3, 9.0), Z_MM[4:16]),
    }
    rtstruct = make_rtstruct(rois, ct, {"BODY": "EXTERNAL", "PTV_70": "PTV", "PTV56": "PTV"})
    rtdose = make_rtdose(ramp_gy, (22, 34, 34), (3.0, 4.0, 4.0), (-31.5, -66.0, -66.0), position=position)
    rtplan = make_rtplan(28, [(70.0, 2), (56.0, 3)])
    rtdose.ReferencedRTPlanSequence, rtplan.ReferencedStructureSetSequence = (
        [_reference(rtplan)],
        [_reference(rtstruct)],
    )
    return Patient(ct, rtstruct, rtdose, rtplan)


PROTOCOL = {
    "name": "tiny_sib",
    "title": "A tiny simultaneous boost",
    "source": "dicom",
    "modality": "CT",
    "objects": ["ct", "rtstruct", "rtdose", "rtplan"],
    "n_fractions": 28,
    "prescription_gy": {"PTV70": 70.0, "PTV56": 56.0},
    "spacing_mm": [3.0, 2.5, 2.5],
    "crop": {"margin_mm": 5.0},
    "sdf_clip_mm": 30.0,
    "body_names": ["BODY"],
    "structures": [
        {"name": "PTV70", "kind": "target", "aliases": ["PTV 70"]},
        {"name": "PTV56", "kind": "target"},
        {"name": "Rectum", "kind": "organ", "aliases": ["Rect", "Rectum_P"]},
        {"name": "Bowel", "kind": "organ", "required": False},
    ],
    "skip_when": {"any_absent": ["PTV70", "PTV56"], "reason": "not a simultaneous integrated boost"},
    "phi": {"pseudonym": "^anon_[a-z0-9]+$", "allow": [{"keyword": "PatientSex", "reason": "says O"}]},
}
