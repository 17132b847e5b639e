"""Similarity of images: known answers, properties, and two reference implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from doseledger.core.errors import BadInput
from doseledger.parity.similarity import compare_images, compare_stacks


def image(shape: tuple[int, ...], seed: int = 1, smooth: float = 3.0) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)


def test_psnr_of_a_known_error() -> None:
    # A constant error of a tenth of the range is a mean square of 1/100 of its square: 20 dB.
    assert compare_images(np.zeros((4, 5)), np.full((4, 5), 0.1), 1.0).psnr_db == pytest.approx(20.0)
    assert compare_images(np.ones((4, 5)), np.ones((4, 5)), 1.0).psnr_db == math.inf


def test_ssim_of_two_flat_images_is_the_luminance_term_alone() -> None:
    one, other = np.full((20, 20), 100.0), np.full((20, 20), 50.0)
    c1 = (0.01 * 255) ** 2
    assert compare_images(one, other, 255.0).ssim == pytest.approx(
        (2 * 100 * 50 + c1) / (100**2 + 50**2 + c1), rel=1e-12
    )


@pytest.mark.parametrize("shape", [(64, 51), (24, 20, 31)])
def test_ssim_equals_scikit_image(shape: tuple[int, ...]) -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    one = image(shape)
    other = one + np.random.default_rng(2).normal(0, 0.03, shape)
    span = float(np.ptp(one))
    theirs = structural_similarity(
        one, other, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert compare_images(one, other, span).ssim == pytest.approx(theirs, abs=1e-12)


def test_psnr_equals_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    one, other = image((40, 40), 1), image((40, 40), 2)
    assert compare_images(one, other, 2.0).psnr_db == pytest.approx(
        metrics.peak_signal_noise_ratio(one, other, data_range=2.0), rel=1e-12
    )


def test_multi_scale_ssim_equals_monai() -> None:
    # monai computes in single precision. torchmetrics counts a padded border at the coarsest scale: 6e-5 lower here.
    regression = pytest.importorskip("monai.metrics.regression")
    torch = pytest.importorskip("torch")
    one = image((256, 224))
    other = one + np.random.default_rng(2).normal(0, 0.03, one.shape)
    span = float(np.ptp(one))
    metric = regression.MultiScaleSSIMMetric(spatial_dims=2, data_range=span, kernel_size=11, kernel_sigma=1.5)
    metric(y_pred=torch.tensor(other)[None, None], y=torch.tensor(one)[None, None])
    ours = compare_images(one, other, span)
    assert ours.scales == 5
    assert ours.ms_ssim == pytest.approx(float(metric.aggregate()), abs=1e-5)


def test_images_that_are_too_small_say_so() -> None:
    small = compare_images(np.zeros((8, 8)), np.eye(8), 1.0)
    assert math.isnan(small.ssim)
    assert math.isnan(small.ms_ssim)
    assert small.scales == 0
    assert compare_images(image((50, 90)), image((50, 90), 2), 1.0).scales == 3


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), noise=st.floats(1e-6, 5.0), scale=st.floats(0.1, 100.0))
def test_similarity_is_symmetric_bounded_and_blind_to_the_unit(seed: int, noise: float, scale: float) -> None:
    one = image((24, 26), seed)
    other = one + np.random.default_rng(seed + 1).normal(0, noise, one.shape)
    there, back = compare_images(one, other, 1.0), compare_images(other, one, 1.0)
    assert there.ssim == pytest.approx(back.ssim, abs=1e-9)
    assert -1.0 <= there.ssim < 1.0
    assert 0.0 <= there.ms_ssim <= 1.0
    scaled = compare_images(one * scale, other * scale, scale)
    assert scaled.ssim == pytest.approx(there.ssim, abs=1e-9)
    assert scaled.psnr_db == pytest.approx(there.psnr_db, abs=1e-6)


def test_more_noise_is_less_alike() -> None:
    one, noise = image((64, 64)), np.random.default_rng(5).normal(size=(64, 64))
    found = [compare_images(one, one + level * noise, 1.0) for level in (0.0, 0.01, 0.03, 0.1)]
    for key in ("psnr_db", "ssim", "ms_ssim"):
        values = [getattr(item, key) for item in found]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == 4


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match=r"shape \(4, 5\) and \(5, 4\)"):
        compare_images(np.zeros((4, 5)), np.zeros((5, 4)), 1.0)
    with pytest.raises(BadInput, match="NaN or infinite"):
        compare_images(np.zeros((4, 5)), np.full((4, 5), np.nan), 1.0)
    with pytest.raises(BadInput, match="a data range of 0"):
        compare_images(np.zeros((4, 5)), np.ones((4, 5)), 0.0)


def test_a_stack_is_as_alike_as_its_worst_image_and_missing_ones_are_counted() -> None:
    stack = np.stack([image((20, 20), seed) for seed in range(5)])
    other = stack.copy()
    other[3] += np.random.default_rng(1).normal(0, 0.1, (20, 20))
    both, one_sided = stack.copy(), other.copy()
    both[0] = one_sided[0] = np.nan
    one_sided[1] = np.nan
    found = compare_stacks(both, one_sided, 2)
    assert (found.n_images, found.n_images_missing, found.n_images_one_sided) == (3, 1, 1)
    alone = compare_images(stack[3], other[3], float(np.ptp(stack[1:])))
    assert found.ssim == alone.ssim
    assert found.psnr_db == alone.psnr_db
    assert found.ssim_mean == pytest.approx((alone.ssim + 2) / 3)


def test_stacks_without_a_range_or_without_images_are_no_accident() -> None:
    flat = compare_stacks(np.zeros((2, 20, 20)), np.full((2, 20, 20), 0.5), 2)
    assert flat.psnr_db == pytest.approx(0.0)
    nothing = compare_stacks(np.full((1, 20, 20), np.nan), np.full((1, 20, 20), np.nan), 2)
    assert (nothing.n_images, nothing.n_images_missing) == (0, 1)
    assert math.isnan(nothing.ssim)
