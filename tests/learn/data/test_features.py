"""Features of voxels that have known answers, and the draw of voxels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.learn.data.features import FARTHEST_MM, dose_features, dose_shares, drawn_voxels, voxel_features
from doseledger.learn.data.inputs import OpenCase, spec_of
from doseledger.learn.recipes.dose import Recipe

N_STRUCTURES = 8
FIRST_DISTANCE, FIRST_AREA, CT = 3, 3 + N_STRUCTURES + 2, 3 + N_STRUCTURES + 4


@pytest.fixture
def case(cohort: Any) -> OpenCase:
    return cohort.open("test")[0]


@pytest.fixture
def told_gy(case: OpenCase) -> np.ndarray:
    """A dose that rises by 0.1 Gy a mm along x."""
    x_mm = np.arange(case.shape_zyx[2], dtype=np.float32) * np.float32(case.spacing_mm[2])
    return np.broadcast_to(x_mm / 10.0, case.shape_zyx).astype(np.float32)


def test_without_context_the_same_voxels_keep_their_own_numbers_alone(case: OpenCase, make_recipe: Any) -> None:
    recipe: Recipe = make_recipe()
    spec, index = spec_of([case], recipe.inputs), drawn_voxels(case, 300, 1)
    alone = voxel_features(case, spec, index, [])
    seen = voxel_features(case, spec, index, [8.0, 20.0])
    # CT and prescription, each smoothed twice, and the slice mean of the prescription
    assert seen.shape[1] - alone.shape[1] == 2 * 2 + 1
    np.testing.assert_array_equal(alone, seen[:, [*range(CT), CT, CT + 3]])


def test_distances_areas_and_ct_are_those_of_the_case(case: OpenCase, make_recipe: Any) -> None:
    whole, recipe = Case.load(case.file.path), make_recipe()
    index = np.flatnonzero(whole.body)
    found = voxel_features(case, spec_of([case], recipe.inputs), index, [])
    absent = whole.structure_names.index("Bowel")
    assert (found[:, FIRST_DISTANCE + absent] == FARTHEST_MM).all()
    for number, name in enumerate(whole.structure_names):
        inside = whole.mask(name).reshape(-1)[index]
        assert ((found[:, FIRST_DISTANCE + number] < 0) == inside).all(), name
    assert ((found[:, FIRST_AREA - 1] < 0) == whole.body.reshape(-1)[index]).all()
    z = np.unravel_index(index, whole.body.shape)[0]
    area = whole.body.sum(axis=(1, 2)) * 0.36 / 100.0
    np.testing.assert_allclose(found[:, FIRST_AREA + 1], area[z], rtol=1e-6)
    np.testing.assert_array_equal(found[:, CT], whole.ct_hu.reshape(-1)[index])


def test_a_told_ramp_smoothed_is_the_ramp_and_its_slice_mean_the_mean_over_the_body(
    case: OpenCase, told_gy: np.ndarray
) -> None:
    whole = Case.load(case.file.path)
    inner = np.zeros(case.shape_zyx, dtype=bool)
    inner[:, 15:25, 20:28] = True
    index = np.flatnonzero(inner & whole.body)
    share, narrow, wide, mean = dose_features(case, told_gy, index, [8.0, 20.0]).T
    np.testing.assert_allclose(share, told_gy.reshape(-1)[index] / 70.0, rtol=1e-6)
    np.testing.assert_allclose(narrow, share, rtol=1e-5)
    np.testing.assert_allclose(wide, share, rtol=1e-5)
    z = np.unravel_index(index, case.shape_zyx)[0]
    expected = np.array([told_gy[k][whole.body[k]].mean() for k in range(case.shape_zyx[0])]) / 70.0
    np.testing.assert_allclose(mean, expected[z], rtol=1e-5)
    assert dose_features(case, told_gy, index, []).shape == (len(index), 1)


def test_the_draw_hangs_on_seed_and_name_alone(case: OpenCase) -> None:
    drawn = drawn_voxels(case, 50, 1)
    assert len(drawn) == 50
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, drawn_voxels(case, 50, 1))
    assert (drawn != drawn_voxels(case, 50, 2)).any()
    renamed = replace(case, file=replace(case.file, case_id="case_0077"))
    assert (drawn != drawn_voxels(renamed, 50, 1)).any()
    assert len(drawn_voxels(case, 10**9, 1)) == int(Case.load(case.file.path).body.sum())


def test_a_dose_that_is_not_finite_is_refused_by_name(case: OpenCase, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Case.load(case.file.path)
    assert whole.dose_gy is not None
    index = drawn_voxels(case, 50, 1)
    np.testing.assert_allclose(dose_shares(case, index), whole.dose_gy.reshape(-1)[index] / 70.0, rtol=1e-6)
    broken = np.full(case.shape_zyx, np.nan, np.float32)
    monkeypatch.setattr("doseledger.learn.data.features.map_member", lambda *_: broken)
    with pytest.raises(BadCase, match=r"case_0005.*its dose is not finite"):
        dose_shares(case, index)
