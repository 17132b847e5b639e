"""Optimisers and schedules of the learning rate, as a recipe asks for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from doseledger.learn.recipes.dose import OptimiserRecipe

# An improvement by less than this share is none.
PLATEAU_THRESHOLD = 1e-4


def scheduled_optimiser(
    network: torch.nn.Module, recipe: OptimiserRecipe, *, lr: float, n_steps: int
) -> dict[str, Any]:
    """Return the optimiser and the schedule of its learning rate, in Lightning's form.

    A plateau's rate follows from the history of scores: `plateau_share`, set as an epoch ends.

    Parameters
    ----------
    lr
        The rate itself, before the schedule.
    n_steps
        Steps of the optimiser in the whole run.
    """
    optimiser = build_optimiser(network, recipe, lr)
    if recipe.schedule == "plateau":
        return {"optimizer": optimiser}
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


def plateau_share(scores: Sequence[float], recipe: OptimiserRecipe) -> float:
    """Return which share of the learning rate is left after these validation scores, the less the better.

    Notes
    -----
    As torch's ReduceLROnPlateau, which keeps a state of its own; this one is a function of the history that a resumed
    run has anyway.
    """
    share, best, n_worse = 1.0, math.inf, 0
    for score in scores:
        if score < best * (1.0 - PLATEAU_THRESHOLD):
            best, n_worse = score, 0
            continue
        n_worse += 1
        if n_worse > recipe.plateau_epochs:
            share, n_worse = share * recipe.plateau_factor, 0
    return share
