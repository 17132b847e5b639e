"""Common parts of our DICOM objects: pseudonym, deterministic UIDs, no clock.

UIDs are made from names, so that the same content always gives the same bytes.
"""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from doseledger.core.grid import Grid
from doseledger.dicom.position import Position, check_position

# Name space of this package's UIDs (a random UUID, drawn once); a UID is 2.25 and a UUID as an integer (PS3.5 B.2).
NAMESPACE = uuid.UUID("5c1c3a39-4d0e-4c6a-9d0f-6f1d1d0a7f52")
SERIES_NUMBER = {"CT": 1, "RTSTRUCT": 2, "RTPLAN": 3, "RTDOSE": 4, "SEG": 5}
IMPLEMENTATION = f"2.25.{uuid.uuid5(NAMESPACE, 'implementation').int}"


@dataclass(frozen=True)
class Study:
    """Whose objects these are, and the UIDs that they share.

    Parameters
    ----------
    patient_id, patient_name, patient_sex
        A pseudonym, never a person.
    study_uid, frame_of_reference_uid
        Shared by all objects.
    key
        From which the UIDs of new objects follow: another content needs another key.
    """

    patient_id: str
    patient_name: str
    patient_sex: str
    study_uid: str
    frame_of_reference_uid: str
    position: Position
    key: str

    @classmethod
    def of_image(cls, image: Dataset, key: str, position: Position | None = None) -> Study:
        """Return the study that an image belongs to, for new objects beside it (a predicted dose, say).

        `position` stands in for the image's, where what is written depends on none, as contours do.
        """
        return cls(
            patient_id=str(image.get("PatientID", "")),
            patient_name=str(image.get("PatientName", "")),
            patient_sex=str(image.get("PatientSex", "")),
            study_uid=str(image.StudyInstanceUID),
            frame_of_reference_uid=str(image.FrameOfReferenceUID),
            position=position or check_position(str(image.PatientPosition)),
            key=key,
        )

    def uid(self, *names: object) -> str:
        """Return the UID of one of this study's objects: equal names, equal UID."""
        return make_uid(self.key, *names)


def make_uid(*names: object) -> str:
    """Return the UID of a list of names: equal names, equal UID."""
    return f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(str(name) for name in names)).int}"


def decimal(value: float, places: int) -> str:
    """Return a number as a decimal string of at most 16 characters (DS), without trailing zeros.

    Examples
    --------
    >>> decimal(-12.50001, 4), decimal(-0.00001, 2)
    ('-12.5', '0')
    """
    text = f"{value:.{places}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def decimals(values: Any, places: int) -> list[str]:
    """Return numbers as decimal strings."""
    return [decimal(float(value), places) for value in np.asarray(values).ravel()]


def to_bytes(dataset: Dataset) -> bytes:
    """Return a dataset as a DICOM file: explicit little endian, nothing in it from this machine."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "DOSELEDGER"
    dataset.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def new_object(study: Study, sop_class: str, modality: str, series: str, instance: object = 1) -> Dataset:
    """Return a dataset with the modules that every object has: patient, study, series, equipment, SOP common.

    Dates, times and people are empty: they are type 2, and an object without them identifies nobody.
    """
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = study.uid(series, instance)
    ds.PatientName, ds.PatientID = study.patient_name, study.patient_id
    ds.PatientBirthDate, ds.PatientSex = "", study.patient_sex
    ds.StudyInstanceUID, ds.StudyID = study.study_uid, ""
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName = "", "", "", ""
    ds.Modality = modality
    ds.SeriesInstanceUID, ds.SeriesNumber = study.uid(series), SERIES_NUMBER.get(modality)
    if modality != "CT":
        ds.OperatorsName = ""
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = study.frame_of_reference_uid, ""
    ds.Manufacturer = ""
    return ds


def refer_to(dataset: Dataset) -> Dataset:
    """Return a reference item to an object."""
    return reference_item(dataset.SOPClassUID, dataset.SOPInstanceUID)


def reference_item(class_uid: str, instance_uid: str) -> Dataset:
    """Return a reference item to the object of a SOP class and instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
    return item


def set_pixels(ds: Dataset, pixels: NDArray[Any], grid: Grid, bits: int) -> None:
    """Give an image or a dose its unsigned pixels, (…, y, x), and what describes them."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.PixelSpacing = decimals(grid.spacing_mm[1:], 6)
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    data = np.ascontiguousarray(pixels).tobytes()
    ds.add_new("PixelData", "OW", data if len(data) % 2 == 0 else data + b"\0")
