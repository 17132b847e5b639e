"""Sliding-window prediction of a whole case, every voxel proven to be covered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from doseledger.core.errors import BadInput
from doseledger.learn.recipes.dose import PatchSize

# A voxel that every window covers has weight 1 after blending; rounding in float32 is far below this.
COVERED = 0.999
# Of the windows of a validation. Not the recipe's overlap of prediction: that one may change without retraining, and
# must not choose the epoch.
VALIDATION_OVERLAP = 0.25


def predict_whole(
    network: nn.Module, batch: dict[str, Any], patch_zyx: PatchSize, *, overlap: float, windows_at_once: int
) -> Tensor:
    """Return the dose (1, 1, z, y, x) of one whole case in units of the dose scale, as the network says it.

    Parameters
    ----------
    batch
        One case, at least as large as the patch, with `image` (1, C, z, y, x) and `condition` (1, K).
    overlap
        Share of a window that its neighbour covers too.
    patch_zyx
        Size of the windows, or `case`: one of the case's own size.

    Raises
    ------
    BadInput
        If a voxel was not covered by any window.
    """
    condition = batch["condition"]

    def predict_windows(windows: Tensor) -> Tensor:
        return network(windows, condition.expand(len(windows), -1))

    return slide(predict_windows, batch["image"], patch_zyx, overlap=overlap, windows_at_once=windows_at_once)


def slide(
    network: Callable[[Tensor], Tensor], image: Tensor, patch_zyx: PatchSize, *, overlap: float, windows_at_once: int
) -> Tensor:
    """Return what a network says of a whole image (1, C, z, y, x), window by window, blended by Gaussian weights.

    Parameters
    ----------
    network
        From windows (n, C, z, y, x) to (n, K, z, y, x).
    patch_zyx, overlap, windows_at_once
        As `predict_whole` takes them.

    Raises
    ------
    BadInput
        If a voxel was not covered by any window.
    """
    if patch_zyx == "case":
        return network(image).float()
    from monai.inferers.utils import sliding_window_inference

    def predict_windows(windows: Tensor) -> tuple[Tensor, Tensor]:
        # What is returned is weighted in place: a network that passes a channel on would have its image changed.
        said = network(windows).float().clone()
        return said, torch.ones_like(said[:, :1])

    # The second map is blended as the first is: where it is 1, windows have covered the voxel.
    said, covered = sliding_window_inference(
        image, patch_zyx, windows_at_once, predict_windows, overlap=overlap, mode="gaussian"
    )
    uncovered = int((~(covered > COVERED)).sum())
    if uncovered:
        raise BadInput(
            f"{uncovered} voxels were covered by no window of {patch_zyx} with overlap {overlap}: "
            "this is a fault of the program; report it"
        )
    result: Tensor = said
    return result
