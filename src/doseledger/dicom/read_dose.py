"""RTDOSE to total plan dose in Gy on its own Grid, in any orientation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.geometry import STEP_TOLERANCE_MM, Planes, even_step_mm, numbers, read_orientation, to_lps
from doseledger.dicom.pixels import read_pixels
from doseledger.dicom.source import in_file
from doseledger.dicom.values import listed, text_of, value_of, whole

PLAN = "PLAN"
# What other values of these attributes stand for (PS3.3 C.8.8.3): whoever exported them may not know.
MEANING = {
    "EFFECTIVE": "weighted by biological effect, as ion plans have it",
    "ERROR": "that is a difference of two",
    "RELATIVE": "that is not absolute",
    "MULTI_PLAN": "of several plans",
    "PLAN_OVERVIEW": "that is an overview of plans",
    "FRACTION": "of one fraction group",
    "BEAM": "of single beams",
    "BRACHY": "of brachytherapy applicators",
    "FRACTION_SESSION": "of one session of a fraction group",
    "BEAM_SESSION": "of one session of single beams",
    "BRACHY_SESSION": "of one session of brachytherapy",
    "CONTROL_POINT": "of part of a beam",
    "RECORD": "of a treatment record",
}


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


def read_dose(dataset: pydicom.Dataset, case_id: str, summation: str = PLAN) -> Dose:
    """Return the dose of an RTDOSE in Gy.

    Parameters
    ----------
    summation
        Dose Summation Type that is wanted; `dose_parts` reads others, and adds them up.

    Raises
    ------
    BadCase
        If it is not the physical dose of a whole plan in Gy, or its planes are uneven, oblique or can't be decoded.

    Notes
    -----
    DICOM PS3.3 C.8.8.3. Grid Frame Offset Vector (3004,000C) holds plane positions relative to the first one along the
    normal where its first element is 0, otherwise the planes' own coordinate (C.8.8.3.2).
    """
    with in_file(dataset, case_id):
        stored, scaling = _decoded(dataset, case_id, summation)
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
    with in_file(dataset, case_id):
        stored, scaling = _decoded(dataset, case_id, PLAN)
        if len(stored) != 1:
            raise BadCase(case_id, f"RTDOSE has {len(stored)} planes, wanted a single one")
        # A plane has no thickness: any step will do, for there is no second plane.
        dose, grid = to_lps(stored, _plane(dataset, 1.0, case_id), case_id, "RTDOSE")
        return Dose((dose * scaling).astype(np.float32), grid)


def stack_planes(datasets: list[pydicom.Dataset], case_id: str, summation: str = PLAN) -> Dose:
    """Return the dose of RTDOSE files of one plane each in Gy, sorted along their normal.

    Raises
    ------
    BadCase
        As `read_dose` does, or if the planes are not alike, two lie at one place, or one between them is missing.
    """
    planes, doses, along, beside = [], [], [], []
    for dataset in datasets:
        with in_file(dataset, case_id):
            stored, scaling = _decoded(dataset, case_id, summation)
            if len(stored) != 1:
                raise BadCase(case_id, f"RTDOSE has {len(stored)} planes beside others of one; export the dose whole")
            plane = _plane(dataset, 1.0, case_id)
            normal = np.cross(plane.row_xyz, plane.column_xyz)
            planes.append(plane)
            doses.append(stored[0] * scaling)
            along.append(float(plane.first_xyz @ normal))
            beside.append(plane.first_xyz - along[-1] * normal)
    first = planes[0]
    look = np.concatenate([first.row_xyz, first.column_xyz, [first.row_spacing_mm, first.column_spacing_mm]])
    for plane, dose, place in zip(planes, doses, beside, strict=True):
        other = np.concatenate([plane.row_xyz, plane.column_xyz, [plane.row_spacing_mm, plane.column_spacing_mm]])
        shift = float(np.abs(place - beside[0]).max())
        if dose.shape != doses[0].shape or not np.allclose(other, look, atol=1e-4) or shift > STEP_TOLERANCE_MM:
            raise BadCase(case_id, "the RTDOSE planes differ in size, spacing, direction or place; export one dose")
    order = np.argsort(along)
    steps = np.diff(np.asarray(along)[order])
    step = even_step_mm(np.asarray(along)[order])
    if step is None or steps.min() < STEP_TOLERANCE_MM:
        raise BadCase(
            case_id,
            f"the {len(datasets)} RTDOSE planes are uneven: steps from {steps.min():g} to {steps.max():g} mm; is one "
            "missing, or there twice? Export all planes of one dose",
        )
    start = planes[int(order[0])]
    stacked = np.stack([doses[index] for index in order])
    dose, grid = to_lps(stacked, replace(start, step_mm=step), case_id, "RTDOSE")
    return Dose(dose.astype(np.float32), grid)


def _decoded(dataset: pydicom.Dataset, case_id: str, summation: str) -> tuple[NDArray[np.integer[Any]], float]:
    """Return the stored values (plane, row, column) and their scaling to Gy."""
    wanted = {"DoseUnits": "GY", "DoseType": "PHYSICAL", "DoseSummationType": summation}
    for keyword, value in wanted.items():
        found = text_of(dataset, keyword) or None
        if found != value:
            what = f" ({found} is a dose {MEANING[found]})" if found in MEANING else ""
            has = f"{keyword} {found}" if found else f"no {keyword}"
            raise BadCase(case_id, f"RTDOSE has {has}, wanted {value}{what}; export the plan's total dose in Gy")
    scaling = read_scaling(dataset, case_id)
    try:
        stored = read_pixels(dataset)
    except BadInput as error:
        note = f"{said}; " if (said := frames_note(dataset)) else ""
        raise BadCase(case_id, f"RTDOSE pixels can't be decoded: {note}{error}") from error
    if stored.min() < 0:
        raise BadCase(case_id, f"RTDOSE reaches down to {stored.min() * scaling:.3f} Gy; a dose is not negative")
    return stored, scaling


def read_scaling(dataset: pydicom.Dataset, case_id: str) -> float:
    """Return Dose Grid Scaling (3004,000E), Gy of a stored 1.

    Raises
    ------
    BadCase
        If it is missing, no number, or not above 0; or if there is another rescale beside it.
    """
    scaling = float(numbers(dataset, "DoseGridScaling", 1, case_id)[0])
    if scaling <= 0:
        raise BadCase(case_id, f"RTDOSE has DoseGridScaling {scaling}; wanted more than 0: export the dose again")
    for keyword, neutral in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        found = numbers(dataset, keyword, 1, case_id)[0] if value_of(dataset, keyword) is not None else neutral
        if found != neutral:
            raise BadCase(
                case_id,
                f"RTDOSE has {keyword} {found:g} beside DoseGridScaling, which alone scales a dose; nobody knows "
                "whether both count: export the dose again",
            )
    return scaling


def frames_note(dataset: pydicom.Dataset) -> str:
    """Return that a dose of several planes does not say how many, as a clause; empty where it does."""
    n_planes = len(listed(value_of(dataset, "GridFrameOffsetVector")))
    if n_planes < 2 or value_of(dataset, "NumberOfFrames") is not None:
        return ""
    return f"NumberOfFrames is missing, though GridFrameOffsetVector has {n_planes} values"


def read_dose_grid(dataset: pydicom.Dataset, case_id: str) -> Grid:
    """Return the grid of an RTDOSE, ascending in LPS, without its doses.

    Raises
    ------
    BadCase
        As `read_dose` does for the geometry.
    """
    with in_file(dataset, case_id):
        n_planes = len(listed(value_of(dataset, "GridFrameOffsetVector")))
        if n_planes < 2:
            raise BadCase(case_id, f"GridFrameOffsetVector names {n_planes} planes, wanted at least 2; export it again")
        empty = np.broadcast_to(np.uint8(0), (n_planes, whole(dataset, "Rows"), whole(dataset, "Columns")))
        return to_lps(empty, _planes(dataset, n_planes, case_id), case_id, "RTDOSE")[1]


def _plane(dataset: pydicom.Dataset, step_mm: float, case_id: str) -> Planes:
    row, column = read_orientation(dataset, case_id)
    first = numbers(dataset, "ImagePositionPatient", 3, case_id)
    spacing = numbers(dataset, "PixelSpacing", 2, case_id)
    if spacing.min() <= 0:
        raise BadCase(case_id, f"PixelSpacing is {spacing.tolist()}, wanted two positive sizes in mm; export again")
    return Planes(row, column, float(spacing[0]), float(spacing[1]), first, step_mm)


def _planes(dataset: pydicom.Dataset, n_planes: int, case_id: str) -> Planes:
    plane = _plane(dataset, 1.0, case_id)
    offsets = numbers(dataset, "GridFrameOffsetVector", n_planes, case_id)
    normal = np.cross(plane.row_xyz, plane.column_xyz)
    if abs(offsets[0]) > STEP_TOLERANCE_MM:
        # Absolute: coordinates on the axis that the normal follows, the first of them that of the first plane.
        axis = int(np.argmax(np.abs(normal)))
        if abs(offsets[0] - plane.first_xyz[axis]) > STEP_TOLERANCE_MM:
            raise BadCase(
                case_id,
                f"GridFrameOffsetVector begins at {offsets[0]:g}, neither 0 nor the first plane's "
                f"{plane.first_xyz[axis]:g} mm; export the dose again",
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
    return replace(plane, step_mm=step * float(np.sign(offsets[-1])))
