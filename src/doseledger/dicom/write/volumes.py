"""CT series and doses as DICOM, linked to one another.

Arrays come on ascending LPS grids (core.grid); images leave in the order that a scanner writes for the patient's
position. Structure sets are in `write_structures`, plans in `write_plan`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, RTDoseStorage

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.position import IMAGE_AXES, Position
from doseledger.dicom.write.objects import Study, decimal, decimals, new_object, refer_to, set_pixels

# CT is stored unsigned: 0 is −1024 HU, as on most scanners.
CT_INTERCEPT = -1024


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
