"""A dose network in training: loss, optimiser, validation on whole cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import InputSpec, OpenCase
from doseledger.learn.losses.dose import DoseLoss, weighted_mean
from doseledger.learn.networks.windows import VALIDATION_OVERLAP, predict_whole
from doseledger.learn.networks.with_prior import OverPrior, dose_network
from doseledger.learn.recipes.dose import ModelRecipe, Recipe, TrainedRecipe
from doseledger.learn.run import DOSE_SCORES, CasesByPart, Family, TrainingRun, mean_scores
from doseledger.learn.training.finite import refuse_infinite_loss, refuse_infinite_scores, refuse_no_voxel
from doseledger.learn.training.optimiser import scheduled_optimiser


class DoseTask(pl.LightningModule):
    """A dose network in training.

    Parameters
    ----------
    recipe, spec
        The model's block, and the channels and conditions that its cases have.
    lr
        The learning rate itself: base rate times the recipe's factor.
    fit_to
        The training cases, whose mean dose the recipe may ask for.
    """

    def __init__(self, recipe: TrainedRecipe, spec: InputSpec, lr: float, fit_to: Sequence[OpenCase] = ()) -> None:
        super().__init__()
        self.recipe, self.spec, self.lr = recipe, spec, lr
        self.network = dose_network(recipe, spec, fit_to)
        self.loss = DoseLoss(recipe.loss, spec, recipe.further_weights)
        # Sums of the validation so far: error in Gy over the valid dose and over the body, and the voxels of each.
        self.errors: list[tuple[float, float]] = []

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        """Return the batch's loss.

        Raises
        ------
        BadInput
            If it is not finite: naming the cases of the batch and what to do.
        """
        loss, _ = self.batch_loss(batch, index)
        refuse_infinite_loss(loss, batch["case_id"], epoch=self.current_epoch, index=index)
        return loss

    def batch_loss(self, batch: dict[str, Any], index: int) -> tuple[Tensor, Tensor]:
        """Return the batch's loss, a scalar, and the predicted dose that it was made of."""
        network = self.network
        whose = [batch["case_id"]] if isinstance(network, OverPrior) else []
        dose = network(batch["image"], batch["condition"], *whose)
        return self.loss(dose, batch), dose

    def weights(self) -> dict[str, Tensor]:
        """Return the network's weights as they are: the checkpoint keeps them."""
        weights: dict[str, Tensor] = self.network.state_dict()
        return weights

    def extras(self) -> dict[str, Any]:
        """Return nothing: recipe and weights are all that prediction needs."""
        return {}

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.errors = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Add one whole case to the validation."""
        refuse_no_voxel(batch)
        patch_zyx = self.recipe.sampling.patch_zyx
        dose = predict_whole(self.network, batch, patch_zyx, overlap=VALIDATION_OVERLAP, windows_at_once=1).clamp_min(0)
        error_gy = (dose * batch["valid_dose"] - batch["dose"]).abs() * self.spec.recipe.dose_scale_gy
        in_valid, in_body = (
            float(weighted_mean(error_gy, batch[mask].to(error_gy.dtype))) for mask in ("valid_dose", "body")
        )
        self.errors.append((in_valid, in_body))

    def validation_scores(self) -> dict[str, float]:
        """Return the mean over the cases of the last validation of their MAE in Gy, by named mask."""
        return mean_scores(self.errors)

    def on_validation_epoch_end(self) -> None:
        """Hand the scores to Lightning, whose plateau schedule looks for them.

        Raises
        ------
        BadInput
            If a prediction is not finite.
        """
        scores = self.validation_scores()
        refuse_infinite_scores(scores, epoch=self.current_epoch)
        self.log_dict(scores, logger=False)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser and the schedule of its learning rate."""
        n_steps = int(self.trainer.estimated_stepping_batches)
        how, fit = self.recipe.optimiser, self.recipe.fit
        return scheduled_optimiser(self.network, how, fit, lr=self.lr, n_steps=n_steps, monitor=DOSE_SCORES[0])


def make_dose_task(run: TrainingRun, spec: InputSpec, cases: CasesByPart) -> DoseTask:
    """Return the task of a dose network.

    Raises
    ------
    BadInput
        If the run's block is another family's, or does not fit the cases.
    """
    if not isinstance(run.recipe, Recipe):
        raise BadInput(f"{run.model}: its kind is {run.recipe.kind}, wanted dose")
    return DoseTask(run.recipe.trained_part(), spec, run.lr * run.recipe.lr_factor, cases["train"])


DOSE = Family(module=__name__, make_task=make_dose_task)


def make_family(recipe: ModelRecipe, base: Path | None) -> Family:
    """Return the family of dose networks; they start from nothing."""
    return DOSE
