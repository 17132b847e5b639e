"""What Lightning trains: the network with its loss, its optimiser and its validation on whole cases."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from doseledger.core.errors import BadInput
from doseledger.learn.inputs import InputSpec
from doseledger.learn.losses import DoseLoss, weighted_mean
from doseledger.learn.networks import build_network
from doseledger.learn.recipe import OptimiserRecipe, TrainedRecipe
from doseledger.learn.windows import predict_whole

# What best.ckpt, early stopping and the plateau schedule look at; the mask is in the name.
MONITORED = "val_mae_valid_dose_gy"
# Not the recipe's overlap of prediction: that one may change without retraining, and must not choose the epoch.
VALIDATION_OVERLAP = 0.25


class DoseTask(pl.LightningModule):
    """A dose network in training.

    Parameters
    ----------
    recipe, spec
        The model's block, and the channels and conditions that its cases have.
    lr
        The learning rate itself: base rate times the recipe's factor.
    """

    def __init__(self, recipe: TrainedRecipe, spec: InputSpec, lr: float) -> None:
        super().__init__()
        self.recipe, self.spec, self.lr = recipe, spec, lr
        self.network = build_network(spec.n_channels, spec.n_conditions, recipe.network)
        self.loss = DoseLoss(recipe.loss, spec)
        # Sums of the validation so far: error in Gy over the valid dose and over the body, and the voxels of each.
        self.errors: list[tuple[float, float]] = []

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        """Return the batch's loss.

        Raises
        ------
        BadInput
            If it is not finite: naming the cases of the batch and what to do.
        """
        loss = self.loss(self.network(batch["image"], batch["condition"]), batch)
        if not torch.isfinite(loss):
            raise BadInput(
                f"the loss became {loss.item()} in epoch {self.current_epoch}, batch {index}, on "
                f"{', '.join(batch['case_id'])}: look at these cases (`doseledger inspect`); if they are sound, "
                "lower lr or optimiser.clip_norm, or train with precision 32-true"
            )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.errors = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Add one whole case to the validation."""
        patch_zyx = self.recipe.sampling.patch_zyx
        dose = predict_whole(self.network, batch, patch_zyx, overlap=VALIDATION_OVERLAP, windows_at_once=1).clamp_min(0)
        error_gy = (dose * batch["valid_dose"] - batch["dose"]).abs() * self.spec.recipe.dose_scale_gy
        in_valid, in_body = (
            float(weighted_mean(error_gy, batch[mask].to(error_gy.dtype))) for mask in ("valid_dose", "body")
        )
        self.errors.append((in_valid, in_body))

    def validation_scores(self) -> dict[str, float]:
        """Return the mean over the cases of the last validation of their MAE in Gy, by named mask."""
        n = len(self.errors)
        return {
            MONITORED: sum(valid for valid, _ in self.errors) / n,
            "val_mae_body_gy": sum(body for _, body in self.errors) / n,
        }

    def on_validation_epoch_end(self) -> None:
        """Hand the scores to Lightning, whose plateau schedule looks for them.

        Raises
        ------
        BadInput
            If a prediction is not finite.
        """
        scores = self.validation_scores()
        if not all(math.isfinite(score) for score in scores.values()):
            raise BadInput(
                f"validation gives {scores} after epoch {self.current_epoch}: the weights have diverged; lower lr"
            )
        self.log_dict(scores, logger=False)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser and the schedule of its learning rate."""
        optimiser = build_optimiser(self.network, self.recipe.optimiser, self.lr)
        if self.recipe.optimiser.schedule == "plateau":
            how = self.recipe.optimiser
            plateau = ReduceLROnPlateau(optimiser, factor=how.plateau_factor, patience=how.plateau_epochs)
            every = self.recipe.fit.validate_every
            settings = {"scheduler": plateau, "monitor": MONITORED, "interval": "epoch", "frequency": every}
            return {"optimizer": optimiser, "lr_scheduler": settings}
        n_steps = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimiser, lambda step: lr_share(step, n_steps, self.recipe.optimiser))
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
