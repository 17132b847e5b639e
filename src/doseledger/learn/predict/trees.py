"""Whole cases told by boosted trees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.types import GyArray
from doseledger.learn.data.features import voxel_features
from doseledger.learn.data.inputs import InputSpec, OpenCase, check_fits, defined_voxels
from doseledger.learn.networks.trees import FINAL, Trees, trees_named
from doseledger.learn.predict.predictor import Arrays, Predictor
from doseledger.learn.recipes.trees import FeatureRecipe, TrainedTrees, TreesPredict
from doseledger.learn.training.checkpoint import load_checkpoint


def open_predictor(path: Path, settings: TreesPredict) -> Predictor:
    """Return the predictor of boosted trees; a training case is told by trees that have not seen it.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is no trees'.
    """
    checkpoint = load_checkpoint(path, TrainedTrees)
    spec, recipe, told_by = checkpoint.spec, checkpoint.recipe, checkpoint.extras["told_by"]
    if not isinstance(recipe, TrainedTrees):
        raise BadInput(f"{path}: its kind is {recipe.kind}, wanted trees")

    def predict(case: OpenCase) -> Arrays:
        trees = trees_named(told_by.get(case.file.sha256, FINAL), checkpoint.weights)
        return {"dose_gy": tell_dose(trees, case, spec, recipe.features)}

    return Predictor(checkpoint, sha256_of_file(path), settings.model_dump(mode="json"), predict)


def tell_dose(trees: Trees, case: OpenCase, spec: InputSpec, recipe: FeatureRecipe) -> GyArray:
    """Return the dose that trees tell of a case in Gy, float32 (z, y, x); never negative, 0 where none is defined.

    Raises
    ------
    BadCase
        If the case does not fit what the trees were grown on, or no target is there.
    """
    check_fits(case, spec)
    dose_gy = np.zeros(case.shape_zyx, dtype=np.float32)
    index = np.flatnonzero(defined_voxels(case))
    told = trees.predict(voxel_features(case, spec, recipe, index)) * case.main_prescription_gy
    dose_gy.reshape(-1)[index] = np.maximum(told, 0.0)
    return dose_gy
