"""Segmentation networks: image -> logits of background and structures.

Images are (batch, 1, z, y, x) in units of a thousand stored values, logits (batch, class, z, y, x).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from doseledger.learn.recipes.segmentation import AXES, SegmentNetwork, SliceRecipe, UNetRecipe


class Standardised(nn.Module):
    """A network that is given the image less the training images' mean, per their spread."""

    def __init__(self, network: nn.Module, mean: float, spread: float) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("spread", torch.tensor(spread))

    def forward(self, image: Tensor) -> Any:
        """Return what the network says of the standardised image."""
        return self.network((image - self.mean) / self.spread)


class BySlice(nn.Module):
    """A 2D network that goes through a volume slice by slice.

    Parameters
    ----------
    network
        (slice, neighbours, row, column) -> (slice, class, row, column).
    recipe
        Along which axis, and how many neighbours on either side a slice is seen with; beyond the volume its last slice
        stands again.
    """

    def __init__(self, network: nn.Module, recipe: SliceRecipe) -> None:
        super().__init__()
        self.network, self.dim, self.neighbours = network, 2 + AXES.index(recipe.axis), recipe.neighbours

    def forward(self, image: Tensor) -> Any:
        """Return the logits (batch, class, z, y, x) of a volume; in training, of each supervised level."""
        slices = image.movedim(self.dim, 1)
        batch, n = slices.shape[:2]
        steps = torch.arange(-self.neighbours, self.neighbours + 1, device=image.device)
        seen = (torch.arange(n, device=image.device)[:, None] + steps).clamp(0, n - 1)
        # (batch, slice, neighbour, channel, …) -> one image a slice, whose channels are its neighbours'.
        stacked = slices[:, seen].flatten(2, 3).flatten(0, 1)
        said = self.network(stacked)
        return [self._volume(one, batch) for one in said] if isinstance(said, list) else self._volume(said, batch)

    def _volume(self, said: Tensor, batch: int) -> Tensor:
        return said.reshape(batch, -1, *said.shape[1:]).movedim(1, self.dim)


class Supervised(nn.Module):
    """A DynUNet whose coarser levels' logits come as a list in training, the finest first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Any:
        """Return the logits; in training a list of them, each of the image's size."""
        said: Tensor = self.network(image)
        # In training monai stacks the levels, each grown to the finest one's size.
        return list(said.unbind(dim=1)) if self.training else said


def build_segment_network(
    n_classes: int, recipe: SegmentNetwork, mean: float = 0.0, spread: float = 1.0
) -> Standardised:
    """Return the recipe's network with fresh weights, drawn from torch's generator.

    Parameters
    ----------
    mean, spread
        Of the training images, in the network's units; a checkpoint's weights bring theirs.
    """
    slices = recipe.slices
    n_channels = 1 if slices is None else 2 * slices.neighbours + 1
    dimensions = 3 if slices is None else 2
    plain = _unet(dimensions, n_channels, n_classes, recipe) if isinstance(recipe, UNetRecipe) else None
    network = plain or _dynunet(dimensions, n_channels, n_classes, recipe)
    return Standardised(network if slices is None else BySlice(network, slices), mean, spread)


def _unet(dimensions: int, n_channels: int, n_classes: int, recipe: UNetRecipe) -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(
        spatial_dims=dimensions,
        in_channels=n_channels,
        out_channels=n_classes,
        channels=recipe.channels,
        strides=recipe.strides,
        num_res_units=recipe.residual_units,
        norm="INSTANCE",
        dropout=recipe.dropout,
    )


def _dynunet(dimensions: int, n_channels: int, n_classes: int, recipe: Any) -> nn.Module:
    from monai.networks.nets import DynUNet

    # A network on slices has no anisotropy: the last axes stand for all.
    kernels = [size[-dimensions:] for size in recipe.kernels_zyx]
    strides = [(1,) * dimensions, *(step[-dimensions:] for step in recipe.strides_zyx)]
    network = DynUNet(
        spatial_dims=dimensions,
        in_channels=n_channels,
        out_channels=n_classes,
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=recipe.filters,
        res_block=recipe.residual,
        deep_supervision=recipe.supervised > 0,
        deep_supr_num=max(1, recipe.supervised),
    )
    return Supervised(network) if recipe.supervised else network
