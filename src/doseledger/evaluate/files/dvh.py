"""DVHs of an RTSTRUCT on an RTDOSE at their own resolution, or of a case."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.core.planes import ROUNDED_MM, find_planes
from doseledger.core.text.lists import first_of
from doseledger.dicom.contours import Contour, stack_on_own_planes
from doseledger.dicom.pixels import n_frames
from doseledger.dicom.read_dose import Dose, read_dose, read_dose_plane
from doseledger.dicom.read_structures import Roi, read_contours, read_rois, slab_thickness_mm
from doseledger.dicom.source import in_file, lenient, malformed_as_bad_case, read_file
from doseledger.dicom.values import number_of, text_of
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.slab_dose import slab_dose
from doseledger.dosimetry.dvh.subvoxel import sampled_dose
from doseledger.evaluate.files.dvh_text import describe_area, describe_dose, describe_lines, describe_volume
from doseledger.evaluate.files.plane_dvh import DosePlane, dose_of_cut, find_plane, slabs_of

__all__ = ["STATISTICS", "describe_lines", "dvh_of_case", "dvh_of_rtdose"]

# Points at which a structure's dose is sampled: D95% of a centimetre-sized target is then good to 0.02 Gy at 1 Gy/mm.
N_POINTS = 200_000
# Slices without contours are filled in on pixels so fine that a structure has about this many, within these limits; a
# plane of it has no more than that many either.
N_PIXELS = 1_000_000
FINEST_MM, COARSEST_MM = 0.2, 2.0
STATISTICS = ("volume", "min", "mean", "max", "D98%", "D95%", "D50%", "D2%", "D0.03cc", "D2cc")
# Reasons that an error names, where no structure has a DVH.
MOST_REASONS = 5


@dataclass(frozen=True)
class _Wanted:
    """What each ROI is measured on, and how.

    Parameters
    ----------
    dose, plane
        The dose, and where it lies if it is of one plane.
    frame_uid
        The dose's frame of reference; empty where it names none.
    statistics, prescription_gy
        In the clinic's grammar, and what 100 % is.
    """

    dose: Dose
    plane: DosePlane | None
    frame_uid: str
    statistics: Sequence[str]
    prescription_gy: float | None


def dvh_of_rtdose(
    rtstruct: Path, rtdose: Path, statistics: Sequence[str] = STATISTICS, *, prescription_gy: float | None = None
) -> dict[str, Any]:
    """Return the DVH of every ROI of a structure set on a dose, as JSON values.

    Parameters
    ----------
    statistics
        What to measure, in the clinic's grammar; for CI and R50 the isodose is that of the whole dose grid.
    prescription_gy
        What 100 % is, for statistics relative to it.

    Returns
    -------
    dict
        `dose`: grid, maximum, and `warnings` where nothing says that both files belong together.
        `structures`: by ROI name `statistics` ({name: {value, unit, reason}}), `contour_spacing_mm`,
        `outside_dose_grid_cc`, `covered_percent`, `warnings` and `curve` ({dose_gy, volume_percent}). Where
        the dose reaches only part of an ROI, its volume is that of all of it, what needs the rest has a
        reason instead of a value, and `covered_part` has statistics and curve of the part. An ROI that can't
        be measured has its reason instead of numbers. `plane`: None, or where the dose of one plane lies;
        percents are then shares of the area of the ROI's cut, with `area_cm2`, `outside_dose_grid_cm2` and
        `area_percent` for volumes, and a reason for those that the plane misses.

    Raises
    ------
    BadInput
        If a file can't be read, is of another kind, a statistic is not known, or no ROI has a DVH.
    BadCase
        If the dose breaks DICOM, or the structure set as a whole.

    Notes
    -----
    Contours are extruded half-way to the neighbouring slices, which each ROI tells by itself, holes by the even-odd
    rule; the dose is interpolated linearly at points inside and along the rims. Neither is put on the other's grid. A
    dose of one plane, axial, coronal or sagittal, has no volumes.
    """
    name = rtstruct.stem
    for text in statistics:
        parse_statistic(text)
    with lenient(), malformed_as_bad_case(name):
        structures, plan = read_file(rtstruct, "RTSTRUCT"), read_file(rtdose, "RTDOSE")
        dose, plane = _read_dose(plan, rtdose.stem)
        wanted = _Wanted(dose, plane, text_of(plan, "FrameOfReferenceUID"), statistics, prescription_gy)
        rois = read_rois(structures, name)
        found = {label: _measure_roi(roi, (name, label), wanted) for label, roi in _labelled(rois).items()}
    if not any("statistics" in structure for structure in found.values()):
        raise BadInput(_nothing_measured(found, rtstruct.name, rtdose.name, plane))
    described = None if plane is None else plane.describe()
    doubts = _doubts(structures, plan, (rtstruct.name, rtdose.name))
    return {"dose": describe_dose(dose) | {"warnings": doubts}, "plane": described, "structures": found}


def _read_dose(dataset: pydicom.Dataset, name: str) -> tuple[Dose, DosePlane | None]:
    """Return an RTDOSE, and where it lies if it is of one plane."""
    with in_file(dataset, name):
        is_plane = n_frames(dataset) == 1
    if not is_plane:
        return read_dose(dataset, name), None
    dose = read_dose_plane(dataset, name)
    return dose, find_plane(dose, _thickness_mm(dataset), name)


def _doubts(structures: pydicom.Dataset, dose: pydicom.Dataset, names: tuple[str, str]) -> list[str]:
    """What leaves open whether a structure set and a dose belong together; no value of either is repeated."""
    doubts = []
    if not text_of(dose, "FrameOfReferenceUID"):
        doubts.append(f"{names[1]} names no frame of reference: nothing says that the structures lie in its dose")
    if len({text_of(item, "PatientID") for item in (structures, dose)} - {""}) > 1:
        doubts.append(f"{names[0]} and {names[1]} have different PatientIDs: are they of one patient?")
    return doubts


def dvh_of_case(path: Path, statistics: Sequence[str] = STATISTICS, *, dose_path: Path | None = None) -> dict[str, Any]:
    """Return the DVH of every structure of a case, of its plan or of a prediction, in the form of `dvh_of_rtdose`.

    Parameters
    ----------
    dose_path
        NPZ of a prediction, to take its dose; None for the plan's.

    Raises
    ------
    BadCase
        If the case has no dose, or the prediction is another case's or does not fit.

    Notes
    -----
    The surface is the zero of the signed distance, not the voxels' faces. A case of one slice is a plane. Where the
    plan's own dose grid did not reach, neither plan nor prediction has a dose: those voxels are beyond it, not at 0 Gy.
    """
    from doseledger.evaluate.predictions import load_prediction

    case = Case.load(path)
    dose_gy, grid = case.dose_gy, case.grid
    if dose_path is not None:
        prediction = load_prediction(dose_path)
        dose_gy, grid = prediction.dose_gy, prediction.grid
        if prediction.case_id != case.case_id:
            raise BadCase(case.case_id, f"{dose_path.name} is a prediction of {prediction.case_id}; give its own")
        if not grid.same_as(case.grid):
            raise BadCase(case.case_id, f"{dose_path.name} lies on another grid than the case; predict it again")
    if dose_gy is None:
        raise BadCase(case.case_id, "the case has no dose, so it has no DVH")
    dose, highest = Dose(dose_gy, grid), max(case.prescription_gy.values(), default=None)
    plane = None
    if 1 in grid.shape_zyx:
        thickness_mm = grid.spacing_mm[grid.shape_zyx.index(1)]
        plane = find_plane(dose, thickness_mm, case.case_id)
    dose_gy, grid = _reached(case, dose_gy)
    found: dict[str, Any] = {}
    for index, name in enumerate(case.structure_names):
        if not case.present[index]:
            found[name] = {"reason": "the structure is absent"}
            continue
        sampled = sampled_dose(dose_gy, grid, case.sdf_mm[index], case.grid, N_POINTS)
        prescription_gy = case.prescription_gy.get(name, highest)
        if plane is None:
            found[name] = describe_volume(sampled, dose, statistics, prescription_gy)
        else:
            found[name] = describe_area(sampled, grid.spacing_mm[plane.axis], statistics, prescription_gy)
    described = None if plane is None else plane.describe()
    return {"dose": describe_dose(dose), "plane": described, "structures": found}


def _reached(case: Case, dose_gy: NDArray[Any]) -> tuple[NDArray[Any], Grid]:
    """Return a dose on a case's grid where the plan's own dose grid reached, and the grid there."""
    box = case.reach
    if dose_gy[box].size == 0:
        raise BadCase(case.case_id, "the plan's dose grid does not reach the case; ingest it with its own RTDOSE")
    return dose_gy[box], case.grid.inside(box)


def _labelled(rois: list[Roi]) -> dict[str, Roi]:
    """Return the ROIs by name, and by name and number where two have one name."""
    count = Counter(roi.name for roi in rois)
    return {roi.name if count[roi.name] == 1 else f"{roi.name} (ROI {roi.number})": roi for roi in rois}


def _nothing_measured(found: dict[str, Any], structures: str, dose: str, plane: DosePlane | None) -> str:
    """Return what is wrong where no ROI has a DVH."""
    reasons = first_of([f"{label}: {entry['reason']}" for label, entry in found.items()], MOST_REASONS, "; ")
    if plane is None:
        return f"no structure of {structures} has a DVH on {dose}: {reasons}"
    return (
        f"{dose} is a plane at {'zyx'[plane.axis]} = {plane.position_mm:.1f} mm, which no structure of {structures} "
        f"meets; give the structure set of the same patient and position. {reasons}"
    )


def _thickness_mm(dose: pydicom.Dataset) -> float | None:
    """Return Slice Thickness (0018,0050) of a dose, which may be empty or 0, in mm."""
    value = number_of(dose, "SliceThickness")
    return value if value is not None and value > 0 else None


def _measure_roi(roi: Roi, who: tuple[str, str], wanted: _Wanted) -> dict[str, Any]:
    """Return the DVH of one ROI, or why there is none: a bad one costs its own DVH alone."""
    if wanted.frame_uid and roi.frame_of_reference_uid not in ("", wanted.frame_uid):
        return {"reason": "the ROI and the dose are in different frames of reference; export both of one plan"}
    try:
        with malformed_as_bad_case(who[0]):
            contours = read_contours(roi, who[0])
        if not contours.polygons:
            return {"reason": "the ROI has no closed contours"}
        said_mm = slab_thickness_mm(roi)
        # An axial plane on the very contours of an ROI needs no thickness.
        is_axial = wanted.plane is not None and wanted.plane.axis == 0
        lone_mm = 2.0 * ROUNDED_MM if said_mm is None and is_axial else said_mm
        grid = _fine_grid(contours.polygons)
        stack, notes = stack_on_own_planes(contours.polygons, grid, *who, lone_mm)
    except BadCase as error:
        return {"reason": error.reason}
    warnings = contours.notes(who[1]) + notes
    is_lone = len({z for part in stack.parts() for z in part.z_mm.tolist()}) == 1
    said = {"contour_spacing_mm": said_mm if is_lone else stack.slice_mm, "warnings": warnings}
    if wanted.plane is None:
        sampled = slab_dose(wanted.dose.dose_gy, wanted.dose.grid, slabs_of(stack, grid), N_POINTS)
        found = describe_volume(sampled, wanted.dose, wanted.statistics, wanted.prescription_gy)
        if sampled.outside_cc and not sampled.lacking:
            warnings.append(f"{sampled.outside_cc:.2f} cc lie beyond the dose grid and are left out")
        return found | said
    if reason := wanted.plane.missed_by(stack):
        return {"reason": reason}
    sampled = dose_of_cut(stack, wanted.dose, wanted.plane, grid, N_POINTS)
    if len(sampled.samples.dose_gy) == 0:
        why = "its cut lies beyond the edges of the dose plane" if sampled.outside_cc else "it has no contours there"
        return {"reason": why}
    return describe_area(sampled, 1.0, wanted.statistics, wanted.prescription_gy) | said


def _fine_grid(contours: list[Contour]) -> Grid:
    """Return a plane over an ROI's contours, with pixels as fine as the ROI is small."""
    points = np.concatenate([polygon for _, polygon in contours])
    low, high = points.min(axis=0), points.max(axis=0)
    planes_mm, _ = find_planes(np.asarray([z for z, _ in contours]))
    area_mm2 = max(float(np.prod(high - low)), 1.0)
    pixel_mm = min(max(math.sqrt(area_mm2 * len(planes_mm) / N_PIXELS), FINEST_MM), COARSEST_MM)
    pixel_mm = max(pixel_mm, math.sqrt(area_mm2 / N_PIXELS))
    n_x, n_y = (math.ceil(float(extent) / pixel_mm) + 1 for extent in high - low)
    return Grid((1, n_y, n_x), (1.0, pixel_mm, pixel_mm), (float(planes_mm[0]), float(low[1]), float(low[0])))
