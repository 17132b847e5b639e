"""Boosted trees as plain arrays: grown by scikit-learn, kept and asked without it.

A file of arrays runs no code as it is read, which a pickle of scikit-learn's would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from doseledger.core.types import Floats, Singles
from doseledger.learn.recipes.trees import BoostingRecipe

# Names, in a checkpoint, of the trees that have seen all training cases.
FINAL = "final"
# Voxels that go through one tree after another.
TOGETHER = 512


@dataclass(frozen=True)
class Trees:
    """A sum of regression trees.

    Parameters
    ----------
    first
        Number of each tree's root among all nodes, int64 (tree,).
    feature
        Which feature a node asks for, int64 (node,); -1 for a leaf.
    threshold
        At most this goes left, float64 (node,).
    left, right
        Numbers of a node's children, int64 (node,).
    value
        What a leaf adds, float64 (node,).
    start
        What is told before any tree, float64 (1,).
    """

    first: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: Floats
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: Floats
    start: Floats

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the trees as arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def predict(self, features: Singles) -> Floats:
        """Return what the trees say of voxels, float64 (voxel,), given their features (voxel, feature)."""
        told = np.full(len(features), self.start[0])
        links = np.stack([self.feature, self.left, self.right], axis=1).astype(np.int32)
        _add(features, self.first, links, np.stack([self.threshold, self.value], axis=1), told)
        return told


def fold_name(number: int) -> str:
    """Return the name, in a checkpoint, of the trees that have not seen one fold of the training cases."""
    return f"fold{number}"


def second_name(name: str) -> str:
    """Return the name of the second trees that see what the trees of a name tell."""
    return f"second_{name}"


def trees_named(name: str, weights: Mapping[str, Tensor]) -> Trees:
    """Return the trees of a name among a checkpoint's weights."""
    prefix = f"{name}."
    return Trees(**{k.removeprefix(prefix): t.numpy() for k, t in weights.items() if k.startswith(prefix)})


def grow_trees(features: Singles, dose: Singles, recipe: BoostingRecipe, weight: Singles | None = None) -> Trees:
    """Return trees grown to tell a dose, (voxel,), by features, (voxel, feature), in least squares.

    Parameters
    ----------
    weight
        How much each voxel counts, (voxel,); None for all alike.

    Notes
    -----
    Histogram gradient boosting (Ke et al., LightGBM, NeurIPS 2017) as scikit-learn has it, without early stopping, so
    that nothing is drawn but the voxels that its bins are told by.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

    model = HistGradientBoostingRegressor(
        max_iter=recipe.n_trees,
        max_leaf_nodes=recipe.leaves,
        min_samples_leaf=recipe.leaf_voxels,
        learning_rate=recipe.rate,
        early_stopping=False,
        random_state=0,
    )
    # One thread: the sums of several come in another order.
    with threadpool_limits(1):
        model.fit(features, dose, sample_weight=weight)
    return _as_arrays(model)


def _as_arrays(model: object) -> Trees:
    """The nodes of scikit-learn's trees; a test holds what they say to what it says itself."""
    nodes = [stage[0].nodes for stage in model._predictors]  # type: ignore[attr-defined]
    first = np.cumsum([0, *(len(tree) for tree in nodes)])[:-1].astype(np.int64)
    together = np.concatenate(nodes)
    shift = np.repeat(first, [len(tree) for tree in nodes])
    leaf = together["is_leaf"] > 0
    return Trees(
        first=first,
        feature=np.where(leaf, -1, together["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, 0.0, together["num_threshold"]).astype(np.float64),
        left=(together["left"].astype(np.int64) + shift),
        right=(together["right"].astype(np.int64) + shift),
        value=np.where(leaf, together["value"], 0.0).astype(np.float64),
        start=np.asarray(model._baseline_prediction, dtype=np.float64).reshape(1),  # type: ignore[attr-defined]
    )


@njit(cache=True)
def _add(features, first, links, numbers, told):  # type: ignore[no-untyped-def]
    """Add what each tree says; links are a node's feature and children, numbers its threshold and value."""
    # 1. some voxels at a time, so that a tree's nodes and their features stay in the nearest cache
    for start in range(0, features.shape[0], TOGETHER):
        stop = min(start + TOGETHER, features.shape[0])
        for tree in range(first.shape[0]):
            for voxel in range(start, stop):
                node = first[tree]
                asked = links[node, 0]
                # 2. the child by number, not by a branch that the processor would have to guess
                while asked >= 0:
                    node = links[node, 1 + int(not (features[voxel, asked] <= numbers[node, 0]))]
                    asked = links[node, 0]
                told[voxel] += numbers[node, 1]
