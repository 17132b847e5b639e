"""The network on top of the dose that is known without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import InputSpec, spec_of
from doseledger.learn.networks.mean_dose import MeanDose
from doseledger.learn.networks.unet import FilmUNet, build_network
from doseledger.learn.networks.with_prior import FIRST_GAIN, OverPrior, dose_network
from doseledger.learn.recipes.dose import Recipe

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def spec(make_recipe: MakeRecipe) -> InputSpec:
    return InputSpec(("PTV70", "Rectum", "PTV56"), ("PTV70", "PTV56"), make_recipe().inputs)


@pytest.mark.parametrize("prior", ["none", "mean_dose", "mean_dose_left_out"])
def test_the_prior_decides_what_the_network_adds_to(cohort: Any, make_recipe: MakeRecipe, prior: str) -> None:
    cases, recipe = cohort.open(), make_recipe({"prior": prior})
    spec = spec_of(cases, recipe.inputs)
    torch.manual_seed(0)
    whole = dose_network(recipe, spec, cases).eval()
    torch.manual_seed(0)
    bare = build_network(spec.n_channels, spec.n_conditions, recipe.network).eval()
    image, condition = torch.rand(2, spec.n_channels, 8, 8, 8), torch.rand(2, spec.n_conditions)
    fitted = MeanDose(spec)
    fitted.fit(cases)
    with torch.no_grad():
        alone, beside = bare(image, condition), fitted(image, condition)
        wanted = FIRST_GAIN * alone + beside if prior != "none" else alone
        torch.testing.assert_close(whole(image, condition), wanted)
    assert isinstance(whole, OverPrior if prior != "none" else FilmUNet)


def test_a_network_for_a_checkpoint_has_the_mean_from_its_weights(cohort: Any, make_recipe: MakeRecipe) -> None:
    cases, recipe = cohort.open(), make_recipe()
    spec = spec_of(cases, recipe.inputs)
    fitted, fresh = dose_network(recipe, spec, cases).eval(), dose_network(recipe, spec).eval()
    fresh.load_state_dict(fitted.state_dict())
    image, condition = torch.rand(1, spec.n_channels, 8, 8, 8), torch.rand(1, spec.n_conditions)
    torch.testing.assert_close(fresh(image, condition), fitted(image, condition), rtol=0, atol=0)


def test_a_cascade_adds_each_of_its_doses_to_the_prior(make_recipe: MakeRecipe, spec: InputSpec) -> None:
    unet = make_recipe().network.model_dump()
    cascade = {"name": "cascade", "first": unet, "second": unet, "first_weight": 0.5}
    network = dose_network(make_recipe({"network": cascade}), spec).train()
    assert isinstance(network, OverPrior)
    image, condition = torch.rand(1, spec.n_channels, 8, 8, 8), torch.rand(1, spec.n_conditions)
    both, alone = network(image, condition), network.network(image, condition)
    assert both.shape == (1, 2, 8, 8, 8)
    torch.testing.assert_close(both - FIRST_GAIN * alone, network.prior(image, condition).expand_as(both))


@pytest.mark.parametrize(
    "change", [{"inputs.structures": "mask"}, {"inputs.prescription": "none"}, {"inputs.place": "none"}]
)
def test_an_ablation_that_hides_the_targets_has_no_prior(make_recipe: MakeRecipe, change: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="prior mean_dose needs structures sdf, a prescription and a place"):
        make_recipe(change)
    assert make_recipe({**change, "prior": "none"}).prior == "none"
