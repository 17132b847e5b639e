"""What is made of a model's word: the centre of draws, samples as numbers, doses on cases, means, and the NPZ."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from doseledger.core.errors import BadCase
from doseledger.learn.predict import predictor as predictor_module
from doseledger.learn.predict.draws import Drawn, central_dose, pack_samples
from doseledger.learn.predict.mean import mean_dose
from doseledger.learn.predict.predictor import Opener, Predictor, _describe, check_spacing, dose_on_case, predictor_of

SHAPE = (6, 9, 8)


@pytest.fixture
def defined() -> np.ndarray:
    found = np.zeros(SHAPE, bool)
    found[1:5, 1:8, 2:7] = True
    return found


def test_the_centre_of_draws_is_their_mean_or_their_median_smoothed(defined: np.ndarray) -> None:
    draws = np.random.default_rng(1).gamma(0.5, 20.0, (5, *SHAPE)).astype(np.float32) * defined
    assert central_dose(draws, defined, (3.0, 4.0, 5.0), "mean") == pytest.approx(draws.mean(axis=0), rel=1e-6)
    found = central_dose(draws, defined, (3.0, 4.0, 5.0), "median")
    skew = (np.median(draws, axis=0) - draws.mean(axis=0)) * defined
    # 20 mm of neighbourhood, three widths of it, over the voxels where a dose is defined.
    sigma = [20.0 / 3.0, 20.0 / 4.0, 20.0 / 5.0]
    smooth, share = (gaussian_filter(v.astype(np.float32), sigma, truncate=3.0) for v in (skew, defined))
    wanted = np.where(defined, draws.mean(axis=0) + smooth / np.maximum(share, 1e-9), 0.0)
    assert found == pytest.approx(np.maximum(wanted, 0.0), abs=1e-3)
    assert found.dtype == np.float32
    assert (wanted[defined] < 0).any()
    assert found.min() == 0.0


def test_samples_are_kept_where_a_dose_is_defined_in_steps_of_2_mgy(defined: np.ndarray) -> None:
    samples = np.random.default_rng(2).uniform(0, 80, (3, *SHAPE)).astype(np.float32)
    samples[:, 2, 3, 4] = (200.0, 0.0009, 0.0011)
    dose = np.full(SHAPE, 7.0, np.float32)
    found = pack_samples(Drawn(dose, samples), defined)
    assert found["dose_gy"] is dose
    assert found["dose_sd_gy"] == pytest.approx(samples.std(axis=0, ddof=1), rel=1e-5)
    assert (found["dose_sd_gy"].dtype, found["samples"].dtype, found["sampled"].dtype) == (
        np.float32,
        np.uint16,
        np.uint8,
    )
    assert np.array_equal(found["sampled"] > 0, defined)
    assert float(found["sample_step_gy"]) == 0.002
    capped = np.minimum(samples[:, defined], 131.07)
    assert found["samples"] * 0.002 == pytest.approx(capped, abs=1.01e-3)
    assert found["samples"].max() == 65535


def case_of(**changes: Any) -> Any:
    values = {
        "case_id": "case_0001",
        "shape_zyx": (2, 3, 4),
        "spacing_mm": (3.0, 2.0, 1.0),
        "origin_mm": (7.0, 8.0, 9.0),
    }
    return SimpleNamespace(**{**values, **changes}, file=SimpleNamespace(sha256="c" * 64))


def test_a_dose_of_a_box_is_put_on_the_case_in_gy(monkeypatch: pytest.MonkeyPatch) -> None:
    known = np.ones((2, 3, 4), bool)
    known[0, 0, 1] = False
    monkeypatch.setattr(predictor_module, "defined_voxels", lambda case: known)
    dose = np.arange(2 * 4 * 4, dtype=np.float32).reshape(1, 2, 4, 4)
    # The box begins a line before the case, and two columns into it; it ends beyond it.
    found = dose_on_case(case_of(), dose, ((0, -1, 2), (2, 4, 4)), 2.0)
    wanted = np.zeros((1, 2, 3, 4))
    wanted[..., 2:] = 2.0 * dose[:, :, 1:, :2]
    assert found.tolist() == wanted.tolist()
    inside = dose_on_case(
        case_of(), np.full((1, 2, 4, 6), -3.0, np.float32) + 4 * known[0, 0, 1], ((0, 0, 0), (2, 4, 6)), 2.0
    )
    assert not inside.any()
    whole = dose_on_case(case_of(), np.full((2, 4, 6), 3.0, np.float32), ((0, 0, 0), (2, 4, 6)), 2.0)
    assert whole.tolist() == (6.0 * known).tolist()
    assert whole.dtype == np.float32
    broken = np.full((2, 4, 6), np.nan, np.float32)
    with pytest.raises(BadCase, match="case_0001: the prediction is not finite"):
        dose_on_case(case_of(), broken, ((0, 0, 0), (2, 4, 6)), 2.0)
    # What lies beyond the case says nothing of it.
    broken[:, :3, :4] = 1.0
    assert dose_on_case(case_of(), broken, ((0, 0, 0), (2, 4, 6)), 2.0).max() == 2.0


@pytest.mark.parametrize(("spacing", "fits"), [
    ((3.0, 2.0, 1.0), True), ((2.41, 1.61, 0.81), True), ((3.59, 2.99, 1.79), True), ((2.39, 2.0, 1.0), False),
    ((3.0, 1.59, 1.0), False), ((3.0, 2.0, 0.79), False), ((3.61, 2.0, 1.0), False), ((3.0, 3.01, 1.0), False),
    ((3.0, 2.0, 1.81), False),
])  # fmt: skip
def test_voxels_lie_within_a_fifth_of_those_of_training(spacing: Any, fits: bool) -> None:
    checkpoint: Any = SimpleNamespace(spacing_range_mm=((3.0, 2.0, 1.0), (3.0, 2.5, 1.5)))
    if fits:
        check_spacing(case_of(spacing_mm=spacing), checkpoint, 0.2)
    else:
        with pytest.raises(BadCase, match="more than 20% outside"):
            check_spacing(case_of(spacing_mm=spacing), checkpoint, 0.2)


def says(value: float) -> Any:
    return SimpleNamespace(predict=lambda case: {"dose_gy": np.full((2, 2), value, np.float32)})


def test_a_mean_weighs_each_part_by_its_name() -> None:
    found = mean_dose({"b": says(10.0), "a": says(40.0), "c": says(999.0)}, {"a": 1.0, "b": 3.0}, case_of())
    assert found.tolist() == [[17.5, 17.5]] * 2
    assert found.dtype == np.float32


def predictor(**changes: Any) -> Predictor:
    checkpoint: Any = SimpleNamespace(
        model="dose_unet", epoch=7, all_trained_on={"a": "2", "b": "1", "c": "2"}, all_selected_on={"d": "4", "e": "3"}
    )
    return Predictor(checkpoint, "f" * 64, {"overlap": 0.5}, lambda case: {}, **changes)


def test_the_npz_of_a_prediction_says_where_it_lies_and_what_made_it(tmp_path: Path) -> None:
    predictor().save(tmp_path / "a.npz", case_of(), {"dose_gy": np.ones((1, 1, 2), np.float32)})
    with np.load(tmp_path / "a.npz") as npz:
        assert sorted(npz) == ["dose_gy", "meta", "origin_mm", "spacing_mm"]
        assert npz["spacing_mm"].tolist() == [3.0, 2.0, 1.0]
        assert npz["origin_mm"].tolist() == [7.0, 8.0, 9.0]
        assert json.loads(str(npz["meta"])) == {
            "case_id": "case_0001", "case_sha256": "c" * 64, "checkpoint_sha256": "f" * 64, "epoch": 7,
            "model": "dose_unet", "selected_on": ["3", "4"], "settings": {"overlap": 0.5}, "trained_on": ["1", "2"],
        }  # fmt: skip
    plain = predictor()
    assert (plain.prior, plain.draws, plain.window_zyx, plain.says_labels) == (None, False, None, False)


def test_what_was_predicted_is_said_in_a_line() -> None:
    dose = np.array([1.0, 71.26], np.float32)
    assert _describe({"dose_gy": dose}) == "highest dose 71.3 Gy"
    told = _describe({"dose_gy": dose, "undeliverable_gy": np.asarray(1.234)})
    assert told == "highest dose 71.3 Gy, 1.23 Gy from what was told"
    labels = {"labels": np.array([0, 1, 2, 2]), "structure_names": np.array(["A", "B", "C"])}
    assert _describe(labels) == "3 voxels of 3 structures"


def test_a_process_opens_the_model_that_it_opened_last_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor_module, "_opened", [])
    asked: list[Any] = []

    def open_one(path: Path, recipe: Any) -> Any:
        asked.append((path, recipe))
        return f"{path} {recipe}"

    plain, other = Opener(open_one, Path("a"), 1), Opener(open_one, Path("b"), 2, lambda found: f"{found}, more")
    assert [predictor_of(one) for one in (plain, plain, other, other, plain)] == [
        "a 1",
        "a 1",
        "b 2, more",
        "b 2, more",
        "a 1",
    ]
    assert asked == [(Path("a"), 1), (Path("b"), 2), (Path("a"), 1)]
    held = predictor()
    assert predictor_of(held) is held
