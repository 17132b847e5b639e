"""Patch, depth and batch of a segmentation from shapes, spacings and memory, as published."""

from __future__ import annotations

from math import prod

import pytest
import torch

from doseledger.core.errors import BadInput
from doseledger.learn.losses.overlap import SupervisedLoss
from doseledger.learn.networks.segment import build_segment_network
from doseledger.learn.recipes.budget import Budget, find_budget, of_cpu, of_gpu
from doseledger.learn.recipes.segmentation import DeepUNetRecipe, OverlapLossRecipe
from doseledger.learn.recipes.suggest import (
    Fingerprint,
    Suggestion,
    _batch,
    _depth,
    _filters,
    _first_patch,
    _halved,
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


def numbers(shape: tuple[int, int, int], filters: list[int], halved: list[tuple[int, ...]], n_classes: int) -> float:
    """Numbers kept of a patch: 9 a voxel and class, 11 a voxel and filter of each level, by a plain sum."""
    z, y, x = shape
    total = 9.0 * z * y * x * n_classes
    for width, axes in zip(filters, halved, strict=True):
        total += 11.0 * z * y * x * width
        z, y, x = (n // 2 if k in axes else n for k, n in enumerate((z, y, x)))
    return total


@pytest.mark.parametrize(("late", "halvings", "halved"), [
    ([0, 0, 0], [2, 2, 2], [(0, 1, 2), (0, 1, 2), ()]), ([2, 0, 0], [1, 3, 3], [(1, 2), (1, 2), (0, 1, 2), ()]),
    ([0, 1, 0], [0, 2, 3], [(2,), (1, 2), (1, 2), ()]),
])  # fmt: skip
@pytest.mark.parametrize("n_classes", [2, 7])
def test_what_a_patch_keeps_is_the_sum_over_its_levels(
    late: list[int], halvings: list[int], halved: list[tuple[int, ...]], n_classes: int
) -> None:
    widths = [16, 32, 64, 128][: len(halved)]
    wanted = numbers((24, 40, 56), widths, halved, n_classes) * 4 / 1e9
    assert activation_gb([24, 40, 56], late, halvings, of_cpu(), n_classes) == pytest.approx(wanted)
    half = numbers((24, 40, 56), [2 * width for width in widths], halved, n_classes) * 2 / 1e9
    assert activation_gb([24, 40, 56], late, halvings, of_gpu(8.0), n_classes) == pytest.approx(half)


def test_widths_double_up_to_the_widest() -> None:
    assert _filters([0, 0, 0], [5, 5, 5], of_gpu(8.0)) == [32, 64, 128, 256, 320, 320]
    assert _filters([2, 0, 0], [4, 5, 0], of_cpu()) == [16, 32, 64, 128, 128, 128, 128]
    # An axis that is never halved, however late, makes no level.
    assert _filters([9, 0, 0], [0, 2, 2], of_cpu()) == [16, 32, 64]


@pytest.mark.parametrize(("sizes", "steps", "halved"), [
    # Eight voxels can be halved, seven can't; of voxels twice as long as the shortest only the short axes are.
    ([8, 8, 8], [1.0, 1.0, 1.0], [0, 1, 2]), ([7, 8, 8], [1.0, 1.0, 1.0], [1, 2]), ([7, 7, 7], [1.0, 1.0, 1.0], []),
    ([16, 16, 16], [1.99, 1.0, 1.0], [0, 1, 2]), ([16, 16, 16], [2.0, 1.0, 1.0], [1, 2]),
    # What is too short to halve sets no measure.
    ([7, 16, 16], [0.1, 1.0, 1.0], [1, 2]),
    # An axis alone is halved down to twelve voxels.
    ([7, 7, 12], [1.0, 1.0, 1.0], [2]), ([7, 7, 11], [1.0, 1.0, 1.0], []), ([9, 7, 7], [1.0, 1.0, 1.0], []),
])  # fmt: skip
def test_an_axis_is_halved_while_it_is_long_enough_and_its_voxels_short(
    sizes: list[int], steps: list[float], halved: list[int]
) -> None:
    assert _halved(sizes, steps) == halved


@pytest.mark.parametrize(("patch", "spacing", "late", "halvings", "padded"), [
    # z: 3.6, then y and x 1.2 and 2.4 mm: within twice from the second step on.
    ([20, 64, 48], (3.6, 1.2, 1.2), [1, 0, 0], [2, 3, 3], [20, 64, 48]),
    ([21, 65, 50], (3.6, 1.2, 1.2), [1, 0, 0], [2, 3, 3], [24, 72, 56]),
    ([3, 200, 200], (8.0, 1.0, 1.0), [3, 0, 0], [0, 5, 5], [3, 224, 224]),
    # Too small for three levels: short axes are widened to 16 voxels, a lone short one to 32.
    ([5, 6, 7], (1.0, 1.0, 1.0), [0, 0, 0], [2, 2, 2], [16, 16, 16]),
    ([5, 6, 7], (5.0, 1.0, 1.0), [2, 0, 0], [0, 2, 2], [5, 16, 16]),
    ([5, 6, 7], (5.0, 4.0, 1.0), [2, 2, 0], [0, 0, 2], [5, 6, 32]),
])  # fmt: skip
def test_depth_follows_from_patch_and_spacing(
    patch: list[int], spacing: tuple[float, float, float], late: list[int], halvings: list[int], padded: list[int]
) -> None:
    assert _depth(patch, spacing) == (late, halvings, padded)


@pytest.mark.parametrize(("median", "spacing", "patch"), [
    ([900, 900, 900], (1.0, 1.0, 1.0), [256, 256, 256]), ([900, 900, 900], (4.0, 1.0, 1.0), [102, 406, 406]),
    ([50, 900, 300], (4.0, 1.0, 1.0), [50, 406, 300]), ([900, 900, 900], (2.0, 2.0, 2.0), [256, 256, 256]),
    ([900, 900, 900], (2e7, 1.0, 1.0), [1, 900, 900]),
])  # fmt: skip
def test_a_first_patch_is_a_cube_in_mm_within_the_median_image(
    median: list[int], spacing: tuple[float, float, float], patch: list[int]
) -> None:
    assert _first_patch(median, spacing) == patch


@pytest.mark.parametrize(("n", "patch_voxels", "patch_gb", "size"), [
    # 4.96 GB are there; a twentieth of so many cases of 1000 voxels.
    (1000, 1000, 1.0, 4), (1000, 1000, 4.0, 2), (200, 1000, 0.1, 10), (200, 1000, 0.3, 10), (60, 1000, 0.1, 3),
    (10, 1000, 0.1, 2),
])  # fmt: skip
def test_a_batch_is_what_fits_and_a_twentieth_of_all_voxels_and_two(
    n: int, patch_voxels: int, patch_gb: float, size: int
) -> None:
    assert _batch(fingerprint((10, 10, 10), (1.0, 1.0, 1.0), n=n), of_gpu(8.0), patch_voxels, patch_gb) == size


@pytest.mark.parametrize(("z", "spacing"), [(3.0, 3.0), (3.1, 1.5)])
def test_voxels_more_than_three_times_as_long_as_the_others_take_the_tenth_percentile(z: float, spacing: float) -> None:
    # Two of ten have 1.5 mm: the tenth percentile lies among them.
    assert choose_spacing([(z, 1.0, 0.5)] * 8 + [(1.5, 1.0, 0.5)] * 2) == (spacing, 1.0, 0.5)
    assert choose_spacing([(0.5, 1.0, z)] * 8 + [(0.5, 1.0, 1.5)] * 2) == (0.5, 1.0, spacing)


def test_a_suggestion_is_whole() -> None:
    shapes: list[tuple[int, int, int]] = [(20, 60, 50), (22, 64, 48), (24, 70, 40)]
    native = [(5.0, 1.0, 1.0), (4.0, 1.0, 1.0), (6.0, 1.2, 1.0)]
    found = suggest(
        Fingerprint(shapes, [(4.0, 1.25, 1.25)] * 3, native, ("A", "B", "C"), {"D": "it is small"}, (0.0, 1.0)),
        of_cpu(),
    )
    assert (found.late_zyx, found.halvings_zyx, found.filters, found.supervised) == (
        (1, 0, 0),
        (2, 3, 3),
        [16, 32, 64, 128],
        2,
    )
    assert found.spacing_mm == (4.2, 1.0, 1.0)
    assert found.batch_size == 2
    kept = numbers(found.patch_zyx, [16, 32, 64, 128], [(1, 2), (0, 1, 2), (0, 1, 2), ()], 4) * 4 / 1e9
    assert found.activation_gb == pytest.approx(2 * kept)
    # The median is 22 × 64 × 48; voxels are taken away along the axis that holds most of it until two patches fit.
    z, y, x = found.patch_zyx
    assert 2 * kept <= 0.2
    assert 2 * numbers((z, y + 8, x), [16, 32, 64, 128], [(1, 2), (0, 1, 2), (0, 1, 2), ()], 4) * 4 / 1e9 > 0.2
    percent = 100.0 * min(z / 22, 1) * (y / 64) * (x / 48)
    assert found.reasons == [
        "3 training cases: 22 × 64 × 48 voxels of 4 × 1.25 × 1.25 mm (z, y, x) in the median",
        f"patch {z} × {y} × {x}: {percent:.0f} % of the median case, on a CPU, where a step of 0.2 GB of activations "
        "takes two cores about 2 s",
        "batch 2: 2 at least, what fits, and a twentieth of all voxels at most",
        "4 levels: z, y, x halved 2 × 3 × 3 times, until 4 voxels are left",
        "voxels are long along z: not halved, nor convolved along, at first",
        "images come with 5 × 1 × 1 mm in the median: with spacing_mm 4.2 × 1 × 1 in protocol.yaml they would keep "
        "that; ingest then, and ask again",
        "D is left out: it is small",
    ]


@pytest.mark.parametrize(("native", "is_told"), [
    ([(2.0, 1.0, 1.0)] * 3, False), ([(2.0, 1.0, 1.0)] * 2 + [(2.019, 1.0, 1.0)], False),
    ([(2.0, 1.0, 1.0)] * 2 + [(2.021, 1.0, 1.0)], True), ([(2.03, 1.0, 1.0)] * 3, True), ([(2.0, 1.0, 0.98)] * 3, True),
])  # fmt: skip
def test_another_spacing_is_told_where_images_differ_by_a_hundredth(
    native: list[tuple[float, float, float]], is_told: bool
) -> None:
    found = Fingerprint([(40, 60, 60)] * 3, [(2.0, 1.0, 1.0)] * 3, native, ("A",), {}, (0.0, 1.0))
    assert any("images come with" in line for line in suggest(found, of_cpu()).reasons) is is_told


def test_budgets_are_those_of_a_card_and_of_two_cores() -> None:
    assert of_gpu(8.0) == Budget(pytest.approx(4.96), 32, 320, 2, "a GPU of 8 GB")
    assert (of_cpu().activation_gb, of_cpu().first_filters, of_cpu().most_filters, of_cpu().bytes_a_number) == (
        0.2,
        16,
        128,
        4,
    )
    assert find_budget(1.0).activation_gb == pytest.approx(0.62)
    for memory_gb in (0.99, float("nan")):
        with pytest.raises(BadInput, match="1 at least"):
            find_budget(memory_gb)
