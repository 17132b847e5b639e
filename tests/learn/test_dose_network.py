"""The dose that is known before a network has said a word, and the network on top of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.learn.dose_network import (
    EDGE_MM,
    FIRST_GAIN,
    MARGIN_MM,
    REACH_MM,
    STEP_MM,
    MeanDose,
    OverPrior,
    dose_network,
)
from doseledger.learn.inputs import OFFSET_SCALE_MM, InputSpec, open_case, spec_of
from doseledger.learn.networks import FilmUNet, build_network
from doseledger.learn.patches import mirror_inputs, read_inputs
from doseledger.learn.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
# PTV70 and PTV56, one organ between them, so that a target's place among structures is not its place among targets.
NAMES, TARGETS = ("PTV70", "Rectum", "PTV56"), ("PTV70", "PTV56")


@pytest.fixture
def spec(make_recipe: MakeRecipe) -> InputSpec:
    return InputSpec(NAMES, TARGETS, make_recipe().inputs)


def ask(prior: MeanDose, spec: InputSpec, lines: dict[str, list[float]], prescribed: Any, present: Any) -> Tensor:
    """The prior along a line of voxels: `lines` holds distances to structures and offsets along z, y or x, in mm."""
    length = len(next(iter(lines.values())))
    image = torch.zeros(1, spec.n_channels, 1, 1, length)
    for name, values in lines.items():
        if name in "zyx":
            image[0, spec.first_offset + "zyx".index(name), 0, 0] = torch.tensor(values) / OFFSET_SCALE_MM
        else:
            channel = spec.first_structure + NAMES.index(name)
            image[0, channel, 0, 0] = torch.tensor(values) / spec.recipe.sdf_scale_mm
    condition = torch.zeros(1, spec.n_conditions)
    condition[0, :3] = torch.tensor([float(there) for there in present])
    condition[0, 3:5] = torch.tensor(prescribed)
    return prior(image, condition)[0, 0, 0, 0].detach()


def test_deep_in_a_target_the_prior_is_its_prescription_and_the_highest_where_two_overlap(spec: InputSpec) -> None:
    distances = {"PTV70": [-40.0, 40.0], "PTV56": [-45.0, -45.0], "Rectum": [-45.0, -45.0]}
    dose = ask(MeanDose(spec), spec, distances, (1.0, 0.8), (1, 1, 1))
    torch.testing.assert_close(dose, torch.tensor([1.0, 0.8]), rtol=0, atol=1e-4)


def test_outside_it_falls_to_the_mean_dose_of_its_place(spec: InputSpec) -> None:
    prior = MeanDose(spec)
    # A mean that rises by 0.001 a mm along z, by 0.002 along y and by 0.003 along x, from the lattice's first point on.
    z, y, x = (STEP_MM * np.arange(n) for n in prior.lattice.shape)
    prior.lattice.copy_(torch.from_numpy(1e-3 * z[:, None, None] + 2e-3 * y[:, None] + 3e-3 * x))
    lines = {"PTV70": [50.0] * 4, "PTV56": [50.0, 50.0, 50.0, 4.0]}
    offsets = {"z": [0.0, -180.0, 52.5, 0.0], "y": [0.0, -180.0, -20.0, -180.0], "x": [0.0, 0.0, 33.0, 0.0]}
    at = zip(*offsets.values(), strict=True)
    mean = [1e-3 * (z + REACH_MM[0]) + 2e-3 * (y + REACH_MM[1]) + 3e-3 * x for z, y, x in at]
    mean[3] = max(mean[3], 0.8 / (1 + math.exp((4.0 - MARGIN_MM) / EDGE_MM)))
    dose = ask(prior, spec, {**lines, **offsets}, (1.0, 0.8), (1, 1, 1))
    torch.testing.assert_close(dose, torch.tensor(mean), rtol=1e-4, atol=1e-5)
    # Beyond the lattice its edge holds.
    beyond = ask(prior, spec, {"PTV70": [50.0], "PTV56": [50.0], "z": [500.0]}, (1.0, 0.8), (1, 1, 1))
    torch.testing.assert_close(beyond, torch.tensor([0.36 + 0.36]), rtol=1e-4, atol=1e-5)


def test_a_prescription_is_followed_whole_and_an_absent_target_gives_nothing(spec: InputSpec) -> None:
    prior = MeanDose(spec)
    prior.lattice.fill_(0.3)
    lines = {"PTV70": [50.0, 50.0], "PTV56": [-30.0, 10.0]}
    alone = ask(prior, spec, lines, (1.0, 0.8), (0, 1, 1))
    torch.testing.assert_close(alone, ask(prior, spec, lines, (2.0, 0.8), (0, 1, 1)))
    torch.testing.assert_close(1.1 * alone, ask(prior, spec, lines, (1.1, 0.88), (0, 1, 1)))
    assert not ask(prior, spec, lines, (1.0, 0.8), (0, 0, 0)).any()


def test_edges_are_learned_and_the_mean_is_not(spec: InputSpec) -> None:
    prior = MeanDose(spec)
    image = torch.linspace(-1, 1, 2 * spec.n_channels * 6).view(2, spec.n_channels, 1, 2, 3)
    prior(image, torch.ones(2, spec.n_conditions)).sum().backward()
    assert {name for name, _ in prior.named_parameters()} == {"margin_mm", "log_edge_mm"}
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in prior.parameters())
    assert "lattice" in prior.state_dict()


def test_the_mean_is_that_of_the_training_cases_about_their_targets_both_sides_alike(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    opened = cohort.open()
    spec = spec_of(opened, make_recipe().inputs)
    prior = MeanDose(spec)
    prior.fit(opened)
    total = np.zeros(prior.lattice.shape)
    count = np.zeros(prior.lattice.shape)
    for case in opened:
        loaded = Case.load(case.file.path)
        _, y, x = np.argwhere(loaded.mask("PTV70")).mean(axis=0)
        assert case.place is not None
        slices = case.place.slices_at(np.arange(prior.lattice.shape[0]) * STEP_MM - REACH_MM[0], 6.0)
        for side in (-1, 1):
            for index in np.ndindex(prior.lattice.shape):
                _, front, aside = np.array(index) * STEP_MM - (*REACH_MM[:2], 0.0)
                voxel = np.rint([slices[index[0]], y + front / 6.0, x + side * aside / 6.0]).astype(int)
                if (voxel >= 0).all() and (voxel < loaded.grid.shape_zyx).all():
                    at = tuple(voxel)
                    if loaded.valid_dose[at] and loaded.body[at]:
                        assert loaded.dose_gy is not None
                        total[index] += loaded.dose_gy[at] / 70.0
                        count[index] += 1
    np.testing.assert_allclose(prior.lattice.numpy(), total / np.maximum(count, 1), atol=1e-6)
    assert prior.lattice.max() > 0.9


def test_a_mean_of_no_dose_is_refused(cohort: Any, make_recipe: MakeRecipe) -> None:
    file = cohort.open()[0].file
    loaded = Case.load(file.path)
    masks, present = loaded.masks.copy(), loaded.present.copy()
    for name in ("PTV70", "PTV56"):
        masks[loaded.structure_names.index(name)] = False
        present[loaded.structure_names.index(name)] = False
    replace(loaded, masks=masks, present=present).save(file.path)
    case = open_case(replace(file, sha256=sha256_of_file(file.path)))
    with pytest.raises(BadInput, match="no training case with a target and a dose to take a mean of"):
        MeanDose(spec_of([case], make_recipe().inputs)).fit([case])


@pytest.mark.parametrize("prior", ["none", "mean_dose"])
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
        wanted = FIRST_GAIN * alone + beside if prior == "mean_dose" else alone
        torch.testing.assert_close(whole(image, condition), wanted)
    assert isinstance(whole, OverPrior if prior == "mean_dose" else FilmUNet)


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


def test_the_prior_of_the_mirrored_patient_is_the_mirrored_prior(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    sample = read_inputs(case, spec, ((0, 0, 0), case.shape_zyx))
    prior, orders = MeanDose(spec), spec.mirrored_orders({"Femur_L": "Femur_R"})
    prior.fit(cohort.open())

    def dose(inputs: dict[str, Any]) -> Tensor:
        image, condition = (torch.from_numpy(inputs[name].copy())[None] for name in ("image", "condition"))
        return prior(image, condition).detach()

    torch.testing.assert_close(dose(mirror_inputs(sample, orders)).flip(-1), dose(sample))


@pytest.mark.parametrize(
    "change", [{"inputs.structures": "mask"}, {"inputs.prescription": "none"}, {"inputs.place": "none"}]
)
def test_an_ablation_that_hides_the_targets_has_no_prior(make_recipe: MakeRecipe, change: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="prior mean_dose needs structures sdf, a prescription and a place"):
        make_recipe(change)
    assert make_recipe({**change, "prior": "none"}).prior == "none"
