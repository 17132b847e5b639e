"""Shipped models with a benchmark's changes: blocks of params.yaml, else of models/recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.project.layout import Layout
from doseledger.core.settings import load_settings
from doseledger.learn.kinds import full_block, load_recipe, merge_block
from doseledger.learn.recipes.dose import ModelRecipe, Recipe

PROJECT = Layout(Path(__file__).resolve().parents[1], "phantom")


def shipped_recipe(name: str, changes: Mapping[str, Any] | None = None) -> ModelRecipe:
    """Return a shipped model's recipe with changes, mapping by mapping."""
    settings, ready_made = load_settings(PROJECT.params), PROJECT.recipes / f"{name}.yaml"
    known = name in settings.blocks or not ready_made.is_file()
    block = settings.model(name) if known else read_yaml(ready_made)[name]
    full = full_block(block, settings.model_base, name)
    return load_recipe(merge_block(full, changes or {}), {}, name)


def shipped_dose_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return a shipped dose model's recipe with changes; another kind's is refused."""
    recipe = shipped_recipe(name, changes)
    if not isinstance(recipe, Recipe):
        raise BadInput(f"{name}: its kind is {recipe.kind}, wanted dose")
    return recipe
