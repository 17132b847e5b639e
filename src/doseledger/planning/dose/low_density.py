"""Share of targets and beams in low density, where the dose engine errs most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from doseledger.core.grid import Grid
from doseledger.core.limit import keeps
from doseledger.core.plan import Arc
from doseledger.core.types import Floats, Mask, Singles
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.geometry import beam_frame

# Electron density relative to water below which tissue is gas or lung: lung has 0.1 to 0.5, fat 0.9.
LOW_DENSITY = 0.6
# With kernels of water the engine errs in and behind lung of 0.25 by 6 % (field of 100 mm) to 14 % (40 mm) of the dose;
# rectal gas on the way of some beams costs a plan tenths of a percent. Above the first of each pair it is warned of,
# above the second refused. Where kernels follow the density 5 % are left: no refusal, a warning above the second.
TARGET_PERCENT = (2.0, 10.0)
WAY_PERCENT = (5.0, 12.0)
# Points of the target and directions that are looked at, and steps along a ray.
N_POINTS = 150
DIRECTION_DEG = 10.0
STEP_MM = 4.0


@dataclass(frozen=True)
class LowDensity:
    """How much of a treatment lies in low density.

    Parameters
    ----------
    way_percent
        Share of the beams' way from the skin to the target's points, over all directions of the beams.
    follows_density
        Whether the beam's kernels follow the density.
    """

    target_percent: float
    way_percent: float
    follows_density: bool = False

    @property
    def refusal(self) -> str:
        """Why no dose should be computed; empty where one may."""
        found = self._beyond(1)
        known = np.isfinite([self.target_percent, self.way_percent]).all()
        if not found or (self.follows_density and known):
            return ""
        return f"{found}, where this dose engine is too high by 6 to 14 % of the dose"

    @property
    def warning(self) -> str:
        """What is to be said of a dose that is computed nevertheless; empty where nothing is."""
        found = self._beyond(1 if self.follows_density else 0)
        if not found:
            return ""
        if self.follows_density:
            return f"{found}, where this dose is within 5 % of Monte Carlo in slabs (fields of 20 mm: 6 %)"
        return f"{found}, where this dose engine is too high by 6 to 14 % of the dose"

    def _beyond(self, which: int) -> str:
        found = []
        if not keeps(self.target_percent, most=TARGET_PERCENT[which]):
            found.append(f"{self.target_percent:.1f} % of the target (at most {TARGET_PERCENT[which]:g})")
        if not keeps(self.way_percent, most=WAY_PERCENT[which]):
            found.append(f"{self.way_percent:.1f} % of the beams' way to it (at most {WAY_PERCENT[which]:g})")
        if not found:
            return ""
        return f"{' and '.join(found)} lies in low density (lung, gas; below {LOW_DENSITY:g} of water)"


@dataclass(frozen=True)
class Placed:
    """Where patient and target are: bool (z, y, x) on a grid, which need not be the density's."""

    grid: Grid
    body: Mask
    target: Mask


def low_density_of(
    density: DensityMap, where: Placed, arcs: Sequence[Arc], source_mm: float, *, follows_density: bool = False
) -> LowDensity:
    """Return how much of a target, and of the way of beams to it, lies in low density; NaN without a target.

    Parameters
    ----------
    where
        Outline and target. What is outside the outline, the air around the patient, counts for nothing.
    source_mm
        Distance from the source to the isocentre.
    follows_density
        Whether the beam's kernels follow the density.
    """
    voxels = np.argwhere(where.target & where.body)
    if not len(voxels):
        return LowDensity(float("nan"), float("nan"), follows_density)
    points = where.grid.index_to_mm(voxels)
    target_percent = 100.0 * float(np.mean(_density_at(density, points) < LOW_DENSITY))
    few = points[:: max(1, len(points) // N_POINTS)][:, ::-1]
    low = total = 0
    for source in _sources(arcs, source_mm):
        seen = _density_at(density, _on_the_way(where, source, few))
        low, total = low + int(np.count_nonzero(seen < LOW_DENSITY)), total + len(seen)
    return LowDensity(target_percent, 100.0 * low / total if total else float("nan"), follows_density)


def _density_at(density: DensityMap, points_zyx: Floats) -> Singles:
    index = density.grid.mm_to_index(points_zyx).T
    return np.asarray(ndimage.map_coordinates(density.relative, index, order=0, mode="nearest"), dtype=np.float32)


def _sources(arcs: Sequence[Arc], source_mm: float) -> list[Floats]:
    """Return positions of the source, about every ten degrees of each beam, (x, y, z) in mm."""
    found: dict[tuple[float, ...], Floats] = {}
    for arc in arcs:
        for angle in arc.gantry_deg:
            key = (round(float(angle) / DIRECTION_DEG), arc.couch_deg, *arc.isocentre_xyz_mm)
            if key not in found:
                found[key] = beam_frame(arc, float(angle), source_mm).source_xyz_mm
    return list(found.values())


def _on_the_way(where: Placed, source: Floats, points: Floats) -> Floats:
    """Return positions (z, y, x) in the outline on the rays from a source to points."""
    way = points - source
    length = np.linalg.norm(way, axis=1)
    # No patient is thicker than the way from the source to the isocentre is long.
    back = np.arange(0.0, 0.9 * float(length.min()), STEP_MM)
    at = points[:, None, :] - back[None, :, None] * (way / length[:, None])[:, None, :]
    position = at[..., ::-1].reshape(-1, 3)
    index = where.grid.mm_to_index(position).T
    there = ndimage.map_coordinates(where.body.view(np.uint8), index, order=0, mode="constant", cval=0) > 0
    return np.asarray(position[there])
