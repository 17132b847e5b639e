"""Losses: known answers, properties, and the true statistics as reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import InputSpec
from doseledger.learn.losses.dose import DoseLoss, asymmetric_error, gradient_error, voxel_error, weighted_mean
from doseledger.learn.losses.dvh import DvhTerm, dose_at_volume, moment_term, read_statistics, volume_at_dose
from doseledger.learn.recipes.dose import Recipe

MakeRecipe = Callable[..., Recipe]
NAMES = ("PTV70", "Rectum")


def make_loss(make_recipe: MakeRecipe, changes: dict[str, Any]) -> DoseLoss:
    recipe = make_recipe({f"loss.{key}": value for key, value in changes.items()})
    return DoseLoss(recipe.loss, InputSpec(NAMES, ("PTV70",), recipe.inputs))


def make_batch(shape: tuple[int, int, int] = (4, 5, 6)) -> dict[str, Any]:
    """A batch of one: PTV70 is the first slice, Rectum the second; the last is outside the valid dose."""
    valid = torch.ones(1, 1, *shape, dtype=torch.bool)
    valid[:, :, -1] = False
    masks = torch.zeros(1, 2, *shape, dtype=torch.bool)
    masks[:, 0, 0] = True
    masks[:, 1, 1] = True
    return {
        "dose": torch.full((1, 1, *shape), 0.5),
        "valid_dose": valid,
        "body": torch.ones_like(valid),
        "masks": masks,
        "spacing_mm": torch.tensor([[3.0, 2.5, 2.5]]),
    }


def test_a_dose_one_tenth_too_high_has_a_masked_l1_of_one_tenth(make_recipe: MakeRecipe) -> None:
    loss = make_loss(make_recipe, {"target_weight": 1.0})
    batch = make_batch()
    assert float(loss(batch["dose"] + 0.1, batch)) == pytest.approx(0.1)


def test_voxels_outside_the_named_mask_do_not_count(make_recipe: MakeRecipe) -> None:
    batch = make_batch()
    wrong = batch["dose"].clone()
    wrong[:, :, -1] = 9.0
    assert float(make_loss(make_recipe, {"mask": "valid_dose"})(wrong, batch)) == 0.0
    assert float(make_loss(make_recipe, {"mask": "body", "target_weight": 2.0})(wrong, batch)) > 1.0


def test_a_voxel_has_the_largest_weight_of_its_structures(make_recipe: MakeRecipe) -> None:
    loss = make_loss(make_recipe, {"target_weight": 2.0, "structure_weights": {"Rectum": 0.5}})
    batch = make_batch()
    batch["masks"][0, 1, 0, 0] = True
    weights = loss.voxel_weights(batch["valid_dose"], batch["masks"])[0, 0]
    assert float(weights[0, 0, 0]) == 2.0
    assert float(weights[1, 0, 0]) == 0.5
    assert float(weights[2, 0, 0]) == 1.0
    assert float(weights[3, 0, 0]) == 0.0


def test_a_weight_for_a_structure_that_no_case_has_is_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(BadInput, match="the cases have no Rectom; they have PTV70, Rectum"):
        make_loss(make_recipe, {"structure_weights": {"Rectom": 2.0}})


def test_an_underdosed_target_costs_more_than_an_overdosed_one(make_recipe: MakeRecipe) -> None:
    loss = make_loss(make_recipe, {"target_weight": 1.0, "underdose": 3.0, "overdose": 1.0})
    batch = make_batch()
    assert float(loss(batch["dose"] - 0.1, batch)) == pytest.approx(0.1 + 0.3)
    assert float(loss(batch["dose"] + 0.1, batch)) == pytest.approx(0.1 + 0.1)


@pytest.mark.parametrize(("first", "second"), [(-0.1, 0.0), (0.0, -0.1), (0.2, -0.1), (-0.1, -0.3)])
def test_the_dose_missing_counts_in_every_target_and_not_in_their_overlap_alone(
    first: float, second: float, make_recipe: MakeRecipe
) -> None:
    """Two targets, the second a slice, a third of which is the first's too."""
    recipe = make_recipe({"loss.target_weight": 1.0, "loss.underdose": 3.0, "loss.overdose": 0.5})
    masks = torch.zeros(1, 3, 4, 3, 6, dtype=torch.bool)
    masks[:, 0, 0] = True
    masks[:, 0, 1, :, :2] = True
    masks[:, 2, 1] = True
    masks[:, 1, 2] = True
    batch = {**make_batch((4, 3, 6)), "masks": masks}
    loss = DoseLoss(recipe.loss, InputSpec(("PTV70", "Rectum", "PTV56"), ("PTV70", "PTV56"), recipe.inputs))
    off = torch.zeros(4, 3, 6)
    off[0], off[1] = first, second
    skewed = sum(18 * (3.0 * max(0.0, -one) + 0.5 * max(0.0, one)) for one in (first, second)) / 36
    plain = 18 * (abs(first) + abs(second)) / 54
    assert float(loss(batch["dose"] + off, batch)) == pytest.approx(plain + skewed, rel=1e-5)
    # An organ's dose does not count twice.
    organ = torch.zeros(4, 3, 6)
    organ[2] = -0.1
    assert float(loss(batch["dose"] + organ, batch)) == pytest.approx(18 * 0.1 / 54, rel=1e-5)


def test_a_ramp_of_one_tenth_a_voxel_of_2mm_errs_by_half_a_scale_per_cm_on_its_axis() -> None:
    ramp = torch.arange(6.0).mul(0.1).expand(1, 1, 4, 5, 6)
    mask = torch.ones_like(ramp, dtype=torch.bool)
    error = gradient_error(ramp, torch.zeros_like(ramp), mask, torch.tensor([[2.0, 2.0, 2.0]]))
    assert float(error) == pytest.approx(0.5 / 3)


def test_the_gradient_across_the_masks_edge_does_not_count() -> None:
    dose = torch.zeros(1, 1, 4, 4, 4)
    dose[..., 2:] = 1.0
    mask = torch.zeros_like(dose, dtype=torch.bool)
    mask[..., :2] = True
    assert float(gradient_error(dose, torch.zeros_like(dose), mask, torch.ones(1, 3))) == 0.0


def test_squared_and_absolute_error_and_an_empty_mean() -> None:
    assert float(voxel_error(torch.tensor(3.0), torch.tensor(1.0), "mse")) == 4.0
    assert float(voxel_error(torch.tensor(3.0), torch.tensor(1.0), "l1")) == 2.0
    assert float(asymmetric_error(torch.tensor(3.0), torch.tensor(1.0), 5.0, 2.0)) == 4.0
    assert float(weighted_mean(torch.ones(3), torch.zeros(3))) == 0.0


def test_a_ramp_of_60_to_80_gy_has_d95_of_61_and_v70_of_a_half() -> None:
    ramp = torch.linspace(60.0, 80.0, 2001)
    assert float(dose_at_volume(ramp, 95.0, 1.0)) == pytest.approx(61.0, abs=1e-3)
    assert float(volume_at_dose(ramp, 70.0, 0.5)) == pytest.approx(50.0, abs=0.1)


def worst_error_gy(case: Case, scale_gy: float = 70.0) -> float:
    """Largest difference to the true D98, D95, D50, D2 (Gy) and V20, V50, V66 (percent) over a case's structures."""
    worst = 0.0
    assert case.dose_gy is not None
    for name in case.present_names:
        dose_gy = case.dose_gy[case.mask(name)]
        scaled = torch.from_numpy(dose_gy / scale_gy)
        for percent in (98, 95, 50, 2):
            mine = float(dose_at_volume(scaled, percent, 1.0)) * scale_gy
            worst = max(worst, abs(mine - float(np.percentile(dose_gy, 100 - percent))))
        for level_gy in (20.0, 50.0, 66.0):
            mine = float(volume_at_dose(scaled, level_gy / scale_gy, 0.5 / scale_gy))
            worst = max(worst, abs(mine - 100.0 * float((dose_gy >= level_gy).mean())))
    return worst


def test_dvh_statistics_are_the_true_ones_on_prostate_cases(make_case: Callable[..., Case]) -> None:
    assert max(worst_error_gy(make_case(seed=seed)) for seed in (1, 2, 3)) < 0.2


@pytest.mark.parametrize("patient", ["pt_2", "pt_17", "pt_143"])
def test_dvh_statistics_are_the_true_ones_on_real_patients(shared_data: Path, patient: str) -> None:
    # pt_143 is among the smallest of the cohort.
    with np.load(shared_data / "openkbp" / "train" / f"{patient}.npz") as npz:
        dose_gy = npz["dose_2mgy"].reshape(-1) * np.float32(0.002)
        names = [name for name in npz.files if name.startswith("mask_")]
        assert "mask_PTV70" in names
        for name in names:
            inside = dose_gy[np.unpackbits(npz[name])[: dose_gy.size].astype(bool)]
            scaled = torch.from_numpy(inside / np.float32(70.0))
            for percent in (98, 95, 50, 2):
                mine = 70.0 * float(dose_at_volume(scaled, percent, 1.0))
                assert mine == pytest.approx(float(np.percentile(inside, 100 - percent)), abs=0.01), name
            for level_gy in (20.0, 45.0, 66.5):
                mine = float(volume_at_dose(scaled, level_gy / 70.0, 0.5 / 70.0))
                # Doses come in steps of 0.002 Gy: one that lies on the level may round to either side of it.
                near = 100.0 * float((np.abs(inside - level_gy) < 1e-4).mean())
                assert mine == pytest.approx(100.0 * float((inside >= level_gy).mean()), abs=near + 1e-3), name


@given(
    dose=arrays(np.float32, st.integers(20, 200), elements=st.floats(0, 80, width=32)),
    percent=st.sampled_from([99.0, 95.0, 50.0, 2.0, 1.0]),
)
def test_d_of_twice_the_dose_is_twice_the_d_and_its_gradient_sums_to_one(dose: np.ndarray, percent: float) -> None:
    leaf = torch.from_numpy(dose).requires_grad_()
    once = dose_at_volume(leaf, percent, 1.0)
    assert float(dose_at_volume(2 * leaf.detach(), percent, 1.0)) == pytest.approx(2 * once.item(), abs=1e-3)
    assert once.item() == pytest.approx(float(np.percentile(dose, 100 - percent)), abs=1e-3)
    once.backward()
    assert leaf.grad is not None
    assert float(leaf.grad.sum()) == pytest.approx(1.0, abs=1e-4)


def test_the_gradient_of_d95_reaches_the_cold_voxels_and_not_the_hot_ones() -> None:
    dose = torch.linspace(0.8, 1.0, 1000).requires_grad_()
    dose_at_volume(dose, 95.0, 1.0).backward()
    assert dose.grad is not None
    assert int((dose.grad > 1e-4).sum()) > 10
    assert float(dose.grad[500:].abs().max()) < 1e-6


def test_descending_along_the_dvh_term_brings_d95_to_the_plans() -> None:
    torch.manual_seed(0)
    reference = 0.97 + 0.03 * torch.rand(1, 1, 8, 8, 8)
    prediction = (0.85 + 0.1 * torch.rand(1, 1, 8, 8, 8)).requires_grad_()
    masks = torch.ones(1, 1, 8, 8, 8, dtype=torch.bool)
    term = DvhTerm([[("D", 95.0), ("mean", 0.0)]], 70.0, (1.0, 0.5))
    optimiser = torch.optim.SGD([prediction], lr=0.2)
    for _ in range(200):
        optimiser.zero_grad()
        term(prediction, reference, masks).backward()
        optimiser.step()
    assert term(prediction, reference, masks).item() * 70.0 < 0.7


def test_an_absent_structure_leaves_the_dvh_and_moment_terms_at_zero() -> None:
    dose = torch.rand(1, 1, 4, 4, 4, requires_grad=True)
    nothing = torch.zeros(1, 2, 4, 4, 4, dtype=torch.bool)
    terms = DvhTerm([[("D", 95.0)], [("mean", 0.0)]], 70.0, (1.0, 0.5))(dose, dose, nothing)
    total = terms + moment_term(dose, dose, nothing, [2.0])
    total.backward()
    assert total.item() == 0.0


@pytest.mark.parametrize(("n_voxels", "counts"), [(19, False), (20, True)])
def test_a_structure_counts_from_twenty_voxels_on(n_voxels: int, counts: bool) -> None:
    inside = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    inside.view(-1)[:n_voxels] = True
    low, high = torch.full((1, 1, 4, 4, 4), 0.5), torch.full((1, 1, 4, 4, 4), 0.7)
    found = [
        float(DvhTerm([[("mean", 0.0)]], 70.0, (1.0, 0.5))(high, low, inside)),
        float(moment_term(high, low, inside, [2.0])),
    ]
    assert found == pytest.approx([0.2 if counts else 0.0] * 2)


def test_moments_of_a_uniform_dose_are_the_dose() -> None:
    inside = torch.ones(1, 1, 4, 4, 4, dtype=torch.bool)
    low, high = torch.full((1, 1, 4, 4, 4), 0.5), torch.full((1, 1, 4, 4, 4), 0.7)
    assert float(moment_term(high, low, inside, [1.0, 2.0, 10.0])) == pytest.approx(0.2)


def test_all_terms_of_a_perfect_prediction_are_zero_and_each_has_a_finite_gradient(make_recipe: MakeRecipe) -> None:
    loss = make_loss(make_recipe, {"underdose": 1.0, "gradient": 1.0, "dvh": 1.0, "moment": 1.0})
    batch = make_batch()
    assert float(loss(batch["dose"], batch)) == pytest.approx(0.0, abs=1e-6)
    prediction = torch.zeros_like(batch["dose"]).requires_grad_()
    loss(prediction, batch).backward()
    assert prediction.grad is not None
    assert bool(torch.isfinite(prediction.grad).all())


def test_a_further_dose_counts_by_its_weight_and_every_term_of_it(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe({"loss.underdose": 1.0, "loss.gradient": 0.1})
    spec = InputSpec(NAMES, ("PTV70",), recipe.inputs)
    one, both = DoseLoss(recipe.loss, spec), DoseLoss(recipe.loss, spec, (0.5,))
    batch = make_batch()
    final, earlier = batch["dose"] + 0.1, batch["dose"] * torch.rand_like(batch["dose"])
    together = float(both(torch.cat([final, earlier], dim=1), batch))
    assert together == pytest.approx(float(one(final, batch)) + 0.5 * float(one(earlier, batch)))


def test_a_statistic_in_another_grammar_is_refused() -> None:
    assert read_statistics(["D95%", "V20Gy", "mean"]) == [("D", 95.0), ("V", 20.0), ("mean", 0.0)]
    with pytest.raises(BadInput, match="'D95' is not one of"):
        read_statistics(["D95"])
