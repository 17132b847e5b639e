"""Random variation of patches, by monai's transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from doseledger.learn.recipes.segmentation import VariationRecipe

BOTH, IMAGE = ("image", "label"), ("image",)


def make_variation(recipe: VariationRecipe, *, spread: float) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Return what varies a sample of `image` and `label` tensors (1, z, y, x), given a seed.

    Parameters
    ----------
    spread
        Width of the image's window in the network's units: amounts of noise and brightness are parts of it.

    Notes
    -----
    The label goes along where voxels move, nearest neighbour; intensities change in the image alone. Equal seeds give
    equal samples.
    """
    from monai.transforms import (
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandShiftIntensityd,
        RandSimulateLowResolutiond,
    )

    radians = [float(np.radians(degrees)) for degrees in recipe.rotate_deg]
    blur = (0.0, recipe.blur_voxels)
    steps: list[Any] = [
        RandAffined(
            BOTH,
            prob=recipe.affine_share,
            rotate_range=radians,
            scale_range=[recipe.scale] * 3,
            mode=("bilinear", "nearest"),
            padding_mode="border",
        ),
        RandGaussianSmoothd(IMAGE, prob=recipe.blur_share, sigma_x=blur, sigma_y=blur, sigma_z=blur),
        RandGaussianNoised(IMAGE, prob=recipe.noise_share, std=recipe.noise * spread),
        RandScaleIntensityd(IMAGE, factors=recipe.contrast, prob=recipe.contrast_share),
        RandShiftIntensityd(IMAGE, offsets=recipe.brightness * spread, prob=recipe.brightness_share),
        RandSimulateLowResolutiond(IMAGE, prob=recipe.low_resolution_share, zoom_range=(recipe.least_resolution, 1.0)),
        RandAdjustContrastd(
            IMAGE, prob=recipe.gamma_share, gamma=(1.0 - recipe.gamma, 1.0 + recipe.gamma), retain_stats=True
        ),
    ]
    transforms = Compose(steps)

    def vary(sample: dict[str, Any], seed: int) -> dict[str, Any]:
        transforms.set_random_state(seed=seed)
        varied = transforms(dict(sample))
        # Plain tensors: monai's own carry the list of what was done to them.
        return {name: value.as_tensor() if hasattr(value, "as_tensor") else value for name, value in varied.items()}

    return vary
