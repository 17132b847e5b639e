"""The `network` part of a model's block: which network, how wide, how deep."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from doseledger.core.schema import Block

Count = Annotated[int, Field(ge=1)]
Strides = tuple[Literal[1, 2, 4], Literal[1, 2, 4], Literal[1, 2, 4]]


class AnyNetwork(Block):
    """What every network's block says of it."""

    name: str

    @property
    def total_stride_zyx(self) -> tuple[int, int, int]:
        """How many voxels of the input one voxel of the coarsest level spans."""
        raise NotImplementedError


class FilmUNetRecipe(AnyNetwork):
    """A 3D U-Net whose every convolution is modulated by prescription, presence and spacing (FiLM).

    Notes
    -----
    `stem_stride_zyx` is how much coarser than the case the first level works; the head brings the dose back to the
    case's own voxels, so that no data are resampled. `channels` and `convolutions` hold one number a level, the
    finest first; a level has its convolutions on the way down and again on the way up.
    """

    name: Literal["film_unet"]
    stem_stride_zyx: Strides
    channels: Annotated[list[Count], Field(min_length=2)]
    convolutions: list[Count]
    embedding: Count

    @model_validator(mode="after")
    def _levels_agree(self) -> FilmUNetRecipe:
        if len(self.convolutions) != len(self.channels):
            raise ValueError(f"{len(self.channels)} channels for {len(self.convolutions)} convolutions; one a level")
        return self

    @property
    def total_stride_zyx(self) -> tuple[int, int, int]:
        """How many voxels of the input one voxel of the coarsest level spans."""
        z, y, x = (stride * 2 ** (len(self.channels) - 1) for stride in self.stem_stride_zyx)
        return z, y, x


class CascadeRecipe(AnyNetwork):
    """Two U-Nets in a row: the second sees the image and the first one's dose, and says the dose anew.

    Notes
    -----
    Liu et al. 2021 (Med Phys 48:5574, "C3D"), who won OpenKBP with such a cascade. Both learn together: the loss of
    the first one's dose counts `first_weight` times beside that of the second's.
    """

    name: Literal["cascade"]
    first: FilmUNetRecipe
    second: FilmUNetRecipe
    first_weight: Annotated[float, Field(ge=0)]

    @property
    def total_stride_zyx(self) -> tuple[int, int, int]:
        """How many voxels of the input one voxel of the coarsest level of either spans."""
        # All are powers of two: the larger is a multiple of the smaller.
        pairs = zip(self.first.total_stride_zyx, self.second.total_stride_zyx, strict=True)
        z, y, x = (max(pair) for pair in pairs)
        return z, y, x


class DynUNetRecipe(AnyNetwork):
    """monai's DynUNet (the network of nnU-Net); the prescription enters as constant channels."""

    name: Literal["dynunet"]
    filters: Annotated[list[Count], Field(min_length=3)]
    residual: bool

    @property
    def total_stride_zyx(self) -> tuple[int, int, int]:
        """How many voxels of the input one voxel of the coarsest level spans."""
        stride = 2 ** (len(self.filters) - 1)
        return stride, stride, stride


class MedNeXtRecipe(AnyNetwork):
    """monai's MedNeXt: residual blocks of depthwise convolutions; the prescription enters as constant channels.

    Notes
    -----
    Roy et al. 2023 (MICCAI, LNCS 14223:405). `blocks` holds one number a level, the finest first; a level has its
    blocks on the way down and again on the way up. Widths double from level to level, beginning at `filters`; inside,
    a block is `expansion` times wider.
    """

    name: Literal["mednext"]
    filters: Count
    blocks: Annotated[list[Count], Field(min_length=2)]
    expansion: Count
    kernel: Literal[3, 5, 7]

    @property
    def total_stride_zyx(self) -> tuple[int, int, int]:
        """How many voxels of the input one voxel of the coarsest level spans."""
        stride = 2 ** (len(self.blocks) - 1)
        return stride, stride, stride


NetworkRecipe = FilmUNetRecipe | CascadeRecipe | DynUNetRecipe | MedNeXtRecipe
