"""Networks in training, all kinds alike: step, validation, optimiser."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from doseledger.learn.run import DOSE_SCORES, mean_scores
from doseledger.learn.training.finite import refuse_infinite_scores, skip_infinite_step
from doseledger.learn.training.optimiser import scheduled_optimiser


class NetworkTask(pl.LightningModule):
    """A network in training. A family adds `batch_loss` and `validation_step`, which fills `errors`."""

    # Names of a case's errors; the first is what plateau schedules and the best checkpoint look at.
    scores: ClassVar[tuple[str, ...]] = DOSE_SCORES
    network: nn.Module
    recipe: Any
    lr: float
    skipped: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Of each case of the validation so far.
        self.errors: list[tuple[float, ...]] = []
        self.case_ids: list[str] = []
        # Steps left out so far; a buffer, so that a resumed run counts on.
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def batch_loss(self, batch: dict[str, Any], index: int) -> tuple[Tensor, Tensor]:
        """Return the batch's loss, a scalar, and what the network said."""

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        """Return the batch's loss."""
        self.case_ids = list(batch["case_id"])
        loss, _ = self.batch_loss(batch, index)
        # An absolute error that is NaN has a gradient of 0: made NaN, so that all processes leave the step out.
        return loss if torch.isfinite(loss) else loss * torch.nan

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out a step whose gradients are not finite.

        Raises
        ------
        BadInput
            If that was too often: naming the cases of the batch and what to do.
        """
        skip_infinite_step(self.network, self.skipped, self.case_ids, epoch=self.current_epoch)

    def begin_from(self, weights: Mapping[str, Tensor], extras: Mapping[str, Any]) -> None:
        """Take over a trained network's weights, those that predict; the optimiser begins anew."""
        self.network.load_state_dict(weights)

    def extras(self) -> dict[str, Any]:
        """Return what prediction needs beside recipe and weights: nothing."""
        return {}

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.errors = []

    def validation_scores(self) -> dict[str, float]:
        """Return the mean over the cases of the last validation of each error, by name."""
        return mean_scores(self.errors, self.scores)

    def on_validation_epoch_end(self) -> None:
        """Look at the scores.

        Raises
        ------
        BadInput
            If one is not finite.
        """
        refuse_infinite_scores(self.validation_scores(), epoch=self.current_epoch)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser and the schedule of its learning rate."""
        n_steps = int(self.trainer.estimated_stepping_batches)
        return scheduled_optimiser(self.network, self.recipe.optimiser, lr=self.lr, n_steps=n_steps)
