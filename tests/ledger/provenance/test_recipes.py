"""A ready-made model is put into params.yaml, and nothing else of it changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, sha256_of_file, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.settings import load_settings
from doseledger.core.tables import SPLITS, write_table
from doseledger.learn.kinds import recipe_of
from doseledger.learn.recipes.budget import Budget, of_cpu, of_gpu
from doseledger.learn.recipes.segmentation import SegmentationRecipe
from doseledger.ledger.provenance.recipes import STARTS, describe_recipes, put_recipe, suggest_recipe

RECIPES = tuple(sorted(path.stem for path in (Path(__file__).parents[3] / "models/recipes").glob("*.yaml")))


@pytest.fixture
def layout(repository: Path, tmp_path: Path) -> Layout:
    """A project with the settings and the recipes that ship."""
    shutil.copyfile(repository / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(repository / "models/recipes", tmp_path / "models/recipes")
    return Layout(tmp_path, "phantom")


def comments(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip().startswith("#")]


def as_dvc_writes(path: Path) -> str:
    """The settings after `dvc exp run -S lr=…` with the rate that stands there."""
    from dvc.utils.hydra import apply_overrides

    copy = path.with_name("experiment.yaml")
    shutil.copyfile(path, copy)
    apply_overrides(copy, [f"lr={read_yaml(path)['lr']}"])
    return copy.read_text()


def test_the_settings_that_ship_are_as_dvcs_own_dumper_writes_them(layout: Layout) -> None:
    assert as_dvc_writes(layout.params) == layout.params.read_text()


def test_every_recipe_that_ships_is_told_by_its_first_comment(layout: Layout) -> None:
    told = describe_recipes(layout)
    assert tuple(told) == RECIPES
    assert told["dose_cascade"].startswith("two U-Nets in a row")
    assert all(text and "#" not in text for text in told.values())


def first_put(layout: Layout, name: str) -> list[str]:
    """The recipes that one starts from."""
    block = read_yaml(layout.recipes / f"{name}.yaml")
    return [model for model in (*block.get("part_of", {}), *block.get("bases", {}).values()) if model in RECIPES]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_put_in_and_all_else_stays_as_it_was(layout: Layout, name: str) -> None:
    first = first_put(layout, name)
    for part in first:
        put_recipe(layout, part)
    before, kept = read_yaml(layout.params), comments(layout.params)
    recipe = layout.recipes / f"{name}.yaml"
    done = put_recipe(layout, name)
    assert done[:2] == [f"block {name} added", f"{name} added to models"]
    settings = load_settings(layout.params)
    assert settings.models == ["dose_trees", "dose_unet", *first, name]
    starts = {key: before[key] | read_yaml(recipe).get(key, {}) for key in STARTS}
    assert {"bases": settings.bases, "part_of": settings.part_of} == starts
    assert settings.model(name) == read_yaml(recipe)[name]
    recipe_of(settings, name)
    after = read_yaml(layout.params)
    changed = {key for key in after if key not in before or after[key] != before[key]}
    assert changed == {name, "models", *(key for key in STARTS if key in read_yaml(recipe))}
    assert comments(layout.params) == kept + comments(recipe)
    assert as_dvc_writes(layout.params) == layout.params.read_text()


def test_recipes_are_put_in_one_after_the_other(layout: Layout) -> None:
    # What starts from others comes after them.
    names = sorted(RECIPES, key=lambda name: bool(first_put(layout, name)))
    for name in names:
        put_recipe(layout, name)
    settings = load_settings(layout.params)
    assert settings.models == ["dose_trees", "dose_unet", *names]
    bases = {"dose_diffusion": "dose_unet", "dose_diffusion_beams": "dose_trees_beams", "dose_unet": "dose_trees"}
    assert settings.bases == bases
    assert as_dvc_writes(layout.params) == layout.params.read_text()


def test_what_a_recipe_starts_from_is_told(layout: Layout) -> None:
    assert put_recipe(layout, "dose_diffusion")[2:] == ["dose_diffusion starts from dose_unet"]
    assert put_recipe(layout, "dose_cascade")[2:] == []
    parts = ("dose_trees_beams", "dose_unet_beams")
    refused(layout, "dose_mean", "dose_mean starts from dose_trees_beams, dose_unet_beams, which `models` does not")
    for part in parts:
        put_recipe(layout, part)
    assert put_recipe(layout, "dose_mean")[2:] == [f"dose_mean starts from {part}" for part in parts]


def refused(layout: Layout, name: str, told: str) -> None:
    """The recipe is refused, and the settings stay as they were."""
    before = layout.params.read_bytes()
    with pytest.raises(BadInput, match=told):
        put_recipe(layout, name)
    assert layout.params.read_bytes() == before


def test_a_recipe_that_is_not_there_is_told_with_those_that_are(layout: Layout) -> None:
    refused(layout, "dose_nothing", "no recipe 'dose_nothing'; there are dose_cascade, dose_diffusion, dose_")
    shutil.rmtree(layout.recipes)
    refused(layout, "dose_cascade", "no recipe 'dose_cascade'; there are none")


def test_a_block_that_is_there_is_not_put_in_again(layout: Layout) -> None:
    put_recipe(layout, "dose_cascade")
    refused(layout, "dose_cascade", r"params\.yaml has a block dose_cascade already; add it to `models`, or edit it")


def test_a_recipe_whose_base_is_not_trained_is_refused(layout: Layout) -> None:
    text = layout.params.read_text().replace("\n- dose_unet\n", "\n- dose_other\n")
    text = text.replace("\n  dose_unet: dose_trees\n", "\n  dose_other: dose_trees\n")
    write_text(layout.params, text.replace("\ndose_unet:\n", "\ndose_other:\n"))
    refused(layout, "dose_diffusion", "dose_diffusion starts from dose_unet, which `models` does not train; add it")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# mine\nmine: {kind: dose}\nother: {kind: dose}\n", r"mine\.yaml: wanted a block mine and, where it starts"),
        ("# mine\nmine: dose\n", r"mine\.yaml: wanted a block mine"),
        ("# mine\ncut off\n", r"mine\.yaml: wanted a block mine"),
        ("# mine\nmine: {kind: dose}\nbases: [mine]\n", r"mine\.yaml: wanted a block mine"),
        ("# mine\nother: {kind: dose}\n", r"mine\.yaml: wanted a block mine"),
        ("# mine\nmine: {kind: painting}\n", r"mine\.yaml, .*: kind is 'painting', wanted one of diffusion, dose, "),
        ("# mine\nmine: {kind: [dose]}\n", r"mine\.yaml, .*: kind is \['dose'\], wanted one of diffusion, dose, "),
        ("# mine\nmine: {kind: dose}\nbases: {mine: [dose_unet]}\n", r"mine starts from \['dose_unet'\], which"),
        ("# mine\nmine: {kind: dose, depth: 3}\n", "depth"),
        ("# mine\nmine: {kind: dose, lr: 0.1}\n", "scale this model's rate with lr_factor"),
    ],
)
def test_a_recipe_that_is_none_is_refused(layout: Layout, text: str, told: str) -> None:
    write_text(layout.recipes / "mine.yaml", text)
    refused(layout, "mine", told)


@pytest.mark.parametrize(
    ("machine", "template"), [(of_cpu(), "seg_unet3d"), (of_gpu(24.0), "seg_large")], ids=["cpu", "gpu"]
)
def test_what_a_cohorts_training_cases_suggest_is_a_recipe_that_can_be_used(
    layout: Layout, make_case: Callable[..., Case], machine: Budget, template: str
) -> None:
    rows = []
    for number, part in enumerate(("train", "train", "val", "test"), start=1):
        case = make_case(f"case_{number:04d}", seed=number, absent=())
        if part == "test":
            # What is kept for the test decides nothing.
            case = replace(case, ct_hu=np.full_like(case.ct_hu, 3000))
        path = layout.cases / f"{case.case_id}.npz"
        case.save(path)
        digest = sha256_of_file(path)
        rows.append((0, 0, case.case_id, f"phantom_{case.case_id}", "A", part, digest))
    write_table(layout.splits, pd.DataFrame(rows, columns=list(SPLITS.columns)), SPLITS)
    text = suggest_recipe(layout, "seg_ours", machine)
    assert f"as its training cases suggest; the rest as in {template}" in " ".join(text.replace("#", "").split())
    assert "# 2 training cases: 24 × 40 × 48 voxels of 6 × 6 × 6 mm" in text
    assert max(map(len, text.splitlines())) <= 120
    write_text(layout.recipes / "seg_ours.yaml", text)
    put_recipe(layout, "seg_ours")
    assert as_dvc_writes(layout.params) == layout.params.read_text()
    recipe = recipe_of(load_settings(layout.params), "seg_ours")
    assert isinstance(recipe, SegmentationRecipe)
    assert recipe.sampling.mirrored_names["Femur_L"] == "Femur_R"
    assert recipe.inputs.window[1] < 700
    assert "Femur_L" in recipe.inputs.structures
    assert describe_recipes(layout)["seg_ours"].startswith("a DynUNet for phantom")
