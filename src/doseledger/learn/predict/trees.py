"""Whole cases told by boosted trees."""

from __future__ import annotations

from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.learn.networks.boosted import BoostedDose
from doseledger.learn.predict.predictor import Predictor
from doseledger.learn.recipes.trees import TrainedTrees, TreesPredict
from doseledger.learn.training.checkpoint import Checkpoint, load_checkpoint


def open_predictor(path: Path, settings: TreesPredict) -> Predictor:
    """Return the predictor of boosted trees; a training case is told by trees that have not seen it.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is no trees'.
    """
    checkpoint, boosted = load_boosted(path)
    how = settings.model_dump(mode="json")
    return Predictor(checkpoint, boosted.sha256, how, lambda case: {"dose_gy": boosted.tell(case)})


def load_boosted(path: Path) -> tuple[Checkpoint, BoostedDose]:
    """Return a checkpoint of boosted trees, and its trees ready to tell cases.

    Raises
    ------
    NotReady, BadInput
        As `open_predictor`.
    """
    checkpoint = load_checkpoint(path, TrainedTrees)
    if not isinstance(checkpoint.recipe, TrainedTrees):
        raise BadInput(f"{path}: its kind is {checkpoint.recipe.kind}, wanted trees")
    return checkpoint, BoostedDose(
        checkpoint.model,
        sha256_of_file(path),
        checkpoint.recipe,
        checkpoint.spec,
        checkpoint.weights,
        checkpoint.extras["told_by"],
    )
