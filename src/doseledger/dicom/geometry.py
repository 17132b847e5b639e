"""DICOM plane geometry to a Grid: directions, positions, turn to ascending LPS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.values import finite, listed, value_of, what_is

# Largest direction cosine off an axis that still counts as parallel to it: 0.06 degrees, 0.25 mm at 250 mm.
PARALLEL_TOLERANCE = 1e-3
# Planes may stray this far from even steps: positions are written as decimal strings of two digits or more.
STEP_TOLERANCE_MM = 0.05


@dataclass(frozen=True)
class Planes:
    """A stack of parallel planes in patient coordinates.

    Parameters
    ----------
    row_xyz, column_xyz
        Direction cosines along which the column index and the row index grow (ImageOrientationPatient).
    row_spacing_mm, column_spacing_mm
        Distance of rows and of columns (PixelSpacing, in that order).
    first_xyz
        Centre of the first pixel of the first plane in mm (ImagePositionPatient).
    step_mm
        Signed distance from plane to plane along the normal, row × column.
    """

    row_xyz: NDArray[np.float64]
    column_xyz: NDArray[np.float64]
    row_spacing_mm: float
    column_spacing_mm: float
    first_xyz: NDArray[np.float64]
    step_mm: float


def read_orientation(dataset: pydicom.Dataset, case_id: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit direction of a row and of a column, each (x, y, z), of ImageOrientationPatient (0020,0037).

    Raises
    ------
    BadCase
        If it is absent, or is not two unit vectors at a right angle.
    """
    cosines = numbers(dataset, "ImageOrientationPatient", 6, case_id)
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1.0, atol=1e-3) or abs(float(row @ column)) > PARALLEL_TOLERANCE:
        raise BadCase(
            case_id,
            f"ImageOrientationPatient {cosines.tolist()} is not two unit vectors at a right angle; export again",
        )
    return row, column


def numbers(dataset: pydicom.Dataset, keyword: str, count: int, case_id: str) -> NDArray[np.float64]:
    """Return an attribute's `count` numbers as float64.

    Raises
    ------
    BadCase
        If the attribute is absent, or has another number of values, or one that is not finite.
    """
    try:
        values = listed(value_of(dataset, keyword))
    except BadInput as error:
        raise BadCase(case_id, str(error)) from error
    found = [item for item in map(finite, values) if item is not None]
    if len(found) != count or len(values) != count:
        kind = dataset.get("Modality", "data set")
        if not values:
            how = "empty" if keyword in dataset else "missing"
            raise BadCase(case_id, f"{keyword} of the {kind} is {how}, wanted {_count(count)}; export again")
        odd = next((what_is(item) for item in values if finite(item) is None), "")
        hint = f" (one is {odd})" if odd else ""
        raise BadCase(
            case_id,
            f"{keyword} of the {kind} has {len(found)} finite values{hint}, wanted {count}; export again",
        )
    return np.asarray(found, dtype=np.float64)


def _count(count: int) -> str:
    return "a number" if count == 1 else f"{count} numbers"


def even_step_mm(positions_mm: NDArray[np.float64]) -> float | None:
    """Return the common step of rising positions in mm, or None where they are uneven."""
    steps = np.diff(positions_mm)
    step = float((positions_mm[-1] - positions_mm[0]) / (len(positions_mm) - 1))
    even = positions_mm[0] + step * np.arange(len(positions_mm))
    # Both the single step and the drift count: 100 steps that are each 0.04 mm short lose a whole plane.
    if np.abs(steps - step).max() > 2 * STEP_TOLERANCE_MM or np.abs(positions_mm - even).max() > STEP_TOLERANCE_MM:
        return None
    return step


def to_lps(volume: NDArray[Any], planes: Planes, case_id: str, what: str) -> tuple[NDArray[Any], Grid]:
    """Return an array (plane, row, column) turned to (z, y, x) with every axis ascending in LPS, and its Grid.

    Raises
    ------
    BadCase
        If the planes are oblique to the patient's axes.
    """
    normal = np.cross(planes.row_xyz, planes.column_xyz)
    # Directions in which the indices (plane, row, column) grow, each as a vector (x, y, z).
    directions = [normal * np.sign(planes.step_mm), planes.column_xyz, planes.row_xyz]
    spacings = [abs(planes.step_mm), planes.row_spacing_mm, planes.column_spacing_mm]
    world = []
    for direction in directions:
        axis = int(np.argmax(np.abs(direction)))
        off_axis = np.abs(np.delete(direction, axis)).max()
        if off_axis > PARALLEL_TOLERANCE:
            degrees = float(np.degrees(np.arcsin(min(1.0, off_axis))))
            raise BadCase(
                case_id,
                f"the {what} is tilted by {degrees:.2f} degrees against the patient's axes; resampling it would blur "
                "image and contours unseen. Reconstruct or resample it to axial planes before export",
            )
        world.append(axis)
    # world[i] is x=0, y=1 or z=2 of array axis i; the Grid's order is z, y, x.
    order = [world.index(axis) for axis in (2, 1, 0)]
    turned = np.transpose(volume, order)
    spacing, origin = [], []
    for position, source_axis in enumerate(order):
        axis = world[source_axis]
        start, count = float(planes.first_xyz[axis]), volume.shape[source_axis]
        if directions[source_axis][axis] < 0:
            turned = np.flip(turned, position)
            start -= (count - 1) * spacings[source_axis]
        spacing.append(spacings[source_axis])
        origin.append(start)
    shape = (turned.shape[0], turned.shape[1], turned.shape[2])
    return turned, Grid(shape, (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))


def from_lps(volume: NDArray[Any], planes: Planes) -> NDArray[Any]:
    """Return an array (z, y, x) that ascends in LPS as the planes have it, (plane, row, column): `to_lps` undone.

    Parameters
    ----------
    volume
        On the Grid that `to_lps` gave of these planes, which are not oblique.
    """
    normal = np.cross(planes.row_xyz, planes.column_xyz)
    directions = [normal * np.sign(planes.step_mm), planes.column_xyz, planes.row_xyz]
    world = [int(np.argmax(np.abs(direction))) for direction in directions]
    order = [world.index(axis) for axis in (2, 1, 0)]
    reverse = tuple(at for at, source in enumerate(order) if directions[source][world[source]] < 0)
    return np.transpose(np.flip(volume, reverse), np.argsort(order))
