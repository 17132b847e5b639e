"""Stop training on NaN or infinite loss, and name the cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from doseledger.core.errors import BadCase, BadInput

# What a validation measures errors under.
MEASURED_UNDER = ("valid_dose", "body")


def refuse_infinite_loss(loss: Tensor, case_ids: Sequence[str], *, epoch: int, index: int) -> None:
    """Refuse a loss that is not finite.

    Raises
    ------
    BadInput
        Naming the cases of the batch and what to do.
    """
    if not torch.isfinite(loss):
        raise BadInput(
            f"the loss became {loss.item()} in epoch {epoch}, batch {index}, on {', '.join(case_ids)}: look at these "
            "cases (`doseledger case show`); if they are sound, lower lr or optimiser.clip_norm, or train with "
            "precision 32-true"
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
