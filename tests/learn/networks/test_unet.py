"""The networks: shape in, shape out; the condition matters; windows cover the case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor, nn

from doseledger.core.errors import BadInput
from doseledger.learn.networks.unet import Cascade, FilmUNet, Head, build_network
from doseledger.learn.networks.windows import predict_whole
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.recipes.network import CascadeRecipe, FilmUNetRecipe, NetworkRecipe

DYNUNET = {"name": "dynunet", "filters": [4, 8, 8], "residual": True}
MEDNEXT = {"name": "mednext", "filters": 4, "blocks": [1, 1, 1], "expansion": 2, "kernel": 3}
SMALL_UNET = {
    "name": "film_unet", "stem_stride_zyx": [2, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8,
}  # fmt: skip
CASCADE = {"name": "cascade", "first": SMALL_UNET, "second": SMALL_UNET, "first_weight": 0.5}


def film_unet(stride: tuple[int, int, int]) -> FilmUNet:
    recipe = FilmUNetRecipe.model_validate(
        {"name": "film_unet", "stem_stride_zyx": stride, "channels": [4, 8], "convolutions": [1, 2], "embedding": 8}
    )
    return FilmUNet(5, 3, recipe)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 4)])
def test_the_dose_has_the_images_own_voxels_at_every_stem_stride(stride: tuple[int, int, int]) -> None:
    assert film_unet(stride)(torch.rand(2, 5, 8, 16, 24), torch.rand(2, 3)).shape == (2, 1, 8, 16, 24)


def test_every_weight_of_the_network_gets_a_gradient() -> None:
    network = film_unet((2, 2, 2))
    for level in network.modules():
        if isinstance(level, nn.Linear):
            nn.init.normal_(level.weight, std=0.1)
    network(torch.rand(1, 5, 8, 8, 8), torch.rand(1, 3)).square().mean().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in network.parameters())


def test_a_fresh_network_ignores_the_condition_and_learns_it() -> None:
    torch.manual_seed(0)
    network, image = film_unet((2, 2, 2)), torch.rand(2, 5, 8, 8, 8)
    image[1] = image[0]
    condition = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert torch.equal(*network(image, condition).detach())
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    wanted = torch.tensor([1.0, 0.5]).view(2, 1, 1, 1, 1)
    for _ in range(60):
        optimiser.zero_grad()
        (network(image, condition) - wanted).square().mean().backward()
        optimiser.step()
    means = network(image, condition).detach().mean(dim=(1, 2, 3, 4))
    assert float(means[0] - means[1]) > 0.3


@pytest.mark.parametrize("block", [DYNUNET, MEDNEXT])
def test_monais_networks_take_the_condition_as_channels(block: dict[str, Any]) -> None:
    recipe: NetworkRecipe = TypeAdapter(NetworkRecipe).validate_python(block)
    network = build_network(5, 3, recipe)
    image = torch.rand(1, 5, 8, 8, 8)
    low, high = network(image, torch.zeros(1, 3)), network(image, torch.ones(1, 3))
    assert low.shape == (1, 1, 8, 8, 8)
    assert not torch.allclose(low, high)


def test_a_cascade_gives_both_doses_in_training_and_the_second_one_else() -> None:
    network = build_network(5, 3, CascadeRecipe.model_validate(CASCADE))
    assert isinstance(network, Cascade)
    image, condition = torch.rand(2, 5, 8, 8, 8), torch.rand(2, 3)
    both = network(image, condition)
    assert both.shape == (2, 2, 8, 8, 8)
    assert torch.equal(both[:, 1:], network.first(image, condition))
    alone = network.eval()(image, condition)
    assert alone.shape == (2, 1, 8, 8, 8)
    assert torch.equal(alone, both[:, :1])


def test_the_second_of_a_cascade_sees_the_first_ones_dose_and_trains_it() -> None:
    network = build_network(5, 3, CascadeRecipe.model_validate(CASCADE))
    assert isinstance(network, Cascade)
    image, condition = torch.rand(1, 5, 8, 8, 8), torch.rand(1, 3)
    network(image, condition)[:, :1].square().mean().backward()
    grown = [weight.grad is not None and bool(weight.grad.any()) for weight in network.first.head.parameters()]
    assert all(grown)
    before = network(image, condition)[:, :1].detach()
    with torch.no_grad():
        network.first.head.dose.bias.add_(5.0)  # type: ignore[union-attr, operator]
    assert not torch.allclose(network(image, condition)[:, :1].detach(), before)


def test_every_network_fits_a_block_and_says_its_stride(make_recipe: Callable[..., Recipe]) -> None:
    deeper = {**SMALL_UNET, "stem_stride_zyx": [1, 2, 1], "channels": [4, 8, 8], "convolutions": [1, 1, 1]}
    for block in (SMALL_UNET, DYNUNET, MEDNEXT, CASCADE):
        assert make_recipe({"network": block}).network.total_stride_zyx == (4, 4, 4)
    assert make_recipe({"network": {**CASCADE, "second": deeper}}).network.total_stride_zyx == (4, 8, 4)


def test_a_patch_that_does_not_fit_the_deeper_of_a_cascade_is_refused(make_recipe: Callable[..., Recipe]) -> None:
    deeper = {**SMALL_UNET, "channels": [4, 8, 8], "convolutions": [1, 1, 1]}
    with pytest.raises(BadInput, match=r"multiples of \[8, 8, 8\], which one voxel of the coarsest level of network c"):
        make_recipe({"network": {**CASCADE, "first": deeper}, "sampling.patch_zyx": [12, 24, 32]})


class SumOfConditions(nn.Module):
    """Gives the first channel plus the sum of the condition."""

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        return image[:, :1] + condition.sum(dim=1).view(-1, 1, 1, 1, 1)


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(*[st.integers(8, 21)] * 3), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]), at_once=st.integers(1, 5)
)
def test_windows_cover_every_voxel_and_blend_to_what_the_network_says(
    size: tuple[int, int, int], overlap: float, at_once: int
) -> None:
    image = torch.rand(1, 2, *size)
    batch: dict[str, Any] = {"image": image, "condition": torch.tensor([[0.25, 0.5]])}
    dose = predict_whole(SumOfConditions(), batch, (8, 8, 8), overlap=overlap, windows_at_once=at_once)
    torch.testing.assert_close(dose, image[:, :1] + 0.75, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_the_head_leaves_no_checkerboard_where_nothing_varies(stride: tuple[int, int, int]) -> None:
    torch.manual_seed(3)
    head = Head(6, 2, stride)
    image = torch.ones(1, 2, *(8 * step for step in stride))
    dose = head(torch.ones(1, 6, 8, 8, 8), image).detach()
    assert dose.shape == (1, 1, *image.shape[2:])
    inside = dose[..., 1:-1, 1:-1, 1:-1]
    assert float(inside.max() - inside.min()) < 1e-6
