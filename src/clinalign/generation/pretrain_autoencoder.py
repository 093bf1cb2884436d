"""Training the small autoencoder of a generator built from scratch."""

from __future__ import annotations

from typing import Any

import torch

from clinalign.core.progress import track
from clinalign.core.seeds import derive_seed

# Noise on the latents while training, in units of the decoder's own range of +-3: the decoder learns to forgive the
# small errors that a denoiser makes, and latents spread out instead of hiding details in tiny differences.
LATENT_NOISE = 0.05


def train_autoencoder(
    vae: Any, images: torch.Tensor, steps: int, seed: int, batch_size: int = 16, crop: int = 32, learning_rate: float = 4e-3
) -> float:
    """Train on random crops: a convolutional autoencoder needs many small patches more than it needs whole pictures.

    Args:
        vae: An ``AutoencoderTiny``; trained in place, its ``scaling_factor`` set so that latents have unit variance.
        images: ``(N, 3, H, W)`` uint8.
        steps: Optimiser steps.
        seed: Of crops and noise.
        batch_size: Crops a step.
        crop: Side of a crop in pixels.
        learning_rate: Peak of the one-cycle schedule.

    Returns:
        Reconstruction error of the last tenth of the steps, as PSNR in dB.
    """
    chance = torch.Generator().manual_seed(derive_seed(seed, "autoencoder"))
    crop = min(crop, images.shape[-1])
    optimizer = torch.optim.AdamW(vae.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    device = next(vae.parameters()).device
    vae.train().requires_grad_(True)
    errors: list[float] = []
    for step in track(range(steps), "autoencoder"):
        rows = torch.randint(0, len(images), (batch_size,), generator=chance)
        span = images.shape[-1] - crop + 1
        top, left = torch.randint(0, span, (2,), generator=chance).tolist()
        batch = images[rows, :, top : top + crop, left : left + crop].to(device).float() / 127.5 - 1
        latents = vae.encode(batch).latents
        noise = torch.randn(latents.shape, generator=chance).to(device)
        decoded = vae.decode(latents + LATENT_NOISE * noise).sample
        squared = (decoded - batch).square().mean()
        loss = squared + 0.1 * (decoded - batch).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step >= steps - max(1, steps // 10):
            errors.append(float(squared.detach()))
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        sample = images[:: max(1, len(images) // 256)].to(device).float() / 127.5 - 1
        vae.register_to_config(scaling_factor=float(1.0 / vae.encode(sample).latents.std()))
    return float(10 * torch.log10(4.0 / torch.tensor(errors).mean()))
