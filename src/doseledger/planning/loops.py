"""The inner loops of engine and optimiser, compiled by numba, all in this one file.

Numba's cache looks at the file of a compiled function alone: a loop that took a helper or a constant from another file
would stay as it was compiled when that file changes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# The loops are unrolled over this many radial Gaussians.
N_GAUSSIANS = 4
# Spacing of the depth table in mm; straight lines between its entries err by less than 1e-4 of the maximum.
DEPTH_STEP_MM = 1.0


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _density_at(relative, z, y, x):  # type: ignore[no-untyped-def]
    """Return the density at fractional indices, trilinear; the outer half voxel has its centre's."""
    z = min(max(z, 0.0), relative.shape[0] - 1.0)
    y = min(max(y, 0.0), relative.shape[1] - 1.0)
    x = min(max(x, 0.0), relative.shape[2] - 1.0)
    z0 = np.uint64(z)
    y0 = np.uint64(y)
    x0 = np.uint64(x)
    z1 = np.uint64(min(z0 + 1, relative.shape[0] - 1))
    y1 = np.uint64(min(y0 + 1, relative.shape[1] - 1))
    x1 = np.uint64(min(x0 + 1, relative.shape[2] - 1))
    fy = np.float32(y - y0)
    fx = np.float32(x - x0)
    a = relative[z0, y0, x0] + fx * (relative[z0, y0, x1] - relative[z0, y0, x0])
    b = relative[z0, y1, x0] + fx * (relative[z0, y1, x1] - relative[z0, y1, x0])
    c = relative[z1, y0, x0] + fx * (relative[z1, y0, x1] - relative[z1, y0, x0])
    d = relative[z1, y1, x0] + fx * (relative[z1, y1, x1] - relative[z1, y1, x0])
    a += fy * (b - a)
    c += fy * (d - c)
    return a + np.float32(z - z0) * (c - a)


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _within(first, move, size, last):  # type: ignore[no-untyped-def]
    """Return the first step of a ray in the box of voxels, and the one after its last."""
    enter = 0.0
    leave = last - 1.0
    for a in range(3):
        if abs(move[a]) > 1e-12:
            one = (-0.5 - first[a]) / move[a]
            two = (size[a] - 0.5 - first[a]) / move[a]
            enter = max(enter, min(one, two))
            leave = min(leave, max(one, two))
        elif first[a] < -0.5 or first[a] > size[a] - 0.5:
            leave = -1.0
    return int(np.ceil(enter)), int(np.floor(leave)) + 1


@njit(cache=True, fastmath=True, error_model="numpy")
def sum_along_rays(relative, origin_zyx, spacing_zyx, axes, lattice, depth):  # type: ignore[no-untyped-def]
    """Fill the radiological depth in mm of each ray and step; lattice: start of X, Y, distance, their spacing, SAD."""
    first = np.empty(3)
    move = np.empty(3)
    for iy in range(depth.shape[0]):
        y = (lattice[1] + iy * lattice[4]) / lattice[6]
        for ix in range(depth.shape[1]):
            x = (lattice[0] + ix * lattice[3]) / lattice[6]
            for a in range(3):
                ray = axes[3, 2 - a] + x * axes[1, 2 - a] + y * axes[2, 2 - a]
                first[a] = (axes[0, 2 - a] + lattice[2] * ray - origin_zyx[a]) / spacing_zyx[a]
                move[a] = lattice[5] * ray / spacing_zyx[a]
            begin, end = _within(first, move, relative.shape, depth.shape[2])
            total = 0.0
            before = 0.0
            half = 0.5 * lattice[5] * np.sqrt(1.0 + x * x + y * y)
            for k in range(begin, end):
                value = _density_at(relative, first[0] + k * move[0], first[1] + k * move[1], first[2] + k * move[2])
                total += (before + value) * half
                before = value
                depth[iy, ix, k] = total
            # A ray that leaves the box keeps its depth, with the half step that its last sample still owes.
            total += before * half
            for k in range(max(begin, end), depth.shape[2]):
                depth[iy, ix, k] = total


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _depth_at(depth, x, y, step):  # type: ignore[no-untyped-def]
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


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _see(points, p, view):  # type: ignore[no-untyped-def]
    """Return a point's column and row on the maps, its place in the fan (x, y), and its distance in mm."""
    rx = points[p, 0] - view[0, 0]
    ry = points[p, 1] - view[0, 1]
    rz = points[p, 2] - view[0, 2]
    distance = rx * view[5, 0] + ry * view[5, 1] + rz * view[5, 2]
    near = 1.0 / distance
    column = (rx * view[1, 0] + ry * view[1, 1] + rz * view[1, 2]) * near - view[6, 0]
    row = (rx * view[2, 0] + ry * view[2, 1] + rz * view[2, 2]) * near - view[6, 1]
    x = (rx * view[3, 0] + ry * view[3, 1] + rz * view[3, 2]) * near - view[7, 0]
    y = (rx * view[4, 0] + ry * view[4, 1] + rz * view[4, 2]) * near - view[7, 1]
    return column, row, x, y, distance


@njit(cache=True, fastmath=True, error_model="numpy")
def add_dose(points, views, depth, table, maps, dose):  # type: ignore[no-untyped-def]
    """Add to each point its dose from the fields of one direction."""
    one = np.uint64(1)
    weight = np.empty(N_GAUSSIANS, dtype=np.float32)
    for p in range(points.shape[0]):
        looked_up = False
        total = np.float32(0.0)
        for v in range(views.shape[0]):
            column, row, ray_x, ray_y, distance = _see(points, p, views[v])
            if column < 0.0 or row < 0.0 or column >= maps.shape[2] - 1 or row >= maps.shape[1] - 1:
                continue
            if not looked_up:
                # Depth and distance are the same for all fields of one direction.
                looked_up = True
                deep = _depth_at(depth, ray_x, ray_y, distance * views[v, 8, 0] - views[v, 7, 2]) / DEPTH_STEP_MM
                deep = min(deep, table.shape[0] - 1.001)
                k = np.uint64(deep)
                f = np.float32(deep - k)
                square = np.float32((views[v, 6, 2] / distance) ** 2)
                for g in range(N_GAUSSIANS):
                    weight[g] = square * (table[k, g] + f * (table[k + one, g] - table[k, g]))
            x = np.uint64(column)
            y = np.uint64(row)
            fx = np.float32(column - x)
            fy = np.float32(row - y)
            for g in range(N_GAUSSIANS):
                low = maps[v, y, x, g] + fx * (maps[v, y, x + one, g] - maps[v, y, x, g])
                high = maps[v, y + one, x, g] + fx * (maps[v, y + one, x + one, g] - maps[v, y + one, x, g])
                total += weight[g] * (low + fy * (high - low))
        dose[p] += total


@njit(cache=True, fastmath=True, error_model="numpy")
def look_up(points, view, depth, table, shape, out):  # type: ignore[no-untyped-def]
    """Fill place and weight of each point for one segment; a place of −1 is out of reach."""
    place, weight = out
    for p in range(points.shape[0]):
        column, row, ray_x, ray_y, distance = _see(points, p, view)
        if column < 0.0 or row < 0.0 or column >= shape[1] - 1 or row >= shape[0] - 1:
            place[p, 0] = -1.0
            place[p, 1] = -1.0
            weight[p] = 0.0
            continue
        # In single precision a place just short of the last node may round up to it.
        place[p, 0] = min(np.float32(column), np.float32(shape[1] - 1.001))
        place[p, 1] = min(np.float32(row), np.float32(shape[0] - 1.001))
        deep = _depth_at(depth, ray_x, ray_y, distance * view[8, 0] - view[7, 2]) / DEPTH_STEP_MM
        deep = min(deep, table.shape[0] - 1.001)
        k = int(deep)
        f = deep - k
        square = (view[6, 2] / distance) ** 2
        for g in range(N_GAUSSIANS):
            weight[p, g] = ((1 - f) * table[k, g] + f * table[k + 1, g]) * square


@njit(cache=True, fastmath=True)
def gather(place, weight, maps, dose):  # type: ignore[no-untyped-def]
    """Add to each point its dose from the blurred maps of segments."""
    one = np.uint64(1)
    for s in range(place.shape[0]):
        for p in range(place.shape[1]):
            column = place[s, p, 0]
            row = place[s, p, 1]
            if column < 0.0:
                continue
            # Unsigned indices: signed ones would be checked for a wrap at every load.
            x = np.uint64(column)
            y = np.uint64(row)
            fx = column - np.float32(x)
            fy = row - np.float32(y)
            total = np.float32(0.0)
            for g in range(N_GAUSSIANS):
                low = maps[s, y, x, g] + fx * (maps[s, y, x + one, g] - maps[s, y, x, g])
                high = maps[s, y + one, x, g] + fx * (maps[s, y + one, x + one, g] - maps[s, y + one, x, g])
                total += weight[s, p, g] * (low + fy * (high - low))
            dose[p] += total


@njit(cache=True, fastmath=True)
def scatter(place, weight, slope, maps):  # type: ignore[no-untyped-def]
    """Add to the maps of segments what the slopes at the points give: the transpose of `gather`."""
    one = np.uint64(1)
    for s in range(place.shape[0]):
        for p in range(place.shape[1]):
            column = place[s, p, 0]
            row = place[s, p, 1]
            if column < 0.0 or slope[p] == 0.0:
                continue
            x = np.uint64(column)
            y = np.uint64(row)
            fx = column - np.float32(x)
            fy = row - np.float32(y)
            for g in range(N_GAUSSIANS):
                value = weight[s, p, g] * slope[p]
                high = fy * value
                low = value - high
                maps[s, y, x, g] += low - fx * low
                maps[s, y, x + one, g] += fx * low
                maps[s, y + one, x, g] += high - fx * high
                maps[s, y + one, x + one, g] += fx * high
