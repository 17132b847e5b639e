"""Diffusion's pure functions against what is known: normal data, a mixture, both ends of the schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from doseledger.learn.networks import schedule as diffusion

N = 20_000
WEIGHTS, MEANS, WIDTHS = torch.tensor([0.3, 0.7]), torch.tensor([-0.8, 0.5]), torch.tensor([0.1, 0.2])
Denoiser = Callable[[Tensor, Tensor], Tensor]


def normal_denoiser(mean: float, width: float) -> Denoiser:
    """The best x0 of normal data, in closed form."""

    def denoise(x: Tensor, phi: Tensor) -> Tensor:
        alpha, sigma = diffusion.alpha_sigma(phi)
        return mean + alpha * width**2 / ((alpha * width) ** 2 + sigma**2) * (x - alpha * mean)

    return denoise


def mixture_denoiser(x: Tensor, phi: Tensor) -> Tensor:
    """The best x0 of two normal heaps, in closed form."""
    alpha, sigma = diffusion.alpha_sigma(phi)
    variance = (alpha * WIDTHS) ** 2 + sigma**2
    log_share = WEIGHTS.log() - 0.5 * variance.log() - 0.5 * (x[:, None] - alpha * MEANS) ** 2 / variance
    of_each = MEANS + alpha * WIDTHS**2 / variance * (x[:, None] - alpha * MEANS)
    return (log_share.softmax(dim=1) * of_each).sum(dim=1)


def ancestral_step(x: Tensor, x0: Tensor, phi: Tensor, lower: Tensor, noise: Tensor) -> Tensor:
    """A draw from the posterior of the forward process: Ho et al. 2020, eq. 6 and 7, in continuous time."""
    (alpha, sigma), (alpha_next, sigma_next) = diffusion.alpha_sigma(phi), diffusion.alpha_sigma(lower)
    ratio = alpha / alpha_next
    added = (sigma.square() - (ratio * sigma_next).square()).clamp_min(0)
    of_x, of_x0 = ratio * sigma_next.square() / sigma.square(), alpha_next * added / sigma.square()
    return of_x * x + of_x0 * x0 + added.sqrt() * sigma_next / sigma * noise


@pytest.fixture
def noise() -> Tensor:
    # Even quantiles of the normal distribution: no chance in these tests.
    return torch.special.ndtri((torch.arange(N) + 0.5) / N)


@pytest.mark.parametrize("shift", [0.0, -2.0, 3.0])
def test_time_0_is_the_data_and_time_1_is_noise_alone(shift: float) -> None:
    phi = diffusion.angle(torch.tensor([0.0, 1.0]), shift)
    alpha, sigma = diffusion.alpha_sigma(phi)
    assert alpha.tolist() == [1.0, 0.0]
    assert sigma.tolist() == [0.0, 1.0]
    x0, eps = torch.full((2,), 3.0), torch.full((2,), -1.0)
    assert diffusion.add_noise(x0, eps, phi).tolist() == [3.0, -1.0]


def test_a_shift_moves_the_log_snr_by_itself_at_every_time() -> None:
    t = torch.linspace(0.05, 0.95, 7)
    (alpha, sigma), (plain_alpha, plain_sigma) = (diffusion.alpha_sigma(diffusion.angle(t, s)) for s in (-2.0, 0.0))
    moved = 2 * torch.log(alpha / sigma) - 2 * torch.log(plain_alpha / plain_sigma)
    torch.testing.assert_close(moved, torch.full_like(t, -2.0), atol=1e-4, rtol=0)


def test_without_shift_it_is_the_cosine_schedule() -> None:
    alpha, _ = diffusion.alpha_sigma(diffusion.angle(torch.tensor(0.5), 0.0))
    assert float(alpha) == pytest.approx(math.cos(math.pi / 4), abs=1e-6)


def test_v_x0_and_eps_tell_the_same() -> None:
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 500, generator=generator)
    phi = diffusion.angle(torch.rand(500, generator=generator), -1.0)
    x, v = diffusion.add_noise(x0, eps, phi), diffusion.velocity(x0, eps, phi)
    torch.testing.assert_close(diffusion.x0_of_v(x, v, phi), x0, atol=1e-5, rtol=0)
    alpha, sigma = diffusion.alpha_sigma(phi)
    torch.testing.assert_close(sigma * x + alpha * v, eps, atol=1e-5, rtol=0)
    far = diffusion.alpha_sigma(phi)[1] > 0.05
    torch.testing.assert_close(diffusion.eps_of_x0(x, x0, phi)[far], eps[far], atol=1e-4, rtol=0)
    assert torch.equal(diffusion.x0_of_output(x0, x, phi, "x0"), x0)
    torch.testing.assert_close(diffusion.x0_of_output(v, x, phi, "v"), x0, atol=1e-5, rtol=0)


def test_v_is_how_the_state_turns_with_the_angle() -> None:
    x0, eps, phi, step = torch.tensor(0.7), torch.tensor(-0.4), torch.tensor(0.6), 1e-3
    slope = (diffusion.add_noise(x0, eps, phi + step) - diffusion.add_noise(x0, eps, phi - step)) / (2 * step)
    assert float(slope) == pytest.approx(float(diffusion.velocity(x0, eps, phi)), abs=1e-4)


@pytest.mark.parametrize("kind", ["plain", "min_snr"])
@pytest.mark.parametrize("parameterisation", ["v", "x0"])
def test_no_weight_grows_with_the_noise_and_none_is_0_where_sampling_begins(kind: str, parameterisation: str) -> None:
    phi = diffusion.angle(torch.linspace(0.0, 1.0, 101), -2.0)
    weight = diffusion.loss_weight(phi, parameterisation, kind, 5.0)
    assert float(weight[-1]) == pytest.approx(1.0)
    assert float(weight.max()) <= 6.0
    assert torch.isfinite(weight).all()


def test_min_snr_counts_an_error_of_x0_the_same_in_both_parameterisations() -> None:
    phi, error_of_v = torch.tensor([0.2, 0.8, 1.5]), torch.tensor([0.3, 0.3, 0.3])
    error_of_x0 = error_of_v * torch.sin(phi)
    of_v = diffusion.loss_weight(phi, "v", "min_snr", 5.0) * error_of_v**2
    of_x0 = diffusion.loss_weight(phi, "x0", "min_snr", 5.0) * error_of_x0**2
    torch.testing.assert_close(of_v, of_x0)


def test_a_ddim_step_with_the_true_x0_lands_on_the_true_state() -> None:
    x0, eps = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.5])
    phi, lower = torch.tensor(1.2), torch.tensor(0.4)
    state = diffusion.ddim_step(diffusion.add_noise(x0, eps, phi), x0, phi, lower)
    torch.testing.assert_close(state, diffusion.add_noise(x0, eps, lower))
    assert torch.equal(diffusion.ddim_step(state, x0, lower, torch.tensor(0.0)), x0)


def test_a_clamped_x0_and_the_noise_derived_again_still_make_up_the_state() -> None:
    x, phi = torch.tensor([2.5, -0.3]), torch.tensor(0.9)
    clamped = torch.tensor([1.0, 0.0])
    again = diffusion.add_noise(clamped, diffusion.eps_of_x0(x, clamped, phi), phi)
    torch.testing.assert_close(again, x)


@pytest.mark.parametrize(("sampler", "n_steps", "off"), [("euler", 20, 0.03), ("heun", 10, 0.01)])
@pytest.mark.parametrize("width", [7.0, 3.0, 1.0, 0.3, 0.1])
def test_normal_data_keep_their_mean_and_width_in_20_evaluations(
    noise: Tensor, sampler: str, n_steps: int, off: float, width: float
) -> None:
    drawn = diffusion.sample(normal_denoiser(0.4, width), noise, diffusion.sampling_angles(n_steps), sampler)
    assert float(drawn.mean()) == pytest.approx(0.4, abs=off)
    assert float(drawn.std()) == pytest.approx(width, rel=0.12)


def test_ddim_keeps_them_in_many_steps_only(noise: Tensor) -> None:
    widths = [
        float(diffusion.sample(normal_denoiser(0.4, 0.3), noise, diffusion.sampling_angles(n), "ddim").std())
        for n in (10, 20, 200)
    ]
    assert widths == sorted(widths)
    assert widths[-1] == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun"])
def test_a_mixture_keeps_its_mean_its_variance_and_the_share_of_each_heap(noise: Tensor, sampler: str) -> None:
    drawn = diffusion.sample(mixture_denoiser, noise, diffusion.sampling_angles(25), sampler)
    mean = float((WEIGHTS * MEANS).sum())
    variance = float((WEIGHTS * (WIDTHS**2 + MEANS**2)).sum()) - mean**2
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.02)
    assert float(drawn.var()) == pytest.approx(variance, rel=0.08)
    assert float((drawn < -0.3).float().mean()) == pytest.approx(0.3, abs=0.015)


def test_ancestral_steps_draw_the_mixture_too(noise: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    x, angles = noise, diffusion.sampling_angles(60)
    for phi, lower in pairwise(angles):
        fresh = torch.randn(N, generator=generator)
        x = ancestral_step(x, mixture_denoiser(x, phi), phi, lower, fresh)
    mean = float((WEIGHTS * MEANS).sum())
    assert float(x.mean()) == pytest.approx(mean, abs=0.03)
    assert float((x < -0.3).float().mean()) == pytest.approx(0.3, abs=0.02)


def test_sampling_begins_at_noise_alone_and_ends_at_none_with_its_longest_steps_between() -> None:
    angles = diffusion.sampling_angles(10)
    assert len(angles) == 11
    assert float(angles[0]) == pytest.approx(math.pi / 2)
    assert float(angles[-1]) == 0.0
    steps = -angles.diff()
    assert (steps > 0).all()
    assert steps.argmax() not in (0, 9)


def test_every_angle_has_an_embedding_of_its_own() -> None:
    angles = torch.linspace(0, math.pi / 2, 200)
    embedded = diffusion.embed_time(angles)
    assert embedded.shape == (200, diffusion.EMBEDDING_SIZE)
    apart = torch.cdist(embedded, embedded) + 10 * torch.eye(200)
    assert float(apart.min()) > 0.05
