"""Radiological depth: the electron density along rays from the source, and its lookup at any point.

Depths are summed along a fan of rays of one gantry angle, then read off by trilinear interpolation; beams of the same
angle share a fan whatever their collimator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.core.grid import Grid
from doseledger.planning.geometry import BeamFrame
from doseledger.planning.machine import Density

# Spacing of the fan in the isocentre plane, and of samples along its rays: pelvic anatomy is smooth on this scale, and
# the sum over a ray averages what is not.
FAN_MM = 4.0
STEP_MM = 2.5
# The density is averaged onto voxels of at most this size: the rays' samples are no denser.
DENSITY_MM = 2.5


@dataclass(frozen=True)
class DensityMap:
    """Electron density relative to water, float32 (z, y, x) on its grid; vacuum outside."""

    relative: NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True)
class Fan:
    """Radiological depth in mm, float32 (ray along Y, ray along X, step), in one beam's frame.

    Parameters
    ----------
    depth_mm
        Depth at each node.
    start_mm
        X, Y (isocentre plane) and distance from the source of the first node.
    spacing_mm
        Distance of nodes along X, Y and the axis.
    """

    depth_mm: NDArray[np.float32]
    start_mm: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]


def density_map(ct_hu: NDArray[np.int16], grid: Grid, density: Density) -> DensityMap:
    """Return the electron density of a CT, averaged over blocks of voxels that are finer than the rays' samples."""
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
    return DensityMap(np.ascontiguousarray(relative), coarse)


def trace_fan(density: DensityMap, frame: BeamFrame, bounds_mm: NDArray[np.float64]) -> Fan:
    """Return the fan of radiological depths that covers a region seen from the source.

    Parameters
    ----------
    density
        Electron density.
    frame
        The beam.
    bounds_mm
        Least and greatest X, Y and distance of the points to be looked up, (2, 3), as `BeamFrame.project` gives them.
    """
    low, high = density.grid.extent_mm
    corners = np.array([[x, y, z] for x in (low[2], high[2]) for y in (low[1], high[1]) for z in (low[0], high[0])])
    # Every ray starts where the box of the CT begins, else a ray would miss what lies before the points.
    nearest = frame.project(corners)[:, 2].min() - STEP_MM
    lower, upper = bounds_mm[0].copy(), bounds_mm[1]
    lower[2] = min(nearest, lower[2])
    spacing = np.array([FAN_MM, FAN_MM, STEP_MM])
    count = np.maximum(2, np.ceil((upper - lower) / spacing).astype(np.int64) + 1)
    depth = np.zeros((count[1], count[0], count[2]), dtype=np.float32)
    _sum_along_rays(
        density.relative,
        np.asarray(density.grid.origin_mm),
        np.asarray(density.grid.spacing_mm),
        np.stack([frame.source_xyz_mm, frame.across_xyz, frame.along_xyz, frame.down_xyz]),
        np.concatenate([lower, spacing, [frame.source_axis_mm]]),
        depth,
    )
    return Fan(depth, lower, spacing)


@njit(cache=True, fastmath=True)
def _sum_along_rays(relative, origin_zyx, spacing_zyx, axes, lattice, depth):  # type: ignore[no-untyped-def]
    # lattice: start of X, Y, distance; spacing of the same; SAD.
    sad = lattice[6]
    step = lattice[5]
    nz, ny, nx = relative.shape
    for iy in range(depth.shape[0]):
        y = (lattice[1] + iy * lattice[4]) / sad
        for ix in range(depth.shape[1]):
            x = (lattice[0] + ix * lattice[3]) / sad
            ray = axes[3] + x * axes[1] + y * axes[2]
            length = step * np.sqrt(1.0 + x * x + y * y)
            first = (axes[0] + lattice[2] * ray - origin_zyx[::-1]) / spacing_zyx[::-1]
            move = step * ray / spacing_zyx[::-1]
            total = 0.0
            before = 0.0
            for k in range(depth.shape[2]):
                px = first[0] + k * move[0]
                py = first[1] + k * move[1]
                pz = first[2] + k * move[2]
                value = 0.0
                if -0.5 <= px <= nx - 0.5 and -0.5 <= py <= ny - 0.5 and -0.5 <= pz <= nz - 0.5:
                    px = min(max(px, 0.0), nx - 1.0)
                    py = min(max(py, 0.0), ny - 1.0)
                    pz = min(max(pz, 0.0), nz - 1.0)
                    x0 = int(px)
                    y0 = int(py)
                    z0 = int(pz)
                    x1 = min(x0 + 1, nx - 1)
                    y1 = min(y0 + 1, ny - 1)
                    z1 = min(z0 + 1, nz - 1)
                    fx = px - x0
                    fy = py - y0
                    fz = pz - z0
                    low = (1 - fy) * ((1 - fx) * relative[z0, y0, x0] + fx * relative[z0, y0, x1]) + fy * (
                        (1 - fx) * relative[z0, y1, x0] + fx * relative[z0, y1, x1]
                    )
                    high = (1 - fy) * ((1 - fx) * relative[z1, y0, x0] + fx * relative[z1, y0, x1]) + fy * (
                        (1 - fx) * relative[z1, y1, x0] + fx * relative[z1, y1, x1]
                    )
                    value = (1 - fz) * low + fz * high
                total += 0.5 * (before + value) * length
                before = value
                depth[iy, ix, k] = total


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def depth_at(depth, x, y, step):  # type: ignore[no-untyped-def]
    """Return the radiological depth in mm at a place of a fan in nodes, trilinear; the fan's edge holds beyond it."""
    # Unsigned indices: signed ones would be checked for a wrap at every load.
    x = min(max(x, 0.0), depth.shape[1] - 1.001)
    y = min(max(y, 0.0), depth.shape[0] - 1.001)
    step = min(max(step, 0.0), depth.shape[2] - 1.001)
    one = np.uint64(1)
    ix = np.uint64(x)
    iy = np.uint64(y)
    it = np.uint64(step)
    fx = np.float32(x - ix)
    fy = np.float32(y - iy)
    ft = np.float32(step - it)
    a = depth[iy, ix, it] + ft * (depth[iy, ix, it + one] - depth[iy, ix, it])
    b = depth[iy, ix + one, it] + ft * (depth[iy, ix + one, it + one] - depth[iy, ix + one, it])
    c = depth[iy + one, ix, it] + ft * (depth[iy + one, ix, it + one] - depth[iy + one, ix, it])
    d = depth[iy + one, ix + one, it] + ft * (depth[iy + one, ix + one, it + one] - depth[iy + one, ix + one, it])
    a += fx * (b - a)
    c += fx * (d - c)
    return a + fy * (c - a)
