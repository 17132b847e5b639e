"""The challenge's scores on arrays: known answers and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.dosimetry.openkbp_scores import combine_scores, dvh_metrics_gy, score_patient

SHAPE = (8, 8, 8)


@pytest.fixture
def patient() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        "dose": rng.uniform(0, 70, SHAPE),
        "possible": np.arange(512).reshape(SHAPE) < 400,
        "PTV70": np.arange(512).reshape(SHAPE) < 100,
        "Larynx": np.arange(512).reshape(SHAPE) % 7 == 0,
    }


def test_the_dose_score_sums_all_voxels_and_divides_by_the_possible_ones(patient: dict[str, np.ndarray]) -> None:
    score = score_patient(patient["dose"], patient["dose"] + 1.0, {}, patient["possible"], 30.0)
    assert score.dose_gy == pytest.approx(512 / 400)


def test_a_perfect_prediction_scores_zero(patient: dict[str, np.ndarray]) -> None:
    masks = {name: patient[name] for name in ("PTV70", "Larynx")}
    total = combine_scores([score_patient(patient["dose"], patient["dose"], masks, patient["possible"], 30.0)])
    assert (total.dose_score_gy, total.dvh_score_gy, total.n_dvh_pairs) == (0.0, 0.0, 5)


def test_d_0_1_cc_takes_the_voxels_of_100_mm3_and_at_least_one() -> None:
    dose, mask = np.arange(1000.0).reshape(10, 10, 10), np.ones((10, 10, 10), bool)
    found = {volume: dvh_metrics_gy(dose, {"Larynx": mask}, volume)["Larynx", "D_0.1_cc"] for volume in (20.0, 900.0)}
    assert found[20.0] == pytest.approx(np.percentile(dose, 99.5))
    assert found[900.0] == pytest.approx(np.percentile(dose, 99.9))
    tiny = np.zeros_like(mask)
    tiny[0, 0, :3] = True
    assert dvh_metrics_gy(dose, {"Larynx": tiny}, 20.0)["Larynx", "D_0.1_cc"] == 0.0


def test_targets_have_three_metrics_organs_two_and_absent_ones_none(patient: dict[str, np.ndarray]) -> None:
    masks = {"PTV70": patient["PTV70"], "Larynx": patient["Larynx"], "PTV56": np.zeros(SHAPE, bool)}
    found = dvh_metrics_gy(patient["dose"], masks, 30.0)
    assert set(found) == {
        ("Larynx", "D_0.1_cc"), ("Larynx", "mean"), ("PTV70", "D_99"), ("PTV70", "D_95"), ("PTV70", "D_1"),
    }  # fmt: skip
    assert found["PTV70", "D_99"] < found["PTV70", "D_95"] < found["PTV70", "D_1"]


def test_the_dvh_score_weighs_every_pair_alike_not_every_patient(patient: dict[str, np.ndarray]) -> None:
    dose, possible = patient["dose"], patient["possible"]
    one = score_patient(dose, dose + 1.0, {"PTV70": patient["PTV70"]}, possible, 30.0)
    other = score_patient(dose, dose + 3.0, {"Larynx": patient["Larynx"]}, possible, 30.0)
    assert combine_scores([one, other]).dvh_score_gy == pytest.approx((3 * 1.0 + 2 * 3.0) / 5)
    assert math.isnan(combine_scores([score_patient(dose, dose, {}, possible, 30.0)]).dvh_score_gy)


def test_what_cannot_be_scored_is_refused(patient: dict[str, np.ndarray]) -> None:
    dose, possible = patient["dose"], patient["possible"]
    with pytest.raises(BadInput, match="the prediction has"):
        score_patient(dose, dose[1:], {}, possible, 30.0)
    with pytest.raises(BadInput, match="not finite"):
        score_patient(dose, np.full(SHAPE, np.nan), {}, possible, 30.0)
    with pytest.raises(BadInput, match="possible-dose mask is empty"):
        score_patient(dose, dose, {}, np.zeros(SHAPE, bool), 30.0)
    with pytest.raises(BadInput, match="no patients"):
        combine_scores([])
