"""DVHs without a case: of an RTSTRUCT on an RTDOSE, each at its own resolution, or of the NPZ of a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.contour_layers import layers_of
from doseledger.dicom.contours import Polygon, stack_contours
from doseledger.dicom.read_dose import Dose, read_dose
from doseledger.dicom.read_structures import Roi, read_contours, read_rois
from doseledger.dicom.source import lenient, parse_dataset
from doseledger.evaluate.dvh import StructureDose, index_of_samples
from doseledger.evaluate.slab_dose import slab_dose
from doseledger.evaluate.slabs import make_slabs
from doseledger.evaluate.statistic import Measure, Statistic, parse_statistic
from doseledger.evaluate.subvoxel import sampled_dose

# Points at which a structure's dose is sampled: D95% of a centimetre-sized target is then good to 0.02 Gy at 1 Gy/mm.
N_POINTS = 200_000
# Slices without contours are filled in on pixels so fine that a structure has about this many, within these limits.
N_PIXELS = 1_000_000
FINEST_MM, COARSEST_MM = 0.2, 2.0
STATISTICS = ("volume", "min", "mean", "max", "D98%", "D95%", "D50%", "D2%", "D0.03cc", "D2cc")
CURVE_POINTS = 401


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
        reason instead of numbers.

    Raises
    ------
    BadInput
        If a file can't be read, is of another kind, or a statistic is not known.
    BadCase
        If the dose or the contours break DICOM, or the two are in different frames of reference.

    Notes
    -----
    Contours are extruded by their slice's thickness, holes by the even-odd rule; the dose is interpolated linearly at
    points inside and along the rims. Neither is put on the other's grid.
    """
    name = rtstruct.stem
    for text in statistics:
        parse_statistic(text)
    with lenient():
        structures, plan = _read(rtstruct, "RTSTRUCT"), _read(rtdose, "RTDOSE")
        dose = read_dose(plan, name)
        rois = read_rois(structures, name)
        _check_frames(rois, plan, name)
        drawn = {label: read_contours(roi, name).polygons for label, roi in _labelled(rois).items()}
    slice_mm = _slice_mm([z for contours in drawn.values() for z, _ in contours])
    found: dict[str, Any] = {}
    for label, contours in drawn.items():
        if not contours:
            found[label] = {"reason": "the ROI has no closed contours"}
            continue
        found[label] = _describe_roi(contours, dose, slice_mm, (name, label), (statistics, prescription_gy))
    return {"dose": _describe_dose(dose), "structures": found}


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
    The surface is the zero of the signed distance, not the voxels' faces.
    """
    from doseledger.cohort.predictions import load_prediction

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
    highest = max(case.prescription_gy.values(), default=None)
    found: dict[str, Any] = {}
    for index, name in enumerate(case.structure_names):
        if not case.present[index]:
            found[name] = {"reason": "the structure is absent"}
            continue
        samples, _ = sampled_dose(dose_gy, grid, case.sdf_mm[index], case.grid, N_POINTS)
        found[name] = _describe(samples, Dose(dose_gy, grid), statistics, case.prescription_gy.get(name, highest))
    return {"dose": _describe_dose(Dose(dose_gy, grid)), "structures": found}


def _read(path: Path, modality: str) -> pydicom.Dataset:
    try:
        dataset = parse_dataset(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error}); give the {modality} file") from error
    found = None if dataset is None else dataset.get("Modality")
    if dataset is None or found != modality:
        raise BadInput(f"{path} is {'no DICOM' if dataset is None else found}, wanted {modality}; give that file")
    return dataset


def _labelled(rois: list[Roi]) -> dict[str, Roi]:
    """Return the ROIs by name, and by name and number where two have one name."""
    names = [roi.name for roi in rois]
    return {roi.name if names.count(roi.name) == 1 else f"{roi.name} (ROI {roi.number})": roi for roi in rois}


def _check_frames(rois: list[Roi], dose: pydicom.Dataset, name: str) -> None:
    frame = str(dose.get("FrameOfReferenceUID") or "")
    others = sorted({roi.name for roi in rois if frame and roi.frame_of_reference_uid not in ("", frame)})
    if others:
        raise BadCase(
            name, f"{', '.join(others)} and the dose are in different frames of reference; export both of one plan"
        )


def _slice_mm(z_mm: list[float]) -> float:
    """Return the slice distance in mm as the contours of all ROIs show it: the commonest step between planes."""
    steps = np.round(np.diff(np.unique(np.round(z_mm, 2))), 2)
    if len(steps) == 0:
        raise BadInput("all contours lie on one slice: how thick it is can't be told; give an RTSTRUCT of more slices")
    values, counts = np.unique(steps, return_counts=True)
    return float(values[np.argmax(counts)])


def _describe_roi(
    contours: list[tuple[float, Polygon]],
    dose: Dose,
    slice_mm: float,
    who: tuple[str, str],
    wanted: tuple[Sequence[str], float | None],
) -> dict[str, Any]:
    grid = _fine_grid(contours, slice_mm)
    stack, warnings = stack_contours(contours, grid, *who)
    slabs = make_slabs(layers_of(stack, grid), slice_mm)
    samples, outside_cc = slab_dose(dose.dose_gy, dose.grid, slabs, N_POINTS)
    if outside_cc:
        warnings.append(f"{outside_cc:.2f} cc lie beyond the dose grid and are left out")
    return _describe(samples, dose, *wanted) | {"outside_dose_grid_cc": outside_cc, "warnings": warnings}


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


def _describe(
    samples: StructureDose, dose: Dose, statistics: Sequence[str], prescription_gy: float | None
) -> dict[str, Any]:
    def measured(statistic: Statistic) -> Measure:
        if statistic.needs_whole_dose:
            volume_cc = dose.grid.voxel_volume_cc
            return index_of_samples(samples, dose.dose_gy, volume_cc, statistic, prescription_gy)
        return samples.measure(statistic, prescription_gy)

    measures = {text: measured(parse_statistic(text)) for text in statistics}
    top_gy = float(samples.dose_gy[-1]) if len(samples.dose_gy) else 0.0
    levels_gy = np.linspace(0.0, top_gy, CURVE_POINTS)
    return {
        "statistics": {
            text: {"value": measure.value, "unit": measure.unit, "reason": measure.reason}
            for text, measure in measures.items()
        },
        "curve": {
            "dose_gy": levels_gy.tolist(),
            "volume_percent": _volume_percent(samples, levels_gy) if len(samples.dose_gy) else [],
        },
    }


def _volume_percent(samples: StructureDose, levels_gy: NDArray[np.float64]) -> list[float]:
    """Return the percent of the volume with at least each dose: all levels at once, as weights are summed only once."""
    weights = np.ones(len(samples.dose_gy)) if samples.weights is None else samples.weights
    below = np.concatenate([[0.0], np.cumsum(weights)])
    at_least = 1.0 - below[np.searchsorted(samples.dose_gy, levels_gy, side="left")] / below[-1]
    return [100.0 * share for share in at_least.tolist()]


def _describe_dose(dose: Dose) -> dict[str, Any]:
    return {
        "shape_zyx": list(dose.grid.shape_zyx),
        "spacing_mm": list(dose.grid.spacing_mm),
        "origin_mm": list(dose.grid.origin_mm),
        "max_gy": float(dose.dose_gy.max()),
    }


def describe_lines(found: dict[str, Any]) -> list[str]:
    """Return a DVH of `dvh_of_rtdose` or `dvh_of_case` as lines to read: a structure a line, or why it has none."""
    lines = [f"dose up to {found['dose']['max_gy']:.3f} Gy"]
    for name, structure in found["structures"].items():
        measures = structure.get("statistics", {})
        words = [
            f"{text} - ({entry['reason']})"
            if entry["reason"]
            else f"{text} {entry['value']:.2f} {entry['unit']}".removesuffix(" 1")
            for text, entry in measures.items()
        ]
        lines.append(f"{name}: " + (", ".join(words) if words else structure["reason"]))
        lines += [f"  warning: {warning}" for warning in structure.get("warnings", [])]
    return lines
