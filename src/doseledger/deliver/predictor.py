"""A trained model of any family, ready to predict a case as its block of the settings says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from doseledger.core.settings import Settings
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.predict.cases import (
    Model,
    defined_voxels,
    load_model,
    predict_case,
    prediction_meta,
    write_prediction,
)
from doseledger.learn.predict.draws import DiffusionModel, draw_case, load_diffusion_model, pack_samples
from doseledger.learn.recipes.diffusion import DiffusionPredict, load_diffusion
from doseledger.learn.recipes.dose import PredictRecipe, load_recipe
from doseledger.learn.training.checkpoint import Checkpoint, read_content

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Predictor:
    """A model with the settings of its prediction.

    Parameters
    ----------
    checkpoint, sha256
        What it was trained on and with, and the file's digest.
    settings
        How it predicts, as JSON values.
    predict
        Arrays of a case, on its grid: `dose_gy`, float32 (z, y, x), and what else the family says of it.
    """

    checkpoint: Checkpoint
    sha256: str
    settings: dict[str, Any]
    predict: Callable[[OpenCase], Arrays]

    def save(self, path: Path, case: OpenCase, arrays: Arrays) -> None:
        """Write the arrays of a case with the digests of all that made them."""
        meta = prediction_meta(case, self.checkpoint, self.sha256) | {"settings": self.settings}
        write_prediction(path, case, arrays, meta)


def dose_predictor(model: Model, recipe: PredictRecipe) -> Predictor:
    """Return the predictor of a dose network: one dose a case."""

    def predict(case: OpenCase) -> Arrays:
        return {"dose_gy": predict_case(model, case, recipe)}

    return Predictor(model.checkpoint, model.sha256, recipe.model_dump(mode="json"), predict)


def diffusion_predictor(model: DiffusionModel, recipe: DiffusionPredict) -> Predictor:
    """Return the predictor of a diffusion: the mean of the doses that it draws, their spread, and samples."""

    def predict(case: OpenCase) -> Arrays:
        return pack_samples(draw_case(model, case, recipe), defined_voxels(case))

    return Predictor(model.checkpoint, model.sha256, recipe.model_dump(mode="json"), predict)


def open_predictor(checkpoint: Path, settings: Settings, where: str) -> Predictor:
    """Return the predictor of a checkpoint of any family.

    Parameters
    ----------
    checkpoint
        best.ckpt or last.ckpt of a run.
    settings
        Their block of the model's name says how it predicts.
    where
        Name of the settings in errors.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or the settings have no such block.
    """
    content = read_content(checkpoint)
    name = str(content["model"])
    if content["recipe"]["kind"] == "diffusion":
        drawing = load_diffusion(settings.model(name), f"{where}: {name}").predict
        return diffusion_predictor(load_diffusion_model(checkpoint), drawing)
    return dose_predictor(load_model(checkpoint), load_recipe(settings.model(name), f"{where}: {name}").predict)
