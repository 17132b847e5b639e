"""Patch, depth and batch of a segmentation from shapes, spacings and memory, as published."""

from __future__ import annotations

from math import prod

import pytest
import torch

from doseledger.core.errors import BadInput
from doseledger.learn.losses.overlap import SupervisedLoss
from doseledger.learn.networks.segment import build_segment_network
from doseledger.learn.recipes.budget import find_budget, of_cpu, of_gpu
from doseledger.learn.recipes.segmentation import DeepUNetRecipe, OverlapLossRecipe
from doseledger.learn.recipes.suggest import (
    Fingerprint,
    Suggestion,
    activation_gb,
    choose_spacing,
    suggest,
)


def fingerprint(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], n: int = 30, names: tuple[str, ...] = ("Organ",)
) -> Fingerprint:
    return Fingerprint([shape] * n, [spacing] * n, [spacing] * n, names, {}, (-100.0, 300.0))


def network_of(found: Suggestion) -> DeepUNetRecipe:
    steps = {"late_zyx": found.late_zyx, "halvings_zyx": found.halvings_zyx}
    return DeepUNetRecipe.model_validate(
        {"name": "dynunet", "filters": found.filters, "residual": False, "supervised": found.supervised,
         "anisotropy": steps, "slices": None}
    )  # fmt: skip


# Isensee et al. 2021, supplement: median shape and spacing, and the 3D patch and pooling on 8 GB.
PUBLISHED = {
    "hippocampus": ((36, 50, 35), (1.0, 1.0, 1.0), (40, 56, 40), (3, 3, 3)),
    "prostate, voxels of 3.6 mm": ((20, 320, 319), (3.6, 0.62, 0.62), (20, 320, 256), (2, 6, 6)),
    "liver, large": ((482, 512, 512), (1.0, 0.77, 0.77), (128, 128, 128), (5, 5, 5)),
    "heart": ((115, 320, 232), (1.37, 1.25, 1.25), (80, 192, 160), (4, 5, 5)),
    "brain tumour": ((138, 169, 138), (1.0, 1.0, 1.0), (128, 128, 128), (5, 5, 5)),
}


@pytest.mark.parametrize(("shape", "spacing", "patch", "halvings"), PUBLISHED.values(), ids=PUBLISHED)
def test_eight_gigabytes_get_the_published_patch_and_depth(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], patch: tuple[int, ...], halvings: tuple[int, ...]
) -> None:
    found = suggest(fingerprint(shape, spacing), of_gpu(8.0))
    assert (found.patch_zyx, found.halvings_zyx) == (patch, halvings)
    assert network_of(found).total_stride_zyx == tuple(2**n for n in halvings)


def test_long_voxels_are_halved_late_and_the_reasons_say_so() -> None:
    found = suggest(fingerprint((20, 320, 319), (3.6, 0.62, 0.62)), of_gpu(8.0))
    assert found.late_zyx == (2, 0, 0)
    assert network_of(found).kernels_zyx[:3] == [(1, 3, 3), (1, 3, 3), (3, 3, 3)]
    assert "voxels are long along z: not halved, nor convolved along, at first" in found.reasons
    flat = suggest(fingerprint((3, 200, 200), (8.0, 1.0, 1.0)), of_gpu(8.0))
    assert (flat.patch_zyx[0], flat.halvings_zyx[0]) == (3, 0)
    assert any("too few voxels along z to halve" in line for line in flat.reasons)


def test_a_small_cohort_gets_its_whole_image_and_a_batch_that_memory_and_cohort_hold() -> None:
    many = suggest(fingerprint((36, 50, 35), (1.0, 1.0, 1.0), n=1000), of_gpu(8.0))
    few = suggest(fingerprint((36, 50, 35), (1.0, 1.0, 1.0), n=20), of_gpu(8.0))
    assert few.batch_size == 2
    assert many.batch_size > 20
    assert many.activation_gb <= of_gpu(8.0).activation_gb
    tiny = suggest(fingerprint((5, 6, 7), (1.0, 1.0, 1.0)), of_gpu(8.0))
    assert (tiny.patch_zyx, len(tiny.filters)) == ((16, 16, 16), 3)


@pytest.mark.parametrize("memory_gb", [2.0, 4.0, 8.0, 24.0, 80.0])
@pytest.mark.parametrize("shape", [(482, 512, 512), (90, 100, 170), (12, 400, 400)])
def test_what_is_suggested_fits_the_memory_and_the_network(memory_gb: float, shape: tuple[int, int, int]) -> None:
    spacing = (5.0, 0.7, 0.7) if shape[0] == 12 else (1.5, 1.0, 1.0)
    found = suggest(fingerprint(shape, spacing), of_gpu(memory_gb))
    assert found.activation_gb <= of_gpu(memory_gb).activation_gb
    strides = network_of(found).total_stride_zyx
    assert all(size % stride == 0 for size, stride in zip(found.patch_zyx, strides, strict=True))
    assert all(size < n + stride for size, n, stride in zip(found.patch_zyx, shape, strides, strict=True))


def test_more_memory_never_gives_a_smaller_patch() -> None:
    sizes = [
        prod(suggest(fingerprint((482, 512, 512), (1.0, 0.8, 0.8)), of_gpu(gigabytes)).patch_zyx)
        for gigabytes in (2.0, 4.0, 8.0, 12.0, 24.0, 48.0)
    ]
    assert sizes == sorted(sizes)
    assert prod(suggest(fingerprint((482, 512, 512), (1.0, 0.8, 0.8)), of_cpu()).patch_zyx) < sizes[0]


@pytest.mark.parametrize("n_classes", [2, 9])
def test_what_training_keeps_is_within_a_tenth_of_what_is_told(n_classes: int) -> None:
    found = suggest(fingerprint((36, 36, 36), (1.0, 1.0, 1.0), names=("x",) * (n_classes - 1)), of_cpu())
    network = build_segment_network(n_classes, network_of(found))
    recipe = OverlapLossRecipe.model_validate({"name": "dice_ce", "whole_batch": True, "focal_gamma": 2.0})
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        held.append(tensor)
        return tensor

    held: list[torch.Tensor] = []
    image, label = torch.rand(1, 1, *found.patch_zyx), torch.zeros(1, 1, *found.patch_zyx, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        SupervisedLoss(recipe)(network(image), label)
    weights = sum(one.numel() * one.element_size() for one in network.parameters())
    told = activation_gb(list(found.patch_zyx), list(found.late_zyx), list(found.halvings_zyx), of_cpu(), n_classes)
    assert told == pytest.approx((sum(kept.values()) - weights) / 1e9, rel=0.12)


@pytest.mark.parametrize(
    ("spacings", "wanted"),
    [
        ([(1.0, 1.0, 1.0)] * 5, (1.0, 1.0, 1.0)),
        ([(2.5, 0.8, 0.8), (3.0, 1.0, 1.0), (2.0, 0.9, 0.9)], (2.5, 0.9, 0.9)),
        ([(5.0, 1.0, 1.0)] * 9 + [(1.5, 1.0, 1.0)] * 2, (1.5, 1.0, 1.0)),
        ([(5.0, 1.0, 1.0)] * 9 + [(0.5, 1.0, 1.0)] * 2, (1.0, 1.0, 1.0)),
    ],
    ids=["alike", "median", "a tenth of the long ones", "no shorter than the others"],
)
def test_the_spacing_is_the_median_but_finer_along_long_voxels(
    spacings: list[tuple[float, float, float]], wanted: tuple[float, float, float]
) -> None:
    assert choose_spacing(spacings) == wanted


def test_images_of_several_spacings_are_told_the_one_to_ingest_them_on() -> None:
    native = [(2.0, 1.0, 1.0), (3.0, 1.2, 1.2), (3.0, 1.2, 1.2)]
    found = Fingerprint([(40, 60, 60)] * 3, native, native, ("Organ",), {"PTV": "a target"}, (0.0, 1.0))
    reasons = suggest(found, of_cpu()).reasons
    assert any("with spacing_mm 3 × 1.2 × 1.2 in protocol.yaml" in line for line in reasons)
    assert reasons[-1] == "PTV is left out: a target"


def test_a_machine_without_memory_is_refused_by_what_is_there() -> None:
    with pytest.raises(BadInput, match="wanted a GPU's memory in GB, 1 at least"):
        find_budget(0.2)
    with pytest.raises(BadInput, match=r"two patches of 16 × 16 × 16 voxels take .* GB"):
        suggest(fingerprint((482, 512, 512), (1.0, 1.0, 1.0), names=("x",) * 2000), of_cpu())
