"""The kinds of model: one row each, the one place where kinds are told apart.

A new kind is its recipe, its family (what is trained) and its predictor, and a row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from doseledger.core.damage import shorten
from doseledger.core.errors import BadInput
from doseledger.core.schema import load_block
from doseledger.core.settings import Settings
from doseledger.learn.recipes.diffusion import DiffusionRecipe, TrainedDiffusion
from doseledger.learn.recipes.dose import ModelRecipe, Recipe, TrainedPart, TrainedRecipe
from doseledger.learn.recipes.mean import MeanRecipe, TrainedMean
from doseledger.learn.recipes.segmentation import SegmentationRecipe, TrainedSegmentation
from doseledger.learn.recipes.trees import TrainedTrees, TreesRecipe

if TYPE_CHECKING:
    from doseledger.learn.predict.predictor import Predictor
    from doseledger.learn.run import Family
    from doseledger.learn.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Parameters
    ----------
    recipe, trained
        What its block of params.yaml is read with, and the part of it that decides the model: a checkpoint keeps that.
    family
        Name of the module whose `make_family(recipe, base)` says what is trained.
    predictor
        Name of the module whose `open_predictor(checkpoint, recipe)` predicts cases.
    """

    recipe: type[ModelRecipe]
    trained: type[TrainedPart]
    family: str
    predictor: str


KINDS = {
    "dose": Kind(Recipe, TrainedRecipe, "doseledger.learn.families.dose", "doseledger.learn.predict.cases"),
    "diffusion": Kind(
        DiffusionRecipe, TrainedDiffusion, "doseledger.learn.families.diffusion", "doseledger.learn.predict.draws"
    ),
    "segmentation": Kind(
        SegmentationRecipe,
        TrainedSegmentation,
        "doseledger.learn.families.segmentation",
        "doseledger.learn.predict.labels",
    ),
    "trees": Kind(TreesRecipe, TrainedTrees, "doseledger.learn.families.trees", "doseledger.learn.predict.trees"),
    "mean": Kind(MeanRecipe, TrainedMean, "doseledger.learn.families.mean", "doseledger.learn.predict.mean"),
}


def kind_of(block: Mapping[str, Any], where: str) -> Kind:
    """Return the kind that a model's block names.

    Raises
    ------
    BadInput
        If it names none that there is.
    """
    kind = block.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadInput(f"{where}: kind is {shorten(repr(kind))}, wanted one of {', '.join(sorted(KINDS))}")
    return KINDS[kind]


def full_block(block: Mapping[str, Any], base: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a model's block merged with what all models share: of `base` holds what its kind knows.

    Parameters
    ----------
    block
        What stands in params.yaml under the model's name: its kind, and what differs from `base`.
    base
        `model_base` of params.yaml.
    """
    return merge_block(_known(base, kind_of(block, where).recipe), block)


def load_recipe(block: Mapping[str, Any], base: Mapping[str, Any], where: str) -> ModelRecipe:
    """Return a model's block, merged with what all models share, with its types.

    Raises
    ------
    BadInput
        Naming each key that is missing, unknown or out of range; an `lr` is refused with the reason.
    """
    if "lr" in block:
        raise BadInput(
            f"{where}: lr stands at the top of params.yaml, for every model; scale this model's rate with lr_factor"
        )
    return load_block(kind_of(block, where).recipe, full_block(block, base, where), where)


def recipe_of(settings: Settings, model: str) -> ModelRecipe:
    """Return the recipe of a model of the settings.

    Raises
    ------
    BadInput
        As `load_recipe`; also if `model_base` has a key that no kind knows: it would hold nowhere.
    """
    strangers = _strangers(settings.model_base, [kind.recipe for kind in KINDS.values()])
    if strangers:
        raise BadInput(f"params.yaml: model_base: no kind of model knows {', '.join(strangers)}; is it misspelt?")
    return load_recipe(settings.model(model), settings.model_base, f"params.yaml: {model}")


def merge_block(base: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `block` in place of its own, mapping by mapping.

    A mapping with another `name` (another network, another optimiser) takes the place of the base's as a whole.

    Examples
    --------
    >>> merge_block({"fit": {"epochs": 9, "every": 3}}, {"fit": {"epochs": 2}})
    {'fit': {'epochs': 2, 'every': 3}}
    """
    merged = dict(base)
    for key, value in block.items():
        old = base.get(key)
        merged[key] = value
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            name = old.get("name")
            merged[key] = merge_block(old, value) if value.get("name", name) == name else value
    return merged


def _known(base: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """What of the base's keys a kind's block has: another kind's loss is nothing to a diffusion."""
    known = {}
    for key, value in base.items():
        if key in model.model_fields:
            inner = _block_of(model, key)
            nested = isinstance(value, Mapping) and inner is not BaseModel
            known[key] = _known(value, inner) if nested else value
    return known


def _strangers(base: Mapping[str, Any], models: list[type[BaseModel]], prefix: str = "") -> list[str]:
    """The keys of the base that no kind's block has, by dotted name."""
    found = []
    for key, value in base.items():
        knowing = [model for model in models if key in model.model_fields]
        inner = [block for model in knowing if (block := _block_of(model, key)) is not BaseModel]
        if not knowing:
            found.append(f"{prefix}{key}")
        elif isinstance(value, Mapping) and len(inner) == len(knowing):
            found += _strangers(value, inner, f"{prefix}{key}.")
    return found


def make_family(recipe: ModelRecipe, base: Path | None, parts: Mapping[str, Path] | None = None) -> Family:
    """Return what training a model of a recipe's kind is.

    Parameters
    ----------
    base
        Checkpoint that it starts from; None where it starts from nothing.
    parts
        Checkpoint of each part of a mean, by name.
    """
    known = (base, parts) if parts else (base,)
    family: Family = import_module(KINDS[str(recipe.kind)].family).make_family(recipe, *known)
    return family


def open_predictor(checkpoint: Path, recipe: ModelRecipe) -> Predictor:
    """Return a trained model, ready to predict as its recipe says.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is of another kind.
    """
    return open_as(checkpoint, recipe.model_dump(mode="json")["predict"])


def open_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint of a model of any kind.

    Raises
    ------
    NotReady
        If there is none.
    BadInput
        If it can't be read, or is of no kind that there is.
    """
    from doseledger.learn.training.checkpoint import load_checkpoint, read_content

    return load_checkpoint(path, kind_of(read_content(path)["recipe"], str(path)).trained)


def open_as(checkpoint: Path, settings: Mapping[str, Any]) -> Predictor:
    """Return a trained model, ready to predict by settings of prediction: those of an earlier one, for example.

    Raises
    ------
    NotReady, BadInput
        As `open_predictor`; also if the settings are another kind's.
    """
    from doseledger.learn.training.checkpoint import read_content

    row = kind_of(read_content(checkpoint)["recipe"], str(checkpoint))
    block = load_block(_block_of(row.recipe, "predict"), settings, f"{checkpoint}: settings of its prediction")
    predictor: Predictor = import_module(row.predictor).open_predictor(checkpoint, block)
    return predictor


def _block_of(model: type[BaseModel], key: str) -> type[BaseModel]:
    """The type of a block within a block; BaseModel itself where it is none."""
    inner = model.model_fields[key].annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else BaseModel
