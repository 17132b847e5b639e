"""What is handed to libraries and between the parts of a training, argument by argument."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import monai.losses
import monai.networks.nets as nets
import monai.transforms
import numpy as np
import pytest
import sklearn.ensemble
import torch
from torch import nn
from torch.utils.data import DataLoader

from doseledger.core.errors import BadCase, BadInput
from doseledger.learn.data import features, turns
from doseledger.learn.data.core_dropout import drop_core, fill_core
from doseledger.learn.data.features import _area, _distance, _in_context, _slice_mean, structure_weights
from doseledger.learn.data.patches import _loader_options, patch_loader, turned_box
from doseledger.learn.data.turns import mirror_z_image, same_centre, turn_inputs, turn_sample, turn_step
from doseledger.learn.data.variation import make_variation
from doseledger.learn.data.volumes import SegmentSpec, _draw_box
from doseledger.learn.families import diffusion, segmentation
from doseledger.learn.families.diffusion import measure_scale
from doseledger.learn.losses.overlap import SupervisedLoss, make_overlap_loss
from doseledger.learn.networks.boosted import KnownFeatures, _on_case
from doseledger.learn.networks.denoiser import layered_noise, noise_fields
from doseledger.learn.networks.schedule import ddim_step, euler_step, heun_step, sample
from doseledger.learn.networks.segment import build_segment_network
from doseledger.learn.networks.trees import grow_trees
from doseledger.learn.networks.unet import build_network
from doseledger.learn.predict import cases, draws, labels, mean
from doseledger.learn.predict.mean import mean_dose
from doseledger.learn.recipes.network import DynUNetRecipe, MedNeXtRecipe
from doseledger.learn.recipes.segmentation import DeepUNetRecipe, OverlapLossRecipe, UNetRecipe, VariationRecipe
from doseledger.learn.training import told
from doseledger.learn.training.average import AveragedTask
from doseledger.learn.training.callbacks import Alive, Log, describe_epoch, history_csv
from doseledger.learn.training.optimiser import build_optimiser, lr_share, scheduled_optimiser
from doseledger.learn.training.ranks import Team, share_patches


def recorder(calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]], name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append((name, args, kwargs))
        return SimpleNamespace(name=name)

    return call


@pytest.mark.parametrize("share", [0.5, 0.51])
def test_a_core_is_lost_below_its_share_alone(share: float) -> None:
    rng: Any = SimpleNamespace(random=lambda n: np.array([0.5, 0.0, 0.6, 0.0, 0.0]))
    recipe: Any = SimpleNamespace(share=share, structure_share=0.5, radius_mm=(1.0, 2.0), surround_mm=2.0)
    ct = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    masks = np.zeros((3, 3, 3, 3), bool)
    # Of the two structures that are there the second, as 0.6 · 2 says.
    masks[0, 0, 0, 0], masks[2, 1, 1, 1] = True, True
    before = ct.copy()
    drop_core(ct, masks, np.ones((3, 3, 3), bool), (1.0, 1.0, 1.0), recipe, rng)
    assert np.array_equal(ct, before)
    drop_core(ct + 1, masks[:0], np.zeros((3, 3, 3), bool), (1.0, 1.0, 1.0), recipe, rng)
    # The median about the middle is its own value; in another field it is not.
    ct[1, 1, 1] = 99.0
    drop_core(ct, masks, np.ones((3, 3, 3), bool), (1.0, 1.0, 1.0), recipe, rng)
    assert ct[1, 1, 1] == (99.0 if share == 0.5 else 13.0)


def test_a_core_is_filled_from_within_a_distance_on_uneven_voxels_in_the_body() -> None:
    ct = np.zeros((3, 3, 9), np.float32)
    ct[1, 1] = [50, 40, 30, 20, 99, 1, 2, 3, 4]
    core, body = np.zeros(ct.shape, bool), np.zeros(ct.shape, bool)
    core[1, 1, 4], body[1, 1, :8] = True, True
    # 5 mm along x are two voxels of 2 mm on either side: 30, 20, 1, 2.
    fill_core(ct, core, body, (6.0, 6.0, 2.0), 5.0)
    assert ct[1, 1, 4] == 11.0
    assert ct[1, 1, [3, 5]].tolist() == [20.0, 1.0]


def test_distances_and_areas_hold_on_uneven_voxels_up_to_the_edge() -> None:
    mask = np.zeros((4, 5, 9), bool)
    mask[:, 1:3, 0:3] = True
    found = _distance(mask, (4.0, 3.0, 2.0))
    # It leaves the image on three sides, where no surface is.
    assert found[1, 1].tolist() == [-3.0, -3.0, -2.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert found[1, :, 0].tolist() == [3.0, -3.0, -3.0, 3.0, 6.0]
    assert found[0, 4, 4] == pytest.approx(math.hypot(6.0, 4.0))
    assert (_distance(mask & False, (4.0, 3.0, 2.0)) == 150.0).all()
    far = np.zeros((1, 1, 200), bool)
    far[..., 0] = True
    assert _distance(far, (1.0, 1.0, 1.0)).max() == 150.0
    area = _area(mask, (4.0, 3.0, 2.0))
    assert area[:, 0, 0] == pytest.approx([6 * 6.0 / 100 / 100] * 4)
    mask[2] = False
    assert _area(mask, (4.0, 3.0, 2.0))[:, 3, 7] == pytest.approx([0.0036, 0.0036, 0.0, 0.0036])


def test_a_slices_mean_is_that_of_its_body_and_widths_are_in_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    body = np.zeros(volume.shape, bool)
    body[0], body[1, 1, 2] = True, True
    assert _slice_mean(volume, body)[:, 0, 0].tolist() == [3.5, 14.0, 0.0]
    assert _slice_mean(volume, body).shape == volume.shape
    asked: list[Any] = []
    monkeypatch.setattr(features, "gaussian_filter", lambda v, sigma, truncate: asked.append((sigma, truncate)) or v)
    assert len(list(_in_context(volume, (4.0, 2.0, 1.0), [8.0, 2.0]))) == 3
    assert asked == [([2.0, 4.0, 8.0], 3.0), ([0.5, 1.0, 2.0], 3.0)]


def test_a_structures_voxels_share_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.zeros((3, 1, 1, 6), np.uint8)
    masks[0, ..., :1], masks[1, ..., 1:4] = 1, 1
    monkeypatch.setattr(features, "map_member", lambda path, name: masks)
    case: Any = SimpleNamespace(file=SimpleNamespace(path=None))
    # Five voxels: a half of five is 2.5, for one voxel and for two.
    assert structure_weights(case, np.array([0, 1, 2, 4, 5]), 0.5).tolist() == [3.5, 2.25, 2.25, 1.0, 1.0]


@pytest.mark.parametrize(("workers", "persistent", "kept"), [(0, True, False), (1, True, True), (2, False, False)])
def test_workers_stay_where_there_are_any(workers: int, persistent: bool, kept: bool) -> None:
    recipe: Any = SimpleNamespace(workers=workers, persistent=persistent)
    assert _loader_options(recipe) == {"num_workers": workers, "persistent_workers": kept, "pin_memory": False}


class Keys:
    """A dataset of eight cases whose items are their keys."""

    cases, seed = list(range(8)), 3

    def __getitem__(self, key: Any) -> Any:
        return key


def test_a_rank_keeps_all_of_its_loader_and_begins_where_it_stood() -> None:
    loading: Any = SimpleNamespace(workers=0, persistent=False)
    recipe: Any = SimpleNamespace(sampling=SimpleNamespace(patches_per_case=2, batch_size=3), loader=loading)
    loader = patch_loader(Keys(), recipe)
    assert (loader.batch_size, loader.drop_last, len(loader.sampler)) == (3, True, 16)  # type: ignore[arg-type]
    whole: Any = DataLoader(
        Keys(), batch_size=3, sampler=loader.sampler, num_workers=2, persistent_workers=True, pin_memory=True
    )  # type: ignore[arg-type]
    own = share_patches(whole, Team(1, 2), (4, 2))
    got = (own.batch_size, own.drop_last, own.num_workers, own.persistent_workers, own.pin_memory)
    assert got == (3, True, 2, True, True)
    loader.sampler.set_epoch(4)  # type: ignore[attr-defined]
    keys = list(loader.sampler)
    # Every second key from the second on; two batches of three lie behind it.
    assert list(own.sampler) == keys[1::2][6:]
    own.sampler.set_epoch(5)  # type: ignore[attr-defined]
    loader.sampler.set_epoch(5)  # type: ignore[attr-defined]
    assert list(own.sampler) == list(loader.sampler)[1::2]
    small: Any = SimpleNamespace(sampling=SimpleNamespace(patches_per_case=2, batch_size=99), loader=loading)
    assert patch_loader(Keys(), small).batch_size == 16
    assert share_patches(loader, Team(0, 1)) is loader


def test_turned_channels_are_masks_again_from_half_a_voxel_on(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe: Any = SimpleNamespace(structures="mask", place="targets")
    spec: Any = SimpleNamespace(recipe=recipe, first_structure=3, first_physics=5, first_offset=2)
    given = np.array([0.5, 0.5, -0.2, 0.5, 0.51, -0.3, 0.4], np.float32)[:, None, None, None]
    monkeypatch.setattr(turns, "turn_volume", lambda image, degrees, mm, shape: given.copy())
    found = turn_inputs(given, spec, 90.0, (1.0, 1.0), (1, 1)).ravel()
    assert found == pytest.approx([0.5, 0.0, -0.2, 0.0, 1.0, 0.0, 0.4])
    recipe.structures = "sdf"
    given[3:5, 0, 0, 0] = (1.2, -1.3)
    assert turn_inputs(given, spec, 90.0, (1.0, 1.0), (1, 1)).ravel()[3:5].tolist() == [1.0, -1.0]
    image = np.arange(14, dtype=np.float32).reshape(7, 2, 1, 1)
    mirrored = mirror_z_image(image, spec)
    assert mirrored[:, :, 0, 0].tolist() == [[1, 0], [3, 2], [-5, -4], [7, 6], [9, 8], [11, 10], [13, 12]]
    recipe.place = "none"
    assert mirror_z_image(image, spec)[2, :, 0, 0].tolist() == [5.0, 4.0]


def test_a_turned_dose_is_that_of_voxels_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    spec: Any = SimpleNamespace(recipe=SimpleNamespace(structures="mask"), first_structure=0, first_physics=0)
    # Dose where it counts, dose, what counts, body, a structure: of four voxels.
    moved = np.array(
        [[4.0, 1.0, 2.0, -9.0], [9.0, 7.0, 8.0, -1.0], [0.8, 0.5, 0.51, 1.0], [1, 0.5, 0.51, 0], [0.5, 1, 0, 0]]
    )
    monkeypatch.setattr(turns, "turn_inputs", lambda *_: np.zeros(1))
    monkeypatch.setattr(turns, "turn_volume", lambda *_: moved.astype(np.float32)[:, None, None])
    ones = np.ones((1, 1, 1, 4), np.float32)
    given: dict[str, Any] = dict.fromkeys(("image", "dose", "valid_dose", "body", "masks"), ones)
    found = turn_sample({**given, "spacing_mm": (1.0, 2.0, 3.0), "case_id": "a"}, spec, 90.0, (1, 4))
    assert found["dose"].ravel() == pytest.approx([5.0, 7.0, 2.0 / 0.51, 0.0])
    assert found["valid_dose"].ravel().tolist() == [True, False, True, True]
    assert found["body"].ravel().tolist() == [True, False, True, False]
    assert found["masks"].ravel().tolist() == [False, True, False, False]
    assert (found["case_id"], found["dose"].shape) == ("a", (1, 1, 1, 4))


def test_beams_are_equal_in_any_order_and_to_a_thousandth_of_a_degree() -> None:
    assert turn_step([200.0, 80.0, 320.0]) == turn_step([-40.0, 80.0, 560.0]) == 120.0
    assert turn_step([0.0009, 180.0]) == 180.0
    assert turn_step([77.0]) == 360.0
    with pytest.raises(BadInput, match="not at equal angles"):
        turn_step([0.0011, 180.0])
    with pytest.raises(BadInput, match="not at equal angles"):
        turn_step([0.0, 120.0])
    assert same_centre(((3, -2, 5), (4, 6, 8)), (2, 10, 8)) == ((4, -4, 5), (2, 10, 8))


@pytest.mark.parametrize(
    ("patch", "least", "steps"), [("case", (6, 12, 3), (2, 4, 1)), ((4, 8, 8), (4, 8, 8), (1, 1, 1))]
)
def test_a_turned_case_is_seen_in_whole_strides(
    patch: Any, least: Any, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    module = "doseledger.learn.data.patches"
    monkeypatch.setattr(f"{module}.seen_box", lambda case, recipe: ((1, 1, 1), (4, 4, 4)))
    monkeypatch.setattr(f"{module}.turned_shape", lambda *words: asked.append(words) or (4, 6, 8))
    recipe: Any = SimpleNamespace(
        sampling=SimpleNamespace(patch_zyx=patch), network=SimpleNamespace(total_stride_zyx=(2, 4, 1))
    )
    case: Any = None
    assert turned_box(case, recipe, 120.0) == ((1, 0, -1), (4, 6, 8))
    assert asked == [(None, ((1, 1, 1), (4, 4, 4)), 120.0, least, steps)]


def test_patches_are_varied_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    names = ("RandAffined", "RandGaussianSmoothd", "RandGaussianNoised", "RandScaleIntensityd", "RandShiftIntensityd",
             "RandSimulateLowResolutiond", "RandAdjustContrastd")  # fmt: skip
    for name in (*names, "Compose"):
        monkeypatch.setattr(monai.transforms, name, recorder(calls, name))
    recipe = VariationRecipe(
        affine_share=0.1, rotate_deg=(180.0, 90.0, 0.0), scale=0.2, noise_share=0.3, noise=0.4, blur_share=0.5,
        blur_voxels=0.6, brightness_share=0.7, brightness=0.8, contrast_share=0.9, contrast=0.11,
        low_resolution_share=0.12, least_resolution=0.13, gamma_share=0.14, gamma=0.15,
    )  # fmt: skip
    make_variation(recipe, spread=5.0)
    both, image, blur = ("image", "label"), ("image",), (0.0, 0.6)
    assert [call for call in calls if call[0] != "Compose"] == [
        ("RandAffined", (both,), {"prob": 0.1, "rotate_range": pytest.approx([math.pi, math.pi / 2, 0.0]),
                                  "scale_range": [0.2] * 3, "mode": ("bilinear", "nearest"), "padding_mode": "border"}),
        ("RandGaussianSmoothd", (image,), {"prob": 0.5, "sigma_x": blur, "sigma_y": blur, "sigma_z": blur}),
        ("RandGaussianNoised", (image,), {"prob": 0.3, "std": 2.0}),
        ("RandScaleIntensityd", (image,), {"factors": 0.11, "prob": 0.9}),
        ("RandShiftIntensityd", (image,), {"offsets": 4.0, "prob": 0.7}),
        ("RandSimulateLowResolutiond", (image,), {"prob": 0.12, "zoom_range": (0.13, 1.0)}),
        ("RandAdjustContrastd", (image,), {"prob": 0.14, "gamma": pytest.approx((0.85, 1.15)), "retain_stats": True}),
    ]  # fmt: skip
    assert [step.name for step in calls[-1][1][0]] == list(names)


@pytest.mark.parametrize(("draw", "which", "centre"), [
    (0.39, 0.0, 1), (0.39, 0.49, 1), (0.39, 0.5, 2), (0.39, 0.99, 2), (0.4, 0.0, 0), (0.9, 0.9, 0),
])  # fmt: skip
def test_a_patch_is_centred_in_a_structure_or_anywhere(draw: float, which: float, centre: int) -> None:
    drawn = iter([draw, which])
    rng: Any = SimpleNamespace(random=lambda: next(drawn), integers=lambda n: n - 1)
    voxels = [np.array([[0, 0, 0], [value] * 3]) for value in (3, 5, 7)]
    sampling: Any = SimpleNamespace(patch_zyx=(2, 2, 2), foreground_share=0.4)
    case: Any = SimpleNamespace(shape_zyx=(20, 20, 20))
    start, _ = _draw_box(case, voxels, sampling, rng)
    assert start == (2 + 2 * centre,) * 3
    drawn = iter([draw, which])
    assert _draw_box(case, voxels[:1], sampling, rng)[0] == (2, 2, 2)
    with pytest.raises(BadInput, match="patches of images have a size"):
        _draw_box(case, voxels, SimpleNamespace(patch_zyx="case"), rng)  # type: ignore[arg-type]
    recipe: Any = None
    spec = SegmentSpec(("A",), recipe)
    assert (spec.target_names, spec.n_channels, spec.n_conditions) == ((), 1, 0)


@pytest.mark.parametrize("is_residual", [True, False])
def test_the_scale_of_a_diffusion_is_measured_where_a_dose_counts(
    is_residual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = torch.tensor([True, True, True, False]).view(1, 1, 1, 4)
    doses = {"a": [0.5, 1.0, 0.25, 9.0], "b": [0.75, 0.0, 0.5, 9.0]}

    def read(case: Any, spec: Any, box: Any) -> dict[str, Any]:
        dose = torch.tensor(doses[case]).view(1, 1, 1, 4)
        return {"image": dose, "condition": torch.zeros(1), "dose": dose, "valid_dose": valid, "case_id": case}

    asked: list[Any] = []
    monkeypatch.setattr(diffusion, "seen_box", lambda case, recipe: None)
    monkeypatch.setattr(diffusion, "read_sample", read)
    monkeypatch.setattr(diffusion, "as_tensors", lambda one: one)
    monkeypatch.setattr(
        diffusion, "base_of_case", lambda *words: asked.append(words) or torch.full((1, 1, 1, 1, 4), 0.25)
    )
    recipe: Any = SimpleNamespace(
        sampling=SimpleNamespace(patch_zyx=(1, 1, 4)), diffusion=SimpleNamespace(parameterisation="v")
    )
    base: Any = SimpleNamespace(on=lambda spec: "network") if is_residual else None
    spec: Any = None
    chosen: Any = ["a", "b"]
    found = measure_scale(recipe, spec, chosen, base)
    if is_residual:
        # Off 0.25 by 0.25, 0.75, 0; 0.5, -0.25, 0.25: over six voxels.
        width = math.sqrt((0.25**2 + 0.75**2 + 0.5**2 + 2 * 0.25**2) / 6)
        assert (found.centre, found.width, found.most) == (0.0, pytest.approx(width), pytest.approx(1.1))
    else:
        assert (found.centre, found.width, found.most) == pytest.approx((0.55, 0.55, 1.1))
    assert [words[0] for words in asked] == ["network" if is_residual else None] * 2
    many: Any = [f"case {k}" for k in range(61)]
    monkeypatch.setattr(diffusion, "read_sample", lambda case, spec, box: asked.append(case) or read("a", spec, box))
    asked.clear()
    measure_scale(recipe, spec, many, None)
    # Sixteen, spread evenly from the first to the last.
    assert [case for case in asked if isinstance(case, str)] == [f"case {4 * k}" for k in range(16)]


def test_the_spread_of_an_image_is_never_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays: dict[str, Any] = {"ct_hu": np.array([500, 500, 1500, 9]), "body": np.array([1, 1, 1, 0])}
    monkeypatch.setattr(segmentation, "map_member", lambda path, name: arrays[name])
    case: Any = SimpleNamespace(file=SimpleNamespace(path=None))
    spec: Any = SimpleNamespace(recipe=SimpleNamespace(window=(0.0, 1100.0)))
    mean_, spread = segmentation.measure_image([case, case], spec)
    assert (mean_, spread) == pytest.approx((0.7, math.sqrt((0.5 + 1.21) / 3 - 0.49)))
    arrays["ct_hu"] = np.full(4, 700)
    assert segmentation.measure_image([case], spec) == pytest.approx((0.7, 1e-3))


LOGITS = torch.tensor([[2.0, 0.0, -1.0, 0.5], [0.0, 1.0, 1.0, 0.0], [-1.0, 0.5, 0.0, 2.0]]).view(1, 3, 1, 1, 4)
LABELS = torch.tensor([0, 1, 2, 2]).view(1, 1, 1, 1, 4)


def soft_dice(logits: torch.Tensor, labels_: torch.Tensor, whole_batch: bool) -> float:
    share = torch.softmax(logits, dim=1).double().numpy()
    wanted = np.stack([(labels_[:, 0] == k).numpy() for k in range(3)], axis=1).astype(float)
    axes = (0, 2, 3, 4) if whole_batch else (2, 3, 4)
    both, sums = (share * wanted).sum(axis=axes), share.sum(axis=axes) + wanted.sum(axis=axes)
    score = 1.0 - (2.0 * both + 1e-5) / (sums + 1e-5)
    # Without the background.
    return float(score[..., 1:].mean())


@pytest.mark.parametrize("whole_batch", [True, False])
@pytest.mark.parametrize("name", ["dice", "dice_ce", "dice_focal"])
def test_overlap_losses_are_those_of_their_papers(name: Any, whole_batch: bool) -> None:
    logits, labels_ = torch.cat([LOGITS, 2 * LOGITS.flip(1)]), torch.cat([LABELS, LABELS * 0 + 1])
    loss = make_overlap_loss(OverlapLossRecipe(name=name, whole_batch=whole_batch, focal_gamma=3.0))
    wanted = soft_dice(logits, labels_, whole_batch)
    own = torch.softmax(logits, dim=1).gather(1, labels_).double()
    if name == "dice_ce":
        wanted += float(-own.log().mean())
    if name == "dice_focal":
        # Over all classes: of the others nothing counts.
        wanted += float((-((1 - own) ** 3) * own.log()).mean()) / 3
    assert float(loss(logits, labels_)) == pytest.approx(wanted, rel=1e-4)
    each = SupervisedLoss(OverlapLossRecipe(name=name, whole_batch=whole_batch, focal_gamma=3.0))
    levels = [float(loss(one, labels_)) for one in (logits, logits.flip(4), 0 * logits)]
    total = (levels[0] + 0.5 * levels[1] + 0.25 * levels[2]) / 1.75
    assert float(each([logits, logits.flip(4), 0 * logits], labels_)) == pytest.approx(total, rel=1e-5)
    assert float(each(logits, labels_)) == pytest.approx(levels[0], rel=1e-5)


def test_told_shares_are_never_below_nothing_and_stand_where_they_were_told() -> None:
    case: Any = SimpleNamespace(shape_zyx=(1, 2, 3), main_prescription_gy=60.0)
    found = _on_case(case, np.array([1, 3, 5]), np.array([0.5, -0.1, 0.01]))
    assert found.tolist() == [[[0.0, 30.0, 0.0], [0.0, 0.0, pytest.approx(0.6)]]]
    assert found.dtype == np.float32
    known = KnownFeatures(case, np.array([2, 5, 9]), np.array([[1.0], [2.0], [3.0]], np.float32))
    assert known.at(np.array([9, 2])).ravel().tolist() == [3.0, 1.0]


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun"])
def test_a_sampler_goes_its_own_steps_from_angle_to_angle(sampler: Any) -> None:
    angles = torch.tensor([1.5, 0.9, 0.3, 0.0])

    def denoise(x: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
        return 0.3 * x * torch.cos(phi) + 0.1

    x = torch.tensor([1.0, -2.0])
    found = sample(denoise, x, angles, sampler)
    for phi, after in pairwise(angles):
        if sampler == "heun":
            x = heun_step(denoise, x, phi, after)
        else:
            x = (ddim_step if sampler == "ddim" else euler_step)(x, denoise(x, phi), phi, after)
    assert torch.equal(found, x)


def test_monais_networks_are_built_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    for name in ("DynUNet", "MedNeXt", "UNet"):

        def build(name: str = name, **arguments: Any) -> nn.Module:
            calls.append((name, arguments))
            return nn.Identity()

        monkeypatch.setattr(nets, name, build)
    build_network(5, 3, DynUNetRecipe(name="dynunet", filters=[4, 8, 16], residual=True))
    build_network(5, 3, MedNeXtRecipe(name="mednext", filters=6, blocks=[1, 2, 3], expansion=4, kernel=5))
    flat: dict[str, Any] = {"axis": "y", "neighbours": 2}
    deep = {"name": "dynunet", "filters": [4, 8, 16, 32], "residual": False, "anisotropy": None}
    long = {"late_zyx": (1, 0, 0), "halvings_zyx": (2, 3, 3)}
    for block in (
        {**deep, "supervised": 2, "slices": None, "anisotropy": long}, {**deep, "supervised": 0, "slices": flat},
    ):  # fmt: skip
        build_segment_network(3, DeepUNetRecipe.model_validate(block))
    plain = {"name": "unet", "channels": [4, 8], "strides": [2], "residual_units": 1, "dropout": 0.3}
    for block in ({**plain, "slices": None}, {**plain, "slices": flat}):
        build_segment_network(3, UNetRecipe.model_validate(block))
    two = {"spatial_dims": 2, "in_channels": 5, "out_channels": 3}
    three = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
    unet = {"channels": [4, 8], "strides": [2], "num_res_units": 1, "norm": "INSTANCE", "dropout": 0.3}
    assert calls == [
        ("DynUNet", {"spatial_dims": 3, "in_channels": 8, "out_channels": 1, "kernel_size": [3, 3, 3],
                     "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 16], "res_block": True}),
        ("MedNeXt", {"spatial_dims": 3, "init_filters": 6, "in_channels": 8, "out_channels": 1,
                     "encoder_expansion_ratio": 4, "decoder_expansion_ratio": 4, "bottleneck_expansion_ratio": 4,
                     "kernel_size": 5, "use_residual_connection": True, "blocks_down": [1, 2], "blocks_bottleneck": 3,
                     "blocks_up": [2, 1]}),
        ("DynUNet", {**three, "kernel_size": [(1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
                     "strides": [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)],
                     "upsample_kernel_size": [(1, 2, 2), (2, 2, 2), (2, 2, 2)], "filters": [4, 8, 16, 32],
                     "res_block": False, "deep_supervision": True, "deep_supr_num": 2}),
        ("DynUNet", {**two, "kernel_size": [(3, 3)] * 4, "strides": [(1, 1), (2, 2), (2, 2), (2, 2)],
                     "upsample_kernel_size": [(2, 2)] * 3, "filters": [4, 8, 16, 32], "res_block": False,
                     "deep_supervision": False, "deep_supr_num": 1}),
        ("UNet", {**three, **unet}), ("UNet", {**two, **unet}),
    ]  # fmt: skip


def test_trees_are_grown_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    plain = sklearn.ensemble.HistGradientBoostingRegressor
    monkeypatch.setattr(
        sklearn.ensemble, "HistGradientBoostingRegressor", lambda **words: made.append(words) or plain(**words)
    )
    recipe: Any = SimpleNamespace(n_trees=2, leaves=3, leaf_voxels=4, rate=0.5)
    grow_trees(np.arange(30, dtype=np.float32)[:, None], np.arange(30, dtype=np.float32), recipe)
    assert made == [{"max_iter": 2, "max_leaf_nodes": 3, "min_samples_leaf": 4, "learning_rate": 0.5,
                     "early_stopping": False, "random_state": 0}]  # fmt: skip


def test_the_order_in_which_weights_are_written_changes_no_bit() -> None:
    def says(value: float) -> Any:
        return SimpleNamespace(predict=lambda case: {"dose_gy": np.array([value])})

    parts = {"a": says(1e30), "b": says(-1e30), "c": says(3.0)}
    case: Any = None
    found = [mean_dose(parts, dict.fromkeys(names, 1.0), case).tolist() for names in ("abc", "cab", "bca")]
    assert found == [[1.0]] * 3


SETTINGS: Any = SimpleNamespace(model_dump=lambda mode: {})


@pytest.mark.parametrize("opening", [
    lambda path: cases.load_model(path), lambda path: draws.load_diffusion_model(path),
    lambda path: labels.open_predictor(path, SETTINGS), lambda path: mean.open_predictor(path, SETTINGS),
    lambda path: told.load_boosted(path),
])  # fmt: skip
def test_a_checkpoint_of_another_kind_is_refused_by_its_kind(
    opening: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = SimpleNamespace()
    other: Any = SimpleNamespace(
        model="m",
        recipe=SimpleNamespace(kind="other", inputs=inputs),
        structure_names=(),
        spec=None,
        extras={},
        weights={},
    )
    monkeypatch.setattr(told, "read_content", lambda path: {"recipe": {"kind": "trees"}})
    for module in (cases, draws, labels, mean, told):
        monkeypatch.setattr(module, "load_checkpoint", lambda path, kind=None: other)
    with pytest.raises((BadInput, BadCase), match="its kind is other, wanted"):
        opening(Path("a.ckpt"))


class Doubling(AveragedTask):
    """A task of one weight."""

    def batch_loss(self, batch: Any, index: int) -> Any:
        """None."""


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_child_and_its_average_begin_with_its_parents_weights(decay: float) -> None:
    task = Doubling(nn.Linear(1, 1, bias=False), decay)
    task.begin_from({"weight": torch.tensor([[7.0]])}, {})
    assert [float(w.detach()) for w in task.network.parameters()] == [7.0]
    assert [float(w.detach()) for w in task.averaged.parameters()] == [7.0]
    assert {name: float(w.detach()) for name, w in task.weights().items()} == {"weight": 7.0}
    assert (task.averaged is task.network) is (decay == 0.0)
    assert not any(w.requires_grad for w in task.averaged.parameters()) or not decay
    if task.ema is not None:
        assert int(task.ema.n_averaged) == 1


def test_each_batch_and_each_validated_case_is_a_sign_of_life() -> None:
    beats: list[Any] = []
    pulse: Any = SimpleNamespace(beat=lambda *words: beats.append(words))
    trainer: Any = SimpleNamespace(current_epoch=3, global_step=17)
    alive = Alive(pulse)
    alive.on_train_batch_end(trainer)
    alive.on_validation_batch_end(trainer)
    assert beats == [(4, 17), (4, 17)]


def test_a_log_begins_where_its_kept_copy_stood(tmp_path: Path) -> None:
    log, kept = tmp_path / "a" / "b" / "train.log", tmp_path / "kept.log"
    lines: list[str] = []
    Log(log, kept, lines.append)("one")
    assert log.read_text() == kept.read_text() == "one\n"
    Log(log.with_name("c.log"), kept, lines.append)("two")
    assert log.with_name("c.log").read_text() == kept.read_text() == "one\ntwo\n"
    kept.unlink()
    Log(log, kept, lines.append)("three")
    assert log.read_text() == "three\n"
    assert lines == ["one", "two", "three"]


def test_epochs_are_told_in_a_line_and_a_row() -> None:
    row = {"epoch": 3, "steps": 12, "lr": 0.000123456789, "train_loss": 0.1234567, "seconds": 4.567}
    dose = {**row, "val_mae_valid_dose_gy": 2.345, "val_mae_body_gy": 1.0, "train_mae_valid_dose_gy": 1.236}
    assert describe_epoch(row, 9, better=False) == "epoch 3/9: loss 0.1235, lr 1.23e-04, 4.6 s"
    assert describe_epoch(dose, 9, better=True) == (
        "epoch 3/9: loss 0.1235, MAE in valid_dose 2.35 Gy in validation and 1.24 Gy in training cases (best), "
        "lr 1.23e-04, 4.6 s"
    ).replace("2.35", f"{2.345:.2f}")
    dice = {**row, "val_dice_error": 0.25, "train_dice_error": 0.125}
    assert describe_epoch(dice, 9, better=False).split("; ")[0] == (
        "epoch 3/9: loss 0.1235, Dice 0.750 in validation and 0.875 in training cases, lr 1.23e-04, 4.6 s"
    )
    assert history_csv([row, dose], ("val_mae_valid_dose_gy", "val_mae_body_gy")) == (
        "epoch,steps,lr,train_loss,train_mae_valid_dose_gy,val_mae_valid_dose_gy,val_mae_body_gy,seconds\n"
        "3,12,0.000123457,0.123457,,,,4.57\n3,12,0.000123457,0.123457,1.236,2.345,1,4.57\n"
    )


def optimiser_recipe(**changes: Any) -> Any:
    values = {"name": "adam", "weight_decay": 0.01, "momentum": 0.8, "schedule": "cosine", "warmup_share": 0.2,
              "final_share": 0.1}  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(("name", "kind", "more"), [
    ("adam", torch.optim.Adam, {}), ("adamw", torch.optim.AdamW, {}),
    ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
])  # fmt: skip
def test_an_optimiser_has_the_recipes_numbers(name: str, kind: Any, more: dict[str, Any]) -> None:
    network = nn.Linear(1, 1)
    made = build_optimiser(network, optimiser_recipe(name=name), 0.3)
    assert type(made) is kind
    group = made.param_groups[0]
    assert {key: group[key] for key in ("lr", "weight_decay", *more)} == {"lr": 0.3, "weight_decay": 0.01, **more}
    still = build_optimiser(network, optimiser_recipe(name="sgd", momentum=0.0), 0.3).param_groups[0]
    assert (still["momentum"], still["nesterov"]) == (0.0, False)


def test_a_rate_rises_over_its_warm_up_then_falls_along_a_cosine_and_stays() -> None:
    shares = [lr_share(step, 10, optimiser_recipe()) for step in range(12)]
    fall = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert shares == pytest.approx([0.5, 1.0, *fall, 0.1, 0.1])
    constant = [lr_share(step, 10, optimiser_recipe(schedule="constant", warmup_share=0.0)) for step in range(3)]
    assert constant == [1.0, 1.0, 1.0]
    assert lr_share(1, 1, optimiser_recipe(warmup_share=1.0)) == pytest.approx(1.0)
    made = scheduled_optimiser(nn.Linear(1, 1), optimiser_recipe(), lr=0.2, n_steps=10)
    assert made["lr_scheduler"]["interval"] == "step"
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(0.1)
    assert list(scheduled_optimiser(nn.Linear(1, 1), optimiser_recipe(schedule="plateau"), lr=0.2, n_steps=10)) == [
        "optimizer"
    ]


@pytest.mark.parametrize("coarse", [0.0, 0.5])
def test_noise_has_layers_of_blocks_twice_as_wide_each(coarse: float) -> None:
    shape = (2, 3, 5)
    asked: list[tuple[int, ...]] = []
    rng = np.random.default_rng(4)
    layers: list[np.ndarray] = []

    def draw(size: tuple[int, int, int]) -> torch.Tensor:
        asked.append(size)
        layers.append(rng.normal(size=size))
        return torch.from_numpy(layers[-1])

    found = layered_noise(draw, shape, coarse).numpy()
    if not coarse:
        assert asked == [shape]
        assert np.array_equal(found, layers[0])
        return
    # Blocks of 2, 4 and 8 voxels, the last of which span the whole.
    assert asked == [shape, (1, 2, 3), (1, 1, 2), (1, 1, 1)]
    z, y, x = np.indices(shape)
    wanted = sum(0.5**k * layers[k][z // 2**k, y // 2**k, x // 2**k] for k in range(4))
    assert found == pytest.approx(wanted / np.sqrt(1 + 0.25 + 0.0625 + 0.015625))


def test_a_field_of_noise_hangs_on_seed_case_and_number() -> None:
    found = noise_fields(3, "case_1", [0, 5], (2, 3, 4), 0.25)
    assert (found.shape, found.dtype) == ((2, 1, 2, 3, 4), torch.float32)
    for field, number in zip(found, (0, 5), strict=True):
        rng = np.random.default_rng([3, zlib.crc32(b"case_1"), number])
        again = layered_noise(
            lambda size, rng=rng: torch.from_numpy(rng.standard_normal(size, np.float32)), (2, 3, 4), 0.25
        )
        assert torch.equal(field[0], again)
    assert not torch.equal(found[0], noise_fields(3, "case_1", [0], (2, 3, 4))[0])


def test_draws_are_moved_so_that_their_mean_is_the_bases() -> None:
    base = np.array([10.0, 1.0], np.float32).reshape(1, 1, 2)
    drawn = np.array([[1.0, 8.0], [3.0, 2.0]], np.float32).reshape(2, 1, 1, 2)
    found = draws.moved_onto(base, drawn)
    # Means are 2 and 5; no dose is negative.
    assert found.ravel().tolist() == [9.0, 4.0, 11.0, 0.0]
    assert found.dtype == np.float32
