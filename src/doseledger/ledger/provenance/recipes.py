"""Ready-made models of models/recipes, and params.yaml with one of them put in."""

from __future__ import annotations

import io
import re
from pathlib import Path
from textwrap import wrap
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.settings import load_settings
from doseledger.core.tables import SPLITS, read_table
from doseledger.learn.data.fingerprint import fingerprint
from doseledger.learn.data.inputs import SIDED_NAME, case_files, open_case
from doseledger.learn.kinds import load_recipe
from doseledger.learn.recipes.budget import Budget
from doseledger.learn.recipes.suggest import Suggestion, suggest

# What a suggestion leaves as it is, loss and augmentation for example, comes from these.
SMALL_TEMPLATE, LARGE_TEMPLATE = "seg_unet3d", "seg_large"
# Mixed precision is a GPU's.
MIXED_BYTES = 2
COMMENT_WIDTH = 116
# Where params.yaml names what a model starts from.
STARTS = ("bases", "part_of")


def suggest_recipe(layout: Layout, name: str, budget: Budget) -> str:
    """Return a recipe file for segmenting a cohort, with its reasons as comments.

    Only training cases are looked at. What does not hang on the cohort is as in a ready-made recipe.

    Raises
    ------
    NotReady
        If there are no cases or splits yet.
    BadInput
        If the cases differ in their structures, have none, or nothing fits the machine.
    """
    settings = load_settings(layout.params)
    splits = read_table(layout.splits, SPLITS)
    files = case_files(layout.cases, splits, "train", fold=settings.fold, repeat=settings.repeat)
    found = fingerprint([open_case(file) for file in files])
    if not found.structure_names:
        raise BadInput(f"cohort {layout.cohort} has no organ to segment: {'; '.join(found.left_out.values())}")
    chosen = suggest(found, budget)
    template = LARGE_TEMPLATE if budget.bytes_a_number == MIXED_BYTES else SMALL_TEMPLATE
    whole = read_yaml(layout.recipes / f"{template}.yaml")[template]
    block = _filled(whole, chosen, found.structure_names, found.window)
    load_recipe(block, settings.model_base, name)
    first = f"a DynUNet for {layout.cohort}, as its training cases suggest; the rest as in {template}"
    lines = (f"# {line}" for told in (first, *chosen.reasons) for line in wrap(told, COMMENT_WIDTH))
    return "\n".join((*lines, _as_yaml({name: block})))


def _filled(block: dict[str, Any], chosen: Suggestion, names: tuple[str, ...], window: tuple[float, float]) -> Any:
    """The template's block with what hangs on the cohort."""
    sides = _sides(names)
    lonely = [name for name in names if SIDED_NAME.search(name) and name not in {*sides, *sides.values()}]
    sampling, network = block["sampling"], block["network"]
    long = any(chosen.late_zyx)
    sampling |= {"patch_zyx": list(chosen.patch_zyx), "batch_size": chosen.batch_size, "mirrored_names": sides}
    if lonely:
        sampling["mirror_share"], block["predict"]["flips"] = 0.0, []
    if long:
        # About the axis of long voxels alone: others would cut slices across.
        turns = [turn if late else 0.0 for turn, late in zip((15.0,) * 3, chosen.late_zyx, strict=True)]
        sampling["variation"]["rotate_deg"] = turns
    full = [len(chosen.filters) - 1] * 3
    even = list(chosen.halvings_zyx) == full
    steps = {"late_zyx": list(chosen.late_zyx), "halvings_zyx": list(chosen.halvings_zyx)}
    network |= {"filters": chosen.filters, "supervised": chosen.supervised, "anisotropy": None if even else steps}
    block["inputs"] = {"window": list(window), "structures": list(names)}
    return block


def _sides(names: tuple[str, ...]) -> dict[str, str]:
    """Left structures and their right partners, by what is left of their names without the side."""
    swaps = (("_L", "_R"), ("Left", "Right"), ("left", "right"), ("_l", "_r"), ("Lt", "Rt"))
    pairs = {}
    for name in names:
        partners = [name.replace(left, right) for left, right in swaps if left in name]
        found = [partner for partner in partners if partner in names and partner != name]
        if found and SIDED_NAME.search(name):
            pairs[name] = found[0]
    return pairs


def describe_recipes(layout: Layout) -> dict[str, str]:
    """Return the first comment of every recipe by name."""
    found = {}
    for path in sorted(layout.recipes.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.lstrip("# ")
    return found


def put_recipe(layout: Layout, name: str) -> list[str]:
    """Put a recipe into params.yaml: its block, its name in `models`, what it starts from besides.

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
    parts = recipe if isinstance(recipe, dict) else {}
    block, starts = parts.get(name), {key: value for key, value in parts.items() if key in STARTS}
    mappings = all(isinstance(value, dict) for value in (block, *starts.values()))
    if not isinstance(block, dict) or not mappings or set(parts) - {name, *STARTS}:
        raise BadInput(f"{path}: wanted a block {name} and, where it starts from models, `bases` or `part_of`")
    if name in settings.blocks:
        raise BadInput(f"{layout.params} has a block {name} already; add it to `models`, or edit it there")
    load_recipe(block, settings.model_base, f"{path}, on the model_base of {layout.params}")
    begun = [*starts.get("bases", {}).values(), *starts.get("part_of", {})]
    strangers = [str(base) for base in begun if base not in settings.models]
    if strangers:
        raise BadInput(f"{name} starts from {', '.join(strangers)}, which `models` does not train; add it first")
    text = _with_entries(layout.params, name, starts)
    body = re.split(rf"\n(?:{'|'.join(STARTS)}):", path.read_text(encoding="utf-8"))[0].rstrip("\n")
    write_text(layout.params, f"{text.rstrip(chr(10))}\n\n{body}\n")
    load_settings(layout.params)
    done = [f"block {name} added", f"{name} added to models"]
    return done + [f"{name} starts from {base}" for base in begun]


def _with_entries(params: Path, name: str, starts: dict[str, dict[str, Any]]) -> str:
    """The text of params.yaml with a model more, as DVC's dumper writes it."""
    from ruamel.yaml import YAML

    content = YAML().load(params.read_text(encoding="utf-8"))
    content["models"].append(name)
    for key, entries in starts.items():
        content[key].update(entries)
    return _as_yaml(content)


def _as_yaml(content: Any) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
