"""DVHs without a case: of an RTSTRUCT on an RTDOSE, each at its own resolution, or of the NPZ of a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.contour_layers import layers_of
from doseledger.dicom.contours import Polygon, stack_contours
from doseledger.dicom.pixels import n_frames
from doseledger.dicom.read_dose import Dose, read_dose, read_dose_plane
from doseledger.dicom.read_structures import Roi, read_contours, read_rois
from doseledger.dicom.source import in_file, lenient, malformed_as_bad_case, read_file
from doseledger.dicom.values import number_of, text_of
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.slab_dose import slab_dose
from doseledger.dosimetry.dvh.slabs import make_slabs
from doseledger.dosimetry.dvh.subvoxel import sampled_dose
from doseledger.evaluate.files.dvh_text import describe_area, describe_dose, describe_lines, describe_volume
from doseledger.evaluate.files.plane_dvh import ON_CONTOUR_MM, DosePlane, cut_of_contours, find_plane

__all__ = ["STATISTICS", "describe_lines", "dvh_of_case", "dvh_of_rtdose"]

# Points at which a structure's dose is sampled: D95% of a centimetre-sized target is then good to 0.02 Gy at 1 Gy/mm.
N_POINTS = 200_000
# Slices without contours are filled in on pixels so fine that a structure has about this many, within these limits.
N_PIXELS = 1_000_000
FINEST_MM, COARSEST_MM = 0.2, 2.0
STATISTICS = ("volume", "min", "mean", "max", "D98%", "D95%", "D50%", "D2%", "D0.03cc", "D2cc")


def dvh_of_rtdose(
    rtstruct: Path, rtdose: Path, statistics: Sequence[str] = STATISTICS, *, prescription_gy: float | None = None
) -> dict[str, Any]:
    """Return the DVH of every ROI of a structure set on a dose, as JSON values.

    Parameters
    ----------
    rtstruct, rtdose
        The two files.
    statistics
        What to measure, in the clinic's grammar; for CI and R50 the isodose is that of the whole dose grid.
    prescription_gy
        What 100 % is, for statistics relative to it.

    Returns
    -------
    dict
        `dose`: grid and maximum. `structures`: by ROI name `statistics` ({name: {value, unit, reason}}),
        `outside_dose_grid_cc`, `warnings` and `curve` ({dose_gy, volume_percent}). An ROI without contours has its
        reason instead of numbers. `plane`: None, or where the dose of one plane lies; percents are then shares of the
        area of the ROI's cut, with `area_cm2`, `outside_dose_grid_cm2` and `area_percent` for volumes, and a reason for
        those that the plane misses.

    Raises
    ------
    BadInput
        If a file can't be read, is of another kind, a statistic is not known, or no structure meets a plane of dose.
    BadCase
        If the dose or the contours break DICOM, or the two are in different frames of reference.

    Notes
    -----
    Contours are extruded by their slice's thickness, holes by the even-odd rule; the dose is interpolated linearly at
    points inside and along the rims. Neither is put on the other's grid. A dose of one plane, axial, coronal or
    sagittal, has no volumes.
    """
    name = rtstruct.stem
    for text in statistics:
        parse_statistic(text)
    with lenient(), malformed_as_bad_case(name):
        structures, plan = read_file(rtstruct, "RTSTRUCT"), read_file(rtdose, "RTDOSE")
        with in_file(plan, name):
            is_plane = n_frames(plan) == 1
        dose = read_dose_plane(plan, name) if is_plane else read_dose(plan, name)
        rois = read_rois(structures, name)
        _check_frames(rois, plan, name)
        drawn = {label: read_contours(roi, name).polygons for label, roi in _labelled(rois).items()}
    slice_mm = _slice_mm([z for contours in drawn.values() for z, _ in contours])
    plane = find_plane(dose, slice_mm, _thickness_mm(plan), name) if is_plane else None
    if slice_mm is None and plane is None:
        raise BadInput("all contours lie on one slice: how thick it is can't be told; give an RTSTRUCT of more slices")
    thick_mm = 2.0 * ON_CONTOUR_MM if slice_mm is None else slice_mm
    found: dict[str, Any] = {}
    for label, contours in drawn.items():
        if not contours:
            found[label] = {"reason": "the ROI has no closed contours"}
            continue
        grid, wanted = _fine_grid(contours, thick_mm), (statistics, prescription_gy)
        if plane is None:
            found[label] = _describe_roi(contours, dose, grid, (name, label), wanted)
        else:
            found[label] = _describe_cut(contours, dose, (plane, grid), (name, label), wanted)
    if plane is not None and not any("statistics" in structure for structure in found.values()):
        raise BadInput(
            f"{rtdose} is a plane at {'zyx'[plane.axis]} = {plane.position_mm:.1f} mm, which no structure of "
            f"{rtstruct.name} meets; give the structure set of the same patient and position"
        )
    described = None if plane is None else plane.describe()
    return {"dose": describe_dose(dose), "plane": described, "structures": found}


def dvh_of_case(path: Path, statistics: Sequence[str] = STATISTICS, *, dose_path: Path | None = None) -> dict[str, Any]:
    """Return the DVH of every structure of a case, of its plan or of a prediction, in the form of `dvh_of_rtdose`.

    Parameters
    ----------
    path
        NPZ of a case.
    statistics
        What to measure, in the clinic's grammar.
    dose_path
        NPZ of a prediction, to take its dose; None for the plan's.

    Raises
    ------
    BadCase
        If the case has no dose, or the prediction is another case's or does not fit.

    Notes
    -----
    The surface is the zero of the signed distance, not the voxels' faces. A case of one slice is a plane.
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
        plane = find_plane(dose, grid.spacing_mm[0], thickness_mm, case.case_id)
    found: dict[str, Any] = {}
    for index, name in enumerate(case.structure_names):
        if not case.present[index]:
            found[name] = {"reason": "the structure is absent"}
            continue
        samples, _ = sampled_dose(dose_gy, grid, case.sdf_mm[index], case.grid, N_POINTS)
        prescription_gy = case.prescription_gy.get(name, highest)
        if plane is None:
            found[name] = describe_volume(samples, dose, statistics, prescription_gy)
        else:
            found[name] = describe_area(samples, grid.spacing_mm[plane.axis], statistics, prescription_gy)
    described = None if plane is None else plane.describe()
    return {"dose": describe_dose(dose), "plane": described, "structures": found}


def _labelled(rois: list[Roi]) -> dict[str, Roi]:
    """Return the ROIs by name, and by name and number where two have one name."""
    names = [roi.name for roi in rois]
    return {roi.name if names.count(roi.name) == 1 else f"{roi.name} (ROI {roi.number})": roi for roi in rois}


def _check_frames(rois: list[Roi], dose: pydicom.Dataset, name: str) -> None:
    frame = text_of(dose, "FrameOfReferenceUID")
    others = sorted({roi.name for roi in rois if frame and roi.frame_of_reference_uid not in ("", frame)})
    if others:
        raise BadCase(
            name, f"{', '.join(others)} and the dose are in different frames of reference; export both of one plan"
        )


def _slice_mm(z_mm: list[float]) -> float | None:
    """Return the slice distance in mm as the contours of all ROIs show it, the commonest step; None on one slice."""
    steps = np.round(np.diff(np.unique(np.round(z_mm, 2))), 2)
    if len(steps) == 0:
        return None
    values, counts = np.unique(steps, return_counts=True)
    return float(values[np.argmax(counts)])


def _thickness_mm(dose: pydicom.Dataset) -> float | None:
    """Return Slice Thickness (0018,0050) of a dose, which may be empty or 0, in mm."""
    value = number_of(dose, "SliceThickness")
    return value if value is not None and value > 0 else None


def _describe_roi(
    contours: list[tuple[float, Polygon]],
    dose: Dose,
    grid: Grid,
    who: tuple[str, str],
    wanted: tuple[Sequence[str], float | None],
) -> dict[str, Any]:
    stack, warnings = stack_contours(contours, grid, *who)
    slabs = make_slabs(layers_of(stack, grid), grid.spacing_mm[0])
    samples, outside_cc = slab_dose(dose.dose_gy, dose.grid, slabs, N_POINTS)
    if outside_cc:
        warnings.append(f"{outside_cc:.2f} cc lie beyond the dose grid and are left out")
    return describe_volume(samples, dose, *wanted) | {"outside_dose_grid_cc": outside_cc, "warnings": warnings}


def _describe_cut(
    contours: list[tuple[float, Polygon]],
    dose: Dose,
    where: tuple[DosePlane, Grid],
    who: tuple[str, str],
    wanted: tuple[Sequence[str], float | None],
) -> dict[str, Any]:
    """Return the DVH of an ROI's cut with a plane of dose; or why there is none."""
    plane, grid = where
    if reason := plane.missed_by(contours):
        return {"reason": reason}
    samples, outside_cm2, warnings = cut_of_contours(contours, dose, plane, grid, who, N_POINTS)
    if outside_cm2:
        warnings.append(f"{outside_cm2:.2f} cm² lie beyond the edges of the dose plane and are left out")
    if len(samples.dose_gy) == 0:
        why = "its cut lies beyond the edges of the dose plane" if outside_cm2 else "it has no contours at the plane"
        return {"reason": why}
    found = describe_area(samples, 1.0, *wanted)
    return found | {"outside_dose_grid_cm2": outside_cm2, "warnings": warnings}


def _fine_grid(contours: list[tuple[float, Polygon]], slice_mm: float) -> Grid:
    """Return a grid over an ROI's contours: their slices, and in the plane pixels as fine as the ROI is small."""
    points = np.concatenate([polygon for _, polygon in contours])
    low, high = points.min(axis=0), points.max(axis=0)
    z = [plane for plane, _ in contours]
    n_slices = round((max(z) - min(z)) / slice_mm) + 1
    pixel_mm = math.sqrt(max(float(np.prod(high - low)), 1.0) * n_slices / N_PIXELS)
    pixel_mm = min(max(pixel_mm, FINEST_MM), COARSEST_MM)
    n_x, n_y = (math.ceil(float(extent) / pixel_mm) + 1 for extent in high - low)
    return Grid((n_slices, n_y, n_x), (slice_mm, pixel_mm, pixel_mm), (min(z), float(low[1]), float(low[0])))
