"""Features of voxels for trees: anatomy, place, distances, maps, told doses.

Doses among them are shares of the main prescription, and so is what trees say: a plan of so much more dose has the
same features. Nothing here reads the plan's dose but `dose_shares`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import edt
import numpy as np
from scipy.ndimage import gaussian_filter

from doseledger.core.case import map_member
from doseledger.core.errors import BadCase
from doseledger.core.types import GyArray, Indices, Mask, Singles, Triple
from doseledger.learn.data.inputs import InputSpec, OpenCase, defined_voxels, read_map, read_offsets

SLICE_CM2 = 100.0
# Distances to structures are told up to here: beyond the reach of any plan's dose fall-off.
FARTHEST_MM = 150.0


def voxel_features(case: OpenCase, spec: InputSpec, index: Indices, context_mm: Sequence[float]) -> Singles:
    """Return the features of some voxels of a case, float32 (voxel, feature).

    Parameters
    ----------
    index
        Flat indices into the case's (z, y, x).
    context_mm
        As of the recipe.

    Raises
    ------
    BadCase
        If no target is there to place a voxel about.
    NotReady
        If the inputs ask for physics maps that the case does not have.
    """
    return _columns(_volumes(case, spec, context_mm), index)


def dose_features(case: OpenCase, dose_gy: GyArray, index: Indices, context_mm: Sequence[float]) -> Singles:
    """Return what a dose (z, y, x) that was told of a case says of some of its voxels, float32 (voxel, feature).

    Parameters
    ----------
    index, context_mm
        As of `voxel_features`.
    """
    share = dose_gy / np.float32(case.main_prescription_gy)
    volumes = [*_in_context(share, case.spacing_mm, context_mm)]
    return _columns([*volumes, _slice_mean(share, _body(case))] if context_mm else volumes, index)


def _columns(volumes: Iterable[Singles], index: Indices) -> Singles:
    return np.stack([volume.reshape(-1)[index] for volume in volumes], axis=1).astype(np.float32)


def _body(case: OpenCase) -> Mask:
    body: Mask = np.asarray(map_member(case.file.path, "body")) > 0
    return body


def _volumes(case: OpenCase, spec: InputSpec, context_mm: Sequence[float]) -> Iterator[Singles]:
    """Each feature as a volume (z, y, x), one at a time."""
    box = case.whole
    shape, spacing = case.shape_zyx, case.spacing_mm
    body = _body(case)
    masks = np.asarray(map_member(case.file.path, "masks")) > 0
    main_gy = case.main_prescription_gy
    targets = np.zeros(shape, dtype=np.bool_)
    prescribed = np.zeros(shape, dtype=np.float32)
    for name, dose_gy in case.prescription_gy.items():
        inside = masks[spec.structure_names.index(name)]
        targets |= inside
        prescribed[inside] = np.maximum(prescribed[inside], dose_gy / main_gy)
    ct_hu = np.asarray(map_member(case.file.path, "ct_hu"), dtype=np.float32)
    maps = [read_map(case, name, box) / np.float32(main_gy) for name in spec.recipe.physics]
    for offset in read_offsets(case, box):
        yield np.broadcast_to(offset, shape)
    for mask in (*masks, targets):
        yield _distance(mask, spacing)
    yield _distance(body, spacing)
    for mask in (targets, body):
        yield _area(mask, spacing)
    for volume in (ct_hu, prescribed, *maps):
        yield from _in_context(volume, spacing, context_mm)
    for volume in (prescribed, *maps) if context_mm else ():
        yield _slice_mean(volume, body)


def _in_context(volume: Singles, spacing_mm: Triple, context_mm: Sequence[float]) -> Iterator[Singles]:
    """A volume, and smoothed by Gaussians of each width."""
    yield volume
    for width_mm in context_mm:
        yield gaussian_filter(volume, [width_mm / mm for mm in spacing_mm], truncate=3.0)


def _distance(mask: Mask, spacing_mm: Triple) -> Singles:
    """Signed distance to a mask's surface in mm, half a voxel in doubt; as far as is told where it is empty."""
    if not mask.any():
        return np.full(mask.shape, FARTHEST_MM, dtype=np.float32)
    outside, inside = (edt.edt(part, anisotropy=spacing_mm, black_border=False) for part in (~mask, mask))
    distance: Singles = np.clip(outside - inside, -FARTHEST_MM, FARTHEST_MM).astype(np.float32)
    return distance


def _area(mask: Mask, spacing_mm: Triple) -> Singles:
    """Area of a mask in each voxel's slice, in units of `SLICE_CM2`."""
    area = mask.sum(axis=(1, 2)) * spacing_mm[1] * spacing_mm[2] / 100.0 / SLICE_CM2
    return np.broadcast_to(area[:, None, None].astype(np.float32), mask.shape)


def _slice_mean(volume: Singles, body: Mask) -> Singles:
    """Mean of a volume over the body in each voxel's slice."""
    mean = (volume * body).sum(axis=(1, 2)) / np.maximum(body.sum(axis=(1, 2)), 1)
    return np.broadcast_to(mean[:, None, None].astype(np.float32), volume.shape)


def drawn_voxels(case: OpenCase, count: int, seed: int) -> Indices:
    """Return flat indices, rising, of at most so many voxels drawn of those of a case's body that have a dose.

    The draw hangs on the seed and the case's name alone, so that a case more moves no other's.

    Raises
    ------
    BadCase
        If there is no such voxel, or no target.
    """
    known = np.flatnonzero(defined_voxels(case))
    if not len(known) or case.main_prescription_gy <= 0:
        raise BadCase(case.case_id, "no voxel of its body has a dose, or no target is there; ingest it again")
    rng = np.random.default_rng([seed, *case.case_id.encode()])
    return np.sort(rng.choice(known, min(count, len(known)), replace=False))


def structure_weights(case: OpenCase, index: Indices, share: float) -> Singles:
    """Return how much each of some voxels counts, float32 (voxel,): 1, and more in each structure that it lies in.

    Parameters
    ----------
    share
        What the voxels of a structure count together besides, in shares of all of them.
    """
    weight = np.ones(len(index), dtype=np.float32)
    for mask in np.asarray(map_member(case.file.path, "masks")):
        inside = mask.reshape(-1)[index] > 0
        if inside.any():
            weight[inside] += np.float32(share * len(index) / np.count_nonzero(inside))
    return weight


def dose_shares(case: OpenCase, index: Indices) -> Singles:
    """Return the plan's dose at some voxels as shares of the main prescription, float32 (voxel,).

    Raises
    ------
    BadCase
        If one is not finite.
    """
    planned_gy: GyArray = np.asarray(map_member(case.file.path, "dose_gy"), dtype=np.float32).reshape(-1)[index]
    dose: Singles = planned_gy / np.float32(case.main_prescription_gy)
    if not np.isfinite(dose).all():
        raise BadCase(case.case_id, "its dose is not finite; no tree can be grown on it: ingest it again")
    return dose
