"""A plan made of a predicted dose as RTPLAN, and its dose with DVHs as RTDOSE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from doseledger.core.grid import Grid
from doseledger.core.plan import Plan
from doseledger.dicom.write.objects import decimal, decimals
from doseledger.dicom.write.plan import BeamDevice, make_plan
from doseledger.dicom.write.prediction import LONG_STRING, Heading, sign
from doseledger.dicom.write.volumes import make_dose

EQUIPMENT = "MIMICKED PLAN (research)"
# dciodvfy aborts on 32 bits; 16 err by at most half of a 65,534th of the maximum.
DOSE_BITS: Literal[16, 32] = 16


@dataclass(frozen=True)
class RoiDvh:
    """The cumulative DVH of one structure.

    Parameters
    ----------
    roi_number
        Of the structure set.
    volume_cc
        Volume of at least the dose at which each bin begins, (bin,), falling.
    least_gy, mean_gy, most_gy
        Over the structure.
    """

    roi_number: int
    bin_gy: float
    volume_cc: NDArray[np.float64]
    least_gy: float
    mean_gy: float
    most_gy: float


def make_mimicking_plan(
    heading: Heading,
    plan: Plan,
    device: BeamDevice,
    on: tuple[Dataset, Mapping[str, int]],
    beam_dose_gy: list[float],
) -> Dataset:
    """Return the RTPLAN of a plan that mimics a predicted dose.

    Parameters
    ----------
    on
        The structure set that was planned on, and the ROI number of each target.
    beam_dose_gy
        Dose of each beam in a fraction at its isocentre.
    """
    structures, numbers = on
    ds = make_plan(heading.study, plan, device, structures, numbers)
    ds.RTPlanDescription = f"Mimics a dose predicted by {_source(heading)}; for research, not approved"
    for item, arc, dose_gy in zip(
        ds.FractionGroupSequence[0].ReferencedBeamSequence, plan.arcs, beam_dose_gy, strict=True
    ):
        item.BeamDoseSpecificationPoint = decimals(arc.isocentre_xyz_mm, 4)
        item.BeamDose = decimal(dose_gy, 6)
    return sign(ds, heading, f"Plan that mimics {heading.by.model}", EQUIPMENT)


def make_mimicking_dose(
    heading: Heading,
    dose_gy: NDArray[np.floating[Any]],
    grid: Grid,
    on: tuple[Dataset, Dataset],
    dvhs: list[RoiDvh],
) -> Dataset:
    """Return the RTDOSE of that plan, calculated from its control points, with a DVH of each structure.

    Parameters
    ----------
    dose_gy
        Dose in Gy, (z, y, x) on `grid`; finite and not negative.
    """
    plan, structures = on
    ds = make_dose(heading.study, dose_gy, grid, plan=plan, structures=structures, bits=DOSE_BITS)
    ds.DoseComment = f"Calculated; mimics {_source(heading)}"[:LONG_STRING]
    ds.DVHSequence = [_dvh(dvh) for dvh in dvhs]
    return sign(ds, heading, f"Dose of the plan that mimics {heading.by.model}", EQUIPMENT)


def _source(heading: Heading) -> str:
    # The model's name gives way, and not the digest, where both are too long.
    return f"{heading.by.model[:24]} ({heading.by.checkpoint_sha256[:12]})"


def _dvh(dvh: RoiDvh) -> Dataset:
    """The item of one structure (PS3.3 C.8.8.4): pairs of a bin's width in Gy and the volume in cm³."""
    item, roi = Dataset(), Dataset()
    roi.ReferencedROINumber, roi.DVHROIContributionType = dvh.roi_number, "INCLUDED"
    item.DVHReferencedROISequence = [roi]
    item.DVHType, item.DoseUnits, item.DoseType = "CUMULATIVE", "GY", "PHYSICAL"
    item.DVHDoseScaling, item.DVHVolumeUnits, item.DVHNumberOfBins = "1", "CM3", len(dvh.volume_cc)
    width = decimal(dvh.bin_gy, 4)
    item.DVHData = [text for volume in dvh.volume_cc for text in (width, decimal(float(volume), 4))]
    item.DVHMinimumDose, item.DVHMeanDose = decimal(dvh.least_gy, 4), decimal(dvh.mean_gy, 4)
    item.DVHMaximumDose = decimal(dvh.most_gy, 4)
    return item
