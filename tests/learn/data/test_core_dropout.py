"""Core drop-out: what is taken out, what it is filled with, and that it is off unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from doseledger.core.errors import BadInput
from doseledger.learn.data.core_dropout import drop_core, fill_core
from doseledger.learn.data.inputs import spec_of
from doseledger.learn.data.patches import PatchDataset
from doseledger.learn.recipes.dose import CoreDropoutRecipe, Recipe

SHAPE, SPACING = (12, 20, 24), (3.0, 2.0, 2.0)
ALWAYS = {"share": 1.0, "structure_share": 0.0, "radius_mm": [6.0, 6.0], "surround_mm": 4.0}


def settings_of(**changes: Any) -> CoreDropoutRecipe:
    return CoreDropoutRecipe.model_validate({**ALWAYS, **changes})


def cube(z: slice, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[z, y, x] = True
    return mask


def test_a_hot_cube_in_a_field_of_one_value_is_filled_with_that_value() -> None:
    core = cube(slice(4, 8), slice(6, 14), slice(8, 16))
    ct = np.where(core, 9.0, 0.25).astype(np.float32)
    fill_core(ct, core, np.ones(SHAPE, bool), SPACING, 4.0)
    assert (ct == 0.25).all()


def test_the_fill_is_the_median_within_that_distance_in_the_body_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=SHAPE).astype(np.float32)
    core, body = cube(slice(3, 6), slice(5, 9), slice(5, 9)), np.ones(SHAPE, bool)
    body[:, :, 11:] = False
    ct = before.copy()
    fill_core(ct, core, body, SPACING, 4.0)
    near = ndimage.distance_transform_edt(~core, sampling=SPACING)
    around = (near > 0) & (near <= 4.0) & body
    assert (ct[core] == np.median(before[around])).all()
    np.testing.assert_array_equal(ct[~core], before[~core])


def test_a_core_that_fills_the_body_or_is_empty_is_left_alone() -> None:
    before = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    core = cube(slice(3, 6), slice(5, 9), slice(5, 9))
    for inside, body in ((core, core), (np.zeros_like(core), np.ones(SHAPE, bool))):
        ct = before.copy()
        fill_core(ct, inside, body, SPACING, 4.0)
        np.testing.assert_array_equal(ct, before)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), radius=st.floats(5.0, 12.0))
def test_a_ball_of_that_radius_is_filled_inside_the_body_alone(seed: int, radius: float) -> None:
    body = cube(slice(1, 11), slice(2, 18), slice(2, 22))
    before = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    ct, masks = before.copy(), np.zeros((1, *SHAPE), bool)
    drop_core(ct, masks, body, SPACING, settings_of(radius_mm=[radius, radius]), np.random.default_rng(seed))
    changed = ct != before
    assert changed.any()
    assert not (changed & ~body).any()
    extent_mm = [(hits.max() - hits.min()) * step for hits, step in zip(np.nonzero(changed), SPACING, strict=True)]
    assert max(extent_mm) <= 2 * radius
    assert len(np.unique(ct[changed])) == 1


def test_a_structures_inside_is_filled_where_one_is_asked_for_and_there() -> None:
    body, masks = np.ones(SHAPE, bool), np.zeros((3, *SHAPE), bool)
    masks[1] = cube(slice(4, 8), slice(6, 14), slice(8, 16))
    before = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    ct = before.copy()
    drop_core(ct, masks, body, SPACING, settings_of(structure_share=1.0), np.random.default_rng(0))
    np.testing.assert_array_equal(ct != before, masks[1])
    ct = before.copy()
    drop_core(ct, masks * False, body, SPACING, settings_of(structure_share=1.0), np.random.default_rng(0))
    assert (ct != before).any()


def test_the_share_is_that_of_the_patches() -> None:
    body, masks, rng = np.ones(SHAPE, bool), np.zeros((1, *SHAPE), bool), np.random.default_rng(5)
    field = np.random.default_rng(4).normal(size=SHAPE).astype(np.float32)
    fallen = 0
    for _ in range(200):
        ct = field.copy()
        drop_core(ct, masks, body, SPACING, settings_of(share=0.3), rng)
        fallen += bool((ct != field).any())
    assert fallen == pytest.approx(60, abs=20)


def test_radii_that_fall_are_refused(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(BadInput, match="radius_mm falls from 30 to 10; the least first"):
        make_recipe({"sampling.core_dropout.radius_mm": [30.0, 10.0]})


def test_it_changes_the_ct_alone_is_decided_by_the_key_and_off_by_default(
    cohort: Any, make_recipe: Callable[..., Recipe]
) -> None:
    cases = cohort.open()
    plain, dropped = (
        PatchDataset(cases, spec_of(cases, recipe.inputs), recipe, 1)
        for recipe in (make_recipe(), make_recipe({"sampling.core_dropout.share": 1.0}))
    )
    assert make_recipe().sampling.core_dropout.share == 0.0
    n_changed = 0
    for key in [(epoch, position, case) for epoch in (0, 1) for position in (0, 1) for case in (0, 1, 2)]:
        before, after, again = plain[key], dropped[key], dropped[key]
        n_changed += not torch.equal(before["image"][0], after["image"][0])
        assert torch.equal(after["image"], again["image"])
        assert torch.equal(before["image"][1:], after["image"][1:])
        for name in ("condition", "dose", "masks", "body", "valid_dose"):
            assert torch.equal(before[name], after[name])
    assert n_changed == 12
