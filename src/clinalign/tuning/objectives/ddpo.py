"""DDPO: the clipped importance-ratio loss over denoising steps (arXiv 2305.13301, eq. 4; methods 3.3).

``ratio_norm`` (GRPO-Guard, methods 4.2) gives every step the same scale: the gradient of a plain log-ratio carries
``1 / sigma``, so that the steps with the least noise, which change the picture least, drown all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from clinalign.generation.ddim import Reduction


@dataclass(frozen=True)
class DdpoTerms:
    """Loss of each row and what is logged of it, all ``(R,)``.

    Attributes:
        loss: ``max(-A rho, -A clip(rho, 1 - e, 1 + e))``.
        ratio: Importance ratio rho, detached.
        clipped: The ratio lies outside the clip range.
    """

    loss: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def normalised_log_ratio(
    mean: torch.Tensor, x_s: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor, reduction: Reduction
) -> torch.Tensor:
    """Return ``sigma (log rho + ||mu - mu_old||^2 / (2 sigma^2))`` of R rows, ``(R,)``.

    With ``x_s = mu_old + sigma noise`` this is ``(mu - mu_old) . noise``: its mean is zero on the old policy, and its
    scale does not depend on the step.

    Args:
        mean: ``(R, C, H, W)`` mean of the current policy, with its graph.
        x_s: ``(R, C, H, W)`` what the old policy drew.
        noise: ``(R, C, H, W)`` standard normal noise of that draw.
        sigma: ``(R, 1, 1, 1)`` standard deviation of the step.
        reduction: ``mean`` or ``sum`` over C, H, W, as of the log-probabilities.
    """
    product = ((mean - (x_s - sigma * noise)) * noise).flatten(1)
    return product.mean(1) if reduction == "mean" else product.sum(1)


def ddpo_loss(log_ratio: torch.Tensor, advantage: torch.Tensor, clip_range: float) -> DdpoTerms:
    """Return the clipped surrogate loss of R (sample, step) rows.

    Args:
        log_ratio: ``(R,)`` log of the current policy's probability over that of the policy that drew the samples, with
            its graph; or :func:`normalised_log_ratio`.
        advantage: ``(R,)`` advantage of each row's sample.
        clip_range: e; belongs to the reduction of the log-probability (1e-4 for the mean over elements).
    """
    ratio = log_ratio.exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_range, 1 + clip_range))
    return DdpoTerms(loss, ratio.detach(), (ratio.detach() - 1).abs() > clip_range)
