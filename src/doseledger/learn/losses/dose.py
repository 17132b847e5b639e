"""Losses of a predicted dose, and their sum by recipe.

Doses are (batch, 1, z, y, x) in units of the dose scale, masks bool; every mean says over which voxels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import InputSpec
from doseledger.learn.losses.dvh import DvhTerm, moment_term, read_statistics
from doseledger.learn.recipes.dose import LossRecipe


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return Σ w·v / Σ w; 0 where there is no weight at all."""
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))


def voxel_error(prediction: Tensor, reference: Tensor, kind: str) -> Tensor:
    """Return the absolute (`l1`) or squared (`mse`) error of each voxel."""
    difference = prediction - reference
    return difference.abs() if kind == "l1" else difference.square()


def asymmetric_error(prediction: Tensor, reference: Tensor, under: float, over: float) -> Tensor:
    """Return `under` times what is missing to the plan's dose plus `over` times what is above it, voxel by voxel."""
    difference = prediction - reference
    return under * (-difference).clamp_min(0) + over * difference.clamp_min(0)


def gradient_error(prediction: Tensor, reference: Tensor, mask: Tensor, spacing_mm: Tensor) -> Tensor:
    """Return the mean absolute error of the dose's gradient, in dose scales per cm, over neighbours both in the mask.

    Parameters
    ----------
    spacing_mm
        (batch, 3) along z, y, x.
    """
    terms = []
    for axis in range(3):
        dim = axis + 2
        both = mask.narrow(dim, 1, mask.shape[dim] - 1) & mask.narrow(dim, 0, mask.shape[dim] - 1)
        error = (torch.diff(prediction, dim=dim) - torch.diff(reference, dim=dim)).abs()
        per_cm = (10.0 / spacing_mm[:, axis]).view(-1, 1, 1, 1, 1)
        terms.append(weighted_mean(error * per_cm, both.to(error.dtype)))
    return torch.stack(terms).mean()


class DoseLoss:
    """The recipe's loss of a batch: call it with the prediction and the batch.

    Parameters
    ----------
    further_weights
        Weight of the same loss for each further dose that the network gives in training.

    Raises
    ------
    BadInput
        If the recipe weighs a structure that the cases do not have, or names an unknown statistic.
    """

    def __init__(self, recipe: LossRecipe, spec: InputSpec, further_weights: tuple[float, ...] = ()) -> None:
        strangers = sorted(set(recipe.structure_weights) - set(spec.structure_names))
        if strangers:
            raise BadInput(
                f"loss.structure_weights: the cases have no {', '.join(strangers)}; "
                f"they have {', '.join(spec.structure_names)}"
            )
        self.recipe, self.output_weights = recipe, (1.0, *further_weights)
        self.targets = [spec.structure_names.index(name) for name in spec.target_names]
        self.weights = {
            index: recipe.structure_weights.get(name, recipe.target_weight if index in self.targets else 1.0)
            for index, name in enumerate(spec.structure_names)
        }
        wanted = {kind: read_statistics(names) for kind, names in recipe.dvh_statistics.items()}
        self.dvh = DvhTerm(
            [wanted.get("target" if i in self.targets else "organ", []) for i in range(len(spec.structure_names))],
            spec.recipe.dose_scale_gy,
            (recipe.dvh_soft_percent, recipe.dvh_soft_gy),
        )

    def voxel_weights(self, mask: Tensor, masks: Tensor) -> Tensor:
        """Return the weight of each voxel (batch, 1, z, y, x): the largest of its structures', 1 where there is none.

        It is 0 outside the mask.
        """
        weights = torch.zeros_like(mask, dtype=torch.float32)
        for index, weight in self.weights.items():
            weights = torch.maximum(weights, masks[:, index : index + 1] * weight)
        return torch.where(weights == 0, 1.0, weights) * mask

    def __call__(self, prediction: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the loss, a scalar in float32, of all the doses (batch, dose, z, y, x) that the network gives."""
        loss = torch.zeros((), device=prediction.device)
        for index, weight in enumerate(self.output_weights):
            loss = loss + weight * self.loss_of(prediction[:, index : index + 1], batch)
        return loss

    def loss_of(self, prediction: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the loss, a scalar in float32, of one dose (batch, 1, z, y, x)."""
        recipe, prediction, reference = self.recipe, prediction.float(), batch["dose"]
        mask, masks = batch[recipe.mask], batch["masks"] & batch[recipe.mask]
        error = voxel_error(prediction, reference, recipe.voxel)
        loss = weighted_mean(error, self.voxel_weights(mask, masks))
        if recipe.underdose or recipe.overdose:
            inside = masks[:, self.targets].any(dim=1, keepdim=True).float()
            skewed = asymmetric_error(prediction, reference, recipe.underdose, recipe.overdose)
            loss = loss + weighted_mean(skewed, inside)
        if recipe.gradient:
            loss = loss + recipe.gradient * gradient_error(prediction, reference, mask, batch["spacing_mm"])
        if recipe.dvh:
            loss = loss + recipe.dvh * self.dvh(prediction, reference, masks)
        if recipe.moment:
            loss = loss + recipe.moment * moment_term(prediction, reference, masks, recipe.moment_orders)
        return loss
