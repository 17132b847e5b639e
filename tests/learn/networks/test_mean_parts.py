"""Lattices, means and their mixture by hand, and trees against the library that grew them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from doseledger.learn.networks.mean_dose import (
    BY_DISTANCE,
    BY_PLACE,
    CaseVoxels,
    Lattice,
    Mean,
    _place_share,
)
from doseledger.learn.networks.trees import TOGETHER, Trees, fold_name, grow_trees, second_name, trees_named

SMALL = Lattice((-10.0, 0.0, 5.0), (5.0, 2.0, 4.0), (4, 3, 2))


def test_the_nearest_point_lies_within_the_lattice() -> None:
    at = torch.tensor([[-10.0, 0, 5], [-7.4, 1.1, 7.1], [-99, -99, -99], [99, 99, 99], [-7.6, 0.9, 6.9]])
    index = [
        np.ravel_multi_index(place, (4, 3, 2)) for place in ((0, 0, 0), (1, 1, 1), (0, 0, 0), (3, 2, 1), (0, 0, 0))
    ]
    assert SMALL.nearest(at).tolist() == index


def test_between_points_values_lie_on_straight_lines_and_the_edge_holds_beyond() -> None:
    z, y, x = np.meshgrid(np.arange(4), np.arange(3), np.arange(2), indexing="ij")
    values = torch.from_numpy((100.0 * z + 10.0 * y + x).astype(np.float32))
    at = torch.tensor([[-10.0, 0.0, 5.0], [-2.5, 3.0, 6.0], [-99.0, 1.0, 99.0], [99.0, -99.0, -99.0]]).view(
        2, 1, 1, 2, 3
    )
    found = SMALL.interpolate(values, at)
    assert found.shape == (2, 1, 1, 1, 2)
    assert found.ravel().tolist() == pytest.approx([0.0, 150.0 + 15.0 + 0.25, 5.0 + 1.0, 300.0], abs=1e-4)
    each = SMALL.interpolate(torch.stack([values, 2 * values])[:, None], at)
    assert each.ravel().tolist() == pytest.approx([0.0, 165.25, 12.0, 600.0], abs=1e-3)


def test_the_shipped_lattices_hold_a_pelvis_and_its_targets() -> None:
    assert (BY_PLACE.first_mm, BY_PLACE.step_mm, BY_PLACE.points) == ((-180.0, -180.0, 0.0), (5.0,) * 3, (73, 73, 53))
    assert (BY_DISTANCE.first_mm, BY_DISTANCE.step_mm) == ((-120.0, -20.0, -20.0), (10.0, 5.0, 5.0))
    assert BY_DISTANCE.points == (25, 15, 15)


def test_a_mean_is_that_of_its_voxels_and_of_the_nearest_known_point_elsewhere() -> None:
    mean = Mean(Lattice((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1, 1, 7)))
    mean.add(np.array([1, 1, 6]), np.array([1.0, 3.0, 10.0], np.float32))
    assert mean.values().tolist() == [2.0, 2.0, 2.0, 2.0, 10.0, 10.0, 10.0]
    mean.add(np.array([3, 1]), np.array([5.0, 8.0], np.float32))
    assert mean.values().tolist()[1:4:2] == [4.0, 5.0]
    mean.add(np.array([3, 1]), np.array([5.0, 8.0], np.float32), sign=-1)
    assert mean.values().tolist() == [2.0, 2.0, 2.0, 2.0, 10.0, 10.0, 10.0]
    assert mean.count.tolist() == [0, 2, 0, 0, 0, 0, 1]


def voxels(name: str, dose: list[float], place: list[int], distance: list[int]) -> CaseVoxels:
    return CaseVoxels(name, np.array(dose, np.float32), (np.array(place), np.array(distance)))


@pytest.mark.parametrize(("second", "share"), [
    # By place the others tell 1 and 0, by distance 0.5: halfway between is 0.75 and 0.25.
    ([0.75, 0.25], 0.5), ([1.0, 0.0], 1.0), ([0.5, 0.5], 0.0), ([2.0, -1.0], 1.0), ([0.0, 1.0], 0.0), ([0.6, 0.4], 0.2),
])  # fmt: skip
def test_the_means_are_mixed_as_tells_each_case_best_from_the_others(second: list[float], share: float) -> None:
    line = Lattice((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1, 1, 2))
    known = voxels("a", [1.0, 0.0], [0, 1], [0, 0])
    other = voxels("b", second, [0, 1], [0, 0])
    means = [Mean(line), Mean(line)]
    for one in (known, other):
        for mean, points in zip(means, one.points, strict=True):
            mean.add(points, one.dose)
    kept: dict[str, list[list[float]]] = {}
    # Of the second case alone: told by the first.
    found = _place_share([other], means, lambda name, values: kept.update({name: [v.tolist() for v in values]}))
    assert found == pytest.approx(share, abs=1e-6)
    assert kept == {"b": [[1.0, 0.0], [0.5, 0.5]]}
    # Afterwards the means are whole again.
    assert means[0].count.tolist() == [2, 2]
    assert means[0].total == pytest.approx([1.0 + second[0], second[1]])
    # Where both means tell the same, nothing is gained by either.
    assert _place_share([voxels("b", second, [0, 0], [0, 0])], [means[0], means[0]]) == 0.0


BOOSTING: Any = SimpleNamespace(n_trees=7, leaves=6, leaf_voxels=9, rate=0.3)


@pytest.fixture(scope="module")
def learnt() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(1200, 4)).astype(np.float32)
    features[::9, 2] = np.nan
    dose = np.where(features[:, 0] > 0.3, features[:, 1], np.nan_to_num(features[:, 2]) ** 2) + 5.0
    return features, dose.astype(np.float32), rng.uniform(0.1, 3.0, 1200).astype(np.float32)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_trees_say_what_the_library_that_grew_them_says(
    learnt: tuple[np.ndarray, np.ndarray, np.ndarray], is_weighted: bool
) -> None:
    features, dose, weight = learnt
    model = HistGradientBoostingRegressor(
        max_iter=7, max_leaf_nodes=6, min_samples_leaf=9, learning_rate=0.3, early_stopping=False, random_state=0
    ).fit(features, dose, sample_weight=weight if is_weighted else None)
    trees = grow_trees(features, dose, BOOSTING, weight if is_weighted else None)
    # More voxels than go through a tree together, and no multiple of that. A missing value goes right.
    whole = np.nan_to_num(features, nan=1e9)
    assert len(whole) > 2 * TOGETHER
    assert trees.predict(whole) == pytest.approx(model.predict(whole), abs=1e-9)
    assert len(trees.first) == 7
    assert (trees.feature == -1).sum() == 7 * 6
    leaves = trees.feature < 0
    assert not trees.threshold[leaves].any()
    assert not trees.value[~leaves].any()
    assert trees.start.shape == (1,)


def test_trees_are_kept_and_found_by_name() -> None:
    arrays = {"first": [0, 3], "feature": [1, -1, -1, -1], "threshold": [0.5, 0, 0, 0], "left": [1, 0, 0, 0],
              "right": [2, 0, 0, 0], "value": [0, 1.0, 2.0, 0.25], "start": [10.0]}  # fmt: skip
    weights = {f"fold1.{name}": torch.tensor(value) for name, value in arrays.items()}
    weights |= {"second_fold1.first": torch.tensor([9]), "fold11.first": torch.tensor([8])}
    trees = trees_named("fold1", weights)
    assert isinstance(trees, Trees)
    assert {name: value.tolist() for name, value in trees.arrays().items()} == arrays
    # At most the threshold goes left; no number goes right.
    features = np.array([[9.0, 0.5], [9.0, 0.51], [9.0, np.nan]], np.float32)
    assert trees.predict(features).tolist() == [11.25, 12.25, 12.25]
    assert (fold_name(3), second_name("fold3")) == ("fold3", "second_fold3")
