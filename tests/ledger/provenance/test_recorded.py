"""The settings of a run, as it wrote them and as params.yaml declares them: one set of names, one set of values."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.settings import load_settings
from doseledger.learn.kinds import recipe_of
from doseledger.ledger.provenance.baseline import settings_change
from doseledger.ledger.provenance.recipes import put_recipe
from doseledger.ledger.provenance.recorded import declared_settings, settings_of_run, stage_names, stages_of_model

MODELS = ("dose_unet", "dose_cascade", "dose_diffusion", "dose_mednext", "dose_unet_large")


@pytest.fixture
def layout(repository: Path, tmp_path: Path) -> Layout:
    """A committed project that trains every model that ships."""
    shutil.copyfile(repository / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(repository / "models/recipes", tmp_path / "models/recipes")
    found = Layout(tmp_path, "phantom")
    for name in MODELS[1:]:
        put_recipe(found, name)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "params.yaml")
    git(tmp_path, "commit", "-q", "-m", "settings")
    return found


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A Physicist", "-c", "user.email=physicist@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(root), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def written(layout: Layout, model: str) -> dict[str, Any]:
    """What a training of the present settings writes of them."""
    settings = load_settings(layout.params)
    recipe = recipe_of(settings, model).trained_part().model_dump(mode="json")
    common = {name: getattr(settings, name) for name in ("lr", "seed", "fold", "repeat")}
    return {"model": model, **common, "recipe": recipe}


def predicted(layout: Layout, model: str) -> dict[str, Any]:
    block: dict[str, Any] = recipe_of(load_settings(layout.params), model).model_dump(mode="json")["predict"]
    return block


@pytest.mark.parametrize("model", MODELS)
def test_a_run_of_committed_settings_differs_in_none_of_them_from_its_commit(layout: Layout, model: str) -> None:
    run = settings_of_run(written(layout, model), predicted(layout, model), {})
    found = settings_change(layout.root, git(layout.root, "rev-parse", "HEAD"), model, run)
    assert found.rows == ()
    assert "Committed before training" in found.sentence


def test_a_setting_that_an_experiment_changed_is_the_one_that_differs(layout: Layout) -> None:
    text = layout.params.read_text()
    write_text(
        layout.params, text.replace("    overlap: 0.25\n", "    overlap: 0.75\n").replace("lr: 0.002", "lr: 0.1")
    )
    run = settings_of_run(written(layout, "dose_unet"), predicted(layout, "dose_unet"), {})
    found = settings_change(layout.root, git(layout.root, "rev-parse", "HEAD"), "dose_unet", run)
    # What a model has of model_base alone counts as its own.
    assert found.rows == (("lr", "0.002", "0.1"), ("predict.overlap", "0.25", "0.75"))


def test_settings_of_a_run_are_flat_and_hold_how_its_data_were_dealt_and_measured() -> None:
    config = {"model": "m", "lr": 0.1, "seed": 3, "recipe": {"kind": "dose", "network": {"channels": [4, 8]}}}
    stages = {
        "ingest@phantom": {"params": {"params.yaml": {"ingest.accept_failed": 9}}},
        "split@phantom": {"params": {"params.yaml": {"splits": {"seed": 11, "fractions": {"train": 0.7}}}}},
        "train@phantom-m": {"outs": []},
        "evaluate@phantom-m": {"params": {"params.yaml": {"evaluate.verify_gamma_points": 5, "fold": 0}}},
    }
    assert settings_of_run(config, {"overlap": 0.5}, stages) == {
        "lr": 0.1, "seed": 3, "fold": 0, "kind": "dose", "network.channels": [4, 8], "predict.overlap": 0.5,
        "splits.seed": 11, "splits.fractions.train": 0.7, "evaluate.verify_gamma_points": 5,
    }  # fmt: skip
    assert settings_of_run({}, {}, {}) == {}


def test_declared_settings_are_those_of_the_whole_block(layout: Layout) -> None:
    params = read_yaml(layout.params)
    found = declared_settings(params, "dose_unet")
    assert (found["seed"], found["lr"], found["fold"], found["repeat"]) == (1, 0.002, 0, 0)
    assert found["fit.max_epochs"] == params["dose_unet"]["fit"]["max_epochs"]
    assert found["predict.overlap"] == params["model_base"]["predict"]["overlap"]
    # A diffusion knows no loss of doses.
    assert not [name for name in declared_settings(params, "dose_diffusion") if name.startswith("loss.voxel")]
    assert declared_settings(params, "nobody") == {}


def test_an_early_commits_block_stands_for_itself() -> None:
    early = {"lr": 0.1, "dose_unet": {"fit": {"max_epochs": 3}}}
    assert declared_settings(early, "dose_unet") == {"lr": 0.1, "fit.max_epochs": 3}
    assert declared_settings({"lr": 0.1, "dose_unet": 3}, "dose_unet") == {}


def test_the_entries_of_a_models_stages_are_read_and_no_others(tmp_path: Path) -> None:
    names = ("split@phantom", "train@phantom-m", "train@phantom-other", "train@prostate-m", "code", "gate@phantom-m")
    write_json(tmp_path / "dvc.lock", {"schema": "2.0", "stages": {name: {"cmd": name} for name in names}})
    found = stages_of_model(tmp_path / "dvc.lock", "phantom", "m")
    # In the order of the pipeline.
    assert list(found) == ["split@phantom", "train@phantom-m", "gate@phantom-m"]
    assert list(found) == [name for name in stage_names("phantom", "m") if name in names]
    assert stages_of_model(tmp_path / "nothing.lock", "phantom", "m") == {}
    write_text(tmp_path / "dvc.lock", "stages: 3\n")
    with pytest.raises(BadInput, match=r"not a dvc\.lock"):
        stages_of_model(tmp_path / "dvc.lock", "phantom", "m")
