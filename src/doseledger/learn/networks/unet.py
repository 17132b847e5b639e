"""Networks: (image, condition) -> dose in units of the dose scale.

image is (batch, channel, z, y, x), condition (batch, number), the result (batch, 1, z, y, x). Sizes must be multiples
of the recipe's `total_stride_zyx`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from doseledger.core.types import IntTriple
from doseledger.learn.recipes.network import CascadeRecipe, DynUNetRecipe, FilmUNetRecipe, MedNeXtRecipe, NetworkRecipe

# Channels of one group of a GroupNorm: Wu & He 2018 found 16 a group as good as any; fewer where a level has fewer.
GROUP_CHANNELS = 8
# The head works at full resolution, where each channel costs most. Measured on a CPU, 16 channels into 8 take half of
# what 19 into 8 do: widths that fill a vector register.
HEAD_CHANNELS = 8


class FilmConvolution(nn.Module):
    """3×3×3 convolution, group norm, FiLM by the condition's embedding, SiLU.

    Notes
    -----
    Perez et al. 2018, "FiLM": y = (1 + γ(e)) · norm(x) + β(e). γ and β start at 0, so that a fresh network ignores the
    condition.
    """

    def __init__(self, n_in: int, n_out: int, embedding: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(max(1, n_out // GROUP_CHANNELS), n_out)
        self.film = nn.Linear(embedding, 2 * n_out)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return the modulated features (batch, n_out, z, y, x)."""
        gain, offset = self.film(embedded)[:, :, None, None, None].chunk(2, dim=1)
        result: Tensor = nn.functional.silu(self.norm(self.convolution(x)) * (1 + gain) + offset)
        return result


class Level(nn.Module):
    """Several FiLM convolutions after one another."""

    def __init__(self, n_in: int, n_out: int, n_convolutions: int, embedding: int) -> None:
        super().__init__()
        sizes = [n_in, *[n_out] * n_convolutions]
        self.convolutions = nn.ModuleList(FilmConvolution(a, b, embedding) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return the features after the last convolution."""
        for convolution in self.convolutions:
            x = convolution(x, embedded)
        return x


class Head(nn.Module):
    """Features of the finest level, and the image -> dose on the image's own voxels.

    Notes
    -----
    Features are grown by interpolation and not by a transposed convolution, which leaves a checkerboard in the dose
    (Odena et al. 2016). The image's own channels stand beside them: interpolated features know no edge within a stride.
    """

    def __init__(self, n_features: int, n_channels: int, stride_zyx: IntTriple) -> None:
        super().__init__()
        self.stride_zyx = tuple(float(stride) for stride in stride_zyx)
        self.gather = nn.Conv3d(n_features, HEAD_CHANNELS, 1)
        self.gather_image = nn.Conv3d(n_channels, HEAD_CHANNELS, 1)
        self.mix = nn.Conv3d(2 * HEAD_CHANNELS, HEAD_CHANNELS, 3, padding=1)
        self.dose = nn.Conv3d(HEAD_CHANNELS, 1, 1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Return the dose (batch, 1, z, y, x)."""
        grown = nn.functional.interpolate(self.gather(features), scale_factor=self.stride_zyx, mode="trilinear")
        mixed = nn.functional.silu(self.mix(torch.cat([grown, self.gather_image(image)], dim=1)))
        result: Tensor = self.dose(mixed)
        return result


class FilmUNet(nn.Module):
    """3D U-Net (Çiçek et al. 2016) whose convolutions are modulated by prescription, presence and spacing.

    Notes
    -----
    The stem gathers `stem_stride_zyx` voxels into one; the head brings the dose back to the image's own voxels.
    """

    def __init__(self, n_channels: int, n_conditions: int, recipe: FilmUNetRecipe) -> None:
        super().__init__()
        widths, embedding = recipe.channels, recipe.embedding
        self.embed = nn.Sequential(
            nn.Linear(n_conditions, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.stem = nn.Conv3d(n_channels, widths[0], recipe.stem_stride_zyx, stride=recipe.stem_stride_zyx)
        self.down = nn.ModuleList([Level(widths[0], widths[0], recipe.convolutions[0], embedding)])
        self.shrink, self.grow, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (fine, coarse) in enumerate(pairwise(widths)):
            self.shrink.append(nn.Conv3d(fine, coarse, 2, stride=2))
            self.down.append(Level(coarse, coarse, recipe.convolutions[level + 1], embedding))
            self.grow.append(nn.ConvTranspose3d(coarse, fine, 2, stride=2))
            self.up.append(Level(2 * fine, fine, recipe.convolutions[level], embedding))
        self.head = Head(widths[0], n_channels, recipe.stem_stride_zyx)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return the dose (batch, 1, z, y, x) in units of the dose scale."""
        embedded = self.embed(condition)
        x = self.stem(image)
        skips = []
        for level, convolve in enumerate(self.down):
            x = convolve(self.shrink[level - 1](x) if level else x, embedded)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat([skips[level], self.grow[level](x)], dim=1), embedded)
        result: Tensor = self.head(x, image)
        return result


class Cascade(nn.Module):
    """Two networks in a row; the second sees the first one's dose as one more channel of its image.

    Parameters
    ----------
    first
        (image of n channels, condition) -> dose.
    second
        (image of n + 1 channels, condition) -> dose.

    Notes
    -----
    Liu et al. 2021 (Med Phys 48:5574). The first one's dose is no fixed input: the second's loss trains both.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return the second one's dose (batch, 1, z, y, x); in training (batch, 2, …), the first one's beside it."""
        coarse: Tensor = self.first(image, condition)
        fine: Tensor = self.second(torch.cat([image, coarse], dim=1), condition)
        return torch.cat([fine, coarse], dim=1) if self.training else fine


class ConstantChannels(nn.Module):
    """A network without conditions, given each condition as a channel of one value."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return the network's output for the image with the conditions beside it."""
        planes = condition[:, :, None, None, None].expand(-1, -1, *image.shape[2:])
        result: Tensor = self.network(torch.cat([image, planes.to(image.dtype)], dim=1))
        return result


def build_network(n_channels: int, n_conditions: int, recipe: NetworkRecipe) -> nn.Module:
    """Return the recipe's network with fresh weights, drawn from torch's generator.

    In training a network may give more than one dose, as further channels: the first is the one that counts.
    """
    if isinstance(recipe, FilmUNetRecipe):
        return FilmUNet(n_channels, n_conditions, recipe)
    if isinstance(recipe, CascadeRecipe):
        first = FilmUNet(n_channels, n_conditions, recipe.first)
        return Cascade(first, FilmUNet(n_channels + 1, n_conditions, recipe.second))
    if isinstance(recipe, MedNeXtRecipe):
        return ConstantChannels(_mednext(n_channels + n_conditions, recipe))
    return ConstantChannels(_dynunet(n_channels + n_conditions, recipe))


def _dynunet(n_channels: int, recipe: DynUNetRecipe) -> nn.Module:
    from monai.networks.nets import DynUNet

    n_levels = len(recipe.filters)
    strides = [1] + [2] * (n_levels - 1)
    return DynUNet(
        spatial_dims=3,
        in_channels=n_channels,
        out_channels=1,
        kernel_size=[3] * n_levels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=recipe.filters,
        res_block=recipe.residual,
    )


def _mednext(n_channels: int, recipe: MedNeXtRecipe) -> nn.Module:
    from monai.networks.nets import MedNeXt

    *finer, coarsest = recipe.blocks
    return MedNeXt(
        spatial_dims=3,
        init_filters=recipe.filters,
        in_channels=n_channels,
        out_channels=1,
        encoder_expansion_ratio=recipe.expansion,
        decoder_expansion_ratio=recipe.expansion,
        bottleneck_expansion_ratio=recipe.expansion,
        kernel_size=recipe.kernel,
        use_residual_connection=True,
        blocks_down=finer,
        blocks_bottleneck=coarsest,
        blocks_up=finer[::-1],
    )
