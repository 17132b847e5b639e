"""Kinds of model: short blocks over what all share, and each kind from block to prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_yaml, sha256_of_file
from doseledger.core.settings import Settings
from doseledger.learn.families.dose import DOSE
from doseledger.learn.kinds import (
    KINDS,
    full_block,
    load_recipe,
    make_family,
    merge_block,
    open_as,
    open_predictor,
    recipe_of,
)
from doseledger.learn.predict.predictor import Predictor, SplitPart, predict_part
from doseledger.learn.recipes.diffusion import DiffusionRecipe
from doseledger.learn.recipes.dose import CommonRecipe, Recipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train

FOLDER = Path(__file__).parents[2] / "models/recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TINY: dict[str, Any] = {
    "sampling": {"patch_zyx": [16, 24, 32], "patches_per_case": 1},
    "network": {"channels": [4, 8], "convolutions": [1, 1], "embedding": 8},
    "fit": {"max_epochs": 1, "validate_every": 1},
}
TINY_DRAWS: dict[str, Any] = {
    "diffusion": {"validation_steps": 2},
    "predict": {"samples": 3, "steps": 3, "sampler": "euler"},
}


def ready_made(name: str) -> dict[str, Any]:
    """A block of models/recipes as it stands there."""
    block: dict[str, Any] = read_yaml(FOLDER / f"{name}.yaml")[name]
    return block


@pytest.fixture
def diffusion(settings: Settings) -> DiffusionRecipe:
    """The ready-made diffusion, tiny."""
    block = merge_block(ready_made("dose_diffusion"), {**TINY, **TINY_DRAWS})
    recipe = load_recipe(block, settings.model_base, "test")
    assert isinstance(recipe, DiffusionRecipe)
    return recipe


def test_a_block_is_merged_mapping_by_mapping_and_changes_neither_side() -> None:
    base = {"fit": {"epochs": 9, "every": {"of": 3, "at": 1}}, "patch": [1, 2], "prior": "none"}
    block = {"fit": {"every": {"of": 2}}, "patch": [4], "kind": "dose"}
    kept = json.dumps([base, block])
    fit = {"epochs": 9, "every": {"of": 2, "at": 1}}
    assert merge_block(base, block) == {"fit": fit, "patch": [4], "prior": "none", "kind": "dose"}
    assert json.dumps([base, block]) == kept


def test_a_word_takes_the_place_of_a_mapping_and_a_mapping_that_of_a_word() -> None:
    loader = {"workers": 0, "persistent": False}
    assert merge_block({"loader": loader}, {"loader": "wsl"}) == {"loader": "wsl"}
    assert merge_block({"loader": "wsl"}, {"loader": loader}) == {"loader": loader}


def test_a_network_of_another_name_replaces_the_bases_as_a_whole(settings: Settings) -> None:
    base = settings.model_base
    other = {"name": "dynunet", "filters": [8, 16, 32], "residual": True}
    assert full_block({"kind": "dose", "network": other}, base, "test")["network"] == other
    for wider in ({"channels": [8, 16, 32]}, {"name": "film_unet", "channels": [8, 16, 32]}):
        block = full_block({"kind": "dose", "network": wider}, base, "test")
        assert block["network"] == {**base["network"], "channels": [8, 16, 32]}
    with pytest.raises(BadInput, match=r"test: optimiser\.weight_decay: the key is missing"):
        load_recipe({"kind": "dose", "optimiser": {"name": "sgd"}}, base, "test")


def test_what_a_kind_does_not_know_of_the_base_is_left_out(settings: Settings) -> None:
    base = settings.model_base
    block = full_block(ready_made("dose_diffusion"), base, "dose_diffusion")
    assert {"loss", "prior"} <= set(base)
    assert not {"loss", "prior"} & set(block)
    assert "mirror_average" in base["predict"]
    assert "mirror_average" not in block["predict"]
    # What both kinds know is there, and what holds free names keeps them all.
    assert block["predict"]["overlap"] == base["predict"]["overlap"]
    assert block["sampling"] == base["sampling"]
    assert full_block({"kind": "dose"}, base, "test") == {**base, "kind": "dose"}


def test_an_unknown_key_of_the_block_is_refused_even_where_the_base_has_it(
    settings: Settings,
) -> None:
    base, diffusion = settings.model_base, ready_made("dose_diffusion")
    with pytest.raises(BadInput, match=r"test: fit\.max_epoch: Extra inputs are not permitted"):
        load_recipe({"kind": "dose", "fit": {"max_epoch": 3}}, base, "test")
    with pytest.raises(BadInput, match="test: prior: Extra inputs are not permitted"):
        load_recipe({**diffusion, "prior": "none"}, base, "test")
    mirrored = merge_block(diffusion, {"predict": {"mirror_average": True}})
    with pytest.raises(BadInput, match=r"predict\.mirror_average: Extra inputs are not permitted"):
        load_recipe(mirrored, base, "test")


def test_what_neither_block_nor_base_says_is_missing(settings: Settings) -> None:
    base = {key: value for key, value in settings.model_base.items() if key != "prior"}
    with pytest.raises(BadInput, match="test: prior: the key is missing; write it down"):
        load_recipe({"kind": "dose"}, base, "test")
    with pytest.raises(BadInput, match="test: diffusion: the key is missing; write it down"):
        load_recipe({"kind": "diffusion"}, settings.model_base, "test")


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_learning_rate_in_a_block_of_any_kind_is_refused(settings: Settings, kind: str) -> None:
    with pytest.raises(BadInput, match=r"test: lr stands at the top of params\.yaml, .* lr_factor"):
        load_recipe({"kind": kind, "lr": 0.1}, settings.model_base, "test")


@pytest.mark.parametrize(("block", "found"), [({"kind": "doze"}, "'doze'"), ({}, "None")])
def test_an_unknown_kind_is_named_with_those_there_are(
    settings: Settings,
    block: dict[str, Any],
    found: str,
) -> None:
    message = f"^params.yaml: new: kind is {found}, wanted one of {', '.join(sorted(KINDS))}$"
    with pytest.raises(BadInput, match=message):
        load_recipe(block, settings.model_base, "params.yaml: new")
    with pytest.raises(BadInput, match=message):
        full_block(block, settings.model_base, "params.yaml: new")


def test_a_base_that_the_block_does_not_begin_with_is_refused(settings: Settings) -> None:
    block = {"kind": "dose", "init_from": "dose_unet"}
    assert make_family(load_recipe(block, settings.model_base, "test"), Path("best.ckpt")) == DOSE
    idle = load_recipe({"kind": "dose"}, settings.model_base, "test")
    with pytest.raises(BadInput, match=r"bases names best\.ckpt for .* whose block has init_from: none"):
        make_family(idle, Path("best.ckpt"))
    with pytest.raises(BadInput, match=r"test: init_from: .* found 'dose_unet@latest'"):
        load_recipe({"kind": "dose", "init_from": "dose_unet@latest"}, settings.model_base, "test")


def test_a_models_recipe_is_its_block_over_the_settings_base(settings: Settings) -> None:
    recipe = recipe_of(settings, "dose_unet")
    assert isinstance(recipe, Recipe)
    block, of_all = settings.model("dose_unet"), settings.model_base["fit"]
    assert recipe.fit.max_epochs == block["fit"]["max_epochs"] != of_all["max_epochs"]
    assert recipe.fit.precision == of_all["precision"]
    with pytest.raises(BadInput, match="has no block 'dose_unett'; model blocks there: dose_trees, dose_unet"):
        recipe_of(settings, "dose_unett")
    strange = settings.model_copy(update={"blocks": {"dose_unet": {**block, "priors": "none"}}})
    with pytest.raises(BadInput, match=r"params\.yaml: dose_unet: priors: Extra inputs are not"):
        recipe_of(strange, "dose_unet")


@pytest.mark.parametrize("name", RECIPES)
def test_every_ready_made_recipe_loads_over_the_shipped_base(settings: Settings, name: str) -> None:
    content = read_yaml(FOLDER / f"{name}.yaml")
    assert name in content
    assert set(content) <= {name, "bases", "part_of"}
    recipe = load_recipe(content[name], settings.model_base, name)
    assert type(recipe) is KINDS[recipe.kind].recipe
    wants_base = getattr(recipe, "diffusion", None) is not None and recipe.diffusion.residual
    assert wants_base == (name in content.get("bases", {}))
    assert content.get("part_of", {}) == dict.fromkeys(getattr(recipe, "weights", {}), name)


def test_a_key_of_the_base_that_no_kind_knows_is_refused(settings: Settings) -> None:
    base = {**settings.model_base, "fit": {**settings.model_base["fit"], "max_epoch": 3}, "los": {}}
    misspelt = settings.model_copy(update={"model_base": base})
    with pytest.raises(BadInput, match=r"no kind of model knows fit\.max_epoch, los; is it misspelt"):
        recipe_of(misspelt, "dose_unet")


def test_every_kind_has_a_recipe_that_ships(settings: Settings) -> None:
    blocks = [*settings.blocks.values(), *(ready_made(name) for name in RECIPES)]
    assert {block["kind"] for block in blocks} == set(KINDS)


def test_a_quick_diffusion_draws_few_doses_as_its_validation_does(settings: Settings) -> None:
    recipe = load_recipe(ready_made("dose_diffusion"), settings.model_base, "test")
    quick = recipe.quick()
    assert isinstance(recipe, DiffusionRecipe)
    assert isinstance(quick, DiffusionRecipe)
    few, how, shipped = quick.predict, recipe.diffusion, recipe.predict
    assert (few.samples, few.antithetic, few.centre) == (2, False, "mean")
    assert (few.steps, few.sampler) == (how.validation_steps, how.validation_sampler)
    assert (few.seed, few.overlap) == (shipped.seed, shipped.overlap)
    assert few.spacing_tolerance == shipped.spacing_tolerance
    # It could stand in a block just so, and asks for no other weights.
    assert type(few).model_validate(few.model_dump()) == few
    assert quick.trained_part() == recipe.trained_part()
    assert shipped.samples > few.samples


@pytest.mark.parametrize("name", ["dose_unet_beams", "dose_mean"])
def test_whatever_averages_over_mirrors_or_projects_is_quick_without(name: str, settings: Settings) -> None:
    recipe = load_recipe(ready_made(name), settings.model_base, "test")
    quick = recipe.quick()
    assert (recipe.predict.mirror_average, recipe.predict.project) == ("xz", True)
    assert (quick.predict.mirror_average, quick.predict.project) == (True, False)
    assert quick.trained_part() == recipe.trained_part()


def test_a_dose_network_has_no_quicker_form(settings: Settings) -> None:
    recipe = recipe_of(settings, "dose_unet")
    assert recipe.quick() == recipe


def trained(name: str, recipe: CommonRecipe, places: Places, base: Path | None) -> Path:
    """The checkpoint of a model of any kind."""
    run = TrainingRun(name, recipe, 0.01, 1, 0, 0, {"ok": True}, {}, make_family(recipe, base))
    train(run, places, fresh=False, tell=lambda line: None)
    return places.out / "checkpoints/best.ckpt"


def predicted(predictor: Predictor, places: Places, out: Path) -> dict[str, np.ndarray]:
    """The arrays of the test case, as they are written."""
    lines: list[str] = []
    part = SplitPart(places.cases, places.splits, "test", 0, 0)
    predict_part(predictor, part, out, tell=lines.append)
    assert [line.split(": highest dose")[0] for line in lines] == ["[1/1] case_0005"]
    assert [path.name for path in out.iterdir()] == ["case_0005.npz"]
    with np.load(out / "case_0005.npz") as npz:
        return {name: npz[name] for name in npz.files}


def test_each_kind_goes_from_its_block_to_a_prediction(
    settings: Settings, diffusion: DiffusionRecipe, places: Places, cohort: Any, tmp_path: Path
) -> None:
    dose = load_recipe({"kind": "dose", **TINY}, settings.model_base, "test")
    unet = trained("dose_unet", dose, replace(places, out=tmp_path / "unet"), None)
    drawing = trained("dose_diffusion", diffusion, replace(places, out=tmp_path / "drawing"), unet)

    one = open_predictor(unet, dose)
    plain = predicted(one, places, tmp_path / "plain")
    assert set(plain) == {"dose_gy", "spacing_mm", "origin_mm", "meta"}
    assert not one.draws
    assert one.prior is not None

    many = open_predictor(drawing, diffusion)
    drawn = predicted(many, places, tmp_path / "drawn")
    assert set(drawn) - set(plain) == {"dose_sd_gy", "samples", "sampled", "sample_step_gy"}
    assert many.draws
    assert many.prior is None

    (case,) = cohort.open("test")
    both = ((one, plain, unet, dose), (many, drawn, drawing, diffusion))
    for predictor, arrays, path, recipe in both:
        meta = json.loads(str(arrays["meta"]))
        assert arrays["dose_gy"].shape == case.shape_zyx
        assert arrays["dose_gy"].max() > 0
        assert meta["checkpoint_sha256"] == predictor.sha256 == sha256_of_file(path)
        assert meta["settings"] == predictor.settings == recipe.model_dump(mode="json")["predict"]
        assert meta["model"] == predictor.checkpoint.model

    # The network has learnt to add something to it.
    assert np.abs(one.prior(case) - plain["dose_gy"]).max() > 0
    # Settings of an earlier prediction open the same predictor.
    again = open_as(drawing, json.loads(str(drawn["meta"]))["settings"]).predict(case)
    np.testing.assert_array_equal(again["samples"], drawn["samples"])
    assert len(open_predictor(drawing, diffusion.quick()).predict(case)["samples"]) == 2
    # A checkpoint knows its own kind: another kind's settings never predict with it.
    with pytest.raises(BadInput, match=r"drawing/.*ckpt: settings of its prediction: .*mirror"):
        open_predictor(drawing, dose)
    with pytest.raises(BadInput, match=r"unet/.*best\.ckpt: settings of its prediction: .*samples"):
        open_predictor(unet, diffusion)


def test_a_model_that_is_not_trained_is_no_predictor_and_no_base(
    diffusion: DiffusionRecipe, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    none = tmp_path / "best.ckpt"
    with pytest.raises(NotReady, match="no such checkpoint; run train first"):
        open_predictor(none, make_recipe())
    with pytest.raises(NotReady, match="no such checkpoint; run train first"):
        make_family(diffusion, none)
    with pytest.raises(BadInput, match="starts from a model: name it under `bases`"):
        make_family(diffusion, None)


def test_a_checkpoint_of_a_kind_that_is_gone_is_refused_by_name(
    make_run: Callable[..., TrainingRun], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make_run({"fit.max_epochs": 1}), places, fresh=False, tell=lambda line: None)
    best = places.out / "checkpoints/best.ckpt"
    how = make_run().recipe.model_dump(mode="json")["predict"]
    monkeypatch.delitem(KINDS, "dose")
    with pytest.raises(BadInput, match=r"best\.ckpt: kind is 'dose', wanted one of diffusion"):
        open_as(best, how)
