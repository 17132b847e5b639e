"""Dose samples of a structure inside its voxels.

Neither surface nor dose moves in steps of a voxel: 2.5 mm across in a gradient of 1 Gy/mm, it spans
2.5 Gy. Points of a sequence of low discrepancy fill each voxel; dose and signed distance are
interpolated at each point, and those inside are kept.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.types import Array, Floats, Indices, Singles, Triple
from doseledger.dosimetry.dvh.statistics import SampledDose, StructureDose

# Additive recurrence in three dimensions: powers of the inverse of the real root of g⁴ = g + 1 (M. Roberts, "The
# unreasonable effectiveness of quasirandom sequences", 2018). The sequence runs on from voxel to voxel, so that no two
# voxels hold the same pattern and no plane of points lines up with an isodose.
ROOT = 1.2207440846057596
STEP_Z, STEP_Y, STEP_X = 1.0 / ROOT, 1.0 / ROOT**2, 1.0 / ROOT**3
MAX_POINTS_PER_VOXEL = 4096


def sampled_dose(dose_gy: Array, dose_grid: Grid, structure: Array, structure_grid: Grid, n_points: int) -> SampledDose:
    """Return the dose of a structure at about `n_points` points spread evenly through it.

    Parameters
    ----------
    dose_gy
        Dose in Gy, (z, y, x) of `dose_grid`, interpolated trilinearly.
    dose_grid, structure_grid
        The two grids; they may differ.
    structure
        (z, y, x) of `structure_grid`: a bool mask, whose voxels are filled whole, or the signed distance in mm,
        negative inside, whose zero is the surface.
    n_points
        Points in the structure, about; each voxel gets at least one.

    Raises
    ------
    BadInput
        If an array does not fit its grid, or a dose in the structure is not finite.

    Notes
    -----
    A voxel extends half its size beyond its centre, at the grids' edges too. Points farther out than that have no
    dose: their volume is returned, not guessed.
    """
    for array, grid, name in ((dose_gy, dose_grid, "dose"), (structure, structure_grid, "structure")):
        if array.shape != grid.shape_zyx:
            raise BadInput(f"the {name} has {array.shape} voxels, its grid {grid.shape_zyx}")
    # A surface passes through a voxel only when its centre is within half the diagonal.
    reach = float(np.linalg.norm(structure_grid.spacing_mm)) / 2.0
    if structure.dtype == np.bool_:
        voxels = np.argwhere(structure)
        field = np.full((1, 1, 1), -1.0, dtype=np.float32)
    else:
        voxels = np.argwhere(structure <= reach)
        field = np.ascontiguousarray(structure, dtype=np.float32)
    voxel_cc = structure_grid.voxel_volume_cc
    if len(voxels) == 0:
        return SampledDose(StructureDose(np.empty(0, dtype=np.float32), None, voxel_cc), 0.0)
    per_voxel = int(np.clip(np.ceil(n_points / len(voxels)), 1, MAX_POINTS_PER_VOXEL))
    found = np.empty(len(voxels) * per_voxel, dtype=np.float64)
    ratio = np.divide(structure_grid.spacing_mm, dose_grid.spacing_mm)
    shift = dose_grid.mm_to_index(np.asarray(structure_grid.origin_mm))
    dose = np.ascontiguousarray(dose_gy)
    n_found, n_outside = _sample(dose, field, voxels, (per_voxel, reach), (ratio, shift), found)
    samples = found[:n_found]
    if not np.all(np.isfinite(samples)):
        raise BadInput(f"the dose is not finite at {int((~np.isfinite(samples)).sum())} points of the structure")
    point_cc = voxel_cc / per_voxel
    return SampledDose(StructureDose(np.sort(samples), None, point_cc), n_outside * point_cc)


@njit(cache=True)
def trilinear(array: Array, z: float, y: float, x: float) -> float:
    """Return the trilinear value of a (z, y, x) array at an index, held constant beyond the outermost centres."""
    nz, ny, nx = array.shape
    z, y, x = min(max(z, 0.0), nz - 1.0), min(max(y, 0.0), ny - 1.0), min(max(x, 0.0), nx - 1.0)
    # Indices without a sign halve the time: numba need not ask whether they count from the end.
    one, z0, y0, x0 = np.uintp(1), np.uintp(z), np.uintp(y), np.uintp(x)
    z1, y1, x1 = min(z0 + one, np.uintp(nz - 1)), min(y0 + one, np.uintp(ny - 1)), min(x0 + one, np.uintp(nx - 1))
    fz, fy, fx = z - z0, y - y0, x - x0
    low = (array[z0, y0, x0] * (1 - fx) + array[z0, y0, x1] * fx) * (1 - fy)
    low += (array[z0, y1, x0] * (1 - fx) + array[z0, y1, x1] * fx) * fy
    high = (array[z1, y0, x0] * (1 - fx) + array[z1, y0, x1] * fx) * (1 - fy)
    high += (array[z1, y1, x0] * (1 - fx) + array[z1, y1, x1] * fx) * fy
    return low * (1 - fz) + high * fz


@njit(cache=True)
def _cubic(array: Array, z: float, y: float, x: float) -> float:
    """Return the tricubic (Catmull-Rom) value at an index, the array being held constant beyond its edges."""
    nz, ny, nx = array.shape
    z0, y0, x0 = int(np.floor(z)), int(np.floor(y)), int(np.floor(x))
    wz, wy, wx = _catmull_rom(z - z0), _catmull_rom(y - y0), _catmull_rom(x - x0)
    value = 0.0
    for a in range(4):
        i = min(max(z0 + a - 1, 0), nz - 1)
        for b in range(4):
            j = min(max(y0 + b - 1, 0), ny - 1)
            row = 0.0
            for c in range(4):
                row += wx[c] * array[i, j, min(max(x0 + c - 1, 0), nx - 1)]
            value += wz[a] * wy[b] * row
    return value


@njit(cache=True, inline="always")
def _catmull_rom(t: float) -> tuple[float, float, float, float]:
    """Return the weights of the four neighbours at a fraction between the inner two."""
    return (
        -0.5 * t + t * t - 0.5 * t**3,
        1.0 - 2.5 * t * t + 1.5 * t**3,
        0.5 * t + 2.0 * t * t - 1.5 * t**3,
        -0.5 * t * t + 0.5 * t**3,
    )


@njit(cache=True)
def _is_inside(field: Singles, index: Triple, near: float) -> bool:
    """Return whether a point lies within the surface, the field's zero."""
    distance = trilinear(field, index[0], index[1], index[2])
    if abs(distance) > near:
        return distance <= 0.0
    # Straight lines between voxels cut the corners of a round surface: 1.5 % of a ball's volume at 6 voxels' radius.
    return _cubic(field, index[0], index[1], index[2]) <= 0.0


@njit(cache=True)
def _sample(
    dose: Array,
    field: Singles,
    voxels: Indices,
    steps: tuple[int, float],
    to_dose: tuple[Floats, Floats],
    found: Floats,
) -> tuple[int, int]:
    """Fill `found` with the dose of each point inside; return how many have a dose and how many lie off its grid."""
    (per_voxel, near), (ratio, shift) = steps, to_dose
    everywhere = field.size == 1
    uz, uy, ux = 0.5, 0.5, 0.5
    n_found, n_outside = 0, 0
    for v in range(voxels.shape[0]):
        for _ in range(per_voxel):
            uz, uy, ux = (uz + STEP_Z) % 1.0, (uy + STEP_Y) % 1.0, (ux + STEP_X) % 1.0
            z, y, x = voxels[v, 0] + uz - 0.5, voxels[v, 1] + uy - 0.5, voxels[v, 2] + ux - 0.5
            if not everywhere and not _is_inside(field, (z, y, x), near):
                continue
            dz, dy, dx = z * ratio[0] + shift[0], y * ratio[1] + shift[1], x * ratio[2] + shift[2]
            low, high = min(dz, dy, dx), max(dz - dose.shape[0], dy - dose.shape[1], dx - dose.shape[2])
            if low < -0.5 - 1e-6 or high > -0.5 + 1e-6:
                n_outside += 1
                continue
            found[n_found] = trilinear(dose, dz, dy, dx)
            n_found += 1
    return n_found, n_outside
