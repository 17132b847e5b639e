"""Images and label maps of cases as tensors: patches drawn and varied.

As with doses, all randomness of a patch comes from the training seed and the patch's key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from doseledger.core.case import map_member
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.types import Array, Mask
from doseledger.learn.data.inputs import OpenCase, Window, read_box, refuse_other_structures, sided_order
from doseledger.learn.data.patches import Key, Sample, as_tensors, box_about, thinned
from doseledger.learn.data.variation import make_variation
from doseledger.learn.recipes.segmentation import AXES, ForegroundRecipe, ImageRecipe, TrainedSegmentation

# 1000 HU, and the whole range of an MR image, are one unit of what the network is given; it measures the rest itself.
STORED_SCALE = 1000.0


@dataclass(frozen=True)
class SegmentSpec:
    """What a segmentation network is given and says; part of its checkpoint.

    Parameters
    ----------
    structure_names
        What it says, in the order of its channels after the background's.
    recipe
        How the image is given.
    """

    structure_names: tuple[str, ...]
    recipe: ImageRecipe

    # What a dose network has besides.
    target_names: tuple[str, ...] = ()
    n_channels: int = 1
    n_conditions: int = 0

    def mirrored_order(self, mirrored_names: Mapping[str, str]) -> list[int]:
        """Return which class each class becomes when x is mirrored, the background's 0 first.

        Raises
        ------
        BadInput
            If a pair is there by half, or a structure with a side in its name has no pair.
        """
        return [0, *(1 + index for index in sided_order(self.structure_names, mirrored_names))]


def spec_of(cases: list[OpenCase], recipe: ImageRecipe) -> SegmentSpec:
    """Return what a network of these cases is given and says.

    Raises
    ------
    BadInput
        If their structures differ, or lack one that the recipe names.
    """
    names = refuse_other_structures(cases)
    wanted = names if recipe.structures == "all" else tuple(recipe.structures)
    strangers = [name for name in wanted if name not in names]
    if strangers:
        raise BadInput(f"inputs.structures: the cases have no {', '.join(strangers)}; they have {', '.join(names)}")
    return SegmentSpec(wanted, recipe)


def read_labels(case: OpenCase, spec: SegmentSpec, box: Window) -> Array:
    """Return the label map (1, z, y, x) of a box, uint8: 0 background, then the spec's structures from 1 on.

    Raises
    ------
    BadCase
        If two structures share voxels: a network that says one of them a voxel can't learn both.
    """
    order = [case.structure_names.index(name) for name in spec.structure_names]
    masks = read_box(case, "masks", box, 0)[order] > 0
    _refuse_overlap(case.case_id, spec.structure_names, masks)
    labels = np.zeros(box[1], dtype=np.uint8)
    for value, mask in enumerate(masks, start=1):
        labels[mask] = value
    return labels[None]


def _refuse_overlap(case_id: str, names: tuple[str, ...], masks: Mask) -> None:
    twice = masks.sum(axis=0) > 1
    if twice.any():
        inside = [name for name, mask in zip(names, masks, strict=True) if mask[twice].any()]
        raise BadCase(
            case_id,
            f"{', '.join(inside)} share {int(twice.sum())} voxels; a segmentation says one structure a voxel: name "
            "those that don't overlap under inputs.structures",
        )


def read_image(case: OpenCase, spec: SegmentSpec, box: Window) -> Array:
    """Return the image (1, z, y, x) of a box, clipped to the recipe's window, in units of `STORED_SCALE`."""
    low, high = spec.recipe.window
    stored = read_box(case, "ct_hu", box, int(np.clip(low, -32768, 32767)))
    return (np.clip(stored, low, high)[None] / STORED_SCALE).astype(np.float32)


def read_sample(case: OpenCase, spec: SegmentSpec, box: Window) -> Sample:
    """Return image and label map of a box, and whose they are."""
    return {"image": read_image(case, spec, box), "label": read_labels(case, spec, box), "case_id": case.case_id}


def flip_sample(sample: Sample, axes: Sequence[str], order: Sequence[int]) -> Sample:
    """Return image and label mirrored along axes; along x structures with a side change places."""
    dims = tuple(1 + AXES.index(axis) for axis in axes)
    label = sample["label"]
    if "x" in axes:
        label = np.asarray(order, dtype=np.uint8)[label]
    return {**sample, "image": np.flip(sample["image"], dims), "label": np.flip(label, dims)}


class SegmentPatches(Dataset[Sample]):
    """Patches of the training cases, each by its key."""

    def __init__(self, cases: Sequence[OpenCase], spec: SegmentSpec, recipe: TrainedSegmentation, seed: int) -> None:
        self.cases, self.spec, self.sampling, self.seed = list(cases), spec, recipe.sampling, seed
        self.centres = [_find_centres(case, spec) for case in self.cases]
        self.order = spec.mirrored_order(self.sampling.mirrored_names) if self.sampling.mirror_share else [0]
        low, high = spec.recipe.window
        self.vary = make_variation(self.sampling.variation, spread=(high - low) / STORED_SCALE)

    def __getitem__(self, key: Key) -> Sample:
        case = self.cases[key[2]]
        rng = np.random.default_rng([self.seed, *key])
        sample = read_sample(case, self.spec, _draw_box(case, self.centres[key[2]], self.sampling, rng))
        if rng.random() < self.sampling.mirror_share:
            sample = flip_sample(sample, "x", self.order)
        return self.vary(as_tensors(sample), int(rng.integers(2**32)))


def _find_centres(case: OpenCase, spec: SegmentSpec) -> list[Array]:
    """Voxels (n, 3) at which patches may be centred: anywhere in the image, then in each structure that is there."""
    body = np.argwhere(np.asarray(map_member(case.file.path, "body")) > 0)
    if not len(body):
        raise BadCase(case.case_id, "body has no voxel, so there is no image to learn from; ingest it again")
    masks = map_member(case.file.path, "masks")
    order = [case.structure_names.index(name) for name in spec.structure_names]
    _refuse_overlap(case.case_id, spec.structure_names, np.asarray(masks)[order] > 0)
    inside = [thinned(np.argwhere(masks[index])) for index in order]
    return [thinned(body), *(voxels for voxels in inside if len(voxels))]


def _draw_box(case: OpenCase, centres: list[Array], sampling: ForegroundRecipe, rng: np.random.Generator) -> Window:
    if sampling.patch_zyx == "case":
        raise BadInput("patches of images have a size")
    body, *structures = centres
    draw, which = rng.random(), rng.random()
    among = structures[int(which * len(structures))] if structures and draw < sampling.foreground_share else body
    return box_about(among[rng.integers(len(among))], sampling.patch_zyx, case.shape_zyx)
