"""The settings of boosted trees as typed blocks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from doseledger.core.schema import Block
from doseledger.learn.recipes.dose import Count, InputRecipe, ModelRecipe, Positive, TrainedPart

# So many folds leave something to grow on where two of them are left out.
LEAST_FOLDS_OF_SECOND = 3


class BoostingRecipe(Block):
    """How trees are grown, and on how much.

    Notes
    -----
    `n_trees` trees of at most `leaves` leaves of at least `leaf_voxels` voxels; each corrects `rate` of what the ones
    before it leave over. `voxels_per_case` are drawn of each case's body. `folds` parts of the
    training patients are each told by trees that were grown on the others: no training case is told by itself.
    `structure_weight` of a case's weight is given to each of its structures besides, shared by that one's voxels:
    small organs and a target's edge, which a DVH is made of, are few voxels of a body.
    `context_mm` are the widths of the Gaussians by which CT, prescription and maps tell a voxel's surroundings; with
    any, the means of its slice are told too. The trees of a second of two `stages` see besides what those of the first
    tell of the case.
    """

    n_trees: Count
    leaves: Annotated[int, Field(ge=2)]
    leaf_voxels: Count
    rate: Annotated[float, Field(gt=0, le=1)]
    voxels_per_case: Count
    structure_weight: Annotated[float, Field(ge=0)]
    folds: Annotated[int, Field(ge=2)]
    context_mm: list[Positive]
    stages: Literal[1, 2]

    @model_validator(mode="after")
    def _second_stage_leaves_two_folds_out(self) -> Self:
        if self.stages == 2 and self.folds < LEAST_FOLDS_OF_SECOND:
            raise ValueError(
                f"stages: 2 needs at least {LEAST_FOLDS_OF_SECOND} folds, found {self.folds}: what the second is grown "
                "on is told by trees that have seen neither that case nor those that it shall tell"
            )
        return self


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
