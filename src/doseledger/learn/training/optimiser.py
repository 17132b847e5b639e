"""Optimisers and schedules of the learning rate, as a recipe asks for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from doseledger.learn.recipes.dose import FitRecipe, OptimiserRecipe


def scheduled_optimiser(
    network: torch.nn.Module, recipe: OptimiserRecipe, fit: FitRecipe, *, lr: float, n_steps: int, monitor: str
) -> dict[str, Any]:
    """Return the optimiser and the schedule of its learning rate, in Lightning's form.

    Parameters
    ----------
    lr
        The rate itself, before the schedule.
    n_steps
        Steps of the optimiser in the whole run.
    monitor
        The score that a plateau is one of.
    """
    optimiser = build_optimiser(network, recipe, lr)
    if recipe.schedule == "plateau":
        plateau = ReduceLROnPlateau(optimiser, factor=recipe.plateau_factor, patience=recipe.plateau_epochs)
        settings = {"scheduler": plateau, "monitor": monitor, "interval": "epoch", "frequency": fit.validate_every}
        return {"optimizer": optimiser, "lr_scheduler": settings}
    schedule = LambdaLR(optimiser, lambda step: lr_share(step, n_steps, recipe))
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build_optimiser(network: torch.nn.Module, recipe: OptimiserRecipe, lr: float) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of all weights."""
    if recipe.name == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
        )
    kind = torch.optim.Adam if recipe.name == "adam" else torch.optim.AdamW
    return kind(network.parameters(), lr=lr, weight_decay=recipe.weight_decay)


def lr_share(step: int, n_steps: int, recipe: OptimiserRecipe) -> float:
    """Return which share of the learning rate step `step` of `n_steps` has: a linear rise, then cosine or constant.

    Notes
    -----
    Loshchilov & Hutter 2017, eq. 5, without restarts, after a linear warm-up.
    """
    warmup = max(1, round(recipe.warmup_share * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    if recipe.schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, n_steps - warmup))
    return recipe.final_share + (1 - recipe.final_share) * 0.5 * (1 + math.cos(math.pi * done))
