"""A training that begins with another model's weights, and with the cases that these have seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learn.conftest import SEG, changed
from learn.training.test_keeping import NOISE, elsewhere

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import read_yaml, sha256_of_file
from doseledger.core.settings import Settings
from doseledger.core.tables import SPLITS, read_table, write_table
from doseledger.evaluate.predictions import load_prediction
from doseledger.evaluate.refusals import refuse_seen
from doseledger.learn.families.segmentation import SEGMENTATION
from doseledger.learn.kinds import load_recipe, make_family, open_as, open_checkpoint
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.run import DOSE_READER, Parent, TrainingRun
from doseledger.learn.training.checkpoint import read_seen
from doseledger.learn.training.parent import parent_of
from doseledger.learn.training.probe import probe_steps
from doseledger.learn.training.train import Places, make_task, open_cases, train

MakeRun = Callable[..., TrainingRun]
SHORT = {"fit.max_epochs": 1}


def quietly(run: TrainingRun, places: Places) -> list[str]:
    lines: list[str] = []
    train(run, places, fresh=False, tell=lines.append)
    return lines


def trained(run: TrainingRun, places: Places, name: str = "dose_unet@v0.1.0", cohort: str = "phantom") -> Parent:
    """A run, trained, as what another one begins with."""
    quietly(run, places)
    path = places.out / "checkpoints/best.ckpt"
    return parent_of(open_checkpoint(path), name, cohort, sha256_of_file(path))


def move(places: Places, **to: str) -> Places:
    """The same cases under other splits: move(places, case_0001="test")."""
    table = read_table(places.splits, SPLITS)
    for case_id, part in to.items():
        table.loc[table["case_id"] == case_id, "split"] = part
    splits = places.splits.with_name("other_splits.csv")
    write_table(splits, table, SPLITS)
    return replace(elsewhere(places), splits=splits)


@pytest.fixture
def kinds(
    make_run: MakeRun, repository: Path, settings: Settings, shipped_diffusion: dict[str, Any]
) -> dict[str, TrainingRun]:
    """A small run of every kind of network."""
    block = read_yaml(repository / "models/recipes/seg_unet3d.yaml")["seg_unet3d"]
    segmentation = load_recipe(changed(block, SEG), settings.model_base, "test")
    noise = load_recipe({**NOISE, "kind": "diffusion"}, shipped_diffusion, "test")
    return {
        "dose": make_run(SHORT),
        "segmentation": TrainingRun("seg", segmentation, 0.01, 1, 0, 0, {"ok": True}, {}, SEGMENTATION),
        "diffusion": TrainingRun("noise", noise, 0.01, 1, 0, 0, {"ok": True}, {}, make_family(noise, None)),
    }


@pytest.mark.parametrize("kind", ["dose", "segmentation", "diffusion"])
def test_a_child_begins_with_what_its_parent_says(kind: str, kinds: dict[str, TrainingRun], places: Places) -> None:
    run = kinds[kind]
    parent = trained(run, places)
    child = replace(run, seed=5, parent=parent)
    cases = open_cases(child, places)
    # Of other cases than its parent, whose means, spreads and scales it would measure anew.
    spec, fewer = run.family.reader.spec_of(cases["train"], run.recipe.inputs), {"train": cases["train"][:1]}
    task: Any = make_task(child, spec, fewer)
    for name, weight in task.weights().items():
        assert torch.equal(weight, parent.weights[name]), name
    for name, weight in task.network.state_dict().items():
        assert torch.equal(weight, parent.weights[name]), name
    assert task.extras().get("scale") == parent.extras.get("scale")
    fresh: Any = make_task(replace(child, parent=None), spec, fewer)
    assert any(not torch.equal(weight, parent.weights[name]) for name, weight in fresh.weights().items())


def test_a_child_on_other_cases_tells_none_by_means_that_are_not_its_parents(make_run: MakeRun, places: Places) -> None:
    run = make_run({"prior": "mean_dose_left_out"})
    cases = open_cases(run, places)["train"]
    spec = run.family.reader.spec_of(cases, run.recipe.inputs)
    weights = make_task(run, spec, {"train": cases}).weights()
    child = replace(run, parent=Parent("dose", weights, {}, ()))
    same, fewer = (make_task(child, spec, {"train": part}) for part in (cases, cases[:2]))
    assert set(same.network.prior.left_out) == {case.case_id for case in cases}  # type: ignore[union-attr]
    assert not fewer.network.prior.left_out  # type: ignore[union-attr]


def test_a_child_inherits_the_cases_its_parent_has_seen_and_is_refused_on_them(
    make_run: MakeRun, places: Places, tmp_path: Path
) -> None:
    grandparent = trained(make_run(SHORT), places)
    # One case fewer to learn from: it stays among what the weights have seen.
    other = move(places, case_0001="val", case_0004="train")
    table = read_table(other.splits, SPLITS)
    write_table(other.splits, table[table["case_id"] != "case_0001"], SPLITS)
    rows = read_table(other.splits, SPLITS)
    rows.loc[rows["case_id"] == "case_0005", "split"] = "val"
    write_table(other.splits, rows, SPLITS)
    child = make_run(SHORT, model="dose_fine", parent=grandparent, cohort="phantom")
    lines = quietly(child, other)
    assert any("begun with those of dose_unet@v0.1.0" in line for line in lines)
    path = other.out / "checkpoints/best.ckpt"
    found = open_checkpoint(path)
    assert sorted(found.trained_on) == ["case_0002", "case_0003", "case_0004"]
    assert sorted(found.all_trained_on) == ["case_0001", "case_0002", "case_0003", "case_0004"]
    assert sorted(found.all_selected_on) == ["case_0004", "case_0005"]
    assert set(read_seen(path, "phantom")) == {f"case_000{n}" for n in range(1, 6)}
    told = json.loads((other.out / "run.json").read_text())["ancestors"]
    assert [(line["name"], line["trained_on"], line["selected_on"]) for line in told] == [("dose_unet@v0.1.0", 3, 1)]
    # Predicted, its parent's training case is measured nowhere.
    predictor = open_as(path, child.recipe.model_dump(mode="json")["predict"])
    predict_part(predictor, SplitPart(places.cases, places.splits, "train", 0, 0), tmp_path / "out", tell=lines.append)
    made = load_prediction(tmp_path / "out/case_0001.npz")
    with pytest.raises(BadCase, match="case_0001: the model was trained on this case"):
        refuse_seen("case_0001", made.case_sha256, made.trained_on, made.selected_on)
    # A third generation has seen what the first has.
    third = parent_of(found, "dose_fine", "phantom", sha256_of_file(path))
    assert [line.name for line in third.line] == ["dose_fine", "dose_unet@v0.1.0"]


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ({"case_0001": "test", "case_0005": "train"}, "was trained on case_0001, now among the test cases"),
        ({"case_0004": "test", "case_0005": "val"}, "was selected on case_0004, now among the test cases"),
        ({"case_0001": "val", "case_0004": "train"}, "was trained on case_0001, now among the val cases"),
    ],
)
def test_splits_that_score_what_an_ancestor_has_seen_are_refused_before_a_step(
    make_run: MakeRun, places: Places, to: dict[str, str], message: str
) -> None:
    parent = trained(make_run(SHORT), places)
    with pytest.raises(BadInput, match=f"dose_unet: dose_unet@v0.1.0, which it begins with, {message}"):
        quietly(make_run(SHORT, parent=parent), move(places, **to))


def test_a_case_ingested_again_is_known_by_its_name_in_its_own_cohort_alone(make_run: MakeRun, places: Places) -> None:
    parent = trained(make_run(SHORT), places)
    line = replace(parent.line[0], trained_on={"case_0005": "f" * 64}, selected_on={})
    parent = replace(parent, line=(line,))
    with pytest.raises(BadInput, match="was trained on case_0005, now among the test cases"):
        quietly(make_run(SHORT, parent=parent, cohort="phantom"), elsewhere(places))
    quietly(make_run(SHORT, parent=parent, cohort="prostate"), elsewhere(places))
    path = elsewhere(places).out / "checkpoints/best.ckpt"
    assert "case_0005" not in read_seen(path, "prostate")
    assert read_seen(path, "prostate")["dose_unet@v0.1.0: case_0005"] == "f" * 64
    assert read_seen(path, "phantom")["case_0005"] == "f" * 64


def test_a_parent_of_another_network_is_refused_with_the_first_weight_that_differs(
    make_run: MakeRun, places: Places, kinds: dict[str, TrainingRun]
) -> None:
    parent = trained(make_run(SHORT), places)
    wider = {"name": "film_unet", "stem_stride_zyx": [2, 2, 2], "channels": [4, 12], "convolutions": [1, 1]}
    run = make_run({**SHORT, "network": {**wider, "embedding": 8}}, model="dose_fine", parent=parent)
    wanted = r"dose_fine: init_from dose_unet@v0.1.0 has another network: [\w.]+ is of shape \[.*8.*\] there and of "
    with pytest.raises(BadInput, match=wanted + r"shape \[.*12.*\] here"):
        quietly(run, elsewhere(places))
    # Preflight says so too, before anything is trained.
    with pytest.raises(BadInput, match=wanted):
        probe_steps(run, places.cases, places.splits, n_steps=1)
    with pytest.raises(BadInput, match=r"\S+ is absent there and of shape \[.*\] here; give both"):
        quietly(make_run({**SHORT, "prior": "none"}, parent=parent), elsewhere(places))
    with pytest.raises(BadInput, match="of kind dose, this model of kind segmentation"):
        quietly(replace(kinds["segmentation"], parent=parent), elsewhere(places))


def test_a_child_of_the_same_network_passes_preflights_trial(make_run: MakeRun, places: Places) -> None:
    parent = trained(make_run(SHORT), places)
    run = make_run(SHORT, parent=parent)
    alone, found = (
        probe_steps(one, places.cases, places.splits, n_steps=2) for one in (replace(run, parent=None), run)
    )
    assert found.losses == alone.losses


def test_longer_training_goes_on_from_what_was_learned(make_run: MakeRun, places: Places) -> None:
    short = {"fit.max_epochs": 4, "sampling.patches_per_case": 4}
    parent = trained(make_run(short), places)
    best = open_checkpoint(places.out / "checkpoints/best.ckpt").scores["val_mae_valid_dose_gy"]
    child = make_run({**short, "fit.max_epochs": 1}, lr=1e-9, parent=parent)
    quietly(child, elsewhere(places))
    after = open_checkpoint(elsewhere(places).out / "checkpoints/best.ckpt").scores["val_mae_valid_dose_gy"]
    assert np.isclose(after, best, rtol=1e-4)
    assert child.family.reader is DOSE_READER
