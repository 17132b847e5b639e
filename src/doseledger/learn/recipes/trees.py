"""The settings of boosted trees as typed blocks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from doseledger.core.schema import Block
from doseledger.learn.recipes.dose import Count, InputRecipe, ModelRecipe, TrainedPart


class BoostingRecipe(Block):
    """How trees are grown, and on how much.

    Notes
    -----
    `n_trees` trees of at most `leaves` leaves of at least `leaf_voxels` voxels; each corrects `rate` of what the ones
    before it leave over. `voxels_per_case` are drawn of each case's body. `folds` parts of the
    training patients are each told by trees that were grown on the others: no training case is told by itself.
    """

    n_trees: Count
    leaves: Annotated[int, Field(ge=2)]
    leaf_voxels: Count
    rate: Annotated[float, Field(gt=0, le=1)]
    voxels_per_case: Count
    folds: Annotated[int, Field(ge=2)]


class TreesPredict(Block):
    """How a case is predicted; changing it grows no tree anew. `project` as for networks."""

    project: bool


class TrainedTrees(TrainedPart):
    """What decides the trees."""

    kind: Literal["trees"]
    inputs: InputRecipe
    boosting: BoostingRecipe


class TreesRecipe(TrainedTrees, ModelRecipe):
    """One model of boosted trees: all that params.yaml says of it."""

    predict: TreesPredict

    def quick(self) -> Self:
        """Return the same without projection."""
        return self.model_copy(update={"predict": self.predict.model_copy(update={"project": False})})

    def trained_part(self) -> TrainedTrees:
        """Return what decides the trees: all but how cases are predicted."""
        return TrainedTrees.model_validate(self.model_dump(exclude={"predict"}))
