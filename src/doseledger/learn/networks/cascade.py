"""A cascade of two U-Nets: the first one's dose is an input of the second."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Cascade(nn.Module):
    """Two networks in a row; the second sees the first one's dose as one more channel of its image.

    Parameters
    ----------
    first
        (image of n channels, condition) -> dose.
    second
        (image of n + 1 channels, condition) -> dose.

    Notes
    -----
    Liu et al. 2021 (Med Phys 48:5574). The first one's dose is no fixed input: the second's loss trains both.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return the second one's dose (batch, 1, z, y, x); in training (batch, 2, …), the first one's beside it."""
        coarse: Tensor = self.first(image, condition)
        fine: Tensor = self.second(torch.cat([image, coarse], dim=1), condition)
        return torch.cat([fine, coarse], dim=1) if self.training else fine
