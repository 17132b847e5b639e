"""Losses with unequal weights, spacings and samples, each by a plain sum; gradients of the DVH's soft statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import InputSpec
from doseledger.learn.losses.dose import DoseLoss, gradient_error, weighted_mean
from doseledger.learn.losses.dvh import DvhTerm, dose_at_volume, moment_term, read_statistics, volume_at_dose
from doseledger.learn.recipes.dose import Recipe

NAMES = ("PTV70", "Rectum", "PTV56")
SPACING = [[3.0, 2.5, 2.0], [5.0, 1.25, 4.0]]


@pytest.fixture
def batch() -> dict[str, Any]:
    """Two samples of 3 × 4 × 5 voxels, of other targets, masks, doses and spacings."""
    rng = np.random.default_rng(3)
    shape = (2, 1, 3, 4, 5)
    masks = rng.random((2, 3, 3, 4, 5)) < 0.5
    masks[0, 2], masks[1, 0] = False, False
    return {
        "dose": torch.from_numpy(rng.random(shape).astype(np.float32)),
        "valid_dose": torch.from_numpy(rng.random(shape) < 0.8),
        "body": torch.from_numpy(rng.random(shape) < 0.9),
        "masks": torch.from_numpy(masks),
        "spacing_mm": torch.tensor(SPACING),
        "said": torch.from_numpy(rng.random((2, 2, 3, 4, 5)).astype(np.float32)),
    }


def loss_of(make_recipe: Callable[..., Recipe], further: tuple[float, ...] = (), **changes: Any) -> DoseLoss:
    plain = {"target_weight": 1.0, "structure_weights": {}, "underdose": 0.0, "overdose": 0.0, "gradient": 0.0,
             "dvh": 0.0, "moment": 0.0, "voxel": "l1", "mask": "valid_dose"}  # fmt: skip
    recipe = make_recipe({f"loss.{key}": value for key, value in {**plain, **changes}.items()})
    return DoseLoss(recipe.loss, InputSpec(NAMES, ("PTV70", "PTV56"), recipe.inputs), further)


def gradient_of(said: np.ndarray, batch: dict[str, Any], mask: str) -> float:
    off, inside, terms = said - batch["dose"][:, 0].numpy(), batch[mask][:, 0].numpy(), []
    for axis in range(3):
        values = []
        for sample in range(2):
            step = np.abs(np.diff(off[sample], axis=axis)) * 10.0 / SPACING[sample][axis]
            both = np.diff(inside[sample].astype(int), axis=axis) == 0
            first = np.take(inside[sample], range(inside.shape[axis + 1] - 1), axis=axis)
            values += step[both & first].tolist()
        terms.append(np.mean(values))
    return float(np.mean(terms))


@pytest.mark.parametrize("mask", ["valid_dose", "body"])
@pytest.mark.parametrize("voxel", ["l1", "mse"])
def test_each_term_is_a_plain_sum_over_both_samples(
    make_recipe: Callable[..., Recipe], batch: dict[str, Any], mask: str, voxel: str
) -> None:
    said, dose = batch["said"][:, :1], batch["dose"].numpy()[:, 0]
    off, inside = said.numpy()[:, 0] - dose, batch[mask].numpy()[:, 0]
    masks = batch["masks"].numpy() & inside[:, None]
    # Rectum 0.25, targets 3 but for PTV56 with its own 7.
    each = np.array([3.0, 0.25, 7.0])[None, :, None, None, None] * masks
    weight = np.where(masks.any(axis=1), each.max(axis=1), 1.0) * inside
    error = np.abs(off) if voxel == "l1" else off**2
    found = loss_of(
        make_recipe, mask=mask, voxel=voxel, target_weight=3.0, structure_weights={"Rectum": 0.25, "PTV56": 7.0}
    )
    assert float(found(said, batch)) == pytest.approx((error * weight).sum() / weight.sum(), rel=1e-5)
    plain = (error * inside).sum() / inside.sum()
    target = (masks[:, 0] | masks[:, 2]).astype(float)
    for under, over in ((3.0, 0.0), (0.0, 0.5), (2.0, 0.5)):
        skewed = ((under * np.maximum(-off, 0) + over * np.maximum(off, 0)) * target).sum() / target.sum()
        both = loss_of(make_recipe, mask=mask, voxel=voxel, underdose=under, overdose=over)
        assert float(both(said, batch)) == pytest.approx(plain + skewed, rel=1e-5)
    steep = loss_of(make_recipe, mask=mask, voxel=voxel, gradient=0.2)
    assert float(steep(said, batch)) == pytest.approx(
        plain + 0.2 * gradient_of(said.numpy()[:, 0], batch, mask), rel=1e-5
    )


def test_further_doses_count_by_their_weights_and_terms_by_theirs(
    make_recipe: Callable[..., Recipe], batch: dict[str, Any]
) -> None:
    one = loss_of(make_recipe)
    first, second = (float(one(batch["said"][:, k : k + 1], batch)) for k in range(2))
    both = loss_of(make_recipe, (0.4,))
    assert float(both(batch["said"], batch)) == pytest.approx(first + 0.4 * second, rel=1e-6)
    assert float(one(batch["said"], batch)) == pytest.approx(first, rel=1e-6)
    batch["masks"][:, 1] = True
    batch["valid_dose"][:] = True
    said = batch["said"][:, :1]
    plain = float(one(said, batch))
    # The rectum is all of each sample, the targets too few voxels but for one: 60, and PTV70 of the first.
    statistics = {"dvh_statistics": {"organ": ["mean"], "target": ["D50%"]}}
    masks = batch["masks"].numpy()
    off = [abs(float((said[s] - batch["dose"][s]).mean())) for s in range(2)]
    for sample, name in ((0, 0), (1, 2)):
        inside = masks[sample, name]
        if inside.sum() >= 20:
            halves = [np.median(values[sample, 0].numpy()[inside]) for values in (said, batch["dose"])]
            off.append(abs(float(halves[0] - halves[1])))
    dvh = loss_of(make_recipe, dvh=0.3, **statistics)
    assert float(dvh(said, batch)) == pytest.approx(plain + 0.3 * np.mean(off), rel=1e-4)
    moment = loss_of(make_recipe, moment=0.7, moment_orders=[2.0, 10.0])
    wanted = float(moment_term(said, batch["dose"], batch["masks"], [2.0, 10.0]))
    assert float(moment(said, batch)) == pytest.approx(plain + 0.7 * wanted, rel=1e-5)


def test_a_gradient_counts_where_both_neighbours_are_inside(batch: dict[str, Any]) -> None:
    said = batch["said"][:, :1]
    found = gradient_error(said, batch["dose"], batch["body"], batch["spacing_mm"])
    assert float(found) == pytest.approx(gradient_of(said.numpy()[:, 0], batch, "body"), rel=1e-5)


def test_a_weighted_mean_is_the_sum_over_the_sum() -> None:
    assert float(weighted_mean(torch.tensor([1.0, 4.0]), torch.tensor([0.2, 0.6]))) == pytest.approx(3.25)


def test_the_gradient_of_a_quantile_is_spread_over_its_neighbours_by_a_gaussian() -> None:
    dose = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0, 9.0, 8.0, 10.0], requires_grad=True)
    # D30%: rank 0.7 · 9 = 6.3 of 0 to 9; a fifth of the volume is two ranks.
    value = dose_at_volume(dose, 30.0, 20.0)
    assert float(value.detach()) == pytest.approx(7.3)
    value.backward()
    weight = np.exp(-0.5 * ((np.arange(10) - 6.3) / 2.0) ** 2)
    assert dose.grad is not None
    assert dose.grad.numpy()[np.argsort(dose.detach().numpy())] == pytest.approx(weight / weight.sum(), rel=1e-4)
    # No narrower than a rank.
    narrow = torch.arange(10.0, requires_grad=True)
    dose_at_volume(narrow, 30.0, 0.5).backward()
    weight = np.exp(-0.5 * (np.arange(10) - 6.3) ** 2)
    assert narrow.grad is not None
    assert narrow.grad.numpy() == pytest.approx(weight / weight.sum(), rel=1e-4)
    ends = [float(dose_at_volume(torch.arange(10.0), percent, 5.0)) for percent in (100.0, 0.0)]
    assert ends == pytest.approx([0.0, 9.0])


def test_the_gradient_of_a_volume_is_a_sigmoids_and_its_value_counts_the_level_itself() -> None:
    dose = torch.tensor([0.2, 0.5, 0.8, 0.9], requires_grad=True)
    value = volume_at_dose(dose, 0.5, 0.1)
    assert float(value.detach()) == pytest.approx(75.0)
    value.backward()
    share = 1 / (1 + np.exp(-(np.array([0.2, 0.5, 0.8, 0.9]) - 0.5) / 0.1))
    assert dose.grad is not None
    assert dose.grad.numpy() == pytest.approx(100.0 * share * (1 - share) / 0.1 / 4, rel=1e-4)


def test_statistics_are_read_by_name() -> None:
    assert read_statistics(["D95%", "V20Gy", "mean", "D2.5%", "V46.5Gy"]) == [
        ("D", 95.0), ("V", 20.0), ("mean", 0.0), ("D", 2.5), ("V", 46.5),
    ]  # fmt: skip
    with pytest.raises(BadInput, match="'D2cc' is not one of"):
        read_statistics(["mean", "D2cc"])


def test_each_sample_has_its_own_statistics_on_the_scale_of_the_dose() -> None:
    rng = np.random.default_rng(4)
    mine, theirs = (torch.from_numpy(rng.random((2, 1, 3, 4, 5)).astype(np.float32)) for _ in range(2))
    masks = torch.ones(2, 2, 3, 4, 5, dtype=torch.bool)
    masks[0, 1], masks[1, 0] = False, False
    term = DvhTerm([read_statistics(["V35Gy", "D20%"]), read_statistics(["mean"])], 70.0, (3.0, 2.0))
    a, b = mine.numpy(), theirs.numpy()
    wanted = [
        abs((a[0] >= 0.5).mean() - (b[0] >= 0.5).mean()), abs(np.percentile(a[0], 80) - np.percentile(b[0], 80)),
        abs(a[1].mean() - b[1].mean()),
    ]  # fmt: skip
    assert float(term(mine, theirs, masks)) == pytest.approx(np.mean(wanted), rel=1e-4)
    # The slope of V35Gy is that of 2 Gy about 35.
    said = mine.clone().requires_grad_()
    DvhTerm([read_statistics(["V35Gy"]), []], 70.0, (3.0, 2.0))(said, theirs, masks).backward()
    share = 1 / (1 + np.exp(-(a[0] - 0.5) / (2 / 70)))
    sign = np.sign((a[0] >= 0.5).mean() - (b[0] >= 0.5).mean())
    assert said.grad is not None
    assert said.grad.numpy()[0] == pytest.approx(sign * share * (1 - share) * 35 / 60, abs=1e-5)
    assert float(term(mine, theirs, torch.zeros_like(masks))) == 0.0


def test_moments_are_generalised_means_kept_off_nothing() -> None:
    mine = torch.tensor([0.0] * 10 + [0.5] * 10)[None, None, None, None]
    theirs = torch.tensor([0.2] * 20)[None, None, None, None]
    masks = torch.ones(1, 1, 1, 1, 20, dtype=torch.bool)
    wanted = [abs(((0.001**p + 0.5**p) / 2) ** (1 / p) - 0.2) for p in (1.0, 3.0)]
    assert float(moment_term(mine, theirs, masks, [1.0, 3.0])) == pytest.approx(np.mean(wanted), rel=1e-4)
    assert float(moment_term(theirs, mine, masks, [3.0])) == pytest.approx(wanted[1], rel=1e-4)
    said = torch.zeros(1, 1, 1, 1, 20, requires_grad=True)
    moment_term(said, theirs, ~masks, [3.0]).backward()
    assert said.grad is not None
    assert not said.grad.any()
