"""The settings of a mean of models as typed blocks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from doseledger.learn.recipes.dose import (
    InputRecipe,
    ModelRecipe,
    Positive,
    PredictRecipe,
    TrainedPart,
)


class TrainedMean(TrainedPart):
    """What decides a mean besides its parts.

    Notes
    -----
    `weights`: how much each part counts, by its name in params.yaml; `part_of` there names the same
    parts. `inputs.physics` names every map that a part sees.
    """

    kind: Literal["mean"]
    inputs: InputRecipe
    weights: Annotated[dict[str, Positive], Field(min_length=2)]


class MeanRecipe(TrainedMean, ModelRecipe):
    """One mean of models: all that params.yaml says of it.

    Notes
    -----
    `predict` holds for every part, but for `project`: the mean is projected, and no part of it.
    """

    predict: PredictRecipe

    def quick(self) -> Self:
        """Return the same with quick prediction."""
        return self.model_copy(update={"predict": self.predict.quick()})

    def trained_part(self) -> TrainedMean:
        """Return what decides the dose: all but how cases are predicted."""
        return TrainedMean.model_validate(self.model_dump(exclude={"predict"}))
