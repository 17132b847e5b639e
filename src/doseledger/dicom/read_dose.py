"""RTDOSE to total plan dose in Gy on its own Grid, in any orientation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.geometry import STEP_TOLERANCE_MM, Planes, even_step_mm, numbers, read_orientation, to_lps


@dataclass(frozen=True)
class Dose:
    """A dose distribution.

    Parameters
    ----------
    dose_gy
        float32 (z, y, x), total dose of the plan.
    grid
        Its own grid, axes ascending in LPS.
    """

    dose_gy: NDArray[np.float32]
    grid: Grid


def read_dose(dataset: pydicom.Dataset, case_id: str) -> Dose:
    """Return the dose of an RTDOSE in Gy.

    Raises
    ------
    BadCase
        If it is not the physical dose of a whole plan in Gy, or its planes are uneven, oblique or can't be decoded.

    Notes
    -----
    DICOM PS3.3 C.8.8.3. Grid Frame Offset Vector (3004,000C) holds plane positions relative to the first one along the
    normal where its first element is 0, otherwise the planes' own coordinate (C.8.8.3.2). A dose per BEAM or
    FRACTION is refused: whether the files of a folder are all of a plan can't be seen from them.
    """
    stored, scaling = _decoded(dataset, case_id)
    if len(stored) < 2:
        raise BadCase(case_id, f"RTDOSE has {len(stored)} plane, wanted at least 2; export the whole dose")
    dose, grid = to_lps(stored, _planes(dataset, len(stored), case_id), case_id, "RTDOSE")
    return Dose((dose * scaling).astype(np.float32), grid)


def read_dose_plane(dataset: pydicom.Dataset, case_id: str) -> Dose:
    """Return the dose of a single plane in Gy, such as a measured one; its grid has one voxel across the plane.

    Raises
    ------
    BadCase
        As `read_dose` does, or if there is more than one plane.
    """
    stored, scaling = _decoded(dataset, case_id)
    if len(stored) != 1:
        raise BadCase(case_id, f"RTDOSE has {len(stored)} planes, wanted a single one")
    row, column = read_orientation(dataset, case_id)
    first = numbers(dataset, "ImagePositionPatient", 3, case_id)
    spacing = numbers(dataset, "PixelSpacing", 2, case_id)
    # A plane has no thickness: any step will do, for there is no second plane.
    planes = Planes(row, column, float(spacing[0]), float(spacing[1]), first, 1.0)
    dose, grid = to_lps(stored, planes, case_id, "RTDOSE")
    return Dose((dose * scaling).astype(np.float32), grid)


def _decoded(dataset: pydicom.Dataset, case_id: str) -> tuple[NDArray[np.unsignedinteger[Any]], float]:
    """Return the stored values (plane, row, column) and their scaling to Gy."""
    wanted = {"DoseUnits": "GY", "DoseType": "PHYSICAL", "DoseSummationType": "PLAN"}
    for keyword, value in wanted.items():
        found = dataset.get(keyword)
        if found != value:
            raise BadCase(case_id, f"RTDOSE has {keyword} {found}, wanted {value}; export the plan's total dose in Gy")
    scaling = float(numbers(dataset, "DoseGridScaling", 1, case_id)[0])
    if scaling <= 0:
        raise BadCase(case_id, f"RTDOSE has DoseGridScaling {scaling}; wanted more than 0: export the dose again")
    try:
        stored = dataset.pixel_array
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise BadCase(case_id, f"RTDOSE pixels can't be decoded: {error}; export it again") from error
    if stored.min() < 0:
        raise BadCase(case_id, f"RTDOSE reaches down to {stored.min() * scaling:.3f} Gy; a dose is not negative")
    return (stored[None] if stored.ndim == 2 else stored), scaling


def read_dose_grid(dataset: pydicom.Dataset, case_id: str) -> Grid:
    """Return the grid of an RTDOSE, ascending in LPS, without its doses.

    Raises
    ------
    BadCase
        As `read_dose` does for the geometry.
    """
    n_planes = len(np.atleast_1d(np.asarray(dataset.get("GridFrameOffsetVector") or [], dtype=np.float64)))
    if n_planes < 2:
        raise BadCase(case_id, f"GridFrameOffsetVector names {n_planes} planes, wanted at least 2; export it again")
    empty = np.broadcast_to(np.uint8(0), (n_planes, int(dataset.Rows), int(dataset.Columns)))
    return to_lps(empty, _planes(dataset, n_planes, case_id), case_id, "RTDOSE")[1]


def _planes(dataset: pydicom.Dataset, n_planes: int, case_id: str) -> Planes:
    row, column = read_orientation(dataset, case_id)
    first = numbers(dataset, "ImagePositionPatient", 3, case_id)
    spacing = numbers(dataset, "PixelSpacing", 2, case_id)
    offsets = numbers(dataset, "GridFrameOffsetVector", n_planes, case_id)
    normal = np.cross(row, column)
    if abs(offsets[0]) > STEP_TOLERANCE_MM:
        # Absolute: coordinates on the axis that the normal follows, the first of them that of the first plane.
        axis = int(np.argmax(np.abs(normal)))
        if abs(offsets[0] - first[axis]) > STEP_TOLERANCE_MM:
            raise BadCase(
                case_id,
                f"GridFrameOffsetVector begins at {offsets[0]:g}, neither 0 nor the first plane's {first[axis]:g} mm; "
                "export the dose again",
            )
        offsets = (offsets - offsets[0]) * np.sign(normal[axis])
    rising = offsets if offsets[-1] > offsets[0] else -offsets
    step = even_step_mm(rising)
    if step is None or step <= 0:
        steps = np.diff(offsets)
        raise BadCase(
            case_id,
            f"RTDOSE planes are uneven: steps from {steps.min():g} to {steps.max():g} mm; export an even dose grid",
        )
    return Planes(row, column, float(spacing[0]), float(spacing[1]), first, step * float(np.sign(offsets[-1])))
