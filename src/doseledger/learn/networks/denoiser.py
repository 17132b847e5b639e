"""The denoising network of a diffusion: scale of x0, inputs, draws of volumes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from doseledger.core.types import IntTriple
from doseledger.learn.data.inputs import InputSpec
from doseledger.learn.networks.schedule import (
    EMBEDDING_SIZE,
    Parameterisation,
    Sampler,
    embed_time,
    sample,
    sampling_angles,
    x0_of_output,
)
from doseledger.learn.networks.unet import build_network
from doseledger.learn.networks.windows import predict_whole
from doseledger.learn.recipes.diffusion import TrainedDiffusion
from doseledger.learn.recipes.dose import PatchSize


@dataclass(frozen=True)
class DoseScale:
    """What x0 is: (dose − base − centre) / width, all in units of the dose scale.

    Parameters
    ----------
    centre, width
        Of a residual: 0, and its root mean square on training cases, so that x0 is as large as the noise. Of the dose
        itself: both half of `most`, so that x0 lies in [-1, 1].
    most
        No dose is higher than this.
    """

    centre: float
    width: float
    most: float

    def to_x0(self, dose: Tensor, base: Tensor) -> Tensor:
        """Return x0 of a dose."""
        return (dose - base - self.centre) / self.width

    def to_dose(self, x0: Tensor, base: Tensor) -> Tensor:
        """Return the dose of an x0."""
        return x0 * self.width + self.centre + base

    def clamp(self, x0: Tensor, base: Tensor, valid: Tensor) -> Tensor:
        """Return the nearest x0 whose dose can be: 0 to `most`, and 0 where `valid` is not."""
        return self.to_x0(self.to_dose(x0, base).clamp(0.0, self.most) * valid, base)


@dataclass(frozen=True)
class DrawSettings:
    """How doses of whole cases are drawn: the windows, and the sampler's steps."""

    patch_zyx: PatchSize
    overlap: float
    windows_at_once: int
    steps: int
    sampler: Sampler
    parameterisation: Parameterisation


def build_noise_network(recipe: TrainedDiffusion, spec: InputSpec) -> nn.Module:
    """Return the network with fresh weights: a dose network that sees the state, the base and the time besides."""
    return build_network(spec.n_channels + 2, spec.n_conditions + EMBEDDING_SIZE, recipe.network)


def ask_network(network: nn.Module, batch: dict[str, Any], base: Tensor, x: Tensor, phi: Tensor) -> Tensor:
    """Return what the network says of states x (batch, 1, z, y, x) at angles phi (batch,)."""
    image = torch.cat([batch["image"], base.to(x.dtype), x], dim=1)
    output: Tensor = network(image, torch.cat([batch["condition"], embed_time(phi)], dim=1))
    return output.float()


def base_of_patches(base: nn.Module | None, batch: dict[str, Any]) -> Tensor:
    """Return the base model's dose of a batch of patches, 0 where no dose is defined; 0 all over without a base."""
    if base is None:
        return torch.zeros_like(batch["dose"])
    with torch.no_grad():
        dose: Tensor = base(batch["image"], batch["condition"])
        return dose.float().clamp_min(0.0) * batch["valid_dose"]


def base_of_case(base: nn.Module | None, batch: dict[str, Any], settings: DrawSettings) -> Tensor:
    """Return the base model's dose of a whole case, window by window; 0 all over without a base."""
    if base is None:
        return torch.zeros_like(batch["valid_dose"], dtype=torch.float32)
    dose = predict_whole(
        base, batch, settings.patch_zyx, overlap=settings.overlap, windows_at_once=settings.windows_at_once
    )
    return dose.clamp_min(0.0) * batch["valid_dose"]


def layered_noise(draw: Callable[[IntTriple], Tensor], shape_zyx: IntTriple, coarse: float) -> Tensor:
    """Return noise (…, z, y, x) of unit variance: white, and layers of blocks twice as wide each, up to the whole.

    Parameters
    ----------
    draw
        From a shape to standard normal numbers (…, z, y, x).
    coarse
        How strong a layer is, of the next finer one; 0 for white noise alone.

    Notes
    -----
    White noise hides a voxel long before it hides what a volume shares, which is then decided in a sampler's first
    step, and too narrowly. Any Gaussian noise will do for a diffusion ("multi-resolution noise", Whitaker 2023).
    """
    noise, strength, variance, width = draw(shape_zyx), 1.0, 1.0, 1
    while coarse and width < max(shape_zyx):
        width, strength = 2 * width, coarse * strength
        z, y, x = (-(-size // width) for size in shape_zyx)
        blocks = draw((z, y, x))
        for axis, size in zip((-3, -2, -1), shape_zyx, strict=True):
            blocks = blocks.repeat_interleave(width, dim=axis).narrow(axis, 0, size)
        noise, variance = noise + strength * blocks, variance + strength**2
    return noise / variance**0.5 if coarse else noise


def noise_fields(seed: int, case_id: str, numbers: Sequence[int], shape_zyx: IntTriple, coarse: float = 0.0) -> Tensor:
    """Return one field of `layered_noise` over the whole case for each sample number, (n, 1, z, y, x).

    Decided by seed, case and number alone: neither batch nor order nor device changes a sample.
    """

    def field(number: int) -> Tensor:
        rng = np.random.default_rng([seed, zlib.crc32(case_id.encode()), number])
        return layered_noise(lambda shape: torch.from_numpy(rng.standard_normal(shape, np.float32)), shape_zyx, coarse)

    return torch.stack([field(number) for number in numbers])[:, None]


def draw_doses(
    network: nn.Module, scale: DoseScale, batch: dict[str, Any], base: Tensor, noise: Tensor, settings: DrawSettings
) -> Tensor:
    """Return doses (n, 1, z, y, x) of one whole case in units of the dose scale, one for each field of noise.

    Parameters
    ----------
    batch
        One case, with `image` (1, C, z, y, x), `condition` (1, K) and `valid_dose` (1, 1, z, y, x).
    base
        The base model's dose of it, (1, 1, z, y, x).
    noise
        One field over the whole case for each dose: the windows of a step see parts of one state, and what they say
        of x0 is blended before the next step, so that they can't drift apart.
    """
    n, valid = len(noise), batch["valid_dose"]
    seen = torch.cat([batch["image"], base], dim=1).expand(n, -1, -1, -1, -1)

    def denoise(x: Tensor, phi: Tensor) -> Tensor:
        time = embed_time(phi.to(x.device)[None])
        inputs = {
            "image": torch.cat([seen, x], dim=1),
            "condition": torch.cat([batch["condition"], time], dim=1),
        }
        output = predict_whole(
            network, inputs, settings.patch_zyx, overlap=settings.overlap, windows_at_once=settings.windows_at_once
        )
        return scale.clamp(x0_of_output(output, x, phi, settings.parameterisation), base, valid)

    x0 = sample(denoise, noise, sampling_angles(settings.steps).to(noise.device), settings.sampler)
    return scale.to_dose(x0, base)
