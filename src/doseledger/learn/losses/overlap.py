"""Losses of a segmentation by overlap and by voxel, of monai."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from doseledger.learn.recipes.segmentation import OverlapLossRecipe


def make_overlap_loss(recipe: OverlapLossRecipe) -> Any:
    """Return the recipe's loss of logits (batch, class, z, y, x) and a label map (batch, 1, z, y, x)."""
    from monai.losses import DiceCELoss, DiceLoss, FocalLoss

    options = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": recipe.whole_batch}
    if recipe.name == "dice_ce":
        return DiceCELoss(**options)
    dice = DiceLoss(**options)
    if recipe.name == "dice":
        return dice
    # Not monai's sum of the two: its focal part takes classes as independent.
    focal = FocalLoss(include_background=True, to_onehot_y=True, gamma=recipe.focal_gamma, use_softmax=True)
    return lambda said, labels: dice(said, labels) + focal(said, labels)


class SupervisedLoss:
    """A loss of the finest logits, and half as much of each coarser level's (Isensee et al. 2021)."""

    def __init__(self, recipe: OverlapLossRecipe) -> None:
        self.loss = make_overlap_loss(recipe)

    def __call__(self, said: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """Return the loss, a scalar in float32."""
        levels = said if isinstance(said, list) else [said]
        weights = [0.5**level for level in range(len(levels))]
        terms = [w * self.loss(one.float(), labels) for w, one in zip(weights, levels, strict=True)]
        return torch.stack(terms).sum() / sum(weights)
