"""A gamma map as RTDOSE: relative numbers beside the dose that they judge."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.types import Array
from doseledger.dicom.values import text_of
from doseledger.dicom.write.objects import Study, reference_item
from doseledger.dicom.write.prediction import LONG_STRING, share_study
from doseledger.dicom.write.volumes import make_dose

NEEDED = ("StudyInstanceUID", "FrameOfReferenceUID")


def make_gamma_dose(reference: Dataset, gamma: Array, grid: Grid, *, label: str, key: str, version: str) -> Dataset:
    """Return a gamma map as RTDOSE, in the study and frame of the dose whose points were asked.

    Parameters
    ----------
    gamma
        Gamma (z, y, x) on `grid`; NaN, where there is none, is written as 0.
    label
        The criteria in words; begins the comment and the series' description.
    key
        From which the UIDs follow: another map needs another key.

    Raises
    ------
    BadInput
        If the reference names no study or frame of reference.

    Notes
    -----
    Dose Units RELATIVE and Dose Type ERROR, a difference of two doses (PS3.3 C.8.8.3): no reader that wants Gy takes it
    for a dose. Summation and plan are the reference's.
    """
    missing = [name for name in NEEDED if not text_of(reference, name)]
    if missing:
        raise BadInput(f"the reference has no {' and no '.join(missing)}: a gamma map could not be linked to it")
    # A dose names no position of the patient: the map is written for one that lies on the back, head first.
    study = Study.of_image(reference, key, position="HFS")
    ds = make_dose(study, np.nan_to_num(gamma, nan=0.0), grid, bits=16)
    share_study(ds, reference)
    ds.DoseUnits, ds.DoseType = "RELATIVE", "ERROR"
    ds.DoseSummationType = text_of(reference, "DoseSummationType") or "PLAN"
    for keyword in ("ReferencedRTPlanSequence", "ReferencedStructureSetSequence"):
        if items := reference.get(keyword):
            links = [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in items]
            setattr(ds, keyword, [reference_item(*link) for link in links])
    del ds.TissueHeterogeneityCorrection
    ds.DoseComment = f"{label}; 0 also where there is none"[:LONG_STRING]
    ds.SeriesDescription = label[:LONG_STRING]
    ds.Manufacturer, ds.ManufacturerModelName = "doseledger", "GAMMA (research)"
    ds.SoftwareVersions = version[:LONG_STRING]
    return ds
