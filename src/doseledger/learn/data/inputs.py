"""A network's inputs: channels and conditions, read patch by patch.

Channels are (CT, body, [prescribed dose], [place about the targets], structure …, [physics map …], [dose told by
trees]), all on (z, y, x).
Conditions are (presence of each structure, [prescribed dose of each target, fractions], voxel spacing). Nothing here
reads the plan's dose but `read_dose`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.case import Case, map_member
from doseledger.core.digests import known_sha256
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.core.physics import MAP_STEP_GY, PhysicsFile, open_physics
from doseledger.core.types import IntTriple, Singles, Triple
from doseledger.learn.data.place import TargetPlace, find_place
from doseledger.learn.recipes.dose import InputRecipe

# First voxel and size of a patch, (z, y, x); the first may lie outside the case.
Window = tuple[IntTriple, IntTriple]

# Air to dense bone; metal and couch beyond it carry no more dose information, and would dwarf soft tissue.
CT_RANGE_HU = (-1000.0, 2000.0)
# Offsets from the targets are of the order of 1 after this: a pelvis reaches some 200 mm from it.
OFFSET_SCALE_MM = 100.0
# 1000 HU, the step from air to water, is one unit of the network's input.
CT_SCALE_HU = 1000.0
AIR_HU = -1000
# Voxels that a network sees about those that count, of a case that is seen as a whole.
COUNTED_MARGIN = 2
# Voxels along each axis that such a case has at least at the coarsest level: fewer are mostly padding, and of two
# slices torch's 16-bit gradients are wrong on a CPU, see `training.finite`.
LEAST_COARSEST = 3
# A dose that trees have told is kept in these steps as 16-bit numbers: up to 131 Gy.
TOLD_STEP_GY = 0.002
# Where the map of the prescribed dose stands among the channels, if it is one.
PRESCRIBED_CHANNEL = 2
# Fractions and spacing are of the order of 1 after these: 28 to 39 fractions, voxels of 1 to 5 mm.
FRACTIONS_SCALE = 30.0
SPACING_SCALE_MM = 3.0
# A name that has a side but no partner in `mirrored_names` would be mirrored to the wrong side of the body.
SIDED_NAME = re.compile(
    r"(^|[_\s-])(l|r|lt|rt|left|right)($|[_\s-])|^(Left|Right)[A-Z]|[a-z](Left|Right)$", re.IGNORECASE
)


@dataclass(frozen=True)
class CaseFile:
    """Where a case lies and which bytes it must have; `physics` is the file of its maps, None where none is wanted."""

    case_id: str
    path: Path
    sha256: str
    physics: Path | None = None


@dataclass(frozen=True)
class OpenCase:
    """A case whose bytes were compared with the splits; its volumes stay on disk.

    `place` is where its targets are; None without one. `told` is the dose that boosted trees have told of it, uint16
    (z, y, x) in steps of `TOLD_STEP_GY`; None where no model asked them.
    """

    file: CaseFile
    shape_zyx: IntTriple
    spacing_mm: Triple
    origin_mm: Triple
    structure_names: tuple[str, ...]
    present: tuple[bool, ...]
    prescription_gy: dict[str, float]
    n_fractions: int | None
    place: TargetPlace | None
    physics: PhysicsFile | None = None
    told: NDArray[np.uint16] | None = None

    @property
    def case_id(self) -> str:
        """Pseudonymous identifier."""
        return self.file.case_id

    @property
    def whole(self) -> Window:
        """The box of all its voxels."""
        return (0, 0, 0), self.shape_zyx

    @property
    def main_prescription_gy(self) -> float:
        """Highest prescription of the targets that are there; 0 without one."""
        there = dict(zip(self.structure_names, self.present, strict=True))
        return max((dose_gy for name, dose_gy in self.prescription_gy.items() if there[name]), default=0.0)


def case_files(
    cases: Path, splits: pd.DataFrame, which: str, *, fold: int, repeat: int, physics: Path | None = None
) -> list[CaseFile]:
    """Return the files of one part of the splits, sorted by case.

    Parameters
    ----------
    physics
        Folder of the cases' physics maps; None where no model asks for them.

    Raises
    ------
    NotReady
        If that fold and repeat has no such cases.
    """
    rows = splits[(splits["fold"] == fold) & (splits["repeat"] == repeat) & (splits["split"] == which)]
    if rows.empty:
        raise NotReady(f"the splits have no {which} case in fold {fold}, repeat {repeat}; run the split stage")
    return [
        CaseFile(
            str(row.case_id),
            cases / f"{row.case_id}.npz",
            str(row.sha256),
            None if physics is None else physics / f"{row.case_id}.npz",
        )
        for row in rows.sort_values("case_id").itertuples()
    ]


def save_case(case: Case, folder: Path) -> CaseFile:
    """Return the file of a case in memory, after writing it into a folder: models read a case by its one road."""
    path = folder / f"{case.case_id}.npz"
    case.save(path)
    return CaseFile(case.case_id, path, sha256_of_file(path))


def open_case(file: CaseFile) -> OpenCase:
    """Return what is known of a case, after checking its bytes; its volumes stay on disk.

    Raises
    ------
    NotReady
        If the file is absent or its SHA256 is not the one in the splits: it was never judged by the data gate.
    BadCase
        If it breaks the NPZ contract.
    """
    if not file.path.is_file():
        raise NotReady(f"{file.case_id}: the splits list it, but {file.path.name} is not there; run ingest and split")
    found = known_sha256(file.path)
    if found != file.sha256:
        raise NotReady(
            f"{file.case_id}: {file.path.name} has SHA256 {found[:12]}…, the splits say {file.sha256[:12]}…: "
            "it changed after the data gate judged it; run ingest, split and the data gate again"
        )
    case = Case.mapped(file.path)
    return OpenCase(
        file=file,
        shape_zyx=case.grid.shape_zyx,
        spacing_mm=case.grid.spacing_mm,
        origin_mm=case.grid.origin_mm,
        structure_names=case.structure_names,
        present=tuple(bool(there) for there in case.present),
        prescription_gy=dict(case.prescription_gy),
        n_fractions=case.n_fractions,
        place=find_place(case),
        physics=None if file.physics is None else open_physics(file.physics, file.case_id, file.sha256),
    )


@dataclass(frozen=True)
class InputSpec:
    """What a network's channels and conditions are; part of its checkpoint.

    Parameters
    ----------
    target_names
        Those that have a prescription, in the order of their conditions.
    told
        Whether the last channel is the dose that boosted trees have told.
    """

    structure_names: tuple[str, ...]
    target_names: tuple[str, ...]
    recipe: InputRecipe
    told: bool = False

    @property
    def first_structure(self) -> int:
        """Index of the first structure's channel."""
        return self.first_offset + (len(SPACING_AXES) if self.recipe.place == "targets" else 0)

    @property
    def first_offset(self) -> int:
        """Index of the first channel of the offsets from the targets, if there are any."""
        return PRESCRIBED_CHANNEL + 1 if self.recipe.prescription == "numbers_and_map" else PRESCRIBED_CHANNEL

    @property
    def n_channels(self) -> int:
        """How many channels the network sees."""
        return self.first_told + int(self.told)

    @property
    def first_told(self) -> int:
        """Index of the channel of the told dose, if there is one."""
        return self.first_physics + len(self.recipe.physics)

    @property
    def first_physics(self) -> int:
        """Index of the first physics map's channel, if there are any."""
        return self.first_structure + len(self.structure_names)

    @property
    def n_conditions(self) -> int:
        """How many numbers describe a case besides its channels."""
        prescribed = 0 if self.recipe.prescription == "none" else len(self.target_names) + 1
        return len(self.structure_names) + prescribed + len(SPACING_AXES)

    @property
    def prescribed(self) -> slice:
        """Which conditions are the prescribed doses, one a target; none where the recipe hides them."""
        n_structures = len(self.structure_names)
        n_prescribed = 0 if self.recipe.prescription == "none" else len(self.target_names)
        return slice(n_structures, n_structures + n_prescribed)

    def mirrored_orders(self, mirrored_names: Mapping[str, str]) -> tuple[list[int], list[int]]:
        """Return the order of channels and of conditions that goes with mirroring x: left and right change places.

        Raises
        ------
        BadInput
            If a pair is there by half, or a structure with a side in its name has no pair.
        """
        structures = sided_order(self.structure_names, mirrored_names)
        first = self.first_structure
        channels = [*range(first), *(first + index for index in structures)]
        channels += range(self.first_physics, self.n_channels)
        n_structures, n_targets = len(self.structure_names), len(self.target_names)
        conditions = list(structures)
        if self.recipe.prescription != "none":
            conditions += [n_structures + index for index in _swapped(self.target_names, mirrored_names)]
            conditions += [n_structures + n_targets]
        return channels, conditions + list(range(len(conditions), self.n_conditions))


SPACING_AXES = ("z", "y", "x")


def _swapped(names: tuple[str, ...], mirrored_names: Mapping[str, str]) -> list[int]:
    partner = dict(mirrored_names) | {right: left for left, right in mirrored_names.items()}
    return [names.index(partner[n]) if partner.get(n) in names else i for i, n in enumerate(names)]


def sided_order(names: tuple[str, ...], mirrored_names: Mapping[str, str]) -> list[int]:
    """Return the order of structures that goes with mirroring x: left and right change places.

    Raises
    ------
    BadInput
        If a pair is there by half, or a structure with a side in its name has no pair.
    """
    partner = dict(mirrored_names) | {right: left for left, right in mirrored_names.items()}
    for name in names:
        if name in partner and partner[name] not in names:
            raise BadInput(f"mirrored_names pairs {name} with {partner[name]}, which the cases do not have")
        if name not in partner and SIDED_NAME.search(name):
            raise BadInput(
                f"structure {name} seems to have a side, but no partner in sampling.mirrored_names; name it there, "
                "or set mirror_share to 0 and don't mirror in prediction"
            )
    return _swapped(names, mirrored_names)


def spec_of(cases: list[OpenCase], recipe: InputRecipe) -> InputSpec:
    """Return the channels and conditions that fit all of these cases.

    Raises
    ------
    BadInput
        If their structures differ, or none has a prescription: naming the first case that differs.
    """
    names = refuse_other_structures(cases)
    prescribed = {name for case in cases for name in case.prescription_gy}
    if not prescribed:
        raise BadInput(f"none of {len(cases)} cases has a prescription; a dose model needs a protocol with one")
    told = all(case.told is not None for case in cases)
    return InputSpec(names, tuple(n for n in names if n in prescribed), recipe, told)


def with_targets_of(spec: InputSpec, files: Sequence[CaseFile]) -> InputSpec:
    """Return the same with every target that a case of these files has a prescription for; their heads alone are read.

    Raises
    ------
    BadCase
        If one breaks the NPZ contract.
    """
    there = [Case.mapped(file.path).prescription_gy for file in files if file.path.is_file()]
    prescribed = {*spec.target_names}.union(*there)
    return replace(spec, target_names=tuple(name for name in spec.structure_names if name in prescribed))


def refuse_other_structures(cases: list[OpenCase]) -> tuple[str, ...]:
    """Return the structures of some cases.

    Raises
    ------
    BadInput
        If they differ: naming the first case that does.
    """
    first = cases[0]
    for case in cases[1:]:
        if case.structure_names != first.structure_names:
            raise BadInput(
                f"{case.case_id} has the structures {', '.join(case.structure_names)}, but {first.case_id} has "
                f"{', '.join(first.structure_names)}; ingest all cases with one protocol"
            )
    return first.structure_names


def spacing_range(cases: Sequence[OpenCase]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the least and the largest voxel spacing (z, y, x) of some cases in mm."""
    spacings = [case.spacing_mm for case in cases]
    least, most = (tuple(pick(axis) for axis in zip(*spacings, strict=True)) for pick in (min, max))
    return least, most


def beams_of(cases: Sequence[OpenCase]) -> dict[str, Any] | None:
    """Return the beams that the physics maps of all these cases were made of; None where they have none.

    Raises
    ------
    BadInput
        If they differ: naming the first case that does.
    """
    first, *others = (None if case.physics is None else case.physics.beams for case in cases)
    for case, beams in zip(cases[1:], others, strict=True):
        if beams != first:
            raise BadInput(
                f"{case.case_id}: its physics maps were made of other beams than those of {cases[0].case_id}; run "
                "`doseledger physics`, which makes all with the protocol's"
            )
    return first


def check_fits(case: OpenCase, spec: InputSpec) -> None:
    """Refuse a case that a network of this spec was not made for.

    Raises
    ------
    BadCase
        If its structures differ or it prescribes a dose to a target that the network does not know.
    """
    if case.structure_names != spec.structure_names:
        raise BadCase(
            case.case_id,
            f"has the structures {', '.join(case.structure_names)}; the model was trained on "
            f"{', '.join(spec.structure_names)}; ingest it with the model's protocol",
        )
    strangers = sorted(set(case.prescription_gy) - set(spec.target_names))
    if strangers:
        raise BadCase(
            case.case_id,
            f"prescribes a dose to {', '.join(strangers)}; the model was trained on {', '.join(spec.target_names)}",
        )


def condition_vector(case: OpenCase, spec: InputSpec) -> Singles:
    """Return what describes the case besides its channels: presence, prescription, fractions, spacing; about 0 to 2."""
    values = [float(there) for there in case.present]
    if spec.recipe.prescription != "none":
        values += [case.prescription_gy.get(n, 0.0) / spec.recipe.dose_scale_gy for n in spec.target_names]
        values += [(case.n_fractions or 0) / FRACTIONS_SCALE]
    values += [spacing / SPACING_SCALE_MM for spacing in case.spacing_mm]
    return np.asarray(values, dtype=np.float32)


def whole_box(case: OpenCase, least_zyx: IntTriple) -> Window:
    """Return the box (start, shape) of the whole case, widened evenly to at least the given size."""
    shape = tuple(max(n, least) for n, least in zip(case.shape_zyx, least_zyx, strict=True))
    start = tuple(-((wide - n) // 2) for n, wide in zip(case.shape_zyx, shape, strict=True))
    return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])


def counted_box(case: OpenCase, strides_zyx: IntTriple) -> Window:
    """Return the box of a case's voxels whose dose counts, with a margin as far as the case has one.

    It is widened evenly to multiples of the strides, at least `LEAST_COARSEST` of them; what it then holds of the case
    beyond the margin is the case's own.

    Raises
    ------
    BadCase
        If no voxel counts.
    """
    counted = map_member(case.file.path, "valid_dose") > 0
    if not counted.any():
        raise BadCase(case.case_id, "valid_dose has no voxel, so no dose of it counts; ingest it again")
    start, shape = [], []
    for axis, stride in enumerate(strides_zyx):
        along = np.flatnonzero(counted.any(axis=tuple({0, 1, 2} - {axis})))
        first = max(int(along[0]) - COUNTED_MARGIN, 0)
        stop = min(int(along[-1]) + 1 + COUNTED_MARGIN, counted.shape[axis])
        size = max(-(-(stop - first) // stride), LEAST_COARSEST) * stride
        start.append(first - (size - (stop - first)) // 2)
        shape.append(size)
    return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])


def read_box(case: OpenCase, member: str, box: Window, outside: float) -> NDArray[Any]:
    """Return a box (…, z, y, x) of one member of the NPZ; voxels beyond the case hold `outside`."""
    return cut_box(map_member(case.file.path, member), box, outside)


def cut_box(array: NDArray[Any], box: Window, outside: float) -> NDArray[Any]:
    """Return a box (…, z, y, x) of an array; what lies beyond it holds `outside`."""
    inside: list[slice] = []
    target: list[slice] = []
    for start, size, n in zip(*box, array.shape[-3:], strict=True):
        low, high = max(start, 0), min(start + size, n)
        inside.append(slice(low, max(high, low)))
        target.append(slice(low - start, max(high, low) - start))
    source: tuple[Any, ...] = (..., *inside)
    place: tuple[Any, ...] = (..., *target)
    if all(part.stop - part.start == size for part, size in zip(inside, box[1], strict=True)):
        return np.asarray(array[source])
    result = np.full((*array.shape[:-3], *box[1]), outside, dtype=array.dtype)
    result[place] = array[source]
    return result


def read_channels(case: OpenCase, spec: InputSpec, box: Window) -> Singles:
    """Return the network's channels (channel, z, y, x) of a box; beyond the case there is air and no structure.

    Notes
    -----
    Signed distances are divided by `sdf_scale_mm` and clipped to [-1, 1]: an absent structure is +1 everywhere, as far
    away as can be said, and its presence condition is 0.
    """
    recipe = spec.recipe
    channels = np.empty((spec.n_channels, *box[1]), dtype=np.float32)
    ct_hu = read_box(case, "ct_hu", box, AIR_HU)
    channels[0] = np.clip(ct_hu, *CT_RANGE_HU) / CT_SCALE_HU
    channels[1] = read_box(case, "valid_dose", box, 0)
    if recipe.prescription == "numbers_and_map":
        masks = read_box(case, "masks", box, 0)
        prescribed = np.zeros(box[1], dtype=np.float32)
        for name, dose_gy in case.prescription_gy.items():
            inside = masks[spec.structure_names.index(name)] > 0
            prescribed[inside] = np.maximum(prescribed[inside], dose_gy / recipe.dose_scale_gy)
        channels[PRESCRIBED_CHANNEL] = prescribed
    if recipe.place == "targets":
        for axis, offset in enumerate(read_offsets(case, box)):
            channels[spec.first_offset + axis] = offset
    structures = channels[spec.first_structure : spec.first_physics]
    if recipe.structures == "sdf":
        structures[...] = read_box(case, "sdf_mm", box, np.inf)
        structures /= recipe.sdf_scale_mm
        np.clip(structures, -1.0, 1.0, out=structures)
    else:
        structures[...] = read_box(case, "masks", box, 0)
    for channel, name in zip(channels[spec.first_physics : spec.first_told], recipe.physics, strict=True):
        channel[...] = read_map(case, name, box)
        channel /= recipe.dose_scale_gy
    if spec.told:
        channels[spec.first_told] = read_told(case, box) / np.float32(recipe.dose_scale_gy)
    return channels


def read_map(case: OpenCase, name: str, box: Window) -> Singles:
    """Return a physics map in Gy (z, y, x) of a box, 0 beyond the case.

    Raises
    ------
    NotReady
        If the case has no maps, or none of that name.
    """
    if case.physics is None or name not in case.physics.names:
        found = "none" if case.physics is None else ", ".join(case.physics.names)
        raise NotReady(
            f"{case.case_id}: the model's inputs.physics asks for the map {name}, there are {found}; name it in "
            "beams.maps of the protocol and run `doseledger physics`, or take it out of inputs.physics"
        )
    return cut_box(map_member(case.physics.path, name), box, 0) * np.float32(MAP_STEP_GY)


def read_told(case: OpenCase, box: Window) -> Singles:
    """Return the dose that trees have told of a case in Gy (z, y, x) of a box, 0 beyond the case.

    Raises
    ------
    NotReady
        If they were not asked.
    """
    if case.told is None:
        raise NotReady(f"{case.case_id}: the model stands on boosted trees, which were not asked for its dose")
    return cut_box(case.told, box, 0) * np.float32(TOLD_STEP_GY)


def read_offsets(case: OpenCase, box: Window) -> list[Singles]:
    """Return where a box's voxels lie about the targets, along z, y and x, each to be broadcast to it.

    In units of `OFFSET_SCALE_MM`: along z between and beyond the targets' ends, along y and x from the main one's
    centre; along x without sign, so that a mirrored patient has the mirrored offsets.

    Raises
    ------
    BadCase
        If no target is there.
    """
    if case.place is None:
        targets = ", ".join(case.prescription_gy)
        raise BadCase(case.case_id, f"none of the targets {targets} is there to place a dose about")
    z, y, x = (start + np.arange(size) for start, size in zip(*box, strict=True))
    (y_mm, x_mm), (centre_y, centre_x) = case.spacing_mm[1:], case.place.centre_yx
    along = case.place.along_mm(z, case.spacing_mm[0]), (y - centre_y) * y_mm, np.abs(x - centre_x) * x_mm
    shapes = (-1, 1, 1), (1, -1, 1), (1, 1, -1)
    return [
        (offset / OFFSET_SCALE_MM).astype(np.float32).reshape(shape)
        for offset, shape in zip(along, shapes, strict=True)
    ]


def defined_voxels(case: OpenCase) -> NDArray[np.bool_]:
    """Return where a dose is defined (z, y, x): in the body, and where the case says so."""
    path = case.file.path
    defined: NDArray[np.bool_] = (map_member(path, "valid_dose") > 0) & (map_member(path, "body") > 0)
    return defined


def read_dose(case: OpenCase, box: Window) -> Singles:
    """Return the plan's dose in Gy (z, y, x) of a box, 0 beyond the case.

    Raises
    ------
    BadCase
        If the case has no dose.
    """
    return read_box(case, "dose_gy", box, 0.0).astype(np.float32)
