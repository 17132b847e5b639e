"""Complexity of the plan of an RTPLAN file, beam by beam."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.plan import Arc
from doseledger.core.types import Floats
from doseledger.dicom.plan.read import read_leaf_boundaries, read_plan, read_prescription
from doseledger.dicom.source import lenient, malformed_as_bad_case, read_file
from doseledger.planning.machine.complexity import (
    Complexity,
    beam_complexity,
    mu_per_gy,
    plan_complexity,
    speeds_of,
)
from doseledger.planning.machine.linac import Machine

DECIMALS = 5


def complexity_of_files(paths: list[Path], machine: Machine) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the complexity of each fraction group of all files, and why others have none; see `complexity_of_file`."""
    found, failed = [], []
    for path in paths:
        try:
            found += complexity_of_file(path, machine)
        except BadInput as error:
            failed.append(str(error))
    return found, failed


def complexity_of_file(path: Path, machine: Machine) -> list[dict[str, Any]]:
    """Return the complexity of each fraction group of an RTPLAN as JSON values.

    Parameters
    ----------
    machine
        Whose limits give speeds and dose rates; the apertures are the file's own.

    Raises
    ------
    BadInput
        If it is no RTPLAN, or its beams are none of photons that leaves or jaws shape.
    """
    with lenient():
        dataset = read_file(path, "RTPLAN", "an RTPLAN")
        try:
            with malformed_as_bad_case(path.name):
                groups = sorted(read_prescription(dataset, path.name).n_fractions)
                return [_of_group(dataset, path, group, machine) for group in groups]
        except BadCase as error:
            raise BadInput(str(error)) from error


def _of_group(dataset: Any, path: Path, group: int, machine: Machine) -> dict[str, Any]:
    plan = read_plan(dataset, path.name, group)
    edges = read_leaf_boundaries(dataset, path.name, group)
    beams = [beam_complexity(arc, boundary) for arc, boundary in zip(plan.arcs, edges, strict=True)]
    return {
        "file": path.name,
        "fraction_group": group,
        "machine": plan.machine,
        "limits_of": machine.name,
        "n_fractions": plan.n_fractions,
        "mu_per_gy": mu_per_gy(plan),
        **complexity_as_json(plan_complexity(beams)),
        "beams": [_of_beam(*both, machine) for both in zip(plan.arcs, beams, strict=True)],
    }


def complexity_as_json(found: Complexity) -> dict[str, Any]:
    """Return a complexity as JSON values, rounded; what has no value is None."""
    small = {f"below_{gap:g}_mm": _rounded(value) for gap, value in found.small_aperture_percent.items()}
    rest = {name: value for name, value in asdict(found).items() if name != "small_aperture_percent"}
    return {**{name: _rounded(value) for name, value in rest.items()}, "small_aperture_percent": small}


def _of_beam(arc: Arc, found: Complexity, machine: Machine) -> dict[str, Any]:
    speeds = speeds_of(arc, machine)
    return {
        "name": arc.name,
        "n_control_points": arc.n_control_points,
        **complexity_as_json(found),
        "time_s": _rounded(float(speeds.time_s.sum())),
        # One value a segment, that is a control point from the second on.
        "gantry_deg_s": _list(speeds.gantry_deg_s),
        "dose_rate_mu_min": _list(speeds.dose_rate_mu_min),
        "leaf_mm_s": _list(speeds.leaf_mm_s),
    }


def _list(values: Floats) -> list[float]:
    return [round(float(value), 3) for value in values]


def _rounded(value: float) -> float | None:
    return round(value, DECIMALS) if math.isfinite(value) else None


def describe_complexity(found: dict[str, Any]) -> list[str]:
    """Return a line a beam, and one for the plan, of what `complexity_of_file` gave."""
    per_gy = "no prescription" if found["mu_per_gy"] is None else f"{found['mu_per_gy']:.0f} MU/Gy"
    lines = [f"{found['file']}, fraction group {found['fraction_group']}: {per_gy}, {_line(found)}"]
    for beam in found["beams"]:
        turning = [f"{max(beam[key], default=0.0):.3g}" for key in ("gantry_deg_s", "dose_rate_mu_min", "leaf_mm_s")]
        lines.append(
            f"  {beam['name']}: {_line(beam)}; {beam['time_s']:.0f} s at the limits of {found['limits_of']}, at most "
            f"{turning[0]}°/s, {turning[1]} MU/min, leaves {turning[2]} mm/s"
        )
    return lines


def _line(found: dict[str, Any]) -> str:
    values = {name: "–" if found[name] is None else f"{found[name]:.3g}" for name in found if name in _SHOWN}
    small = found["small_aperture_percent"]["below_10_mm"]
    return (
        f"{_whole(found['mu'])} MU, modulation score {values['modulation_score']}, "
        f"{_whole(small)} % of gaps below 10 mm, leaf travel {values['leaf_travel_mm']} mm, "
        f"edge over area {values['edge_per_area_mm']} 1/mm, area {values['area_cm2']} cm²"
    )


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


_SHOWN = ("modulation_score", "leaf_travel_mm", "edge_per_area_mm", "area_cm2")
