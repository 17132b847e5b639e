"""A network on boosted trees: told out of fold, refused on other cases, one file that predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.boosting import quiet

from doseledger.core.case import Case
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.learn.data.inputs import CaseFile, open_case, read_told, spec_of
from doseledger.learn.families.bases import check_trees
from doseledger.learn.kinds import load_recipe, make_family, open_predictor
from doseledger.learn.networks.boosted import BoostedDose
from doseledger.learn.predict.cases import load_model, predict_case
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.checkpoint import load_checkpoint
from doseledger.learn.training.parent import parent_of
from doseledger.learn.training.probe import probe_steps
from doseledger.learn.training.told import load_boosted, told_cases
from doseledger.learn.training.train import Places, make_task, train


@pytest.fixture
def make_boosted(make_run: Callable[..., TrainingRun], trees: Path) -> Callable[..., TrainingRun]:
    def make(changes: dict[str, Any] | None = None) -> TrainingRun:
        run = make_run({"prior": "boosted", "fit.max_epochs": 1, **(changes or {})})
        return replace(run, family=make_family(run.recipe, trees))

    return make


def test_a_case_is_told_by_trees_that_have_not_seen_it_and_its_channel_holds_that(cohort: Any, trees: Path) -> None:
    boosted = load_boosted(trees)
    told_by = boosted.told_by
    assert set(told_by.values()) == {"fold0", "fold1"}
    for case in cohort.open():
        told = boosted.told(case)
        spec = spec_of([told], boosted.recipe.inputs)
        assert spec.told
        assert spec.n_channels == spec.first_told + 1
        np.testing.assert_allclose(read_told(told, case.whole), boosted.tell(case), atol=1.1e-3)
        final = replace(boosted, told_by={})
        assert np.abs(final.tell(case) - boosted.tell(case)).max() > 0.1


def test_channels_do_not_change_with_a_new_patients_dose(cohort: Any, trees: Path, tmp_path: Path) -> None:
    boosted, found = load_boosted(trees), []
    case = Case.load(cohort.cases / "case_0005.npz")
    assert case.dose_gy is not None
    for name, dose_gy in (("planned", case.dose_gy), ("other", np.full_like(case.dose_gy, 33.0))):
        path = tmp_path / name / "case_0005.npz"
        replace(case, dose_gy=dose_gy).save(path)
        found.append(boosted.told(open_case(CaseFile("case_0005", path, sha256_of_file(path)))).told)
    np.testing.assert_array_equal(*found)


def test_an_untrained_network_tells_what_its_trees_tell(
    make_boosted: Callable[..., TrainingRun], places: Places, cohort: Any, trees: Path
) -> None:
    run = make_boosted({"lr_factor": 1e-6})
    train(run, places, fresh=False, tell=quiet)
    model = load_model(places.out / "checkpoints/best.ckpt")
    alone = model.prior_alone()
    assert alone is not None
    case = cohort.open("test")[0]
    told_gy = load_boosted(trees).tell(case)
    np.testing.assert_allclose(predict_case(alone, case, run.recipe.predict), told_gy, atol=2e-3)
    # Its own word is small before it has learned.
    assert 0.0 < np.abs(predict_case(model, case, run.recipe.predict) - told_gy).mean() < 5.0


def test_a_training_on_trees_gives_the_same_bytes_again_and_one_file_predicts(
    make_boosted: Callable[..., TrainingRun], places: Places, cohort: Any, trees: Path
) -> None:
    run, lines = make_boosted(), []
    train(run, places, fresh=False, tell=lines.append)
    path = places.out / "checkpoints/best.ckpt"
    first = path.read_bytes()
    assert "the trees tell 4 cases" in lines
    train(run, places, fresh=True, tell=quiet)
    assert path.read_bytes() == first
    sha256 = sha256_of_file(trees)
    trees.unlink()
    case = cohort.open("test")[0]
    assert np.isfinite(open_predictor(path, run.recipe).predict(case)["dose_gy"]).all()
    assert load_checkpoint(path).extras["boosted"]["sha256"] == sha256
    assert load_checkpoint(path).spec.told


def test_an_interrupted_training_takes_what_was_told(
    make_boosted: Callable[..., TrainingRun], cohort: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = make_boosted().family
    cases = {"train": cohort.open("train"), "val": cohort.open("val")}
    first = told_cases(family, cases, tmp_path / "told", quiet)

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(BoostedDose, "tell", refuse)
    again = told_cases(family, cases, tmp_path / "told", quiet)
    for one, other in zip(first["train"], again["train"], strict=True):
        assert one.told is not None
        assert other.told is not None
        np.testing.assert_array_equal(one.told, other.told)


def test_preflight_tries_the_network_without_its_prior(
    make_boosted: Callable[..., TrainingRun], places: Places
) -> None:
    found = probe_steps(make_boosted(), places.cases, places.splits, n_steps=20)
    assert found.finite
    assert found.last_loss < found.first_loss
    assert found.image_shape[1] == spec_of_told(make_boosted(), places) + 1


def spec_of_told(run: TrainingRun, places: Places) -> int:
    """Channels without the told one."""
    table = pd.read_csv(places.splits)
    row = table[table["split"] == "train"].iloc[0]
    file = CaseFile(row["case_id"], places.cases / f"{row['case_id']}.npz", row["sha256"])
    return int(spec_of([open_case(file)], run.recipe.inputs).n_channels)


def test_trees_grown_on_other_cases_are_refused(
    make_boosted: Callable[..., TrainingRun], places: Places, cohort: Any
) -> None:
    run = make_boosted()
    cases = told_cases(run.family, {"train": cohort.open()[:2], "val": cohort.open("val")}, places.out / "told", quiet)
    spec = spec_of(cases["train"], run.recipe.inputs)
    with pytest.raises(BadInput, match="base dose_trees was trained on other cases: without none, with 1 besides"):
        make_task(run, spec, cases)


def test_trees_that_see_maps_which_the_network_does_not_are_refused(
    make_boosted: Callable[..., TrainingRun], cohort: Any, tmp_path: Path
) -> None:
    run = make_boosted()
    cases = told_cases(run.family, {"train": cohort.open(), "val": cohort.open("val")}, tmp_path / "told", quiet)
    trees = run.family.make_task.keywords["trees"]  # type: ignore[attr-defined]
    inputs = trees.recipe.inputs.model_copy(update={"physics": ["conformal"]})
    seeing = replace(trees, recipe=trees.recipe.model_copy(update={"inputs": inputs}))
    with pytest.raises(BadInput, match="base dose_trees sees the maps conformal"):
        check_trees(run, spec_of(cases["train"], run.recipe.inputs), cases, seeing)
    with pytest.raises(BadInput, match="base dose_trees was grown with maps of other beams"):
        check_trees(run, spec_of(cases["train"], run.recipe.inputs), cases, replace(trees, beams={"gantry_deg": [0]}))


def test_a_network_that_begins_with_another_stands_on_that_ones_trees(
    make_boosted: Callable[..., TrainingRun],
    make_recipe: Callable[..., Recipe],
    places: Places,
    cohort: Any,
    trees: Path,
) -> None:
    run = make_boosted()
    train(run, places, fresh=False, tell=quiet)
    path = places.out / "checkpoints/best.ckpt"
    parent = parent_of(load_checkpoint(path), "dose_unet", "phantom", sha256_of_file(path))
    child = make_recipe({"prior": "boosted", "fit.max_epochs": 1, "init_from": "dose_unet"})
    family = make_family(child, path)
    assert family.parts == {"base": {"model": "dose_trees", "sha256": sha256_of_file(trees)}}
    further = replace(run, recipe=child, family=family, parent=parent)
    train(further, replace(places, out=places.out.with_name("child")), fresh=False, tell=quiet)
    kept = load_checkpoint(places.out.with_name("child") / "checkpoints/best.ckpt").extras["boosted"]
    assert kept["sha256"] == sha256_of_file(trees)
    # Were it told of no such parent, what the trees have seen would count as new.
    strange = replace(further, parent=None)
    cases = {"train": cohort.open()[:2], "val": cohort.open("val")}
    told = told_cases(family, cases, places.out / "told", quiet)
    with pytest.raises(BadInput, match="trees of its base, have seen 1 cases that it doesn't know of, as it begins"):
        make_task(strange, spec_of(told["train"], child.inputs), told)


def test_a_diffusion_on_a_network_on_trees_draws_from_its_own_file_alone(
    make_boosted: Callable[..., TrainingRun],
    shipped_diffusion: dict[str, Any],
    places: Places,
    trees: Path,
    cohort: Any,
) -> None:
    run = make_boosted()
    train(run, places, fresh=False, tell=quiet)
    base = places.out / "checkpoints/best.ckpt"
    block = {
        **shipped_diffusion,
        **{key: run.recipe.model_dump()[key] for key in ("sampling", "network", "fit", "inputs")},
    }
    block["predict"] = {**block["predict"], "samples": 2, "steps": 1, "sampler": "euler"}
    recipe = load_recipe(block, {}, "dose_diffusion")
    other = replace(run, model="dose_diffusion", recipe=recipe, family=make_family(recipe, base))
    out = places.out.with_name("diffusion")
    train(other, replace(places, out=out), fresh=False, tell=quiet)
    trees.unlink()
    base.unlink()
    arrays = open_predictor(out / "checkpoints/best.ckpt", recipe).predict(cohort.open("test")[0])
    assert np.isfinite(arrays["dose_gy"]).all()
    assert load_checkpoint(out / "checkpoints/best.ckpt", type(recipe.trained_part())).spec.told


def test_a_boosted_prior_without_trees_is_refused_and_so_are_trees_that_nobody_asked_for(
    make_recipe: Callable[..., Recipe], trees: Path
) -> None:
    with pytest.raises(BadInput, match="name it under `bases`"):
        make_family(make_recipe({"prior": "boosted"}), None)
    with pytest.raises(BadInput, match="take it out"):
        make_family(make_recipe(), trees)
    with pytest.raises(NotReady, match="no such checkpoint"):
        make_family(make_recipe({"prior": "boosted"}), trees.with_name("none.ckpt"))


def test_a_model_on_trees_that_were_not_asked_says_so(make_boosted: Callable[..., TrainingRun], cohort: Any) -> None:
    case = cohort.open()[0]
    with pytest.raises(NotReady, match="stands on boosted trees, which were not asked"):
        read_told(case, case.whole)
