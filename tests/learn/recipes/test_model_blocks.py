"""The dose models that are shipped: each block builds, each network and each ablation trains a step and predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from doseledger.core.files import read_yaml
from doseledger.core.settings import Settings
from doseledger.learn.data.inputs import spec_of
from doseledger.learn.kinds import load_recipe
from doseledger.learn.networks.unet import build_network
from doseledger.learn.predict.cases import load_model, predict_case
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.run import DOSE_SCORES, TrainingRun
from doseledger.learn.training.train import Places, train

SMALL_UNET = {
    "name": "film_unet", "stem_stride_zyx": [2, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8,
}  # fmt: skip
CASCADE = {"name": "cascade", "first": SMALL_UNET, "second": SMALL_UNET, "first_weight": 0.5}
MEDNEXT = {"name": "mednext", "filters": 4, "blocks": [1, 1], "expansion": 2, "kernel": 3}


@pytest.fixture
def dose_recipes(repository: Path, settings: Settings) -> dict[str, Recipe]:
    """Every dose model that is shipped."""
    blocks = dict(settings.blocks)
    for path in (repository / "models/recipes").glob("*.yaml"):
        blocks[path.stem] = read_yaml(path)[path.stem]
    recipes = {name: load_recipe(block, settings.model_base, name) for name, block in sorted(blocks.items())}
    return {name: recipe for name, recipe in recipes.items() if isinstance(recipe, Recipe)}


def test_every_shipped_block_says_a_dose_for_each_voxel_of_its_own_patch(dose_recipes: dict[str, Recipe]) -> None:
    assert {recipe.network.name for recipe in dose_recipes.values()} >= {"film_unet", "cascade", "mednext"}
    for recipe in dose_recipes.values():
        size, patch_zyx = recipe.sampling.batch_size, recipe.sampling.patch_zyx
        # A case of another size than its neighbour, as `case` gives them.
        patch_zyx = (24, 32, 48) if patch_zyx == "case" else patch_zyx
        # On torch's meta device shapes are worked out and nothing is computed: the large ones need no memory.
        with torch.device("meta"):
            network = build_network(11, 14, recipe.network).eval()
            dose = network(torch.empty(size, 11, *patch_zyx), torch.empty(size, 14))
        assert dose.shape == (size, 1, *patch_zyx)


def test_no_shipped_network_is_a_copy_of_another(dose_recipes: dict[str, Recipe]) -> None:
    networks = [recipe.network.model_dump_json() for recipe in dose_recipes.values()]
    assert len(set(networks)) == len(networks)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": CASCADE},
        {"network": MEDNEXT},
        {"inputs.structures": "mask", "prior": "none"},
        {"inputs.prescription": "none", "prior": "none"},
        {"inputs.place": "none", "prior": "none"},
        {"inputs.prescription": "numbers"},
        {"sampling.core_dropout.share": 1.0},
        {"loader.workers": 2, "loader.persistent": False},
    ],
    ids=lambda changes: " ".join(f"{key}={value if not isinstance(value, dict) else value['name']}"
                                 for key, value in changes.items()),
)  # fmt: skip
def test_each_network_ablation_and_augmentation_trains_and_predicts(
    make_run: Callable[..., TrainingRun], places: Places, cohort: Any, changes: dict[str, Any]
) -> None:
    run = make_run({"fit.max_epochs": 1, "sampling.patches_per_case": 1, **changes})
    train(run, places, fresh=False, tell=lambda line: None)
    assert np.isfinite(pd.read_csv(places.out / "history.csv")[DOSE_SCORES[0]]).all()
    (case,) = cohort.open("test")
    model = load_model(places.out / "checkpoints" / "best.ckpt")
    assert model.checkpoint.spec.n_channels == spec_of([case], run.recipe.inputs).n_channels
    dose_gy = predict_case(model, case, run.recipe.predict)
    assert dose_gy.shape == case.shape_zyx
    assert dose_gy.max() > 0
