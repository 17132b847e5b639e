"""Dose maps that physics gives before a plan: conformal, gathered, plan.

They are made of CT, contours, prescription and the protocol's beams, never of a plan's dose: what a network or trees
may know of how beams go through this patient.

- *conformal*: all bixels open alike, the main target's mean at its prescription.
- *gathered*: each bixel open as much as the targets that it sees want dose (prescription per open dose, gathered along
  the rays), scaled in the same way.
- *plan*: the fluence that a generic set of objectives is least violated by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from doseledger.core.grid import Grid, resample_linear
from doseledger.core.project.protocol import Beams, GenericPlan
from doseledger.core.types import Floats, GyArray, HuArray, Mask, Singles
from doseledger.planning.dose.engine import voxel_points_xyz
from doseledger.planning.fields.fluence import Penalty, fit_fluence, mean_square
from doseledger.planning.fields.operator import FieldOperator, field_operator, open_fields
from doseledger.planning.optimise.objectives import (
    NORMAL_TISSUE,
    Objective,
    PointObjective,
    ring_limit_gy,
    total_value_and_slope,
)

# Maps are computed on every so many voxels that their points lie at most this far apart, and interpolated.
POINT_MM = 5.0
# Share of a target's own weight that its overdose counts.
TARGET_WEIGHT, OVERDOSE_SHARE, ORGAN_WEIGHT = 30.0, 0.5, 2.0
# A target's dose may exceed its prescription by so much before it counts.
OVERDOSE = 1.05


@dataclass(frozen=True)
class FieldCase:
    """What the fields of a patient are made of.

    Parameters
    ----------
    ct_hu, body
        CT numbers and outline, (z, y, x) on `grid`.
    masks
        Voxels of each structure that is there, (z, y, x).
    prescription_gy
        Of each target that is there.
    """

    ct_hu: HuArray
    grid: Grid
    body: Mask
    masks: Mapping[str, Mask]
    prescription_gy: Mapping[str, float]

    @property
    def targets(self) -> Mask:
        """Voxels of any target, (z, y, x)."""
        return np.logical_or.reduce([self.masks[name] for name in self.prescription_gy])

    @property
    def wanted_gy(self) -> GyArray:
        """The highest prescription that holds at each voxel, 0 outside the targets, (z, y, x)."""
        wanted = np.zeros(self.grid.shape_zyx, dtype=np.float32)
        for name, dose_gy in self.prescription_gy.items():
            wanted[self.masks[name]] = np.maximum(wanted[self.masks[name]], dose_gy)
        return wanted


@dataclass(frozen=True)
class FieldDose:
    """The fields of a patient: dose at points of the body, and back on the case's voxels."""

    operator: FieldOperator
    case: FieldCase
    lattice: tuple[slice, slice, slice]
    grid: Grid
    inside: Mask

    def at_points(self, volume: np.ndarray) -> np.ndarray:
        """Return what a volume of the case (z, y, x) holds at the points."""
        return volume[self.lattice][self.inside]

    def on_case(self, dose: Singles) -> GyArray:
        """Return a dose at the points on the case's voxels, 0 outside the body, (z, y, x)."""
        volume = np.zeros(self.grid.shape_zyx, dtype=np.float32)
        volume[self.inside] = dose
        # Beyond the skin the nearest point's dose holds, so that interpolation doesn't draw air in.
        nearest = ndimage.distance_transform_edt(~self.inside, return_distances=False, return_indices=True)
        filled = resample_linear(volume[tuple(nearest)], self.grid, self.case.grid, 0.0)
        return np.where(self.case.body, filled, np.float32(0.0)).astype(np.float32)


def field_dose(case: FieldCase, beams: Beams) -> FieldDose:
    """Return the fields of a patient.

    Raises
    ------
    BadInput
        If no voxel is a target, or a target reaches beyond the largest field.
    """
    factors = [max(1, int(POINT_MM / spacing + 1e-6)) for spacing in case.grid.spacing_mm]
    starts = [(n - 1) % factor // 2 for n, factor in zip(case.grid.shape_zyx, factors, strict=True)]
    lattice = tuple(slice(start, None, factor) for start, factor in zip(starts, factors, strict=True))
    lattice = (lattice[0], lattice[1], lattice[2])
    # A target outside the body, or that falls between the lattice's points, is seen all the same.
    thin = case.body[lattice] | case.targets[lattice]
    spacing = tuple(s * f for s, f in zip(case.grid.spacing_mm, factors, strict=True))
    origin = tuple(o + a * s for o, a, s in zip(case.grid.origin_mm, starts, case.grid.spacing_mm, strict=True))
    grid = Grid(thin.shape, (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))
    arcs, masks, density, machine = open_fields(case.ct_hu, case.grid, case.targets, beams)
    operator = field_operator(arcs, masks, density, machine, voxel_points_xyz(thin, grid))
    return FieldDose(operator, case, lattice, grid, thin)


def physics_maps(case: FieldCase, beams: Beams) -> dict[str, GyArray]:
    """Return the maps that a protocol's beams ask for, each in Gy (z, y, x) on the case's voxels.

    Raises
    ------
    BadInput
        As `field_dose`.
    """
    fields = field_dose(case, beams)
    operator = fields.operator
    wanted = fields.at_points(case.wanted_gy).astype(np.float32)
    even = np.ones(operator.n_bixels)
    open_dose = operator.dose(even)
    found = {"conformal": _prescribed(open_dose, wanted)}
    if {"gathered", "plan"} & set(beams.maps):
        weights = _gathered(operator, open_dose, wanted)
        dose = operator.dose(weights)
        found["gathered"] = _prescribed(dose, wanted)
        if beams.plan is not None and "plan" in beams.maps:
            start = weights * _scale(dose, wanted)
            penalty = _generic_penalty(fields, beams.plan)
            fitted = fit_fluence(
                operator, penalty, start, smoothness=beams.plan.smoothness, evaluations=beams.plan.evaluations
            )
            found["plan"] = operator.dose(fitted)
    return {name: fields.on_case(found[name]) for name in beams.maps}


def nearest_dose(fields: FieldDose, dose_gy: GyArray, *, smoothness: float = 1e-4, evaluations: int = 60) -> GyArray:
    """Return the dose that the fields can give that is nearest to another one, in Gy (z, y, x) on the case's voxels.

    Parameters
    ----------
    dose_gy
        The wanted dose, (z, y, x) on the case's voxels.
    smoothness, evaluations
        As `fit_fluence`.
    """
    wanted = fields.at_points(dose_gy).astype(np.float32)
    operator = fields.operator
    start = np.ones(operator.n_bixels)
    open_dose = operator.dose(start)
    # The scale that is nearest, in least squares.
    start *= max(float(open_dose @ wanted) / max(float(open_dose @ open_dose), 1e-12), 1e-6)
    penalty = mean_square(wanted, np.ones_like(wanted))
    weights = fit_fluence(operator, penalty, start, smoothness=smoothness, evaluations=evaluations)
    return fields.on_case(operator.dose(weights))


def _scale(dose: Singles, wanted: Singles) -> float:
    """What brings the mean dose of the points with the highest prescription to it."""
    main = wanted >= wanted.max()
    return float(wanted.max() / max(float(dose[main].mean(dtype=np.float64)), 1e-12))


def _prescribed(dose: Singles, wanted: Singles) -> Singles:
    return (dose * np.float32(_scale(dose, wanted))).astype(np.float32)


def _gathered(operator: FieldOperator, open_dose: Singles, wanted: Singles) -> Floats:
    """Weights of bixels: mean of prescription per open dose over the targets' points that each sees."""
    inside = wanted > 0
    asked = np.where(inside, wanted / np.maximum(open_dose, 1e-6), 0.0).astype(np.float32)
    seen = operator.adjoint(inside.astype(np.float32))
    return operator.adjoint(asked) / np.maximum(seen, 1e-9 * seen.max())


def _generic_penalty(fields: FieldDose, plan: GenericPlan) -> Penalty:
    """What the map `plan` asks, in units of the main prescription squared."""
    case = fields.case
    highest = max(case.prescription_gy.values())
    distance_mm, claimed = {}, np.zeros(int(fields.inside.sum()), dtype=np.bool_)
    asked: list[PointObjective] = []

    def ask(objective: Objective, points: Mask, limit: Floats | float | None = None) -> None:
        index = np.flatnonzero(points)
        if len(index):
            values = np.broadcast_to(objective.dose_gy if limit is None else limit, len(points))
            asked.append(PointObjective(objective, index, np.asarray(values, dtype=np.float64)[index]))

    # Where targets overlap, the higher prescription holds.
    for name, dose_gy in sorted(case.prescription_gy.items(), key=lambda item: -item[1]):
        outside = ~case.masks[name]
        distance = ndimage.distance_transform_edt(outside, sampling=case.grid.spacing_mm)
        distance_mm[name] = fields.at_points(distance).astype(np.float64)
        own = fields.at_points(case.masks[name]) & ~claimed
        claimed |= own
        ask(Objective(name, "min_dose", dose_gy, TARGET_WEIGHT), own)
        ask(Objective(name, "max_dose", OVERDOSE * dose_gy, OVERDOSE_SHARE * TARGET_WEIGHT), own)
    ring = Objective(NORMAL_TISSUE, "ring", plan.floor_share * highest, plan.ring_weight, falloff_mm=plan.falloff_mm)
    ask(ring, ~claimed, ring_limit_gy(ring, distance_mm, dict(case.prescription_gy)))
    for name, mask in case.masks.items():
        if name in case.prescription_gy:
            continue
        own = fields.at_points(mask) & ~claimed
        if name in plan.organ_max_gy:
            ask(Objective(name, "max_dose", plan.organ_max_gy[name], ORGAN_WEIGHT), own)
        ask(Objective(name, "mean_max", 0.0, plan.organ_mean_weight), own)
    unit = 1.0 / highest**2

    def penalty(dose_gy: Singles) -> tuple[float, Singles]:
        value, slope = total_value_and_slope(asked, dose_gy)
        return value * unit, (slope * unit).astype(np.float32)

    return penalty
