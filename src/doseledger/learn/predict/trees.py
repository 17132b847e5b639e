"""Whole cases told by boosted trees."""

from __future__ import annotations

from pathlib import Path

from doseledger.learn.predict.predictor import Predictor
from doseledger.learn.recipes.trees import TrainedTrees, TreesPredict
from doseledger.learn.training.checkpoint import load_checkpoint
from doseledger.learn.training.told import boosted_in


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
    boosted = boosted_in(checkpoint, path)
    how = settings.model_dump(mode="json")
    return Predictor(checkpoint, boosted.sha256, how, lambda case: {"dose_gy": boosted.tell(case)})
