"""Gradients that are not finite or not right: steps left out, trainings refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from doseledger.core.errors import BadCase, BadInput
from doseledger.learn.recipes.dose import CommonTrained

# So many steps of a training may be left out; 16-bit arithmetic gives one in some hundreds.
MOST_SKIPPED = 10
# What a validation measures errors under.
MEASURED_UNDER = ("valid_dose", "body")


def skip_infinite_step(network: nn.Module, skipped: Tensor, case_ids: Sequence[str], *, epoch: int) -> None:
    """Leave the next step out if its gradients are not finite, and count it; one in a training harms nothing.

    Parameters
    ----------
    network
        Has its gradients; all of them are taken away where one is not finite, and no weight moves.
    skipped
        How many steps were left out so far, int64 (); counted on.

    Raises
    ------
    BadInput
        At the step after `MOST_SKIPPED`: naming the cases of the batch and what to do.
    """
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    if torch.isfinite(nn.utils.get_total_norm(gradients)):
        return
    skipped += 1
    if skipped > MOST_SKIPPED:
        raise BadInput(
            f"loss or gradients are not finite for the {int(skipped)}th time, in epoch {epoch}, on "
            f"{', '.join(case_ids)}: look at these cases (`doseledger case show`); if they are sound, lower lr or "
            "optimiser.clip_norm, or train with precision 32-true"
        )
    # An optimiser leaves a weight without gradient as it is.
    network.zero_grad(set_to_none=True)


def refuse_wrong_gradients(recipe: CommonTrained, device: str) -> None:
    """Refuse patches of which a level of the network is two slices deep, in 16 bit on a CPU.

    Raises
    ------
    BadInput
        Saying what to set.

    Notes
    -----
    There torch 2.13 (oneDNN 3.12) gives a 3D convolution's weights gradients of memory that nobody wrote: infinite, or
    finite and wrong. One slice, three and more, two rows or columns, and 32 bit are right.
    """
    patch_zyx, deepest = recipe.sampling.patch_zyx, recipe.network.total_stride_zyx[0]
    if patch_zyx == "case" or recipe.fit.precision != "bf16-mixed" or device != "cpu":
        return
    strides = [2**level for level in range(deepest.bit_length())]
    if patch_zyx[0] in [2 * stride for stride in strides]:
        raise BadInput(
            f"sampling.patch_zyx {list(patch_zyx)}: a level of the network is two slices deep, where gradients in 16 "
            f"bit are wrong on a CPU; give at least {3 * deepest} slices, or set fit.precision to 32-true"
        )


def refuse_no_voxel(batch: Mapping[str, Any]) -> None:
    """Refuse a whole case that has no voxel under a mask of the scores: a mean over none would read as no error at all.

    Parameters
    ----------
    batch
        One case: `case_id`, and `valid_dose` and `body`, bool (1, 1, z, y, x).

    Raises
    ------
    BadCase
        Naming the case and the mask.
    """
    for name in MEASURED_UNDER:
        if not bool(batch[name].any()):
            raise BadCase(batch["case_id"][0], f"{name} has no voxel, so no error can be measured; ingest it again")


def refuse_infinite_scores(scores: Mapping[str, float], *, epoch: int) -> None:
    """Refuse a validation that is not finite.

    Raises
    ------
    BadInput
        Saying what to do.
    """
    if not all(math.isfinite(score) for score in scores.values()):
        raise BadInput(f"validation gives {dict(scores)} after epoch {epoch}: the weights have diverged; lower lr")
