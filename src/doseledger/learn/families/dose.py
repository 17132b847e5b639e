"""A dose network in training: loss, optimiser, validation on whole cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.learn.data.inputs import InputSpec, OpenCase
from doseledger.learn.families.bases import check_told, check_trees, refuse_untold
from doseledger.learn.losses.dose import DoseLoss, weighted_mean
from doseledger.learn.networks.boosted import BoostedDose
from doseledger.learn.networks.mean_dose import MeanDose
from doseledger.learn.networks.windows import VALIDATION_OVERLAP, predict_whole
from doseledger.learn.networks.with_prior import OverPrior, dose_network
from doseledger.learn.recipes.dose import ModelRecipe, Recipe, TrainedRecipe, refuse_idle_base
from doseledger.learn.run import CasesByPart, Family, TrainingRun
from doseledger.learn.training.finite import refuse_no_voxel
from doseledger.learn.training.task import NetworkTask
from doseledger.learn.training.told import load_boosted


class DoseTask(NetworkTask):
    """A dose network in training.

    Parameters
    ----------
    recipe, spec
        The model's block, and the channels and conditions that its cases have.
    lr
        The learning rate itself: base rate times the recipe's factor.
    boosted
        The trees that have told them; None where the recipe asks for none.
    """

    def __init__(
        self,
        recipe: TrainedRecipe,
        spec: InputSpec,
        lr: float,
        fit_to: Sequence[OpenCase] = (),
        boosted: BoostedDose | None = None,
    ) -> None:
        super().__init__()
        self.boosted = boosted
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

    def begin_from(self, weights: Mapping[str, Tensor], extras: Mapping[str, Any]) -> None:
        """Take over a trained network's weights, its prior among them."""
        prior = getattr(self.network, "prior", None)
        before = [value.clone() for value in prior.buffers()] if isinstance(prior, MeanDose) else []
        super().begin_from(weights, extras)
        if isinstance(prior, MeanDose) and not all(map(torch.equal, before, prior.buffers())):
            # These are parts of another mean than the one that now holds.
            prior.left_out.clear()

    def extras(self) -> dict[str, Any]:
        """Return the trees that the network stands on, so that one file predicts."""
        return {"boosted": self.boosted.kept()} if self.boosted else {}

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


def make_dose_task(
    run: TrainingRun, spec: InputSpec, cases: CasesByPart, *, trees: BoostedDose | None = None, own: bool = True
) -> DoseTask:
    """Return the task of a dose network.

    Parameters
    ----------
    trees, own
        What it stands on, and whether they were grown for this very training.

    Raises
    ------
    BadInput
        If the run's block is another family's, or does not fit the cases, or the trees don't.
    """
    if not isinstance(run.recipe, Recipe):
        raise BadInput(f"{run.model}: its kind is {run.recipe.kind}, wanted dose")
    if trees is not None:
        check_trees(run, spec, cases, trees)
        if own:
            check_told(run, cases, trees)
        else:
            refuse_untold(run, cases, trees)
    return DoseTask(run.recipe.trained_part(), spec, run.lr * run.recipe.lr_factor, cases["train"], trees)


DOSE = Family(module=__name__, make_task=make_dose_task)


def make_family(recipe: ModelRecipe, base: Path | None) -> Family:
    """Return the family of dose networks, by themselves or on trees.

    Parameters
    ----------
    base
        Checkpoint of the trees, or of the network on trees that the recipe begins with; None where it asks for neither.

    Raises
    ------
    NotReady
        If the trees are wanted and not trained.
    BadInput
        If the recipe wants trees and has none, or a base is named that its block does not begin with.
    """
    if not isinstance(recipe, Recipe) or recipe.prior != "boosted":
        refuse_idle_base(recipe, base)
        return DOSE
    if base is None:
        raise BadInput("prior: boosted stands on a model of kind trees: name it under `bases` (dose_unet: dose_trees)")
    trees = load_boosted(base)
    # A network that begins with another one stands on that one's trees, which may have seen another cohort.
    own = trees.sha256 == sha256_of_file(base)
    parts = {"base": {"model": trees.model, "sha256": trees.sha256}}
    make_task = partial(make_dose_task, trees=trees, own=own)
    return Family(module=__name__, make_task=make_task, parts=parts, told=trees.told)
