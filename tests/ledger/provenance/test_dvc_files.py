"""dvc.lock, dvc.yaml and `.dvc` files: what is of another form is refused by its name, by whatever reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.ledger.bundle.bitrot import recorded_outs
from doseledger.ledger.provenance.dvc_files import lock_stages, read_lock, read_pipeline
from doseledger.ledger.provenance.outs import recorded_of
from doseledger.ledger.provenance.recorded import dvc_hashes, settings_of_run, stages_of_model
from doseledger.ledger.provenance.snapshot import cached_file, workspace_snapshot
from doseledger.ledger.provenance.stamp import stage_outs
from doseledger.ledger.runs.listing.rows import rows_of_snapshot

OUT = {"path": "a.csv", "hash": "md5", "md5": "0" * 32}
NO_LOCKS: list[Any] = [
    "text", 7, [1], {"stages": "text"}, {"stages": [1]}, {"stages": {"train": None}}, {"stages": {"train": "x"}},
    {"stages": {"train": {"outs": "a.csv"}}}, {"stages": {"train": {"outs": [None]}}},
    {"stages": {"train": {"outs": ["a.csv"]}}}, {"stages": {"train": {"outs": [[OUT]]}}},
    {"stages": {"train": {"outs": [{"md5": "0" * 32}]}}}, {"stages": {"train": {"deps": 1, "outs": [OUT]}}},
    {"stages": {"train": {"params": [1]}}}, {"stages": {"train": {"params": {"params.yaml": "lr"}}}},
]  # fmt: skip
READERS: dict[str, Callable[[Path], object]] = {
    "hashes": lambda root: dvc_hashes(root / "dvc.lock"),
    "stages": lambda root: stages_of_model(root / "dvc.lock", "phantom", "dose_unet"),
    "outs": recorded_outs,
    "recorded": lambda root: recorded_of(root / "dvc.lock", ["train"]),
    "stamp": stage_outs,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", NO_LOCKS, ids=str)
def test_what_is_no_lock_is_refused_by_every_reader_of_it(content: Any, reader: str, tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"dvc\.lock: (not a dvc\.lock|train: )"):
        READERS[reader](tmp_path)


@pytest.mark.parametrize(
    "content", ["text", [1], {"stages": 1}, {"stages": {"train": 1}}, {"stages": {"train": {"do": 1}}}]
)
@pytest.mark.parametrize("reader", ["outs", "stamp"])
def test_what_is_no_pipeline_is_refused_by_name(content: Any, reader: str, tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": {"train": {"outs": [OUT]}}}))
    (tmp_path / "dvc.yaml").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"dvc\.yaml: (not a dvc\.yaml|the stage train is no mapping)"):
        READERS[reader](tmp_path)


@pytest.mark.parametrize("content", ["text", 7, [1], {"outs": 1}, {"outs": [1]}, {"outs": [{"md5": "0" * 32}]}])
def test_what_dvc_add_did_not_write_is_refused_by_name(content: Any, tmp_path: Path) -> None:
    (tmp_path / "raw.dvc").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"raw\.dvc: (no mapping|raw\.dvc: one of its outs has no path)"):
        recorded_outs(tmp_path)


def test_nothing_there_and_nothing_in_it_are_no_stages(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "dvc.lock") == read_pipeline(tmp_path / "dvc.yaml") == {}
    for text in ("", "{}", "stages:\n", "schema: '2.0'\n"):
        (tmp_path / "dvc.lock").write_text(text)
        (tmp_path / "dvc.yaml").write_text(text)
        assert read_lock(tmp_path / "dvc.lock") == read_pipeline(tmp_path / "dvc.yaml") == {}
        assert recorded_outs(tmp_path) == []


def test_a_stage_under_a_matrix_is_what_it_does(tmp_path: Path) -> None:
    stages = {"train": {"matrix": {"a": [1]}, "cmd": "x"}, "add": {"foreach": [1], "do": {"cmd": "y", "wdir": "z"}}}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    assert read_pipeline(tmp_path / "dvc.yaml") == {"train": stages["train"], "add": {"cmd": "y", "wdir": "z"}}


@pytest.mark.parametrize("text", [json.dumps(content) for content in NO_LOCKS] + ["[" * 5000, "<<<<<<< HEAD\na: 1\n"])
def test_a_commit_whose_lock_is_none_holds_no_run_and_stops_no_other(text: str, tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    (tmp_path / "params.yaml").write_text("cohort: phantom\nmodels: [dose_unet]\n")
    snapshot = workspace_snapshot(tmp_path)
    assert rows_of_snapshot(snapshot) == []
    assert not snapshot.lock.get("stages")


@pytest.mark.parametrize("recipe", [None, "text", [1], ["ab", "cd"], 7])
def test_a_recipe_that_is_no_mapping_gives_no_setting(recipe: Any) -> None:
    assert settings_of_run({"lr": 0.1, "recipe": recipe}, {}, {}) == {"lr": 0.1}


@pytest.mark.parametrize("listing", [b"", b"[", b"[1]", b'[{"md5": "x"}]', b'{"relpath": "a"}', b"\xff"])
def test_a_damaged_list_of_a_folder_leads_to_no_file(listing: bytes, tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "cd.dir").write_bytes(listing)
    lock = {"stages": lock_stages({"stages": {"train": {"outs": [{"path": "models", "md5": "abcd.dir"}]}}}, "x")}
    assert cached_file(tmp_path, lock, "models/a") is None
