"""Kernel widths that follow the density along the ray.

In a medium of density ρ scattered photons and electrons go 1/ρ times as far aside as in water (O'Connor, Phys Med Biol
1:352, 1957). Behind a change of density they forget it: with L_g of water for each Gaussian its stretch κ_g follows
κ' = (1 − ρ κ) / L_g along the ray, κ = 1 under the skin. So κ stays 1 in water and tends to 1/ρ elsewhere; in a gap it
grows by the gap's length over L_g. The share s of a width is stretched, to σ² (1 + s² (κ² − 1)); of the narrowest
Gaussian, which holds electrons and the source's size, a part is. The Gaussian of that width is a mean of two of a
ladder of fixed widths: dose remains linear in the fluence, and its adjoint exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from doseledger.core.types import Floats, Singles
from doseledger.planning.dose.raytrace import Fan
from doseledger.planning.machine.linac import N_GAUSSIANS, Beam

# Narrowest Gaussian first: the depth of water over which its width follows the density, and the part of it that does;
# then the share of each width. Fitted to Monte Carlo pencil beams of 6 MV in 100 mm of lung of 0.15, 0.25 and 0.4 g/cm³
# (ompMC, tests/planning/data/ompmc_slabs.csv): 1.0 % rms for fields of 20 to 200 mm.
LENGTH_MM = (1.65, 1.65, 17.8, 52.2)
PART = (0.47, 1.0, 1.0, 1.0)
SHARE = 0.70
# Below the first there is no stretch, above the second all of it: fat (1.05 to 1.1) costs nothing.
STRETCHED = (1.1, 1.2)
# Of water, before which nothing is stretched: a CT's voxels blur the skin to half its density.
SKIN_MM = 5.0
# No wider: what a gap of any length leaves.
MOST_STRETCH = 12.0
# Widths between the beam's own four, and beyond its widest; a multiple of four together.
BETWEEN, BEYOND, BEYOND_RATIO = (1, 3, 2), 2, 1.8


@dataclass(frozen=True)
class Ladder:
    """Widths of which stretched Gaussians are made.

    Parameters
    ----------
    groups
        Widths in mm that are looked up together, four each; the beam's own come first.
    variance
        All widths squared, rising, float32 (width,).
    slot
        Place of each of them in the groups, int32 (width,).
    """

    groups: tuple[tuple[float, ...], ...]
    variance: Singles
    slot: NDArray[np.int32]

    @property
    def rule(self) -> tuple[Singles, NDArray[np.int32], Singles, Singles]:
        """All that the loops need of it: also what each Gaussian is, (3, gaussian), and from when stretch counts.

        What each is: its variance, how much of it is stretched, and the part of its weight that is.
        """
        own = np.square(self.groups[0])
        what = np.stack([own, SHARE**2 * own, by_rank(PART, self.groups[0])]).astype(np.float32)
        return self.variance, self.slot, what, np.array(STRETCHED, dtype=np.float32)


def by_rank(value: Sequence[float], sigma_mm: Sequence[float]) -> Floats:
    """Return the value of each Gaussian, (gaussian,), of values from the narrowest to the widest."""
    return np.asarray(value)[np.argsort(np.argsort(sigma_mm))]


def ladder_of(beam: Beam) -> Ladder:
    """Return the ladder of a beam: its own widths, and more between and beyond them in even ratios."""
    own = np.sort(beam.sigma_mm)
    more = [width for k, n in enumerate(BETWEEN) for width in np.geomspace(own[k], own[k + 1], n + 2)[1:-1]]
    more += [float(own[-1]) * BEYOND_RATIO ** (k + 1) for k in range(BEYOND)]
    widths = np.array([*beam.sigma_mm, *more])
    order = np.argsort(widths, kind="stable")
    groups = tuple(tuple(part.tolist()) for part in widths.reshape(-1, N_GAUSSIANS))
    return Ladder(groups, np.square(widths[order]).astype(np.float32), order.astype(np.int32))


def stretch_fan(fan: Fan, beam: Beam) -> Singles | None:
    """Return the stretch of each Gaussian at the nodes of a fan, float32 (gaussian, ray across, step, ray along).

    None where nothing is stretched, or the beam's widths don't follow the density.
    """
    if not beam.follows_density:
        return None
    length_mm = by_rank(LENGTH_MM, beam.sigma_mm).tolist()
    shape, source = fan.depth_mm.shape, fan.frame.source_axis_mm
    across, along = (fan.start_mm[k] + fan.spacing_mm[k] * np.arange(shape[2 * k]) for k in (0, 1))
    slant = np.hypot(across[:, None], along[None, :]) / source
    way = (fan.spacing_mm[2] * np.hypot(1.0, slant)).astype(np.float32)
    out = np.empty((len(length_mm), *fan.depth_mm.shape), dtype=np.float32)
    for length in sorted(set(length_mm)):
        first = length_mm.index(length)
        _relax(fan.depth_mm, way, np.float32(length), out[first])
        for k in range(first + 1, len(length_mm)):
            if length_mm[k] == length:
                out[k] = out[first]
    return out if out.max() > STRETCHED[0] else None


@njit(cache=True, fastmath=True, error_model="numpy")
def _relax(depth, way, length, out):  # type: ignore[no-untyped-def]
    """Fill the stretch at the nodes of a fan; a step's density is its share of the radiological depth."""
    one, most = np.float32(1.0), np.float32(MOST_STRETCH)
    for ix in range(depth.shape[0]):
        for iy in range(depth.shape[2]):
            out[ix, 0, iy] = one
        for k in range(1, depth.shape[1]):
            for iy in range(depth.shape[2]):
                deep = depth[ix, k, iy]
                lost = (deep - depth[ix, k - 1, iy]) / length
                kept = np.exp(-lost)
                # (1 − e^−x) / x, with its limit.
                mean = (one - kept) / lost if lost > np.float32(1e-3) else one - np.float32(0.5) * lost
                stretched = out[ix, k - 1, iy] * kept + way[ix, iy] / length * mean
                out[ix, k, iy] = min(max(stretched, one), most) if depth[ix, k - 1, iy] > SKIN_MM else one
