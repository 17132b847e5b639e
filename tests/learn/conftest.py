"""A small cohort on disk and a recipe that trains on it in seconds."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from fixtures.boosting import FEW, quiet

from doseledger.core.case import Case
from doseledger.core.files import read_yaml, sha256_of_file
from doseledger.core.settings import Settings, load_settings
from doseledger.core.tables import SPLITS, write_table
from doseledger.learn.data.inputs import OpenCase, case_files, open_case
from doseledger.learn.families.dose import DOSE
from doseledger.learn.families.segmentation import SEGMENTATION
from doseledger.learn.kinds import full_block, load_recipe, make_family
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train

SPLIT_OF = {"case_0001": "train", "case_0002": "train", "case_0003": "train", "case_0004": "val", "case_0005": "test"}


def changed(block: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a nested block with some keys replaced: {"fit.max_epochs": 3}."""
    result = copy.deepcopy(block)
    for path, value in copy.deepcopy(changes).items():
        *parents, last = path.split(".")
        node = result
        for parent in parents:
            node = node[parent]
        node[last] = value
    return result


SMALL = {
    "sampling.patch_zyx": [16, 24, 32],
    "sampling.batch_size": 2,
    "sampling.patches_per_case": 2,
    "network": {
        "name": "film_unet", "stem_stride_zyx": [2, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8,
    },
    "fit.max_epochs": 3,
    "fit.validate_every": 1,
    "loader.workers": 0,
    # Whatever is shipped: a network by itself.
    "prior": "mean_dose",
}  # fmt: skip

SEG: dict[str, Any] = {
    "lr_factor": 1.0,
    "inputs": {"window": [-1000.0, 1000.0], "structures": ["Femur_L", "Femur_R"]},
    "sampling.patch_zyx": [16, 24, 32],
    "sampling.patches_per_case": 2,
    "sampling.batch_size": 1,
    "sampling.mirrored_names": {"Femur_L": "Femur_R"},
    "network": {
        "name": "unet", "channels": [8, 16], "strides": [2], "residual_units": 1, "dropout": 0.3,
        "slices": {"axis": "y", "neighbours": 1},
    },
    "ema_decay": 0.5,
    "fit.max_epochs": 2,
    "fit.validate_every": 1,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The networks here are too small to gain by a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def still_one_thread(one_thread: None) -> None:
    """Whatever another test of this process left: sums of two threads differ in their last bits."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def settings(repository: Path) -> Settings:
    """The shipped params.yaml, but for cases without physics maps."""
    shipped = load_settings(repository / "params.yaml")
    inputs = {**shipped.model_base["inputs"], "physics": []}
    return shipped.model_copy(update={"model_base": {**shipped.model_base, "inputs": inputs}})


@pytest.fixture(scope="session")
def default_block(settings: Settings) -> dict[str, Any]:
    """The block `dose_unet` of params.yaml, complete."""
    return full_block(settings.model("dose_unet"), settings.model_base, "dose_unet")


@pytest.fixture(scope="session")
def shipped_diffusion(repository: Path, settings: Settings) -> dict[str, Any]:
    """The ready-made block `dose_diffusion`, complete."""
    block = read_yaml(repository / "models/recipes/dose_diffusion.yaml")["dose_diffusion"]
    return full_block(block, settings.model_base, "dose_diffusion")


@pytest.fixture(scope="session")
def make_recipe(default_block: dict[str, Any]) -> Callable[..., Recipe]:
    """Factory of small recipes: make_recipe({"fit.max_epochs": 1})."""

    def make(changes: dict[str, Any] | None = None) -> Recipe:
        recipe = load_recipe(changed(default_block, {**SMALL, **(changes or {})}), {}, "test")
        assert isinstance(recipe, Recipe)
        return recipe

    return make


@dataclass(frozen=True)
class Cohort:
    """Five cases on disk and their splits."""

    cases: Path
    splits: Path

    def open(self, which: str = "train") -> list[OpenCase]:
        table = pd.read_csv(self.splits)
        return [open_case(file) for file in case_files(self.cases, table, which, fold=0, repeat=0)]


def write_cohort(folder: Path, cases: dict[str, Case]) -> None:
    """Write cases and the splits that list them."""
    rows = []
    for case_id, case in cases.items():
        path = folder / "cases" / f"{case_id}.npz"
        case.save(path)
        rows.append(
            {
                "repeat": 0,
                "fold": 0,
                "case_id": case_id,
                "pseudonym": f"phantom_{case_id}",
                "group": "A",
                "split": SPLIT_OF[case_id],
                "sha256": sha256_of_file(path),
            }
        )
    write_table(folder / "splits.csv", pd.DataFrame(rows), SPLITS)


@pytest.fixture(scope="session")
def cohort_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the first test with a cohort fills, and the others copy."""
    return tmp_path_factory.mktemp("cohort")


@pytest.fixture
def cohort(tmp_path: Path, cohort_template: Path, make_case: Callable[..., Case]) -> Cohort:
    """Three cases to train on, one to validate with, one to test; case_0002 has a bowel."""
    if not (cohort_template / "splits.csv").is_file():
        cases = {}
        for seed, case_id in enumerate(SPLIT_OF):
            cases[case_id] = make_case(case_id, seed=seed, absent=() if case_id == "case_0002" else ("Bowel",))
        write_cohort(cohort_template, cases)
    shutil.copytree(cohort_template, tmp_path, dirs_exist_ok=True)
    return Cohort(tmp_path / "cases", tmp_path / "splits.csv")


@pytest.fixture
def make_run(make_recipe: Callable[..., Recipe]) -> Callable[..., TrainingRun]:
    """Factory of runs: make_run({"fit.max_epochs": 1}, seed=2)."""

    def make(changes: dict[str, Any] | None = None, **other: Any) -> TrainingRun:
        values = {"model": "dose_unet", "lr": 0.01, "seed": 1, "fold": 0, "repeat": 0, "token": {"ok": True}}
        values |= {"family": DOSE}
        return TrainingRun(**{**values, "recipe": make_recipe(changes), "provenance": {"commit": "abc"}, **other})

    return make


@pytest.fixture
def make_segmentation_run(repository: Path, settings: Settings) -> Callable[..., TrainingRun]:
    """Factory of runs of a small segmentation: make_segmentation_run({"fit.max_epochs": 1}, devices=2)."""

    def make(changes: dict[str, Any] | None = None, **other: Any) -> TrainingRun:
        block = read_yaml(repository / "models/recipes/seg_unet3d.yaml")["seg_unet3d"]
        recipe = load_recipe(changed(block, {**SEG, **(changes or {})}), settings.model_base, "test")
        return TrainingRun("seg", recipe, 0.01, 1, 0, 0, {"ok": True}, {}, SEGMENTATION, **other)

    return make


@pytest.fixture
def segmentation(make_segmentation_run: Callable[..., TrainingRun]) -> TrainingRun:
    """A run of a small segmentation, six steps an epoch."""
    return make_segmentation_run()


@pytest.fixture
def places(cohort: Cohort, tmp_path: Path) -> Places:
    """Where the small runs read and write."""
    return Places(cohort.cases, cohort.splits, tmp_path / "run", tmp_path / "resume")


@pytest.fixture
def trees(settings: Settings, places: Places) -> Path:
    """Checkpoint of small trees of the cohort."""
    block = settings.model("dose_trees")
    recipe = load_recipe(block, settings.model_base, "dose_trees").model_copy(update={"boosting": FEW})
    run = TrainingRun("dose_trees", recipe, 0.1, 1, 0, 0, {"ok": True}, {}, make_family(recipe, None))
    out = places.out.with_name("trees")
    train(run, replace(places, out=out), fresh=False, tell=quiet)
    return out / "checkpoints/best.ckpt"
