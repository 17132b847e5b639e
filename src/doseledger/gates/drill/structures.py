"""Faults of structures and their signed distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from doseledger.core.case import Case
from doseledger.core.types import Array
from doseledger.dicom.distance import signed_distance
from doseledger.gates.drill import volumes
from doseledger.gates.drill.trial import Change, Put, Trial

LEFT, RIGHT = "_L", "_R"


def of_structures(choose: Callable[[Trial], Sequence[str]], change: Change) -> Put:
    """Return the fault that draws some structures elsewhere or of another size.

    `choose` names them (none, and the case can't have the fault); `change` is of a map in mm. The
    mask is where that is negative, and its own map is made anew as ingest does.
    """

    def put(at: Trial) -> Case | None:
        case, names = at.case, choose(at)
        masks, sdf_mm, present = case.masks.copy(), case.sdf_mm.copy(), case.present.copy()
        for index in (case.structure_names.index(name) for name in names):
            mask = change(case.sdf_mm[index].astype(np.float32), at) < 0.0
            if not np.array_equal(mask, case.masks[index]):
                masks[index], present[index] = mask, mask.any()
                sdf_mm[index] = signed_distance(mask, case.grid, at.protocol.sdf_clip_mm)
        return replace(case, masks=masks, sdf_mm=sdf_mm, present=present) if names else None

    return put


def of_map(change: Change) -> Put:
    """Return the fault that changes an organ's map alone; the main target's without organs."""

    def put(at: Trial) -> Case | None:
        names, sdf_mm = [*at.organs(), *at.target()], np.array(at.case.sdf_mm)
        for index in (at.case.structure_names.index(name) for name in names[:1]):
            sdf_mm[index] = change(sdf_mm[index].astype(np.float32), at)
        return replace(at.case, sdf_mm=sdf_mm) if names else None

    return put


def moved_by_mm(sdf_mm: Array, at: Trial) -> Array:
    """Return the map of a structure that lies elsewhere along the drawn axis."""
    return volumes.moved(sdf_mm, replace(at, size=at.size / at.case.grid.spacing_mm[at.axis]))


def grown(sdf_mm: Array, at: Trial) -> Array:
    """Return the map of a structure with a margin."""
    return sdf_mm - at.size


def shrunk(sdf_mm: Array, at: Trial) -> Array:
    """Return the map of a structure that lost a margin."""
    return sdf_mm + at.size


def scaled_map(sdf_mm: Array, at: Trial) -> Array:
    """Return a map whose distances are too large, clipped where all are."""
    return np.clip(volumes.raised(sdf_mm, at), -at.protocol.sdf_clip_mm, at.protocol.sdf_clip_mm)


def sides_swapped(at: Trial) -> Case | None:
    """Return a case whose structures of left and right have each other's names."""
    present = at.case.present_names
    lefts = [name.removesuffix(LEFT) for name in present if name.endswith(LEFT)]
    return _exchanged(at.case, [(n + LEFT, n + RIGHT) for n in lefts if n + RIGHT in present])


def organs_exchanged(at: Trial) -> Case | None:
    """Return a case in which two drawn organs have each other's names."""
    names = at.organs()
    return _exchanged(at.case, [(names[0], names[1])] if len(names) > 1 else [])


def _exchanged(case: Case, pairs: Sequence[tuple[str, str]]) -> Case | None:
    order = list(range(len(case.structure_names)))
    for pair in pairs:
        i, j = (case.structure_names.index(name) for name in pair)
        order[i], order[j] = j, i
    if not pairs:
        return None
    arrays = {name: getattr(case, name)[order] for name in ("masks", "sdf_mm", "present")}
    return replace(case, **arrays)


def organ_copied(at: Trial) -> Case | None:
    """Return a case in which a drawn organ holds the voxels of another one."""
    names, masks, sdf_mm = at.organs(), np.array(at.case.masks), np.array(at.case.sdf_mm)
    if len(names) < 2:
        return None
    i, j = (at.case.structure_names.index(name) for name in names[:2])
    masks[i], sdf_mm[i] = masks[j], sdf_mm[j]
    return replace(at.case, masks=masks, sdf_mm=sdf_mm)
