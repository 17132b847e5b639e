"""Prediction of whole cases: the grid, what is proven of it, and what goes with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.core.grid import Grid
from doseledger.core.pool.cluster import local
from doseledger.learn.data.inputs import CaseFile, OpenCase, open_case, spec_of
from doseledger.learn.networks.with_prior import dose_network
from doseledger.learn.predict.cases import Model, load_model, open_predictor, predict_case
from doseledger.learn.predict.predictor import Opener, SplitPart, _describe, predict_part
from doseledger.learn.recipes.dose import PredictRecipe, Recipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.checkpoint import Checkpoint, save_checkpoint
from doseledger.learn.training.train import Places, train

PLAIN = PredictRecipe(overlap=0.25, windows_at_once=2, mirror_average=False, project=False, spacing_tolerance=0.25)
MIRRORED = PLAIN.model_copy(update={"mirror_average": True})


@pytest.fixture
def model(cohort: Any, make_recipe: Callable[..., Recipe], tmp_path: Path) -> Model:
    """A model with random weights, and a condition that matters."""
    recipe = make_recipe({"fit.max_epochs": 1, "prior": "none"}).trained_part()
    opened = cohort.open()
    spec = spec_of(opened, recipe.inputs)
    torch.manual_seed(3)
    network = dose_network(recipe, spec)
    for name, weight in network.named_parameters():
        if "film" in name:
            torch.nn.init.normal_(weight, std=0.3)
    path = tmp_path / "best.ckpt"
    save_checkpoint(
        path,
        Checkpoint(
            model="dose_unet",
            recipe=recipe,
            settings={},
            structure_names=spec.structure_names,
            target_names=spec.target_names,
            spacing_range_mm=(opened[0].spacing_mm, opened[0].spacing_mm),
            trained_on={},
            selected_on={},
            epoch=1,
            scores={},
            weights=network.state_dict(),
        ),
    )
    return load_model(path)


def saved(case: Case, folder: Path) -> OpenCase:
    path = folder / f"{case.case_id}.npz"
    case.save(path)
    return open_case(CaseFile(case.case_id, path, sha256_of_file(path)))


def with_bias(model: Model, bias: float) -> Model:
    """The same model with another bias of its last layer."""
    with torch.no_grad():
        model.network.head.dose.bias.fill_(bias)  # type: ignore[union-attr, operator]
    return model


def test_a_prediction_is_on_the_cases_grid_and_says_what_it_was_made_from(
    make_run: Callable[..., TrainingRun], places: Places
) -> None:
    train(make_run({"fit.max_epochs": 1}), places, fresh=False, tell=lambda line: None)
    out, lines = places.out.with_name("predictions"), []
    best = places.out / "checkpoints" / "best.ckpt"
    part = SplitPart(places.cases, places.splits, "test", 0, 0)
    predict_part(open_predictor(best, MIRRORED), part, out, tell=lines.append)
    case = Case.load(places.cases / "case_0005.npz")
    with np.load(out / "case_0005.npz") as npz:
        dose_gy, meta = npz["dose_gy"], json.loads(str(npz["meta"]))
        assert tuple(npz["spacing_mm"]) == case.grid.spacing_mm
        assert tuple(npz["origin_mm"]) == case.grid.origin_mm
    assert dose_gy.dtype == np.float32
    assert dose_gy.shape == case.grid.shape_zyx
    assert dose_gy.min() >= 0
    assert not dose_gy[~case.body].any()
    assert dose_gy[case.mask("PTV70")].mean() > 10
    assert meta["case_sha256"] == sha256_of_file(places.cases / "case_0005.npz")
    assert meta["checkpoint_sha256"] == sha256_of_file(best)
    assert meta["trained_on"] == sorted(sha256_of_file(places.cases / f"case_000{n}.npz") for n in (1, 2, 3))
    assert meta["selected_on"] == [sha256_of_file(places.cases / "case_0004.npz")]
    assert lines[0].startswith("[1/1] case_0005: highest dose")


def test_the_same_prediction_has_the_same_bytes(model: Model, cohort: Any, tmp_path: Path) -> None:
    part = SplitPart(cohort.cases, cohort.splits, "test", 0, 0)
    for name in ("one", "two"):
        predict_part(open_predictor(tmp_path / "best.ckpt", PLAIN), part, tmp_path / name, tell=lambda line: None)
    assert (tmp_path / "one/case_0005.npz").read_bytes() == (tmp_path / "two/case_0005.npz").read_bytes()


def test_another_process_predicts_the_same_bytes(model: Model, cohort: Any, tmp_path: Path) -> None:
    part = SplitPart(cohort.cases, cohort.splits, "test", 0, 0)
    opener = Opener(open_predictor, tmp_path / "best.ckpt", PLAIN)
    told: list[str] = []
    predict_part(opener, part, tmp_path / "here", tell=told.append)
    predict_part(opener, part, tmp_path / "there", scale=local(1), tell=told.append)
    assert (tmp_path / "here/case_0005.npz").read_bytes() == (tmp_path / "there/case_0005.npz").read_bytes()
    assert [line.split(",")[0] for line in told] == [told[0].split(",")[0]] * 2


def test_dose_is_never_negative_and_zero_where_none_is_defined(model: Model, cohort: Any, tmp_path: Path) -> None:
    loaded = Case.load(cohort.cases / "case_0005.npz")
    valid = loaded.valid_dose.copy()
    valid[:, :20] = False
    case = saved(replace(loaded, valid_dose=valid), tmp_path / "cut")
    high = predict_case(with_bias(model, 3.0), case, PLAIN)
    assert not high[~valid].any()
    assert (high[valid & loaded.body] > 0).all()
    assert predict_case(with_bias(model, -50.0), case, PLAIN).max() == 0.0


def test_a_mirrored_patient_gets_the_mirrored_dose_when_both_sides_are_averaged(
    model: Model, cohort: Any, tmp_path: Path
) -> None:
    loaded = Case.load(cohort.cases / "case_0005.npz")
    order = [loaded.structure_names.index(n) for n in loaded.structure_names]
    left, right = (loaded.structure_names.index(name) for name in ("Femur_L", "Femur_R"))
    order[left], order[right] = right, left
    flip = {name: np.ascontiguousarray(getattr(loaded, name)[..., ::-1]) for name in ("ct_hu", "body", "valid_dose")}
    mirrored = replace(
        loaded,
        **flip,
        masks=np.ascontiguousarray(loaded.masks[order][..., ::-1]),
        sdf_mm=np.ascontiguousarray(loaded.sdf_mm[order][..., ::-1]),
    )
    with_bias(model, 1.0)
    there = predict_case(model, saved(loaded, tmp_path / "there"), MIRRORED)
    back = predict_case(model, saved(mirrored, tmp_path / "back"), MIRRORED)
    np.testing.assert_allclose(back[..., ::-1], there, atol=1e-3)
    assert np.abs(predict_case(model, saved(loaded, tmp_path / "there"), PLAIN) - there).max() > 0.01


def test_a_case_smaller_than_the_patch_is_predicted_whole(model: Model, cohort: Any, tmp_path: Path) -> None:
    loaded = Case.load(cohort.cases / "case_0005.npz")
    part = slice(8, 17), slice(5, 30), slice(10, 31)
    cut: dict[str, Any] = {
        name: np.ascontiguousarray(getattr(loaded, name)[(..., *part)])
        for name in ("ct_hu", "masks", "sdf_mm", "body", "valid_dose", "dose_gy")
    }
    grid = loaded.grid.cropped((8, 5, 10), (9, 25, 21))
    small = saved(replace(loaded, grid=grid, **cut), tmp_path / "small")
    dose_gy = predict_case(with_bias(model, 5.0), small, PLAIN)
    assert dose_gy.shape == (9, 25, 21)
    assert (dose_gy[cut["body"]] > 0).all()


def test_a_model_of_whole_cases_trains_and_what_lies_beyond_its_box_changes_no_dose(
    make_run: Callable[..., TrainingRun], places: Places, tmp_path: Path
) -> None:
    whole = {"sampling.patch_zyx": "case", "sampling.batch_size": 1, "fit.accumulate": 2, "prior": "none"}
    run = make_run({**whole, "fit.max_epochs": 1})
    train(run, places, fresh=False, tell=lambda line: None)
    model = load_model(places.out / "checkpoints/best.ckpt")
    case = Case.load(places.cases / "case_0005.npz")
    inner = np.zeros(case.grid.shape_zyx, dtype=bool)
    inner[6:18, 10:30, 10:38] = True
    case = replace(case, valid_dose=case.valid_dose & inner, body=case.body & inner)
    before = predict_case(model, saved(case, tmp_path), MIRRORED)
    assert before.any()
    beyond = ~inner
    beyond[4:20, 8:32, 8:40] = False
    other = replace(case, ct_hu=np.where(beyond, np.int16(1500), case.ct_hu))
    np.testing.assert_array_equal(predict_case(model, saved(other, tmp_path), MIRRORED), before)


def test_weights_that_are_not_numbers_never_become_a_dose(model: Model, cohort: Any) -> None:
    with pytest.raises(BadCase, match="case_0005: the prediction is not finite"):
        predict_case(with_bias(model, float("nan")), cohort.open("test")[0], PLAIN)


def test_voxels_of_another_size_than_in_training_are_refused(model: Model, cohort: Any, tmp_path: Path) -> None:
    loaded = Case.load(cohort.cases / "case_0005.npz")
    coarse = Grid(loaded.grid.shape_zyx, (6.0, 6.0, 8.0), loaded.grid.origin_mm)
    with pytest.raises(
        BadCase, match=r"case_0005: voxels of \(6\.0, 6\.0, 8\.0\) mm .* ingest the case with the model"
    ):
        predict_case(model, saved(replace(loaded, grid=coarse), tmp_path / "coarse"), PLAIN)


def test_without_a_checkpoint_there_is_nothing_to_predict_with(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no such checkpoint; run train first"):
        open_predictor(tmp_path / "none.ckpt", PLAIN)


@pytest.mark.parametrize(("arrays", "words"), [
    ({"dose_gy": np.array([1.0, 71.26])}, "highest dose 71.3 Gy"),
    ({"dose_gy": np.array([71.26]), "undeliverable_gy": np.float32(0.456)},
     "highest dose 71.3 Gy, 0.46 Gy from what was told"),
    ({"labels": np.array([0, 2, 0, 1, 1]), "structure_names": np.array(["a", "b"])}, "3 voxels of 2 structures"),
])  # fmt: skip
def test_what_was_predicted_is_told_in_a_few_words(arrays: dict[str, np.ndarray], words: str) -> None:
    assert _describe(arrays) == words
