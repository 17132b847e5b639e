"""DVH curves: known answers, the relation of the two kinds of curve, and numpy.histogram as the reference."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.dosimetry.dvh.curves import dvh_curves
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.statistics import structure_dose

SHAPE = (11, 13, 17)


@pytest.fixture
def volume() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    dose = rng.uniform(0, 70, SHAPE).astype(np.float32)
    masks = rng.random((4, *SHAPE)) < np.array([0.9, 0.3, 0.01, 0.0])[:, None, None, None]
    return dose, masks


def test_curves_equal_numpys_histogram(volume: tuple[np.ndarray, np.ndarray]) -> None:
    dose, masks = volume
    for curve, mask in zip(dvh_curves(dose, masks, 0.02, 0.1), masks, strict=True):
        counts, _ = np.histogram(dose[mask], bins=curve.edges_gy)
        np.testing.assert_allclose(curve.bin_cc, counts * 0.02, rtol=1e-12)


def test_doses_on_an_edge_belong_to_the_bin_above_it() -> None:
    dose = np.arange(0.0, 7.0, 0.1)
    (curve,) = dvh_curves(dose, np.ones((1, len(dose)), bool), 1.0, 0.1)
    counts, _ = np.histogram(dose, bins=curve.edges_gy)
    np.testing.assert_array_equal(curve.bin_cc, counts)


def test_the_cumulative_curve_falls_from_100_to_0_and_agrees_with_the_exact_volumes(
    volume: tuple[np.ndarray, np.ndarray],
) -> None:
    dose, masks = volume
    curve, samples = dvh_curves(dose, masks, 0.02, 0.5)[1], structure_dose(dose, masks[1], 0.02)
    assert curve.cumulative_percent[0] == pytest.approx(100.0)
    assert curve.cumulative_percent[-1] == 0.0
    assert np.all(np.diff(curve.cumulative_percent) <= 1e-12)
    at_30 = int(np.flatnonzero(np.isclose(curve.edges_gy, 30.0))[0])
    assert curve.cumulative_percent[at_30] == pytest.approx(samples.measure(parse_statistic("V30Gy")).value)


def test_the_differential_curve_adds_up_to_the_whole_volume(volume: tuple[np.ndarray, np.ndarray]) -> None:
    dose, masks = volume
    curve = dvh_curves(dose, masks, 0.02, 0.5)[0]
    assert float((curve.differential_percent_per_gy * 0.5).sum()) == pytest.approx(100.0)
    assert curve.volume_cc == pytest.approx(masks[0].sum() * 0.02)


def test_an_absent_structure_has_a_curve_of_nan_not_of_zeros(volume: tuple[np.ndarray, np.ndarray]) -> None:
    curve = dvh_curves(*volume, 0.02, 0.5)[3]
    assert curve.volume_cc == 0.0
    assert np.isnan(curve.cumulative_percent).all()
    assert np.isnan(curve.differential_percent_per_gy).all()


def test_a_coverage_of_ones_and_zeros_is_the_mask(volume: tuple[np.ndarray, np.ndarray]) -> None:
    dose, masks = volume
    for whole, part in zip(
        dvh_curves(dose, masks, 0.02, 0.1), dvh_curves(dose, masks.astype(np.float32), 0.02, 0.1), strict=True
    ):
        np.testing.assert_allclose(whole.bin_cc, part.bin_cc, rtol=1e-9)
    half = dvh_curves(dose, masks.astype(np.float32) / 2, 0.02, 0.1)[0]
    assert half.volume_cc == pytest.approx(masks[0].sum() * 0.01)


def test_a_bad_dose_counts_only_inside_the_structures(volume: tuple[np.ndarray, np.ndarray]) -> None:
    dose, masks = volume
    inside, outside = np.argwhere(masks[2])[0], np.argwhere(~masks.any(axis=0))[0]
    dose[tuple(outside)] = -1.0
    dvh_curves(dose, masks, 0.02, 0.1)
    dose[tuple(inside)] = -1.0
    with pytest.raises(BadInput, match="negative or not finite in the structures of index"):
        dvh_curves(dose, masks, 0.02, 0.1)
    dose[tuple(outside)] = np.nan
    with pytest.raises(BadInput, match="dose is not finite"):
        dvh_curves(dose, masks, 0.02, 0.1)


def test_masks_of_another_shape_and_bins_of_no_width_are_refused(volume: tuple[np.ndarray, np.ndarray]) -> None:
    dose, masks = volume
    with pytest.raises(BadInput, match="not on one grid"):
        dvh_curves(dose[1:], masks, 0.02, 0.1)
    with pytest.raises(BadInput, match="positive bin width"):
        dvh_curves(dose, masks, 0.02, 0.0)
