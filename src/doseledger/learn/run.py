"""The definition of a training: settings, seeds, verdict, family.

A family is what sets one kind of model apart (a dose network, a diffusion of the dose): its task, its modules of code,
what else decides its result. `train` knows families by this alone and imports none, so that an edit of one family's
code never trains a model of another again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from doseledger.core.errors import BadInput
from doseledger.learn.data.inputs import OpenCase, spec_of
from doseledger.learn.data.patches import PatchDataset, WholeCases
from doseledger.learn.recipes.dose import CommonRecipe, ModelRecipe

# All that a validation says of a dose: MAE by named mask. Of every family's scores less is better, and the first one is
# what best.ckpt, early stopping and the plateau schedule look at.
DOSE_SCORES = ("val_mae_valid_dose_gy", "val_mae_body_gy")
# Of a segmentation: one less Dice.
SEGMENT_SCORES = ("val_dice_error",)
MONITORED = (DOSE_SCORES[0], SEGMENT_SCORES[0])

CasesByPart = dict[str, list[OpenCase]]


def trained_name(score: str) -> str:
    """Return the name of a validation score when it is measured on training cases.

    Examples
    --------
    >>> trained_name("val_mae_body_gy")
    'train_mae_body_gy'
    """
    return score.replace("val_", "train_", 1)


def monitored_in(names: Collection[str]) -> str | None:
    """Return which of some names is a score that epochs are chosen by; None where none is.

    Examples
    --------
    >>> monitored_in(["epoch", "val_dice_error"])
    'val_dice_error'
    """
    return next((name for name in MONITORED if name in names), None)


def mean_scores(errors: Sequence[tuple[float, ...]], names: Sequence[str] = DOSE_SCORES) -> dict[str, float]:
    """Return the mean over cases of each of the scores, from one tuple of them a case."""
    return {name: sum(values) / len(errors) for name, values in zip(names, zip(*errors, strict=True), strict=True)}


@dataclass(frozen=True)
class Ancestor:
    """A model whose weights a later one began with, and the cases behind it.

    Parameters
    ----------
    name, cohort, sha256
        MODEL or MODEL@VERSION, the cohort that it was trained on, and the SHA256 of its file.
    trained_on, selected_on
        As of a checkpoint.
    """

    name: str
    cohort: str
    sha256: str
    epoch: int
    trained_on: dict[str, str]
    selected_on: dict[str, str]

    @property
    def told(self) -> dict[str, Any]:
        """Name, cohort, SHA256 and epoch, and how many cases stand behind it."""
        values = asdict(self)
        return values | {key: len(values[key]) for key in ("trained_on", "selected_on")}


@dataclass(frozen=True)
class Parent:
    """The trained model that a training begins with.

    Parameters
    ----------
    kind, weights, extras
        As its checkpoint has them.
    line
        Itself, then what it began with, the nearest first.
    """

    kind: str
    weights: Mapping[str, Tensor]
    extras: Mapping[str, Any]
    line: tuple[Ancestor, ...]

    @property
    def name(self) -> str:
        """MODEL or MODEL@VERSION."""
        return self.line[0].name


@dataclass(frozen=True)
class Reader:
    """How a family's cases become what its network sees.

    Parameters
    ----------
    spec_of
        From cases and the recipe's `inputs` to the channels that fit all of them.
    patches
        From cases, spec, recipe and seed to the patches of training.
    whole
        From cases, spec and recipe to whole cases.
    """

    spec_of: Callable[[list[OpenCase], Any], Any]
    patches: Callable[[Sequence[OpenCase], Any, Any, int], Any]
    whole: Callable[[Sequence[OpenCase], Any, Any], Any]


DOSE_READER = Reader(spec_of, PatchDataset, WholeCases)


class Task(Protocol):
    """What training, preflight and recorder ask of a family's LightningModule, beyond what Lightning does."""

    spec: Any
    network: nn.Module
    lr: float
    # One entry a case of the last validation, in the order in which they came: `validation_scores` is made of nothing
    # else, as several processes bring their entries together, and those of training cases are taken out.
    errors: list[Any]

    def validation_scores(self) -> dict[str, float]:
        """Return the family's scores of the last validation."""

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that the checkpoint keeps: those to predict with."""

    def extras(self) -> dict[str, Any]:
        """Return what else prediction needs, as plain values and tensors."""

    def begin_from(self, weights: Mapping[str, Tensor], extras: Mapping[str, Any]) -> None:
        """Take over a trained model's weights, which fit, and what its prediction needs."""

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
    scores
        What a validation says; epochs are chosen by the first, the less the better.
    fit
        Trains a run, where that is no descent of a network's loss: (run, places, tell, red_flags) writes its files.
    told
        From a case to the same with the dose that trees tell of it; None where the model stands on none.
    probe
        Preflight's trial of such a run on opened cases; so many steps.
    ancestors
        What the model that it stands on began with.
    """

    module: str
    make_task: Callable[[TrainingRun, Any, CasesByPart], Task]
    parts: dict[str, Any] = field(default_factory=dict)
    passes: int = 1
    scores: tuple[str, ...] = DOSE_SCORES
    reader: Reader = DOSE_READER
    fit: Callable[..., None] | None = None
    told: Callable[[OpenCase], OpenCase] | None = None
    probe: Callable[[TrainingRun, list[OpenCase], int], Any] | None = None
    ancestors: tuple[Ancestor, ...] = ()


@dataclass(frozen=True)
class TrainingRun:
    """What a run is: the model and all that decides its weights.

    Parameters
    ----------
    lr
        Base learning rate, before the recipe's factor.
    token
        The data gate's verdict on these cases and splits; part of the fingerprint and of run.json.
    provenance
        What the caller knows of code and command (commit, lock); goes to run.json only.
    devices, nodes
        Over how many processes it is trained: so many on each of so many machines.
    parent
        The trained model that it begins with; None where its weights are drawn.
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
    cohort: str = ""
    parent: Parent | None = None

    @property
    def ancestors(self) -> tuple[Ancestor, ...]:
        """The models whose cases its weights have seen, the nearest first."""
        return (*(self.parent.line if self.parent else ()), *self.family.ancestors)

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
