r"""The DDIM step as a Gaussian policy: pure functions on tensors.

One denoising step is the action of a policy :math:`p(x_{t-1} | x_t, c) = N(\mu_t, \sigma_t^2 I)` (DDPO, arXiv
2305.13301, on DDIM with stochasticity eta, arXiv 2010.02502, eq. 12 and 16):

    x0      = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t)
    sigma_t = eta sqrt((1 - a_s) / (1 - a_t)) sqrt(1 - a_t / a_s)
    mu_t    = sqrt(a_s) x0 + sqrt(1 - a_s - sigma_t^2) eps

Shape key: N samples, T steps, C H W of the latents; ``a_t`` is the cumulative alpha, ``s`` the step after ``t``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from clinalign.core.errors import UserError

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class DdimSchedule:
    """The T steps of a sampler, noisiest first.

    Attributes:
        timesteps: ``(T,)`` int64, the network's time inputs.
        alpha_t: ``(T,)`` cumulative alpha at the state of each step.
        alpha_s: ``(T,)`` cumulative alpha after the step.
        sigma: ``(T,)`` standard deviation of the step's noise; 0 where the step is deterministic.
    """

    timesteps: torch.Tensor
    alpha_t: torch.Tensor
    alpha_s: torch.Tensor
    sigma: torch.Tensor

    def __len__(self) -> int:
        """Return the number of steps T."""
        return len(self.timesteps)


def ddim_schedule(scheduler: Any, steps: int, eta: float) -> DdimSchedule:
    """Read the steps of a diffusers ``DDIMScheduler`` once, so that the loop never asks it again.

    Args:
        scheduler: A ``diffusers.DDIMScheduler``.
        steps: Number of denoising steps T.
        eta: 0 for deterministic DDIM, 1 for the ancestral variance.

    Returns:
        The schedule in float64, on the CPU.

    Raises:
        UserError: When the scheduler was not made for so many steps.
    """
    cumulative = scheduler.alphas_cumprod.double()
    if not 1 <= steps <= len(cumulative):
        raise UserError(f"{steps} denoising steps: this model's scheduler takes 1 to {len(cumulative)}")
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps.cpu().long()
    if int(timesteps.max()) >= len(cumulative):  # an offset moved the first step past the end
        raise UserError(f"{steps} denoising steps: this model's scheduler has an offset and takes fewer")
    previous = timesteps - scheduler.config.num_train_timesteps // steps
    alpha_t = cumulative[timesteps]
    alpha_s = torch.where(previous >= 0, cumulative[previous.clamp(min=0)], scheduler.final_alpha_cumprod.double())
    variance = (1 - alpha_s) / (1 - alpha_t) * (1 - alpha_t / alpha_s)
    return DdimSchedule(timesteps, alpha_t, alpha_s, eta * variance.clamp(min=0).sqrt())


def split_prediction(
    prediction: torch.Tensor, x_t: torch.Tensor, alpha_t: torch.Tensor, prediction_type: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn what the network predicts into (x0, eps).

    Args:
        prediction: ``(N, C, H, W)`` network output.
        x_t: ``(N, C, H, W)`` noisy latents.
        alpha_t: ``(N, 1, 1, 1)`` cumulative alpha.
        prediction_type: ``epsilon``, ``v_prediction`` or ``sample``, as in the scheduler's config.

    Raises:
        ValueError: For another prediction type.
    """
    signal, noise = alpha_t.sqrt(), (1 - alpha_t).sqrt()
    if prediction_type == "epsilon":
        return (x_t - noise * prediction) / signal, prediction
    if prediction_type == "v_prediction":
        return signal * x_t - noise * prediction, signal * prediction + noise * x_t
    if prediction_type == "sample":
        return prediction, (x_t - signal * prediction) / noise
    raise ValueError(f"prediction type '{prediction_type}' is not one of epsilon, v_prediction, sample")


def ddim_mean(
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    alpha_t: torch.Tensor,
    alpha_s: torch.Tensor,
    sigma: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Return the mean of the policy, ``(N, C, H, W)``.

    Args:
        prediction: ``(N, C, H, W)`` network output.
        x_t: ``(N, C, H, W)`` latents before the step.
        alpha_t: ``(N, 1, 1, 1)`` cumulative alpha before the step.
        alpha_s: ``(N, 1, 1, 1)`` cumulative alpha after it.
        sigma: ``(N, 1, 1, 1)`` standard deviation of the step.
        prediction_type: See :func:`split_prediction`.
    """
    x0, eps = split_prediction(prediction, x_t, alpha_t, prediction_type)
    return alpha_s.sqrt() * x0 + (1 - alpha_s - sigma**2).clamp(min=0).sqrt() * eps


def gaussian_log_prob(
    x: torch.Tensor, mean: torch.Tensor, sigma: torch.Tensor, reduction: Reduction = "mean"
) -> torch.Tensor:
    """Return log N(x; mean, sigma^2) of each sample, ``(N,)``.

    DDPO and RL4Med take the *mean* over latent elements instead of the sum, which divides log-ratios by the number of
    elements; the clip range of the loss belongs to the reduction (methods 1.1).

    Args:
        x: ``(N, C, H, W)`` what was drawn.
        mean: ``(N, C, H, W)`` mean of the policy.
        sigma: ``(N, 1, 1, 1)`` standard deviation, positive.
        reduction: ``mean`` or ``sum`` over C, H, W.
    """
    density = -((x - mean) ** 2) / (2 * sigma**2) - sigma.log() - 0.5 * math.log(2 * math.pi)
    return density.flatten(1).mean(1) if reduction == "mean" else density.flatten(1).sum(1)


def gaussian_kl(
    mean: torch.Tensor, other: torch.Tensor, sigma: torch.Tensor, reduction: Reduction = "mean"
) -> torch.Tensor:
    """Return KL(N(mean, sigma^2) || N(other, sigma^2)) of each sample, ``(N,)``: ||mean - other||^2 / (2 sigma^2).

    Args:
        mean: ``(N, C, H, W)``.
        other: ``(N, C, H, W)``.
        sigma: ``(N, 1, 1, 1)``, positive.
        reduction: ``mean`` or ``sum`` over C, H, W, the same as for the log-probability.
    """
    divergence = (mean - other) ** 2 / (2 * sigma**2)
    return divergence.flatten(1).mean(1) if reduction == "mean" else divergence.flatten(1).sum(1)
