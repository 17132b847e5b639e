"""A short optimisation of the pelvis as it was when a person last looked at it, and what its settings switch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.arcs import optimise_plan
from doseledger.planning.optimise.objectives import sib_objectives
from doseledger.planning.optimise.patient import OptimiserSettings, Patient, PlannedPatient, PlanStyle
from doseledger.planning.optimise.sampling import sampled_points

SETTINGS = OptimiserSettings(
    segments_per_arc=24, iterations=10, dose_spacing_mm=(8.0, 8.0, 8.0), sub_angles=1, n_points=1500,
    bound_iterations=3,
)  # fmt: skip


def plan_of(patient: Patient, machine: Machine, settings: OptimiserSettings) -> tuple[PlannedPatient, list[float]]:
    steps: list[float] = []
    made = optimise_plan(
        patient, machine, PlanStyle(), settings, np.random.default_rng(7), lambda k, n, v: steps.append(v)
    )
    return made, steps


def test_a_short_plan_is_what_it_was(pelvis: Patient, machine: Machine) -> None:
    made, steps = plan_of(pelvis, machine, SETTINGS)
    assert made.free_fluence_objective is not None
    found: dict[str, Any] = {
        "penalties": steps[:5],
        "last": made.objective,
        "bound": made.free_fluence_objective,
        "scale": made.scale,
        "mu": [float(arc.meterset_mu[-1]) for arc in made.plan.arcs],
        "open": [float((arc.leaf_mm[:, 1] - arc.leaf_mm[:, 0]).mean()) for arc in made.plan.arcs],
        "dose": [float(made.dose_gy.mean()), float(made.dose_gy.max())],
    }
    for name, value in KNOWN.items():
        assert found[name] == pytest.approx(value, rel=2e-2), name
    assert found["penalties"] == pytest.approx(KNOWN["penalties"], rel=2e-3)


KNOWN: dict[str, Any] = {
    "penalties": [6276.8, 4667.9, 1968.3, 1045.6, 342.31],
    "last": 60.084,
    "bound": 43.183,
    "scale": 1.069,
    "mu": [378.54, 379.37],
    "open": [7.2625, 7.0716],
    "dose": [8.5719, 80.154],
}


def test_a_bound_is_asked_for_or_none_is_given(pelvis: Patient, machine: Machine) -> None:
    made, _ = plan_of(pelvis, machine, replace(SETTINGS, bound_iterations=0))
    assert made.free_fluence_objective is None


@pytest.mark.parametrize(("spacing_mm", "thinned_mm"), [(4.0, 4.0), (9.0, 9.0), (1.0, None)])
def test_points_lie_on_the_voxels_of_a_grid_of_that_spacing(
    spacing_mm: float, thinned_mm: float | None, pelvis: Patient
) -> None:
    grid = type(pelvis.grid)(pelvis.grid.shape_zyx, (spacing_mm,) * 3, pelvis.grid.origin_mm)
    patient = replace(pelvis, grid=grid)
    objectives = sib_objectives(patient.prescription_gy, ["Rectum"], PlanStyle())
    points, asked = sampled_points(patient, objectives, 3000, np.random.default_rng(3))
    steps = np.diff(np.unique(points[:, 0]))
    assert steps.min() == pytest.approx(thinned_mm or 3.0, abs=1e-3)
    drawn = {one.objective.structure: len(one.points) for one in asked}
    assert drawn["PTV70"] > 0
    assert len(points) <= 1.5 * 3000
