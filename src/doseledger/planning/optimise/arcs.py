"""Direct aperture optimisation of full arcs: leaf tips and MU by gradient.

Every step is projected onto what the machine can do, so that the plan is deliverable from the first step to the last.
The reported dose is computed anew from the final, discrete control points.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid, box_around, resample_linear
from doseledger.core.plan import Plan
from doseledger.core.types import GyArray, Mask, Singles
from doseledger.planning.dose.engine import dose_at_points, outline, voxel_points_xyz
from doseledger.planning.dose.operator import arc_operators
from doseledger.planning.dose.raytrace import DensityMap, density_map
from doseledger.planning.machine.feasible import SCALE_ROOM, TIP_MM
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.bound import free_fluence_penalty
from doseledger.planning.optimise.descent import Progress, descend
from doseledger.planning.optimise.objectives import Objective, sib_objectives
from doseledger.planning.optimise.patient import OptimiserSettings, Patient, PlannedPatient, PlanStyle
from doseledger.planning.optimise.problem import Arcs, Problem
from doseledger.planning.optimise.sampling import sampled_points
from doseledger.planning.optimise.start import outline_of, start_arcs

# The hottest target's dose is normalised to its prescription at this volume.
NORMALISED_VOLUME = 95.0
# Plans of predicted doses lie 0.7 to 1.3 Gy from them, where they are above this share of the prescription.
HIGH_SHARE = 0.1
MIMICKED_GY = 3.0


def optimise_plan(
    patient: Patient,
    machine: Machine,
    style: PlanStyle,
    settings: OptimiserSettings,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> PlannedPatient:
    """Return a deliverable plan of full arcs and its dose.

    Parameters
    ----------
    rng
        Draws the points; the same generator gives the same plan to the bit on one machine.
    progress
        Called after each step with the step, all steps, and the penalty.

    Raises
    ------
    BadCase
        If the targets can't be reached, or come out too far from their dose to be normalised.
    """
    organs = [name for name in patient.masks if name not in patient.prescription_gy]
    objectives = sib_objectives(patient.prescription_gy, organs, style)
    return optimise_to(patient, machine, (style, settings), objectives, rng, progress)


def optimise_to(
    patient: Patient,
    machine: Machine,
    how: tuple[PlanStyle, OptimiserSettings],
    objectives: list[Objective],
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> PlannedPatient:
    """Return a deliverable plan for objectives of the caller's own; see `optimise_plan`."""
    style, settings = how
    targets = np.any([patient.masks[name] for name in patient.prescription_gy], axis=0)
    isocentre = isocentre_of(patient)
    arcs = start_arcs(_thinned(targets, patient.grid), isocentre, machine, style, settings.segments_per_arc)
    points, asked = sampled_points(patient, objectives, settings.n_points, rng)
    density = density_map(patient.ct_hu, patient.image_grid, machine.density)
    operators = arc_operators(arcs, density, machine, points)
    fractions_per_gy = patient.n_fractions / patient.prescription_gy[patient.hottest_target]
    prices = settings.mu_weight * fractions_per_gy, settings.edge_weight * fractions_per_gy
    outlines = {}
    if settings.outline_margin_mm:
        seen, margin = _thinned(targets, patient.grid), settings.outline_margin_mm
        outlines = {arc.name: outline_of(arc, seen, machine, margin) for arc in arcs}
    problem = Problem(machine, operators, asked, patient.n_fractions, *prices, outlines)
    arcs, objective = descend(problem, _normalised_start(problem, arcs, patient), settings.iterations, progress)
    plan = Plan(
        label=patient.case_id[:16],
        machine=machine.name,
        energy_mv=machine.beam.energy_mv,
        # As it will be written: leaf tips on the grid of the file.
        arcs=tuple(replace(arc, leaf_mm=np.round(arc.leaf_mm / TIP_MM) * TIP_MM) for arc in arcs),
        n_fractions=patient.n_fractions,
        prescription_gy=dict(patient.prescription_gy),
    )
    bound = None
    if settings.bound_iterations:
        bound = free_fluence_penalty(problem, arcs, settings.bound_iterations)
    return _reported(patient, machine, (plan, density), settings, (objective, bound))


def _normalised_start(problem: Problem, arcs: Arcs, patient: Patient) -> Arcs:
    """Return feasible arcs whose mean dose to the hottest target is its prescription."""
    arcs = tuple(problem.feasible(arc, arc.leaf_mm, arc.segment_mu) for arc in arcs)
    hottest = patient.hottest_target
    points = next((a.points for a in problem.asked if a.objective.structure == hottest), None)
    if points is None:
        return arcs
    mean = float(problem.dose(arcs)[points].mean())
    if mean <= 0:
        raise BadCase(patient.case_id, f"no dose reaches {hottest}; are the CT and its isocentre where they should be?")
    factor = patient.prescription_gy[hottest] / mean
    return tuple(problem.feasible(arc, arc.leaf_mm, arc.segment_mu * factor) for arc in arcs)


def _reported(
    patient: Patient,
    machine: Machine,
    made: tuple[Plan, DensityMap],
    settings: OptimiserSettings,
    values: tuple[float, float | None],
) -> PlannedPatient:
    """Return the plan normalised to the hottest target's D95%, and its dose from the discrete control points."""
    plan, density = made
    grid = patient.dose_grid or patient.grid.inside(box_around(patient.body)).resampled(settings.dose_spacing_mm)
    inside = outline(np.where(patient.body, np.int16(0), np.int16(-1000)), patient.grid, grid)
    dose = np.zeros(grid.shape_zyx, dtype=np.float32)
    points = voxel_points_xyz(inside, grid)
    dose[inside] = dose_at_points(plan, density, machine, points, settings.sub_angles) * np.float32(plan.n_fractions)
    hottest = patient.hottest_target
    at = grid.mm_to_index(patient.grid.index_to_mm(np.argwhere(patient.masks[hottest])))
    in_target = ndimage.map_coordinates(dose, at.T, order=1, mode="nearest")
    covered = float(np.percentile(in_target, 100.0 - NORMALISED_VOLUME))
    if covered <= 0:
        raise BadCase(patient.case_id, f"{hottest} lies outside the dose grid or gets no dose: its D95% is 0 Gy")
    scale = patient.prescription_gy[hottest] / covered
    if abs(np.log(scale)) > np.log1p(SCALE_ROOM):
        raise BadCase(
            patient.case_id,
            f"{hottest} has D95% {covered:.1f} Gy, too far from {patient.prescription_gy[hottest]:g} Gy to be scaled; "
            + _remedy(patient, dose, grid),
        )
    scaled = tuple(replace(arc, meterset_mu=arc.meterset_mu * scale) for arc in plan.arcs)
    return PlannedPatient(
        plan=replace(plan, arcs=scaled),
        dose_gy=dose * np.float32(scale),
        dose_grid=grid,
        objective=values[0],
        iterations=settings.iterations,
        scale=scale,
        free_fluence_objective=values[1],
    )


def _remedy(patient: Patient, dose_gy: GyArray, grid: Grid) -> str:
    """Return what to do about a plan whose target is far from its prescription."""
    if patient.wanted_dose_gy is None:
        return "give the optimiser more iterations, or its target more weight"
    wanted = resample_linear(patient.wanted_dose_gy, patient.grid, grid, outside=0.0)
    high = wanted > HIGH_SHARE * patient.prescription_gy[patient.hottest_target]
    off = float(np.abs(dose_gy - wanted)[high].mean()) if high.any() else np.inf
    if off > MIMICKED_GY:
        return (
            f"the dose to mimic is {off:.1f} Gy from the plan's on average (a dose that beams can give: about 1 Gy), "
            "and more iterations do not help; look at the prediction, and whether it is this patient's"
        )
    return "give the optimiser more iterations or points (deliver.iterations, deliver.n_points)"


def isocentre_of(patient: Patient) -> tuple[float, float, float]:
    """Return the isocentre in mm, (x, y, z): the hottest target's centre, to the mm that a couch can be set to."""
    if patient.isocentre_xyz_mm is not None:
        return patient.isocentre_xyz_mm
    z, y, x = np.round(patient.grid.index_to_mm(np.argwhere(patient.masks[patient.hottest_target])).mean(axis=0))
    return float(x), float(y), float(z)


def _thinned(mask: Mask, grid: Grid) -> Singles:
    """Return points of a mask in mm, (n, 3), about 3 mm apart."""
    step = [max(1, round(3.0 / s)) for s in grid.spacing_mm]
    zyx = np.argwhere(mask[:: step[0], :: step[1], :: step[2]]) * step
    return grid.index_to_mm(zyx)[:, ::-1].astype(np.float32)
