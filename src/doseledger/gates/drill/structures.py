"""Faults of structures and their signed distances, each a function of a case, a size and a draw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from doseledger.core.case import Case
from doseledger.core.types import Array, Singles
from doseledger.dicom.distance import signed_distance
from doseledger.gates.drill import volumes
from doseledger.gates.drill.draw import Change, Draw, Put

SIDES = ("_L", "_R")


def moved_by_mm(sdf_mm: Singles, case: Case, way_mm: float, draw: Draw) -> Array:
    """Return the map of a structure that lies elsewhere along the drawn axis."""
    return volumes.moved(sdf_mm, case, way_mm / case.grid.spacing_mm[draw.axis], draw)


def grown(sdf_mm: Singles, case: Case, by_mm: float, draw: Draw) -> Array:
    """Return the map of a structure with a margin."""
    return sdf_mm - np.float32(by_mm)


def shrunk(sdf_mm: Singles, case: Case, by_mm: float, draw: Draw) -> Array:
    """Return the map of a structure that lost a margin."""
    return sdf_mm + np.float32(by_mm)


def of_all(change: Change) -> Put:
    """Return the fault that changes every structure."""
    return lambda case, size, draw: _drawn_anew(case, case.present_names, change, size, draw)


def of_target(change: Change) -> Put:
    """Return the fault that changes the main target."""

    def put(case: Case, size: float, draw: Draw) -> Case | None:
        name = case.main_target
        return None if name is None else _drawn_anew(case, [name], change, size, draw)

    return put


def of_organ(change: Change) -> Put:
    """Return the fault that changes a drawn organ."""

    def put(case: Case, size: float, draw: Draw) -> Case | None:
        names = draw.organs(case)[:1]
        return _drawn_anew(case, names, change, size, draw) if names else None

    return put


def _drawn_anew(case: Case, names: Iterable[str], change: Change, size: float, draw: Draw) -> Case:
    """Masks of some structures that are moved, grown or shrunk, and the maps that ingest makes of those."""
    masks, sdf_mm, present = np.array(case.masks), np.array(case.sdf_mm), np.array(case.present)
    for index in (case.structure_names.index(name) for name in names):
        mask = change(case.sdf_mm[index].astype(np.float32), case, size, draw) < 0.0
        if not np.array_equal(mask, case.masks[index]):
            masks[index], present[index] = mask, mask.any()
            sdf_mm[index] = signed_distance(mask, case.grid, draw.protocol.sdf_clip_mm)
    return replace(case, masks=masks, sdf_mm=sdf_mm, present=present)


def sides_swapped(case: Case, size: float, draw: Draw) -> Case | None:
    """Return a case whose structures of left and right have each other's names."""
    pairs = [(name, name.removesuffix(SIDES[0]) + SIDES[1]) for name in case.structure_names if name.endswith(SIDES[0])]
    pairs = [pair for pair in pairs if set(pair) <= set(case.present_names)]
    return _exchanged(case, pairs) if pairs else None


def organs_exchanged(case: Case, size: float, draw: Draw) -> Case | None:
    """Return a case in which two drawn organs have each other's names."""
    names = draw.organs(case)
    return _exchanged(case, [(names[0], names[1])]) if len(names) > 1 else None


def _exchanged(case: Case, pairs: Iterable[tuple[str, str]]) -> Case:
    order = list(range(len(case.structure_names)))
    for one, other in pairs:
        i, j = case.structure_names.index(one), case.structure_names.index(other)
        order[i], order[j] = j, i
    return replace(case, masks=case.masks[order], sdf_mm=case.sdf_mm[order], present=case.present[order])


def organ_copied(case: Case, size: float, draw: Draw) -> Case | None:
    """Return a case in which a drawn organ holds the voxels of another one."""
    names = draw.organs(case)
    if len(names) < 2:
        return None
    masks, sdf_mm = np.array(case.masks), np.array(case.sdf_mm)
    i, j = (case.structure_names.index(name) for name in names[:2])
    masks[i], sdf_mm[i] = case.masks[j], case.sdf_mm[j]
    return replace(case, masks=masks, sdf_mm=sdf_mm)


def of_map(change: Change) -> Put:
    """Return the fault that changes a drawn organ's map alone, its mask staying; the main target's without organs."""

    def put(case: Case, size: float, draw: Draw) -> Case | None:
        names = [*draw.organs(case), *([case.main_target] if case.main_target else [])]
        if not names:
            return None
        index, sdf_mm = case.structure_names.index(names[0]), np.array(case.sdf_mm)
        sdf_mm[index] = change(sdf_mm[index].astype(np.float32), case, size, draw).astype(np.float16)
        return replace(case, sdf_mm=sdf_mm)

    return put


def sign_turned(sdf_mm: Singles, case: Case, size: float, draw: Draw) -> Array:
    """Return a map that is positive inside."""
    return -sdf_mm


def in_voxels(sdf_mm: Singles, case: Case, size: float, draw: Draw) -> Array:
    """Return a map in voxels of the drawn axis."""
    return sdf_mm / np.float32(case.grid.spacing_mm[draw.axis])


def map_scaled(sdf_mm: Singles, case: Case, percent: float, draw: Draw) -> Array:
    """Return a map whose distances are too large, clipped where all are."""
    clip = draw.protocol.sdf_clip_mm
    return np.clip(volumes.scaled_up(sdf_mm, case, percent, draw), -clip, clip)
