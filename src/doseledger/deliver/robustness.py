"""A plan's dose under errors of set-up, density and beam: DVH bands and goals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.limit import meets
from doseledger.core.plan import Plan
from doseledger.core.project.protocol import GoalSet
from doseledger.core.types import Floats, Singles
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.statistics import StructureDose
from doseledger.planning.dose.engine import dose_at_points
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.linac import Machine

# The patient stands off by so much along each axis, either way; the CT's density is off by so much.
SETUP_MM = (3.0, 5.0)
DENSITY_PERCENT = 3.0
# Another beam of the same calibration: its Gaussians wider or narrower, its attenuation stronger or weaker.
WIDTH_PERCENT = 10.0
ATTENUATION_PERCENT = 2.0
# Voxels that stand for a structure, and beams for each segment: bands don't need the reported dose's own.
VOXELS = 3000
SUB_ANGLES = 1
STEP_GY = 1.0
STATISTICS = ("D98%", "D95%", "D2%", "mean")
DECIMALS = 3


@dataclass(frozen=True)
class Scene:
    """What a plan is computed on anew: structures, density, machine and goals."""

    case: Case
    density: DensityMap
    machine: Machine
    goals: GoalSet


@dataclass(frozen=True)
class Scenario:
    """One error: its kind, and the plan, the density and the machine that it makes."""

    kind: str
    name: str
    plan: Plan
    density: DensityMap
    machine: Machine


def scenarios(plan: Plan, density: DensityMap, machine: Machine) -> Iterator[Scenario]:
    """Yield the plan as it is, then with each error: patient or density off, another beam of the same calibration.

    Notes
    -----
    One engine plans and judges. The other beam tells how far the result hangs on that engine's own kernel.
    """
    yield Scenario("nominal", "nominal", plan, density, machine)
    for distance in SETUP_MM:
        for axis, name in enumerate("xyz"):
            for sign in (1.0, -1.0):
                yield Scenario(
                    f"setup_{distance:g}_mm",
                    f"{name} {sign * distance:+g} mm",
                    _moved(plan, axis, sign * distance),
                    density,
                    machine,
                )
    for sign in (1.0, -1.0):
        factor = np.float32(1.0 + sign * DENSITY_PERCENT / 100.0)
        denser = DensityMap(density.relative * factor, density.grid)
        name = f"density {sign * DENSITY_PERCENT:+g} %"
        yield Scenario(f"density_{DENSITY_PERCENT:g}_percent", name, plan, denser, machine)
    for what, percent in (("width", WIDTH_PERCENT), ("attenuation", ATTENUATION_PERCENT)):
        for sign in (1.0, -1.0):
            other = _other_beam(machine, what, 1.0 + sign * percent / 100.0)
            yield Scenario("other_beam", f"beam {what} {sign * percent:+g} %", plan, density, other)


def _other_beam(machine: Machine, what: str, factor: float) -> Machine:
    """Return the machine with its Gaussians' widths or its attenuation scaled; its calibration stays."""
    beam = machine.beam
    if what == "width":
        changed = beam.model_copy(update={"sigma_mm": [factor * sigma for sigma in beam.sigma_mm]})
    else:
        changed = beam.model_copy(update={"attenuation_per_mm": factor * beam.attenuation_per_mm})
    return machine.model_copy(update={"beam": changed})


def _moved(plan: Plan, axis: int, distance_mm: float) -> Plan:
    """Return the plan as it meets a patient who stands off: its isocentre lies as far the other way."""
    arcs = []
    for arc in plan.arcs:
        at = list(arc.isocentre_xyz_mm)
        at[axis] -= distance_mm
        arcs.append(replace(arc, isocentre_xyz_mm=(at[0], at[1], at[2])))
    return replace(plan, arcs=tuple(arcs))


def robustness_of(scene: Scene, plan: Plan, rng: np.random.Generator) -> dict[str, Any]:
    """Return DVH bands, statistics and goals of a plan under errors, as JSON values.

    Parameters
    ----------
    rng
        Draws the voxels that stand for each structure.

    Returns
    -------
    dict
        `scenarios` (kind by name), `dose_gy` (of the bands), `structures` (by name: for each kind the least and the
        greatest percent of the volume at each dose, and of each statistic in Gy) and `goals` (for each how many of the
        scenarios meet it, and its least and greatest value).

    Notes
    -----
    Errors are systematic: one for the whole course. Each kind's bands hold its scenarios and the plan as it is.
    """
    case = scene.case
    index, where, total = {}, [], 0
    for name in case.present_names:
        voxels = np.argwhere(case.mask(name))
        chosen = np.sort(rng.choice(len(voxels), size=min(VOXELS, len(voxels)), replace=False))
        index[name] = np.arange(total, total + len(chosen))
        where.append(voxels[chosen])
        total += len(chosen)
    points = case.grid.index_to_mm(np.concatenate(where))[:, ::-1].astype(np.float32)
    doses: dict[str, Singles] = {}
    kinds: dict[str, str] = {}
    for one in scenarios(plan, scene.density, scene.machine):
        dose = dose_at_points(one.plan, one.density, one.machine, points, SUB_ANGLES)
        doses[one.name], kinds[one.name] = dose * np.float32(plan.n_fractions), one.kind
    top = max(float(dose.max()) for dose in doses.values())
    edges = np.arange(0.0, top + 2 * STEP_GY, STEP_GY)
    samples = {
        scenario: {name: _samples(case, name, dose[at]) for name, at in index.items()}
        for scenario, dose in doses.items()
    }
    return {
        "case_id": case.case_id,
        "scenarios": kinds,
        "dose_gy": edges.tolist(),
        "structures": {name: _bands(samples, kinds, name, edges) for name in index},
        "goals": _goals(scene, samples),
        "voxels_a_structure": VOXELS,
    }


def _samples(case: Case, name: str, dose_gy: Singles) -> StructureDose:
    volume_cc = float(case.mask(name).sum()) * case.grid.voxel_volume_cc
    return StructureDose(np.sort(dose_gy), None, volume_cc / len(dose_gy))


def _bands(
    samples: dict[str, dict[str, StructureDose]], kinds: dict[str, str], name: str, edges_gy: Floats
) -> dict[str, Any]:
    found = {}
    for kind in dict.fromkeys(kinds.values()):
        held = [samples[one][name] for one, of in kinds.items() if of in (kind, "nominal")]
        curves = np.stack([_percent(one, edges_gy) for one in held])
        values = {
            statistic: [one.measure(parse_statistic(statistic)).value for one in held] for statistic in STATISTICS
        }
        found[kind] = {
            "least_percent": _rounded(curves.min(axis=0)),
            "most_percent": _rounded(curves.max(axis=0)),
            "statistics_gy": {key: [round(min(v), DECIMALS), round(max(v), DECIMALS)] for key, v in values.items()},
        }
    return found


def _percent(samples: StructureDose, edges_gy: Floats) -> Floats:
    below = np.searchsorted(samples.dose_gy, edges_gy, side="left")
    return np.asarray(100.0 * (len(samples.dose_gy) - below) / len(samples.dose_gy), dtype=np.float64)


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), DECIMALS) for value in values]


def _goals(scene: Scene, samples: dict[str, dict[str, StructureDose]]) -> list[dict[str, Any]]:
    rows = []
    prescriptions = scene.case.prescription_gy
    for goal in scene.goals.goals:
        statistic = parse_statistic(goal.statistic).in_unit(goal.unit)
        # What is taken away from a structure, or needs the whole dose, has no samples of its own here.
        if goal.minus or statistic.needs_whole_dose or goal.structure not in next(iter(samples.values())):
            continue
        reference = prescriptions.get(goal.structure, max(prescriptions.values()))
        values = [found[goal.structure].measure(statistic, reference).value for found in samples.values()]
        rows.append(
            {
                "goal": goal.name,
                "met": sum(meets(value, goal.operator, goal.limit) for value in values),
                "of": len(values),
                "least": round(min(values), DECIMALS),
                "most": round(max(values), DECIMALS),
            }
        )
    return rows


def describe_robustness(found: dict[str, Any]) -> list[str]:
    """Return the lines of a table: each structure's statistics by kind of error, and goals that an error breaks."""
    kinds = list(dict.fromkeys(found["scenarios"].values()))
    lines = [f"{found['case_id']} under errors, in Gy:", f"  {'':24}" + "".join(f"{kind:>20}" for kind in kinds)]
    for name, by_kind in found["structures"].items():
        for statistic in STATISTICS:
            ends = [by_kind[kind]["statistics_gy"][statistic] for kind in kinds]
            cells = [f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}" for low, high in ends]
            lines.append(f"  {name + ' ' + statistic:24}" + "".join(f"{cell:>20}" for cell in cells))
    lines += [
        f"  {row['goal']}: met in {row['met']} of {row['of']} ({row['least']:.2f} to {row['most']:.2f})"
        for row in found["goals"]
        if row["met"] < row["of"]
    ]
    return lines
