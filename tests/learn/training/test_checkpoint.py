"""Checkpoints: the same bytes for the same run, nothing of this machine, and a clear refusal of what is none."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from doseledger.core.errors import BadInput, NotReady
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.run import Ancestor
from doseledger.learn.training.checkpoint import Checkpoint, fill, load_checkpoint, save_checkpoint


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
    with pytest.raises(BadInput, match="not a doseledger checkpoint of format 6"):
        load_checkpoint(path)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def write_members(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_refusal_never_repeats_a_name_of_any_length(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    save_checkpoint(path, checkpoint)
    write_members(path, {"x" * 60_000: b"1", **members_of(path)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadInput, match=r"its member x+… is compressed") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 1_000


def test_one_flipped_byte_anywhere_in_weights_or_settings_is_not_opened(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    save_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    values = torch.arange(6.0).numpy().tobytes()
    at_weights, at_seen = whole.index(values), whole.index(b"a" * 64)
    for place in (at_weights + 2, at_weights + len(values) - 1, at_seen + 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BadInput, match=r"best\.ckpt: (changed since it was written|can't be read).*dvc checkout"):
            load_checkpoint(path)


def test_each_single_bit_of_a_checkpoint_is_either_unused_or_refused_in_one_way(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "best.ckpt"
    save_checkpoint(path, checkpoint)
    whole, weights = path.read_bytes(), checkpoint.weights["layer.weight"]
    named = []
    for place in range(0, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            again = load_checkpoint(path)
        except BadInput as error:
            named.append(str(path) in str(error))
            continue
        # A byte of padding, or of a date.
        assert torch.equal(again.weights["layer.weight"], weights)
        assert replace(again, weights={}) == replace(checkpoint, weights={})
    assert named
    assert all(named)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["weights"]["layer.weight"].add_(1),
        lambda content: content["weights"].update({"layer.weight": torch.arange(6.0).reshape(3, 2)}),
        lambda content: content["weights"].update({"layer.weight": torch.arange(6.0, dtype=torch.float64)}),
        lambda content: content["weights"].update(other=content["weights"].pop("layer.weight")),
        lambda content: content["extras"].update(scale={"centre": 1.0}),
        lambda content: content["trained_on"].pop("case_0001"),
    ],
)
def test_content_that_was_changed_and_saved_again_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    path = tmp_path / "best.ckpt"
    save_checkpoint(path, checkpoint)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(BadInput, match="changed since it was written"):
        load_checkpoint(path)


def test_a_checkpoint_of_the_time_before_digests_is_refused_and_told_why(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "best.ckpt"
    save_checkpoint(path, checkpoint)
    content = torch.load(path, weights_only=True)
    del content["sha256"]
    torch.save(content | {"format_version": 4}, path)
    with pytest.raises(BadInput, match=r"format 4, which holds no digest of its weights.*train the model again"):
        load_checkpoint(path)
    torch.save(content, path)
    with pytest.raises(BadInput, match=r"can't be read as a checkpoint \(no 'sha256'\)"):
        load_checkpoint(path)


def test_what_names_more_than_tensors_and_plain_values_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    for stranger in (os.system, bytearray(3), torch.nn.Linear(1, 1)):
        torch.save({"format_version": 6, "weights": stranger}, path)
        with pytest.raises(BadInput, match="wanted tensors and plain values alone"):
            load_checkpoint(path)


def test_a_tensor_that_stands_for_more_than_it_stores_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    huge = torch.zeros(1).expand(1 << 40)
    torch.save({"format_version": 6, "sha256": "0" * 64, "weights": {"w": huge}}, path)
    with pytest.raises(BadInput, match=r"best\.ckpt: a tensor of shape \(1099511627776,\) stores fewer values"):
        load_checkpoint(path)


def test_aliases_that_stand_for_any_number_of_values_do_not_hang(tmp_path: Path) -> None:
    path, doubled = tmp_path / "best.ckpt", [0]
    for _ in range(60):
        doubled = [doubled, doubled]  # type: ignore[list-item]
    torch.save({"format_version": 6, "sha256": "0" * 64, "extras": doubled}, path)
    with pytest.raises(BadInput, match="stands for more than 1000000 values"):
        load_checkpoint(path)


def test_a_checkpoint_that_would_grow_as_it_is_read_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    save_checkpoint(path, checkpoint)
    members = members_of(path)
    write_members(path, members, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadInput, match="is compressed, which no checkpoint of ours is"):
        load_checkpoint(path)
    write_members(path, {name: content for name, content in members.items() if "data.pkl" not in name})
    with pytest.raises(BadInput, match="wanted one record of at most 67108864 bytes"):
        load_checkpoint(path)
    # Sparse: it takes no room on the disk.
    with path.open("wb") as stream:
        stream.truncate((1 << 34) + 1)
    with pytest.raises(BadInput, match="17179869185 bytes, wanted at most 17179869184"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 1000, b"\x80\x02}q\x00.", None])
def test_damage_of_every_form_is_one_message(content: bytes | None, checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    save_checkpoint(path, checkpoint)
    if content is None:
        legacy = io.BytesIO()
        torch.save({"format_version": 6}, legacy, _use_new_zipfile_serialization=False)
        content = legacy.getvalue()
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"can't be read as a checkpoint \(File is not a zip file\).*train the model"):
        load_checkpoint(path)


def test_weights_of_another_network_are_refused_with_its_layer(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"best\.ckpt: its weights don't fit the network.*bias"):
        fill(nn.Linear(2, 3), {"weight": torch.zeros(3, 2)}, tmp_path / "best.ckpt")


def test_two_ancestors_of_one_name_lose_none_of_their_cases(checkpoint: Checkpoint) -> None:
    lines = [
        Ancestor("dose_unet", "prostate", letter * 64, 1, {"case_0001": letter * 64}, {"case_0003": letter * 64})
        for letter in "def"
    ]
    found = replace(checkpoint, ancestors=tuple(lines))
    assert set(found.all_trained_on.values()) == {letter * 64 for letter in "abdef"}
    assert set(found.all_selected_on.values()) == {letter * 64 for letter in "cdef"}
