"""DVHs on a dose of one plane: shares of area, never volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.planes import TINY_MM
from doseledger.dicom.contours import Stack, layers_of
from doseledger.dicom.read_dose import Dose
from doseledger.dosimetry.dvh.grammar import Measure, Statistic
from doseledger.dosimetry.dvh.slab_dose import slab_dose
from doseledger.dosimetry.dvh.slabs import Slabs, make_slabs
from doseledger.dosimetry.dvh.statistics import SampledDose

NO_VOLUME = "one plane has no volume"


@dataclass(frozen=True)
class DosePlane:
    """Where a dose of one plane lies.

    Parameters
    ----------
    axis
        The one that it is normal to: 0, 1, 2 for z, y, x.
    position_mm
        On that axis, LPS.
    dose_thickness_mm
        What the dose file says of its thickness; None where it says nothing.
    """

    axis: int
    position_mm: float
    dose_thickness_mm: float | None

    def describe(self) -> dict[str, Any]:
        """Return the plane as JSON values."""
        return {
            "axis": "zyx"[self.axis],
            "position_mm": self.position_mm,
            "dose_slice_thickness_mm": self.dose_thickness_mm,
            "shares_are_of": "area",
        }

    def missed_by(self, stack: Stack) -> str:
        """Return why a structure does not meet the plane; empty where it may."""
        low, high = (float(corner[self.axis]) for corner in stack.box_mm())
        margin = max(part.slice_mm for part in stack.parts()) / 2.0 if self.axis == 0 else 0.0
        if low - margin - TINY_MM <= self.position_mm <= high + margin + TINY_MM:
            return ""
        return f"it does not meet the plane: its contours reach from {'zyx'[self.axis]} {low:.1f} to {high:.1f} mm"


def find_plane(dose: Dose, thickness_mm: float | None, case_id: str) -> DosePlane:
    """Return where a dose of one plane lies.

    Raises
    ------
    BadCase
        If the dose is a line or a point.
    """
    flat = [axis for axis, n in enumerate(dose.grid.shape_zyx) if n == 1]
    if len(flat) != 1:
        raise BadCase(case_id, f"RTDOSE has {dose.grid.shape_zyx} points (z, y, x), wanted a plane or a volume of them")
    return DosePlane(flat[0], dose.grid.origin_mm[flat[0]], thickness_mm)


def slabs_of(stack: Stack, grid: Grid) -> Slabs:
    """Return a structure as slabs; `grid` has the pixels on which missing slices are filled in."""
    layers = layers_of(stack, grid)
    return make_slabs([(layer.z_mm, layer.contours) for layer in layers], np.asarray([x.thickness_mm for x in layers]))


def dose_of_cut(stack: Stack, dose: Dose, plane: DosePlane, grid: Grid, n_points: int) -> SampledDose:
    """Return the dose of a structure's cut with a plane of dose.

    Parameters
    ----------
    grid
        On whose pixels slices without contours are filled in.
    n_points
        Points in the cut, about.

    Notes
    -----
    The samples stand for a sheet 1 mm thick, in which dose does not change: their volume in mm³ is the area in mm². An
    axial plane has the contours of the slice that it lies in, an upright one what it cuts from each slice's slab.
    """
    slabs = slabs_of(stack, grid).cut(plane.axis, plane.position_mm)
    return slab_dose(dose.dose_gy, _one_mm_thick(dose.grid, plane.axis), slabs, n_points)


def area_cm2(volume_cc: float, thickness_mm: float) -> float:
    """Return the area in cm² of a sheet of a volume in cm³."""
    return volume_cc / (thickness_mm / 10.0)


def measure_on_plane(sampled: SampledDose, statistic: Statistic, prescription_gy: float | None) -> Measure:
    """Return a statistic of a cut: doses, and volumes in percent as shares of area; NaN and a reason for all else.

    Raises
    ------
    BadInput
        If the statistic needs a prescription and none is given.
    """
    if statistic.kind == "dose_at_cc" or statistic.unit == "cc" or statistic.needs_whole_dose:
        return Measure(math.nan, statistic.unit, NO_VOLUME)
    return sampled.measure(statistic, prescription_gy)


def describe_plane(plane: dict[str, Any]) -> str:
    """Return what a reader must know before the numbers of a plane."""
    thickness = plane["dose_slice_thickness_mm"]
    said = "" if thickness is None else f" (dose slice {thickness:g} mm thick)"
    return (
        f"one plane at {plane['axis']} = {plane['position_mm']:.2f} mm: areas, not volumes{said}. "
        "Percents are shares of the area; volumes, D2cc and the like, CI and R50 have no value"
    )


def _one_mm_thick(grid: Grid, axis: int) -> Grid:
    """Return a plane's grid with voxels that are 1 mm across it."""
    spacing = np.asarray(grid.spacing_mm)
    spacing[axis] = 1.0
    return Grid(grid.shape_zyx, (spacing[0], spacing[1], spacing[2]), grid.origin_mm)
