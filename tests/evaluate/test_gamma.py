"""Gamma: known answers, properties, the reference implementation, real measured planes, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from doseledger.evaluate import gamma as gm

GLOBAL_3_3 = gm.GammaCriteria(3, 3, 10, local=False, interp_fraction=10, max_gamma=2.0)


def dose_pair(shape: tuple[int, ...], seed: int = 0, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """A smooth dose up to 70 Gy, and a shifted, noisy copy of it."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.random(shape), 2)
    reference = (smooth - smooth.min()) / np.ptp(smooth) * 70
    evaluation = 0.6 * reference + 0.4 * np.roll(reference, 1, axis=-1)
    evaluation *= 1 + 0.01 * rng.standard_normal(shape)
    return reference.astype(dtype), evaluation.astype(dtype)


def pymedphys_map(axes_reference, reference, axes_evaluation, evaluation, criteria) -> np.ndarray:
    import pymedphys

    return pymedphys.gamma(
        tuple(axes_reference),
        reference.astype(np.float64),
        tuple(axes_evaluation),
        evaluation.astype(np.float64),
        criteria.gamma_percent,
        criteria.gamma_mm,
        lower_percent_dose_cutoff=criteria.cutoff_percent,
        interp_fraction=criteria.interp_fraction,
        max_gamma=criteria.max_gamma,
        local_gamma=criteria.local,
        global_normalisation=criteria.normalisation_gy,
    )


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
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = pymedphys_map(axes, reference, axes, evaluation, criteria)
    found = gm.gamma_map(axes, reference, axes, evaluation, criteria)
    assert_same_map(found, wanted)
    summary = gm.pass_rate_percent(axes, reference, axes, evaluation, criteria)
    assert summary == gm.summarise(found, criteria, reference)
    assert summary.n_passed == np.count_nonzero(wanted <= 1 + 1e-9)
