"""Radiological depth along a fan of rays, and its lookup at any point.

Depths are summed along a fan of rays of one gantry angle, then read off by trilinear interpolation; beams of the same
angle share a fan whatever their collimator. A fan's nodes lie in planes that hold one axis of the CT, for a couch at 0°
the long axis: in such a plane all rays of one step lie above one another, and are read from one column of voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.core.grid import Grid, box_around
from doseledger.core.types import Floats, HuArray, Singles
from doseledger.planning.machine.geometry import BeamFrame
from doseledger.planning.machine.linac import Beam, Density

# Spacing of the fan in the isocentre plane, and of samples along its rays: pelvic anatomy is smooth on this scale, and
# the sum over a ray averages what is not.
FAN_MM = 4.0
STEP_MM = 4.0
# Of a beam with electrons of head and air: 4 mm put the surface up to 1 mm off, 2 mm 0.2 mm.
FINE_STEP_MM = 2.0
# Finer voxels are averaged over blocks up to this size: the fan is no denser, and the sum over a ray stays as it was.
DENSITY_MM = 4.1
# Below this nothing attenuates: the air around the patient is cut away, with what is only in it.
LEAST_DENSITY = 0.05


@dataclass(frozen=True)
class DensityMap:
    """Electron density relative to water, float32 (z, y, x) on its grid; vacuum outside."""

    relative: Singles
    grid: Grid


@dataclass(frozen=True)
class Fan:
    """Radiological depth in mm, float32 (ray across, step, ray along).

    Parameters
    ----------
    frame
        The fan's own axes. The source is the beam's; along is an axis of the CT.
    start_mm
        X, Y (isocentre plane) and distance from the source of the first node.
    spacing_mm
        Distance of nodes along X, Y and the axis.
    """

    depth_mm: Singles
    frame: BeamFrame
    start_mm: Floats
    spacing_mm: Floats


def density_map(ct_hu: HuArray, grid: Grid, density: Density) -> DensityMap:
    """Return the electron density of a CT, averaged over blocks of fine voxels, cut to the box of what attenuates."""
    factor = [max(1, int(DENSITY_MM / s + 1e-6)) for s in grid.spacing_mm]
    shape = tuple(n // f for n, f in zip(grid.shape_zyx, factor, strict=True))
    cut = tuple(slice(0, n * f) for n, f in zip(shape, factor, strict=True))
    table = density.of(np.arange(-1024, 4096))
    relative = table[np.clip(ct_hu[cut], -1024, 4095).astype(np.int32) + 1024]
    if max(factor) > 1:
        blocks = relative.reshape(shape[0], factor[0], shape[1], factor[1], shape[2], factor[2])
        relative = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    spacing = tuple(s * f for s, f in zip(grid.spacing_mm, factor, strict=True))
    origin = tuple(o + 0.5 * s * (f - 1) for o, s, f in zip(grid.origin_mm, grid.spacing_mm, factor, strict=True))
    coarse = Grid(relative.shape, (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))
    dense = relative > LEAST_DENSITY
    if dense.any():
        # One more voxel all round, so that a ray's samples still see the edge from air to tissue.
        box = box_around(dense, (1, 1, 1))
        relative, coarse = relative[box], coarse.inside(box)
    # Columns along z lie in one piece, as a fan of a couch at 0° reads them.
    columns = np.ascontiguousarray(relative.transpose(1, 2, 0))
    return DensityMap(columns.transpose(2, 0, 1), coarse)


def trace_fan(
    density: DensityMap, frame: BeamFrame, box_xyz: NDArray[np.floating], reach_mm: float, step_mm: float = STEP_MM
) -> Fan:
    """Return the fan of radiological depths for the points of a box.

    Parameters
    ----------
    box_xyz
        Least and greatest x, y and z of the points to be looked up, (2, 3).
    reach_mm
        How far from the beam's axis, in the isocentre plane, they are looked up.
    step_mm
        Spacing of samples along the rays.
    """
    # The axis of the CT that the beam crosses most squarely.
    axis = int(np.argmin(np.abs(frame.down_xyz)))
    own = _along_axis(frame, axis)
    lower, upper = _bounds_mm(own, frame, box_xyz, reach_mm)
    # Every ray starts where the box of the CT begins, else a ray would miss what lies before the points.
    extent = np.array(density.grid.extent_mm)[:, ::-1]
    lower[2] = min(own.project(_corners(extent))[:, 2].min() - step_mm, lower[2])
    spacing = np.array([FAN_MM, FAN_MM, step_mm])
    count = np.maximum(2, np.ceil((upper - lower) / spacing).astype(np.int64) + 1)
    depth = np.empty((count[0], count[2], count[1]), dtype=np.float32)
    # In the order of the array that is summed: (z, y, x) with the columns' axis last.
    order = [a for a in range(3) if a != 2 - axis] + [2 - axis]
    origin, voxel = np.array(density.grid.origin_mm)[order], np.array(density.grid.spacing_mm)[order]
    axes = np.stack([own.source_xyz_mm, own.across_xyz, own.along_xyz, own.down_xyz])[:, ::-1][:, order]
    axes[0] -= origin
    lattice = np.concatenate([lower, spacing]) / own.source_axis_mm
    lattice[[2, 5]] *= own.source_axis_mm
    _sum_along_rays(np.ascontiguousarray(density.relative.transpose(order)), axes / voxel, lattice, depth)
    return Fan(depth, own, lower, spacing)


def fan_step_mm(beam: Beam) -> float:
    """Return the spacing of samples along the rays that a beam needs."""
    return STEP_MM if beam.electrons is None else FINE_STEP_MM


def _along_axis(frame: BeamFrame, axis: int) -> BeamFrame:
    """Return the frame of the same source whose Y axis is an axis of the CT, nearest to the beam's own."""
    along = np.eye(3)[axis]
    down = frame.down_xyz - frame.down_xyz[axis] * along
    down /= np.linalg.norm(down)
    return BeamFrame(frame.source_xyz_mm, np.cross(down, along), along, down, frame.source_axis_mm)


def _corners(box_xyz: NDArray[np.floating]) -> Floats:
    """Return the eight corners of a box, (8, 3), of its least and greatest x, y and z, (2, 3)."""
    return np.stack(np.meshgrid(*box_xyz.T), axis=-1).reshape(-1, 3).astype(np.float64)


def _bounds_mm(own: BeamFrame, frame: BeamFrame, box_xyz: NDArray[np.floating], reach_mm: float) -> Floats:
    """Return least and greatest X, Y and distance of a box in a fan's own frame, within reach of the beam, (2, 3)."""
    seen = own.project(_corners(box_xyz))
    square = np.array([[x, y] for x in (-reach_mm, reach_mm) for y in (-reach_mm, reach_mm)])
    plane = frame.source_xyz_mm + frame.source_axis_mm * frame.down_xyz
    within = own.project(plane + square[:, :1] * frame.across_xyz + square[:, 1:] * frame.along_xyz)
    bounds = np.stack([seen.min(axis=0), seen.max(axis=0)])
    bounds[:, :2] = np.clip(bounds[:, :2], within[:, :2].min(axis=0), within[:, :2].max(axis=0))
    return bounds


@njit(cache=True, fastmath=True, error_model="numpy")
def _sum_along_rays(columns, axes, lattice, depth):  # type: ignore[no-untyped-def]
    """Fill the radiological depth in mm of each node of a fan.

    Columns are voxels with the axis along which the fan's planes lie last; axes the source, across, along and down in
    their indices; the lattice is X and Y of the first ray over the SAD and its distance in mm, then their spacing.
    """
    end_v, end_u, end_w = columns.shape
    zero, half, top = np.float32(0.0), np.float32(0.5), np.float32(end_w - 1)
    column = np.empty(end_w + 1, dtype=np.float32)
    held = np.empty((3, depth.shape[2]), dtype=np.float32)
    way, total, before = held[0], held[1], held[2]
    for ix in range(depth.shape[0]):
        x = lattice[0] + ix * lattice[3]
        for iy in range(depth.shape[2]):
            y = lattice[1] + iy * lattice[4]
            way[iy] = 0.5 * lattice[5] * np.sqrt(1.0 + x * x + y * y)
        total[:] = zero
        before[:] = zero
        for k in range(depth.shape[1]):
            distance = lattice[2] + k * lattice[5]
            v = axes[0, 0] + distance * (axes[3, 0] + x * axes[1, 0])
            u = axes[0, 1] + distance * (axes[3, 1] + x * axes[1, 1])
            inside = v >= -0.5 and v <= end_v - 0.5 and u >= -0.5 and u <= end_u - 0.5
            if inside:
                _fill_column(columns, v, u, column)
            else:
                column[:] = zero
            first = np.float32(axes[0, 2] + distance * lattice[1] * axes[2, 2])
            move = np.float32(distance * lattice[4] * axes[2, 2])
            out = depth[ix, k]
            for iy in range(depth.shape[2]):
                w = first + np.float32(iy) * move
                # The outer half voxel has its centre's density; beyond it is vacuum.
                met = (w >= -half) & (w <= top + half)
                w = min(max(w, zero), top)
                below = np.int32(w)
                low = column[np.uint32(below)]
                value = low + (w - np.float32(below)) * (column[np.uint32(below) + np.uint32(1)] - low)
                value = value if met else zero
                total[iy] += (before[iy] + value) * way[iy]
                before[iy] = value
                out[iy] = total[iy]


@njit(cache=True, fastmath=True, error_model="numpy")
def _fill_column(columns, v, u, column):  # type: ignore[no-untyped-def]
    """Fill a column of voxels at fractional indices of the first two axes, and repeat its last voxel."""
    v = min(max(v, 0.0), columns.shape[0] - 1.0)
    u = min(max(u, 0.0), columns.shape[1] - 1.0)
    v0, u0 = int(v), int(u)
    v1, u1 = min(v0 + 1, columns.shape[0] - 1), min(u0 + 1, columns.shape[1] - 1)
    fv, fu = np.float32(v - v0), np.float32(u - u0)
    a, b, c, d = columns[v0, u0], columns[v0, u1], columns[v1, u0], columns[v1, u1]
    for w in range(columns.shape[2]):
        low = a[w] + fu * (b[w] - a[w])
        high = c[w] + fu * (d[w] - c[w])
        column[w] = low + fv * (high - low)
    column[columns.shape[2]] = column[columns.shape[2] - 1]
