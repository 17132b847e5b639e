"""Drift of small tables, worked out by hand: PSI, distances, changed and missing features, the shares of an image."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.covariance import LedoitWolf

from doseledger.gates.drift import judge, stacks
from doseledger.gates.drift.judge import compare_features, compare_images
from doseledger.gates.drift.statistics import (
    learn_reference,
    measure_distances,
    measure_left_out,
    psi_by_chance,
    psi_of_values,
)
from doseledger.gates.limits import DriftLimits

LIMITS = DriftLimits(alpha=0.05, psi=0.25, hu_psi=0.1, far_ratio=1.5, source="a test")


def index_of(one: list[float], other: list[float]) -> float:
    return sum((b - a) * math.log(b / a) for a, b in zip(one, other, strict=True))


def test_bins_hold_equal_numbers_of_the_reference_and_half_a_case_each() -> None:
    # 12 cases make three bins, which end at 11/3 and 22/3; a value on an end falls into the bin above it.
    value, n_bins = psi_of_values(np.arange(12.0), np.array([0.0, 1.0, 11 / 3, 5.0, 9.0, 10.0, 11.0]))
    assert n_bins == 3
    reference = [4.5 / 13.5, 4.5 / 13.5, 4.5 / 13.5]
    assert value == pytest.approx(index_of(reference, [2.5 / 8.5, 2.5 / 8.5, 3.5 / 8.5]))
    assert [psi_of_values(np.arange(float(n)), np.arange(5.0))[1] for n in (7, 8, 39, 40, 400)] == [0, 2, 9, 10, 10]
    # A reference of one value has two bins, however many cases it has.
    assert psi_of_values(np.ones(40), np.arange(5.0))[1] == 2


def test_the_psi_of_chance_is_a_chi_square_per_number_of_cases() -> None:
    # 5.991 and 9.488 in every table of 5 %.
    assert psi_by_chance(20, 10, 3, 0.05) == pytest.approx(5.991 * 0.15, rel=1e-3)
    assert psi_by_chance(50, 25, 5, 0.05) == pytest.approx(9.488 * 0.06, rel=1e-3)


def test_features_are_compared_one_by_one_with_the_limit_of_so_few_cases() -> None:
    known = pd.DataFrame({"a": np.arange(20.0), "b": [*np.arange(4.0), *[math.nan] * 16]})
    new = pd.DataFrame({"a": np.arange(10.0, 20.0), "b": np.arange(10.0)})
    first, second = compare_features(known, new, LIMITS)
    value, n_bins = psi_of_values(known["a"].to_numpy(), new["a"].to_numpy())
    p_value = stats.ks_2samp(known["a"], new["a"]).pvalue
    assert first == {
        "feature": "a", "reference": 9.5, "new": 14.5, "psi": value,
        "ks_p": p_value, "ks_p_adjusted": p_value, "psi_limit": psi_by_chance(20, 10, n_bins, 0.025),
    }  # fmt: skip
    assert (second["reference"], second["new"], second["psi_limit"]) == (1.5, 4.5, 0.25)
    assert all(math.isnan(second[key]) for key in ("ks_p", "psi", "ks_p_adjusted"))
    nothing = compare_features(known.assign(b=math.nan), new.assign(b=math.nan), LIMITS)[1]
    assert math.isnan(nothing["reference"])
    assert math.isnan(nothing["new"])


def test_the_image_is_the_mean_of_its_cases_shares_of_which_none_is_nothing() -> None:
    known = pd.DataFrame(
        {
            "hu_share_below_0": [0.5, 0.7],
            "hu_share_from_0": [0.5, 0.3],
            "body_cc": [1.0, 2.0],
            "hu_share_from_9": [0.0, 0.0],
        }
    )
    new = pd.DataFrame(
        {
            "hu_share_below_0": [0.2, 0.2],
            "hu_share_from_0": [0.8, 0.8],
            "body_cc": [1.0, 2.0],
            "hu_share_from_9": [0.0, 0.0],
        }
    )
    found = compare_images(known, new, LIMITS, np.random.default_rng(1))
    whole = 1.0001
    mean, other = [0.6 / whole, 0.4 / whole, 1e-4 / whole], [0.2 / whole, 0.8 / whole, 1e-4 / whole]
    assert found["reference_share"] == pytest.approx(mean)
    assert found["new_share"] == pytest.approx(other)
    assert found["psi"] == pytest.approx(index_of(mean, other))
    assert (found["unit"], found["ranges"]) == ("HU", ["below_0", "from_0", "from_9"])
    # Batches of two of the two: both of one kind, half of the time, are 0.1 off.
    assert found["limit"] == pytest.approx(max(0.1, index_of(mean, [0.5 / whole, 0.5 / whole, 1e-4 / whole])), rel=0.2)
    wide = LIMITS.model_copy(update={"hu_psi": 0.001})
    rng, shares = np.random.default_rng(7), known[["hu_share_below_0", "hu_share_from_0", "hu_share_from_9"]].to_numpy()
    draws = [index_of(mean, list(judge._mean_shares(shares[rng.integers(0, 2, size=2)]))) for _ in range(500)]
    chance = compare_images(known, new, wide, np.random.default_rng(7))["limit"]
    assert chance == pytest.approx(float(np.quantile(draws, 0.95)))
    mr = known.rename(columns=lambda name: name.replace("hu_", "mr_"))
    assert compare_images(mr, mr, LIMITS, np.random.default_rng(1))["unit"] == "values"


def cohort() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    size = rng.standard_normal(12)
    table = {
        "a": 5.0 + size, "b": 40.0 + 3.0 * size + rng.standard_normal(12), "c": rng.standard_normal(12),
        "same": 28.0, "Bowel_present": 1.0, "Bowel_cc": [math.nan, *rng.uniform(9, 11, 11)],
    }  # fmt: skip
    return pd.DataFrame(table, index=[f"case_{i:02d}" for i in range(12)])


def distances(values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mahalanobis by the shrunk covariance of the others, per feature, and by how many spreads each feature is off."""
    centre = np.nanmedian(others, axis=0)
    scale = np.maximum(np.nanstd(others, axis=0, ddof=1), 0.01 * np.nanmax(np.abs(others), axis=0))
    known, away = (np.nan_to_num((table - centre) / scale) for table in (others, values))
    precision = LedoitWolf(assume_centered=True).fit(known).precision_
    return np.sqrt(np.einsum("ij,jk,ik->i", away, precision, away) / values.shape[1]), away


def test_cases_are_told_by_distance_rank_and_what_they_have_otherwise() -> None:
    known, columns = cohort(), ["a", "b", "c", "Bowel_cc"]
    reference = learn_reference(known)
    assert (reference.columns, reference.constants) == (columns, {"same": 28.0, "Bowel_present": 1.0})
    assert reference.complete == ["a", "b", "c", "same", "Bowel_present"]
    values = known[columns].to_numpy()
    apart = [distances(values[i : i + 1], np.delete(values, i, axis=0)) for i in range(12)]
    left_out = np.array([float(distance[0]) for distance, _ in apart])
    assert reference.left_out == pytest.approx(np.sort(left_out))
    for row, (distance, away), case_id in zip(measure_left_out(known), apart, known.index, strict=True):
        assert (row["case_id"], row["distance"]) == (case_id, pytest.approx(float(distance[0])))
        farthest = np.argsort(-np.abs(away[0]))[:3]
        assert list(row["features"]) == [columns[i] for i in farthest]
        assert list(row["features"].values()) == pytest.approx(away[0][farthest].tolist())
    new = known.iloc[:3].copy()
    new.index = ["new_0", "new_1", "new_2"]
    new.loc["new_0", ["a", "same"]] = [9.0, 28.1]
    new.loc["new_1", ["c", "same"]] = math.nan
    new.loc["new_2", ["Bowel_present", "Bowel_cc"]] = [0.0, math.nan]
    found = measure_distances(reference, new)
    wanted, away = distances(new[columns].to_numpy(), values)
    assert [row["case_id"] for row in found] == ["new_0", "new_1", "new_2"]
    assert [row["distance"] for row in found] == pytest.approx(wanted.tolist())
    assert [row["ratio"] for row in found] == pytest.approx((wanted / left_out.max()).tolist())
    assert [row["rank_p"] for row in found] == pytest.approx([(1 + (left_out >= one).sum()) / 13 for one in wanted])
    assert [row["changed"] for row in found] == [{"same": 28.1}, {}, {"Bowel_present": 0.0}]
    assert [row["missing"] for row in found] == [[], ["c", "same"], []]
    assert len(found[0]["features"]) == 3


def test_a_spread_is_at_least_a_hundredth_of_a_features_size() -> None:
    known = cohort().assign(flat=1000.0)
    known.loc["case_03", "flat"] = 1001.0
    (row,) = measure_distances(learn_reference(known), known.iloc[:1].assign(flat=1020.0))
    assert row["features"]["flat"] == pytest.approx(20.0 / 10.01)


# --- stacks of images ---------------------------------------------------------------------------------------------


def test_a_probe_sees_cells_percentiles_spread_and_grain_of_the_core() -> None:
    images = np.random.default_rng(2).random((3, 24, 40))
    found = stacks.region_features(images, "core")
    core = images[:, 6:18, 10:30]
    # Eight cells of 1 or 2 rows and of 2 or 3 columns.
    rows, columns = np.linspace(0, 12, 9).astype(int), np.linspace(0, 20, 9).astype(int)
    cells = [
        [core[i, a:b, c:d].mean() for a, b in itertools.pairwise(rows) for c, d in itertools.pairwise(columns)]
        for i in range(3)
    ]
    assert found.shape == (3, 64 + 5 + 1 + 2)
    assert found[:, :64] == pytest.approx(np.array(cells))
    flat = core.reshape(3, -1)
    assert found[:, 64:69] == pytest.approx(np.percentile(flat, (1, 25, 50, 75, 99), axis=1).T)
    assert found[:, 69] == pytest.approx(flat.std(axis=1))
    assert found[:, 70] == pytest.approx(np.abs(np.diff(core, axis=1)).mean(axis=(1, 2)))
    assert found[:, 71] == pytest.approx(np.abs(np.diff(core, axis=2)).mean(axis=(1, 2)))


def test_the_border_is_a_tenth_at_each_end_of_each_axis() -> None:
    images = np.random.default_rng(2).random((2, 20, 31))
    found = stacks.region_features(images, "border")
    parts = [images[:, :2], images[:, -2:], images[:, :, :3], images[:, :, -3:]]
    widths = [2 * 8 + 8, 2 * 8 + 8, 8 * 3 + 8, 8 * 3 + 8]
    assert found.shape == (2, sum(widths))
    at = 0
    for part, width in zip(parts, widths, strict=True):
        assert found[:, at + width - 3] == pytest.approx(part.reshape(2, -1).std(axis=1))
        assert found[:, at + width - 8 : at + width - 3] == pytest.approx(
            np.percentile(part.reshape(2, -1), (1, 25, 50, 75, 99), axis=1).T
        )
        at += width
    # Of five rows a tenth is still one, which has no grain across.
    thin = stacks.region_features(images[:, :5], "border")
    assert thin.shape[1] == 2 * (1 * 8 + 5 + 1 + 1) + 2 * (5 * 3 + 8)
    volume = stacks.region_features(np.random.default_rng(2).random((2, 10, 10, 10)), "border")
    assert volume.shape[1] == 6 * (64 + 6 + 2)
