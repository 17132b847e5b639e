"""Sampling of the points that stand for a patient's structures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid, box_around, resample_linear
from doseledger.core.types import Floats, Indices, Mask, Singles, Triple
from doseledger.planning.optimise.objectives import NORMAL_TISSUE, Objective, PointObjective, ring_limit_gy
from doseledger.planning.optimise.patient import Patient

# Points are voxel centres of the CT, thinned to about this spacing.
THIN_MM = 3.0


@dataclass(frozen=True)
class Shares:
    """Points that a structure may have, as shares of those asked for."""

    hottest: float
    target: float
    organ: float
    normal: float

    def of(self, name: str, patient: Patient) -> float:
        """Return the share of one structure of a patient."""
        if name in patient.prescription_gy:
            return self.hottest if name == patient.hottest_target else self.target
        return self.normal if name == NORMAL_TISSUE else self.organ


# What is large and held everywhere to a limit has most: with fewer, a plan of many steps is good at its own points and
# worse between them. A wanted dose holds all tissue to it, which is where a plan that has too few points misses it.
PLANNED = Shares(hottest=0.2, target=0.4, organ=0.06, normal=0.6)
WANTED = Shares(hottest=0.06, target=0.12, organ=0.015, normal=0.75)
# Normal tissue is sampled no farther from a target than this: what lies beyond follows from what lies nearer.
NORMAL_REACH_MM = 60.0
# Where a dose is wanted, also wherever it is above this share of the highest prescription.
WANTED_SHARE = 0.06


def sampled_points(
    patient: Patient, objectives: list[Objective], n_points: int, rng: np.random.Generator
) -> tuple[Singles, list[PointObjective]]:
    """Return points in mm, float32 (n, 3) as (x, y, z), and the objectives on them.

    Parameters
    ----------
    objectives
        What is asked; one on a structure that is not there is left out.
    n_points
        About how many points to draw in all; a small structure gives all it has.

    Raises
    ------
    BadInput
        If nothing is left to ask.
    """
    step = tuple(max(1, round(THIN_MM / s)) for s in patient.grid.spacing_mm)
    thin = (slice(None, None, step[0]), slice(None, None, step[1]), slice(None, None, step[2]))
    spacing: Triple = (
        patient.grid.spacing_mm[0] * step[0],
        patient.grid.spacing_mm[1] * step[1],
        patient.grid.spacing_mm[2] * step[2],
    )
    body = patient.body[thin]
    grid = Grid(body.shape, spacing, patient.grid.origin_mm)
    masks = {name: mask[thin] for name, mask in patient.masks.items()}
    distance = {name: _distance_mm(masks[name], grid) for name in patient.prescription_gy}
    wanted_gy = _wanted_gy(patient, grid)
    regions = _regions(patient, masks, body, (distance, wanted_gy))
    shares = PLANNED if wanted_gy is None else WANTED
    points: list[Singles] = []
    where: dict[str, Indices] = {}
    index: dict[str, Indices] = {}
    total = 0
    for name in dict.fromkeys(objective.structure for objective in objectives):
        if name not in regions or not regions[name].any():
            continue
        found = np.flatnonzero(regions[name])
        wanted = int(n_points * shares.of(name, patient))
        chosen = np.sort(rng.choice(found, size=min(wanted, len(found)), replace=False))
        zyx = np.stack(np.unravel_index(chosen, body.shape), axis=-1)
        points.append(grid.index_to_mm(zyx)[:, ::-1].astype(np.float32))
        where[name] = chosen
        index[name] = np.arange(total, total + len(chosen))
        total += len(chosen)
    if not points:
        raise BadInput(f"{patient.case_id}: no objective names a structure that is there")
    return np.concatenate(points), _asked(patient, objectives, wanted_gy, (index, where, distance))


def _asked(
    patient: Patient,
    objectives: list[Objective],
    wanted_gy: Singles | None,
    drawn: tuple[dict[str, Indices], dict[str, Indices], dict[str, Floats]],
) -> list[PointObjective]:
    """Return the objectives on the drawn points: indices of points, their voxels, and distances to the targets."""
    index, where, distance = drawn
    asked = []
    for objective in objectives:
        name = objective.structure
        if name not in index:
            continue
        limit = np.full(len(index[name]), objective.dose_gy)
        if objective.kind == "ring":
            seen = {target: field.ravel()[where[name]] for target, field in distance.items()}
            limit = ring_limit_gy(objective, seen, patient.prescription_gy)
        elif objective.kind in ("mimic", "mimic_max"):
            if wanted_gy is None:
                raise BadInput(f"{patient.case_id}: a {objective.kind} objective needs the patient's wanted_dose_gy")
            limit = wanted_gy.ravel()[where[name]].astype(np.float64)
        asked.append(PointObjective(objective, index[name], limit))
    return asked


def _wanted_gy(patient: Patient, grid: Grid) -> Singles | None:
    if patient.wanted_dose_gy is None:
        return None
    return resample_linear(patient.wanted_dose_gy, patient.grid, grid, outside=0.0)


def _regions(
    patient: Patient,
    masks: dict[str, Mask],
    body: Mask,
    fields: tuple[dict[str, Floats], Singles | None],
) -> dict[str, Mask]:
    """Return where each structure's points are drawn: targets without hotter ones, tissue without any."""
    distance, wanted_gy = fields
    regions = {}
    any_target = np.zeros_like(body)
    for name in sorted(patient.prescription_gy, key=lambda target: -patient.prescription_gy[target]):
        regions[name] = masks[name] & ~any_target & body
        any_target |= masks[name]
    for name, mask in masks.items():
        if name not in patient.prescription_gy:
            regions[name] = mask & body
    near = np.min(list(distance.values()), axis=0) < NORMAL_REACH_MM
    if wanted_gy is not None:
        near |= wanted_gy > WANTED_SHARE * max(patient.prescription_gy.values())
    regions[NORMAL_TISSUE] = body & ~any_target & near
    return regions


def _distance_mm(mask: Mask, grid: Grid) -> Floats:
    """Return the distance to the nearest voxel of a mask in mm, 0 inside; infinite beyond the reach of any ring."""
    distance = np.full(mask.shape, np.inf)
    if mask.any():
        margin = [int(np.ceil(NORMAL_REACH_MM / s)) for s in grid.spacing_mm]
        box = box_around(mask, (margin[0], margin[1], margin[2]))
        distance[box] = ndimage.distance_transform_edt(~mask[box], sampling=grid.spacing_mm)
    return distance
