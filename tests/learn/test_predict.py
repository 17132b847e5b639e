"""Prediction of whole cases: the grid, what is proven of it, and what goes with it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from doseledger.core.case import Case
from doseledger.core.files import sha256_of_file
from doseledger.learn.predict import SplitPart, predict
from doseledger.learn.recipe import PredictRecipe
from doseledger.learn.train import Places, TrainingRun, train


def test_a_prediction_is_on_the_cases_grid_and_says_what_it_was_made_from(
    make_run: Callable[..., TrainingRun], places: Places
) -> None:
    train(make_run({"fit.max_epochs": 1}), places, fresh=False, tell=lambda line: None)
    out, lines = places.out.with_name("predictions"), []
    recipe = PredictRecipe(overlap=0.25, windows_at_once=2, mirror_average=True)
    best = places.out / "checkpoints" / "best.ckpt"
    predict(best, SplitPart(places.cases, places.splits, "test", 0, 0), out, recipe=recipe, tell=lines.append)
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
