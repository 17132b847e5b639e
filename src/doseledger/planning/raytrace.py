"""Radiological depth: the electron density along rays from the source, and its lookup at any point.

Depths are summed along a fan of rays of one gantry angle, then read off by trilinear interpolation; beams of the same
angle share a fan whatever their collimator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doseledger.core.grid import Grid, box_around
from doseledger.planning.geometry import BeamFrame
from doseledger.planning.loops import sum_along_rays
from doseledger.planning.machine import Density

# Spacing of the fan in the isocentre plane, and of samples along its rays: pelvic anatomy is smooth on this scale, and
# the sum over a ray averages what is not.
FAN_MM = 4.0
STEP_MM = 4.0
# Finer voxels are averaged over blocks up to this size: the fan is no denser, and the sum over a ray stays as it was.
DENSITY_MM = 4.1
# Below this nothing attenuates: the air around the patient is cut away, with what is only in it.
LEAST_DENSITY = 0.05


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
        relative = relative[box]
        coarse = coarse.cropped((box[0].start, box[1].start, box[2].start), relative.shape)
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
    sum_along_rays(
        density.relative,
        np.asarray(density.grid.origin_mm),
        np.asarray(density.grid.spacing_mm),
        np.stack([frame.source_xyz_mm, frame.across_xyz, frame.along_xyz, frame.down_xyz]),
        np.concatenate([lower, spacing, [frame.source_axis_mm]]),
        depth,
    )
    return Fan(depth, lower, spacing)
