"""The DVH of a structure as JSON values, and as lines to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from doseledger.dicom.read_dose import Dose
from doseledger.dosimetry.dvh.grammar import Measure, parse_statistic
from doseledger.dosimetry.dvh.statistics import StructureDose
from doseledger.evaluate.files.plane_dvh import NO_VOLUME, area_cm2, describe_plane, measure_on_plane

CURVE_POINTS = 401


def describe_volume(
    samples: StructureDose, dose: Dose, statistics: Sequence[str], prescription_gy: float | None
) -> dict[str, Any]:
    """Return the DVH of a structure as JSON values: statistics by name, and the curve.

    Parameters
    ----------
    samples
        Dose of the structure.
    dose
        The whole dose, for CI and R50.
    statistics
        In the clinic's grammar.
    prescription_gy
        What 100 % is.

    Raises
    ------
    BadInput
        If a statistic is not known, or needs a prescription and none is given.
    """
    levels_gy, percents = _curve(samples)
    whole = (dose.dose_gy, dose.grid.voxel_volume_cc)
    return {
        "statistics": {
            text: _as_json(samples.measure(parse_statistic(text), prescription_gy, whole)) for text in statistics
        },
        "curve": {"dose_gy": levels_gy, "volume_percent": percents},
    }


def describe_area(
    samples: StructureDose, thickness_mm: float, statistics: Sequence[str], prescription_gy: float | None
) -> dict[str, Any]:
    """Return the DVH of a structure's cut with a plane as JSON values: its area in cm², statistics, and the curve.

    Parameters
    ----------
    samples
        Dose of a sheet of the structure.
    thickness_mm
        How thick that sheet is: its volume over it is the area.
    statistics
        In the clinic's grammar; those that need a volume have a reason in the place of a value.
    prescription_gy
        What 100 % is.

    Raises
    ------
    BadInput
        As `describe_volume` does.
    """
    measures = {text: measure_on_plane(samples, parse_statistic(text), prescription_gy) for text in statistics}
    levels_gy, percents = _curve(samples)
    return {
        "statistics": {text: _as_json(measure) for text, measure in measures.items()},
        "area_cm2": area_cm2(samples.volume_cc, thickness_mm),
        "curve": {"dose_gy": levels_gy, "area_percent": percents},
    }


def _as_json(measure: Measure) -> dict[str, Any]:
    return {"value": measure.value, "unit": measure.unit, "reason": measure.reason}


def _curve(samples: StructureDose) -> tuple[list[float], list[float]]:
    """Return doses from 0 to the highest, and the percent of the volume with at least each: weights are summed once."""
    if len(samples.dose_gy) == 0:
        return [0.0] * CURVE_POINTS, []
    levels_gy = np.linspace(0.0, float(samples.dose_gy[-1]), CURVE_POINTS)
    weights = np.ones(len(samples.dose_gy)) if samples.weights is None else samples.weights
    below = np.concatenate([[0.0], np.cumsum(weights)])
    at_least = 1.0 - below[np.searchsorted(samples.dose_gy, levels_gy, side="left")] / below[-1]
    return levels_gy.tolist(), [100.0 * share for share in at_least.tolist()]


def describe_dose(dose: Dose) -> dict[str, Any]:
    """Return a dose's grid and maximum as JSON values."""
    return {
        "shape_zyx": list(dose.grid.shape_zyx),
        "spacing_mm": list(dose.grid.spacing_mm),
        "origin_mm": list(dose.grid.origin_mm),
        "max_gy": float(dose.dose_gy.max()),
    }


def describe_lines(found: dict[str, Any]) -> list[str]:
    """Return a DVH of `dicom_dvh` as lines to read: a structure a line, or why it has none."""
    lines = [f"dose up to {found['dose']['max_gy']:.3f} Gy"]
    if found.get("plane"):
        lines.append(describe_plane(found["plane"]))
    for name, structure in found["structures"].items():
        words = [f"area {structure['area_cm2']:.2f} cm²"] if "area_cm2" in structure else []
        words += [
            f"{text} - ({entry['reason']})"
            if entry["reason"]
            else f"{text} {entry['value']:.2f} {entry['unit']}".removesuffix(" 1")
            for text, entry in structure.get("statistics", {}).items()
            # Said once, at the head.
            if entry["reason"] != NO_VOLUME
        ]
        lines.append(f"{name}: " + (", ".join(words) if words else structure["reason"]))
        lines += [f"  warning: {warning}" for warning in structure.get("warnings", [])]
    return lines
