"""Boosted trees: their own reading of scikit-learn's, cross-fitting, and the road of every model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.boosting import FEW, quiet

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.settings import Settings
from doseledger.learn.data.features import drawn_voxels, structure_weights, voxel_features
from doseledger.learn.data.inputs import CaseFile, open_case, spec_of
from doseledger.learn.families.cross_fit import draw_voxels, fold_numbers
from doseledger.learn.kinds import load_recipe, make_family, open_predictor
from doseledger.learn.networks.boosted import known_features
from doseledger.learn.networks.trees import grow_trees
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.recipes.trees import BoostingRecipe, TreesRecipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.checkpoint import load_checkpoint
from doseledger.learn.training.probe import probe_steps
from doseledger.learn.training.train import Places, train


@pytest.fixture
def recipe(settings: Settings) -> TreesRecipe:
    block = settings.model("dose_trees")
    found = load_recipe(block, settings.model_base, "dose_trees")
    assert isinstance(found, TreesRecipe)
    return found.model_copy(update={"boosting": FEW})


@pytest.fixture
def run(recipe: TreesRecipe) -> TrainingRun:
    return TrainingRun(
        model="dose_trees", recipe=recipe, lr=0.1, seed=1, fold=0, repeat=0, token={"ok": True}, provenance={},
        family=make_family(recipe, None),
    )  # fmt: skip


def test_voxels_of_a_whole_case_have_the_features_that_they_have_by_themselves(
    cohort: Any, recipe: TreesRecipe
) -> None:
    (case, *_), boosting = cohort.open(), recipe.boosting
    spec, index = spec_of([case], recipe.inputs), drawn_voxels(case, 50, 1)
    alone = voxel_features(case, spec, index, boosting.context_mm)
    np.testing.assert_array_equal(known_features(case, spec, boosting).at(index), alone)


def test_a_structure_weighs_alike_whatever_its_size(cohort: Any, recipe: TreesRecipe) -> None:
    (case, *_), index = cohort.open(), drawn_voxels(cohort.open()[0], 400, 1)
    weight = structure_weights(case, index, 0.1) - 1.0
    masks = [mask.ravel()[index] > 0 for mask in Case.load(case.file.path).masks]
    alone = [mask & (np.sum(masks, axis=0) == 1) for mask in masks]
    for mask, single in zip(masks, alone, strict=True):
        if single.any():
            np.testing.assert_allclose(weight[single], 0.1 * len(index) / mask.sum(), rtol=1e-5)
    assert weight.sum() == pytest.approx(0.1 * len(index) * sum(mask.any() for mask in masks), rel=1e-5)
    assert (weight[~np.any(masks, axis=0)] == 0).all()
    spec = spec_of([case], recipe.inputs)
    assert (draw_voxels(case, spec, recipe.boosting, 1).weight == 1.0).all()


def test_trees_err_less_where_voxels_count_more() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(4000, 2)).astype(np.float32)
    few = rng.random(4000) < 0.03
    dose = np.where(few, features[:, 0] * 0.5, features[:, 1]).astype(np.float32)
    weight = np.where(few, 30.0, 1.0).astype(np.float32)
    plain, heavy = (
        np.abs(grow_trees(features, dose, FEW, w).predict(features) - dose)[few].mean() for w in (None, weight)
    )
    assert heavy < 0.8 * plain
    np.testing.assert_array_equal(
        grow_trees(features, dose, FEW, np.ones(4000, dtype=np.float32)).predict(features),
        grow_trees(features, dose, FEW).predict(features),
    )


def test_trees_as_arrays_say_what_scikit_learn_says() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(1)
    features = rng.normal(size=(3000, 5)).astype(np.float32)
    dose = (np.sin(features[:, 0]) + features[:, 1] * (features[:, 2] > 0)).astype(np.float32)
    theirs = HistGradientBoostingRegressor(
        max_iter=12, max_leaf_nodes=8, min_samples_leaf=5, learning_rate=0.3, early_stopping=False, random_state=0
    ).fit(features, dose)
    ours = grow_trees(features, dose, FEW)
    other = rng.normal(size=(1000, 5)).astype(np.float32) * 3.0
    np.testing.assert_allclose(ours.predict(other), theirs.predict(other), rtol=1e-12, atol=1e-12)


def test_folds_are_even_and_hang_on_the_seed() -> None:
    patients = list("abcdefghij")
    folds = fold_numbers(patients, 3, seed=1)
    assert sorted(np.bincount(folds)) == [3, 3, 4]
    assert folds == fold_numbers(patients, 3, seed=1) != fold_numbers(patients, 3, seed=2)
    assert len(set(fold_numbers(["a", "b"], 5, seed=1))) == 2


def test_two_plans_of_a_patient_are_in_one_fold() -> None:
    patients = list("abcdefghij")
    once = fold_numbers(patients, 3, seed=1)
    assert fold_numbers(patients + patients, 3, seed=1) == once + once


def test_features_never_see_the_dose(cohort: Any, recipe: TreesRecipe, tmp_path: Path) -> None:
    found = []
    case = Case.load(cohort.cases / "case_0001.npz")
    assert case.dose_gy is not None
    for name, dose_gy in (("planned", case.dose_gy), ("other", np.full_like(case.dose_gy, 33.0))):
        path = tmp_path / name / "case_0001.npz"
        replace(case, dose_gy=dose_gy, valid_dose=case.valid_dose & (dose_gy < 1e9)).save(path)
        opened = open_case(CaseFile("case_0001", path, sha256_of_file(path)))
        index = np.flatnonzero(case.body)
        found.append(voxel_features(opened, spec_of([opened], recipe.inputs), index, [8.0]))
    np.testing.assert_array_equal(*found)
    assert np.isfinite(found[0]).all()


def test_trees_train_predict_and_are_the_same_again(run: TrainingRun, places: Places) -> None:
    train(run, places, fresh=False, tell=quiet)
    first = (places.out / "checkpoints/best.ckpt").read_bytes()
    history = pd.read_csv(places.out / "history.csv")
    assert history["epoch"].tolist() == [1]
    assert 0.0 < history["val_mae_valid_dose_gy"][0] < 20.0
    for name in ("run.json", "config_resolved.yaml", "dataset_summary.json", "live.json", "train.log"):
        assert (places.out / name).is_file(), name
    out = places.out.with_name("predictions")
    predictor = open_predictor(places.out / "checkpoints/best.ckpt", run.recipe)
    predict_part(predictor, SplitPart(places.cases, places.splits, "test", 0, 0), out, tell=quiet)
    case = Case.load(places.cases / "case_0005.npz")
    with np.load(out / "case_0005.npz") as npz:
        dose_gy = npz["dose_gy"]
    assert case.dose_gy is not None
    assert np.abs(dose_gy - case.dose_gy)[case.body].mean() < 0.7 * case.dose_gy[case.body].mean()
    train(run, places, fresh=True, tell=quiet)
    assert (places.out / "checkpoints/best.ckpt").read_bytes() == first


def test_a_training_case_is_told_by_trees_that_have_not_seen_it(run: TrainingRun, places: Places, cohort: Any) -> None:
    train(run, places, fresh=False, tell=quiet)
    path = places.out / "checkpoints/best.ckpt"
    told_by = load_checkpoint(path, type(run.recipe.trained_part())).extras["told_by"]
    assert set(told_by.values()) == {"fold0", "fold1"}
    before = open_predictor(path, run.recipe).predict(cohort.open()[0])["dose_gy"]
    # The case's own dose spoiled: trees of its fold do not change, those of the others do.
    name = cohort.open()[0].case_id
    spoil_dose(places, name)
    train(run, places, fresh=True, tell=quiet)
    again = open_predictor(path, run.recipe)
    np.testing.assert_array_equal(again.predict(cohort.open()[0])["dose_gy"], before)
    assert load_checkpoint(path, type(run.recipe.trained_part())).extras["told_by"] != told_by


def test_preflight_sees_the_error_fall(run: TrainingRun, places: Places) -> None:
    found = probe_steps(run, places.cases, places.splits, n_steps=20)
    assert found.finite
    assert found.last_loss < 0.5 * found.first_loss
    assert len(found.losses) == 21


def test_trees_start_from_nothing(recipe: TreesRecipe) -> None:
    with pytest.raises(BadInput, match="trees starts from nothing"):
        make_family(recipe, Path("best.ckpt"))


def test_the_dose_answers_a_raised_prescription_by_as_much(
    run: TrainingRun, places: Places, cohort: Any, make_case: Callable[..., Case], tmp_path: Path
) -> None:
    train(run, places, fresh=False, tell=quiet)
    predictor = open_predictor(places.out / "checkpoints/best.ckpt", run.recipe)
    case, found = make_case("case_0009", seed=9), []
    for factor in (1.0, 1.1):
        path = tmp_path / f"{factor}" / "case_0009.npz"
        replace(case, prescription_gy={n: gy * factor for n, gy in case.prescription_gy.items()}).save(path)
        found.append(predictor.predict(open_case(CaseFile("case_0009", path, sha256_of_file(path))))["dose_gy"])
    np.testing.assert_allclose(found[1], 1.1 * found[0], rtol=1e-3, atol=0.5)


@pytest.fixture
def second_run(run: TrainingRun, recipe: TreesRecipe) -> TrainingRun:
    """A run of second trees: three folds of one patient each."""
    boosting = BoostingRecipe.model_validate({**FEW.model_dump(), "folds": 3, "stages": 2})
    return replace(run, recipe=recipe.model_copy(update={"boosting": boosting}))


def test_second_trees_never_meet_the_case_that_they_tell(second_run: TrainingRun, places: Places, cohort: Any) -> None:
    train(second_run, places, fresh=False, tell=quiet)
    path = places.out / "checkpoints/best.ckpt"
    new, *others = cohort.open()
    told = [open_predictor(path, second_run.recipe).predict(case)["dose_gy"] for case in (new, *others)]
    kept = load_checkpoint(path, type(second_run.recipe.trained_part())).weights
    assert {name.split(".")[0] for name in kept} == {
        f"{stage}{fold}" for stage in ("", "second_") for fold in ("fold0", "fold1", "fold2", "final")
    }
    spoil_dose(places, new.case_id)
    train(second_run, places, fresh=True, tell=quiet)
    again = open_predictor(path, second_run.recipe)
    spoiled, *others = cohort.open()
    np.testing.assert_array_equal(again.predict(spoiled)["dose_gy"], told[0])
    for case, before in zip(others, told[1:], strict=True):
        assert np.abs(again.predict(case)["dose_gy"] - before).mean() > 0.1, case.case_id


def spoil_dose(places: Places, name: str) -> None:
    """Halve the plan's dose of a case."""
    case = Case.load(places.cases / f"{name}.npz")
    assert case.dose_gy is not None
    replace(case, dose_gy=case.dose_gy * 0.5).save(places.cases / f"{name}.npz")
    table = pd.read_csv(places.splits)
    table.loc[table["case_id"] == name, "sha256"] = sha256_of_file(places.cases / f"{name}.npz")
    table.to_csv(places.splits, index=False)


def test_the_order_of_cases_changes_no_tree(second_run: TrainingRun, places: Places) -> None:
    path, found = places.out / "checkpoints/best.ckpt", []
    for reverse in (False, True):
        table = pd.read_csv(places.splits).sort_values("case_id", ascending=not reverse)
        table.to_csv(places.splits, index=False)
        train(second_run, places, fresh=True, tell=quiet)
        found.append(load_checkpoint(path, type(second_run.recipe.trained_part())).weights)
    for name, weights in found[0].items():
        np.testing.assert_array_equal(weights.numpy(), found[1][name].numpy(), err_msg=name)


def test_second_trees_of_two_folds_are_refused_and_so_are_two_patients(second_run: TrainingRun, places: Places) -> None:
    with pytest.raises(ValueError, match="stages: 2 needs at least 3 folds, found 2"):
        BoostingRecipe.model_validate({**FEW.model_dump(), "stages": 2})
    table = pd.read_csv(places.splits)
    table.loc[table["case_id"] == "case_0003", "pseudonym"] = "phantom_case_0001"
    table.to_csv(places.splits, index=False)
    with pytest.raises(BadInput, match="second trees leave two folds out, and the training cases are of 2 patients"):
        train(second_run, places, fresh=True, tell=quiet)
