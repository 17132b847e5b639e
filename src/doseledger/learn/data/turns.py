"""Samples turned about the beams' axis, and mirrored along it.

Coplanar beams at equal angles are the same after a turn by the angle between two of them, and after mirroring z: a
patient so moved has the plan so moved. Turned are finished channels, by cubic interpolation in the plane, about the
centre of what is seen; none may say where a voxel lies (`place: none`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import grid_sample

from doseledger.core.case import map_member
from doseledger.core.errors import BadInput
from doseledger.core.types import Array, IntTriple, Singles
from doseledger.learn.data.inputs import COUNTED_MARGIN, InputSpec, OpenCase, Window

# Voxels on either side that cubic interpolation takes in.
REACH = 2
# Beams lie at equal angles when no angle between neighbours is further from it, in degrees.
EQUAL_DEG = 1e-3
MASKS = ("valid_dose", "body", "masks")
BODY_CHANNEL = 1


def turn_step(gantry_deg: Sequence[float]) -> float:
    """Return the angle in degrees between neighbours of beams at equal angles.

    Raises
    ------
    BadInput
        If the angles are not equal, so that turned beams are others.

    Examples
    --------
    >>> turn_step([0.0, 120.0, 240.0])
    120.0
    """
    angles = np.sort(np.mod(gantry_deg, 360.0))
    step = 360.0 / len(angles)
    if np.abs(np.diff(angles, append=angles[0] + 360.0) - step).max() > EQUAL_DEG:
        raise BadInput(
            f"beams.gantry_deg {list(gantry_deg)} are not at equal angles, so a turned patient has other beams; set "
            "sampling.turn_share to 0 and don't average over turns in prediction"
        )
    return step


def same_centre(box: Window, shape_zyx: IntTriple) -> Window:
    """Return the box of a shape about the centre of another; sizes are to differ by even numbers."""
    start = tuple(a + (old - new) // 2 for a, old, new in zip(*box, shape_zyx, strict=True))
    return (start[0], start[1], start[2]), shape_zyx


def turned_shape(case: OpenCase, box: Window, degrees: float, least: IntTriple, steps: IntTriple) -> IntTriple:
    """Return the shape of what is seen of a turned case: all voxels whose dose counts, and a margin.

    Parameters
    ----------
    box
        What is seen of the case as it is; it is turned about the centre of that.
    least, steps
        Voxels along each axis that are seen at least, and of which sizes are multiples.
    """
    counted = np.argwhere((map_member(case.file.path, "valid_dose") > 0).any(axis=0))
    spacing_yx = case.spacing_mm[1:]
    middle = np.array(box[0][1:]) + (np.array(box[1][1:]) - 1) / 2
    y_mm, x_mm = ((counted - middle) * spacing_yx).T
    sizes = [box[1][0]]
    for axis, (along, mm) in enumerate(zip(_turned(y_mm, x_mm, degrees), spacing_yx, strict=True), start=1):
        # Less a trifle, that a quarter turn needs no voxel more for its rounding.
        wanted = 2 * (float(np.abs(along).max()) / mm + COUNTED_MARGIN) + 1 - 1e-6
        size = max(math.ceil(wanted / steps[axis]) * steps[axis], least[axis])
        # The centre stays on the case's own half voxels.
        sizes.append(size + steps[axis] * ((size - box[1][axis]) % 2))
    return sizes[0], sizes[1], sizes[2]


def source_box(case: OpenCase, box: Window, degrees: float) -> Window:
    """Return the box to be read, about the same centre, so that a turn fills all of another one."""
    spacing_yx, sizes = case.spacing_mm[1:], box[1][1:]
    half = [np.array([size * mm / 2.0]) for size, mm in zip(sizes, spacing_yx, strict=True)]
    corners = [_turned(half[0], sign * half[1], degrees) for sign in (-1.0, 1.0)]
    shape = [box[1][0]]
    for axis, (size, mm) in enumerate(zip(sizes, spacing_yx, strict=True)):
        reach = max(float(np.abs(corner[axis]).max()) for corner in corners) / mm + REACH
        shape.append(size + 2 * math.ceil(reach - size / 2.0))
    return same_centre(box, (shape[0], shape[1], shape[2]))


def turn_volume(volume: Singles, degrees: float, spacing_yx: tuple[float, float], shape_yx: tuple[int, int]) -> Singles:
    """Return volumes (n, z, y, x) turned from +x towards +y about their centre, on (n, z, *shape_yx) voxels."""
    n, z, y, x = volume.shape
    rows, columns = (np.arange(size) - (size - 1) / 2 for size in shape_yx)
    at_y, at_x = _turned(rows[:, None] * spacing_yx[0], columns[None] * spacing_yx[1], -degrees)
    # From -1 at the first voxel's edge to 1 at the last one's, x first.
    place = np.stack([at_x / spacing_yx[1] * 2.0 / x, at_y / spacing_yx[0] * 2.0 / y], axis=-1)
    planes = torch.from_numpy(np.ascontiguousarray(volume.reshape(1, n * z, y, x)))
    grid = torch.from_numpy(place[None].astype(np.float32))
    turned = grid_sample(planes, grid, mode="bicubic", padding_mode="border", align_corners=False)
    result: Singles = turned.reshape(n, z, *shape_yx).numpy()
    return result


def turn_inputs(
    image: Singles, spec: InputSpec, degrees: float, spacing_yx: tuple[float, float], shape_yx: tuple[int, int]
) -> Singles:
    """Return a network's channels (channel, z, y, x) of a patient turned from +x towards +y."""
    turned = turn_volume(image, degrees, spacing_yx, shape_yx)
    structures = slice(spec.first_structure, spec.first_physics)
    turned[BODY_CHANNEL] = turned[BODY_CHANNEL] > 0.5
    if spec.recipe.structures == "sdf":
        turned[structures] = np.clip(turned[structures], -1.0, 1.0)
    else:
        turned[structures] = turned[structures] > 0.5
    # Between a high dose and none cubic interpolation swings below 0.
    turned[spec.first_physics :] = np.maximum(turned[spec.first_physics :], 0.0)
    return turned


def turn_sample(sample: dict[str, Any], spec: InputSpec, degrees: float, shape_yx: tuple[int, int]) -> dict[str, Any]:
    """Return a sample of training as of a patient turned from +x towards +y, the dose with the channels."""
    mm = float(sample["spacing_mm"][1]), float(sample["spacing_mm"][2])
    image = turn_inputs(sample["image"], spec, degrees, mm, shape_yx)
    counted = [sample["dose"] * sample["valid_dose"], sample["dose"]]
    stacked = np.concatenate([*counted, *(sample[name].astype(np.float32) for name in MASKS)])
    (inside, dose, valid), (body, *masks) = np.split(turn_volume(stacked, degrees, mm, shape_yx), [3])
    # Of voxels that count alone: beyond them there may be none, and a dose that falls there to 0 at once.
    dose = np.where(valid > 0.5, inside / np.maximum(valid, np.float32(0.5)), dose)
    moved = {"dose": np.maximum(dose, 0.0)[None], "valid_dose": valid[None] > 0.5, "body": body[None] > 0.5}
    return {**sample, **moved, "image": image, "masks": np.stack(masks) > 0.5}


def mirror_z_image(image: Singles, spec: InputSpec) -> Singles:
    """Return channels (channel, z, y, x) of a patient mirrored head to feet; the place along z changes its sign."""
    mirrored = image[:, ::-1]
    if spec.recipe.place == "targets":
        mirrored = mirrored.copy()
        mirrored[spec.first_offset] *= np.float32(-1.0)
    return mirrored


def mirror_z(sample: dict[str, Any], spec: InputSpec) -> dict[str, Any]:
    """Return the whole sample as of a patient mirrored head to feet."""
    volumes = {name: sample[name][:, ::-1] for name in ("dose", *MASKS)}
    return {**sample, "image": mirror_z_image(sample["image"], spec), **volumes}


def _turned(y: Array, x: Array, degrees: float) -> tuple[Array, Array]:
    """Where points (y, x) are after a turn from +x towards +y."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return y * cosine + x * sine, x * cosine - y * sine
