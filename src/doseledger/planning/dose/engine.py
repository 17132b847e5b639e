"""Photon dose of arcs on a CT: divergent pencil beams at radiological depth.

Known limits: unless the machine's beam follows the density (`stretch`), scatter and electrons travel as in water of the
same radiological depth, and the dose in and behind gas and lung is too high; density beside a ray counts for nothing;
the beam does not soften off the axis; the head's scatter is folded into the pencil beam and so follows the leaves
rather than the jaws; no tongue-and-groove; jaws are opaque. See docs/explanation/dose-engine.md for what was measured.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid, resample_linear
from doseledger.core.plan import Arc, Plan
from doseledger.core.types import HuArray, Mask, Singles
from doseledger.planning.dose.fluence import open_fraction
from doseledger.planning.dose.kernels import Spread, depth_table, spread_for
from doseledger.planning.dose.loops import add_dose, add_stretched_dose
from doseledger.planning.dose.raytrace import DensityMap, density_map, fan_step_mm, trace_fan
from doseledger.planning.dose.stretch import ladder_of, stretch_fan
from doseledger.planning.dose.view import reach_mm, view_of
from doseledger.planning.machine.geometry import beam_frame, gantry_at
from doseledger.planning.machine.linac import Machine, Range

# Nodes of the blurred fluence for a reported dose: at 1.5 mm straight lines follow the penumbra to 1 % of the field.
MAP_MM = 1.5
# Beams for each segment between control points, in a dose that is reported.
SUB_ANGLES = 2
# Beyond this distance from the jaws the pencil beam is cut: under 1 % of the maximum is left there.
REACH_MM = 80.0
# The outline of a patient: soft tissue is well above, air and foam are well below.
OUTLINE_HU = -400.0


def compute_dose(plan: Plan, ct_hu: HuArray, grid: Grid, machine: Machine, dose_grid: Grid, sub_angles: int) -> Singles:
    """Return the dose of all fractions of a plan in Gy, float32 (z, y, x) on the dose grid.

    Parameters
    ----------
    plan
        The plan, its control points as they will be delivered.
    ct_hu
        CT numbers, (z, y, x) on `grid`.
    sub_angles
        Beams for each segment between two control points; each takes its share of the leaves' way.

    Returns
    -------
    ndarray
        Dose, 0 outside the patient's outline (the CT's largest body of tissue, holes filled).

    Raises
    ------
    BadInput
        If the plan is not of this machine, or an array does not fit its grid.
    """
    if ct_hu.shape != grid.shape_zyx:
        raise BadInput(f"plan {plan.label}: CT of {ct_hu.shape} voxels does not fit its grid of {grid.shape_zyx}")
    inside = outline(ct_hu, grid, dose_grid)
    dose_gy = np.zeros(dose_grid.shape_zyx, dtype=np.float32)
    density = density_map(ct_hu, grid, machine.density)
    per_fraction = dose_at_points(plan, density, machine, voxel_points_xyz(inside, dose_grid), sub_angles)
    dose_gy[inside] = per_fraction * np.float32(plan.n_fractions)
    return dose_gy


def outline(ct_hu: HuArray, grid: Grid, target: Grid) -> Mask:
    """Return where the patient is on a target grid, bool (z, y, x): the largest body of tissue, its holes filled."""
    tissue = resample_linear(ct_hu, grid, target, outside=-1000.0) > OUTLINE_HU
    labels, n = ndimage.label(tissue)
    if n == 0:
        return np.zeros(target.shape_zyx, dtype=np.bool_)
    body = labels == (1 + int(np.argmax(np.bincount(labels.ravel())[1:])))
    # Slice by slice: gas that opens at the end of the scan would not be a hole in three dimensions.
    for k in range(body.shape[0]):
        body[k] = ndimage.binary_fill_holes(body[k])
    return body


def voxel_points_xyz(mask: Mask, grid: Grid) -> Singles:
    """Return the centres of the voxels of a mask in mm, float32 (n, 3) as (x, y, z), in the array's order."""
    return grid.index_to_mm(np.argwhere(mask))[:, ::-1].astype(np.float32)


@dataclass(frozen=True)
class _Look:
    """One beam direction: which arc, which segment, and which part of it."""

    arc: int
    segment: int
    part: int


def dose_at_points(
    plan: Plan,
    density: DensityMap,
    machine: Machine,
    points_xyz: Singles,
    sub_angles: int,
) -> Singles:
    """Return the dose of one fraction in Gy at points, float32 (n,).

    Parameters
    ----------
    points_xyz
        Positions in mm, LPS, (n, 3).
    sub_angles
        Beams for each segment.

    Raises
    ------
    BadInput
        If the plan is not of this machine.
    """
    check_machine(plan, machine)
    dose = np.zeros(len(points_xyz), dtype=np.float32)
    if not len(points_xyz):
        return dose
    table = depth_table(machine.beam)
    box = np.stack([points_xyz.min(axis=0), points_xyz.max(axis=0)])
    rows = np.ascontiguousarray(points_xyz.T)
    ladder, step = ladder_of(machine.beam), fan_step_mm(machine.beam)
    # The beam's own widths come first; others are needed only where they follow the density.
    widths = ladder.groups if machine.beam.follows_density else ladder.groups[:1]
    held = [_spreads(machine, (arc.jaw_x_mm, arc.jaw_y_mm), widths) for arc in plan.arcs]
    # Arcs that pass the same angle share its fan of depths.
    looks: dict[tuple[float, ...], list[_Look]] = defaultdict(list)
    for a, arc in enumerate(plan.arcs):
        for s in np.flatnonzero(arc.segment_mu > 0):
            for part in range(sub_angles):
                angle = gantry_at(arc, int(s), (part + 0.5) / sub_angles)
                looks[round(angle, 3), arc.couch_deg, *arc.isocentre_xyz_mm].append(_Look(a, int(s), part))
    for key, group in looks.items():
        arcs = [plan.arcs[look.arc] for look in group]
        spreads = [
            held[look.arc]
            if arc.moving_jaws_mm is None
            else _spreads(machine, _jaws_in_motion(arc, look, sub_angles), widths)
            for arc, look in zip(arcs, group, strict=True)
        ]
        frame = beam_frame(arcs[0], key[0], machine.source_axis_mm)
        fan = trace_fan(density, frame, box, reach_mm([own for own, *_ in spreads]), step)
        stretch = stretch_fan(fan, machine.beam)
        views = np.stack(
            [view_of(frame, fan, own, arc.collimator_deg) for (own, *_), arc in zip(spreads, arcs, strict=True)]
        )
        fluences = [
            _part_fluence(arc, look, sub_angles, own, machine)
            for arc, look, (own, *_) in zip(arcs, group, spreads, strict=True)
        ]
        # A stack for each four widths, of the maps of each field.
        maps = [
            _stacked([one.maps(passed)[0] for one, passed in zip(same, fluences, strict=True)])
            for same in zip(*([one[:1] for one in spreads] if stretch is None else spreads), strict=True)
        ]
        if stretch is None:
            add_dose(rows, views, fan.depth_mm, table, maps[0], dose)
        else:
            how, both = (table, ladder.rule), (maps[0], np.stack(maps[1:]))
            add_stretched_dose(rows, views, (fan.depth_mm, stretch), how, both, dose)
    return dose


def check_machine(plan: Plan, machine: Machine) -> None:
    """Refuse a plan that was made for another machine.

    Raises
    ------
    BadInput
        Naming both machines, or the number of leaf pairs.
    """
    if plan.machine != machine.name:
        raise BadInput(f"plan {plan.label} is for {plan.machine}, not for {machine.name}; load that machine")
    for arc in plan.arcs:
        if arc.leaf_mm.shape[2] != machine.leaves.n_pairs:
            raise BadInput(
                f"plan {plan.label}, beam {arc.name}: {arc.leaf_mm.shape[2]} leaf pairs, "
                f"{machine.name} has {machine.leaves.n_pairs}"
            )


def _spreads(machine: Machine, jaws: tuple[Range, Range], widths: tuple[tuple[float, ...], ...]) -> list[Spread]:
    """Return the spread of a jaw setting for each four widths."""
    return [spread_for(machine, *jaws, MAP_MM, REACH_MM, four) for four in widths]


def _jaws_in_motion(arc: Arc, look: _Look, parts: int) -> tuple[Range, Range]:
    """Return X and Y of jaws that move, at the middle of one part of a segment."""
    jaws = arc.moving_jaws_mm
    if jaws is None:
        raise BadInput(f"beam {arc.name} has no moving jaws")
    share = (look.part + 0.5) / parts
    x1, x2, y1, y2 = (float(j) for j in (1 - share) * jaws[look.segment] + share * jaws[look.segment + 1])
    return (x1, x2), (y1, y2)


def _part_fluence(arc: Arc, look: _Look, parts: int, spread: Spread, machine: Machine) -> Singles:
    """Return the fluence of one part of a segment in MU, (1, pair, cell)."""
    start, stop = arc.leaf_mm[look.segment, :, spread.pairs], arc.leaf_mm[look.segment + 1, :, spread.pairs]
    ends = np.stack([start + (stop - start) * (look.part + k) / parts for k in (0, 1)])
    passed = open_fraction(ends, spread.cell_edge_mm, machine.beam.leaf_gap_mm, machine.beam.leaf_transmission)
    return passed * np.float32(arc.segment_mu[look.segment] / parts)


def _stacked(maps: list[Singles]) -> Singles:
    """Return maps of several fields as one array, (field, y, x, gaussian), dark where a field has none."""
    shape = np.max([m.shape for m in maps], axis=0)
    out = np.zeros((len(maps), *shape), dtype=np.float32)
    for field, one in zip(out, maps, strict=True):
        field[: one.shape[0], : one.shape[1]] = one
    return out
