"""Dose of the bixels of fixed fields at points, with its exact adjoint.

A bixel is a square of the isocentre plane that is open or not; its weight is its fluence. Of each field only bixels
near the targets' projection are there. No influence matrix is made: a field is an arc of one segment that stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.plan import Arc
from doseledger.core.project.protocol import Beams
from doseledger.core.types import Floats, HuArray, Indices, Mask, Singles
from doseledger.planning.dose.operator import MAP_MM, ArcOperator, arc_operators
from doseledger.planning.dose.raytrace import DensityMap, density_map
from doseledger.planning.machine.geometry import beam_frame
from doseledger.planning.machine.linac import Machine, load_machine

# Rows of bixels on either side of the axis: a field of 40 cm along the patient.
HALF_LENGTH_MM = 200.0


@dataclass(frozen=True)
class FieldOperator:
    """The dose of all bixels of a set of fields at points.

    Parameters
    ----------
    bixels
        Field, row and column of each bixel, each (bixel,).
    cells
        Cells of the operators' maps that a bixel spans along its row.
    """

    operators: list[ArcOperator]
    bixels: tuple[Indices, Indices, Indices]
    cells: int

    @property
    def n_bixels(self) -> int:
        """Number of bixels."""
        return len(self.bixels[0])

    def dose(self, weights: Floats) -> Singles:
        """Return the dose at the points, (point,), of the bixels' weights, (bixel,)."""
        field, row, column = self.bixels
        dose = np.zeros(self.operators[0].n_points, dtype=np.float32)
        for number, operator in enumerate(self.operators):
            own = field == number
            fluence = np.zeros((1, *operator.spread.primary.shape), dtype=np.float32)
            for cell in range(self.cells):
                fluence[0, row[own], self.cells * column[own] + cell] = weights[own]
            dose += operator.dose_of_fluence(fluence)
        return dose

    def adjoint(self, slope: Singles) -> Floats:
        """Return the slope by the weights, (bixel,), given the slope by the dose, (point,)."""
        field, row, column = self.bixels
        out = np.zeros(self.n_bixels)
        for number, operator in enumerate(self.operators):
            own = field == number
            by_cell = operator.adjoint_of_fluence(slope)[0]
            for cell in range(self.cells):
                out[own] += by_cell[row[own], self.cells * column[own] + cell]
        return out

    def neighbours(self) -> tuple[Indices, Indices]:
        """Return the pairs of bixels of one field that share an edge, as two arrays (pair,)."""
        number = {place: index for index, place in enumerate(zip(*(a.tolist() for a in self.bixels), strict=True))}
        pairs = [
            (index, number[beside])
            for (field, row, column), index in number.items()
            for beside in ((field, row + 1, column), (field, row, column + 1))
            if beside in number
        ]
        first, second = np.asarray(pairs, dtype=np.intp).reshape(-1, 2).T
        return first, second


def field_machine(beams: Beams, machine: Machine | None = None) -> Machine:
    """Return the generic machine with bixels for leaves, even primary fluence, and the protocol's pencil beam.

    Fluence is free here, so the shape that the flattening filter gives it says nothing; nothing leaks through a bixel.
    """
    generic = machine or load_machine()
    rows = 2 * round(HALF_LENGTH_MM / beams.bixel_mm)
    leaves = generic.leaves.model_copy(update={"runs": [(rows, beams.bixel_mm)]})
    amplitude = [[a * w for a, w in zip(row, beams.kernel_weights, strict=True)] for row in generic.beam.amplitude]
    even = [1.0] * len(generic.beam.fluence_relative)
    beam = generic.beam.model_copy(update={"amplitude": amplitude, "fluence_relative": even, "leaf_transmission": 0.0})
    return generic.model_copy(update={"leaves": leaves, "beam": beam})


def isocentre_xyz(targets: Mask, grid: Grid) -> tuple[float, float, float]:
    """Return the middle of a mask's voxels in mm, LPS."""
    z, y, x = grid.index_to_mm(np.argwhere(targets)).mean(axis=0)
    return float(x), float(y), float(z)


def open_fields(
    ct_hu: HuArray, grid: Grid, targets: Mask, beams: Beams
) -> tuple[list[Arc], list[Mask], DensityMap, Machine]:
    """Return each field, its open bixels (row, column) within its jaws, the density, and the machine.

    Parameters
    ----------
    ct_hu
        CT numbers, (z, y, x) on `grid`.
    targets
        Voxels of any target, (z, y, x); not empty.

    Raises
    ------
    BadInput
        If no voxel is a target.
    """
    if not targets.any():
        raise BadInput("no voxel of any target is there to open a field to; draw the targets, or set no beams")
    machine = field_machine(beams)
    density = density_map(ct_hu, grid, machine.density)
    centre = isocentre_xyz(targets, grid)
    points = _filled_points(targets, grid, beams.bixel_mm)
    arcs, masks = [], []
    for angle in beams.gantry_deg:
        arc, mask = _field_towards(points, float(angle), centre, beams, machine)
        arcs.append(arc)
        masks.append(mask)
    return arcs, masks, density, machine


def field_operator(
    arcs: Sequence[Arc], masks: Sequence[Mask], density: DensityMap, machine: Machine, points_xyz: Singles
) -> FieldOperator:
    """Return the operator of fields for one set of points, (n, 3) in mm, LPS."""
    operators = arc_operators(tuple(arcs), density, machine, points_xyz)
    found = [np.argwhere(mask) for mask in masks]
    field = np.repeat(np.arange(len(masks)), [len(places) for places in found])
    row, column = np.concatenate(found).T
    cells = round(machine.leaves.runs[0][1] / MAP_MM)
    return FieldOperator(operators, (field, row, column), cells)


def _filled_points(targets: Mask, grid: Grid, step_mm: float) -> Floats:
    """Points (n, 3) in mm, LPS, that leave no gap of a bixel in the targets: voxels thicker than one get several."""
    voxels = grid.index_to_mm(np.argwhere(targets))
    for axis, spacing in enumerate(grid.spacing_mm):
        parts = int(np.ceil(spacing / step_mm))
        offsets = ((np.arange(parts) + 0.5) / parts - 0.5) * spacing
        moves = np.zeros((parts, 3))
        moves[:, axis] = offsets
        voxels = (voxels[None] + moves[:, None]).reshape(-1, 3)
    points: Floats = voxels[:, ::-1]
    return points


def _field_towards(
    points_xyz: Floats, angle: float, centre: tuple[float, float, float], beams: Beams, machine: Machine
) -> tuple[Arc, Mask]:
    """One field, and its bixels within the margin of the points' projection."""
    step = beams.bixel_mm
    leaf = np.zeros((2, 2, machine.leaves.n_pairs))
    arc = Arc(
        f"{angle:g}", np.full(2, angle % 360.0), None, 0.0, 0.0, leaf, (-step, step), (-step, step),
        np.array([0.0, 1.0]), centre,
    )  # fmt: skip
    seen = beam_frame(arc, arc.gantry_deg[0], machine.source_axis_mm).project(points_xyz)[:, :2]
    margin = int(np.ceil(beams.margin_mm / step))
    index = np.floor(seen / step).astype(np.intp)
    low = index.min(axis=0) - margin
    shape = index.max(axis=0) + margin + 1 - low
    if max(np.abs(low).max(), np.abs(low + shape).max()) * step > HALF_LENGTH_MM:
        raise BadInput(
            f"the targets reach {seen.min():.0f} to {seen.max():.0f} mm from the isocentre at gantry {angle:g}; "
            f"a field ends at {HALF_LENGTH_MM:g} mm. Look at the targets' contours"
        )
    hit = np.zeros(shape, dtype=np.bool_)
    hit[tuple((index - low).T)] = True
    mask: Mask = ndimage.distance_transform_edt(~hit, sampling=step) <= beams.margin_mm
    jaw_x, jaw_y = ((float(low[k] * step), float((low[k] + shape[k]) * step)) for k in (0, 1))
    held = Arc(
        arc.name, arc.gantry_deg, None, 0.0, 0.0, leaf, jaw_x, jaw_y, arc.meterset_mu, centre,
    )  # fmt: skip
    # Rows lie along the patient, columns across.
    return held, np.ascontiguousarray(mask.T)
