"""Resume states: found by fingerprint, refused in words, listed and cleared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from doseledger.core.code import reached_code
from doseledger.core.errors import BadInput
from doseledger.learn.families.dose import DOSE
from doseledger.learn.training.resume import clear_states, list_states, open_state

PARTS: dict[str, Any] = {"lr": 0.01, "splits": "a" * 64, "recipe": {"fit": {"max_epochs": 3}}}


def interrupted(root: Path, parts: dict[str, Any] = PARTS) -> Path:
    state = open_state(root, "dose_unet", parts, fresh=False)
    state.lightning.write_bytes(b"state")
    return state.folder


def test_the_same_run_finds_its_state(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    state = open_state(tmp_path, "dose_unet", dict(reversed(PARTS.items())), fresh=False)
    assert (state.found, state.folder) == (True, folder)


def test_resume_is_refused_in_words_when_lr_or_splits_changed(tmp_path: Path) -> None:
    interrupted(tmp_path)
    state = open_state(tmp_path, "dose_unet", {**PARTS, "lr": 0.02}, fresh=False)
    assert not state.found
    assert state.why == "the interrupted run of dose_unet differs: lr was 0.01, is 0.02"
    other = {**PARTS, "splits": "b" * 64, "recipe": {"fit": {"max_epochs": 4}}}
    assert open_state(tmp_path, "dose_unet", other, fresh=False).why == (
        "the interrupted run of dose_unet differs: recipe.fit.max_epochs was 3, is 4; "
        "splits was aaaaaaaaaaaa…, is bbbbbbbbbbbb…"
    )


def test_another_model_has_nothing_to_do_with_it(tmp_path: Path) -> None:
    interrupted(tmp_path)
    assert open_state(tmp_path, "other", PARTS, fresh=False).why == "there is no interrupted run of other"


def test_a_fresh_start_throws_the_state_away(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    told = folder / "told0"
    told.mkdir()
    (told / "case.npy").write_bytes(b"told")
    state = open_state(tmp_path, "dose_unet", PARTS, fresh=True)
    assert (state.found, state.why) == (False, "a fresh start was asked for")
    assert not (folder / "last.ckpt").exists()
    assert not told.exists()


def test_states_are_listed_and_cleared_by_model(tmp_path: Path) -> None:
    first, second = interrupted(tmp_path), interrupted(tmp_path, {**PARTS, "lr": 0.5})
    assert set(list_states(tmp_path)) == {first, second}
    assert list_states(tmp_path, "other") == []
    assert clear_states(tmp_path, "dose_unet") == 2
    assert list_states(tmp_path) == []
    with pytest.raises(BadInput, match=r"'\.\./dose_unet' is not a model's name"):
        clear_states(tmp_path, "../dose_unet")


def test_the_code_that_training_reaches_is_found_in_its_imports() -> None:
    modules = set(reached_code("doseledger.learn.training.train", DOSE.module))
    reached = {
        f"doseledger.learn.{name}"
        for name in (
            "training.train",
            "families.dose",
            "losses.dose",
            "networks.unet",
            "data.patches",
            "networks.windows",
        )
    }
    assert reached | {"doseledger.core.case", "doseledger.core.grid"} <= modules
    assert not modules & {"doseledger.learn.predict.cases", "doseledger.learn.training.probe", "doseledger.learn"}
