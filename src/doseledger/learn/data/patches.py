"""Patches of cases as tensors: drawn, varied, loaded.

Every patch has a key (epoch, position, case); all its randomness comes from a generator seeded with the training seed
and that key. So a patch depends neither on the worker that makes it nor on what was drawn before, and a resumed run
sees the patches of an unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from doseledger.core.case import map_member
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import IntTriple
from doseledger.learn.data.core_dropout import drop_core
from doseledger.learn.data.inputs import (
    CT_SCALE_HU,
    LEAST_COARSEST,
    PRESCRIBED_CHANNEL,
    InputSpec,
    OpenCase,
    Window,
    beams_of,
    condition_vector,
    counted_box,
    read_box,
    read_channels,
    read_dose,
    whole_box,
)
from doseledger.learn.data.turns import mirror_z, same_centre, source_box, turn_sample, turn_step, turned_shape
from doseledger.learn.recipes.dose import CommonRecipe, CommonTrained, DoseTrained, LoaderRecipe, SamplingRecipe

Key = tuple[int, int, int]
Sample = dict[str, Any]

# Centres to choose among, of each sort and case: enough that no two patches of a run need be alike.
CENTRES_KEPT = 4096
# A voxel is steep when its gradient is among the largest tenth of the case.
STEEP_PERCENTILE = 90.0


@dataclass(frozen=True)
class Centres:
    """Voxels (n, 3) of a case at which a patch may be centred: in a target, on a steep dose, anywhere in the body."""

    target: NDArray[np.int32]
    steep: NDArray[np.int32]
    body: NDArray[np.int32]


def find_centres(case: OpenCase, spec: InputSpec) -> Centres:
    """Return where patches of a case may be centred; each kind is thinned evenly to a fixed number of voxels."""
    valid = np.asarray(map_member(case.file.path, "valid_dose"), dtype=np.bool_)
    if not valid.any():
        raise BadCase(case.case_id, "valid_dose has no voxel, so no patch of it has a dose to learn; ingest it again")
    dose_gy = map_member(case.file.path, "dose_gy")
    masks = map_member(case.file.path, "masks")
    targets = [spec.structure_names.index(name) for name in spec.target_names]
    body = thinned(np.argwhere(valid))
    in_target = thinned(np.argwhere(masks[targets].any(axis=0)))
    slopes = np.gradient(np.asarray(dose_gy), *case.spacing_mm)
    gradient = np.sqrt(sum(np.square(slope) for slope in slopes))
    steep = thinned(np.argwhere(valid & (gradient > np.percentile(gradient[valid], STEEP_PERCENTILE))))
    return Centres(in_target if len(in_target) else body, steep if len(steep) else body, body)


def thinned(voxels: NDArray[np.intp]) -> NDArray[np.int32]:
    """Return at most `CENTRES_KEPT` of some voxels (n, 3), spread evenly over them."""
    if len(voxels) > CENTRES_KEPT:
        voxels = voxels[np.linspace(0, len(voxels) - 1, CENTRES_KEPT).astype(np.intp)]
    return voxels.astype(np.int32)


def sample_box(case: OpenCase, centres: Centres, sampling: SamplingRecipe, rng: np.random.Generator) -> Window:
    """Return the box (start, shape) of a patch: moved into the case where it fits, centred on it where it doesn't."""
    if sampling.patch_zyx == "case":
        raise BadInput("patch_zyx: case has no patches to draw; see `seen_box`")
    draw = rng.random()
    if draw < sampling.target_share:
        among = centres.target
    elif draw < sampling.target_share + sampling.gradient_share:
        among = centres.steep
    else:
        among = centres.body
    return box_about(among[rng.integers(len(among))], sampling.patch_zyx, case.shape_zyx)


def box_about(centre: NDArray[np.int32], patch_zyx: IntTriple, shape_zyx: IntTriple) -> Window:
    """Return the box (start, shape) about a voxel: moved into the case where it fits, centred on it where not."""
    start = []
    for middle, size, n in zip(centre, patch_zyx, shape_zyx, strict=True):
        start.append(-((size - n) // 2) if size >= n else int(np.clip(int(middle) - size // 2, 0, n - size)))
    return (start[0], start[1], start[2]), patch_zyx


def seen_box(case: OpenCase, recipe: CommonTrained) -> Window:
    """Return the box (start, shape) of a whole case that a network sees: what counts of it, or at least a patch."""
    patch_zyx = recipe.sampling.patch_zyx
    return counted_box(case, recipe.network.total_stride_zyx) if patch_zyx == "case" else whole_box(case, patch_zyx)


def turned_box(case: OpenCase, recipe: CommonTrained, degrees: float) -> Window:
    """Return the box (start, shape), about the centre of `seen_box`, that a network sees of a turned case."""
    box, least, steps = seen_box(case, recipe), recipe.sampling.patch_zyx, (1, 1, 1)
    if least == "case":
        steps = recipe.network.total_stride_zyx
        least = (LEAST_COARSEST * steps[0], LEAST_COARSEST * steps[1], LEAST_COARSEST * steps[2])
    return same_centre(box, turned_shape(case, box, degrees, least, steps))


def read_inputs(case: OpenCase, spec: InputSpec, box: Window) -> Sample:
    """Return what the network sees of a box: image (C, z, y, x) and condition (K,)."""
    return {"image": read_channels(case, spec, box), "condition": condition_vector(case, spec)}


def read_sample(case: OpenCase, spec: InputSpec, box: Window) -> Sample:
    """Return the inputs of a box, its dose (1, z, y, x) in units of the dose scale, and the masks of the loss.

    `valid_dose`, `body` are (1, z, y, x) and `masks` (structure, z, y, x), bool; all are False beyond the case.
    """
    return {
        **read_inputs(case, spec, box),
        "dose": read_dose(case, box)[None] / np.float32(spec.recipe.dose_scale_gy),
        "valid_dose": read_box(case, "valid_dose", box, 0)[None] > 0,
        "body": read_box(case, "body", box, 0)[None] > 0,
        "masks": read_box(case, "masks", box, 0) > 0,
        "spacing_mm": np.asarray(case.spacing_mm, dtype=np.float32),
        "case_id": case.case_id,
    }


def mirror_inputs(sample: Sample, orders: tuple[list[int], list[int]]) -> Sample:
    """Return image and condition as of a patient mirrored left to right; paired structures change places."""
    channels, conditions = orders
    return {"image": sample["image"][channels][..., ::-1], "condition": sample["condition"][conditions]}


def mirror_x(sample: Sample, orders: tuple[list[int], list[int]], spec: InputSpec) -> Sample:
    """Return the whole sample as of a patient mirrored left to right."""
    structures = [index - spec.first_structure for index in orders[0][spec.first_structure : spec.first_physics]]
    reversed_x = {name: sample[name][..., ::-1] for name in ("dose", "valid_dose", "body")}
    masks = sample["masks"][structures][..., ::-1]
    return {**sample, **mirror_inputs(sample, orders), **reversed_x, "masks": masks}


def as_tensors(sample: Sample) -> Sample:
    """Return the sample with its arrays as tensors."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        for name, value in sample.items()
    }


def prescribe_anew(sample: Sample, spec: InputSpec, factor: float) -> None:
    """Multiply the sample's prescriptions and its dose by one factor, in place: so many more monitor units."""
    sample["dose"] *= np.float32(factor)
    sample["condition"][spec.prescribed] *= np.float32(factor)
    if spec.recipe.prescription == "numbers_and_map":
        sample["image"][PRESCRIBED_CHANNEL] *= np.float32(factor)
    sample["image"][spec.first_physics :] *= np.float32(factor)


def step_of(cases: Sequence[OpenCase]) -> float:
    """Return the angle in degrees by which a cohort's beams may be turned.

    Raises
    ------
    BadInput
        If the cases know no beams, or those are not at equal angles.
    """
    beams = beams_of(cases)
    if beams is None:
        raise BadInput("turns ask for the beams, which cases know by their physics maps; name some in inputs.physics")
    return turn_step(beams["gantry_deg"])


class PatchDataset(Dataset[Sample]):
    """Patches of the training cases, each by its key."""

    def __init__(self, cases: Sequence[OpenCase], spec: InputSpec, recipe: DoseTrained, seed: int) -> None:
        self.cases, self.spec, self.sampling, self.seed = list(cases), spec, recipe.sampling, seed
        self.recipe, self.step_deg = recipe, step_of(cases) if recipe.sampling.turn_share else 0.0
        whole = recipe.sampling.patch_zyx == "case"
        self.boxes = [seen_box(case, recipe) for case in self.cases] if whole else []
        self.centres = [] if whole else [find_centres(case, spec) for case in self.cases]
        self.orders = spec.mirrored_orders(self.sampling.mirrored_names) if self.sampling.mirror_share else None

    def __getitem__(self, key: Key) -> Sample:
        case = self.cases[key[2]]
        rng = np.random.default_rng([self.seed, *key])
        box, turn_deg, mirrors_z = self._box(key[2], rng), *self._draw_symmetry(key)
        if turn_deg:
            box = turned_box(case, self.recipe, turn_deg) if self.boxes else box
        source = source_box(case, box, turn_deg) if turn_deg else box
        sample = read_sample(case, self.spec, source)
        # Both numbers are drawn in any case, so that switching one variation off leaves the other as it was.
        shift_hu, mirror = self.sampling.ct_shift_hu * rng.standard_normal(), rng.random() < self.sampling.mirror_share
        # After the draws above, so that they are the same with and without it.
        dropout, spacing_mm = self.sampling.core_dropout, case.spacing_mm
        drop_core(sample["image"][0], sample["masks"], sample["body"][0], spacing_mm, dropout, rng)
        sample["image"][0] += np.float32(shift_hu / CT_SCALE_HU)
        prescribe_anew(sample, self.spec, 1.0 + self.sampling.prescription_jitter * rng.uniform(-1.0, 1.0))
        if mirror and self.orders is not None:
            sample = mirror_x(sample, self.orders, self.spec)
        if turn_deg:
            sample = turn_sample(sample, self.spec, turn_deg, box[1][1:])
        return as_tensors(mirror_z(sample, self.spec) if mirrors_z else sample)

    def _draw_symmetry(self, key: Key) -> tuple[float, bool]:
        """Angle to turn by, 0 for none, and whether z is mirrored; of numbers of their own, so that others stay."""
        sampling = self.sampling
        rng = np.random.default_rng([self.seed, *key, 1])
        turns, mirrors = rng.random() < sampling.turn_share, rng.random() < sampling.mirror_z_share
        return (self.step_deg * rng.integers(1, round(360.0 / self.step_deg)) if turns else 0.0), mirrors

    def _box(self, index: int, rng: np.random.Generator) -> Window:
        if self.boxes:
            return self.boxes[index]
        return sample_box(self.cases[index], self.centres[index], self.sampling, rng)


class PatchSampler(Sampler[Key]):
    """The keys of one epoch: every case the same number of times, in an order drawn for that epoch."""

    def __init__(self, n_cases: int, patches_per_case: int, seed: int) -> None:
        self.n_cases, self.patches_per_case, self.seed, self.epoch = n_cases, patches_per_case, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_cases * self.patches_per_case

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        for position, index in enumerate(order):
            yield self.epoch, position, int(index) % self.n_cases


class WholeCases(Dataset[Sample]):
    """Whole cases as a network sees them: what validation and prediction go through.

    Parameters
    ----------
    recipe
        The network's, for `seen_box`.
    read
        From a case, what is given of it and a box to what a network sees there.
    """

    def __init__(
        self, cases: Sequence[OpenCase], spec: Any, recipe: CommonTrained, read: Callable[..., Sample] = read_sample
    ) -> None:
        self.cases, self.spec, self.recipe, self.read = list(cases), spec, recipe, read

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        case = self.cases[index]
        return as_tensors(self.read(case, self.spec, seen_box(case, self.recipe)))


def patch_loader(dataset: Any, recipe: CommonRecipe) -> DataLoader[Sample]:
    """Return the loader of training batches; a last batch that is not full is dropped unless it is the only one."""
    sampler = PatchSampler(len(dataset.cases), recipe.sampling.patches_per_case, dataset.seed)
    size = min(recipe.sampling.batch_size, len(sampler))
    return DataLoader(dataset, batch_size=size, sampler=sampler, drop_last=True, **_loader_options(recipe.loader))


def case_loader(dataset: Dataset[Sample], loader: LoaderRecipe) -> DataLoader[Sample]:
    """Return the loader of whole cases, one at a time, in order."""
    return DataLoader(dataset, batch_size=1, shuffle=False, **_loader_options(loader))


def _loader_options(loader: LoaderRecipe) -> dict[str, Any]:
    return {
        "num_workers": loader.workers,
        "persistent_workers": loader.persistent and loader.workers > 0,
        "pin_memory": torch.cuda.is_available(),
    }
