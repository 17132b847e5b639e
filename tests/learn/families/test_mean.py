"""A mean of models: what its parts tell, in one file, refused on cases that a part has seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.boosting import FEW, quiet
from learn.training.test_parent import MakeRun, move, quietly, trained

from doseledger.core.case import Case
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.core.settings import Settings
from doseledger.learn.families.trees import make_family as make_trees
from doseledger.learn.kinds import load_recipe, make_family, open_as, open_checkpoint, open_predictor
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.recipes.mean import MeanRecipe
from doseledger.learn.run import Parent, TrainingRun
from doseledger.learn.training.checkpoint import read_seen
from doseledger.learn.training.probe import probe_steps
from doseledger.learn.training.train import Places, train

SHORT = {"fit.max_epochs": 1}


@dataclass(frozen=True)
class Parts:
    """Checkpoints of trees and of a network, and the runs that made them."""

    runs: dict[str, TrainingRun]
    files: dict[str, Path]

    def again(self, name: str, places: Places, **changes: Any) -> None:
        """Train a part anew."""
        out = self.files[name].parents[1]
        train(replace(self.runs[name], **changes), replace(places, out=out), fresh=True, tell=quiet)


@pytest.fixture
def parts(settings: Settings, make_run: MakeRun, places: Places) -> Parts:
    block = settings.model("dose_trees")
    recipe = load_recipe(block, settings.model_base, "dose_trees").model_copy(update={"boosting": FEW})
    grown = TrainingRun("dose_trees", recipe, 0.1, 1, 0, 0, {"ok": True}, {}, make_trees(recipe, None))
    runs = {"dose_trees": grown, "dose_unet": make_run(SHORT)}
    files = {name: places.out.with_name(name) / "checkpoints/best.ckpt" for name in runs}
    made = Parts(runs, files)
    for name in runs:
        made.again(name, places)
    return made


def mean_recipe(settings: Settings, **weights: float) -> MeanRecipe:
    weights = weights or {"dose_trees": 1.0, "dose_unet": 1.0}
    found = load_recipe({"kind": "mean", "weights": weights}, settings.model_base, "dose_mean")
    assert isinstance(found, MeanRecipe)
    return found


@pytest.fixture
def make_mean(settings: Settings, parts: Parts) -> Callable[..., TrainingRun]:
    """Factory of runs of a mean: make_mean(dose_trees=2.0, dose_unet=1.0)."""

    def make(**weights: float) -> TrainingRun:
        recipe = mean_recipe(settings, **weights)
        family = make_family(recipe, None, parts.files)
        return TrainingRun("dose_mean", recipe, 0.1, 1, 0, 0, {"ok": True}, {}, family, cohort="phantom")

    return make


@pytest.mark.parametrize("weights", [{}, {"dose_trees": 3.0, "dose_unet": 1.0}])
def test_a_mean_tells_the_numpy_mean_of_what_its_parts_tell(
    make_mean: Callable[..., TrainingRun], parts: Parts, places: Places, cohort: Any, weights: dict[str, float]
) -> None:
    run = make_mean(**weights)
    train(run, places, fresh=False, tell=quiet)
    path = places.out / "checkpoints/best.ckpt"
    first = path.read_bytes()
    predictor, errors = open_predictor(path, run.recipe), []
    known = {name: open_predictor(file, parts.runs[name].recipe) for name, file in parts.files.items()}
    for case in (*cohort.open(), *cohort.open("val"), *cohort.open("test")):
        doses = [known[name].predict(case)["dose_gy"] for name in ("dose_trees", "dose_unet")]
        wanted = np.average(doses, axis=0, weights=list(weights.values()) or None)
        found = predictor.predict(case)["dose_gy"]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-5)
        assert found.dtype == np.float32
        if case.case_id == "case_0004":
            whole = Case.load(case.file.path)
            assert whole.dose_gy is not None
            errors.append(np.abs(found - whole.dose_gy)[whole.body & whole.valid_dose].mean())
    history = pd.read_csv(places.out / "history.csv")
    assert history["val_mae_valid_dose_gy"].tolist() == pytest.approx(errors, rel=1e-4)
    train(run, places, fresh=True, tell=quiet)
    assert path.read_bytes() == first
    # One file predicts: its parts may be gone.
    for file in parts.files.values():
        file.unlink()
    again = open_as(path, predictor.settings)
    np.testing.assert_array_equal(again.predict(case)["dose_gy"], found)


def test_a_mean_knows_the_cases_of_its_parts_and_names_their_files(
    make_mean: Callable[..., TrainingRun], parts: Parts, places: Places, tmp_path: Path
) -> None:
    run = make_mean()
    train(run, places, fresh=False, tell=quiet)
    path = places.out / "checkpoints/best.ckpt"
    assert set(read_seen(path, "phantom")) == {f"case_000{n}" for n in range(1, 5)}
    record = json.loads((places.out / "run.json").read_text())
    assert record["parts"] == {name: sha256_of_file(file) for name, file in parts.files.items()}
    predictor = open_predictor(path, run.recipe)
    predict_part(predictor, SplitPart(places.cases, places.splits, "test", 0, 0), tmp_path / "out", tell=quiet)
    with np.load(tmp_path / "out/case_0005.npz") as npz:
        assert json.loads(str(npz["meta"]))["model"] == "dose_mean"


@pytest.mark.parametrize("name", ["dose_trees", "dose_unet"])
def test_a_case_that_any_part_has_seen_is_refused_among_those_that_judge(
    make_mean: Callable[..., TrainingRun], parts: Parts, places: Places, name: str
) -> None:
    parts.again(name, move(places, case_0005="train", case_0001="test"))
    with pytest.raises(BadInput, match=f"part {name} was trained on other cases: without case_0001, with case_0005"):
        train(make_mean(), places, fresh=False, tell=quiet)
    parts.again(name, move(places, case_0005="val", case_0004="test"))
    with pytest.raises(BadInput, match=f"part {name} was selected on other cases: without case_0004, with case_0005"):
        train(make_mean(), places, fresh=False, tell=quiet)


def test_what_a_part_began_with_counts_as_seen(
    make_mean: Callable[..., TrainingRun], make_run: MakeRun, parts: Parts, places: Places
) -> None:
    other = move(places, case_0005="train", case_0001="test")
    parent: Parent = trained(make_run(SHORT), other)
    # Its own splits let the child pass; the mean's test case was its parent's to learn from.
    mild = move(places, case_0005="train")
    quietly(make_run(SHORT, parent=parent, cohort="phantom"), replace(mild, out=parts.files["dose_unet"].parents[1]))
    kept = open_checkpoint(parts.files["dose_unet"])
    assert "case_0005" in kept.all_trained_on
    run = make_mean()
    assert [line.name for line in run.ancestors] == ["dose_unet@v0.1.0"]
    with pytest.raises(BadInput, match=r"dose_unet@v0\.1\.0, .* was trained on case_0005, now among the test cases"):
        train(run, places, fresh=False, tell=quiet)


def test_preflight_sees_the_error_of_no_dose_fall_part_by_part(
    make_mean: Callable[..., TrainingRun], places: Places
) -> None:
    found = probe_steps(make_mean(), places.cases, places.splits, n_steps=20)
    assert found.finite
    assert found.n_steps == 2  # as many as parts
    assert found.last_loss < 0.7 * found.first_loss


def test_a_mean_over_turns_of_a_network_that_sees_a_place_is_refused(settings: Settings, parts: Parts) -> None:
    recipe = mean_recipe(settings)
    turned = recipe.model_copy(update={"predict": recipe.predict.model_copy(update={"mirror_average": "beams"})})
    with pytest.raises(BadInput, match=r"dose_unet: predict\.mirror_average beams: inputs\.place targets is another"):
        make_family(turned, None, parts.files)


def test_a_part_that_is_not_there_and_one_that_is_not_weighed_are_told(settings: Settings, parts: Parts) -> None:
    recipe, absent = mean_recipe(settings), Path("nowhere/best.ckpt")
    with pytest.raises(NotReady, match=r"part dose_unet of a mean is not trained: no nowhere/best\.ckpt"):
        make_family(recipe, None, {**parts.files, "dose_unet": absent})
    with pytest.raises(BadInput, match="weighs dose_trees, which is no part of it"):
        make_family(recipe, None)
    with pytest.raises(BadInput, match="bases: a mean starts from nothing"):
        make_family(recipe, absent, parts.files)
    with pytest.raises(BadInput, match=r"weights.*at least 2 items"):
        mean_recipe(settings, dose_unet=1.0)


def test_a_mean_may_be_a_part_and_a_segmentation_may_not(
    make_mean: Callable[..., TrainingRun],
    make_segmentation_run: MakeRun,
    settings: Settings,
    parts: Parts,
    places: Places,
    cohort: Any,
) -> None:
    train(make_mean(), places, fresh=False, tell=quiet)
    inner = places.out / "checkpoints/best.ckpt"
    recipe = mean_recipe(settings, inner=2.0, dose_unet=1.0)
    family = make_family(recipe, None, {**parts.files, "inner": inner})
    run = replace(make_mean(), model="outer", recipe=recipe, family=family)
    outer = replace(places, out=places.out.with_name("outer"))
    train(run, outer, fresh=False, tell=quiet)
    case = cohort.open("test")[0]
    doses = [
        open_predictor(file, parts.runs[name].recipe).predict(case)["dose_gy"] for name, file in parts.files.items()
    ]
    found = open_predictor(outer.out / "checkpoints/best.ckpt", recipe).predict(case)["dose_gy"]
    np.testing.assert_allclose(found, (doses[0] + 2 * doses[1]) / 3, rtol=1e-5, atol=1e-4)
    drawn = replace(places, out=places.out.with_name("seg"))
    train(make_segmentation_run({"fit.max_epochs": 1}), drawn, fresh=False, tell=quiet)
    with pytest.raises(BadInput, match="seg is of kind segmentation, which can't be a part of a mean"):
        make_family(recipe, None, {**parts.files, "inner": drawn.out / "checkpoints/best.ckpt"})
