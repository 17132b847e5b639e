"""Gamma by PyTorch, on its CPU device: the same map as the compiled search, in float64 and float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from doseledger.core.errors import BadInput, NotReady
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.gpu import torch_map
from doseledger.dosimetry.gamma.grids import DosePair
from doseledger.dosimetry.gamma.map import gamma_map

GLOBAL_3_3 = GammaCriteria(3, 3, 10, local=False, interp_fraction=5, max_gamma=2.0)
SHAPES = {(40,): (1.0,), (26, 21): (1.0, 2.5), (11, 13, 12): (3.0, 1.0, 2.0)}


def smooth_dose(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A smooth dose up to 70 Gy, float32."""
    smooth = gaussian_filter(np.random.default_rng(seed).random(shape), 2)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 70).astype(np.float32)


def dose_pair(shape: tuple[int, ...]) -> DosePair:
    reference = smooth_dose(shape, 0)
    evaluation = np.float32(0.6) * reference + np.float32(0.4) * np.roll(reference, 1, axis=-1)
    return DosePair.on_one_grid(reference, evaluation, SHAPES[shape])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("max_gamma", [1.1, 2.0, np.inf])
def test_the_map_by_torch_is_the_compiled_one(shape, local, max_gamma) -> None:
    if np.isinf(max_gamma) and (local or len(shape) == 3):
        max_gamma = 5.0
    criteria = replace(GLOBAL_3_3, local=local, max_gamma=max_gamma)
    pair = dose_pair(shape)
    wanted = gamma_map(pair, criteria)
    assert np.isfinite(wanted).any()
    for single, tolerance in ((False, 1e-10), (True, 1e-4)):
        found = torch_map(pair, criteria, device="cpu", single=single)
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        assert np.nanmax(np.abs(found - wanted)) < tolerance


@pytest.mark.parametrize(("spacing_mm", "offset_mm"), [(2.0, 0.3), (1.7, 0.1), (4.0, -1.0)])
@pytest.mark.parametrize("single", [False, True])
def test_grids_that_differ_and_points_beside_the_grid_have_the_compiled_gamma(spacing_mm, offset_mm, single) -> None:
    axes = [2.0 * np.arange(n) for n in (9, 11, 10)]
    others = [offset_mm + spacing_mm * np.arange(8) for _ in range(3)]
    pair = DosePair(axes, smooth_dose((9, 11, 10), 0), others, smooth_dose((8, 8, 8), 1))
    wanted = gamma_map(pair, GLOBAL_3_3)
    found = torch_map(pair, GLOBAL_3_3, device="cpu", single=single)
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    assert np.nanmax(np.abs(found - wanted)) < (1e-4 if single else 1e-10)


def test_a_search_in_small_parts_gives_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = dose_pair((11, 13, 12))
    wanted = torch_map(pair, GLOBAL_3_3, device="cpu")
    looked_up = []
    monkeypatch.setattr("doseledger.dosimetry.gamma.gpu.PAIRS_AT_ONCE", 700)
    least = torch.minimum
    monkeypatch.setattr(torch, "minimum", lambda one, other: looked_up.append(len(one)) or least(one, other))
    found = torch_map(pair, GLOBAL_3_3, device="cpu")
    assert np.array_equal(found, wanted, equal_nan=True)
    assert max(looked_up) <= 700


def test_a_mask_is_kept_and_wrong_doses_are_refused() -> None:
    pair = dose_pair((11, 13, 12))
    mask = np.random.default_rng(0).random(pair.reference_gy.shape) < 0.5
    found = torch_map(replace(pair, mask=mask), GLOBAL_3_3, device="cpu")
    assert np.isnan(found[~mask]).all()
    broken = pair.evaluation_gy.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(BadInput, match="evaluation dose has 1 voxels that are NaN"):
        torch_map(replace(pair, evaluation_gy=broken), GLOBAL_3_3, device="cpu")


def test_without_a_gpu_the_engine_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotReady, match="use the engine `sampled`"):
        torch_map(dose_pair((40,)), GLOBAL_3_3)
