"""Whole cases told by several models: the weighted mean of their doses."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.types import GyArray
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.predict import cases, trees
from doseledger.learn.predict.predictor import Predictor
from doseledger.learn.recipes.dose import PredictRecipe
from doseledger.learn.recipes.mean import TrainedMean
from doseledger.learn.recipes.trees import TreesPredict
from doseledger.learn.training.checkpoint import Checkpoint, load_checkpoint, read_content


def open_predictor(path: Path, settings: PredictRecipe) -> Predictor:
    """Return the predictor of a mean of models, whose parts its checkpoint holds.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is no mean's.
    """
    checkpoint = load_checkpoint(path, TrainedMean)
    how, weights = settings.model_dump(mode="json"), _weights_of(checkpoint)
    with tempfile.TemporaryDirectory(prefix="parts_") as folder:
        parts = {}
        for name, packed in checkpoint.extras["parts"].items():
            file = Path(folder) / f"{name}.ckpt"
            file.write_bytes(packed.numpy().tobytes())
            parts[name] = open_part(file, settings)

    def predict(case: OpenCase) -> dict[str, GyArray]:
        return {"dose_gy": mean_dose(parts, weights, case)}

    return Predictor(checkpoint, sha256_of_file(path), how, predict)


def open_part(path: Path, settings: PredictRecipe) -> Predictor:
    """Return a part of a mean, which predicts as the mean's settings say, not projected.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is of a kind that tells no single dose.
    """
    content, alone = read_content(path), settings.model_copy(update={"project": False})
    match content["recipe"].get("kind"):
        case "dose":
            return cases.open_predictor(path, alone)
        case "trees":
            return trees.open_predictor(path, TreesPredict(project=False))
        case "mean":
            return open_predictor(path, alone)
        case kind:
            raise BadInput(
                f"{content['model']} is of kind {kind}, which can't be a part of a mean; wanted dose, trees or mean"
            )


def pack_part(path: Path) -> Tensor:
    """Return the bytes of a part's checkpoint, as the mean's own keeps them: uint8 (byte,)."""
    return torch.from_numpy(np.fromfile(path, dtype=np.uint8))


def _weights_of(checkpoint: Checkpoint) -> dict[str, float]:
    """How much each part of a mean counts, by name."""
    if not isinstance(checkpoint.recipe, TrainedMean):
        raise BadInput(f"{checkpoint.model}: its kind is {checkpoint.recipe.kind}, wanted mean")
    return dict(checkpoint.recipe.weights)


def mean_dose(parts: Mapping[str, Predictor], weights: Mapping[str, float], case: OpenCase) -> GyArray:
    """Return the weighted mean of what parts tell of a case, float32 (z, y, x) in Gy."""
    names = sorted(weights)
    doses = np.asarray([parts[name].predict(case)["dose_gy"] for name in names], dtype=np.float64)
    mean: GyArray = np.average(doses, axis=0, weights=[weights[name] for name in names])
    return mean.astype(np.float32)
