"""Ready-made models of models/recipes, and params.yaml with one of them put in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_text
from doseledger.core.layout import Layout
from doseledger.core.settings import load_settings
from doseledger.learn.kinds import load_recipe


def describe_recipes(layout: Layout) -> dict[str, str]:
    """Return the first comment of every recipe by name."""
    found = {}
    for path in sorted(layout.recipes.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.lstrip("# ")
    return found


def put_recipe(layout: Layout, name: str) -> list[str]:
    """Put a recipe into params.yaml: its block, its name in `models`, what it starts from in `bases`.

    Returns
    -------
    list of str
        What was done, in words.

    Raises
    ------
    BadInput
        If there is no such recipe, the settings have such a block already, or the recipe does not fit them.
    """
    path = layout.recipes / f"{name}.yaml"
    if not path.is_file():
        raise BadInput(f"no recipe {name!r}; there are {', '.join(describe_recipes(layout)) or 'none'}")
    settings, recipe = load_settings(layout.params), read_yaml(path)
    block, bases = recipe.get(name), recipe.get("bases", {})
    if not isinstance(block, dict) or set(recipe) - {name, "bases"}:
        raise BadInput(f"{path}: wanted a block {name} and, where it starts from a model, `bases`")
    if name in settings.blocks:
        raise BadInput(f"{layout.params} has a block {name} already; add it to `models`, or edit it there")
    load_recipe(block, settings.model_base, str(path))
    strangers = [base for base in bases.values() if base not in settings.models]
    if strangers:
        raise BadInput(f"{name} starts from {', '.join(strangers)}, which `models` does not train; add it first")
    text = _with_entries(layout.params, name, bases)
    body = path.read_text(encoding="utf-8").partition("\nbases:")[0].rstrip("\n")
    write_text(layout.params, f"{text.rstrip(chr(10))}\n\n{body}\n")
    load_settings(layout.params)
    done = [f"block {name} added", f"{name} added to models"]
    return done + [f"{name} starts from {base}" for base in bases.values()]


def _with_entries(params: Path, name: str, bases: dict[str, Any]) -> str:
    """The text of params.yaml with a model more, as DVC's dumper writes it."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    content = yaml.load(params.read_text(encoding="utf-8"))
    content["models"].append(name)
    content["bases"].update(bases)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
