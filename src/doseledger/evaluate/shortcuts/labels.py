"""A segmentation beside one without insight, and its answer to a blank image."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.project.layout import ModelLayout
from doseledger.core.types import Array, IntTriple, Singles
from doseledger.evaluate.overlap import masks_of
from doseledger.evaluate.predictions import load_labels
from doseledger.learn.data.inputs import open_case, save_case
from doseledger.learn.predict.predictor import Predictor

# A voxel belongs to the template where this share of the training cases has the structure.
TEMPLATE_SHARE = 0.5


class LabelTemplate:
    """How often each structure holds a voxel, training cases laid on one another by the middles of their images."""

    def __init__(self, structure_names: tuple[str, ...]) -> None:
        self.structure_names, self.n_cases = structure_names, 0
        self.counts: Singles | None = None

    def add(self, case: Case) -> None:
        """Count one training case."""
        masks = np.stack([case.mask(name) for name in self.structure_names]).astype(np.float32)
        if self.counts is None:
            self.counts = np.zeros_like(masks)
        self.counts += placed(masks, _shape(self.counts))
        self.n_cases += 1

    def labels_on(self, case: Case) -> Array:
        """Return the label map of a case, of the structures that most training cases have there."""
        if self.counts is None:
            raise BadCase(case.case_id, "there is no training case to lay on it")
        shares = placed(self.counts, case.grid.shape_zyx) / self.n_cases
        labels = 1 + shares.argmax(axis=0)
        return np.where(shares.max(axis=0) >= TEMPLATE_SHARE, labels, 0).astype(np.uint8)


def _shape(array: Array) -> IntTriple:
    z, y, x = array.shape[-3:]
    return z, y, x


def placed(array: Array, shape_zyx: IntTriple) -> Singles:
    """Return an array (…, z, y, x) cut or widened by 0 to a shape about its middle."""
    result = np.zeros((*array.shape[:-3], *shape_zyx), dtype=np.float32)
    source: list[Any] = [...]
    target: list[Any] = [...]
    for n, wanted in zip(array.shape[-3:], shape_zyx, strict=True):
        low = (n - wanted) // 2
        source.append(slice(max(low, 0), min(low + wanted, n)))
        target.append(slice(max(-low, 0), max(-low, 0) + min(low + wanted, n) - max(low, 0)))
    result[tuple(target)] = array[tuple(source)]
    return result


def mean_dice(labels: Array, case: Case, structure_names: tuple[str, ...]) -> float:
    """Return the mean Dice of a label map over the structures that it or the case has; NaN where there is none."""
    values = []
    for name, found in zip(structure_names, masks_of(labels, len(structure_names)), strict=True):
        wanted = case.mask(name)
        total = int(found.sum()) + int(wanted.sum())
        if total:
            values.append(2.0 * int((found & wanted).sum()) / total)
    return float(np.mean(values)) if values else float("nan")


def compare_with_template(at: ModelLayout, template: LabelTemplate, case: Case) -> dict[str, Any]:
    """Return the Dice of a case's prediction, and of the template laid on it."""
    prediction = load_labels(at.predictions / f"{case.case_id}.npz")
    names = template.structure_names
    return {
        "case_id": case.case_id,
        "model_dice": mean_dice(prediction.labels, case, prediction.structure_names),
        "template_dice": mean_dice(template.labels_on(case), case, names),
    }


def blank_dice(predictor: Predictor, case: Case) -> float:
    """Return the Dice of a model's answer to an image that is one value everywhere, against what is drawn."""
    blank = replace(case, ct_hu=np.full_like(case.ct_hu, int(np.median(case.ct_hu[case.body]))))
    with tempfile.TemporaryDirectory(prefix="blank_") as folder:
        arrays = predictor.predict(open_case(save_case(blank, Path(folder))))
    return mean_dice(arrays["labels"], case, tuple(str(name) for name in arrays["structure_names"]))


def template_numbers(rows: list[dict[str, Any]], answers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return a segmentation's numbers by name, of the rows of its cases and its answers.

    Returns
    -------
    dict
        `template_error_ratio`, one less the mean Dice of the model per that of the template; `blank_dice`.
    """
    ours, theirs = (1.0 - float(np.nanmean([row[f"{who}_dice"] for row in rows])) for who in ("model", "template"))
    blank = [float(answer["blank_dice"]) for answer in answers.values()]
    ratio = ours / theirs if theirs > 0 else float("inf")
    return {"template_error_ratio": ratio, "blank_dice": float(np.mean(blank)) if blank else float("nan")}
