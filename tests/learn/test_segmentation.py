"""Segmentation as a kind of model: recipe, patches, networks, training, prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from learn.conftest import Cohort, changed

from doseledger.core.case import Case
from doseledger.core.cleaning import Cleaning, clean_labels
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import read_yaml
from doseledger.core.settings import Settings
from doseledger.evaluate.predictions import load_labels
from doseledger.learn.data.inputs import CaseFile, open_case
from doseledger.learn.data.volumes import SegmentPatches, SegmentSpec, flip_sample, read_labels, read_sample, spec_of
from doseledger.learn.families.segmentation import SEGMENTATION, SegmentationTask, dice_error, measure_image
from doseledger.learn.kinds import load_recipe, open_as
from doseledger.learn.losses.overlap import SupervisedLoss, make_overlap_loss
from doseledger.learn.networks.segment import BySlice, build_segment_network
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.recipes.segmentation import DeepUNetRecipe, OverlapLossRecipe, SegmentationRecipe, SliceRecipe
from doseledger.learn.run import SEGMENT_SCORES, TrainingRun
from doseledger.learn.training.memory import what_to_lower
from doseledger.learn.training.probe import probe_steps
from doseledger.learn.training.train import Places, train

FEMURS = ["Femur_L", "Femur_R"]
SMALL: dict[str, Any] = {
    "lr_factor": 1.0,
    "inputs": {"window": [-1000.0, 1000.0], "structures": FEMURS},
    "sampling.patch_zyx": [16, 24, 32],
    "sampling.patches_per_case": 2,
    "sampling.mirrored_names": {"Femur_L": "Femur_R"},
    "network.filters": [8, 8, 16],
    "network.supervised": 1,
    "ema_decay": 0.5,
    "fit.max_epochs": 8,
    "fit.validate_every": 8,
}
UNET_2D = {
    "name": "unet", "channels": [8, 16], "strides": [2], "residual_units": 1, "dropout": 0.0,
    "slices": {"axis": "y", "neighbours": 1},
}  # fmt: skip
# Long voxels along z: left alone at first, then halved once.
FLAT = {"late_zyx": [1, 0, 0], "halvings_zyx": [1, 2, 2]}


@pytest.fixture(scope="session")
def make_segmentation(repository: Path, settings: Settings) -> Callable[..., SegmentationRecipe]:
    """Factory of small segmentation recipes."""
    block = read_yaml(repository / "models/recipes/seg_unet3d.yaml")["seg_unet3d"]

    def make(changes: dict[str, Any] | None = None) -> SegmentationRecipe:
        recipe = load_recipe(changed(block, {**SMALL, **(changes or {})}), settings.model_base, "test")
        assert isinstance(recipe, SegmentationRecipe)
        return recipe

    return make


def run_of(recipe: SegmentationRecipe) -> TrainingRun:
    return TrainingRun(
        model="seg", recipe=recipe, lr=0.01, seed=1, fold=0, repeat=0, token={"ok": True}, provenance={},
        family=SEGMENTATION,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["seg_unet3d", "seg_unet2d", "seg_large", "seg_organs"])
def test_the_ready_made_segmentations_are_whole_recipes(repository: Path, settings: Settings, name: str) -> None:
    block = read_yaml(repository / f"models/recipes/{name}.yaml")[name]
    recipe = load_recipe(block, settings.model_base, name)
    assert isinstance(recipe, SegmentationRecipe)
    network = build_segment_network(3, recipe.network)
    patch = torch.zeros(1, 1, *recipe.network.total_stride_zyx)
    image = torch.nn.functional.interpolate(patch, scale_factor=2.0)
    with torch.no_grad():
        assert network.eval()(image).shape == (1, 3, *image.shape[2:])


def test_a_network_trains_and_finds_the_bones_of_its_test_case(
    cohort: Cohort, places: Places, make_segmentation: Callable[..., SegmentationRecipe], tmp_path: Path
) -> None:
    recipe = make_segmentation()
    lines: list[str] = []
    train(run_of(recipe), places, fresh=False, tell=lines.append)
    history = pd.read_csv(places.out / "history.csv")
    assert list(history.columns[-3:]) == ["train_dice_error", "val_dice_error", "seconds"]
    assert history["val_dice_error"].dropna().between(0, 1).all()
    assert any(", Dice 0." in line for line in lines)
    settings = recipe.predict.model_dump(mode="json") | {"flips": ["x", "z"]}
    predictor = open_as(places.out / "checkpoints/best.ckpt", settings)
    predict_part(predictor, SplitPart(cohort.cases, cohort.splits, "test", 0, 0), tmp_path / "out", tell=lines.append)
    found = load_labels(tmp_path / "out/case_0005.npz")
    case = Case.load(cohort.cases / "case_0005.npz")
    assert found.structure_names == tuple(FEMURS)
    assert found.grid.same_as(case.grid)
    # Which side a femur is on takes longer to learn than that it is bone.
    bone, either = found.labels > 0, case.mask("Femur_L") | case.mask("Femur_R")
    assert 2 * (bone & either).sum() / (bone.sum() + either.sum()) > 0.5
    assert found.settings["flips"] == ["x", "z"]


def test_a_segmentation_stops_early_where_its_overlap_no_longer_grows(
    make_segmentation_run: Callable[..., TrainingRun], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SegmentationTask, "validation_scores", lambda task: {SEGMENT_SCORES[0]: 0.5})
    lines: list[str] = []
    run = make_segmentation_run({"fit.max_epochs": 9, "fit.early_stop_epochs": 2})
    train(run, places, fresh=False, tell=lines.append)
    assert "no better validation for 2 epochs: stopped early" in lines
    assert len(pd.read_csv(places.out / "history.csv")) == 3


def test_too_little_memory_for_a_segmentation_names_patch_and_batch_and_what_to_lower(
    make_segmentation_run: Callable[..., TrainingRun], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(task: SegmentationTask, samples: dict[str, Any], index: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(SegmentationTask, "batch_loss", run_out)
    wanted = r"of \[16, 24, 32\] voxels, 1 at a time: lower sampling\.patch_zyx to \[12, 20, 26\], then the network's"
    with pytest.raises(BadInput, match=wanted):
        train(make_segmentation_run(), places, fresh=False, tell=lambda line: None)


def test_a_large_volumes_recipe_is_told_batch_first_then_the_next_smaller_patch(
    repository: Path, settings: Settings
) -> None:
    block = read_yaml(repository / "models/recipes/seg_large.yaml")["seg_large"]

    def told(batch_size: int, patch_zyx: list[int]) -> str:
        changes = {"sampling.batch_size": batch_size, "sampling.patch_zyx": patch_zyx}
        return what_to_lower(load_recipe(changed(block, changes), settings.model_base, "seg_large"))

    batch = "lower sampling.batch_size to 1 (and raise fit.accumulate from 1 as much), then sampling.patch_zyx to "
    assert told(2, [96, 96, 96]) == f"{batch}[80, 80, 80], then the network's width"
    assert told(1, [96, 96, 96]) == "lower sampling.patch_zyx to [80, 80, 80], then the network's width"
    assert told(1, [16, 16, 16]) == "lower the network's width"


@pytest.mark.parametrize("network", [UNET_2D, {**UNET_2D, "slices": {"axis": "z", "neighbours": 0}}])
def test_a_2d_network_learns_one_batch_slice_by_slice(
    cohort: Cohort, make_segmentation: Callable[..., SegmentationRecipe], network: dict[str, Any]
) -> None:
    recipe = make_segmentation({"network": network, "loss.name": "dice"})
    result = probe_steps(run_of(recipe), cohort.cases, cohort.splits, n_steps=5)
    assert result.finite
    assert result.output_shape == (2, 3, 16, 24, 32)
    assert result.last_loss < result.first_loss


def test_a_slice_sees_its_neighbours_alone_and_the_last_one_twice() -> None:
    class Middle(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image[:, [0, 2]]

    volume = torch.arange(4.0).view(1, 1, 1, 4, 1).expand(1, 1, 2, 4, 3)
    said = BySlice(Middle(), SliceRecipe(axis="y", neighbours=1))(volume)
    assert said.shape == (1, 2, 2, 4, 3)
    assert said[0, 0, 0, :, 0].tolist() == [0, 0, 1, 2]
    assert said[0, 1, 0, :, 0].tolist() == [1, 2, 3, 3]


def test_a_patch_hangs_on_its_key_alone_and_its_label_stays_one(
    cohort: Cohort, make_segmentation: Callable[..., SegmentationRecipe]
) -> None:
    recipe, cases = make_segmentation(), cohort.open()
    patches = SegmentPatches(cases, spec_of(cases, recipe.inputs), recipe, 1)
    first, again, other = (patches[key] for key in ((0, 3, 1), (0, 3, 1), (1, 3, 1)))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["label"], again["label"])
    assert not torch.equal(first["image"], other["image"])
    assert first["image"].shape == first["label"].shape == (1, 16, 24, 32)
    assert set(first["label"].unique().tolist()) <= {0, 1, 2}


def test_a_mirrored_patient_has_his_left_on_the_other_side(
    cohort: Cohort, make_segmentation: Callable[..., SegmentationRecipe]
) -> None:
    case, recipe = cohort.open()[0], make_segmentation()
    spec = spec_of([case], recipe.inputs)
    sample = read_sample(case, spec, case.whole)
    order = spec.mirrored_order({"Femur_L": "Femur_R"})
    mirrored = flip_sample(sample, "x", order)
    assert np.array_equal(mirrored["label"] == 1, (sample["label"] == 2)[..., ::-1])
    assert np.array_equal(flip_sample(mirrored, "x", order)["label"], sample["label"])
    along_z = flip_sample(sample, "z", order)
    assert np.array_equal(along_z["label"], sample["label"][:, ::-1])


def test_structures_that_overlap_or_have_a_side_alone_are_refused(cohort: Cohort) -> None:
    case = cohort.open()[0]
    inputs = {"window": [-1000.0, 1000.0], "structures": ["PTV70", "Prostate"]}
    spec = spec_of([case], SegmentationRecipe.model_fields["inputs"].annotation.model_validate(inputs))  # type: ignore[union-attr]
    with pytest.raises(BadCase, match=r"PTV70, Prostate share \d+ voxels; a segmentation says one structure a voxel"):
        read_labels(case, spec, case.whole)
    with pytest.raises(BadInput, match="structure Femur_L seems to have a side"):
        SegmentSpec(("Femur_L",), spec.recipe).mirrored_order({})
    unknown = spec.recipe.model_copy(update={"structures": ["Heart"]})
    with pytest.raises(BadInput, match="the cases have no Heart; they have PTV70"):
        spec_of([case], unknown)


def test_mean_and_spread_come_from_the_training_images_and_stay_with_the_weights(
    cohort: Cohort, make_segmentation: Callable[..., SegmentationRecipe]
) -> None:
    cases, recipe = cohort.open(), make_segmentation()
    spec = spec_of(cases, recipe.inputs)
    inside = np.concatenate([_inside(case.file) for case in cases])
    mean, spread = measure_image(cases, spec)
    assert mean == pytest.approx(inside.mean() / 1000, rel=1e-6)
    assert spread == pytest.approx(inside.std() / 1000, rel=1e-6)
    weights = build_segment_network(3, recipe.network, mean, spread).state_dict()
    assert float(weights["mean"]) == pytest.approx(mean)


def _inside(file: CaseFile) -> np.ndarray[Any, Any]:
    case = Case.load(file.path)
    return np.clip(case.ct_hu[case.body], -1000, 1000).astype(np.float64)


@pytest.mark.parametrize("name", ["dice", "dice_ce", "dice_focal"])
def test_a_loss_is_least_where_all_is_right_and_coarser_levels_count_half(name: str) -> None:
    recipe = OverlapLossRecipe.model_validate({"name": name, "whole_batch": True, "focal_gamma": 2.0})
    labels = torch.zeros(1, 1, 4, 4, 4, dtype=torch.uint8)
    labels[..., :2] = 1
    right = 20.0 * torch.nn.functional.one_hot(labels[:, 0].long(), 2).movedim(-1, 1).float()
    loss = make_overlap_loss(recipe)
    assert float(loss(right, labels)) < 0.01 < float(loss(-right, labels))
    both = SupervisedLoss(recipe)([right, -right], labels)
    assert float(both) == pytest.approx((float(loss(right, labels)) + 0.5 * float(loss(-right, labels))) / 1.5)


def test_cleaning_keeps_the_largest_part_and_fills_no_other_structure() -> None:
    labels = np.zeros((5, 7, 9), dtype=np.uint8)
    labels[1:4, 1:6, 1:6] = 1
    labels[2, 3, 3], labels[2, 2, 2] = 0, 2
    labels[2, 0, 8] = 1
    as_it_is, said = clean_labels(labels, 2, Cleaning())
    assert (as_it_is.tolist(), said) == (labels.tolist(), ["", ""])
    cleaned, said = clean_labels(labels, 2, Cleaning(largest_part=True, fill_holes=True))
    assert (cleaned[2, 0, 8], cleaned[2, 2, 2], cleaned[2, 3, 3]) == (0, 2, 1)
    assert said[0] == "largest of 2 parts (-1 voxels), holes filled (+1 voxels)"
    assert said[1] == "largest of 1 parts (-0 voxels), holes filled (+0 voxels)"


def test_an_axis_of_long_voxels_is_halved_late_and_not_convolved_along_before(
    make_segmentation: Callable[..., SegmentationRecipe],
) -> None:
    recipe = make_segmentation({"network.anisotropy": FLAT, "sampling.patch_zyx": [2, 4, 8]})
    network = recipe.network
    assert isinstance(network, DeepUNetRecipe)
    assert network.total_stride_zyx == (2, 4, 4)
    assert (network.strides_zyx, network.kernels_zyx) == ([(1, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 3)])
    built = build_segment_network(3, network).eval()
    image = torch.rand(1, 1, 4, 8, 8)
    with torch.no_grad():
        assert built(image).shape == (1, 3, 4, 8, 8)
    plain = make_segmentation().network
    assert isinstance(plain, DeepUNetRecipe)
    assert (plain.strides_zyx, plain.kernels_zyx) == ([(2, 2, 2)] * 2, [(3, 3, 3)] * 3)


def test_dice_error_leaves_out_what_neither_has_and_counts_what_one_has() -> None:
    ours, theirs = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0])
    assert dice_error(ours, theirs, 3) == pytest.approx(1 / 3)
    assert dice_error(torch.tensor([2, 0]), torch.tensor([0, 0]), 3) == 1.0
    assert dice_error(torch.zeros(3), torch.zeros(3), 3) == 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": {"window": [5.0, -5.0], "structures": "all"}}, "window falls from 5 to -5"),
        ({"network": {**UNET_2D, "strides": [2, 2]}}, "2 channels for 2 strides"),
        ({"network.supervised": 3}, "of 3 levels at most 1"),
        ({"network.anisotropy": {"late_zyx": [0, 0, 0], "halvings_zyx": [1, 1, 1]}}, "a step of 2 that halves no axis"),
        ({"network.anisotropy": FLAT, "network.slices": {"axis": "y", "neighbours": 0}}, "is of networks in 3D"),
        ({"sampling.patch_zyx": [10, 24, 32]}, r"must be multiples of \[4, 4, 4\]"),
        ({"predict.flips": ["x", "x"]}, "name an axis twice"),
    ],
)
def test_settings_that_can_not_be_are_refused(
    make_segmentation: Callable[..., SegmentationRecipe], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        make_segmentation(changes)


def test_voxels_of_another_size_than_in_training_are_refused(
    cohort: Cohort, places: Places, make_segmentation: Callable[..., SegmentationRecipe]
) -> None:
    recipe = make_segmentation({"fit.max_epochs": 1, "fit.validate_every": 1})
    train(run_of(recipe), places, fresh=False, tell=lambda line: None)
    predictor = open_as(places.out / "checkpoints/best.ckpt", recipe.predict.model_dump(mode="json"))
    files = [case.file for case in cohort.open("test")]
    opened = open_case(files[0])
    object.__setattr__(opened, "spacing_mm", (9.0, 6.0, 6.0))
    with pytest.raises(BadCase, match="more than 25% outside"):
        predictor.predict(opened)
