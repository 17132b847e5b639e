"""The settings of a segmentation model as typed blocks."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from doseledger.core.schema import Block
from doseledger.learn.recipes.dose import (
    NOT_TRAINED,
    CommonRecipe,
    CommonTrained,
    Count,
    CountOrZero,
    NotNegative,
    PatchRecipe,
    Share,
)
from doseledger.learn.recipes.network import AnyNetwork

Axis = Literal["z", "y", "x"]
AXES: tuple[Axis, ...] = ("z", "y", "x")
Degrees = Annotated[float, Field(ge=0, le=180)]


class ImageRecipe(Block):
    """What the network sees of the image, and which structures it says.

    Notes
    -----
    `window`: stored values are clipped to it, HU of CT and thousandths of its own range of MR; mean and spread of what
    remains are measured on the training cases. `structures`: their names in the protocol, or `all`.
    """

    window: tuple[float, float]
    structures: Literal["all"] | Annotated[list[str], Field(min_length=1)]

    @model_validator(mode="after")
    def _window_rises(self) -> ImageRecipe:
        if not self.window[0] < self.window[1]:
            raise ValueError(f"window falls from {self.window[0]:g} to {self.window[1]:g}; the least first")
        return self


class VariationRecipe(Block):
    """How patches are varied; each share is that of the patches which it happens to.

    Notes
    -----
    Isensee et al. 2021 (Nat Methods 18:203), supplement: rotation and scaling, noise, blur, brightness, contrast, low
    resolution and gamma. `rotate_deg` is the most about z, y and x: about the slices' own axis alone where voxels are
    long. Amounts of noise and brightness are in spreads of the image.
    """

    affine_share: Share
    rotate_deg: tuple[Degrees, Degrees, Degrees]
    scale: Share
    noise_share: Share
    noise: NotNegative
    blur_share: Share
    blur_voxels: NotNegative
    brightness_share: Share
    brightness: NotNegative
    contrast_share: Share
    contrast: Share
    low_resolution_share: Share
    least_resolution: Annotated[float, Field(gt=0, le=1)]
    gamma_share: Share
    gamma: Share


class ForegroundRecipe(PatchRecipe):
    """How patches are drawn of the training cases, and how they are varied.

    Notes
    -----
    `foreground_share` of the patches are centred in a structure, drawn evenly of those that are there, the rest
    anywhere in the image.
    """

    foreground_share: Share
    variation: VariationRecipe

    @model_validator(mode="after")
    def _patches_have_a_size(self) -> Self:
        if self.patch_zyx == "case":
            raise ValueError("patch_zyx: case is for doses, which count in a part of the image; give a size")
        return self


class SliceRecipe(Block):
    """Slices along an axis, each seen with so many neighbours on either side (0: 2D, more: 2.5D)."""

    axis: Axis
    neighbours: CountOrZero


def _stride_zyx(stride: int, slices: SliceRecipe | None) -> tuple[int, int, int]:
    z, y, x = (1 if slices is not None and slices.axis == axis else stride for axis in AXES)
    return z, y, x


class UNetRecipe(AnyNetwork):
    """monai's U-Net, in 3D or on slices (`slices`).

    Notes
    -----
    Kerfoot et al. 2019 (LNCS 11395:371). `channels` holds one number a level, the finest first; `strides` one a step
    from level to level; `residual_units` convolutions a level are bridged (0: two plain ones).
    """

    name: Literal["unet"]
    channels: Annotated[list[Count], Field(min_length=2)]
    strides: list[Literal[1, 2]]
    residual_units: CountOrZero
    dropout: Annotated[float, Field(ge=0, lt=1)]
    slices: SliceRecipe | None

    @model_validator(mode="after")
    def _levels_agree(self) -> UNetRecipe:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} channels for {len(self.strides)} strides; one less than channels")
        return self

    @property
    def total_stride_zyx(self) -> tuple[int, int, int]:
        """How many voxels of the input one voxel of the coarsest level spans."""
        stride = 1
        for step in self.strides:
            stride *= step
        return _stride_zyx(stride, self.slices)


class AnisotropyRecipe(Block):
    """How the axes z, y, x are halved from level to level where voxels, or images, are no cubes.

    Notes
    -----
    An axis of long voxels is left as it is on its first `late_zyx` steps, with kernels of one voxel along it, and then
    halved at each step until it was halved `halvings_zyx` times (Isensee et al. 2021).
    """

    late_zyx: tuple[CountOrZero, CountOrZero, CountOrZero]
    halvings_zyx: tuple[CountOrZero, CountOrZero, CountOrZero]


class DeepUNetRecipe(AnyNetwork):
    """monai's DynUNet, the network of nnU-Net, in 3D or on slices; `supervised` coarser levels have a loss too.

    Notes
    -----
    `filters` holds one number a level, the finest first. `anisotropy` is null where each step halves every axis.
    """

    name: Literal["dynunet"]
    filters: Annotated[list[Count], Field(min_length=3)]
    residual: bool
    supervised: CountOrZero
    anisotropy: AnisotropyRecipe | None
    slices: SliceRecipe | None

    @model_validator(mode="after")
    def _has_the_levels(self) -> DeepUNetRecipe:
        if self.anisotropy is not None and self.slices is not None:
            raise ValueError("anisotropy is of networks in 3D; null where `slices` names an axis")
        if any(set(step) == {1} for step in self.strides_zyx):
            raise ValueError(f"anisotropy leaves a step of {len(self.filters) - 1} that halves no axis; fewer filters")
        if self.supervised > len(self.filters) - 2:
            raise ValueError(
                f"supervised is {self.supervised}; of {len(self.filters)} levels at most {len(self.filters) - 2} are"
            )
        return self

    @property
    def total_stride_zyx(self) -> tuple[int, int, int]:
        """How many voxels of the input one voxel of the coarsest level spans."""
        if self.anisotropy is None:
            return _stride_zyx(2 ** (len(self.filters) - 1), self.slices)
        z, y, x = (prod(step[axis] for step in self.strides_zyx) for axis in range(3))
        return z, y, x

    @property
    def strides_zyx(self) -> list[tuple[int, int, int]]:
        """How many voxels of a level one of the next spans along z, y, x, for each step."""
        steps = []
        for step in range(len(self.filters) - 1):
            z, y, x = (2 if late <= step < late + n else 1 for late, n in self._axes)
            steps.append((z, y, x))
        return steps

    @property
    def kernels_zyx(self) -> list[tuple[int, int, int]]:
        """Size of the convolutions along z, y, x for each level."""
        levels = []
        for level in range(len(self.filters)):
            z, y, x = (1 if level < late else 3 for late, _ in self._axes)
            levels.append((z, y, x))
        return levels

    @property
    def _axes(self) -> list[tuple[int, int]]:
        if self.anisotropy is None:
            return [(0, len(self.filters) - 1)] * 3
        return list(zip(self.anisotropy.late_zyx, self.anisotropy.halvings_zyx, strict=True))


SegmentNetwork = UNetRecipe | DeepUNetRecipe


class OverlapLossRecipe(Block):
    """The loss: soft Dice of the structures, alone or beside cross entropy or its focal form (monai).

    Notes
    -----
    Milletari et al. 2016; Lin et al. 2017 (focal, `focal_gamma`). `whole_batch` sums overlaps over the batch before
    they are divided, so that a patch without a structure brings no jump.
    """

    name: Literal["dice", "dice_ce", "dice_focal"]
    whole_batch: bool
    focal_gamma: NotNegative


class SegmentPredict(Block):
    """How whole cases are segmented from windows of the training patch's size; changing it retrains nothing.

    Notes
    -----
    `overlap` and `windows_at_once` as for a dose. `flips`: the case is predicted mirrored along each combination of
    these axes as well, and probabilities are averaged; sides change places along x. `largest_part` keeps the largest
    connected part of each structure, `fill_holes` fills what a structure closes in.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)]
    windows_at_once: Count
    spacing_tolerance: NotNegative
    flips: list[Axis]
    largest_part: bool
    fill_holes: bool

    @model_validator(mode="after")
    def _flips_once(self) -> SegmentPredict:
        if len(set(self.flips)) != len(self.flips):
            raise ValueError(f"flips name an axis twice: {self.flips}")
        return self


class TrainedSegmentation(CommonTrained):
    """What decides a segmentation network's weights; `ema_decay` 0 keeps the weights as they are."""

    kind: Literal["segmentation"]
    inputs: ImageRecipe
    sampling: ForegroundRecipe
    network: Annotated[SegmentNetwork, Field(discriminator="name")]
    loss: OverlapLossRecipe
    ema_decay: Annotated[float, Field(ge=0, lt=1)]


class SegmentationRecipe(TrainedSegmentation, CommonRecipe):
    """One segmentation model: all that params.yaml says of it."""

    predict: SegmentPredict

    def quick(self) -> SegmentationRecipe:
        """Return the same without test-time flips and cleaning."""
        few = {"flips": [], "largest_part": False, "fill_holes": False}
        return self.model_copy(update={"predict": self.predict.model_copy(update=few)})

    def trained_part(self) -> TrainedSegmentation:
        """Return what decides the weights: all but how patches are brought and how cases are predicted."""
        return TrainedSegmentation.model_validate(self.model_dump(exclude=NOT_TRAINED))
