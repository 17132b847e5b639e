"""The definition of a training: settings, seeds, verdict, family.

A family is what sets one kind of model apart (a dose network, a diffusion of the dose): its task, its modules of code,
what else decides its result. `train` knows families by this alone and imports none, so that an edit of one family's
code never trains a model of another again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import InputSpec, OpenCase
from doseledger.learn.recipes.dose import CommonRecipe, ModelRecipe

# What best.ckpt, early stopping and the plateau schedule look at; the mask is in the name.
MONITORED = "val_mae_valid_dose_gy"
# All that a validation says of a model: MAE by named mask.
SCORES = (MONITORED, "val_mae_body_gy")

CasesByPart = dict[str, list[OpenCase]]


def trained_name(score: str) -> str:
    """Return the name of a validation score when it is measured on training cases.

    Examples
    --------
    >>> trained_name("val_mae_body_gy")
    'train_mae_body_gy'
    """
    return score.replace("val_", "train_", 1)


def mean_scores(errors: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the mean over cases of each of the scores, in Gy, from one (MAE in valid dose, MAE in body) a case."""
    return {name: sum(values) / len(errors) for name, values in zip(SCORES, zip(*errors, strict=True), strict=True)}


class Task(Protocol):
    """What training, preflight and recorder ask of a family's LightningModule, beyond what Lightning does."""

    spec: InputSpec
    network: nn.Module
    lr: float
    # One entry a case of the last validation, in the order in which they came: `validation_scores` is made of nothing
    # else, as several processes bring their entries together, and those of training cases are taken out.
    errors: list[Any]

    def validation_scores(self) -> dict[str, float]:
        """Return the scores of the last validation in Gy; `MONITORED` is among them."""

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that the checkpoint keeps: those to predict with."""

    def extras(self) -> dict[str, Any]:
        """Return what else prediction needs, as plain values and tensors."""

    def batch_loss(self, batch: dict[str, Any], index: int) -> tuple[Tensor, Tensor]:
        """Return a batch's loss, a scalar, and the network's output that it was made of."""


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Parameters
    ----------
    module
        The module of its task; with all that it reaches it decides the model's weights.
    make_task
        Returns the task of a run, with fresh weights drawn from torch's generator. Of the cases, `train` is always
        there; `val` only in training itself.
    parts
        What decides the result besides block, seeds, cases and code, as JSON values; part of the fingerprint.
    passes
        How often a case goes through the network when it is validated: what measuring one costs.
    fit
        Trains a run, where that is no descent of a network's loss: (run, places, tell, red_flags) writes its files.
    probe
        Preflight's trial of such a run on opened cases; so many steps.
    """

    module: str
    make_task: Callable[[TrainingRun, InputSpec, CasesByPart], Task]
    parts: dict[str, Any] = field(default_factory=dict)
    passes: int = 1
    fit: Callable[..., None] | None = None
    probe: Callable[[TrainingRun, list[OpenCase], int], Any] | None = None


@dataclass(frozen=True)
class TrainingRun:
    """What a run is: the model and all that decides its weights.

    Parameters
    ----------
    model
        Name of the block in params.yaml.
    recipe
        That block.
    lr
        Base learning rate, before the recipe's factor.
    seed
        Seed of weights and patches.
    fold, repeat
        Which part of the splits.
    token
        The data gate's verdict on these cases and splits; part of the fingerprint and of run.json.
    provenance
        What the caller knows of code and command (commit, lock); goes to run.json only.
    family
        What kind of model it is.
    devices, nodes
        Over how many processes it is trained: so many on each of so many machines.
    """

    model: str
    recipe: ModelRecipe
    lr: float
    seed: int
    fold: int
    repeat: int
    token: dict[str, Any]
    provenance: dict[str, Any]
    family: Family
    devices: int = 1
    nodes: int = 1

    @property
    def network_recipe(self) -> CommonRecipe:
        """The recipe of a run that trains a network.

        Raises
        ------
        BadInput
            If it trains none.
        """
        if not isinstance(self.recipe, CommonRecipe):
            raise BadInput(f"{self.model}: a model of kind {self.recipe.kind} has no network")
        return self.recipe
