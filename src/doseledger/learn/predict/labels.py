"""Whole cases segmented by a trained network, on the case's own grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from doseledger.core.cleaning import Cleaning, clean_labels
from doseledger.core.errors import BadCase
from doseledger.core.files import sha256_of_file
from doseledger.core.types import Array
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.data.patches import seen_box
from doseledger.learn.data.volumes import SegmentSpec, read_image
from doseledger.learn.networks.segment import build_segment_network
from doseledger.learn.networks.windows import slide
from doseledger.learn.predict.predictor import Predictor, check_spacing
from doseledger.learn.recipes.segmentation import AXES, SegmentPredict, TrainedSegmentation
from doseledger.learn.training.checkpoint import Checkpoint, load_checkpoint


def open_predictor(path: Path, settings: SegmentPredict) -> Predictor:
    """Return the predictor of a segmentation network: one label map a case.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, is no segmentation's, or structures with a side have no partner to flip with.
    """
    checkpoint = load_checkpoint(path, TrainedSegmentation)
    spec = spec_of_checkpoint(checkpoint)
    recipe = checkpoint.recipe
    if not isinstance(recipe, TrainedSegmentation):
        raise BadCase(path.stem, f"its kind is {recipe.kind}, wanted segmentation")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_segment_network(1 + len(spec.structure_names), recipe.network)
    network.load_state_dict(checkpoint.weights)
    network = network.to(device).eval()
    order = spec.mirrored_order(recipe.sampling.mirrored_names) if "x" in settings.flips else []

    def predict(case: OpenCase) -> dict[str, Array]:
        check_spacing(case, checkpoint, settings.spacing_tolerance)
        box = seen_box(case, recipe)
        image = torch.from_numpy(read_image(case, spec, box))[None].to(device)
        bf16 = recipe.fit.precision == "bf16-mixed"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            shares = class_shares(network, image, recipe, settings, order)
        if not bool(torch.isfinite(shares).all()):
            raise BadCase(case.case_id, "the prediction is not finite; the case's image or the checkpoint are broken")
        within = tuple(slice(-start, -start + n) for start, n in zip(box[0], case.shape_zyx, strict=True))
        labels = shares.argmax(dim=0).cpu().numpy().astype(np.uint8)[within]
        how = Cleaning(settings.largest_part, settings.fill_holes)
        labels, said = clean_labels(labels, len(spec.structure_names), how)
        names = np.asarray(spec.structure_names)
        return {"labels": labels, "structure_names": names, "cleaned": np.asarray(said, dtype=np.str_)}

    return Predictor(checkpoint, sha256_of_file(path), settings.model_dump(mode="json"), predict, says_labels=True)


def spec_of_checkpoint(checkpoint: Checkpoint) -> SegmentSpec:
    """Return what a checkpoint's network is given and says."""
    recipe: TrainedSegmentation = checkpoint.recipe  # type: ignore[assignment]
    return SegmentSpec(checkpoint.structure_names, recipe.inputs)


def class_shares(
    network: nn.Module, image: Tensor, recipe: TrainedSegmentation, settings: SegmentPredict, order: Sequence[int]
) -> Tensor:
    """Return the probability of background and structures (class, z, y, x) of an image (1, 1, z, y, x).

    Parameters
    ----------
    order
        Which class each becomes when x is mirrored; not looked at without a flip along x.
    """
    total = torch.zeros(())
    turns = list(_combinations(settings.flips))
    for axes in turns:
        dims = [2 + AXES.index(axis) for axis in axes]
        seen = torch.flip(image, dims) if dims else image
        said = slide(
            network,
            seen,
            recipe.sampling.patch_zyx,
            overlap=settings.overlap,
            windows_at_once=settings.windows_at_once,
        ).softmax(dim=1)
        said = torch.flip(said, dims) if dims else said
        # What is called left in the mirrored case is the right one.
        total = total.to(said.device) + (said[0, list(order)] if "x" in axes else said[0])
    return total / len(turns)


def _combinations(axes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for n in range(len(axes) + 1):
        yield from combinations(axes, n)
