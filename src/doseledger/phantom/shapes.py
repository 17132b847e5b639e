"""Implicit shapes in mm: signed distances, negative inside.

Coordinates are arrays that broadcast against each other; distances of ellipsoids are first-order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.core.grid import Grid
from doseledger.core.types import Box, Floats, Singles, Triple

Point = Triple


@dataclass(frozen=True)
class Space:
    """Points (x, y, z) in mm in the patient's own axes: +x left, +y posterior, +z to the head.

    Parameters
    ----------
    x, y
        (1, y, x) on a grid: where the patient is rolled, both depend on both of its axes.
    z
        (z, 1, 1).
    """

    x: Singles
    y: Singles
    z: Singles

    @classmethod
    def of_grid(cls, grid: Grid, centre_zyx_mm: Triple, roll_deg: float) -> Space:
        """Return the voxel centres of a grid, relative to a centre, in axes rolled about z."""
        z, y, x = (axis - c for axis, c in zip(grid.axes_mm(), centre_zyx_mm, strict=True))
        cos, sin = np.cos(np.deg2rad(roll_deg)), np.sin(np.deg2rad(roll_deg))
        across, down = np.meshgrid(x, y)
        return cls(
            (cos * across + sin * down)[None].astype(np.float32),
            (cos * down - sin * across)[None].astype(np.float32),
            z[:, None, None].astype(np.float32),
        )

    def near(self, centre: Point, reach_mm: float) -> tuple[Box, Space]:
        """Return the smallest box of voxels around a ball, and its points."""
        rows = np.flatnonzero((np.hypot(self.x - centre[0], self.y - centre[1]) <= reach_mm)[0].any(axis=1))
        columns = np.flatnonzero((np.hypot(self.x - centre[0], self.y - centre[1]) <= reach_mm)[0].any(axis=0))
        slices = np.flatnonzero(np.abs(self.z[:, 0, 0] - centre[2]) <= reach_mm)
        box = tuple(
            slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0) for hit in (slices, rows, columns)
        )
        inner = Space(self.x[:, box[1], box[2]], self.y[:, box[1], box[2]], self.z[box[0]])
        return (box[0], box[1], box[2]), inner

    @classmethod
    def of_points(cls, points: NDArray[np.floating]) -> Space:
        """Return scattered points, (point, 3) as (x, y, z)."""
        x, y, z = np.asarray(points, dtype=np.float32).T
        return cls(x, y, z)


@dataclass(frozen=True)
class Waves:
    """A smooth random field of unit variance: a few plane waves."""

    vectors: Singles
    phases: Singles

    @classmethod
    def draw(cls, rng: np.random.Generator, shortest_mm: float, longest_mm: float, count: int = 5) -> Waves:
        """Return a field whose wavelengths lie between two lengths."""
        direction = rng.standard_normal((count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        wavelength = rng.uniform(shortest_mm, longest_mm, (count, 1))
        phases = rng.uniform(0.0, 2 * np.pi, count)
        return cls((direction * 2 * np.pi / wavelength).astype(np.float32), phases.astype(np.float32))

    def at(self, space: Space) -> Singles:
        """Return the field's values at points."""
        total = np.float32(0.0)
        for (kx, ky, kz), phase in zip(self.vectors, self.phases, strict=True):
            # sin(a + b) from the parts: sines of a slice and of a column instead of sines of a volume.
            flat, high = kx * space.x + ky * space.y, kz * space.z + phase
            total = total + (np.sin(flat) * np.cos(high) + np.cos(flat) * np.sin(high))
        return np.asarray(total * np.sqrt(np.float32(2.0 / len(self.phases))), dtype=np.float32)


def ellipsoid(space: Space, centre: Point, radii: Point) -> Singles:
    """Return the signed distance to an ellipsoid in mm, to first order."""
    # In single precision throughout: a scalar of numpy's own would make every array double.
    a, b, c = (np.float32(r) for r in radii)
    u, v, w = ((p - np.float32(m)) / r for p, m, r in zip((space.x, space.y, space.z), centre, (a, b, c), strict=True))
    # x and y need not be spread over z before they are added up.
    size = np.sqrt((u * u + v * v) + w * w)
    slope = np.sqrt(((u / a) ** 2 + (v / b) ** 2) + (w / c) ** 2)
    return np.asarray(size * (size - np.float32(1.0)) / np.maximum(slope, np.float32(1e-6)), dtype=np.float32)


def capsule(space: Space, start: Point, end: Point, radii: tuple[float, float]) -> Singles:
    """Return the signed distance to a rod with round ends in mm; its radius runs evenly from one end to the other."""
    return tube(space, (start, end), radii)


def tube(space: Space, path: Sequence[Point], radii: Sequence[float]) -> Singles:
    """Return the signed distance to a chain of rods in mm: a radius at each point of the path."""
    if len(path) < 2:
        raise ValueError(f"a tube needs two points, found {len(path)}")
    ends = np.asarray(path, dtype=np.float64)
    rods = np.column_stack([ends[:-1], np.diff(ends, axis=0), radii[:-1], np.diff(radii)]).astype(np.float32)
    shape = np.broadcast_shapes(space.x.shape, space.y.shape, space.z.shape)
    # On a grid x and y are one plane, z is one number for each; scattered points are a plane with a z each.
    plane = (np.ascontiguousarray(space.x).ravel(), np.ascontiguousarray(space.y).ravel())
    heights = space.z.reshape(len(space.z), 1) if space.z.ndim == 3 else space.z[None]
    out = np.full((len(heights), plane[0].size), np.inf, dtype=np.float32)
    _nearest_rod(*plane, np.ascontiguousarray(heights), rods, out)
    return out.reshape(shape)


@njit(cache=True, error_model="numpy")
def _nearest_rod(x, y, heights, rods, out):  # type: ignore[no-untyped-def]
    """Lower each number of (plane, point) to the distance of the nearest rod: start, way, radius and its change."""
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    z = np.empty_like(x)
    for k in range(out.shape[0]):
        z[:] = heights[k]
        nearest = out[k]
        for rod in rods:
            sx, sy, sz, ax, ay, az, radius, change = rod
            length2 = ax * ax + ay * ay + az * az
            for p in range(x.shape[0]):
                dx = x[p] - sx
                dy = y[p] - sy
                dz = z[p] - sz
                # |d − t·a|² = |d|² − 2t(d·a) + t²|a|².
                dot = (dx * ax + dy * ay) + dz * az
                along = min(max(dot / length2, zero), one)
                away2 = ((dx * dx + dy * dy) + dz * dz) + along * (along * length2 - two * dot)
                away = np.sqrt(max(away2, zero)) - radius - along * change
                nearest[p] = min(nearest[p], away)


def blend(first: Singles, second: Singles, width_mm: float) -> Singles:
    """Return the union of two shapes with its crease filled over a width (a polynomial smooth minimum)."""
    overlap = np.maximum(np.float32(width_mm) - np.abs(first - second), np.float32(0.0))
    return np.asarray(np.minimum(first, second) - overlap * overlap * np.float32(0.25 / width_mm), dtype=np.float32)


def smooth_path(points: Floats, per_piece: int) -> Floats:
    """Return a Catmull-Rom curve through points (n, 3), `per_piece` steps between neighbours."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    steps = np.linspace(0.0, 1.0, per_piece, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        quadratic, cubic = 2 * a - 5 * b + 4 * c - d, 3 * b - a - 3 * c + d
        pieces.append(0.5 * (2 * b + (c - a) * steps + quadratic * steps**2 + cubic * steps**3))
    return np.concatenate([*pieces, points[-1:]])
