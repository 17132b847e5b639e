"""A dose model's network: the recipe's network on top of the prior dose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import InputSpec, OpenCase
from doseledger.learn.networks.boosted import ToldDose
from doseledger.learn.networks.mean_dose import MeanDose
from doseledger.learn.networks.unet import build_network
from doseledger.learn.recipes.dose import TrainedPart, TrainedRecipe

# What one unit of a fresh network's word counts, learned from there: about the size of what it has to say, as a mean
# dose errs by a few hundredths of the dose scale. On one patch, 0.03 learns in 60 steps more than 0.2 in 100.
FIRST_GAIN = 0.03


class OverPrior(nn.Module):
    """A network that says what to add to the dose of a `MeanDose` or a `ToldDose`."""

    def __init__(self, network: nn.Module, prior: nn.Module) -> None:
        super().__init__()
        self.network, self.prior = network, prior
        self.gain = nn.Parameter(torch.tensor(FIRST_GAIN))

    def forward(self, image: Tensor, condition: Tensor, case_ids: Sequence[str] = ()) -> Tensor:
        """Return all the doses (batch, dose, z, y, x) that the network gives, each on top of the prior.

        `case_ids` are those of a training batch: each case's prior leaves its own dose out, where that was kept.
        """
        result: Tensor = self.gain * self.network(image, condition) + self.prior(image, condition, case_ids)
        return result


def dose_network(recipe: TrainedPart, spec: InputSpec, fit_to: Sequence[OpenCase] = ()) -> nn.Module:
    """Return a dose model's network with fresh weights: (image, condition) -> dose in units of the dose scale.

    Parameters
    ----------
    fit_to
        The training cases, whose mean dose the recipe may ask for; none where weights are loaded next, as they hold it.

    Raises
    ------
    BadInput
        If the recipe is another family's.
    """
    if not isinstance(recipe, TrainedRecipe):
        raise BadInput(f"its kind is {recipe.kind}, wanted dose")
    network = build_network(spec.n_channels, spec.n_conditions, recipe.network)
    if recipe.prior == "none":
        return network
    if recipe.prior == "boosted":
        return OverPrior(network, ToldDose(spec))
    prior = MeanDose(spec)
    if fit_to:
        prior.fit(fit_to, leave_out=recipe.prior == "mean_dose_left_out")
    return OverPrior(network, prior)
