"""Gamma: known answers, properties, the reference implementation, real measured planes, refusals."""

from __future__ import annotations

import itertools
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize

from doseledger.core.errors import BadInput
from doseledger.dosimetry.gamma import map as gm
from doseledger.dosimetry.gamma.gpu import torch_map
from doseledger.dosimetry.gamma.grids import DosePair, pose_problem
from doseledger.dosimetry.gamma.kernels import search_samples
from doseledger.dosimetry.gamma.lattices import lattice_cuts
from doseledger.dosimetry.gamma.near import search_near
from doseledger.dosimetry.gamma.reference import reference_map, verify_points
from doseledger.dosimetry.gamma.samples import SampleBlock, near_table, sample_blocks

GLOBAL_3_3 = gm.GammaCriteria(3, 3, 10, local=False, interp_fraction=10, max_gamma=2.0)


def dose_pair(shape: tuple[int, ...], seed: int = 0, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """A smooth dose up to 70 Gy, and a shifted, noisy copy of it."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.random(shape), 2)
    reference = (smooth - smooth.min()) / np.ptp(smooth) * 70
    evaluation = 0.6 * reference + 0.4 * np.roll(reference, 1, axis=-1)
    evaluation *= 1 + 0.01 * rng.standard_normal(shape)
    return reference.astype(dtype), evaluation.astype(dtype)


def posed(reference: np.ndarray, evaluation: np.ndarray) -> DosePair:
    """Two doses on one grid of 2 mm."""
    return DosePair.on_one_grid(reference, evaluation, (2.0,) * reference.ndim)


def assert_same_map(found: np.ndarray, wanted: np.ndarray) -> None:
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    assert np.isfinite(wanted).any()
    assert np.nanmax(np.abs(found - wanted)) < 1e-10


# --- the reference implementation ---------------------------------------------------------------------------------

SHAPES = {(40,): (1.0,), (26, 21): (1.0, 2.5), (11, 13, 12): (3.0, 1.0, 2.0), (9, 3, 12): (2.0, 2.5, 2.0)}
OPTIONS = list(
    itertools.product(
        SHAPES, (False, True), (1.1, 2.0, np.inf), ((3.0, 3.0, 10), (2.0, 1.0, 4.5)), ((0, None), (20, 66.0))
    )
)


@pytest.mark.parametrize(("shape", "local", "max_gamma", "size", "dose"), OPTIONS)
def test_map_equals_pymedphys_over_a_matrix_of_options(shape, local, max_gamma, size, dose) -> None:
    percent, mm, fraction = size
    cutoff, norm = dose
    if np.isinf(max_gamma) and (local or len(shape) == 3):
        max_gamma = 3.0 if len(shape) == 3 else 12.0  # pymedphys alone would take minutes
    criteria = gm.GammaCriteria(percent, mm, cutoff, local, fraction, max_gamma, norm)
    reference, evaluation = dose_pair(shape)
    axes = [step * np.arange(size) - 13.7 for step, size in zip(SHAPES[shape], shape, strict=True)]
    pair = DosePair(axes, reference, axes, evaluation)
    wanted = reference_map(pair, criteria)
    found = gm.gamma_map(pair, criteria)
    assert_same_map(found, wanted)
    summary = gm.pass_rate_percent(pair, criteria)
    assert summary == gm.summarise(found, pair, criteria)
    assert summary.n_passed == np.count_nonzero(wanted <= 1 + 1e-9)


@pytest.mark.parametrize("compute", [gm.gamma_map, gm.exact_gamma_map, partial(torch_map, device="cpu"), reference_map])
def test_criteria_given_as_whole_numbers_give_the_same_map(compute) -> None:
    pair = posed(*dose_pair((9, 10, 11)))
    whole = gm.GammaCriteria(3, 2, 10, local=False, interp_fraction=5, max_gamma=2, normalisation_gy=60)
    numbers = {name: float(getattr(whole, name)) for name in ("gamma_percent", "gamma_mm", "max_gamma")}
    assert np.array_equal(compute(pair, whole), compute(pair, replace(whole, **numbers)), equal_nan=True)


@pytest.mark.parametrize(
    ("ratio", "offset_mm", "size"),
    [(1, 0.0, 30), (1, 0.3, 14), (2, 0.0, 30), (2, 0.3, 12), (0.77, 0.1, 12), (0.5, 0.0, 9)],
)
def test_map_equals_pymedphys_on_different_grids(ratio, offset_mm, size) -> None:
    reference, _ = dose_pair((9, 11, 10))
    _, evaluation = dose_pair((size, size, size), seed=4)
    steps = (2.0, 1.5, 2.5)
    axes = [step * np.arange(n) + 5.1 for step, n in zip(steps, reference.shape, strict=True)]
    others = [5.1 + offset_mm + step / ratio * np.arange(size) for step in steps]
    criteria = replace(GLOBAL_3_3, max_gamma=1.7)
    pair = DosePair(axes, reference, others, evaluation)
    wanted = reference_map(pair, criteria)
    found = gm.gamma_map(pair, criteria)
    assert_same_map(found, wanted)
    summary = gm.pass_rate_percent(pair, criteria)
    assert summary == gm.summarise(found, pair, criteria)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(("stride", "voxels"), [(1, (2, -3, 4)), (1, (-1, 2, -5)), (2, (0, 3, -3)), (3, (-2, 0, 4))])
def test_map_equals_pymedphys_where_grids_share_some_of_their_voxels(stride, voxels, local) -> None:
    reference, _ = dose_pair((7, 9, 11), dtype=np.float32)
    _, evaluation = dose_pair((9, 10, 12), seed=4, dtype=np.float32)
    reference[:, 2] = 0
    # Exact in binary, so that voxels meet to the last digit.
    steps = (2.0, 1.5, 2.5)
    axes = [stride * step * np.arange(n) for step, n in zip(steps, reference.shape, strict=True)]
    others = [step * (first + np.arange(n)) for step, first, n in zip(steps, voxels, evaluation.shape, strict=True)]
    mask = np.random.default_rng(0).random(reference.shape) < 0.7
    criteria = replace(GLOBAL_3_3, max_gamma=1.7, cutoff_percent=0, local=local)
    pair = DosePair(axes, reference, others, evaluation, mask)
    found = gm.gamma_map(pair, criteria)
    assert_same_map(found, reference_map(pair, criteria))
    summary = gm.pass_rate_percent(pair, criteria)
    assert summary == gm.summarise(found, pair, criteria)
    assert summary.n_without > 0


@pytest.mark.parametrize("local", [False, True])
def test_grids_that_meet_alike_after_some_voxels_are_taken_apart_and_give_the_map_of_pymedphys(
    local, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, _ = dose_pair((13, 9, 10))
    _, evaluation = dose_pair((12, 8, 11), seed=4)
    # Each sixth, third and single voxel lies alike in its cell of 3 mm; the second grid does not cover the first.
    axes = [step * np.arange(n) for step, n in zip((2.5, 2.0, 3.0), reference.shape, strict=True)]
    others = [1.3 + 3.0 * np.arange(n) for n in evaluation.shape]
    mask = np.random.default_rng(0).random(reference.shape) < 0.7
    criteria = replace(GLOBAL_3_3, max_gamma=1.7, local=local)
    pair = DosePair(axes, reference, others, evaluation, mask)
    one_by_one, exact = gm.gamma_map(pair, criteria), gm.exact_gamma_map(pair, criteria)
    monkeypatch.setattr("doseledger.dosimetry.gamma.lattices.LATTICE_POINTS", 1)
    assert len(lattice_cuts(pose_problem(pair, criteria), 3)) == 18
    found = gm.gamma_map(pair, criteria)
    assert_same_map(found, one_by_one)
    assert_same_map(found, reference_map(pair, criteria))
    assert np.nanmax(np.abs(gm.exact_gamma_map(pair, criteria) - exact)) < 1e-4
    assert gm.pass_rate_percent(pair, criteria) == gm.summarise(found, pair, criteria)


def test_huge_finite_doses_are_not_taken_for_infinite_ones() -> None:
    dose = np.full((3, 4, 5), np.finfo(np.float32).max / 4)
    assert np.nanmax(gm.gamma_map(posed(dose.astype(np.float32), dose.astype(np.float32)), GLOBAL_3_3)) == 0


def test_float32_doses_give_the_map_of_the_same_numbers_in_float64() -> None:
    reference, evaluation = dose_pair((11, 12, 13), dtype=np.float32)
    found = gm.gamma_map(posed(reference, evaluation), GLOBAL_3_3)
    wanted = gm.gamma_map(posed(reference.astype(np.float64), evaluation.astype(np.float64)), GLOBAL_3_3)
    assert np.array_equal(found, wanted, equal_nan=True)


def test_verification_sees_one_wrong_point() -> None:
    reference, evaluation = dose_pair((8, 9, 10))
    pair = posed(reference, evaluation)
    gamma = gm.gamma_map(pair, GLOBAL_3_3)
    rng = np.random.default_rng(0)
    assert verify_points(gamma, pair, GLOBAL_3_3, n_points=25, rng=rng) < 1e-10
    gamma[np.unravel_index(np.nanargmin(gamma), gamma.shape)] += 0.01
    # Each point once: drawn with replacement, one in three would be missed.
    for seed in range(3):
        rng = np.random.default_rng(seed)
        assert verify_points(gamma, pair, GLOBAL_3_3, n_points=gamma.size, rng=rng) == pytest.approx(0.01)


def test_a_walk_over_the_loaded_modules_after_the_reference_imports_nothing_and_draws_no_number() -> None:
    """As hypothesis does before it draws: stand-ins of pymedphys once imported altair and rich, which drew then."""
    reference_map(posed(*dose_pair((5, 6))), GLOBAL_3_3)
    loaded, state = set(sys.modules), random.getstate()
    for module in list(sys.modules.values()):
        getattr(module, "__file__", None)
    assert not {name for name in set(sys.modules) - loaded if not name.startswith("six.")}
    assert random.getstate() == state


def test_a_long_search_runs_in_blocks_and_gives_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, evaluation = dose_pair((7, 9, 8))
    wanted = gm.gamma_map(DosePair.on_one_grid(reference, evaluation, (3, 2, 2)), GLOBAL_3_3)
    monkeypatch.setattr("doseledger.dosimetry.gamma.samples.BLOCK_SAMPLES", 500)
    assert_same_map(gm.gamma_map(DosePair.on_one_grid(reference, evaluation, (3, 2, 2)), GLOBAL_3_3), wanted)


def test_any_number_of_threads_gives_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, evaluation = dose_pair((11, 12, 13))
    maps = []
    for n_threads in (1, 3):
        monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", n_threads)
        monkeypatch.setattr("doseledger.dosimetry.gamma.threads.THREAD_POINTS", 50)
        maps.append(gm.gamma_map(posed(reference, evaluation), GLOBAL_3_3))
    assert np.array_equal(np.isnan(maps[0]), np.isnan(maps[1]))
    assert np.nanmax(np.abs(maps[0] - maps[1])) < 1e-13


# --- real measured planes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "mm", "local", "wanted_percent"), [(1, 1, True, 93.60), (2, 2, True, 99.25), (3, 3, False, 99.95)]
)
def test_measured_head_and_neck_plane_passes_as_published(
    shared_data: Path, percent, mm, local, wanted_percent
) -> None:
    """Agnew & McGarry 2016, doi:10.1016/j.radonc.2015.11.034: 1 mm pixels, cutoff 20 %."""
    planes = [
        pydicom.dcmread(shared_data / "gamma" / f"H&N_VMAT_{name}_1mmPx.dcm") for name in ("Reference", "Evaluated")
    ]
    reference, evaluation = (np.squeeze(plane.pixel_array) * float(plane.DoseGridScaling) for plane in planes)
    spacing_mm = [float(step) for step in planes[0].PixelSpacing]
    criteria = gm.GammaCriteria(percent, mm, 20, local, interp_fraction=10, max_gamma=2.0)
    axes = [step * np.arange(size) for step, size in zip(spacing_mm, reference.shape, strict=True)]
    summary = gm.pass_rate_percent(DosePair(axes, reference, axes, evaluation), criteria)
    assert summary.pass_rate_percent == pytest.approx(wanted_percent, abs=0.005)


# --- known answers and properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30,), (12, 14), (8, 9, 10)])
@pytest.mark.parametrize("local", [False, True])
def test_identical_doses_have_gamma_zero(shape, local) -> None:
    reference, _ = dose_pair(shape)
    gamma = gm.gamma_map(posed(reference, reference), replace(GLOBAL_3_3, local=local))
    assert np.nanmax(gamma) == 0.0
    assert np.array_equal(np.isnan(gamma), reference < 7.0)


def test_a_uniform_dose_that_is_off_by_the_criterion_passes() -> None:
    reference = np.full((6, 7, 8), 2.0)
    assert gm.gamma_map(posed(reference, reference * 1.03), GLOBAL_3_3) == pytest.approx(1.0, abs=1e-12)
    assert gm.pass_rate_percent(posed(reference, reference * 1.03), GLOBAL_3_3).pass_rate_percent == 100.0
    assert gm.pass_rate_percent(posed(reference, reference * 1.0301), GLOBAL_3_3).pass_rate_percent == 0.0


def test_a_ramp_moved_by_a_shift_has_the_gamma_of_a_straight_line() -> None:
    """Distance to the line through (0, Δ) of slope m in the (dose, distance) plane: Δ / sqrt(1 + m²)."""
    x_mm = np.arange(60.0)
    slope_gy_per_mm, shift_mm = 2.0, 1.5
    reference, evaluation = slope_gy_per_mm * x_mm, slope_gy_per_mm * (x_mm + shift_mm)
    criteria = gm.GammaCriteria(3, 3, 20, local=False, interp_fraction=10, max_gamma=2.0, normalisation_gy=100.0)
    gamma = gm.exact_gamma_map(DosePair([x_mm], reference, [x_mm], evaluation), criteria)
    m = slope_gy_per_mm * 3.0 / 3.0
    wanted = (slope_gy_per_mm * shift_mm / 3.0) / np.sqrt(1 + m * m)
    assert gamma[15:55] == pytest.approx(np.full(40, wanted), abs=1.01e-4)


@given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 100))
@settings(max_examples=15, deadline=None)
def test_gamma_does_not_change_when_both_doses_are_scaled(seed, factor) -> None:
    reference, evaluation = dose_pair((7, 8, 9), seed)
    criteria = replace(GLOBAL_3_3, cutoff_percent=0.0)
    one = gm.gamma_map(DosePair.on_one_grid(reference, evaluation, (2.5, 2, 2)), criteria)
    other = gm.gamma_map(DosePair.on_one_grid(reference * factor, evaluation * factor, (2.5, 2, 2)), criteria)
    assert np.nanmax(np.abs(one - other)) < 1e-9


@given(seed=st.integers(0, 10_000), axis=st.integers(0, 1))
@settings(max_examples=15, deadline=None)
def test_gamma_of_mirrored_doses_is_the_mirrored_gamma(seed, axis) -> None:
    reference, evaluation = dose_pair((8, 7, 9), seed)
    one = gm.exact_gamma_map(posed(reference, evaluation), GLOBAL_3_3)
    other = gm.exact_gamma_map(posed(np.flip(reference, axis), np.flip(evaluation, axis)), GLOBAL_3_3)
    assert np.nanmax(np.abs(np.flip(one, axis) - other)) <= 1.01e-4


@given(seed=st.integers(0, 10_000), local=st.booleans(), max_gamma=st.sampled_from([1.2, 2.0, 3.0]))
@settings(max_examples=20, deadline=None)
def test_pass_rate_alone_equals_the_count_in_the_map(seed, local, max_gamma) -> None:
    reference, evaluation = dose_pair((8, 9, 7), seed, np.float32)
    criteria = gm.GammaCriteria(2, 2, 10, local, 6, max_gamma)
    mask = np.random.default_rng(seed).random(reference.shape) < 0.5
    pair = replace(posed(reference, evaluation), mask=mask)
    gamma = gm.gamma_map(pair, criteria)
    summary = gm.pass_rate_percent(pair, criteria)
    assert summary == gm.summarise(gamma, pair, criteria)
    assert summary.n_points == np.count_nonzero(mask & (reference >= 0.1 * np.float64(reference.max())))


# --- the continuous minimum ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60,), (16, 17), (7, 8, 9)])
@pytest.mark.parametrize("local", [False, True])
def test_exact_gamma_is_what_ever_finer_sampling_tends_to(shape, local) -> None:
    reference, evaluation = dose_pair(shape, dtype=np.float32)
    criteria = replace(GLOBAL_3_3, gamma_percent=2, gamma_mm=2, local=local)
    pair = posed(reference, evaluation)
    exact = gm.exact_gamma_map(pair, criteria)
    excess = [gm.gamma_map(pair, replace(criteria, interp_fraction=fraction)) - exact for fraction in (10, 20, 60)]
    # Never below by more than the tolerance: the samples are part of what the exact search covers.
    assert all(np.nanmin(each) > -1e-4 for each in excess)
    assert np.nanmean(excess[2]) < np.nanmean(excess[1]) < np.nanmean(excess[0])
    assert np.nanmean(excess[2]) < np.nanmean(excess[0]) / 4


@pytest.mark.parametrize(("shape", "n_points"), [((14, 15), 20), ((7, 8, 9), 6)])
def test_exact_gamma_equals_the_least_that_many_local_searches_find(shape, n_points) -> None:
    reference, evaluation = dose_pair(shape)
    pair = posed(reference, evaluation)
    exact = gm.exact_gamma_map(pair, GLOBAL_3_3)
    rng = np.random.default_rng(3)
    dose_at = RegularGridInterpolator(pair.axes_evaluation_mm, evaluation)
    candidates = np.argwhere(np.isfinite(exact) & (exact < GLOBAL_3_3.max_gamma))
    for index in rng.choice(candidates, n_points, replace=False):
        place_mm, dose_gy = 2.0 * index, reference[tuple(index)]

        def squared(x_mm, place_mm=place_mm, dose_gy=dose_gy):
            difference = (dose_at(x_mm)[0] - dose_gy) / (0.03 * reference.max())
            return difference**2 + np.sum((x_mm - place_mm) ** 2) / 9.0

        least = np.inf
        for cell in itertools.product(
            *(range(max(0, i - 3), min(n - 1, i + 3)) for i, n in zip(index, shape, strict=True))
        ):
            low_mm = 2.0 * np.array(cell)
            if np.sum(np.maximum(np.maximum(low_mm - place_mm, place_mm - low_mm - 2), 0) ** 2) / 9 >= least:
                continue
            start_mm = np.clip(place_mm, low_mm + 0.3, low_mm + 1.7)
            bounds = list(zip(low_mm, low_mm + 2 - 1e-9, strict=True))
            least = min(least, minimize(squared, start_mm, bounds=bounds, method="L-BFGS-B").fun)
        assert -1e-5 < exact[tuple(index)] - np.sqrt(least) <= 1.01e-4


def test_exact_gamma_of_a_point_beside_the_grid_is_its_distance_and_dose_to_the_edge() -> None:
    x_mm, far_mm = np.arange(10.0), np.array([8.0, 11.0, 17.0])
    flat = np.full(10, 50.0)
    reference = np.full(3, 50.0)
    gamma = gm.exact_gamma_map(DosePair([far_mm[:2]], reference[:2], [x_mm], flat), GLOBAL_3_3)
    assert gamma == pytest.approx([0.0, 2.0 / 3.0], abs=1e-4)
    beyond = gm.gamma_map(DosePair([np.array([9.0, 17.0])], reference[:2], [x_mm], flat), GLOBAL_3_3)
    assert beyond[0] == 0.0
    assert np.isnan(beyond[1])


# --- refusals -----------------------------------------------------------------------------------------------------

AXIS = np.arange(6.0)
DOSE = np.linspace(1.0, 2.0, 6)


@pytest.mark.parametrize(
    ("axes_reference", "reference", "axes_evaluation", "evaluation", "message"),
    [
        ([AXIS[::-1]], DOSE, [AXIS], DOSE, "axis 0 of the reference grid does not ascend"),
        ([AXIS], DOSE, [np.array([0, 1, 2, 3, 4, 5.5])], DOSE, "axis 0 of the evaluation grid is uneven"),
        ([AXIS], np.where(AXIS == 2, np.nan, DOSE), [AXIS], DOSE, "reference dose has 1 voxels that are NaN"),
        ([AXIS], DOSE, [AXIS], np.where(AXIS == 2, np.inf, DOSE), "evaluation dose has 1 voxels that are NaN"),
        ([AXIS], DOSE[:5], [AXIS], DOSE, "reference dose has shape"),
        ([AXIS], DOSE, [AXIS], np.arange(6), "evaluation dose is int64"),
        ([AXIS], DOSE * 0, [AXIS], DOSE, "highest reference dose is 0.0 Gy"),
        ([AXIS], DOSE, [AXIS, AXIS], np.ones((6, 6)), "reference has 1 axes, the evaluation 2"),
        ([np.zeros(1)], DOSE[:1], [AXIS], DOSE, "has one position"),
        ([AXIS + 50], DOSE, [AXIS], DOSE, "no point is counted"),
    ],
)
def test_what_pymedphys_gets_silently_wrong_is_refused(
    axes_reference, reference, axes_evaluation, evaluation, message
) -> None:
    with pytest.raises(BadInput, match=message):
        gm.pass_rate_percent(DosePair(axes_reference, reference, axes_evaluation, evaluation), GLOBAL_3_3)


def test_an_endless_search_is_refused() -> None:
    with pytest.raises(BadInput, match="max_gamma is infinite"):
        gm.gamma_map(DosePair([AXIS], DOSE, [AXIS[:4]], DOSE[:4]), replace(GLOBAL_3_3, max_gamma=np.inf))


def test_masks_that_are_not_bool_and_mixed_grids_are_refused() -> None:
    with pytest.raises(BadInput, match="mask is uint8"):
        gm.gamma_map(DosePair.on_one_grid(DOSE, DOSE, (1.0,), np.ones(6, np.uint8)), GLOBAL_3_3)
    with pytest.raises(BadInput, match="do not describe one grid"):
        gm.gamma_map(DosePair.on_one_grid(DOSE, DOSE[:5], (1.0,)), GLOBAL_3_3)
    with pytest.raises(BadInput, match="each must be above 0"):
        gm.gamma_map(DosePair.on_one_grid(DOSE, DOSE, (0.0,)), GLOBAL_3_3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma_percent": 0}, "gamma_percent is 0; it must be more than 0"),
        ({"gamma_mm": np.nan}, "gamma_mm is nan"),
        ({"cutoff_percent": -1}, "cutoff_percent is -1; it must be at least 0"),
        ({"interp_fraction": 0.5}, "interp_fraction is 0.5"),
        ({"max_gamma": 1.0}, "max_gamma is 1.0; it must be more than 1"),
        ({"normalisation_gy": np.inf}, "normalisation_gy is inf"),
    ],
)
def test_criteria_out_of_range_are_refused(change, message) -> None:
    with pytest.raises(BadInput, match=message):
        replace(GLOBAL_3_3, **change)


# --- the cells about a voxel --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing_mm", "fraction", "stop_below"),
    [((2.5, 1.5, 1.5), 10, -1.0), ((4.0, 1.0, 6.0), 4.5, -1.0), ((2.5, 1.5, 1.5), 10, 0.2), ((0.7, 0.9, 5.0), 7, -1.0)],
)
@pytest.mark.parametrize("noise_gy", [0.1, 1.0, 10.0])
def test_the_cells_about_a_voxel_give_the_least_of_their_samples(spacing_mm, fraction, stop_below, noise_gy) -> None:
    rng = np.random.default_rng(3)
    reference = 50 + gaussian_filter(rng.standard_normal((8, 9, 40)), 1) * 20
    pair = DosePair.on_one_grid(reference, reference + noise_gy * rng.standard_normal(reference.shape), spacing_mm)
    criteria = replace(GLOBAL_3_3, interp_fraction=fraction)
    problem = pose_problem(pair, criteria)
    # With gaps in the rows.
    points = np.flatnonzero(rng.random(reference.size) < 0.9)
    block = next(sample_blocks(3.0, fraction, 6.0, 3, first_samples=20_000))
    near = near_table(block, (0, 0, 0), np.array(spacing_mm), 3.0)
    # Each point has been looked at where it stands.
    at_points = ((pair.evaluation_gy - reference).reshape(-1)[points] / problem.threshold_gy) ** 2
    found = np.minimum(at_points, 4.0)
    wanted = found.copy()
    search_near(points, found, problem, near, stop_below)
    cell = np.floor(block.offsets_mm / np.array(spacing_mm)[:, None])
    inside = np.all((cell == -1) | (cell == 0), axis=0)
    samples = SampleBlock(
        block.offsets_mm[:, inside], block.shell[inside], block.distance_squared[inside], block.shells_per_gamma
    )
    search_samples(points, wanted, problem, samples, -1.0)
    if stop_below > 0:
        assert np.array_equal(found <= stop_below, wanted <= stop_below)
        assert np.all(found >= wanted - 1e-12)
        found = np.where(found <= stop_below, wanted, found)
    assert np.max(np.abs(found - wanted)) < 1e-12
