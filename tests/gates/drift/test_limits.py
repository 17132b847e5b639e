"""Each limit of drift and of probes: just inside passes, just outside is named; what is no number never passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol
from doseledger.gates.drift.case_inputs import measure_file, measure_inputs
from doseledger.gates.drift.judge import _judge_features, _judge_image, _mean_shares, judge_cases
from doseledger.gates.drift.metadata import _frequent
from doseledger.gates.drift.probes import ProbeScore, images_needed, judge_score
from doseledger.gates.drift.stacks import region_features
from doseledger.gates.drift.statistics import _fit, ks_p_value, learn_reference, measure_distances, psi_of_values
from doseledger.gates.features import _hottest_gy
from doseledger.gates.limits import DriftLimits, load_thresholds

NO_NUMBERS = [math.nan, math.inf, -math.inf]


@pytest.fixture
def limits(repository: Path) -> DriftLimits:
    """The limits that ship."""
    return load_thresholds(Layout(repository, "prostate")).drift


def case_row(**changes: Any) -> dict[str, Any]:
    plain = {"case_id": "case_0001", "distance": 1.0, "ratio": 0.5, "features": {}, "changed": {}, "missing": []}
    return plain | changes


@pytest.mark.parametrize(
    ("ratio", "severity"),
    [(0.999, ""), (1.001, "warning"), (1.499, "warning"), (1.501, "error"), *((v, "error") for v in NO_NUMBERS)],
)
def test_a_case_may_be_half_again_as_far_as_the_farthest(ratio: float, severity: str, limits: DriftLimits) -> None:
    found = judge_cases([case_row(ratio=ratio)], limits)
    assert [(f.gate, f.severity) for f in found] == ([("drift_far", severity)] if severity else [])


@pytest.mark.parametrize(
    ("p_value", "psi", "gates"),
    [
        (0.0101, 0.49, []), (0.0099, 0.49, ["drift_feature"]), (0.5, 0.51, ["drift_psi"]), (math.nan, math.nan, []),
        (math.inf, 0.1, ["drift_feature"]), (-math.inf, 0.1, ["drift_feature"]), (0.5, math.inf, ["drift_psi"]),
        (0.5, -math.inf, ["drift_psi"]),
    ],
)  # fmt: skip
def test_a_feature_may_be_distributed_otherwise_once_in_a_hundred_batches(
    p_value: float, psi: float, gates: list[str], limits: DriftLimits
) -> None:
    # NaN stands where a side has too few cases, which a warning of its own tells.
    row = {"feature": "x", "reference": 1.0, "new": 2.0, "ks_p_adjusted": p_value, "psi": psi, "psi_limit": 0.5}
    assert [finding.gate for finding in _judge_features([row], limits)] == gates


@pytest.mark.parametrize(
    ("psi", "is_kept"), [(0.0999, True), (0.1001, False), *((value, False) for value in NO_NUMBERS)]
)
def test_an_image_keeps_its_limit(psi: float, is_kept: bool, limits: DriftLimits) -> None:
    assert (limits.hu_psi, limits.psi) == (0.1, 0.25)
    assert (_judge_image({"psi": psi, "limit": limits.hu_psi, "unit": "HU"}) == []) is is_kept


@pytest.mark.parametrize(
    ("auc", "severity"),
    [(0.649, ""), (0.651, "warning"), (0.799, "warning"), (0.801, "error"), *((v, "error") for v in NO_NUMBERS)],
)
def test_a_probe_may_see_next_to_nothing(auc: float, severity: str, repository: Path) -> None:
    limits = load_thresholds(Layout(repository, "prostate")).probes
    found = judge_score("the border", ProbeScore(auc, 0.5, 100, 100, 42), limits)
    assert [(f.gate, f.severity) for f in found] == ([("probe", severity)] if severity else [])


@pytest.mark.parametrize(("n_independent", "is_told"), [(42, False), (41, True)])
def test_a_probe_of_few_images_says_so(n_independent: int, is_told: bool, repository: Path) -> None:
    limits = load_thresholds(Layout(repository, "prostate")).probes
    found = judge_score("the border", ProbeScore(0.5, 0.5, 100, n_independent, 42), limits)
    assert [f.gate for f in found] == (["probe_small"] if is_told else [])


# What is not there is neither near nor far, and must not pass for it.


def table(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    columns = {
        "ct_median_body_hu": rng.standard_normal(n), "Bowel_volume_cc": 100 + rng.standard_normal(n),
        "Bowel_present": np.ones(n), "n_fractions": np.full(n, 28.0),
    }  # fmt: skip
    return pd.DataFrame(columns, index=[f"case_{i:04d}" for i in range(n)])


@pytest.mark.parametrize("name", ["ct_median_body_hu", "n_fractions"])
def test_what_every_training_case_has_and_a_new_one_lacks_is_an_error(name: str, limits: DriftLimits) -> None:
    (row,) = measure_distances(learn_reference(table(20)), table(1).assign(**{name: math.nan}))
    assert row["missing"] == [name]
    (finding,) = [f for f in judge_cases([row], limits) if f.gate == "drift_missing"]
    assert finding.severity == "error"
    assert f"case_0000: there is no {name}, which every training case has" in finding.message


def test_what_goes_with_an_absent_structure_is_told_once_as_its_absence(limits: DriftLimits) -> None:
    new = table(1).assign(Bowel_volume_cc=math.nan, Bowel_present=0.0)
    (row,) = measure_distances(learn_reference(table(20)), new)
    assert (row["missing"], row["changed"]) == ([], {"Bowel_present": 0.0})


def test_a_case_with_an_empty_body_can_not_be_measured(
    healthy: Callable[[int], Case], protocol: Protocol, tmp_path: Path
) -> None:
    case = healthy(1)
    assert measure_inputs(case, protocol)["ct_median_body_hu"] == pytest.approx(30.0, abs=30.0)
    replace(case, body=np.zeros_like(case.body)).save(tmp_path / "case_0001.npz")
    with pytest.raises(BadCase, match="case_0001: the body is empty"):
        measure_file(tmp_path / "case_0001.npz", protocol)


@pytest.mark.parametrize(("spread", "varies"), [(0.9e-6, False), (1.1e-6, True)])
def test_a_feature_varies_from_the_millionth_of_its_size_on(spread: float, varies: bool) -> None:
    rows = table(8).assign(body_cc=20000.0)
    rows.loc["case_0000", "body_cc"] += spread * 20000.0
    assert ("body_cc" in learn_reference(rows).columns) is varies


def test_a_cohort_of_copies_knows_no_distance() -> None:
    with pytest.raises(BadInput, match="8 training cases are alike in every feature"):
        learn_reference(pd.DataFrame({"x": np.ones(8)}))


@pytest.mark.parametrize("by", [0.005, 0.02])
def test_a_spread_below_a_hundredth_of_a_feature_counts_as_one(by: float) -> None:
    # All spread of the first feature is far below a voxel's; a new case that is off by half a hundredth is near.
    rng = np.random.default_rng(1)
    known = pd.DataFrame({"volume_cc": 100.0 + 1e-3 * rng.standard_normal(40), "x": rng.standard_normal(40)})
    (row,) = measure_distances(learn_reference(known), pd.DataFrame({"volume_cc": [100.0 * (1 + by)], "x": [0.0]}))
    assert row["features"]["volume_cc"] == pytest.approx(by / 0.01, rel=0.01)


# From how many values on there is something to compare.


@pytest.mark.parametrize(("n_known", "n_new", "is_told"), [(5, 5, True), (4, 5, False), (5, 4, False)])
def test_five_values_are_a_distribution(n_known: int, n_new: int, is_told: bool) -> None:
    assert math.isfinite(ks_p_value(np.arange(n_known) + 0.0, np.arange(n_new) + 0.0)) is is_told
    assert math.isfinite(psi_of_values(np.arange(20.0), np.arange(n_new) + 0.0)[0]) is (n_new >= 5)


@pytest.mark.parametrize(("n_cases", "n_bins"), [(7, 0), (8, 2), (11, 2), (12, 3), (39, 9), (40, 10), (44, 10)])
def test_a_bin_has_four_cases_and_a_feature_ten_bins_at_most(n_cases: int, n_bins: int) -> None:
    assert psi_of_values(np.arange(n_cases) + 0.0, np.arange(5.0))[1] == n_bins


@pytest.mark.parametrize(("n_cases", "is_known"), [(4, False), (5, True)])
def test_five_cases_are_a_cohort(n_cases: int, is_known: bool) -> None:
    rows = table(n_cases)
    if is_known:
        assert "ct_median_body_hu" in learn_reference(rows).columns
        return
    with pytest.raises(BadInput, match="4 training cases are too few to know a cohort by; wanted 5 at least"):
        learn_reference(rows)


@pytest.mark.parametrize(("n_patients", "is_asked"), [(4, False), (5, True)])
def test_a_label_of_five_patients_is_asked_about(n_patients: int, is_asked: bool) -> None:
    # Twice as many cases: a patient counts once.
    patients = np.repeat([f"patient_{i}" for i in range(n_patients)], 2)
    assert set(_frequent(np.full(2 * n_patients, "A"), patients).tolist()) == {is_asked}


@pytest.mark.parametrize(("auc", "share", "n"), [(0.65, 0.5, 42), (0.65, 0.1, 113), (0.8, 0.5, 11), (0.8, 0.1, 29)])
def test_chance_exceeds_an_auc_once_in_twenty_draws(auc: float, share: float, n: int) -> None:
    # 1.645 standard deviations of the AUC of two like distributions, from both sides.
    def spread(images: int) -> float:
        return math.sqrt((images + 1) / (12.0 * share * (1.0 - share))) / images

    assert images_needed(auc, share) == n
    assert 1.644 * spread(n) < auc - 0.5 < 1.646 * spread(n - 1)


@pytest.mark.parametrize(("share", "kept"), [(0.9e-4, 1e-4), (1.1e-4, 1.1e-4)])
def test_a_share_counts_as_a_ten_thousandth_at_the_least(share: float, kept: float) -> None:
    found = _mean_shares(np.array([[share, 1.0 - share]] * 3))
    assert found[0] == pytest.approx(kept, rel=1e-3)


@pytest.mark.parametrize(("region", "place", "is_seen"), [
    ("core", 9, False), ("core", 10, True), ("core", 29, True), ("core", 30, False),
    ("border", 3, True), ("border", 4, False), ("border", 35, False), ("border", 36, True),
])  # fmt: skip
def test_the_core_is_the_middle_half_and_the_border_a_tenth_at_each_end(region: str, place: int, is_seen: bool) -> None:
    images = np.zeros((2, 40, 40))
    images[1, place, 15:25] = 1.0
    described = region_features(images, region)
    assert bool((described[0] != described[1]).any()) is is_seen


@pytest.mark.parametrize(("hot_cc", "gy"), [(1.9, 10.0), (2.0, 70.0)])
def test_the_hottest_two_cc_count(hot_cc: float, gy: float) -> None:
    # Voxels of 0.1 cc.
    dose = np.full(100, 10.0, np.float32)
    dose[: round(hot_cc / 0.1)] = 70.0
    assert _hottest_gy(dose, 0.1) == gy


def test_a_feature_that_no_case_has_lies_at_0_with_a_spread_of_1() -> None:
    centre, scale, _ = _fit(np.array([[1.0, np.nan, 5.0], [2.0, np.nan, 5.0], [6.0, np.nan, 5.0]]))
    assert centre.tolist() == [2.0, 0.0, 5.0]
    # Where all are alike the size stands for the spread.
    assert scale[1:].tolist() == [1.0, 5.0]
