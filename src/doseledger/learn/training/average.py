"""The moving average of a network's weights in training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from doseledger.learn.training.task import NetworkTask

# The average forgets its first weights faster than its decay says, as in Karras et al. 2022's and others' code.
EMA_WARMUP = 10.0


def _moving_average(decay: float, mean: Tensor, now: Tensor, n: Tensor) -> Tensor:
    return torch.lerp(mean, now, 1 - min(decay, (1 + float(n)) / (EMA_WARMUP + float(n))))


class AveragedTask(NetworkTask):
    """A task whose network's weights are averaged as it trains; the average is what predicts.

    Parameters
    ----------
    decay
        Of the average at most; 0 keeps none, and the network's own weights predict.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = network
        self.ema: AveragedModel | None = None
        if decay:
            self.ema = AveragedModel(network, avg_fn=partial(_moving_average, decay)).requires_grad_(False)
            # From 1: at 0 the first update would be a copy.
            self.ema.n_averaged.fill_(1)

    @property
    def averaged(self) -> nn.Module:
        """The network with the weights that predict."""
        return self.network if self.ema is None else self.ema

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make one step and take the weights into their moving average, before any hook keeps them."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update_parameters(self.network)

    def begin_from(self, weights: Mapping[str, Tensor], extras: Mapping[str, Any]) -> None:
        """Take over a trained network's weights; their average begins with them."""
        super().begin_from(weights, extras)
        if self.ema is not None:
            self.ema.module.load_state_dict(weights)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that predict."""
        weights: dict[str, Tensor] = (self.network if self.ema is None else self.ema.module).state_dict()
        return weights
