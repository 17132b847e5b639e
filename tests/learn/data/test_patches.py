"""Patches: where they are drawn, how they are mirrored, and that a key decides all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.learn.data.inputs import CaseFile, OpenCase, open_case, spec_of
from doseledger.learn.data.patches import (
    PatchDataset,
    PatchSampler,
    WholeCases,
    as_tensors,
    case_loader,
    find_centres,
    mirror_x,
    patch_loader,
    read_sample,
    sample_box,
    seen_box,
)
from doseledger.learn.recipes.dose import Recipe

MakeRecipe = Callable[..., Recipe]


def make_dataset(cases: list[OpenCase], recipe: Recipe, seed: int = 1) -> PatchDataset:
    return PatchDataset(cases, spec_of(cases, recipe.inputs), recipe, seed)


def test_centres_lie_in_targets_on_slopes_and_in_the_body(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    centres, loaded = find_centres(case, spec_of([case], make_recipe().inputs)), Case.load(case.file.path)
    assert loaded.dose_gy is not None
    assert (loaded.mask("PTV70") | loaded.mask("PTV56"))[tuple(centres.target.T)].all()
    assert loaded.body[tuple(centres.body.T)].all()
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(loaded.dose_gy, *case.spacing_mm)))
    assert slope[tuple(centres.steep.T)].min() > np.median(slope[loaded.body])


@pytest.mark.parametrize(("share", "kind"), [("target_share", "target"), ("gradient_share", "steep")])
def test_a_share_of_one_centres_every_patch_there(cohort: Any, make_recipe: MakeRecipe, share: str, kind: str) -> None:
    shares = {"sampling.target_share": 0.0, "sampling.gradient_share": 0.0, "sampling.patch_zyx": [4, 4, 4]}
    recipe = make_recipe({**shares, f"sampling.{share}": 1.0})
    case = cohort.open()[0]
    centres = find_centres(case, spec_of([case], recipe.inputs))
    wanted = {tuple(voxel) for voxel in getattr(centres, kind).tolist()}
    rng = np.random.default_rng(0)
    for _ in range(50):
        start, size = sample_box(case, centres, recipe.sampling, rng)
        ends = [s + n == limit or s == 0 for s, n, limit in zip(start, size, case.shape_zyx, strict=True)]
        assert tuple(s + 2 for s in start) in wanted or any(ends)


def test_a_patch_lies_in_the_case_or_is_centred_on_it(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    recipe = make_recipe({"sampling.patch_zyx": [32, 24, 32]})
    centres = find_centres(case, spec_of([case], recipe.inputs))
    rng = np.random.default_rng(0)
    starts = np.array([sample_box(case, centres, recipe.sampling, rng)[0] for _ in range(100)])
    assert set(starts[:, 0]) == {-4}
    assert starts[:, 1:].min() >= 0
    assert (starts[:, 1:].max(axis=0) <= [40 - 24, 48 - 32]).all()
    assert len(np.unique(starts, axis=0)) > 50


def test_mirroring_twice_gives_the_sample_back_and_once_puts_left_on_the_right(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    orders = spec.mirrored_orders({"Femur_L": "Femur_R"})
    sample = read_sample(case, spec, ((0, 0, 0), case.shape_zyx))
    once = mirror_x(sample, orders, spec)
    twice = mirror_x(once, orders, spec)
    for name in ("image", "condition", "dose", "masks", "body", "valid_dose"):
        np.testing.assert_array_equal(twice[name], sample[name])
    left, right = (spec.structure_names.index(name) for name in ("Femur_L", "Femur_R"))
    x = np.arange(case.shape_zyx[2])
    for before, after in ((sample, once), (sample, sample)):
        for masks in (before["masks"], after["masks"]):
            # +x is the patient's left: after mirroring too, the left femur must lie there.
            assert (masks[left].sum(axis=(0, 1)) * x).sum() / masks[left].sum() > 30
            assert (masks[right].sum(axis=(0, 1)) * x).sum() / masks[right].sum() < 17
    np.testing.assert_array_equal(once["masks"][left], sample["masks"][right][..., ::-1])
    np.testing.assert_array_equal(once["image"][spec.first_structure + left] < 0, once["masks"][left])


STILL = {
    "sampling.mirror_share": 0.0, "sampling.ct_shift_hu": 0.0, "sampling.core_dropout.share": 0.0,
    "sampling.prescription_jitter": 0.0,
}  # fmt: skip


def test_a_recipe_that_mirrors_all_patches_mirrors_each_and_one_that_mirrors_none_none(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    cases = cohort.open()
    never, always = (make_dataset(cases, make_recipe({**STILL, "sampling.mirror_share": n})) for n in (0.0, 1.0))
    spec, orders = never.spec, always.orders
    assert never.orders is None
    assert orders is not None
    for key in ((0, 0, 0), (0, 1, 1), (3, 2, 2)):
        case = cases[key[2]]
        rng = np.random.default_rng([never.seed, *key])
        plain = read_sample(case, spec, sample_box(case, never.centres[key[2]], never.sampling, rng))
        turned = mirror_x(plain, orders, spec)
        for name in ("image", "condition", "dose", "masks", "body", "valid_dose"):
            np.testing.assert_array_equal(never[key][name], plain[name])
            np.testing.assert_array_equal(always[key][name], turned[name])
        assert not np.array_equal(plain["dose"], turned["dose"])


def test_of_many_patches_the_share_that_the_recipe_asks_for_is_mirrored(cohort: Any, make_recipe: MakeRecipe) -> None:
    cases = cohort.open()
    never, some = (make_dataset(cases, make_recipe({**STILL, "sampling.mirror_share": n})) for n in (0.0, 0.25))
    keys = [(0, position, 0) for position in range(120)]
    mirrored = sum(not torch.equal(never[key]["dose"], some[key]["dose"]) for key in keys)
    assert 15 <= mirrored <= 45


def test_the_ct_of_a_patch_is_moved_as_a_whole_by_about_as_much_as_the_recipe_says(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    cases = cohort.open()
    steady, moved = (make_dataset(cases, make_recipe({**STILL, "sampling.ct_shift_hu": hu})) for hu in (0.0, 20.0))
    shifts = []
    for position in range(40):
        before, after = steady[(0, position, 0)], moved[(0, position, 0)]
        step = after["image"][0] - before["image"][0]
        assert float(step.max() - step.min()) < 1e-6
        assert torch.equal(after["image"][1:], before["image"][1:])
        assert torch.equal(after["dose"], before["dose"])
        shifts.append(1000.0 * float(step.mean()))
    assert 13.0 < float(np.std(shifts)) < 28.0


def test_cores_are_lost_where_the_recipe_asks_for_it(cohort: Any, make_recipe: MakeRecipe) -> None:
    cases = cohort.open()
    whole, holed = (make_dataset(cases, make_recipe({**STILL, "sampling.core_dropout.share": n})) for n in (0.0, 1.0))
    changed = 0
    for position in range(10):
        before, after = whole[(0, position, 0)], holed[(0, position, 0)]
        changed += not torch.equal(before["image"][0], after["image"][0])
        assert torch.equal(before["image"][1:], after["image"][1:])
        assert torch.equal(before["masks"], after["masks"])
    assert changed >= 8


def test_slopes_are_the_steepest_tenth_of_where_the_dose_is_valid(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    centres, loaded = find_centres(case, spec_of([case], make_recipe().inputs)), Case.load(case.file.path)
    assert loaded.dose_gy is not None
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(loaded.dose_gy, *case.spacing_mm)))
    inside, share = loaded.valid_dose, len(centres.steep) / int(loaded.valid_dose.sum())
    assert share == pytest.approx(0.10, abs=0.002)
    assert slope[tuple(centres.steep.T)].min() >= np.sort(slope[inside])[int(0.899 * inside.sum())]


def test_a_patch_is_decided_by_seed_and_key_alone(cohort: Any, make_recipe: MakeRecipe) -> None:
    cases, recipe = cohort.open(), make_recipe()
    dataset = make_dataset(cases, recipe)
    first = dataset[(3, 1, 2)]
    dataset[(0, 0, 0)]
    again, other_seed = dataset[(3, 1, 2)], make_dataset(cases, recipe, seed=2)[(3, 1, 2)]
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other_seed["image"])
    assert not torch.equal(first["image"], dataset[(4, 1, 2)]["image"])


@pytest.mark.parametrize("prescription", ["numbers_and_map", "numbers", "none"])
def test_a_patchs_prescription_and_dose_rise_together_and_nothing_else_does(
    cohort: Any, make_recipe: MakeRecipe, prescription: str
) -> None:
    inputs = {"inputs.prescription": prescription, "prior": "none", "sampling.core_dropout.share": 0.0}
    cases, factors = cohort.open(), []
    steady, varied = (
        make_dataset(cases, make_recipe({**inputs, "sampling.prescription_jitter": jitter})) for jitter in (0.0, 0.2)
    )
    for position in range(16):
        before, after = steady[(0, position, 0)], varied[(0, position, 0)]
        where = before["dose"] > 0.1
        factor = float((after["dose"][where] / before["dose"][where]).mean())
        factors.append(factor)
        torch.testing.assert_close(after["dose"], before["dose"] * factor)
        scaled = {"image": torch.ones(len(before["image"])), "condition": torch.ones(len(before["condition"]))}
        scaled["condition"][steady.spec.prescribed] = factor
        if prescription == "numbers_and_map":
            scaled["image"][2] = factor
        torch.testing.assert_close(after["image"], before["image"] * scaled["image"][:, None, None, None])
        torch.testing.assert_close(after["condition"], before["condition"] * scaled["condition"])
    assert 0.8 <= min(factors) < 0.95 < 1.05 < max(factors) <= 1.2


def test_workers_bring_the_same_batches_as_the_process_itself(cohort: Any, make_recipe: MakeRecipe) -> None:
    batches = []
    for workers in (0, 2):
        # What a worker's own generators hold must not matter: they are seeded by the process that starts it.
        torch.manual_seed(100 + workers)
        recipe = make_recipe({"loader.workers": workers})
        batches.append(list(patch_loader(make_dataset(cohort.open(), recipe), recipe)))
    for alone, helped in zip(*batches, strict=True):
        assert alone["case_id"] == helped["case_id"]
        assert torch.equal(alone["image"], helped["image"])
    images = [image for batch in batches[1] for image in batch["image"]]
    assert all(not torch.equal(one, other) for i, one in enumerate(images) for other in images[:i])


def test_every_case_comes_equally_often_in_another_order_each_epoch() -> None:
    sampler = PatchSampler(n_cases=4, patches_per_case=3, seed=1)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert sorted(case for _, _, case in keys) == sorted([0, 1, 2, 3] * 3)
        assert {key[0] for key in keys} == {epoch}
        orders.append([case for _, _, case in keys])
    assert orders[0] != orders[1]
    sampler.set_epoch(0)
    assert [case for _, _, case in sampler] == orders[0]


WHOLE = {"sampling.patch_zyx": "case", "sampling.batch_size": 1, "sampling.core_dropout.share": 0.0}


def test_a_whole_case_is_cropped_to_what_counts_and_padded_to_what_the_network_halves(
    cohort: Any, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    case, recipe = Case.load(cohort.open()[0].file.path), make_recipe(WHOLE)
    counted = np.zeros(case.grid.shape_zyx, dtype=bool)
    counted[10:13, 8:30, 20:44] = True
    replace(case, valid_dose=counted).save(tmp_path / "case_0001.npz")
    small = open_case(CaseFile("case_0001", tmp_path / "case_0001.npz", sha256_of_file(tmp_path / "case_0001.npz")))
    start, shape = seen_box(small, recipe)
    # 3 + 2·2 slices, but at least three voxels of four at the coarsest level; 22 + 4 rows and 24 + 4 columns in fours.
    assert (start, shape) == ((6, 5, 18), (12, 28, 28))
    (sample,) = (as_tensors(read_sample(small, spec_of([small], recipe.inputs), (start, shape))),)
    assert int(sample["valid_dose"].sum()) == counted.sum()


def test_whole_cases_train_each_once_an_epoch_and_hold_all_that_counts(cohort: Any, make_recipe: MakeRecipe) -> None:
    recipe, cases = make_recipe({**WHOLE, "sampling.patches_per_case": 1}), cohort.open()
    batches = list(patch_loader(make_dataset(cases, recipe), recipe))
    assert sorted(batch["case_id"][0] for batch in batches) == [case.case_id for case in cases]
    counted = {case.case_id: int(Case.load(case.file.path).valid_dose.sum()) for case in cases}
    assert {batch["case_id"][0]: int(batch["valid_dose"].sum()) for batch in batches} == counted
    assert all(size % 4 == 0 for batch in batches for size in batch["image"].shape[2:])


def test_whole_cases_in_batches_or_with_a_loss_beyond_them_are_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(BadInput, match="batch_size 2 with patch_zyx: case, whose sizes differ; set it to 1"):
        make_recipe({"sampling.patch_zyx": "case"})
    with pytest.raises(BadInput, match=r"loss\.mask body with patch_zyx: case, which is cropped to valid_dose"):
        make_recipe({**WHOLE, "loss.mask": "body"})


def test_whole_cases_are_widened_to_the_patch(cohort: Any, make_recipe: MakeRecipe) -> None:
    recipe, cases = make_recipe(), cohort.open("val")
    recipe = make_recipe({"sampling.patch_zyx": [32, 24, 32]})
    whole = WholeCases(cases, spec_of(cases, recipe.inputs), recipe)
    (batch,) = case_loader(whole, recipe.loader)
    assert batch["image"].shape == (1, 14, 32, 40, 48)
    assert not bool(batch["body"][:, :, :4].any())
