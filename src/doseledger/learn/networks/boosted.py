"""The dose that boosted trees tell of whole cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from doseledger.core.schema import load_block
from doseledger.core.types import GyArray
from doseledger.learn.data.features import voxel_features
from doseledger.learn.data.inputs import TOLD_STEP_GY, InputSpec, OpenCase, check_fits, defined_voxels
from doseledger.learn.networks.trees import FINAL, trees_named
from doseledger.learn.recipes.trees import TrainedTrees


@dataclass(frozen=True)
class BoostedDose:
    """Trained trees, ready to tell cases.

    Parameters
    ----------
    weights, told_by
        Arrays of the trees of each fold and of all cases; name of the trees that have not seen a
        training case, by that case's SHA256.
    beams
        What the physics maps that they see were made of; None where they see none.
    """

    model: str
    sha256: str
    recipe: TrainedTrees
    spec: InputSpec
    weights: Mapping[str, Tensor]
    told_by: Mapping[str, str]
    beams: Mapping[str, Any] | None = None

    def tell(self, case: OpenCase) -> GyArray:
        """Return a case's dose in Gy, float32 (z, y, x); never negative, 0 where none is defined.

        A training case is told by trees that have not seen it.

        Raises
        ------
        BadCase
            If the case does not fit what the trees were grown on, or no target is there.
        """
        check_fits(case, self.spec)
        trees = trees_named(self.told_by.get(case.file.sha256, FINAL), self.weights)
        dose_gy = np.zeros(case.shape_zyx, dtype=np.float32)
        index = np.flatnonzero(defined_voxels(case))
        told = trees.predict(voxel_features(case, self.spec, index)) * case.main_prescription_gy
        dose_gy.reshape(-1)[index] = np.maximum(told, 0.0)
        return dose_gy

    def told(self, case: OpenCase) -> OpenCase:
        """Return a case with its told dose, which its channels then hold."""
        steps = np.rint(self.tell(case) / np.float32(TOLD_STEP_GY))
        return replace(case, told=steps.clip(0, np.iinfo(np.uint16).max).astype(np.uint16))

    def kept(self) -> dict[str, Any]:
        """Return the trees as a checkpoint that stands on them keeps them: plain values and tensors."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "recipe": self.recipe.model_dump(mode="json"),
            "structure_names": list(self.spec.structure_names),
            "target_names": list(self.spec.target_names),
            "weights": dict(self.weights),
            "told_by": dict(self.told_by),
            "beams": self.beams,
        }


def boosted_of(extras: Mapping[str, Any], where: object) -> BoostedDose | None:
    """Return the trees that a checkpoint's extras keep; None where its model stands on none."""
    kept = extras.get("boosted")
    if kept is None:
        return None
    recipe = load_block(TrainedTrees, kept["recipe"], f"{where}: boosted")
    spec = InputSpec(tuple(kept["structure_names"]), tuple(kept["target_names"]), recipe.inputs)
    found = (kept[name] for name in ("weights", "told_by", "beams"))
    return BoostedDose(kept["model"], kept["sha256"], recipe, spec, *found)


class ToldDose(nn.Module):
    """A network's prior: the channel of the dose that trees have told."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.channel = spec.first_told

    def forward(self, image: Tensor, _condition: Tensor, _case_ids: object = ()) -> Tensor:
        """Return the dose (batch, 1, z, y, x) in units of the dose scale."""
        return image[:, self.channel : self.channel + 1]
