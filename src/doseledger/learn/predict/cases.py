"""Predict whole cases with a trained model: one NPZ a case, dose in Gy on the case's own grid."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from doseledger.core.case import map_member, write_npz
from doseledger.core.errors import BadCase
from doseledger.core.fanout import Tell
from doseledger.core.files import atomic_path, sha256_of_file
from doseledger.core.tables import SPLITS, read_table
from doseledger.learn.data.inputs import OpenCase, Window, case_files, check_fits, open_case, whole_box
from doseledger.learn.data.patches import Sample, as_tensors, mirror_inputs, read_inputs
from doseledger.learn.networks.windows import predict_whole
from doseledger.learn.networks.with_prior import OverPrior, dose_network
from doseledger.learn.recipes.dose import PredictRecipe
from doseledger.learn.training.checkpoint import Checkpoint, load_checkpoint


@dataclass(frozen=True)
class Model:
    """A checkpoint's network, ready to predict."""

    checkpoint: Checkpoint
    sha256: str
    network: nn.Module
    device: torch.device

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
    network.load_state_dict(checkpoint.weights)
    return Model(checkpoint, sha256_of_file(path), network.to(device).eval(), device)


@dataclass(frozen=True)
class SplitPart:
    """Which cases: the folder they lie in, `train`, `val` or `test`, of which fold and repeat."""

    cases: Path
    splits: Path
    which: str
    fold: int
    repeat: int


def predict(checkpoint: Path, part: SplitPart, out: Path, *, recipe: PredictRecipe, tell: Tell) -> None:
    """Predict every case of one part of the splits and write `<case_id>.npz` for each.

    Parameters
    ----------
    checkpoint
        best.ckpt or last.ckpt of a run.
    part
        Which cases.
    out
        Folder of predictions.
    recipe
        How they are predicted.

    Raises
    ------
    NotReady
        If the checkpoint or a case is absent, or a case's bytes are not those in the splits.
    BadCase
        If a case does not fit what the model was trained on.
    """
    model = load_model(checkpoint)
    table = read_table(part.splits, SPLITS)
    files = case_files(part.cases, table, part.which, fold=part.fold, repeat=part.repeat)
    for count, file in enumerate(files, start=1):
        began = time.perf_counter()
        case = open_case(file)
        dose_gy = predict_case(model, case, recipe)
        save_prediction(out / f"{case.case_id}.npz", case, dose_gy, model, recipe)
        seconds = time.perf_counter() - began
        tell(f"[{count}/{len(files)}] {case.case_id}: highest dose {dose_gy.max():.1f} Gy, {seconds:.1f} s")


def predict_case(model: Model, case: OpenCase, recipe: PredictRecipe) -> NDArray[np.float32]:
    """Return the predicted dose in Gy (z, y, x) on the case's grid; never negative, 0 where no dose is defined.

    Raises
    ------
    BadCase
        If the case does not fit what the model was trained on, or the prediction is not finite.
    """
    checkpoint = model.checkpoint
    check_fits(case, checkpoint.spec)
    check_spacing(case, checkpoint, recipe.spacing_tolerance)
    patch_zyx = checkpoint.recipe.sampling.patch_zyx
    box = whole_box(case, patch_zyx)
    sample = read_inputs(case, checkpoint.spec, box)
    dose = _run(model, sample, recipe)
    if recipe.mirror_average:
        orders = checkpoint.spec.mirrored_orders(checkpoint.recipe.sampling.mirrored_names)
        dose = (dose + _run(model, mirror_inputs(sample, orders), recipe)[..., ::-1]) / 2.0
    return dose_on_case(case, dose, box, checkpoint.recipe.inputs.dose_scale_gy)


def dose_on_case(case: OpenCase, dose: NDArray[np.float32], box: Window, scale_gy: float) -> NDArray[np.float32]:
    """Return doses of a widened box in Gy on the case's own grid; never negative, 0 where no dose is defined.

    Parameters
    ----------
    dose
        (…, z, y, x) of the box, in units of `scale_gy`.

    Raises
    ------
    BadCase
        If a dose is not finite.
    """
    within = (slice(-start, -start + n) for start, n in zip(box[0], case.shape_zyx, strict=True))
    inside: tuple[Any, ...] = (..., *within)
    dose_gy = dose[inside] * np.float32(scale_gy)
    if not np.isfinite(dose_gy).all():
        raise BadCase(case.case_id, "the prediction is not finite; the case's inputs or the checkpoint are broken")
    return np.where(defined_voxels(case), np.maximum(dose_gy, 0.0), np.float32(0.0)).astype(np.float32)


def defined_voxels(case: OpenCase) -> NDArray[np.bool_]:
    """Return where a dose is defined (z, y, x): in the body, and where the case says so."""
    defined: NDArray[np.bool_] = (map_member(case.file.path, "valid_dose") > 0) & (
        map_member(case.file.path, "body") > 0
    )
    return defined


def _run(model: Model, sample: Sample, recipe: PredictRecipe) -> NDArray[np.float32]:
    patch_zyx, precision = model.checkpoint.recipe.sampling.patch_zyx, model.checkpoint.recipe.fit.precision
    batch = {name: tensor[None].to(model.device) for name, tensor in as_tensors(sample).items()}
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        dose = predict_whole(
            model.network, batch, patch_zyx, overlap=recipe.overlap, windows_at_once=recipe.windows_at_once
        )
    result: NDArray[np.float32] = dose[0, 0].float().cpu().numpy()
    return result


def check_spacing(case: OpenCase, checkpoint: Checkpoint, tolerance: float) -> None:
    """Refuse a case whose voxels lie further than a share outside those of training.

    Raises
    ------
    BadCase
        Naming both spacings.
    """
    least, most = checkpoint.spacing_range_mm
    fits = (
        low * (1 - tolerance) <= spacing <= high * (1 + tolerance)
        for spacing, low, high in zip(case.spacing_mm, least, most, strict=True)
    )
    if not all(fits):
        raise BadCase(
            case.case_id,
            f"voxels of {case.spacing_mm} mm (z, y, x), more than {tolerance:.0%} outside the {least} to {most} of "
            "training; ingest the case with the model's protocol",
        )


def save_prediction(
    path: Path, case: OpenCase, dose_gy: NDArray[np.float32], model: Model, recipe: PredictRecipe
) -> None:
    """Write a prediction: `dose_gy`, `spacing_mm`, `origin_mm` and `meta` with the digests of all that made it."""
    meta = prediction_meta(case, model.checkpoint, model.sha256) | {"settings": recipe.model_dump(mode="json")}
    write_prediction(path, case, {"dose_gy": dose_gy}, meta)


def prediction_meta(case: OpenCase, checkpoint: Checkpoint, checkpoint_sha256: str) -> dict[str, Any]:
    """Return what a prediction says of its case and of the model that made it."""
    return {
        "case_id": case.case_id,
        "case_sha256": case.file.sha256,
        "checkpoint_sha256": checkpoint_sha256,
        "model": checkpoint.model,
        "epoch": checkpoint.epoch,
        "trained_on": sorted(checkpoint.trained_on.values()),
        "selected_on": sorted(checkpoint.selected_on.values()),
    }


def write_prediction(path: Path, case: OpenCase, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
    """Write arrays on a case's grid, `dose_gy` among them, with where the grid is and what made them."""
    placed: dict[str, NDArray[Any]] = {
        **arrays,
        "spacing_mm": np.asarray(case.spacing_mm, dtype=np.float64),
        "origin_mm": np.asarray(case.origin_mm, dtype=np.float64),
        "meta": np.asarray(json.dumps(meta, sort_keys=True)),
    }
    with atomic_path(path) as part:
        write_npz(part, placed)
