"""The clipped loss by hand, and its gradient against finite differences."""

from __future__ import annotations

import pytest
import torch

from clinalign.generation.architecture import build_scheduler
from clinalign.generation.ddim import Reduction, ddim_schedule, gaussian_log_prob
from clinalign.tuning.objectives.ddpo import ddpo_loss, normalised_log_ratio

RATIOS = torch.tensor([0.8, 0.95, 1.0, 1.05, 1.2], dtype=torch.float64)


def test_by_hand() -> None:
    # clip range 0.1: the ratio is held in [0.9, 1.1], and the loss is the worse (larger) of the two
    good = ddpo_loss(RATIOS.log(), torch.full((5,), 2.0).double(), 0.1)
    # A = 2: -2 r against -2 clip(r): the clip binds above, where there is nothing more to gain
    torch.testing.assert_close(good.loss, torch.tensor([-1.6, -1.9, -2.0, -2.1, -2.2], dtype=torch.float64))
    bad = ddpo_loss(RATIOS.log(), torch.full((5,), -2.0).double(), 0.1)
    # A = -2: 2 r against 2 clip(r): the clip binds below
    torch.testing.assert_close(bad.loss, torch.tensor([1.8, 1.9, 2.0, 2.1, 2.4], dtype=torch.float64))
    assert good.clipped.tolist() == [True, False, False, False, True]
    torch.testing.assert_close(good.ratio, RATIOS)


def test_no_gradient_where_the_clip_binds() -> None:
    for advantage, silent in ((2.0, 4), (-2.0, 0)):
        log_prob = RATIOS.log().requires_grad_()
        ddpo_loss(log_prob, torch.full((5,), advantage).double(), 0.1).loss.sum().backward()
        assert log_prob.grad is not None
        # elsewhere d loss / d log p = -A rho
        wanted = -advantage * RATIOS
        wanted[silent] = 0.0
        torch.testing.assert_close(log_prob.grad, wanted)


def test_gradient_equals_finite_differences() -> None:
    # float64, steps of 1e-6, all rows away from the kinks at 0.9, 1.0 and 1.1: gradcheck's own tolerance of 1e-5 holds
    log_prob = torch.tensor([-0.3, -0.04, 0.03, 0.25], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.5, -0.7, 0.4, -2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ddpo_loss(x, advantage, 0.1).loss, (log_prob,), eps=1e-6, atol=1e-5)


def test_on_policy_it_is_the_score_function_gradient() -> None:
    log_prob = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    advantage = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ddpo_loss(log_prob - log_prob.detach(), advantage, 1e-4).loss.sum().backward()
    assert log_prob.grad is not None
    torch.testing.assert_close(log_prob.grad, -advantage)  # exp(0) is exactly 1


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_normalised_log_ratio_is_the_published_one(reduction: Reduction) -> None:
    # methods 4.2: sigma (log rho + ||mu - mu_old||^2 / (2 sigma^2)), the norm reduced as the log-probability is
    chance = torch.Generator().manual_seed(0)
    old, noise, step = (torch.randn((5, 3, 4, 4), dtype=torch.float64, generator=chance) for _ in range(3))
    sigma = torch.tensor([0.04, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    mean, x_s = old + 0.1 * step, old + sigma * noise
    log_rho = gaussian_log_prob(x_s, mean, sigma, reduction) - gaussian_log_prob(x_s, old, sigma, reduction)
    moved = ((mean - old).square() / (2 * sigma**2)).flatten(1)
    wanted = sigma.flatten() * (log_rho + (moved.mean(1) if reduction == "mean" else moved.sum(1)))
    torch.testing.assert_close(normalised_log_ratio(mean, x_s, noise, sigma, reduction), wanted)


def test_normalised_log_ratio_has_mean_zero_and_one_scale_on_the_old_policy() -> None:
    # 4000 draws of a step that moved the mean by 0.1 everywhere: the result is N(0, 0.1^2 / 64) at any sigma,
    # so the mean lies within 4 standard errors of 0 and the spread within 5 % of 0.0125
    noise = torch.randn((4000, 1, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for size in (0.04, 0.8):
        sigma = torch.full((4000, 1, 1, 1), size, dtype=torch.float64)
        mean = torch.full_like(noise, 0.1)
        ratio = normalised_log_ratio(mean, sigma * noise, noise, sigma, "mean")
        assert abs(float(ratio.mean())) < 4 * 0.0125 / 4000**0.5
        assert float(ratio.std()) == pytest.approx(0.0125, rel=0.05)


def test_without_it_the_step_before_the_last_drowns_the_others() -> None:
    # Figures of docs/tune.md: |d mu / d prediction| / sigma of v-prediction on Stable Diffusion's schedule, 10 steps
    schedule = ddim_schedule(build_scheduler(), 10, 1.0)
    alpha_t, alpha_s, sigma = schedule.alpha_t, schedule.alpha_s, schedule.sigma
    moved = ((1 - alpha_s - sigma**2).clamp(min=0) * alpha_t).sqrt() - (alpha_s * (1 - alpha_t)).sqrt()
    plain = (moved.abs() / sigma).tolist()
    assert plain == pytest.approx([0.15, 0.22, 0.30, 0.40, 0.51, 0.64, 0.81, 1.15, 7.86, 1.0], abs=0.006)
    assert plain[8] ** 2 / sum(value**2 for value in plain) > 0.9  # its share of the gradient's variance
    long = ddim_schedule(build_scheduler(), 50, 1.0)
    late = ((1 - long.alpha_s - long.sigma**2).clamp(min=0) * long.alpha_t).sqrt()
    late = (late - (long.alpha_s * (1 - long.alpha_t)).sqrt()).abs() / long.sigma
    assert float(late[-2]) == pytest.approx(3.2, abs=0.06)
    normalised = moved.abs()
    assert float(normalised[8] ** 2 / normalised.square().sum()) < 0.25
