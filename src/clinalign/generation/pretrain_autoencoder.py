"""Training the small autoencoder of a generator built from scratch.

At these sizes a patch of a medical picture lies close to a linear subspace, so the encoder is not trained at all: it is
set, in closed form, to nested principal components. Only the decoder is trained, by regression.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clinalign.core.progress import track
from clinalign.core.seeds import derive_seed
from clinalign.generation.one_cycle import one_cycle

# Noise on the latents while training, where their largest component has a spread of 0.5: the decoder learns to forgive
# the small errors that a denoiser makes.
LATENT_NOISE = 0.02
PCA_IMAGES = 1000


@torch.no_grad()
def set_principal_components(vae: Any, images: torch.Tensor) -> None:
    """Set an encoder without nonlinear blocks to the principal components of non-overlapping patches.

    Each stride-2 convolution projects the 2 x 2 neighbourhoods of its input on their leading components; the last one
    centres the latents and scales component k to a spread of 0.5 sqrt(s_k / s_1): half-way between the components' own
    sizes, which would drown the small ones in noise, and whitening, which would make them as loud as the large ones.

    Args:
        vae: An ``AutoencoderTiny`` whose encoder has no blocks; at least 3 channels wide.
        images: ``(N, 3, H, W)`` uint8.
    """
    convolutions = [layer for layer in vae.encoder.layers if isinstance(layer, nn.Conv2d)]
    device = convolutions[0].weight.device
    for layer in convolutions:
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    x = images[:: max(1, len(images) // PCA_IMAGES)].to(device).float() / 255 - 0.5
    first, *halving, last = convolutions
    assert first.bias is not None  # AutoencoderTiny gives the first and the last one
    assert last.bias is not None
    for channel in range(3):
        first.weight[channel, channel, 1, 1] = 1.0
        first.bias[channel] = -0.5
    for layer in halving:
        channels = x.shape[1]
        patches = F.pixel_unshuffle(x, 2)
        rows = patches.permute(0, 2, 3, 1).reshape(-1, 4 * channels).double()
        _, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        basis = vectors.flip(1)[:, : min(layer.out_channels, 4 * channels)].float()
        layer.weight[: basis.shape[1], :channels, 1:, 1:] = basis.T.reshape(-1, channels, 2, 2)
        x = torch.einsum("nchw,ck->nkhw", patches, basis)
    latents = x[:, : last.out_channels]
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3)).clamp_min(1e-6)
    scale = 0.5 * (spread / spread[0]).sqrt() / spread
    for channel in range(latents.shape[1]):
        last.weight[channel, channel, 1, 1] = scale[channel]
        last.bias[channel] = -mean[channel] * scale[channel]


def train_autoencoder(
    vae: Any, images: torch.Tensor, steps: int, seed: int, batch_size: int = 16, learning_rate: float = 4e-3
) -> float:
    """Set the encoder in closed form and train the decoder on random crops of half the side.

    Crops, because the decoder needs many small patches more than it needs whole pictures.

    Args:
        vae: An ``AutoencoderTiny``; changed in place, its ``scaling_factor`` set so that latents have unit variance.
        images: ``(N, 3, H, W)`` uint8.
        steps: Optimiser steps.
        seed: Of weights, crops and noise.
        batch_size: Crops a step.
        learning_rate: Peak of the one-cycle schedule.

    Returns:
        Reconstruction error of the last tenth of the steps, as PSNR in dB.
    """
    chance = torch.Generator().manual_seed(derive_seed(seed, "autoencoder"))
    set_principal_components(vae, images)
    _start_as_upsampling(vae, chance)
    grid = 2 ** (len(vae.config.encoder_block_out_channels) - 1)  # crops start where the encoder's patches start
    crop = images.shape[-1] // 2
    decoder = list(vae.decoder.parameters())
    optimizer = torch.optim.AdamW(decoder, learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = one_cycle(optimizer, learning_rate, steps, warm_up=0.1)
    device = decoder[0].device
    vae.train().requires_grad_(False)
    vae.decoder.requires_grad_(True)
    errors: list[float] = []
    for step in track(range(steps), "autoencoder"):
        rows = torch.randint(0, len(images), (batch_size,), generator=chance)
        top, left = (grid * torch.randint(0, crop // grid + 1, (2,), generator=chance)).tolist()
        batch = images[rows, :, top : top + crop, left : left + crop].to(device).float() / 127.5 - 1
        latents = vae.encode(batch).latents
        noise = torch.randn(latents.shape, generator=chance).to(device)
        decoded = vae.decode(latents + LATENT_NOISE * noise).sample
        squared = (decoded - batch).square().mean()
        loss = squared + 0.1 * (decoded - batch).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder, 1.0)
        optimizer.step()
        schedule.step()
        if step >= steps - max(1, steps // 10):
            errors.append(float(squared.detach()))
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        sample = images[:: max(1, len(images) // 256)].to(device).float() / 127.5 - 1
        vae.register_to_config(scaling_factor=float(1.0 / vae.encode(sample).latents.std()))
    return float(10 * torch.log10(4.0 / torch.tensor(errors).mean()))


@torch.no_grad()
def _start_as_upsampling(vae: Any, chance: torch.Generator) -> None:
    """Let the decoder's inner convolutions begin as the identity: the decoder begins as an enlargement."""
    for layer in vae.decoder.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            nn.init.dirac_(layer.weight)
            layer.weight.add_(0.02 * torch.randn(layer.weight.shape, generator=chance).to(layer.weight.device))
