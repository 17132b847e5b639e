"""DVH of structures on a dose of one plane: shares of the area that the plane cuts out of them, never volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.contour_layers import layers_of
from doseledger.dicom.contours import Polygon, stack_contours
from doseledger.dicom.read_dose import Dose
from doseledger.dosimetry.dvh.grammar import Measure, Statistic
from doseledger.dosimetry.dvh.slab_dose import slab_dose
from doseledger.dosimetry.dvh.slabs import make_slabs
from doseledger.dosimetry.dvh.statistics import StructureDose

NO_VOLUME = "one plane has no volume"
# Contours on one slice alone don't tell how thick it is: the plane must then lie on them, to DICOM's decimals.
ON_CONTOUR_MM = 0.1


@dataclass(frozen=True)
class DosePlane:
    """Where a dose of one plane lies.

    Parameters
    ----------
    axis
        The one that it is normal to: 0, 1, 2 for z, y, x.
    position_mm
        On that axis, LPS.
    slice_mm
        Distance of the contours' slices; None where they lie on one.
    dose_thickness_mm
        What the dose file says of its thickness; None where it says nothing.
    """

    axis: int
    position_mm: float
    slice_mm: float | None
    dose_thickness_mm: float | None

    def describe(self) -> dict[str, Any]:
        """Return the plane as JSON values."""
        return {
            "axis": "zyx"[self.axis],
            "position_mm": self.position_mm,
            "contour_spacing_mm": self.slice_mm,
            "dose_slice_thickness_mm": self.dose_thickness_mm,
            "shares_are_of": "area",
        }

    def missed_by(self, contours: list[tuple[float, Polygon]]) -> str:
        """Return why a structure does not meet the plane; empty where it may."""
        if self.axis == 0:
            margin = ON_CONTOUR_MM if self.slice_mm is None else self.slice_mm / 2.0
            low, high = min(z for z, _ in contours), max(z for z, _ in contours)
        else:
            margin, column = 0.0, 2 - self.axis
            low = min(float(points[:, column].min()) for _, points in contours)
            high = max(float(points[:, column].max()) for _, points in contours)
        if low - margin <= self.position_mm <= high + margin:
            return ""
        return f"it does not meet the plane: its contours reach from {'zyx'[self.axis]} {low:.1f} to {high:.1f} mm"


def find_plane(dose: Dose, slice_mm: float | None, thickness_mm: float | None, case_id: str) -> DosePlane:
    """Return where a dose of one plane lies.

    Raises
    ------
    BadCase
        If the dose is a line or a point, or the plane is upright while the contours lie on one slice.
    """
    flat = [axis for axis, n in enumerate(dose.grid.shape_zyx) if n == 1]
    if len(flat) != 1:
        raise BadCase(case_id, f"RTDOSE has {dose.grid.shape_zyx} points (z, y, x), wanted a plane or a volume of them")
    if slice_mm is None and flat[0] != 0:
        raise BadCase(
            case_id,
            "all contours lie on one slice, how thick it is can't be told, and the dose plane stands across it; "
            "give an RTSTRUCT of more slices, or an axial plane",
        )
    return DosePlane(flat[0], dose.grid.origin_mm[flat[0]], slice_mm, thickness_mm)


def cut_of_contours(
    contours: list[tuple[float, Polygon]], dose: Dose, plane: DosePlane, grid: Grid, who: tuple[str, str], n_points: int
) -> tuple[StructureDose, float, list[str]]:
    """Return the dose of a structure's cut with a plane, the cut's area in cm² beyond the dose, and warnings.

    Parameters
    ----------
    contours
        (z in mm, points) of each closed contour.
    dose
        One plane of dose.
    plane
        Where it lies.
    grid
        The contours' slices.
    who
        Case and structure, for errors.
    n_points
        Points in the cut, about.

    Notes
    -----
    The samples stand for a sheet 1 mm thick, in which dose does not change: their volume in mm³ is the area in mm². An
    axial plane has the contours of the slice that it lies in, an upright one what it cuts from each slice's slab.
    """
    stack, warnings = stack_contours(contours, grid, *who)
    slabs = make_slabs(layers_of(stack, grid), grid.spacing_mm[0]).cut(plane.axis, plane.position_mm)
    samples, outside_cc = slab_dose(dose.dose_gy, _one_mm_thick(dose.grid, plane.axis), slabs, n_points)
    return samples, area_cm2(outside_cc, 1.0), warnings


def area_cm2(volume_cc: float, thickness_mm: float) -> float:
    """Return the area in cm² of a sheet of a volume in cm³."""
    return volume_cc / (thickness_mm / 10.0)


def measure_on_plane(samples: StructureDose, statistic: Statistic, prescription_gy: float | None) -> Measure:
    """Return a statistic of a cut: doses, and volumes in percent as shares of area; NaN and a reason for all else.

    Raises
    ------
    BadInput
        If the statistic needs a prescription and none is given.
    """
    if statistic.kind == "dose_at_cc" or statistic.unit == "cc" or statistic.needs_whole_dose:
        return Measure(math.nan, statistic.unit, NO_VOLUME)
    return samples.measure(statistic, prescription_gy)


def describe_plane(plane: dict[str, Any]) -> str:
    """Return what a reader must know before the numbers of a plane."""
    spacing = plane["contour_spacing_mm"]
    said = "contours on one slice" if spacing is None else f"contours {spacing:g} mm apart"
    thickness = plane["dose_slice_thickness_mm"]
    if thickness is not None:
        said += f", dose slice {thickness:g} mm thick"
    return (
        f"one plane at {plane['axis']} = {plane['position_mm']:.2f} mm: areas, not volumes ({said}). "
        "Percents are shares of the area; volumes, D2cc and the like, CI and R50 have no value"
    )


def _one_mm_thick(grid: Grid, axis: int) -> Grid:
    """Return a plane's grid with voxels that are 1 mm across it."""
    spacing = np.asarray(grid.spacing_mm)
    spacing[axis] = 1.0
    return Grid(grid.shape_zyx, (spacing[0], spacing[1], spacing[2]), grid.origin_mm)
