"""A dose network in training: loss, optimiser, validation on whole cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import InputSpec, OpenCase
from doseledger.learn.losses.dose import DoseLoss, weighted_mean
from doseledger.learn.networks.windows import VALIDATION_OVERLAP, predict_whole
from doseledger.learn.networks.with_prior import OverPrior, dose_network
from doseledger.learn.recipes.dose import ModelRecipe, Recipe, TrainedRecipe, refuse_idle_base
from doseledger.learn.run import CasesByPart, Family, TrainingRun
from doseledger.learn.training.finite import refuse_no_voxel
from doseledger.learn.training.task import NetworkTask


class DoseTask(NetworkTask):
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
    """Return the family of dose networks.

    Raises
    ------
    BadInput
        If a base is named that the block does not begin with.
    """
    refuse_idle_base(recipe, base)
    return DOSE
