"""Physics maps of a case: their file, in 8-bit steps of dose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.case import write_npz
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import atomic_path
from doseledger.core.npz import damage_as_bad_input, open_npz
from doseledger.core.project.protocol import Beams
from doseledger.core.types import GyArray

# One step of the 8-bit maps: to 76.5 Gy, which only hot spots of a generic plan pass.
MAP_STEP_GY = 0.3
META = "meta"


@dataclass(frozen=True)
class PhysicsFile:
    """A case's maps on disk.

    Parameters
    ----------
    path
        NPZ of one uint8 (z, y, x) in steps of `MAP_STEP_GY` a map, on the case's grid.
    beams
        The protocol's block that they were made of, as JSON values.
    """

    path: Path
    names: tuple[str, ...]
    beams: dict[str, Any]


def write_physics(path: Path, maps_gy: Mapping[str, GyArray], *, case_sha256: str, beams: Beams) -> None:
    """Write a case's maps atomically, without compression; equal maps give equal bytes."""
    meta = {"case_sha256": case_sha256, "beams": beams.model_dump(mode="json"), "names": list(maps_gy)}
    arrays = {name: as_steps(dose_gy) for name, dose_gy in maps_gy.items()}
    with atomic_path(path) as part:
        write_npz(part, {**arrays, META: np.asarray(json.dumps(meta, sort_keys=True))})


def as_steps(dose_gy: GyArray) -> np.ndarray:
    """Return a dose in steps of `MAP_STEP_GY`, uint8; what is higher than they can say is the highest."""
    return np.clip(np.rint(dose_gy / np.float32(MAP_STEP_GY)), 0, np.iinfo(np.uint8).max).astype(np.uint8)


def open_physics(path: Path, case_id: str, case_sha256: str) -> PhysicsFile:
    """Return what is known of a case's maps; they stay on disk.

    Raises
    ------
    NotReady
        If they are not there, or were made of another case than this one.
    BadInput
        If the file is damaged.
    """
    if not path.is_file():
        raise NotReady(
            f"{case_id}: no physics maps {path.name}; run `doseledger physics`, which says why where it can't make them"
        )
    with damage_as_bad_input(path), open_npz(path) as npz:
        meta = json.loads(str(npz[META]))
        found, names, beams = str(meta["case_sha256"]), tuple(meta["names"]), meta["beams"]
        # Maps are then read where they lie, past their checksums: a disk that rots would change a dose without a word.
        if rotten := npz.zip.testzip():
            raise BadInput(f"{path}: {rotten} is not what was written (its checksum differs); run `doseledger verify`")
    if found != case_sha256:
        raise NotReady(
            f"{case_id}: its physics maps were made of the case {found[:12]}…, this one is {case_sha256[:12]}…; run "
            "`doseledger physics` again"
        )
    return PhysicsFile(path, names, beams)
