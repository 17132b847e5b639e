"""A segmentation network in training: overlap loss, validation on whole cases."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from doseledger.core.case import map_member
from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.data.patches import WholeCases
from doseledger.learn.data.volumes import STORED_SCALE, SegmentPatches, SegmentSpec, read_sample, spec_of
from doseledger.learn.losses.overlap import SupervisedLoss
from doseledger.learn.networks.segment import build_segment_network
from doseledger.learn.networks.windows import VALIDATION_OVERLAP, slide
from doseledger.learn.recipes.dose import ModelRecipe, refuse_idle_base
from doseledger.learn.recipes.segmentation import SegmentationRecipe, TrainedSegmentation
from doseledger.learn.run import SEGMENT_SCORES, CasesByPart, Family, Reader, TrainingRun
from doseledger.learn.training.average import AveragedTask
from doseledger.learn.training.finite import refuse_infinite_scores


def dice_error(found: Tensor, wanted: Tensor, n_classes: int) -> float:
    """Return 1 − the mean Dice of the structures that one of two label maps has; 0 where neither has any."""
    values = []
    for label in range(1, n_classes):
        ours, theirs = found == label, wanted == label
        total = int(ours.sum()) + int(theirs.sum())
        if total:
            values.append(2.0 * int((ours & theirs).sum()) / total)
    return 1.0 - sum(values) / len(values) if values else 0.0


def measure_image(cases: Sequence[OpenCase], spec: SegmentSpec) -> tuple[float, float]:
    """Return mean and spread of the images of some cases inside their bodies, in the network's units."""
    low, high = spec.recipe.window
    sums = np.zeros(3)
    for case in cases:
        inside = np.asarray(map_member(case.file.path, "ct_hu"))[np.asarray(map_member(case.file.path, "body")) > 0]
        values = np.clip(inside, low, high).astype(np.float64) / STORED_SCALE
        sums += (values.size, values.sum(), np.square(values).sum())
    mean = sums[1] / sums[0]
    return float(mean), float(max(np.sqrt(max(sums[2] / sums[0] - mean**2, 0.0)), 1e-3))


class SegmentationTask(AveragedTask):
    """A segmentation network in training.

    Parameters
    ----------
    recipe, spec
        The model's block, and what its network is given and says.
    lr
        The learning rate itself: base rate times the recipe's factor.
    image
        Mean and spread of the training images, which stand among the weights.
    """

    scores = SEGMENT_SCORES

    def __init__(self, recipe: TrainedSegmentation, spec: SegmentSpec, lr: float, image: tuple[float, float]) -> None:
        n_classes = 1 + len(spec.structure_names)
        super().__init__(build_segment_network(n_classes, recipe.network, *image), recipe.ema_decay)
        self.recipe, self.spec, self.lr, self.n_classes = recipe, spec, lr, n_classes
        self.loss = SupervisedLoss(recipe.loss)

    def batch_loss(self, batch: dict[str, Any], index: int) -> tuple[Tensor, Tensor]:
        """Return the batch's loss, a scalar, and the finest logits."""
        said = self.network(batch["image"])
        return self.loss(said, batch["label"]), said[0] if isinstance(said, list) else said

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Add one whole case to the validation."""
        patch_zyx = self.recipe.sampling.patch_zyx
        said = slide(self.averaged, batch["image"], patch_zyx, overlap=VALIDATION_OVERLAP, windows_at_once=1)
        if not bool(torch.isfinite(said).all()):
            refuse_infinite_scores({SEGMENT_SCORES[0]: float("nan")}, epoch=self.current_epoch)
        self.errors.append((dice_error(said[0].argmax(dim=0), batch["label"][0, 0], self.n_classes),))


def make_segmentation_task(run: TrainingRun, spec: SegmentSpec, cases: CasesByPart) -> SegmentationTask:
    """Return the task of a segmentation network.

    Raises
    ------
    BadInput
        If the run's block is another family's.
    """
    if not isinstance(run.recipe, SegmentationRecipe):
        raise BadInput(f"{run.model}: its kind is {run.recipe.kind}, wanted segmentation")
    trained = run.recipe.trained_part()
    return SegmentationTask(trained, spec, run.lr * trained.lr_factor, measure_image(cases["train"], spec))


SEGMENTATION = Family(
    module=__name__,
    make_task=make_segmentation_task,
    scores=SEGMENT_SCORES,
    reader=Reader(spec_of, SegmentPatches, partial(WholeCases, read=read_sample)),
)


def make_family(recipe: ModelRecipe, base: Path | None) -> Family:
    """Return the family of segmentation networks.

    Raises
    ------
    BadInput
        If a base is named that the block does not begin with.
    """
    refuse_idle_base(recipe, base)
    return SEGMENTATION
