"""A predicted dose as RTDOSE, with a plan without beams that holds its links.

An RTDOSE of a plan must name a plan (PS3.3 C.8.8.3), and the plan names the structure set. The plan in the patient's
files did not give this dose, so it is never named: a plan of our own is, which has no beam and can't be delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.uid import RTPlanStorage

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.write.objects import Study, decimal, new_object, refer_to
from doseledger.dicom.write.volumes import make_dose

# What the objects of one patient and one study share (PS3.3 C.7.1.1, C.7.2.1); an identity that was removed stays so.
SHARED_KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("LongitudinalTemporalInformationModified",),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
)
# Values of LO (PS3.5 6.2).
LONG_STRING = 64
LABEL = "PREDICTED"


@dataclass(frozen=True)
class PredictedBy:
    """What made a dose: the model's name, the SHA256 of its checkpoint, and this program's version."""

    model: str
    checkpoint_sha256: str
    version: str

    @property
    def description(self) -> str:
        """Title of the series, for whoever picks it from a list."""
        return f"{LABEL} dose, {self.model}"[:LONG_STRING]

    @property
    def comment(self) -> str:
        """What whoever opens the dose must know."""
        return f"{LABEL} by a network ({self.checkpoint_sha256[:12]}), not calculated"


@dataclass(frozen=True)
class Heading:
    """What the objects of one delivery share: the study, an image of it, and what made the dose."""

    study: Study
    image: Dataset
    by: PredictedBy


def make_heading(image: Dataset, by: PredictedBy, *, key: str, case_id: str) -> Heading:
    """Return the heading of new objects beside an image.

    Parameters
    ----------
    key
        From which the UIDs of new objects follow: another dose needs another key.

    Raises
    ------
    BadCase
        If the image names no study or frame of reference, or the patient lies in a position that can't be written.
    """
    missing = [name for name in ("StudyInstanceUID", "FrameOfReferenceUID") if not image.get(name)]
    if missing:
        raise BadCase(case_id, f"the image has no {' and no '.join(missing)}: a dose could not be linked to it")
    try:
        return Heading(Study.of_image(image, key), image, by)
    except (AttributeError, BadInput) as error:
        raise BadCase(case_id, f"no dose can be written for this image: {error}") from error


def make_predicted_plan(
    heading: Heading, structures: Dataset, prescription_gy: Mapping[int, float], n_fractions: int | None
) -> Dataset:
    """Return a plan without beams: what a predicted dose refers to, and what it was predicted for.

    Parameters
    ----------
    structures
        The structure set that the dose was predicted on.
    prescription_gy
        Prescribed dose in Gy by ROI number.
    n_fractions
        Fractions; None where there is no prescription.
    """
    study = heading.study
    ds = new_object(study, RTPlanStorage, "RTPLAN", "predicted rtplan")
    ds.RTPlanLabel, ds.RTPlanDate, ds.RTPlanTime = LABEL, "", ""
    ds.RTPlanDescription = f"{heading.by.comment}; it has no beams and can't be delivered"
    ds.InstanceNumber, ds.RTPlanGeometry, ds.PlanIntent = 1, "PATIENT", "RESEARCH"
    ds.ApprovalStatus = "UNAPPROVED"
    ds.ReferencedStructureSetSequence = [refer_to(structures)]
    references = []
    for number, (roi_number, dose_gy) in enumerate(prescription_gy.items(), 1):
        item = Dataset()
        item.DoseReferenceNumber, item.DoseReferenceUID = number, study.uid("predicted dose reference", number)
        item.DoseReferenceStructureType, item.ReferencedROINumber = "VOLUME", roi_number
        item.DoseReferenceType, item.TargetPrescriptionDose = "TARGET", decimal(dose_gy, 4)
        references.append(item)
    if references:
        ds.DoseReferenceSequence = references
    group = Dataset()
    group.FractionGroupNumber, group.NumberOfFractionsPlanned = 1, n_fractions
    group.NumberOfBeams = group.NumberOfBrachyApplicationSetups = 0
    ds.FractionGroupSequence = [group]
    return sign(ds, heading)


def make_predicted_dose(
    heading: Heading, dose_gy: NDArray[np.floating[Any]], grid: Grid, *, plan: Dataset, bits: Literal[16, 32]
) -> Dataset:
    """Return a predicted dose that says so wherever a planning system shows it.

    Parameters
    ----------
    dose_gy
        Dose in Gy, (z, y, x) on `grid`; finite and not negative.
    plan
        The plan that holds its links, of `make_predicted_plan`.
    bits
        Bits of a stored value; a unit of the last bit is max / 2^bits.

    Raises
    ------
    BadInput
        If the dose is negative, not finite, or does not fit the grid.
    """
    study = heading.study
    ds = make_dose(study, dose_gy, grid, plan=plan, bits=bits)
    ds.SOPInstanceUID, ds.SeriesInstanceUID = study.uid("predicted rtdose", 1), study.uid("predicted rtdose")
    ds.DoseComment = heading.by.comment
    # A network has corrected for nothing that it could vouch for.
    del ds.TissueHeterogeneityCorrection
    return sign(ds, heading)


def share_study(ds: Dataset, image: Dataset) -> None:
    """Give an object the patient's and the study's attributes as an image has them."""
    for keyword in SHARED_KEYWORDS:
        if keyword in image:
            setattr(ds, keyword, _copied(image[keyword]))


def _copied(element: DataElement) -> Any:
    """An element's value for another file; as text, since a name keeps the bytes of its own file's character set."""
    if element.VR == "SQ":
        return deepcopy(element.value)
    if element.VM > 1:
        return [str(item) for item in element.value]
    return "" if element.value is None else str(element.value)


def sign(ds: Dataset, heading: Heading, title: str = "", equipment: str = f"{LABEL} DOSE (research)") -> Dataset:
    """Return an object with the patient's and the study's attributes as the image has them, and who made it.

    Parameters
    ----------
    title
        Of its series; that of the predicted dose where it is empty.
    """
    share_study(ds, heading.image)
    ds.SeriesDescription = (title or heading.by.description)[:LONG_STRING]
    ds.Manufacturer, ds.ManufacturerModelName = "doseledger", equipment
    ds.SoftwareVersions = heading.by.version[:LONG_STRING]
    return ds
