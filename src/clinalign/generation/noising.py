"""Noise put on clean latents, what the network should then predict, and how much each noise level counts."""

from __future__ import annotations

import torch


def add_noise(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return ``sqrt(alpha) latents + sqrt(1 - alpha) noise``.

    Args:
        latents: ``(N, C, H, W)`` clean latents.
        noise: ``(N, C, H, W)`` standard normal.
        alpha: ``(N, 1, 1, 1)`` cumulative alpha.
    """
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def prediction_target(
    latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """Return what the network should predict for ``sqrt(alpha) latents + sqrt(1 - alpha) noise``.

    Args:
        latents: ``(N, C, H, W)`` clean latents.
        noise: ``(N, C, H, W)`` standard normal.
        alpha: ``(N, 1, 1, 1)`` cumulative alpha.
        prediction_type: ``epsilon``, ``v_prediction`` (arXiv 2202.00512) or ``sample``.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    return latents


def min_snr_weight(alpha: torch.Tensor, gamma: float, prediction_type: str, noisy_steps: bool = False) -> torch.Tensor:
    """Return the Min-SNR loss weight (arXiv 2303.09556, section 3.4) of each sample, ``(N,)``; ones when gamma is 0.

    For v-prediction the published weight ``min(SNR, gamma) / (SNR + 1)`` goes to 0 with the SNR, at the steps that
    decide what the picture shows. ``noisy_steps`` takes ``min(SNR + 1, gamma + 1) / (SNR + 1)`` (R): 1 up to an SNR
    of gamma, and falling beyond it as before.
    """
    snr = (alpha / (1 - alpha)).flatten()
    if gamma <= 0:
        return torch.ones_like(snr)
    clipped = snr.clamp(max=gamma)
    velocity = clipped + 1 if noisy_steps else clipped
    return {"epsilon": clipped / snr, "v_prediction": velocity / (snr + 1)}.get(prediction_type, clipped)
