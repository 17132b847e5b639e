"""Doses drawn by a trained diffusion: centre, spread, samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.grid import Triple
from doseledger.core.schema import load_block
from doseledger.core.types import Singles
from doseledger.learn.data.inputs import OpenCase, Window, check_fits, defined_voxels, read_box
from doseledger.learn.data.patches import as_tensors, read_inputs, seen_box
from doseledger.learn.networks.boosted import BoostedDose, ToldDose, boosted_of
from doseledger.learn.networks.denoiser import (
    DoseScale,
    DrawSettings,
    base_of_case,
    build_noise_network,
    draw_doses,
    noise_fields,
)
from doseledger.learn.networks.with_prior import dose_network
from doseledger.learn.predict.predictor import Arrays, Predictor, check_spacing, dose_on_case
from doseledger.learn.recipes.diffusion import DiffusionPredict, TrainedDiffusion
from doseledger.learn.recipes.dose import TrainedRecipe
from doseledger.learn.training.checkpoint import Checkpoint, fill, load_checkpoint

# Samples are kept in these steps as 16-bit numbers: to 131 Gy, and a thousandth of what a spread of 2 Gy is.
SAMPLE_STEP_GY = 0.002
# How far the skew of drawn doses is averaged: 10, 20 and 30 mm gave the same error on OpenKBP's selection patients.
SKEW_SIGMA_MM = 20.0


@dataclass(frozen=True)
class DiffusionModel:
    """A checkpoint's networks, ready to draw doses."""

    checkpoint: Checkpoint
    recipe: TrainedDiffusion
    sha256: str
    network: nn.Module
    base: nn.Module | None
    scale: DoseScale
    device: torch.device
    boosted: BoostedDose | None = None


@dataclass(frozen=True)
class Drawn:
    """Doses drawn of a case, in Gy.

    Parameters
    ----------
    dose_gy
        (z, y, x): the centre of all that were drawn.
    samples_gy
        (sample, z, y, x): those whose spread is kept.
    """

    dose_gy: NDArray[np.float32]
    samples_gy: NDArray[np.float32]


def load_diffusion_model(path: Path) -> DiffusionModel:
    """Return the networks of a diffusion's checkpoint with their weights, on the GPU where there is one.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is no diffusion's.
    """
    checkpoint = load_checkpoint(path, TrainedDiffusion)
    recipe, spec = checkpoint.recipe, checkpoint.spec
    if not isinstance(recipe, TrainedDiffusion):
        raise BadInput(f"{path}: its kind is {recipe.kind}, wanted diffusion")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_noise_network(recipe, spec)
    fill(network, checkpoint.weights, path)
    scale, sha256 = DoseScale(**checkpoint.extras["scale"]), sha256_of_file(path)
    base, boosted = _base_of(checkpoint, path), boosted_of(checkpoint.extras, path)
    base = base.to(device).eval() if base is not None else None
    return DiffusionModel(checkpoint, recipe, sha256, network.to(device).eval(), base, scale, device, boosted)


def _base_of(checkpoint: Checkpoint, path: Path) -> nn.Module | None:
    """The network whose residual was learned, or what trees have told; None of a diffusion of the dose itself."""
    kept, spec = checkpoint.extras["base"], checkpoint.spec
    if kept is None:
        return ToldDose(spec) if spec.told else None
    network = dose_network(load_block(TrainedRecipe, kept["recipe"], f"{path}: base"), spec)
    fill(network, kept["weights"], f"{path}: base")
    return network


def open_predictor(path: Path, settings: DiffusionPredict) -> Predictor:
    """Return the predictor of a diffusion: the centre of the doses that it draws, their spread, and samples.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is no diffusion's, or is to be centred on a base that it doesn't have.
    """
    model = load_diffusion_model(path)
    if settings.centre == "base" and model.base is None:
        raise BadInput(f"{path}: predict.centre base, but it diffuses the dose itself; take median or mean")

    def predict(case: OpenCase) -> Arrays:
        return pack_samples(draw_case(model, case, settings), defined_voxels(case))

    patch_zyx = model.recipe.sampling.patch_zyx
    window = None if patch_zyx == "case" else patch_zyx
    how = settings.model_dump(mode="json")
    return Predictor(model.checkpoint, model.sha256, how, predict, draws=True, window_zyx=window)


def draw_case(model: DiffusionModel, case: OpenCase, recipe: DiffusionPredict) -> Drawn:
    """Return doses drawn of a case, on its grid; never negative, 0 where no dose is defined.

    The same case, seed and number give the same sample, whatever else is drawn and in which order.

    Raises
    ------
    BadCase
        If the case does not fit what the model was trained on, or a dose is not finite.
    """
    checkpoint = model.checkpoint
    check_fits(case, checkpoint.spec)
    check_spacing(case, checkpoint, recipe.spacing_tolerance)
    case = model.boosted.told(case) if model.boosted else case
    box = seen_box(case, model.recipe)
    batch = _whole_batch(model, case, box)
    settings = DrawSettings(
        patch_zyx=model.recipe.sampling.patch_zyx,
        overlap=recipe.overlap,
        windows_at_once=recipe.windows_at_once,
        steps=recipe.steps,
        sampler=recipe.sampler,
        parameterisation=model.recipe.diffusion.parameterisation,
    )
    # Each sign of the noise has its own doses: the second ones are there for the dose alone.
    drawn: dict[int, list[Tensor]] = {1: [], -1: []} if recipe.antithetic else {1: []}
    precision = model.recipe.fit.precision
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        base = base_of_case(model.base, batch, settings)
        for first in range(0, recipe.samples, recipe.windows_at_once):
            numbers = range(first, min(first + recipe.windows_at_once, recipe.samples))
            coarse = model.recipe.diffusion.coarse_noise
            noise = noise_fields(recipe.seed, case.case_id, numbers, box[1], coarse).to(model.device)
            for sign, doses in drawn.items():
                dose = draw_doses(model.network, model.scale, batch, base, sign * noise, settings)
                doses.append(dose[:, 0].float().cpu())
    scale_gy = model.recipe.inputs.dose_scale_gy
    n_samples, draws = recipe.samples, torch.cat([dose for doses in drawn.values() for dose in doses])
    draws_gy = dose_on_case(case, draws.numpy(), box, scale_gy)
    if recipe.centre == "base":
        base_gy = dose_on_case(case, base[0, 0].float().cpu().numpy(), box, scale_gy)
        return Drawn(base_gy, moved_onto(base_gy, draws_gy)[:n_samples])
    centre_gy = central_dose(draws_gy, defined_voxels(case), case.spacing_mm, recipe.centre)
    return Drawn(centre_gy, draws_gy[:n_samples])


def moved_onto(base_gy: Singles, draws_gy: Singles) -> Singles:
    """Return drawn doses (draw, z, y, x), moved voxel by voxel so that their mean is the base's; never negative."""
    moved: Singles = np.maximum(draws_gy + (base_gy - draws_gy.mean(axis=0, dtype=np.float64)), 0.0).astype(np.float32)
    return moved


def central_dose(
    draws_gy: NDArray[np.float32], defined: NDArray[np.bool_], spacing_mm: Triple, centre: Literal["mean", "median"]
) -> NDArray[np.float32]:
    """Return the mean or the median of drawn doses, voxel by voxel; never negative, 0 where no dose is defined.

    The median of few draws is noisier than their mean. So what it differs by is averaged over a neighbourhood: doses
    are skewed alike over organs, not voxel by voxel, and the mean keeps the detail.

    Parameters
    ----------
    draws_gy
        (draw, z, y, x) in Gy, 0 where no dose is defined.
    defined
        bool (z, y, x).
    """
    mean_gy: NDArray[np.float32] = draws_gy.mean(axis=0, dtype=np.float64).astype(np.float32)
    if centre == "mean":
        return mean_gy
    skew_gy, counts = np.zeros_like(mean_gy), defined.astype(np.float32)
    skew_gy[defined] = np.median(draws_gy[:, defined], axis=0) - mean_gy[defined]
    sigma = [SKEW_SIGMA_MM / mm for mm in spacing_mm]
    smooth_gy, share = (gaussian_filter(volume, sigma, truncate=3.0) for volume in (skew_gy, counts))
    mean_gy[defined] += smooth_gy[defined] / share[defined]
    return np.maximum(mean_gy, np.float32(0.0))


def _whole_batch(model: DiffusionModel, case: OpenCase, box: Window) -> dict[str, Tensor]:
    """Image, condition and valid dose of the whole case, widened to the patch, on the model's device."""
    sample: dict[str, Any] = read_inputs(case, model.checkpoint.spec, box)
    sample["valid_dose"] = read_box(case, "valid_dose", box, 0)[None] > 0
    return {name: tensor[None].to(model.device) for name, tensor in as_tensors(sample).items()}


def pack_samples(drawn: Drawn, defined: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return what is kept of drawn doses: the dose, their spread, and the samples where a dose is defined.

    Parameters
    ----------
    defined
        bool (z, y, x).

    Returns
    -------
    dict
        `dose_gy` and `dose_sd_gy`, the samples' standard deviation (n - 1), both float32 (z, y, x); `samples`, uint16
        (sample, voxel) in steps of `sample_step_gy`, of the voxels of `sampled`, uint8 (z, y, x), in C order.
    """
    steps = np.rint(drawn.samples_gy[:, defined] / SAMPLE_STEP_GY)
    return {
        "dose_gy": drawn.dose_gy,
        "dose_sd_gy": drawn.samples_gy.std(axis=0, ddof=1, dtype=np.float64).astype(np.float32),
        "samples": steps.clip(0, np.iinfo(np.uint16).max).astype(np.uint16),
        "sampled": defined.astype(np.uint8),
        "sample_step_gy": np.asarray(SAMPLE_STEP_GY),
    }
