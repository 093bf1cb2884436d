"""How well a generator denoises given images: what the loss attack on its training set looks at."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clinalign.core.seeds import derive_seed
from clinalign.generation.ddim import DdimSchedule
from clinalign.generation.generator import Generator
from clinalign.generation.noising import add_noise, prediction_target

LEVELS = (0.1, 0.25, 0.4, 0.6)  # share of the noising that is done; where memory shows is not known beforehand (R)
DRAWS = 2  # noises of each level


@torch.no_grad()
def denoising_errors(
    generator: Generator,
    images: torch.Tensor,
    texts: Sequence[str],
    seed: int = 0,
    levels: Sequence[float] = LEVELS,
    draws: int = DRAWS,
) -> torch.Tensor:
    """Return the mean squared error of the generator's prediction on noisy versions of ``images``.

    Every image meets the same noises at the same levels, so that errors differ by image and not by luck. Each is asked
    with its own text and without guidance, as in training.

    Args:
        generator: In the state to be measured.
        images: ``(N, 3, size, size)`` in ``[0, 1]``.
        texts: N texts.
        seed: Of the noises.
        levels: Shares of the noising, above 0 and at most 1.
        draws: Noises of each level, whose errors are averaged.

    Returns:
        ``(N, len(levels))`` float64 on the CPU.
    """
    cumulative = generator.scheduler.alphas_cumprod.double().cpu()
    timesteps = torch.tensor([max(0, round(level * len(cumulative)) - 1) for level in levels])
    alphas = cumulative[timesteps]
    schedule = DdimSchedule(timesteps, alphas, alphas, torch.zeros_like(alphas))  # read for its timesteps alone
    latents = generator.encode_images(images)
    condition = generator.encode_text(texts)
    errors = torch.zeros(len(images), len(levels), dtype=torch.float64)
    for column, alpha in enumerate(alphas):
        at = torch.full((len(images),), column)
        level = alpha.float().to(latents.device).expand(len(images), 1, 1, 1)
        for draw in range(draws):
            chance = torch.Generator().manual_seed(derive_seed(seed, "denoising error", column, draw))
            noise = torch.randn(generator.latent_shape, generator=chance).to(latents.device).expand_as(latents)
            prediction, _ = generator.predict(add_noise(latents, noise, level), at, schedule, condition, 1.0)
            target = prediction_target(latents, noise, level, generator.prediction_type)
            errors[:, column] += (prediction.float() - target).square().flatten(1).mean(1).double().cpu()
    return errors / draws
