"""The DVH of a structure as JSON values, and as lines to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from doseledger.core.text.sheet import MISSING, Table, make_table
from doseledger.dicom.read_dose import Dose
from doseledger.dosimetry.dvh.grammar import Measure, Statistic, parse_statistic
from doseledger.dosimetry.dvh.statistics import SampledDose, StructureDose
from doseledger.evaluate.files.plane_dvh import NO_VOLUME, area_cm2, describe_plane, measure_on_plane

CURVE_POINTS = 401


def describe_volume(
    sampled: SampledDose, dose: Dose, statistics: Sequence[str], prescription_gy: float | None
) -> dict[str, Any]:
    """Return the DVH of a structure as JSON values: statistics by name, the curve, and how much the dose covers.

    Parameters
    ----------
    dose
        The whole dose, for CI and R50.
    prescription_gy
        What 100 % is.

    Raises
    ------
    BadInput
        If a statistic is not known, or needs a prescription and none is given.
    """

    def measure(of: SampledDose, statistic: Statistic) -> Measure:
        return of.measure(statistic, prescription_gy, (dose.dose_gy, dose.grid.voxel_volume_cc))

    found = _describe(sampled, statistics, measure, "volume_percent")
    if (part := found["covered_part"]) is not None:
        part["volume_cc"] = sampled.samples.volume_cc
    return found | {"outside_dose_grid_cc": sampled.outside_cc}


def describe_area(
    sampled: SampledDose, thickness_mm: float, statistics: Sequence[str], prescription_gy: float | None
) -> dict[str, Any]:
    """Return the DVH of a structure's cut with a plane as JSON values: its area in cm², statistics, and the curve.

    Parameters
    ----------
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
    found = _describe(
        sampled, statistics, lambda of, statistic: measure_on_plane(of, statistic, prescription_gy), "area_percent"
    )
    if (part := found["covered_part"]) is not None:
        part["area_cm2"] = area_cm2(sampled.samples.volume_cc, thickness_mm)
    return found | {
        "area_cm2": area_cm2(sampled.whole_cc, thickness_mm),
        "outside_dose_grid_cm2": area_cm2(sampled.outside_cc, thickness_mm),
    }


def _describe(
    sampled: SampledDose,
    statistics: Sequence[str],
    measure: Callable[[SampledDose, Statistic], Measure],
    share: str,
) -> dict[str, Any]:
    """Return statistics and curve of a structure; where the dose covers only part of it, that part's apart."""

    def measured(of: SampledDose) -> dict[str, Any]:
        return {text: _as_json(measure(of, parse_statistic(text))) for text in statistics}

    part, curve = None, _curve(sampled.samples, share)
    if sampled.lacking:
        if len(sampled.samples.dose_gy):
            part = {"statistics": measured(SampledDose(sampled.samples, 0.0)), "curve": curve}
        curve = {"dose_gy": [], share: []}
    return {
        "statistics": measured(sampled),
        "covered_percent": 100.0 - sampled.outside_percent,
        "covered_part": part,
        "curve": curve,
    }


def _as_json(measure: Measure) -> dict[str, Any]:
    return {"value": measure.value, "unit": measure.unit, "reason": measure.reason}


def _curve(samples: StructureDose, share: str) -> dict[str, list[float]]:
    """Return doses from 0 to the highest, and the percent of the volume with at least each: weights are summed once."""
    if len(samples.dose_gy) == 0:
        return {"dose_gy": [], share: []}
    levels_gy = np.linspace(0.0, float(samples.dose_gy[-1]), CURVE_POINTS)
    weights = np.ones(len(samples.dose_gy)) if samples.weights is None else samples.weights
    below = np.concatenate([[0.0], np.cumsum(weights)])
    at_least = 1.0 - below[np.searchsorted(samples.dose_gy, levels_gy, side="left")] / below[-1]
    return {"dose_gy": levels_gy.tolist(), share: [100.0 * part for part in at_least.tolist()]}


def describe_dose(dose: Dose) -> dict[str, Any]:
    """Return a dose's grid and maximum as JSON values."""
    return {
        "shape_zyx": list(dose.grid.shape_zyx),
        "spacing_mm": list(dose.grid.spacing_mm),
        "origin_mm": list(dose.grid.origin_mm),
        "max_gy": float(dose.dose_gy.max()),
    }


def describe_lines(found: dict[str, Any], draw: Callable[[Table], str] | None = None) -> list[str]:
    """Return a DVH of `dvh_of_rtdose` as lines to read: a structure a line, or why it has none.

    With `draw` the values stand in a table, and lines below it say what is not in it; not where it draws nothing, as of
    a table that is too wide.
    """
    lines = [f"dose up to {found['dose']['max_gy']:.3f} Gy"]
    lines += [f"warning: {warning}" for warning in found["dose"].get("warnings", [])]
    if found.get("plane"):
        lines.append(describe_plane(found["plane"]))
    table = draw(_table(found["structures"])) if draw else ""
    lines += table.splitlines()
    for name, structure in found["structures"].items():
        text = ", ".join(_missing(structure)) if table else _in_words(structure)
        if text or not table or structure.get("reason"):
            lines.append(f"{name}: {text or structure['reason']}")
        if part := structure.get("covered_part"):
            lines.append(f"  its part that the dose covers, {structure['covered_percent']:.1f} %: {_in_words(part)}")
        lines += [f"  warning: {warning}" for warning in structure.get("warnings", [])]
    return lines


def _table(structures: Mapping[str, Mapping[str, Any]]) -> Table:
    values = {name: _values(structure) for name, structure in structures.items()}
    columns = list(dict.fromkeys(column for row in values.values() for column in row))
    rows = [[name, *(row.get(column, MISSING) for column in columns)] for name, row in values.items()]
    return make_table("", ["Structure", *(f"#{column}" for column in columns)], rows)


def _in_words(structure: Mapping[str, Any]) -> str:
    return ", ".join([*(" ".join(value) for value in _values(structure).items()), *_missing(structure)])


def _values(structure: Mapping[str, Any]) -> dict[str, str]:
    """Return area and statistics that have a value, with their unit, by name."""
    values = {"area": f"{structure['area_cm2']:.2f} cm²"} if "area_cm2" in structure else {}
    for text, entry in structure.get("statistics", {}).items():
        if not entry["reason"]:
            values[text] = f"{entry['value']:.2f} {entry['unit']}".removesuffix(" 1")
    return values


def _missing(structure: Mapping[str, Any]) -> list[str]:
    """Return why statistics have no value: reasons that several share, once."""
    without: dict[str, list[str]] = {}
    for text, entry in structure.get("statistics", {}).items():
        # What a plane can't have is said once, at the head.
        if entry["reason"] and entry["reason"] != NO_VOLUME:
            without.setdefault(entry["reason"], []).append(text)
    return [f"no {' or '.join(texts)} ({reason})" for reason, texts in without.items()]
