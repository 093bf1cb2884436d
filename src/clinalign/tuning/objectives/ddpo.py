"""DDPO: the clipped importance-ratio loss over denoising steps (arXiv 2305.13301, eq. 4; methods 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DdpoTerms:
    """Loss of each row and what is logged of it, all ``(R,)``.

    Attributes:
        loss: ``max(-A rho, -A clip(rho, 1 - e, 1 + e))``.
        ratio: Importance ratio rho, detached.
        clipped: The ratio lies outside the clip range.
        kl_old: 0.5 (log-ratio)^2, an estimate of the distance to the policy that drew the sample.
    """

    loss: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor
    kl_old: torch.Tensor


def ddpo_loss(log_prob: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, clip_range: float) -> DdpoTerms:
    """Return the clipped surrogate loss of R (sample, step) rows.

    Args:
        log_prob: ``(R,)`` log-probability under the current policy, with its graph.
        old: ``(R,)`` log-probability under the policy that drew the samples.
        advantage: ``(R,)`` advantage of each row's sample.
        clip_range: e; belongs to the reduction of the log-probability (1e-4 for the mean over elements).
    """
    log_ratio = log_prob - old
    ratio = log_ratio.exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_range, 1 + clip_range))
    off = log_ratio.detach()
    return DdpoTerms(loss, ratio.detach(), (ratio.detach() - 1).abs() > clip_range, 0.5 * off**2)
