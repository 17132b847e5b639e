"""Similarity of images: PSNR, SSIM and multi-scale SSIM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array, Floats

# Wang, Bovik, Sheikh & Simoncelli, IEEE Trans Image Process 13:600, 2004: a Gaussian window of σ 1.5 over 11 pixels,
# and the two constants that keep the fractions finite.
SIGMA_PIXELS = 1.5
WINDOW_PIXELS = 11
K1, K2 = 0.01, 0.03
# Wang, Simoncelli & Bovik, Asilomar 2003: how much each scale counts, the finest first.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@dataclass(frozen=True)
class Similarity:
    """How alike two images are.

    Parameters
    ----------
    psnr_db
        Peak signal-to-noise ratio in dB; infinite for equal images.
    ssim
        Structural similarity, 1 for equal images; NaN where the window is larger than the image.
    ms_ssim
        The same over `scales` scales; NaN as above.
    scales
        Scales that the image is large enough for; fewer than five make a number that is not the published one.
    """

    psnr_db: float
    ssim: float
    ms_ssim: float
    scales: int


def compare_images(reference: Array, image: Array, data_range: float) -> Similarity:
    """Return how alike two images are.

    Parameters
    ----------
    reference, image
        Real and finite, (y, x) or (z, y, x), of one shape.
    data_range
        Between which extremes values can lie, as a difference.

    Raises
    ------
    BadInput
        If the shapes differ, a value is not finite, or the range is not positive.

    Notes
    -----
    An image that equals its reference is alike by definition, whatever its range and size. PSNR is 10 log10(range² /
    mean squared difference). SSIM is Wang et al. 2004, equation 13, over the points at which the whole window lies
    inside the image. MS-SSIM is Wang et al. 2003, equation 7: contrast and structure at every scale, luminance at the
    coarsest, each to the power of its weight. Scales at which the image would be smaller than the window are left out
    and the other weights brought to the sum 1. A scale whose contrast term is negative counts as 0, as its power would
    not be real.
    """
    if reference.shape != image.shape or reference.ndim not in (2, 3):
        raise BadInput(f"images of shape {reference.shape} and {image.shape}: wanted two of one shape, in 2D or 3D")
    if np.array_equal(reference, image):
        return Similarity(math.inf, 1.0, 1.0, len(SCALE_WEIGHTS))
    one, other = reference.astype(np.float64), image.astype(np.float64)
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise BadInput("images with NaN or infinite values can't be compared; set missing ones aside first")
    if not data_range > 0:
        raise BadInput(f"a data range of {data_range:g}: wanted more than 0")
    mean_square = float(np.mean((one - other) ** 2))
    psnr_db = math.inf if mean_square == 0 else 10.0 * math.log10(data_range**2 / mean_square)
    scales = list(_scales(one, other, data_range))
    if not scales:
        return Similarity(psnr_db, math.nan, math.nan, 0)
    # Of each scale its contrast term, of the coarsest luminance as well.
    terms = [*(contrast for _, contrast in scales[:-1]), scales[-1][0]]
    weights = SCALE_WEIGHTS[: len(scales)]
    powers = (max(term, 0.0) ** (weight / sum(weights)) for term, weight in zip(terms, weights, strict=True))
    return Similarity(psnr_db, scales[0][0], math.prod(powers), len(scales))


def _scales(one: Floats, other: Floats, data_range: float) -> Iterator[tuple[float, float]]:
    """SSIM and its mean contrast term at every scale that the window fits into, the finest first."""
    for number in range(len(SCALE_WEIGHTS)):
        if number:
            one, other = _halved(one), _halved(other)
        if min(one.shape) < WINDOW_PIXELS:
            return
        luminance, contrast = _ssim_terms(one, other, data_range)
        yield float(np.mean(luminance * contrast)), float(np.mean(contrast))


def _ssim_terms(x: Floats, y: Floats, data_range: float) -> tuple[Floats, Floats]:
    """Luminance, and contrast times structure, at the points whose whole window lies inside the image."""
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x, var_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    return luminance, contrast


def _windowed(values: Floats) -> Floats:
    from scipy.ndimage import correlate1d

    radius = WINDOW_PIXELS // 2
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-0.5 * (offsets / SIGMA_PIXELS) ** 2)
    window /= window.sum()
    for axis in range(values.ndim):
        values = correlate1d(values, window, axis=axis, mode="reflect")
        # Points whose window reaches out of the image go at once: the next axes then cost less.
        values = values[(slice(None),) * axis + (slice(radius, values.shape[axis] - radius),)]
    return values


def _halved(values: Floats) -> Floats:
    """Means over blocks of two along each axis; an odd row at the end is left out."""
    for axis in range(values.ndim):
        rows = values.swapaxes(0, axis)
        n = len(rows) // 2 * 2
        values = ((rows[0:n:2] + rows[1:n:2]) / 2).swapaxes(0, axis)
    return values


@dataclass(frozen=True)
class ImageParity:
    """How alike the images of two arrays are.

    Parameters
    ----------
    n_images
        Pairs that were compared.
    n_images_missing, n_images_one_sided
        Pairs that have a value that is not finite: in both images at the same places, or not at the same.
    psnr_db, ssim, ms_ssim
        The worst of all pairs.
    ssim_mean, ms_ssim_mean
        Means over the pairs.
    scales
        Of the multi-scale index; five is the published one.
    """

    n_images: int
    n_images_missing: int
    n_images_one_sided: int
    psnr_db: float
    ssim: float
    ms_ssim: float
    ssim_mean: float
    ms_ssim_mean: float
    scales: int


def compare_stacks(reference: Array, other: Array, image_axes: int) -> ImageParity:
    """Return how alike two stacks of images are, image by image.

    Parameters
    ----------
    reference, other
        Real arrays of one shape whose last `image_axes` axes are an image.
    image_axes
        2 or 3.

    Notes
    -----
    The data range of a pair is that of all finite values of the reference's stack, so that an empty slice among
    others is not judged by its own noise.
    """
    shape = (-1, *reference.shape[reference.ndim - image_axes :])
    finite = reference[np.isfinite(reference)]
    data_range = float(finite.max()) - float(finite.min()) if finite.size else 0.0
    found: list[Similarity] = []
    missing = one_sided = 0
    for one, two in zip(reference.reshape(shape), other.reshape(shape), strict=True):
        gaps = [~np.isfinite(image) for image in (one, two)]
        if gaps[0].any() or gaps[1].any():
            same = np.array_equal(*gaps)
            missing, one_sided = missing + same, one_sided + (not same)
            continue
        # A stack that does not vary has no range: any difference is as large as the difference itself.
        scale = data_range or float(np.abs(one.astype(np.float64) - two).max()) or 1.0
        found.append(compare_images(one, two, scale))
    if not found:
        none = math.nan
        return ImageParity(0, missing, one_sided, none, none, none, none, none, 0)
    return ImageParity(
        n_images=len(found),
        n_images_missing=missing,
        n_images_one_sided=one_sided,
        psnr_db=_worst([item.psnr_db for item in found]),
        ssim=_worst([item.ssim for item in found]),
        ms_ssim=_worst([item.ms_ssim for item in found]),
        ssim_mean=float(np.mean([item.ssim for item in found])),
        ms_ssim_mean=float(np.mean([item.ms_ssim for item in found])),
        scales=min(item.scales for item in found),
    )


def _worst(values: list[float]) -> float:
    # min() of a list with NaN depends on its order.
    return math.nan if any(math.isnan(value) for value in values) else min(values)
