"""Fingerprint of training cases: shapes, spacings, structures, intensities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doseledger.core.case import map_member, read_meta
from doseledger.core.types import Triple
from doseledger.learn.data.inputs import OpenCase, refuse_other_structures
from doseledger.learn.recipes.suggest import Fingerprint

# Of the stored values inside structures; nnU-Net clips CT at the same two.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
# Windows are told in steps of so many stored values.
ROUND_TO = 10.0
# Voxels of a case that are looked at for the window, at most.
MOST_VOXELS = 20_000


def fingerprint(cases: Sequence[OpenCase]) -> Fingerprint:
    """Return the fingerprint of some cases.

    Targets are left out, as they are no anatomy, and so is what shares voxels with a structure before it, or is in no
    case.

    Raises
    ------
    BadInput
        If their structures differ.
    """
    names = refuse_other_structures(list(cases))
    targets = {name for case in cases for name in case.prescription_gy}
    kept, left_out = _apart(cases, [name for name in names if name not in targets])
    left_out |= dict.fromkeys(sorted(targets), "a target is prescribed to, an image does not show it")
    native = [_native_spacing(case) for case in cases]
    return Fingerprint(
        shapes_zyx=[case.shape_zyx for case in cases],
        spacings_mm=[case.spacing_mm for case in cases],
        native_spacings_mm=native,
        structure_names=tuple(kept),
        left_out=left_out,
        window=_window(cases, kept),
    )


def _native_spacing(case: OpenCase) -> Triple:
    grid = read_meta(case.file.path).get("native_image_grid") or {}
    z, y, x = (float(value) for value in grid.get("spacing_mm", case.spacing_mm))
    return z, y, x


def _apart(cases: Sequence[OpenCase], names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Structures that share no voxel, the first in the protocol's order, and why the others are left out."""
    clashes: dict[str, set[str]] = {name: set() for name in names}
    there = set()
    for case in cases:
        stored = map_member(case.file.path, "masks")
        masks = {name: np.asarray(stored[case.structure_names.index(name)]) > 0 for name in names}
        there |= {name for name, mask in masks.items() if mask.any()}
        for place, name in enumerate(names):
            clashes[name] |= {other for other in names[:place] if (masks[name] & masks[other]).any()}
    kept: list[str] = []
    left_out = {}
    for name in names:
        shared = [other for other in kept if other in clashes[name]]
        if name not in there:
            left_out[name] = "no training case has it"
        elif shared:
            left_out[name] = f"it shares voxels with {', '.join(shared)}"
        else:
            kept.append(name)
    return kept, left_out


def _window(cases: Sequence[OpenCase], names: list[str]) -> tuple[float, float]:
    found = []
    for case in cases:
        masks = map_member(case.file.path, "masks")
        inside = np.any([masks[case.structure_names.index(name)] for name in names], axis=0) if names else False
        values = np.asarray(map_member(case.file.path, "ct_hu"))[np.asarray(inside, dtype=np.bool_)].ravel()
        found.append(values[:: max(1, len(values) // MOST_VOXELS)].astype(np.float64))
    values = np.concatenate(found)
    low, high = np.percentile(values, (LOW_PERCENTILE, HIGH_PERCENTILE)) if len(values) else (-1000.0, 1000.0)
    return float(np.floor(low / ROUND_TO) * ROUND_TO), float(np.ceil(high / ROUND_TO) * ROUND_TO)
