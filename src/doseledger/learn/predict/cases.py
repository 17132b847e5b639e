"""Whole cases predicted by a trained dose network, in Gy on the case's own grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.types import Singles
from doseledger.learn.data.inputs import OpenCase, Window, check_fits
from doseledger.learn.data.patches import (
    Sample,
    as_tensors,
    mirror_inputs,
    read_inputs,
    seen_box,
    step_of,
    turned_box,
)
from doseledger.learn.data.turns import mirror_z_image, source_box, turn_inputs, turn_volume
from doseledger.learn.networks.boosted import BoostedDose, boosted_of
from doseledger.learn.networks.windows import predict_whole
from doseledger.learn.networks.with_prior import OverPrior, dose_network
from doseledger.learn.predict.predictor import Predictor, check_spacing, dose_on_case
from doseledger.learn.recipes.dose import PredictRecipe, TrainedRecipe
from doseledger.learn.training.checkpoint import Checkpoint, fill, load_checkpoint


@dataclass(frozen=True)
class Model:
    """A checkpoint's network, ready to predict."""

    checkpoint: Checkpoint
    recipe: TrainedRecipe
    sha256: str
    network: nn.Module
    device: torch.device
    boosted: BoostedDose | None = None

    def prior_alone(self) -> Model | None:
        """Return the model without its network's word, what `prior` gives; None where it adds to nothing."""
        return replace(self, network=self.network.prior) if isinstance(self.network, OverPrior) else None


def load_model(path: Path) -> Model:
    """Return the network of a checkpoint with its weights, on the GPU where there is one.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read.
    """
    checkpoint = load_checkpoint(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = dose_network(checkpoint.recipe, checkpoint.spec)
    fill(network, checkpoint.weights, path)
    if not isinstance(checkpoint.recipe, TrainedRecipe):
        raise BadInput(f"{path}: its kind is {checkpoint.recipe.kind}, wanted dose")
    boosted = boosted_of(checkpoint.extras, path)
    return Model(checkpoint, checkpoint.recipe, sha256_of_file(path), network.to(device).eval(), device, boosted)


def open_predictor(path: Path, settings: PredictRecipe) -> Predictor:
    """Return the predictor of a dose network: one dose a case.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is no dose network's.
    """
    return dose_predictor(load_model(path), settings)


def dose_predictor(model: Model, recipe: PredictRecipe) -> Predictor:
    """Return a loaded dose network as a predictor.

    Raises
    ------
    BadInput
        If it is to be averaged over turns, after which one of its inputs is another: of a part of a
        mean only the mean's own settings say so.
    """
    if recipe.mirror_average == "beams" and model.recipe.inputs.turn_fault:
        raise BadInput(f"{model.checkpoint.model}: predict.mirror_average beams: {model.recipe.inputs.turn_fault}")
    alone, patch_zyx = model.prior_alone(), model.recipe.sampling.patch_zyx
    return Predictor(
        model.checkpoint,
        model.sha256,
        recipe.model_dump(mode="json"),
        lambda case: {"dose_gy": predict_case(model, case, recipe)},
        None if alone is None else lambda case: predict_case(alone, case, recipe),
        window_zyx=None if patch_zyx == "case" else patch_zyx,
    )


def predict_case(model: Model, case: OpenCase, recipe: PredictRecipe) -> Singles:
    """Return the predicted dose in Gy (z, y, x) on the case's grid; never negative, 0 where no dose is defined.

    Raises
    ------
    BadCase
        If the case does not fit what the model was trained on, or the prediction is not finite.
    """
    checkpoint = model.checkpoint
    check_fits(case, checkpoint.spec)
    check_spacing(case, checkpoint, recipe.spacing_tolerance)
    case = model.boosted.told(case) if model.boosted else case
    box = seen_box(case, model.recipe)
    sample = read_inputs(case, checkpoint.spec, box)
    dose = _mirrored_mean(model, sample, recipe)
    if recipe.mirror_average == "beams":
        dose = _turned_mean(model, case, box, dose, recipe)
    return dose_on_case(case, dose, box, checkpoint.spec.recipe.dose_scale_gy)


def _mirrored_mean(model: Model, sample: Sample, recipe: PredictRecipe) -> Singles:
    """Mean of the doses of a sample and of its mirrored ones, as far as the recipe asks for them."""
    dose = _run(model, sample, recipe)
    if not recipe.mirror_average:
        return dose
    spec = model.checkpoint.spec
    orders = spec.mirrored_orders(model.recipe.sampling.mirrored_names)
    dose = (dose + _run(model, mirror_inputs(sample, orders), recipe)[..., ::-1]) / 2.0
    if recipe.mirror_average is True:
        return dose
    upside_down = {**sample, "image": mirror_z_image(sample["image"], spec)}
    plain = recipe.model_copy(update={"mirror_average": True})
    result: Singles = (dose + _mirrored_mean(model, upside_down, plain)[::-1]) / 2.0
    return result


def _turned_mean(model: Model, case: OpenCase, box: Window, dose: Singles, recipe: PredictRecipe) -> Singles:
    """Mean of a box's dose and those of the case turned by each multiple of the angle between beams."""
    if fault := model.recipe.inputs.turn_fault:
        raise BadInput(f"{model.checkpoint.model}: predict.mirror_average beams: {fault}")
    step_deg, spec = step_of([case]), model.checkpoint.spec
    mm = (case.spacing_mm[1], case.spacing_mm[2])
    turns = range(1, round(360.0 / step_deg))
    for times in turns:
        degrees = times * step_deg
        seen = turned_box(case, model.recipe, degrees)
        sample = read_inputs(case, spec, source_box(case, seen, degrees))
        sample["image"] = turn_inputs(sample["image"], spec, degrees, mm, seen[1][1:])
        turned = _mirrored_mean(model, sample, recipe)
        dose = dose + turn_volume(turned[None], -degrees, mm, box[1][1:])[0]
    return dose / np.float32(len(turns) + 1)


def _run(model: Model, sample: Sample, recipe: PredictRecipe) -> Singles:
    patch_zyx, precision = model.recipe.sampling.patch_zyx, model.recipe.fit.precision
    batch = {name: tensor[None].to(model.device) for name, tensor in as_tensors(sample).items()}
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        dose = predict_whole(
            model.network, batch, patch_zyx, overlap=recipe.overlap, windows_at_once=recipe.windows_at_once
        )
    result: Singles = dose[0, 0].float().cpu().numpy()
    return result
