"""Checkpoints: the same bytes for the same run, nothing of this machine, and a clear refusal of what is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from doseledger.core.errors import BadInput, NotReady
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture
def checkpoint(make_recipe: Callable[..., Recipe]) -> Checkpoint:
    return Checkpoint(
        model="dose_unet",
        recipe=make_recipe().trained_part(),
        settings={"lr": 0.01, "seed": 1, "fold": 0, "repeat": 0},
        structure_names=("PTV70", "Rectum"),
        target_names=("PTV70",),
        spacing_range_mm=((3.0, 2.5, 2.5), (3.0, 2.5, 2.5)),
        trained_on={"case_0002": "b" * 64, "case_0001": "a" * 64},
        selected_on={"case_0003": "c" * 64},
        epoch=3,
        scores={"val_mae_body_gy": 2.5},
        weights={"layer.weight": torch.arange(6.0).reshape(2, 3)},
    )


def test_a_checkpoint_comes_back_whole(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.ckpt", checkpoint)
    again = load_checkpoint(tmp_path / "best.ckpt")
    assert replace(again, weights={}) == replace(checkpoint, weights={})
    assert torch.equal(again.weights["layer.weight"], checkpoint.weights["layer.weight"])


def test_the_bytes_depend_on_neither_name_nor_time_nor_order(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.ckpt", checkpoint)
    turned = replace(checkpoint, trained_on=dict(reversed(checkpoint.trained_on.items())))
    save_checkpoint(tmp_path / "deeper" / "last.ckpt", turned)
    content = (tmp_path / "best.ckpt").read_bytes()
    assert content == (tmp_path / "deeper" / "last.ckpt").read_bytes()
    assert str(tmp_path).encode() not in content


def test_what_is_no_checkpoint_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    with pytest.raises(NotReady, match="no such checkpoint; run train first"):
        load_checkpoint(path)
    save_checkpoint(path, checkpoint)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BadInput, match="can't be read as a checkpoint"):
        load_checkpoint(path)
    torch.save({"weights": {}}, path)
    with pytest.raises(BadInput, match="'format_version'"):
        load_checkpoint(path)
    torch.save({"format_version": 0}, path)
    with pytest.raises(BadInput, match="not a doseledger checkpoint of format 5"):
        load_checkpoint(path)
