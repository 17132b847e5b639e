"""The place of voxels about the targets: along z by ends, across by centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case

# As far from the middle all targets' ends are put, whatever their length: beams end with the targets, not at a distance
# from their centre.
HALF_LENGTH_MM = 60.0


@dataclass(frozen=True)
class TargetPlace:
    """Where a case's targets are, in voxels.

    Parameters
    ----------
    ends_z
        First and last slice that holds a voxel of any target.
    centre_yx
        Centre of the present target with the highest prescription.
    """

    ends_z: tuple[float, float]
    centre_yx: tuple[float, float]

    def along_mm(self, slices: NDArray[Any], step_mm: float) -> NDArray[np.float64]:
        """Return where slices lie along the targets: stretched to ±`HALF_LENGTH_MM` between their ends, mm beyond."""
        first, last = self.ends_z
        between = (2.0 * (slices - first) / self._length - 1.0) * HALF_LENGTH_MM
        below, above = (slices - first) * step_mm - HALF_LENGTH_MM, (slices - last) * step_mm + HALF_LENGTH_MM
        return np.where(slices < first, below, np.where(slices > last, above, between))

    @property
    def _length(self) -> float:
        # Targets in one slice only have no length to stretch.
        return max(self.ends_z[1] - self.ends_z[0], 1.0)


def find_place(case: Case) -> TargetPlace | None:
    """Return where a case's targets are; None where none is there."""
    if case.main_target is None:
        return None
    slices = np.flatnonzero(np.logical_or.reduce([case.mask(name).any(axis=(1, 2)) for name in case.prescription_gy]))
    _, y, x = np.argwhere(case.mask(case.main_target)).mean(axis=0)
    return TargetPlace((float(slices[0]), float(slices[-1])), (float(y), float(x)))
