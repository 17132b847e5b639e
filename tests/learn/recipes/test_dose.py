"""A dose model's block: complete, typed, and nothing unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.settings import Settings
from doseledger.learn.kinds import load_recipe
from doseledger.learn.recipes.dose import Recipe


def test_the_shipped_block_is_complete(settings: Settings, default_block: dict[str, Any]) -> None:
    shipped = load_recipe(settings.model("dose_unet"), settings.model_base, "params.yaml: dose_unet")
    assert shipped.kind == "dose"
    assert load_recipe(default_block, {}, "params.yaml: dose_unet") == shipped


def test_a_misspelt_key_is_refused_by_name(default_block: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"dose_unet: fit\.max_epoch: Extra inputs are not permitted"):
        load_recipe({**default_block, "fit": {**default_block["fit"], "max_epoch": 3}}, {}, "dose_unet")


def test_a_key_that_is_left_out_is_refused_as_there_is_no_second_default(default_block: dict[str, Any]) -> None:
    block = {key: value for key, value in default_block.items() if key != "loss"}
    with pytest.raises(BadInput, match="loss: the key is missing"):
        load_recipe(block, {}, "dose_unet")


def test_a_blocks_own_learning_rate_is_refused_with_the_reason(default_block: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"lr stands at the top of params\.yaml"):
        load_recipe({**default_block, "lr": 0.1}, {}, "dose_unet")


def test_a_patch_that_the_network_cannot_halve_is_refused(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(BadInput, match=r"patch_zyx \[18, 24, 32\] must be multiples of \[4, 4, 4\]"):
        make_recipe({"sampling.patch_zyx": [18, 24, 32]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling.target_share": 0.9, "sampling.gradient_share": 0.2}, "target_share .* above 1"),
        ({"sampling.mirrored_names": {"A": "B", "B": "C"}}, "name a structure twice"),
        ({"fit.max_epochs": 2, "fit.validate_every": 3}, "validate_every 3 is more than max_epochs 2"),
        ({"network.convolutions": [1, 1, 1]}, "2 channels for 3 convolutions"),
        ({"network.name": "unet"}, "does not match any of the expected tags"),
        ({"optimiser.clip_norm": 0}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    make_recipe: Callable[..., Recipe], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        make_recipe(change)


def test_loader_and_prediction_are_no_part_of_what_is_trained(make_recipe: Callable[..., Recipe]) -> None:
    plain, other = make_recipe(), make_recipe({"loader.workers": 2, "predict.overlap": 0.5})
    assert plain.trained_part() == other.trained_part()
    assert plain.trained_part() != make_recipe({"sampling.batch_size": 1}).trained_part()


@pytest.mark.parametrize(
    ("name", "workers", "persistent"), [("in_process", 0, False), ("wsl", 2, False), ("workstation", 8, True)]
)
def test_a_loader_can_be_had_by_name(
    make_recipe: Callable[..., Recipe], name: str, workers: int, persistent: bool
) -> None:
    loader = make_recipe({"loader.workers": workers, "loader.persistent": persistent}).loader
    block = make_recipe().model_dump(mode="json")
    assert load_recipe({**block, "loader": name}, {}, "test").loader == loader


def test_a_loader_of_an_unknown_name_is_refused_with_those_there_are(make_recipe: Callable[..., Recipe]) -> None:
    block = make_recipe().model_dump(mode="json")
    with pytest.raises(BadInput, match="no loader of that name; there are in_process, wsl, workstation, or workers"):
        load_recipe({**block, "loader": "windows"}, {}, "test")
