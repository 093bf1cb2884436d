from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.generation.ddim import (
    DdimSchedule,
    ddim_mean,
    ddim_schedule,
    gaussian_kl,
    gaussian_log_prob,
    split_prediction,
)

TYPES = ("epsilon", "v_prediction", "sample")


def diffusers_scheduler(prediction_type: str, **options: Any) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type, **options,
    )  # fmt: skip


def column(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64).reshape(1, 1, 1, 1)


def random_step(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents before and after a step, and a prediction, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x_t, x_s, prediction = torch.randn((3, 5, 2, 3, 3), generator=generator, dtype=torch.float64)
    return x_t, x_s, prediction


def test_a_step_worked_by_hand() -> None:
    # a_t = 0.36, a_s = 0.64, eta 1:
    #   sigma^2 = (0.36 / 0.64) (1 - 0.36 / 0.64) = 0.5625 * 0.4375 = 0.24609375
    # x_t = 1, eps = 0.5:
    #   x0 = (1 - 0.8 * 0.5) / 0.6 = 1
    #   mu = 0.8 * 1 + sqrt(1 - 0.64 - 0.24609375) * 0.5 = 0.8 + 0.3375 * 0.5 = 0.96875
    # x_s = 1.2:
    #   log p = -(1.2 - 0.96875)^2 / (2 * 0.24609375) - log(2 pi 0.24609375) / 2 = -0.32656796781145153
    schedule = ddim_schedule(made_by_hand([0.64, 0.36]), steps=2, eta=1.0)
    assert schedule.sigma[0] ** 2 == pytest.approx(0.24609375, abs=1e-7)  # the scheduler keeps its alphas in float32
    x_t, sigma = column(1.0), column(math.sqrt(0.24609375))
    mean = ddim_mean(column(0.5), x_t, column(0.36), column(0.64), sigma, "epsilon")
    assert mean.item() == pytest.approx(0.96875, abs=1e-14)  # float64 rounding of four operations
    assert gaussian_log_prob(column(1.2), mean, sigma).item() == pytest.approx(-0.32656796781145153, abs=1e-14)


def made_by_hand(cumulative: list[float], final: float = 0.9) -> Any:
    """A scheduler of as many steps as there are alphas."""
    return SimpleNamespace(
        alphas_cumprod=torch.tensor(cumulative),
        final_alpha_cumprod=torch.tensor(final),
        config=SimpleNamespace(num_train_timesteps=len(cumulative)),
        timesteps=torch.arange(len(cumulative) - 1, -1, -1),
        set_timesteps=lambda steps: None,
    )


@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_three_predictions_describe_the_same_noisy_picture(prediction_type: str) -> None:
    x0, eps, _ = random_step()
    alpha = column(0.3)
    x_t = alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps
    prediction = {
        "epsilon": eps, "sample": x0, "v_prediction": alpha.sqrt() * eps - (1 - alpha).sqrt() * x0,
    }[prediction_type]  # fmt: skip
    found = split_prediction(prediction, x_t, alpha, prediction_type)
    # 1e-12: float64 rounding, divided by sqrt(0.3) at most
    torch.testing.assert_close(found[0], x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1], eps, rtol=0, atol=1e-12)


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction type 'flow' is not one of epsilon, v_prediction, sample"):
        split_prediction(column(0), column(0), column(0.5), "flow")


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_step_has_the_mean_and_sigma_of_diffusers(eta: float, prediction_type: str) -> None:
    scheduler = diffusers_scheduler(prediction_type)
    schedule = ddim_schedule(scheduler, steps=10, eta=eta)
    x_t, _, prediction = random_step()
    for step in range(len(schedule)):
        t = int(schedule.timesteps[step])
        noise = torch.zeros_like(x_t)
        mean_there = scheduler.step(prediction, t, x_t, eta=eta, variance_noise=noise).prev_sample
        sigma_there = scheduler.step(prediction, t, x_t, eta=eta, variance_noise=noise + 1).prev_sample - mean_there
        sigma = schedule.sigma[step].reshape(1, 1, 1, 1)
        mean = ddim_mean(
            prediction, x_t, schedule.alpha_t[step].reshape(1, 1, 1, 1), schedule.alpha_s[step].reshape(1, 1, 1, 1),
            sigma, prediction_type,
        )  # fmt: skip
        # diffusers takes its square roots in float32, and 1 - alpha loses up to four digits where alpha is near 1;
        # means are of size 1, or 15 where x0 = (x - noise) / sqrt(0.005) is large: hence a relative 2e-4
        torch.testing.assert_close(mean, mean_there, rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(sigma.expand_as(x_t), sigma_there, rtol=2e-4, atol=2e-5)


def test_eta_0_is_deterministic_and_eta_scales_the_noise() -> None:
    scheduler = diffusers_scheduler("epsilon")
    assert torch.equal(ddim_schedule(scheduler, 10, 0.0).sigma, torch.zeros(10, dtype=torch.float64))
    half, whole = ddim_schedule(scheduler, 10, 0.5), ddim_schedule(scheduler, 10, 1.0)
    assert torch.equal(2 * half.sigma, whole.sigma)  # exact: a factor of two
    assert (whole.sigma > 0).all()  # the last step too, so that it has a log-probability


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_the_steps_are_those_of_diffusers(spacing: str) -> None:
    scheduler = diffusers_scheduler("epsilon", timestep_spacing=spacing)
    schedule = ddim_schedule(scheduler, 7, 1.0)
    scheduler.set_timesteps(7)
    assert torch.equal(schedule.timesteps, scheduler.timesteps)
    assert len(schedule) == 7
    assert (schedule.alpha_s > schedule.alpha_t).all()  # every step takes noise away


@pytest.mark.parametrize(("steps", "message"), [(0, "takes 1 to 1000"), (1001, "takes 1 to 1000"), (1000, "fewer")])
def test_more_steps_than_the_scheduler_has_are_refused(steps: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ddim_schedule(diffusers_scheduler("epsilon"), steps, 1.0)


def test_the_log_probability_is_that_of_torch_distributions() -> None:
    _, x_s, mean = random_step()
    sigma = torch.rand((5, 1, 1, 1), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.01
    there = torch.distributions.Normal(mean, sigma).log_prob(x_s)
    # 1e-12: both are float64, of size up to 1e4 / 18 elements where sigma is small
    torch.testing.assert_close(gaussian_log_prob(x_s, mean, sigma, "sum"), there.sum((1, 2, 3)), rtol=1e-12, atol=0)
    torch.testing.assert_close(gaussian_log_prob(x_s, mean, sigma), there.mean((1, 2, 3)), rtol=1e-12, atol=0)


def test_the_mean_is_the_sum_divided_by_the_number_of_elements() -> None:
    _, x_s, mean = random_step()
    sigma = column(0.3)
    for function in (gaussian_log_prob, gaussian_kl):
        ratio = function(x_s, mean, sigma, "sum") / function(x_s, mean, sigma, "mean")
        torch.testing.assert_close(ratio, torch.full((5,), 18.0, dtype=torch.float64))  # 2 x 3 x 3 elements


@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_gradient_is_that_of_finite_differences(prediction_type: str) -> None:
    x_t, x_s, prediction = random_step()
    schedule = ddim_schedule(diffusers_scheduler(prediction_type), 10, 1.0)

    def log_prob(prediction: torch.Tensor) -> torch.Tensor:
        # each of the five samples at another step
        at = [tensor[:5].reshape(-1, 1, 1, 1) for tensor in (schedule.alpha_t, schedule.alpha_s, schedule.sigma)]
        return gaussian_log_prob(x_s, ddim_mean(prediction, x_t, *at, prediction_type), at[2])

    # gradcheck's own tolerance (1e-5 absolute, 1e-3 relative) fits its step of 1e-6 in float64
    assert torch.autograd.gradcheck(log_prob, (prediction.requires_grad_(True),))


def test_the_kl_is_that_of_torch_distributions() -> None:
    mean, other, _ = random_step()
    sigma = column(0.4)
    there = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, sigma.expand_as(mean)), torch.distributions.Normal(other, sigma)
    )
    torch.testing.assert_close(gaussian_kl(mean, other, sigma, "sum"), there.sum((1, 2, 3)), rtol=1e-12, atol=0)
    assert torch.equal(gaussian_kl(mean, mean, sigma), torch.zeros(5, dtype=torch.float64))


def test_the_kl_is_the_expected_log_ratio() -> None:
    mean, other, sigma = column(0.3), column(-0.1), column(0.7)
    x = mean + sigma * torch.randn((100_000, 1, 1, 1), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ratio = gaussian_log_prob(x, mean, sigma) - gaussian_log_prob(x, other, sigma)
    # four standard errors of the mean of 100,000 draws
    assert ratio.mean().item() == pytest.approx(
        gaussian_kl(mean, other, sigma).item(), abs=4 * ratio.std().item() / math.sqrt(len(x))
    )


def test_a_schedule_knows_its_length() -> None:
    row = torch.zeros(3)
    assert len(DdimSchedule(row.long(), row, row, row)) == 3
