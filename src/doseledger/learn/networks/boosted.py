"""The dose that boosted trees tell of whole cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from doseledger.core.schema import load_block
from doseledger.core.types import Floats, GyArray, Indices, Singles
from doseledger.learn.data.features import dose_features, voxel_features
from doseledger.learn.data.inputs import TOLD_STEP_GY, InputSpec, OpenCase, check_fits, defined_voxels
from doseledger.learn.networks.trees import FINAL, Trees, second_name, trees_named
from doseledger.learn.recipes.trees import BoostingRecipe, TrainedTrees


def stages_named(name: str, weights: Mapping[str, Tensor], boosting: BoostingRecipe) -> tuple[Trees, ...]:
    """Return the trees of a name among a checkpoint's weights, stage by stage."""
    return tuple(trees_named(stage, weights) for stage in (name, second_name(name))[: boosting.stages])


def tell_voxels(
    case: OpenCase, spec: InputSpec, boosting: BoostingRecipe, stages: Sequence[Trees], index: Indices
) -> Floats:
    """Return what trees of one stage or two tell of voxels of a case, shares of the main prescription, (voxel,).

    Parameters
    ----------
    index
        Flat indices of voxels where a dose is defined.
    """
    first, *second = stages
    if not second:
        return first.predict(voxel_features(case, spec, index, boosting.context_mm))
    known = known_features(case, spec, boosting)
    more = told_features(known, boosting, first, index)
    return second[0].predict(np.concatenate([known.at(index), more], axis=1))


@dataclass(frozen=True)
class KnownFeatures:
    """Features (voxel, feature) of all voxels of a case where a dose is defined, and their flat indices, rising."""

    case: OpenCase
    index: Indices
    features: Singles

    def at(self, index: Indices) -> Singles:
        """Return those of some of its voxels."""
        return self.features[np.searchsorted(self.index, index)]


def known_features(case: OpenCase, spec: InputSpec, boosting: BoostingRecipe) -> KnownFeatures:
    """Return the features of a whole case, which second trees take: what the first ones tell is seen in context."""
    index = np.flatnonzero(defined_voxels(case))
    return KnownFeatures(case, index, voxel_features(case, spec, index, boosting.context_mm))


def told_features(known: KnownFeatures, boosting: BoostingRecipe, first: Trees, index: Indices) -> Singles:
    """Return what a second stage sees besides of voxels of a case that first trees tell, float32 (voxel, feature)."""
    dose_gy = _on_case(known.case, known.index, first.predict(known.features))
    return dose_features(known.case, dose_gy, index, boosting.context_mm)


def _on_case(case: OpenCase, index: Indices, shares: Floats) -> GyArray:
    """Told shares as a dose in Gy (z, y, x): never negative, 0 where nothing was told."""
    dose_gy = np.zeros(case.shape_zyx, dtype=np.float32)
    dose_gy.reshape(-1)[index] = np.maximum(shares * case.main_prescription_gy, 0.0)
    return dose_gy


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
        name, index = self.told_by.get(case.file.sha256, FINAL), np.flatnonzero(defined_voxels(case))
        stages = stages_named(name, self.weights, self.recipe.boosting)
        return _on_case(case, index, tell_voxels(case, self.spec, self.recipe.boosting, stages, index))

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
